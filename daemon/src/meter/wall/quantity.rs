//! Powers and energies as wall meters write them, with their units: numbers and texts of JSON, and of text protocols.
//! Knows no protocol.

use super::Failure;
use crate::meter::decimal::Decimal;
use crate::model::units::{Microjoules, Microwatts};
use crate::sys::safe_text::excerpt;
use serde::Deserialize;
use serde_json::Value;

/// Largest power of a meter, in µW: 1 MW.
const MOST_POWER: u64 = 1_000_000_000_000;
/// Longest text that can be a number with its unit, in bytes.
const LONGEST: usize = 64;

/// A unit of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PowerUnit {
    /// Milliwatts.
    #[serde(rename = "mW")]
    Milliwatts,
    /// Watts.
    #[default]
    #[serde(rename = "W")]
    Watts,
    /// Kilowatts.
    #[serde(rename = "kW")]
    Kilowatts,
}

/// A unit of energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum EnergyUnit {
    /// Joules.
    #[serde(rename = "J")]
    Joules,
    /// Kilojoules.
    #[serde(rename = "kJ")]
    Kilojoules,
    /// Milliwatt-hours.
    #[serde(rename = "mWh")]
    MilliwattHours,
    /// Watt-minutes.
    #[serde(rename = "Wmin")]
    WattMinutes,
    /// Watt-hours.
    #[serde(rename = "Wh")]
    WattHours,
    /// Kilowatt-hours.
    #[serde(rename = "kWh")]
    KilowattHours,
    /// Megawatt-hours.
    #[serde(rename = "MWh")]
    MegawattHours,
}

impl PowerUnit {
    /// One of it in µW.
    const fn factor(self) -> u64 {
        match self {
            Self::Milliwatts => 1_000,
            Self::Watts => 1_000_000,
            Self::Kilowatts => 1_000_000_000,
        }
    }

    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "mW" => Self::Milliwatts,
            "W" => Self::Watts,
            "kW" => Self::Kilowatts,
            _ => return None,
        })
    }
}

impl EnergyUnit {
    /// One of it in µJ.
    const fn factor(self) -> u64 {
        match self {
            Self::Joules => 1_000_000,
            Self::Kilojoules => 1_000_000_000,
            Self::MilliwattHours => 3_600_000,
            Self::WattMinutes => 60_000_000,
            Self::WattHours => 3_600_000_000,
            Self::KilowattHours => 3_600_000_000_000,
            Self::MegawattHours => 3_600_000_000_000_000,
        }
    }

    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "J" => Self::Joules,
            "kJ" => Self::Kilojoules,
            "mWh" => Self::MilliwattHours,
            "Wmin" => Self::WattMinutes,
            "Wh" => Self::WattHours,
            "kWh" => Self::KilowattHours,
            "MWh" => Self::MegawattHours,
            _ => return None,
        })
    }
}

/// A number, and the unit that was written behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number<'a> {
    number: Decimal,
    unit: Option<&'a str>,
}

impl<'a> Number<'a> {
    /// Reads `123.4` or `123.4 W`. `place`: what is read, for messages.
    ///
    /// # Errors
    /// It is no number, or one that says that there is no value.
    pub fn read(text: &'a str, place: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if text.is_empty() || matches!(text, "unavailable" | "unknown" | "none" | "NA" | "N/A" | "null") {
            return Err(Failure::absent(format!("{place} has no value now (\"{}\")", excerpt(text, LONGEST))));
        }
        let (number, unit) = match text.split_once(' ') {
            Some((number, unit)) => (number, Some(unit.trim()).filter(|unit| !unit.is_empty())),
            None => (text, None),
        };
        let plain = number.strip_prefix('+').unwrap_or(number);
        match Decimal::parse(plain).filter(|_| text.len() <= LONGEST) {
            Some(number) => Ok(Self { number, unit }),
            // Without the value: one that changes would make a new message of the same fault at each reading.
            None if ["nan", "inf", "+inf", "-inf"].contains(&number.to_ascii_lowercase().as_str()) => {
                Err(Failure::absent(format!("{place} has no value now: it is no number (NaN)")))
            }
            None => Err(Failure::unusable(format!("{place} is no number that a meter gives"))),
        }
    }

    /// Reads a value of JSON.
    ///
    /// # Errors
    /// It is no number, or there is none.
    pub fn of(value: &'a Value, place: &str, text: &'a mut String) -> Result<Self, Failure> {
        match value {
            Value::Number(number) => {
                *text = number.to_string();
                Self::read(text, place)
            }
            Value::String(text) => Self::read(text, place),
            Value::Null => Err(Failure::absent(format!("{place} has no value now (null or absent)"))),
            Value::Bool(_) => Err(Failure::unusable(format!("{place} is true or false, not a number"))),
            Value::Array(_) => Err(Failure::unusable(format!("{place} is a list, not a number"))),
            Value::Object(_) => Err(Failure::unusable(format!("{place} is an object, not a number"))),
        }
    }

    /// The number as a power. `scale`: what it is multiplied by. A unit that is written beside the number, or `stated`
    /// elsewhere, counts before `unit`.
    ///
    /// # Errors
    /// It is no power that a meter can measure.
    pub fn power(&self, place: &str, unit: PowerUnit, stated: Option<&str>, scale: f64) -> Result<Microwatts, Failure> {
        let unit = match self.unit.or(stated) {
            Some(word) => PowerUnit::of(word).ok_or_else(|| wrong_unit(place, word, "a power: W, kW or mW"))?,
            None => unit,
        };
        if self.number.negative {
            return Err(negative(place));
        }
        match self.number.times(unit.factor()).map(|power| scaled(power, scale)) {
            Some(power) if power <= MOST_POWER => Ok(Microwatts(power)),
            _ => Err(Failure::unusable(format!("{place} is above 1 MW: is the unit right?"))),
        }
    }

    /// The number as an energy; as [`Number::power`].
    ///
    /// # Errors
    /// It is no energy that a meter can show.
    pub fn energy(
        &self,
        place: &str,
        unit: EnergyUnit,
        stated: Option<&str>,
        scale: f64,
    ) -> Result<Microjoules, Failure> {
        let unit = match self.unit.or(stated) {
            Some(word) => EnergyUnit::of(word).ok_or_else(|| wrong_unit(place, word, "an energy: kWh, Wh or J"))?,
            None => unit,
        };
        if self.number.negative {
            return Err(negative(place));
        }
        match self.number.times(unit.factor()).map(|energy| scaled(energy, scale)) {
            Some(energy) if energy < u64::MAX / 4 => Ok(Microjoules(energy)),
            _ => {
                Err(Failure::unusable(format!("{place} is more than a counter of energy can show: is the unit right?")))
            }
        }
    }
}

/// Multiplies by a factor above 0; exact where it is 1.
fn scaled(value: u64, scale: f64) -> u64 {
    if scale == 1.0 { value } else { (value as f64 * scale) as u64 }
}

fn negative(place: &str) -> Failure {
    Failure::unusable(format!("{place} is negative: is the meter, or its current transformer, the wrong way round?"))
}

fn wrong_unit(place: &str, word: &str, wanted: &str) -> Failure {
    Failure::unusable(format!("{place} is in \"{}\", which is no unit of {wanted}", excerpt(word, 16)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn power(text: &str, stated: Option<&str>) -> Result<u64, String> {
        let number = Number::read(text, "/p").map_err(|failure| failure.why)?;
        number.power("/p", PowerUnit::Watts, stated, 1.0).map(|power| power.0).map_err(|failure| failure.why)
    }

    #[test]
    fn powers_come_with_and_without_their_units() {
        assert_eq!(power("123.4", None), Ok(123_400_000));
        assert_eq!(power(" 123.4 W ", None), Ok(123_400_000));
        assert_eq!(power("0.1234 kW", Some("W")), Ok(123_400_000));
        assert_eq!(power("0.1234", Some("kW")), Ok(123_400_000));
        assert_eq!(power("1.5e2", None), Ok(150_000_000));
        for (text, words) in [
            ("NaN", "no number (NaN)"),
            ("inf", "no number (NaN)"),
            ("-3", "is negative"),
            ("unavailable", "no value now"),
            ("", "no value now"),
            ("1e7", "above 1 MW"),
            ("12 °C", "no unit of a power"),
            ("<html>", "no number that a meter gives"),
            ("1e400", "no number that a meter gives"),
        ] {
            let why = power(text, None).unwrap_err();
            assert!(why.contains(words) && why.starts_with("/p"), "{text}: {why}");
        }
    }

    #[test]
    fn energies_come_in_every_unit() {
        for (text, unit, joules) in [
            ("1.5", EnergyUnit::KilowattHours, 5_400_000),
            ("1.5", EnergyUnit::WattHours, 5_400),
            ("90", EnergyUnit::WattMinutes, 5_400),
            ("1500", EnergyUnit::MilliwattHours, 5_400),
            ("5.4", EnergyUnit::Kilojoules, 5_400),
            ("0.0000015 MWh", EnergyUnit::Joules, 5_400),
        ] {
            let energy = Number::read(text, "/e").unwrap().energy("/e", unit, None, 1.0).unwrap();
            assert_eq!(energy, Microjoules(joules * 1_000_000), "{text} {unit:?}");
        }
        let half = Number::read("3", "/e").unwrap().energy("/e", EnergyUnit::Joules, None, 0.5).unwrap();
        assert_eq!(half, Microjoules(1_500_000));
        assert!(Number::read("1e20", "/e").unwrap().energy("/e", EnergyUnit::Joules, None, 1.0).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String, stated: Option<String>) {
            if let Ok(number) = Number::read(&text, "/x") {
                let _ = number.power("/x", PowerUnit::Kilowatts, stated.as_deref(), 3.5);
                let _ = number.energy("/x", EnergyUnit::MegawattHours, stated.as_deref(), 3.5);
            }
        }
    }
}
