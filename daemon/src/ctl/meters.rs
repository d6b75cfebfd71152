//! `joulectl meters`: every energy domain of this machine, what it covers, what it is used for or why not, and the
//! platform meters compared. Pure: snapshot in, text out.

use super::platform;
use super::sources::{Source, ago, remarks, source_name};
use super::text::{self, safe};
use crate::model::domain::Verdict;
use crate::model::platform::PlatformKind;
use crate::model::snapshot::{DomainView, Role, Snapshot};
use crate::model::source::{Health, SourceRole};
use crate::model::units::{Microwatts, Nanos};
pub use crate::words::meters::{accuracy, contains, sees, used_for, verdict};
use serde::Serialize;

/// As text. `now`: CLOCK_MONOTONIC, for ages of readings.
pub fn lines(snapshot: &Snapshot, now: Nanos) -> Vec<String> {
    let heads = ["DOMAIN", "SEES", "CONTAINS", "USED FOR", "POWER", "VERDICT", "LAST READ", "ACCURACY", "SOURCE"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    rows.extend(snapshot.domains.iter().map(|view| {
        vec![
            safe(&view.domain.id),
            safe(&sees(&view.domain)),
            contains(view, snapshot),
            used_for(view, snapshot),
            view.power.map_or_else(|| "-".to_owned(), text::watts),
            verdict(view).unwrap_or("-").to_owned(),
            ago(now, view.read_at),
            accuracy(&view.domain),
            safe(&view.domain.source),
        ]
    }));
    let mut lines = text::table(&rows, false, None);
    if snapshot.domains.is_empty() {
        lines = vec!["No meter works on this machine.".to_owned()];
    }
    lines.extend(meanings(snapshot));
    let doubts = |view: &&DomainView| view.verdict != Verdict::Usable;
    let doubt = |view: &DomainView| {
        let is = if matches!(view.verdict, Verdict::NoPower(_)) { "has" } else { "is" };
        format!("{} {is} {}: {}", safe(&view.domain.id), view.verdict.as_str(), safe(view.verdict.why()))
    };
    lines.extend(snapshot.domains.iter().filter(doubts).map(doubt));
    lines.push(String::new());
    lines.push(platform::line(snapshot));
    lines.extend(snapshot.platform.comparisons.iter().map(platform::comparison));
    lines.extend(snapshot.platform.unmetered.iter().map(|gpu| {
        format!("GPU {gpu} is passed through to a VM and has no meter: its energy is in `other`, which is therefore unattributed.")
    }));
    lines.push(String::new());
    lines.extend(sources(snapshot, now));
    lines
}

/// The meaning of each word that is under USED FOR here.
fn meanings(snapshot: &Snapshot) -> impl Iterator<Item = String> + '_ {
    const MEANINGS: [(Role, &str); 4] = [
        (Role::Billed, "billed: shared out, and part of the sum that counts everything once"),
        (Role::Breakdown, "breakdown: shown beside what contains it, never added to it"),
        (Role::Authority, "authority: what it sees beyond packages, memory and GPUs is `other`"),
        (Role::Comparison, "comparison: only compared with the authority"),
    ];
    let there = |role: Role| snapshot.domains.iter().any(|view| view.role == role);
    MEANINGS.into_iter().filter(move |(role, _)| there(*role)).map(|(_, words)| words.to_owned())
}

/// Whether a source reads energy or reports which processes used GPUs.
const fn is_shown(role: SourceRole) -> bool {
    matches!(role, SourceRole::Meter | SourceRole::GpuUsage)
}

fn sources(snapshot: &Snapshot, now: Nanos) -> Vec<String> {
    let mut rows = vec![["SOURCE", "STATE", "LAST READ", "WHAT, WHY"].map(String::from).to_vec()];
    for view in snapshot.sources.iter().filter(|view| is_shown(view.role)) {
        let read_at = if matches!(view.health, Health::Unsupported(_)) && view.read_at.is_none() {
            "-".to_owned()
        } else {
            ago(now, view.read_at)
        };
        rows.push(vec![source_name(view), view.health.as_str().to_owned(), read_at, remarks(view)]);
    }
    text::table(&rows, false, None)
}

/// `joulectl meters --json`. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Meters<'a> {
    domains: Vec<Meter<'a>>,
    platform_choice: &'a str,
    platform_authority: Option<&'a str>,
    comparisons: Vec<Compared<'a>>,
    sources: Vec<Source<'a>>,
}

#[derive(Debug, Serialize)]
struct Meter<'a> {
    domain: &'a str,
    source: &'a str,
    zone: &'static str,
    sees: String,
    contains: String,
    role: &'static str,
    used_for: String,
    watts: Option<f64>,
    microjoules: u64,
    age_seconds: Option<f64>,
    accuracy_ratio: Option<f64>,
    quality: &'static str,
    error: &'a str,
    verdict: Option<&'static str>,
    verdict_why: &'a str,
}

#[derive(Debug, Serialize)]
struct Compared<'a> {
    source: &'a str,
    against: &'a str,
    off_ratio: f64,
    allowed_ratio: f64,
    agrees: bool,
}

/// As JSON. `now`: CLOCK_MONOTONIC, for ages of readings.
pub fn json<'a>(snapshot: &'a Snapshot, now: Nanos) -> Meters<'a> {
    let meter = |view: &'a DomainView| Meter {
        domain: &view.domain.id,
        source: &view.domain.source,
        zone: view.domain.zone.as_str(),
        sees: sees(&view.domain),
        contains: contains(view, snapshot),
        role: view.role.as_str(),
        used_for: used_for(view, snapshot),
        watts: view.power.map(Microwatts::watts),
        microjoules: view.energy.total.0,
        age_seconds: view.read_at.map(|at| (now - at).seconds()),
        accuracy_ratio: view.domain.accuracy_ppm.map(|ppm| f64::from(ppm) / 1e6),
        quality: view.domain.quality.as_str(),
        error: &view.error,
        verdict: verdict(view),
        verdict_why: view.verdict.why(),
    };
    let platform = &snapshot.platform;
    Meters {
        domains: snapshot.domains.iter().map(meter).collect(),
        platform_choice: platform.choice.as_str(),
        platform_authority: platform.authority.as_ref().map(PlatformKind::as_str),
        comparisons: platform
            .comparisons
            .iter()
            .map(|one| Compared {
                source: &one.source,
                against: &one.against,
                off_ratio: one.off_ppm as f64 / 1e6,
                allowed_ratio: f64::from(one.allowed_ppm) / 1e6,
                agrees: one.agrees(),
            })
            .collect(),
        sources: snapshot.sources.iter().filter(|view| is_shown(view.role)).map(|view| Source::of(view, now)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::NOW;
    use super::*;
    use crate::export::prometheus::tests::snapshot;
    use crate::export::prometheus::tests::with_platform;
    use crate::model::domain::Zone;

    #[test]
    fn it_says_what_each_sees_and_is_used_for() {
        let text = lines(&with_platform(), NOW).join("\n");
        for words in [
            "the whole machine",
            "  authority  ",
            "authority: what it sees beyond packages, memory and GPUs is `other`",
            "  comparison with redfish  ",
            "GPU 0 (NVIDIA H100 80GB HBM3, nvidia)",
            "Platform: redfish is believed (platform = \"auto\" in [attribution]).",
            "hwmon says 14.3 % less than redfish; together they may be off by 6.0 %: THEY DISAGREE",
            "The components together draw no more than redfish says",
            "rapl-powercap",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
        let text = lines(&snapshot(), NOW).join("\n");
        assert!(text.contains("no meter of the whole machine measures now"), "{text}");
        // In a VM, a BMC may be its host's.
        let mut guest = with_platform();
        (guest.platform.authority, guest.platform.host_reports) = (None, true);
        for view in guest.domains.iter_mut().filter(|view| view.role == Role::Authority) {
            view.role = Role::Comparison;
        }
        let text = lines(&guest, NOW).join("\n");
        assert!(text.contains("nothing: this VM's host reports") && text.contains("believed by default"), "{text}");
    }

    #[test]
    fn what_is_not_used_is_not_said_to_be() {
        let mut snapshot = with_platform();
        let used = |snapshot: &Snapshot, id: &str| {
            let view = snapshot.domains.iter().find(|view| view.domain.id.starts_with(id)).unwrap();
            used_for(view, snapshot)
        };
        let bmc = snapshot.domains.iter_mut().find(|view| view.domain.id.starts_with("redfish")).unwrap();
        (bmc.power, bmc.error) = (None, "no answer within 5 s".into());
        assert_eq!(used(&snapshot, "redfish"), "nothing now: no reading (authority)");
        snapshot.platform.authority = None;
        for view in snapshot.domains.iter_mut().filter(|view| view.domain.zone == Zone::Platform) {
            view.role = Role::Comparison;
        }
        assert_eq!(used(&snapshot, "hwmon"), "nothing yet: all meters of its kind have to measure first");
        snapshot.platform.choice = "ipmi".into();
        assert_eq!(used(&snapshot, "hwmon"), "nothing: platform = \"ipmi\"");
        let text = lines(&snapshot, NOW).join("\n");
        assert!(
            text.contains("Platform: no meter is believed: platform = \"ipmi\" in [attribution] allows ipmi alone"),
            "{text}"
        );
    }

    #[test]
    fn json_has_the_same() {
        let snapshot = with_platform();
        let value = serde_json::to_value(json(&snapshot, NOW)).unwrap();
        assert_eq!(value["platform_authority"], "redfish");
        assert_eq!(
            (&value["comparisons"][0]["agrees"], &value["comparisons"][0]["off_ratio"]),
            (&false.into(), &(-0.142857).into())
        );
        let meter = value["domains"].as_array().unwrap().iter().find(|one| one["domain"] == "other").unwrap();
        assert_eq!((&meter["role"], &meter["zone"]), (&"billed".into(), &"other".into()));
        assert!(meter["verdict"].is_null(), "it is computed");
    }

    #[test]
    fn it_says_what_is_doubted() {
        let mut snapshot = with_platform();
        let package = snapshot.domains.iter_mut().find(|view| view.domain.zone == Zone::Package).unwrap();
        package.verdict = Verdict::Suspect("package 0 draws 10 W, and its parts 40 W".into());
        let id = package.domain.id.clone();
        let text = lines(&snapshot, NOW).join("\n");
        assert!(text.contains(&format!("{id} is suspect: package 0 draws 10 W, and its parts 40 W")), "{text}");
        assert!(text.contains("  suspect  ") && text.contains("  usable  "), "{text}");
        let value = serde_json::to_value(json(&snapshot, NOW)).unwrap();
        let meter = value["domains"].as_array().unwrap().iter().find(|one| one["domain"] == id.as_str()).unwrap();
        assert_eq!(meter["verdict"], "suspect");
        assert_eq!(meter["verdict_why"], "package 0 draws 10 W, and its parts 40 W");
    }
}
