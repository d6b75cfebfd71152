//! The platform meters in words: which one is the authority, why none is, and whether they agree. Shared by `status`,
//! `meters`, `top`, and the footers of all tables.

use crate::model::platform::PlatformChoice;
use crate::model::snapshot::{Comparison, Snapshot};
use crate::sys::safe_text::safe;

/// One line on the authority.
pub fn line(snapshot: &Snapshot) -> String {
    let platform = &snapshot.platform;
    let choice = safe(platform.choice.as_str());
    match &platform.authority {
        Some(authority) => {
            let authority = safe(authority.as_str());
            format!("Platform: {authority} is believed (platform = \"{choice}\" in [attribution]).")
        }
        None if platform.host_reports => {
            "Platform: no meter is believed by default, as this VM's host reports its energy (platform = \"auto\" in [attribution])."
                .to_owned()
        }
        None => format!("Platform: {}.", why_no_authority(&platform.choice)),
    }
}

/// Whether the configuration chooses the authority, or rules out that there is one: `[attribution] platform`.
pub fn is_chosen(choice: &PlatformChoice) -> bool {
    *choice != PlatformChoice::Auto
}

/// Why there is no authority.
pub fn why_no_authority(choice: &PlatformChoice) -> String {
    match choice {
        PlatformChoice::None => "no meter is believed, as platform = \"none\" in [attribution]".to_owned(),
        PlatformChoice::Auto => "no meter of the whole machine measures now".to_owned(),
        PlatformChoice::Kind(kind) => format!(
            "no meter is believed: platform = \"{0}\" in [attribution] allows {0} alone, and no meter of that kind measures now",
            safe(kind.as_str())
        ),
    }
}

/// One line for each meter that disagrees with the authority.
pub fn disagreements(snapshot: &Snapshot) -> impl Iterator<Item = String> + '_ {
    snapshot.platform.comparisons.iter().filter(|one| !one.agrees()).map(comparison)
}

/// One line on how far a meter is off the authority.
pub fn comparison(one: &Comparison) -> String {
    let percent = |ppm: u64| ppm as f64 / 1e4;
    let (source, against) = (safe(&one.source), safe(&one.against));
    let what = match one.off_ppm {
        0 if source == "components" => format!("The components together draw no more than {against} says"),
        // psys covers a part of the machine, so less is no difference.
        0 if source == "psys" => format!("psys says no more than {against}"),
        _ if source == "components" => {
            format!(
                "The components together draw {:.1} % more than {against} says",
                percent(one.off_ppm.unsigned_abs())
            )
        }
        0 => format!("{source} says what {against} says"),
        off if off > 0 => format!("{source} says {:.1} % more than {against}", percent(off.unsigned_abs())),
        off => format!("{source} says {:.1} % less than {against}", percent(off.unsigned_abs())),
    };
    let verdict = if one.agrees() {
        "they agree"
    } else {
        "THEY DISAGREE: one of them is wrong, or does not see this machine alone"
    };
    format!("{what}; together they may be off by {:.1} %: {verdict}.", percent(u64::from(one.allowed_ppm)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_draws_less_than_the_whole_is_not_said_to_say_the_same() {
        let words = |source: &'static str, ppm| comparison(&Comparison::new(source, "redfish", ppm, 100_000));
        assert!(words("psys", 0).starts_with("psys says no more than redfish; "), "{}", words("psys", 0));
        assert!(words("ipmi", 0).starts_with("ipmi says what redfish says; "));
        let much = words("components", 250_000);
        assert!(
            much.starts_with("The components together draw 25.0 % more than redfish says; ")
                && much.contains("DISAGREE"),
            "{much}"
        );
    }
}
