//! The log: to the journal with fields, where systemd reads standard error anyway, else to standard error. Decides nothing of what is said.
//!
//! Fields are for programs that read the journal, as JOULED_NAME (`_source` is JOULED_SOURCE): whatever people are to know is in the message, as
//! journalctl shows nothing else.

use crate::config::LogLevel;
use std::os::fd::AsFd;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// Begins to log; what it gives changes how much is said.
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
        "message" => write!(writer, "{value:?}"),
        name if name.starts_with('_') => Ok(()),
        name => write!(writer, " {name}={value:?}"),
    });
    let log = tracing_subscriber::fmt::layer().fmt_fields(fields).with_writer(std::io::stderr).with_target(false);
    match std::env::var_os("JOURNAL_STREAM").is_some() {
        true => log.with_ansi(false).without_time().boxed(),
        false => log.with_ansi(std::io::stderr().is_terminal()).boxed(),
    }
}

/// Whether standard error is the stream that JOURNAL_STREAM names (systemd.exec(5)): a shell in a service may have sent it elsewhere.
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
