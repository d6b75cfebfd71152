//! The log: to the journal with fields where standard error is the journal's stream, else to standard error.
//!
//! Fields are for programs that read the journal; `_source` becomes JOULED_SOURCE. The message contains everything that
//! people need, because journalctl shows only the message.

use crate::config::LogLevel;
use crate::sys::safe_text::safe;
use std::os::fd::AsFd;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// Starts logging at `level`. The returned function changes the level.
pub fn start(level: LogLevel) -> impl Fn(LogLevel) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let layer = to_journal().unwrap_or_else(to_stderr);
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    move |level| drop(handle.modify(|now| *now = self::filter(level)))
}

fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(format!("jouled={}", level.as_str()))
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// `None`: standard error is not the journal's.
fn to_journal() -> Option<Boxed> {
    use tracing_journald::{Priority, PriorityMappings};
    by_manager().then_some(())?;
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer =
        tracing_journald::layer().ok()?.with_field_prefix(Some("JOULED".into())).with_priority_mappings(priorities);
    Some(layer.with_syslog_identifier("jouled".into()).boxed())
}

fn to_stderr() -> Boxed {
    use std::io::IsTerminal;
    let fields = debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{}", printable(&format!("{value:?}"))),
        name if name.starts_with('_') => Ok(()),
        name => write!(writer, " {name}={value:?}"),
    });
    let log = tracing_subscriber::fmt::layer().fmt_fields(fields).with_writer(std::io::stderr).with_target(false);
    match std::env::var_os("JOURNAL_STREAM").is_some() {
        true => log.with_ansi(false).without_time().boxed(),
        false => log.with_ansi(std::io::stderr().is_terminal()).boxed(),
    }
}

/// A message without what acts on a terminal; line breaks stay, as some messages have several lines.
fn printable(message: &str) -> String {
    message.split('\n').map(safe).collect::<Vec<_>>().join("\n")
}

/// Whether standard error is the stream that JOURNAL_STREAM names (systemd.exec(5)). A shell in a service may have
/// redirected it.
fn by_manager() -> bool {
    use std::os::unix::fs::MetadataExt;
    let Some(of) =
        std::io::stderr().as_fd().try_clone_to_owned().ok().and_then(|fd| std::fs::File::from(fd).metadata().ok())
    else {
        return false;
    };
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    stream == format!("{}:{}", of.dev(), of.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_acts_on_nothing() {
        assert_eq!(printable("a\u{1b}[2J\u{202e}b\n  c"), "a\\u{1b}[2J\\u{202e}b\n  c");
    }
}
