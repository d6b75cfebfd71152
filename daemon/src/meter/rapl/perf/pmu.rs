//! The kernel's description of the PMUs `power` and `power_core` in sysfs: type, CPUs, events and their scale. Opens no
//! event.

use crate::meter::file::{PAGE, read_text};
use crate::meter::topology::parse_cpu_list;
use crate::model::domain::Zone;
use std::path::Path;

/// The energy events that may exist, by file name, and their zones.
const EVENTS: [(&str, Zone); 5] = [
    ("energy-pkg", Zone::Package),
    ("energy-cores", Zone::Core),
    ("energy-gpu", Zone::Uncore),
    ("energy-ram", Zone::Dram),
    ("energy-psys", Zone::Psys),
];
/// The event of the PMU `power_core`.
const CORE_EVENTS: [(&str, Zone); 1] = [("energy-core", Zone::Core)];

/// The PMU.
pub(super) struct Pmu {
    pub(super) kind: u32,
    pub(super) events: Vec<Event>,
}

/// One of its events.
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) zone: Zone,
    pub(super) config: u64,
    pub(super) scale: Scale,
}

/// Reads `dir` (`…/event_source/devices/power`). `Ok(None)`: no such PMU, or one without energy events (as in many
/// guests).
///
/// # Errors
/// The description of an energy event cannot be parsed: one line that names the file.
pub(super) fn discover(dir: &Path, amd: bool) -> Result<Option<Pmu>, String> {
    // On AMD processors this event counts the energy of one core only, where it exists: see `cores`.
    describe(dir, EVENTS.into_iter().filter(|(_, zone)| !amd || *zone != Zone::Core), Zone::Package)
}

/// Reads `dir` (`…/event_source/devices/power_core`), as [`discover`].
///
/// # Errors
/// As [`discover`].
pub(super) fn discover_cores(dir: &Path) -> Result<Option<Pmu>, String> {
    describe(dir, CORE_EVENTS.into_iter(), Zone::Core)
}

/// The PMU with those of `known` events that exist; `None` where none of them is of the zone `least`.
fn describe(dir: &Path, known: impl Iterator<Item = (&'static str, Zone)>, least: Zone) -> Result<Option<Pmu>, String> {
    let mut events = Vec::new();
    for (name, zone) in known {
        let path = dir.join("events").join(name);
        if !path.exists() {
            continue;
        }
        let sibling = |suffix: &str| dir.join("events").join(format!("{name}.{suffix}"));
        let unit = read_text(&sibling("unit"), PAGE)?;
        if unit != "Joules" {
            return Err(format!("{}: unit {unit:?} instead of \"Joules\"", sibling("unit").display()));
        }
        let value =
            parse_event(&read_text(&path, PAGE)?).ok_or_else(|| format!("{}: no event number", path.display()))?;
        let format = dir.join("format/event");
        let shift = parse_format(&read_text(&format, PAGE)?)
            .ok_or_else(|| format!("{}: not bits of config", format.display()))?;
        let scale = read_text(&sibling("scale"), PAGE)?;
        events.push(Event {
            name,
            zone,
            config: value.checked_shl(shift).unwrap_or(0),
            scale: Scale::parse(&scale)
                .ok_or_else(|| format!("{}: no usable scale: {scale:?}", sibling("scale").display()))?,
        });
    }
    if !events.iter().any(|event| event.zone == least) {
        return Ok(None);
    }
    let path = dir.join("type");
    let kind = read_text(&path, PAGE)?.parse().map_err(|_| format!("{}: no number", path.display()))?;
    Ok(Some(Pmu { kind, events }))
}

/// The CPUs to open the events on: one for each package, or on some kernels one for each die; of `power_core` one for
/// each core.
pub(super) fn cpumask(dir: &Path) -> Result<Vec<u32>, String> {
    let path = dir.join("cpumask");
    parse_cpu_list(&read_text(&path, 16 * PAGE)?).ok_or_else(|| format!("{}: no list of CPUs", path.display()))
}

/// Parses `event=0x02`.
fn parse_event(text: &str) -> Option<u64> {
    let value = text.strip_prefix("event=")?;
    match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

/// The first bit of `config:0-7`.
fn parse_format(text: &str) -> Option<u32> {
    let bits = text.strip_prefix("config:")?;
    bits.split('-').next()?.parse().ok().filter(|shift| *shift < 64)
}

/// Joules per count, as an exact fraction of microjoules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    numerator: u64,
    denominator: u128,
}

impl Scale {
    /// Parses joules per count, `2.3283064365386962890625e-10`. `None` where it is no positive number, or has more
    /// digits than the fraction can hold.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.trim().split_once(['e', 'E']).unwrap_or((text.trim(), "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut numerator = 0u128;
        for digit in whole.bytes().chain(fraction.bytes()) {
            let digit = digit.is_ascii_digit().then(|| u128::from(digit - b'0'))?;
            numerator = numerator.checked_mul(10)?.checked_add(digit)?;
        }
        // In microjoules.
        let power = exponent.parse::<i32>().ok()?.checked_add(6)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let ten = 10u128.checked_pow(power.unsigned_abs())?;
        let (numerator, denominator) = if power >= 0 { (numerator.checked_mul(ten)?, 1) } else { (numerator, ten) };
        let divisor = gcd(numerator, denominator);
        let numerator = u64::try_from(numerator / divisor).ok().filter(|numerator| *numerator > 0)?;
        Some(Self { numerator, denominator: denominator / divisor })
    }

    /// A cumulative count in microjoules, rounded down. Computed from the whole count each time, so that rounding
    /// does not add up.
    pub(super) fn microjoules(self, count: u64) -> u64 {
        u64::try_from(u128::from(count) * u128::from(self.numerator) / self.denominator).unwrap_or(u64::MAX)
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAPL: &str = "2.3283064365386962890625e-10";

    #[test]
    fn the_scale_of_rapl_is_exact() {
        let scale = Scale::parse(RAPL).unwrap();
        assert_eq!(scale, Scale { numerator: 15625, denominator: 1 << 26 });
        assert_eq!(scale.microjoules(1 << 32), 1_000_000);
        assert_eq!(scale.microjoules(u64::MAX), 4_294_967_295_999_999);
    }

    #[test]
    fn other_scales() {
        assert_eq!(Scale::parse("1").unwrap().microjoules(3), 3_000_000);
        assert_eq!(Scale::parse("1e-6").unwrap().microjoules(3), 3);
        assert_eq!(Scale::parse("0.5E1").unwrap().microjoules(3), 15_000_000);
        assert_eq!(Scale::parse("1e12").unwrap().microjoules(u64::MAX), u64::MAX);
        for bad in [
            "",
            "0",
            "-1",
            "nan",
            "inf",
            "1e",
            "1e-99",
            "1e99999999999",
            "1.2.3",
            "0x1",
            "1e-2147483648",
            "1e2147483647",
        ] {
            assert_eq!(Scale::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn terms() {
        assert_eq!(parse_event("event=0x02"), Some(2));
        assert_eq!(parse_event("event=5"), Some(5));
        assert_eq!(parse_event("event=0x02,umask=1"), None);
        assert_eq!(parse_format("config:0-7"), Some(0));
        assert_eq!(parse_format("config:8"), Some(8));
        assert_eq!(parse_format("config1:0-7"), None);
        assert_eq!(parse_format("config:64-70"), None);
    }

    proptest! {
        #[test]
        fn counts_convert_without_drift(counts in proptest::collection::vec(0u64..1 << 40, 1..50)) {
            let scale = Scale::parse(RAPL).unwrap();
            let (mut total, mut given) = (0u64, 0u64);
            for count in counts {
                let before = scale.microjoules(total);
                total += count;
                given += scale.microjoules(total) - before;
            }
            prop_assert_eq!(u128::from(given), (u128::from(total) * 1_000_000) >> 32);
        }

        #[test]
        fn any_text_is_survived(text in "[0-9.eE+-]{0,60}|.*", count: u64) {
            let _ = (parse_event(&text), parse_format(&text), Scale::parse(&text).map(|scale| scale.microjoules(count)));
        }
    }
}
