//! Texts that no value can have.

use figment::Figment;
use figment::value::{Dict, Value};

/// The keys whose text has a NUL: no path, name or address has one, and the system would refuse it only when it is
/// used.
pub(super) fn with_nul(figment: &Figment) -> Vec<String> {
    let mut keys = Vec::new();
    // What cannot be read at all is said by whoever reads it.
    for (key, value) in figment.extract::<Dict>().unwrap_or_default() {
        look(&key, &value, &mut keys);
    }
    keys
}

fn look(key: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::String(_, text) if text.contains('\0') => keys.push(key.to_owned()),
        Value::Dict(_, dict) => dict.iter().for_each(|(name, value)| look(&format!("{key}.{name}"), value, keys)),
        Value::Array(_, list) => {
            list.iter().enumerate().for_each(|(at, value)| look(&format!("{key}.{at}"), value, keys));
        }
        _ => {}
    }
}
