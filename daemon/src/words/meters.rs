//! Energy domains in words: what each covers, what it is used for or why not, and whether it is believed.

use super::platform::is_chosen;
use crate::model::domain::{Domain, Scope, Zone};
use crate::model::snapshot::{DomainView, Role, Snapshot};
use crate::sys::safe_text::safe;

/// What a domain covers.
pub fn sees(domain: &Domain) -> String {
    let of = match domain.scope {
        Scope::Package(package) => format!(" {}", package.0),
        Scope::Machine | Scope::Gpu(_) => String::new(),
    };
    match domain.zone {
        Zone::Package => format!("processor package{of}"),
        Zone::Core => format!("cores of package{of}"),
        Zone::Uncore => format!("graphics in package{of}"),
        Zone::Dram if of.is_empty() => "memory".to_owned(),
        Zone::Dram => format!("memory at package{of}"),
        Zone::Psys => "the platform, as its processor sees it".to_owned(),
        Zone::Platform => "the whole machine".to_owned(),
        Zone::Gpu => domain
            .gpu
            .as_ref()
            .map_or_else(|| "a GPU".to_owned(), |gpu| format!("GPU {} ({}, {})", gpu.index, gpu.name, gpu.vendor)),
        Zone::Other => "fans, disks, network, losses".to_owned(),
    }
}

/// Whether what the domain's meter says can be true; `None`: it is not judged here.
pub fn verdict(view: &DomainView) -> Option<&'static str> {
    view.is_judged().then(|| view.verdict.as_str())
}

/// The zones of other domains here whose energy is part of this domain's.
pub fn contains(view: &DomainView, snapshot: &Snapshot) -> String {
    let within = |other: &Domain| match view.domain.zone {
        Zone::Package => match other.zone {
            Zone::Core | Zone::Uncore => other.scope == view.domain.scope,
            Zone::Dram => !other.billed && other.scope == view.domain.scope,
            _ => false,
        },
        Zone::Psys => matches!(other.zone, Zone::Package | Zone::Dram | Zone::Core | Zone::Uncore),
        Zone::Platform => !matches!(other.zone, Zone::Platform),
        Zone::Core | Zone::Uncore | Zone::Dram | Zone::Gpu | Zone::Other => false,
    };
    if view.domain.zone == Zone::Platform {
        return "everything".to_owned();
    }
    let mut words: Vec<&str> = snapshot
        .domains
        .iter()
        .filter(|other| !other.past && within(&other.domain))
        .map(|other| other.domain.zone.as_str())
        .collect();
    words.sort_unstable();
    words.dedup();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

/// What a domain is used for, or why for nothing.
pub fn used_for(view: &DomainView, snapshot: &Snapshot) -> String {
    let platform = &snapshot.platform;
    let choice = safe(platform.choice.as_str());
    // A domain that cannot be read is not used, whatever its role.
    let silent = view.power.is_none() && !view.error.is_empty();
    let what = match (view.role, &platform.authority) {
        (Role::Past, _) => return format!("nothing: {}", safe(&view.error)),
        (Role::Comparison, None) if is_chosen(&platform.choice) => return format!("nothing: platform = \"{choice}\""),
        (Role::Comparison, None) if platform.host_reports => {
            return "nothing: this VM's host reports its energy".to_owned();
        }
        (Role::Comparison, None) => "nothing yet: all meters of its kind have to measure first".to_owned(),
        (Role::Comparison, Some(authority)) => format!("comparison with {}", safe(authority.as_str())),
        (Role::Billed, _) if view.shares_estimated => "billed; shares are an estimate".to_owned(),
        (Role::Billed, _) => "billed".to_owned(),
        (Role::Breakdown, _) => "breakdown".to_owned(),
        (Role::Authority, _) => "authority".to_owned(),
    };
    if silent { format!("nothing now: no reading ({what})") } else { what }
}

/// The error that its maker states.
pub fn accuracy(domain: &Domain) -> String {
    domain.accuracy_ppm.map_or_else(|| "not stated".to_owned(), |ppm| format!("± {:.1} %", f64::from(ppm) / 1e4))
}
