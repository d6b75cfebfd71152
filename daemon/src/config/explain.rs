//! Messages for a wrong configuration: where the value is from, its key, the reason. Checks nothing itself.

use figment::error::Kind;
use figment::{Error, Metadata, Source};

/// One line for an error.
pub(super) fn explain(error: &Error) -> String {
    let key = error.path.join(".");
    let reason = match &error.kind {
        Kind::UnknownField(_, known) => format!("there is no such key; there are {}", known.join(", ")),
        Kind::UnknownVariant(found, known) => format!("{found:?} is not one of {}", known.join(", ")),
        // The environment has no types: 12 is taken for a number.
        Kind::InvalidType(found, wanted) if wanted == "a string" && is_environment(error.metadata.as_ref()) => {
            format!("found {found}, expected a string: put it in double quotes (within the shell's own)")
        }
        kind => kind.to_string(),
    };
    match place(error.metadata.as_ref(), &key) {
        place if place.is_empty() => reason,
        place => format!("{place}: {reason}"),
    }
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
