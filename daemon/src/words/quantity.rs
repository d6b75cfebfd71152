//! Quantities as people read them: power, energy, shares, spans of time.

use crate::model::units::{Microjoules, Microwatts, Nanos};

/// A power with three significant digits: `45.6 mW`.
pub fn watts(power: Microwatts) -> String {
    si(power.watts(), "W")
}

/// An energy with three significant digits: `1.23 MJ`.
pub fn joules(energy: Microjoules) -> String {
    si(energy.joules(), "J")
}

fn si(value: f64, unit: &str) -> String {
    const PREFIXES: [(f64, &str); 9] = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1.0, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
    ];
    // 999.6 has three digits as 1.00 k, so the limits are half a digit below the powers of ten.
    let Some((scale, prefix)) = PREFIXES.into_iter().find(|(scale, _)| value >= scale * 0.9995) else {
        return format!("0 {unit}");
    };
    let value = value / scale;
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {prefix}{unit}")
}

/// A part of a whole in per cent; `-` of nothing.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 / whole as f64 * 100.0) }
}

/// A span of time in at most two units: `0.3 s`, `12 s`, `3 min 4 s`, `2 h 5 min`, `3 d 4 h`.
pub fn span(time: Nanos) -> String {
    let seconds = time.0 / 1_000_000_000;
    match seconds {
        0..10 => format!("{:.1} s", time.seconds()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_three_digits() {
        let cases = [
            (0, "0 W"),
            (1, "1.00 µW"),
            (999, "999 µW"),
            (45_600, "45.6 mW"),
            (999_400, "999 mW"),
            (999_600, "1.00 W"),
            (9_994_000, "9.99 W"),
            (9_996_000, "10.0 W"),
            (99_960_000, "100 W"),
            (123_456_000, "123 W"),
            (1_234_560_000, "1.23 kW"),
            (u64::MAX, "18.4 TW"),
        ];
        for (power, shown) in cases {
            assert_eq!(watts(Microwatts(power)), shown);
        }
        assert_eq!(joules(Microjoules(2_500_000_000_000)), "2.50 MJ");
    }

    #[test]
    fn spans_have_at_most_two_units() {
        assert_eq!(span(Nanos(300_000_000)), "0.3 s");
        assert_eq!(span(Nanos(7_500_000_000_000)), "2 h 5 min");
    }
}
