//! A document of JSON that a meter gives, and the values at pointers of it. Knows no meter and no protocol.

use super::Failure;
use super::quantity::{EnergyUnit, Number, PowerUnit};
use crate::model::units::{Microjoules, Microwatts};
use crate::sys::date_time;
use crate::sys::safe_text::excerpt;
use serde_json::Value;

/// Longest excerpt of a name, in characters.
const EXCERPT: usize = 80;

/// A document, and the meter's clock.
pub(super) struct Document {
    /// What it is called in messages: the path of a page, or a topic.
    name: String,
    pub(super) value: Value,
    /// Seconds since 1970.
    pub(super) date: Option<u64>,
}

impl Document {
    /// The page of a path.
    pub(super) fn of_page(path: &str, body: &[u8], date: Option<u64>) -> Result<Self, Failure> {
        let value = serde_json::from_slice(body)
            .map_err(|_| Failure::unusable(format!("GET {}: the answer is no JSON", excerpt(path, EXCERPT))))?;
        Ok(Self { name: path.to_owned(), value, date })
    }

    /// The message of a topic.
    pub(super) fn of_message(topic: &str, payload: &[u8]) -> Result<Self, Failure> {
        let value = serde_json::from_slice(payload)
            .map_err(|_| Failure::unusable(format!("{}: the message is no JSON", excerpt(topic, EXCERPT))))?;
        Ok(Self { name: topic.to_owned(), value, date: None })
    }

    pub(super) fn place(&self, pointer: &str) -> String {
        format!("{}#{}", excerpt(&self.name, EXCERPT), excerpt(pointer, EXCERPT))
    }

    pub(super) fn at(&self, pointer: &str) -> &Value {
        self.value.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The value at a pointer; of a list the one of this number.
    pub(super) fn of_channel(&self, pointer: &str, channel: u8) -> &Value {
        match self.at(pointer) {
            Value::Array(list) => list.get(usize::from(channel)).unwrap_or(&Value::Null),
            value => value,
        }
    }

    pub(super) fn power(
        &self,
        value: &Value,
        pointer: &str,
        unit: PowerUnit,
        stated: Option<&str>,
        scale: f64,
    ) -> Result<Microwatts, Failure> {
        let (place, mut text) = (self.place(pointer), String::new());
        Number::of(value, &place, &mut text)?.power(&place, unit, stated, scale)
    }

    pub(super) fn energy(
        &self,
        value: &Value,
        pointer: &str,
        unit: EnergyUnit,
        stated: Option<&str>,
        scale: f64,
    ) -> Result<Microjoules, Failure> {
        let (place, mut text) = (self.place(pointer), String::new());
        Number::of(value, &place, &mut text)?.energy(&place, unit, stated, scale)
    }

    /// A time: seconds or milliseconds since 1970, or a date and time as text.
    pub(super) fn time(&self, pointer: &str) -> Result<i128, Failure> {
        let fail =
            || Failure::unusable(format!("{} is no time (seconds since 1970, or RFC 3339)", self.place(pointer)));
        match self.at(pointer) {
            Value::Number(number) => {
                let seconds = number.as_f64().filter(|seconds| (0.0..1e15).contains(seconds)).ok_or_else(fail)?;
                // Milliseconds of today are above 10¹², seconds below.
                let millis = if seconds > 1e11 { seconds } else { seconds * 1e3 };
                Ok(millis.round() as i128 * 1_000_000)
            }
            Value::String(text) => date_time::parse(text).ok_or_else(fail),
            _ => Err(fail()),
        }
    }
}
