//! Files of factors over time, as JSON or CSV, by `joulectl fetch` or other programs. Pure: bytes in, values out.
//!
//! JSON: `{"unit": "gCO2e/kWh", "source": "…", "values": [{"from": TIME, "until": TIME, "value": 123.4}]}`, where the
//! unit of a price is `EUR/kWh`. CSV: a line `from,until,g_per_kwh` (or `from,until,EUR_per_kwh`), then values; lines
//! that begin with `#` are comments, and `# source: …` names the source. Times are RFC 3339, or seconds since 1970.

use super::config::{GRAMS_MAX, PRICE_MAX};
use super::{micro, time};
use crate::model::footprint::{GRAMS, Measure};
use crate::model::text::safe;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// Most bytes of a file: a year of quarter hours has 3 MB.
pub const MOST_BYTES: usize = 8 << 20;
/// Most values.
const MOST_VALUES: usize = 200_000;
/// Longest name of a source, in characters.
const LONGEST_SOURCE: usize = 100;

/// A value and when it is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Begin, in seconds since 1970.
    pub from: i64,
    /// End, in seconds since 1970.
    pub until: i64,
    /// Millionths of the unit by kWh.
    pub per_kwh: i64,
}

/// The values of a file, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    path: String,
    name: Arc<str>,
    values: Vec<Value>,
}

/// A file in JSON, which the fetcher writes and the daemon reads.
#[derive(Debug, Serialize, Deserialize)]
pub struct Written {
    /// `gCO2e/kWh`, or a currency by kWh.
    pub unit: String,
    /// Name of the source, for reports.
    #[serde(default)]
    pub source: String,
    /// The values.
    pub values: Vec<WrittenValue>,
}

/// A value in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct WrittenValue {
    /// Begin.
    pub from: Time,
    /// End.
    pub until: Time,
    /// The value, in the unit of the file.
    pub value: f64,
}

/// A time in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Time {
    /// Seconds since 1970.
    Seconds(i64),
    /// RFC 3339.
    Text(String),
}

impl Time {
    fn seconds(&self) -> Option<i64> {
        match self {
            Self::Seconds(seconds) => Some(*seconds),
            Self::Text(text) => seconds(text),
        }
    }
}

/// RFC 3339 with an offset, or seconds since 1970.
pub fn seconds(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse::<i64>().ok().or_else(|| Some(text.parse::<Timestamp>().ok()?.as_second()))
}

impl Series {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be used, with the line or number of the value.
    pub fn parse(path: &Path, bytes: &[u8], measure: Measure, unit: &str) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is neither JSON nor CSV: it is not UTF-8")?;
        let text = text.trim_start_matches('\u{feff}');
        let (source, raw) = if text.trim_start().starts_with('{') { json(text, unit)? } else { csv(text, unit)? };
        if raw.is_empty() {
            return Err("it has no value".into());
        }
        if raw.len() > MOST_VALUES {
            return Err(format!("it has more than {MOST_VALUES} values"));
        }
        let most = if measure == Measure::Cost { PRICE_MAX } else { GRAMS_MAX };
        let least = if measure == Measure::Cost { -PRICE_MAX } else { 0.0 };
        let mut values = Vec::with_capacity(raw.len());
        for (place, from, until, value) in raw {
            if !(least..=most).contains(&value) {
                let hint = if measure == Measure::Cost { "" } else { ": is it in mg, or by MWh?" };
                return Err(format!("{place}: {value} is out of range: {least} to {most} {unit}/kWh{hint}"));
            }
            if from >= until {
                return Err(format!("{place}: from ({}) has to be before until ({})", time(from), time(until)));
            }
            values.push((place, Value { from, until, per_kwh: micro(value) }));
        }
        values.sort_by_key(|(_, value)| value.from);
        for pair in values.windows(2) {
            if let [(place, one), (other, next)] = pair
                && next.from < one.until
            {
                return Err(format!(
                    "{other} begins at {}, before {place} ends ({}): values must not overlap",
                    time(next.from),
                    time(one.until)
                ));
            }
        }
        let source: String = safe(&source).chars().take(LONGEST_SOURCE).collect();
        let (path, name) = (path.display().to_string(), path.file_name().unwrap_or_default().to_string_lossy());
        let name = if source.is_empty() { format!("file {}", safe(&name)) } else { source };
        Ok(Self { path, name: name.into(), values: values.into_iter().map(|(_, value)| value).collect() })
    }

    /// Where the file is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Name of the source in reports.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Whether a value is exactly 0, with its begin: right for some grids, and for some services a missing value.
    pub fn zero(&self) -> Option<i64> {
        self.values.iter().find(|value| value.per_kwh == 0).map(|value| value.from)
    }

    /// The value of a time.
    ///
    /// # Errors
    /// Why there is none: expired, not yet valid, or a gap.
    pub fn at(&self, at: i64) -> Result<Value, String> {
        let next = self.values.partition_point(|value| value.from <= at);
        match next.checked_sub(1).map(|before| self.values[before]) {
            Some(value) if at < value.until => Ok(value),
            Some(value) => Err(match self.values.get(next) {
                Some(later) => format!("no value from {} to {}", time(value.until), time(later.from)),
                None => format!("its last value ended at {}", time(value.until)),
            }),
            None => Err(self
                .values
                .first()
                .map_or_else(String::new, |first| format!("its first value begins at {}", time(first.from)))),
        }
    }
}

/// Where a value is in the file, its begin, end and value.
type Raw = (String, i64, i64, f64);

fn json(text: &str, unit: &str) -> Result<(String, Vec<Raw>), String> {
    let written: Written = serde_json::from_str(text).map_err(|error| format!("its JSON cannot be read: {error}"))?;
    let wanted = format!("{unit}/kWh");
    if written.unit != wanted {
        return Err(format!("its unit is {:?}, and {wanted:?} is wanted", excerpt(&written.unit)));
    }
    let mut raw = Vec::new();
    for (at, value) in written.values.iter().enumerate() {
        let place = format!("value {}", at + 1);
        let time = |time: &Time| {
            let wanted = "a time in RFC 3339 with an offset, or in seconds since 1970, is wanted";
            time.seconds().ok_or_else(|| format!("{place}: {wanted}"))
        };
        let (from, until) = (time(&value.from)?, time(&value.until)?);
        raw.push((place, from, until, value.value));
    }
    Ok((written.source, raw))
}

fn csv(text: &str, unit: &str) -> Result<(String, Vec<Raw>), String> {
    let column = if unit == GRAMS { "g_per_kwh".to_owned() } else { format!("{unit}_per_kwh") };
    let wanted = format!("from,until,{column}");
    let (mut source, mut raw, mut head) = (String::new(), Vec::new(), false);
    for (at, line) in text.lines().enumerate() {
        let (place, line) = (format!("line {}", at + 1), line.trim());
        if let Some(comment) = line.strip_prefix('#') {
            if let Some(name) = comment.trim().strip_prefix("source:") {
                source = name.trim().to_owned();
            }
        } else if line.is_empty() {
        } else if !head {
            if line.replace(' ', "") != wanted {
                return Err(format!("{place}: {:?}, where the names {wanted} or JSON are wanted", excerpt(line)));
            }
            head = true;
        } else {
            let cells: Vec<&str> = line.split(',').collect();
            let read = || match *cells {
                [from, until, value] => Some((seconds(from)?, seconds(until)?, value.trim().parse::<f64>().ok()?)),
                _ => None,
            };
            let (from, until, value) = read().ok_or_else(|| {
                format!("{place}: {:?} is not two times (RFC 3339 with an offset) and a number", excerpt(line))
            })?;
            raw.push((place, from, until, value));
        }
        if raw.len() > MOST_VALUES {
            break;
        }
    }
    Ok((source, raw))
}

fn excerpt(text: &str) -> String {
    safe(&text.chars().take(60).collect::<String>()).into_owned()
}
