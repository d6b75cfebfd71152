//! Messages for a wrong configuration: where the value is from, its key, the reason. Checks nothing itself.

use figment::error::{Actual, Kind};
use figment::{Error, Metadata, Source};

/// Most characters of a reason that are shown.
const LONGEST: usize = 300;

/// One line for an error.
pub(super) fn explain(error: &Error) -> String {
    let key = error.path.join(".");
    let reason = match &error.kind {
        Kind::UnknownField(_, known) => format!("there is no such key; there are {}", known.join(", ")),
        Kind::UnknownVariant(found, known) if may_show(error) || is_word(found) => {
            format!("{} is not one of {}", excerpt(&format!("{found:?}")), known.join(", "))
        }
        Kind::UnknownVariant(_, known) => format!("its value is not one of {}", known.join(", ")),
        // The environment has no types: 12 is taken for a number.
        Kind::InvalidType(found, wanted) if wanted == "a string" && is_environment(error.metadata.as_ref()) => {
            let found = kind_of(found);
            format!("found {found}, expected a string: put it in double quotes (within the shell's own)")
        }
        Kind::InvalidType(..) | Kind::InvalidValue(..) if may_show(error) => excerpt(&error.kind.to_string()),
        Kind::InvalidType(found, wanted) => format!("found {}, expected {wanted}", kind_of(found)),
        Kind::InvalidValue(found, wanted) => format!("found {} that is not valid, expected {wanted}", kind_of(found)),
        Kind::InvalidLength(length, wanted) => format!("found {length} values, expected {wanted}"),
        Kind::Message(text) => without_source(text),
        kind => excerpt(&kind.to_string()),
    };
    match place(error.metadata.as_ref(), &key) {
        place if place.is_empty() => reason,
        place => format!("{place}: {reason}"),
    }
}

/// Whether the value may be shown: not in the sections of BMCs, where it may be a password in the wrong place.
fn may_show(error: &Error) -> bool {
    !error.path.iter().any(|key| matches!(key.as_str(), "redfish" | "lan"))
}

/// Whether a value is a short word, as the values of keys with few choices are.
fn is_word(value: &str) -> bool {
    value.len() <= 10 && value.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// The beginning of a long text.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What kind of value it is.
fn kind_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a string",
        Actual::Seq => "a list",
        Actual::Map => "a section",
        _ => "a value of another kind",
    }
}

/// A message of the TOML parser without the line of the file that it quotes: the file may be a wrong one.
fn without_source(text: &str) -> String {
    let quotes = |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    if !text.starts_with("TOML parse error") {
        return excerpt(text);
    }
    text.lines().filter(|line| !quotes(line)).collect::<Vec<_>>().join(": ")
}

/// Where a key's value is from: `FILE: KEY`, `environment variable NAME`, or the key alone where only the command line
/// knows.
pub(super) fn place(metadata: Option<&Metadata>, key: &str) -> String {
    match metadata.and_then(|metadata| metadata.source.as_ref()) {
        Some(Source::File(path)) if key.is_empty() => path.display().to_string(),
        Some(Source::File(path)) => format!("{}: {key}", path.display()),
        _ if is_environment(metadata) && key.is_empty() => "environment variable JOULED_…".into(),
        _ if is_environment(metadata) => {
            format!("environment variable JOULED_{}", key.replace('.', "__").to_uppercase())
        }
        _ => key.to_owned(),
    }
}

fn is_environment(metadata: Option<&Metadata>) -> bool {
    metadata.is_some_and(|metadata| metadata.name.contains("environment"))
}
