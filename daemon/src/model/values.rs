//! Values as they are written: levels, permissions, times.

use crate::model::units::Nanos;
use serde::{Deserialize, Deserializer};

/// Verbosity of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the levels of every log")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// When a meter is used: `use` in its section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Where this machine has it and it is needed.
    #[default]
    Auto,
    /// Always. Only for a meter that otherwise stands by (`[meter.estimate]`); the others refuse it, see
    /// [`Use::auto_or_never`].
    Always,
    /// Not at all.
    Never,
}

impl Use {
    /// For serde: reads `auto` and `never`, the words of a meter that does not stand by.
    ///
    /// # Errors
    /// Another word.
    pub fn auto_or_never<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Word {
            Auto,
            Never,
        }
        Ok(match Word::deserialize(deserializer)? {
            Word::Auto => Self::Auto,
            Word::Never => Self::Never,
        })
    }
}

/// What is wrong with a value that breaks a rule. Most rules are ranges (`0 to 24h`, `above 0, at most 1`); the others
/// are a phrase.
pub fn broken(rule: &str) -> String {
    let is_range = rule.starts_with("above") || rule.starts_with(|c: char| c.is_ascii_digit());
    format!("{}: {rule}", if is_range { "out of range" } else { "wanted" })
}

/// File permissions, written as an octal string: `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

impl TryFrom<String> for Mode {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(format!("{text:?} is not a file mode: write it as an octal string such as \"0660\"")),
        }
    }
}

/// A time: `"500ms"`, `"1s"`, `"2m"`, `"1h"`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "SpanText")]
pub struct Span(pub Nanos);

#[derive(Deserialize)]
#[serde(untagged, expecting = "not a time: write it as \"500ms\", \"1s\", \"2m\", \"1h\" or a number of seconds")]
pub(crate) enum SpanText {
    Number(f64),
    Text(String),
}

impl TryFrom<SpanText> for Span {
    type Error = String;
    fn try_from(text: SpanText) -> Result<Self, String> {
        let bad = |text: &str| {
            format!("{text:?} is not a time: write it as \"500ms\", \"1s\", \"2m\", \"1h\" or a number of seconds")
        };
        let (number, unit, text) = match text {
            SpanText::Number(seconds) => (seconds, 1.0, seconds.to_string()),
            SpanText::Text(text) => {
                let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
                let unit = match text[digits..].trim() {
                    "ms" => 1e-3,
                    "s" | "" => 1.0,
                    "m" | "min" => 60.0,
                    "h" => 3600.0,
                    _ => return Err(bad(&text)),
                };
                (text[..digits].parse().map_err(|_| bad(&text))?, unit, text)
            }
        };
        let nanos: f64 = number * unit * 1e9;
        if nanos.is_finite() && (0.0..1e18).contains(&nanos) {
            Ok(Self(Nanos(nanos.round() as u64)))
        } else {
            Err(bad(&text))
        }
    }
}
