//! The answer of the estimator: `{"powers":{"package":[w,…],…},"msg":"","core_ratio":1}`. Clients up to 0.9 read once,
//! at most 4,096 bytes, so an answer is shortened until it fits.

use super::Component;
use crate::model::text::shortened;
use std::fmt::Write as _;

/// The most bytes that a client reads.
pub const MOST_BYTES: usize = 4096;
/// The most bytes of a message.
const MOST_MESSAGE: usize = 300;
/// What is left out of an answer that is too long, in this order.
const LEFT_OUT: [Component; 3] = [Component::Uncore, Component::Core, Component::Dram];

/// Powers of all rows by component, in watts, none negative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// One number for each row.
    pub powers: Vec<(Component, Vec<f64>)>,
    /// What the operator of the client should know; empty where there is nothing.
    pub message: String,
    /// The part of the model's idle power that this machine has, above 0 and at most 1. Clients multiply idle power by
    /// it.
    pub core_ratio: f64,
}

impl Answer {
    /// An answer without powers, which says why.
    pub fn error(why: impl Into<String>) -> Self {
        Self { message: why.into(), ..Self::default() }
    }

    /// One JSON object of at most [`MOST_BYTES`].
    pub fn to_json(&self) -> String {
        let exact = self.text(3, false, &[], "");
        if exact.len() <= MOST_BYTES {
            return exact;
        }
        // Without zeros at the end nothing is lost; the third decimal is at most 0.5 mW.
        for (decimals, parts) in [(3, 0), (2, 0), (3, 2), (2, 2), (3, 3), (2, 3), (1, 3)] {
            let left_out: Vec<Component> =
                LEFT_OUT[..parts].iter().copied().filter(|part| self.powers.iter().any(|(of, _)| of == part)).collect();
            let names: Vec<&str> = left_out.iter().map(|part| part.as_str()).collect();
            let note = match (names.is_empty(), decimals) {
                (true, _) => String::new(),
                (false, _) => format!("left out, as clients read {MOST_BYTES} bytes: {}", names.join(", ")),
            };
            let text = self.text(decimals, true, &left_out, &note);
            if text.len() <= MOST_BYTES {
                return text;
            }
        }
        let rows = self.powers.first().map_or(0, |(_, rows)| rows.len());
        Self::error(format!(
            "the powers of {rows} rows are longer than the {MOST_BYTES} bytes that clients read: ask for fewer"
        ))
        .to_json()
    }

    fn text(&self, decimals: usize, short: bool, left_out: &[Component], note: &str) -> String {
        let mut text = String::from("{\"powers\":{");
        let mut first = true;
        for (component, rows) in self.powers.iter().filter(|(component, _)| !left_out.contains(component)) {
            // Writing into a String does not fail.
            let _ = write!(text, "{}\"{}\":[", if first { "" } else { "," }, component.as_str());
            first = false;
            // What rounding takes from a row of a short answer is carried to the next, so that the sum stays.
            let (step, mut carried) = (10_f64.powi(decimals as i32), 0.0);
            for (at, watts) in rows.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                let start = text.len();
                let mut watts = watts.max(0.0) + 0.0;
                if short {
                    let exact = watts + carried;
                    watts = (exact * step).round().max(0.0) / step;
                    carried = exact - watts;
                }
                let _ = write!(text, "{watts:.decimals$}");
                if short && text[start..].contains('.') {
                    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
                }
            }
            text.push(']');
        }
        let separator = if self.message.is_empty() || note.is_empty() { "" } else { "; " };
        let message = format!("{note}{separator}{}", self.message);
        let message = serde_json::to_string(&shortened(&message, MOST_MESSAGE)).unwrap_or_else(|_| "\"\"".to_owned());
        let _ = write!(text, "}},\"msg\":{message}");
        if self.core_ratio > 0.0 {
            let ratio = format!("{:.4}", self.core_ratio.min(1.0));
            let _ = write!(text, ",\"core_ratio\":{}", ratio.trim_end_matches('0').trim_end_matches('.'));
        }
        text.push('}');
        text
    }
}
