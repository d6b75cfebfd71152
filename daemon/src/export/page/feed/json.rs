//! Pieces of JSON that are written by hand, as there are many of them.

use std::fmt;

/// A number, with its zeros at the end as an exponent.
pub(super) struct Number(pub u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut digits, mut zeros) = (self.0, 0);
        while digits >= 10 && digits % 10 == 0 {
            (digits, zeros) = (digits / 10, zeros + 1);
        }
        if zeros > 2 { write!(f, "{digits}e{zeros}") } else { write!(f, "{}", self.0) }
    }
}

/// A string.
pub(super) fn text(value: &str) -> String {
    // A string can always be written.
    serde_json::to_string(value).unwrap_or_else(|_| "\"\"".into())
}
