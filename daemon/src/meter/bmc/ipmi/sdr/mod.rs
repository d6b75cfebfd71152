//! Sensors in watts: parsing their records, choosing among them, converting a raw byte to watts (IPMI 2.0, sections
//! 36.3, 43.1). Pure.

use crate::model::units::Microwatts;
use crate::sys::safe_text::quoted;

/// Record type of a Full Sensor Record.
const FULL: u8 = 0x01;
/// Bytes of a record's header: id, version, type, length.
pub const HEADER: usize = 5;
/// Bytes of a record up to the sensor's unit.
pub const UP_TO_UNIT: usize = 22;
/// Base unit watts (table 43-15).
const WATTS: u8 = 6;
/// Slave address of the BMC itself; sensors of other controllers are not read.
const BMC: u8 = 0x20;

/// A sensor in watts with a linear scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// Number of the sensor.
    pub number: u8,
    /// Logical unit of the BMC that has the sensor.
    pub lun: u8,
    /// Name as the BMC has it, not escaped: see [`Sensor::shown`].
    pub name: String,
    /// Entity id (table 43-13): 7 system board, 10 power supply.
    pub entity: u8,
    scale: Scale,
}

/// Conversion of a raw byte to watts: (M raw + B 10^k1) 10^k2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    format: Format,
    m: i16,
    b: i16,
    b_exponent: i8,
    exponent: i8,
}

/// Number format of a raw byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Unsigned,
    OnesComplement,
    TwosComplement,
}

/// Whether a record, of which at least [`UP_TO_UNIT`] bytes are read, is a sensor in watts.
pub fn is_in_watts(record: &[u8]) -> bool {
    // Unit byte: neither a rate, nor a product or quotient of units, nor a percentage.
    record.len() >= UP_TO_UNIT && record[3] == FULL && record[21] == WATTS && record[20] & 0x3F == 0
}

/// Length of the whole record in bytes, from its header.
pub fn length(record: &[u8]) -> usize {
    record.get(4).map_or(0, |rest| HEADER + usize::from(*rest))
}

impl Sensor {
    /// Parses a whole Full Sensor Record. `None`: not in watts, not linear, of another controller, or not such a
    /// record.
    pub fn parse(record: &[u8]) -> Option<Self> {
        if !is_in_watts(record) || record.len() < 48 {
            return None;
        }
        let format = match record[20] >> 6 {
            0 => Format::Unsigned,
            1 => Format::OnesComplement,
            2 => Format::TwosComplement,
            // No analog readings.
            _ => return None,
        };
        // Linear only: no known power sensor has another conversion.
        if record[23] & 0x7F != 0 || record[5] != BMC {
            return None;
        }
        let ten = |low: u8, high: u8| signed(u16::from(low) | u16::from(high >> 6) << 8, 10);
        let scale = Scale {
            format,
            m: ten(record[24], record[25]),
            b: ten(record[26], record[27]),
            b_exponent: signed(u16::from(record[29] & 0xF), 4) as i8,
            exponent: signed(u16::from(record[29] >> 4), 4) as i8,
        };
        let name = name(record[47], &record[48..]);
        (scale.m != 0).then_some(Self { number: record[7], lun: record[6] & 3, name, entity: record[8], scale })
    }

    /// The power, from the data of Get Sensor Reading.
    ///
    /// # Errors
    /// Why there is no reading.
    pub fn power(&self, data: &[u8]) -> Result<Microwatts, String> {
        let [raw, flags, ..] = data else {
            return Err(format!("{}: its reading is {} bytes, not 3", self.shown(), data.len()));
        };
        if flags & 0x20 != 0 {
            return Err(format!("{}: no reading (unavailable)", self.shown()));
        }
        if flags & 0x40 == 0 {
            return Err(format!("{}: no reading (its scanning is off)", self.shown()));
        }
        let watts = self.scale.watts(*raw);
        if !(0.0..=1e6).contains(&watts) {
            return Err(format!("{}: {watts} W, which is no reading", self.shown()));
        }
        Ok(Microwatts((watts * 1e6).round() as u64))
    }

    /// The smallest step of its readings.
    pub fn step(&self) -> Microwatts {
        let step = f64::from(self.scale.m).abs() * 10f64.powi(self.scale.exponent.into());
        Microwatts((step * 1e6).round() as u64)
    }

    /// Its name, escaped and cut to 32 characters.
    pub fn shown(&self) -> String {
        quoted(&self.name, 32).chars().take(32).collect()
    }
}

impl Scale {
    fn watts(self, raw: u8) -> f64 {
        let raw = match self.format {
            Format::Unsigned => i16::from(raw),
            Format::TwosComplement => i16::from(raw as i8),
            Format::OnesComplement if raw & 0x80 != 0 => -i16::from(!raw),
            Format::OnesComplement => i16::from(raw),
        };
        let offset = f64::from(self.b) * 10f64.powi(self.b_exponent.into());
        (f64::from(self.m) * f64::from(raw) + offset) * 10f64.powi(self.exponent.into())
    }
}

/// A two's complement number of `bits` bits.
const fn signed(value: u16, bits: u32) -> i16 {
    let unused = 16 - bits;
    ((value << unused) as i16) >> unused
}

/// Decodes a name (section 43.15) from its type/length byte and its bytes.
fn name(kind: u8, bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(usize::from(kind & 0x1F))];
    match kind >> 6 {
        3 => bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect(),
        // Packed 6-bit ASCII, which begins at the space; the first character is in the lowest bits.
        2 => {
            let bit = |at: usize| bytes[at / 8] >> (at % 8) & 1;
            let character = |at: usize| (0..6).fold(0, |sum, one| sum | bit(at * 6 + one) << one) + b' ';
            (0..bytes.len() * 8 / 6).map(|at| char::from(character(at))).collect()
        }
        1 => {
            let digits = b"0123456789 -.:,_";
            bytes
                .iter()
                .flat_map(|byte| [byte >> 4, byte & 0xF])
                .map(|digit| char::from(digits[usize::from(digit)]))
                .collect()
        }
        _ => String::new(),
    }
}

/// The sensors that are read for the whole machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One sensor of the whole machine.
    Whole(Sensor),
    /// The inputs of its power supplies, whose sum is the machine's power.
    Inputs(Vec<Sensor>),
}

/// Names of sensors of the whole machine, best first, reduced to lower-case letters and digits.
const WHOLE: [&str; 17] = [
    "pwrconsumption",
    "systempower",
    "syspower",
    "sysinputpower",
    "systeminputpower",
    "totalsyspower",
    "totalsystempower",
    "totalpower",
    "totalpowerin",
    "totalpwr",
    "powermeter",
    "powerconsumption",
    "systemlevel",
    "serverpower",
    "platformpower",
    "chassispower",
    "nodepower",
];

/// Chooses among the sensors in watts: one of the whole machine by its name, else the power supplies' inputs. Outputs
/// of supplies are never used, nor are sensors whose name does not say which of the two they measure: the difference
/// is the supplies' loss.
pub fn choose(sensors: &[Sensor]) -> Option<Choice> {
    let rank = |sensor: &&Sensor| {
        let name = plain(&sensor.name);
        let name = name.strip_suffix("watts").unwrap_or(&name);
        WHOLE.iter().position(|whole| *whole == name)
    };
    let whole = sensors.iter().filter(|sensor| rank(sensor).is_some()).min_by_key(rank);
    if let Some(sensor) = whole {
        return Some(Choice::Whole(sensor.clone()));
    }
    let mut inputs: Vec<(u32, Sensor)> = Vec::new();
    for sensor in sensors {
        if let Some(supply) = input_of(&sensor.name)
            && inputs.iter().all(|(other, _)| *other != supply)
        {
            inputs.push((supply, sensor.clone()));
        }
    }
    (!inputs.is_empty()).then(|| Choice::Inputs(inputs.into_iter().map(|(_, sensor)| sensor).collect()))
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The number of the power supply whose input has this name: `PS1 Input Power`, `PSU2_PIN`, `Power Supply 1 Power In`.
fn input_of(name: &str) -> Option<u32> {
    let name = plain(name);
    let rest = ["powersupply", "pwrsupply", "psu", "ps"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, what) = rest.split_at(digits);
    let input =
        ["inputpower", "inputpwr", "powerin", "pwrin", "pin", "acinputpower", "acinpower", "powerinput", "pwrinput"];
    let what = what.strip_suffix("watts").unwrap_or(what);
    input.contains(&what).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
