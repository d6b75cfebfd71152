//! The service manager: readiness, reload, status, watchdog and passed sockets, by sd_notify(3) and sd_listen_fds(3).

use crate::model::snapshot::Snapshot;
use crate::model::source::{Health, SourceRole};
use crate::model::units::Nanos;
use anyhow::{Context, Result, bail};
use sd_notify::NotifyState;
use socket2::{Domain, Socket, Type};
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// `FileDescriptorName=` of sockets for the metrics page.
const PAGE: &str = "metrics";
/// Longest time for a sampler's last tick, the opening of the next one and its first tick together.
const HANDOVER: Duration = Duration::from_secs(60);
/// Longest status, in characters: the service manager accepts datagrams of less than 4096 bytes.
const STATUS: usize = 1000;

/// Reports that jouled is ready (`READY=1`).
pub(super) fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// Reports a reload (`RELOADING=1`); [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => drop(sd_notify::notify(&[NotifyState::Reloading, now])),
        Err(_) => drop(sd_notify::notify(&[NotifyState::Reloading])),
    }
}

/// Reports the stop (`STOPPING=1`).
pub(super) fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Feeds the watchdog after a tick (`WATCHDOG=1`).
pub(super) fn feed_watchdog() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// Extends the watchdog while one sampler replaces another; [`watchdog`] ends that.
pub(super) fn extend_watchdog() {
    if let Some(limit) = sd_notify::watchdog_enabled() {
        wait_for(limit + HANDOVER);
    }
}

/// Extends the watchdog to three ticks where the unit's `WatchdogSec=` is shorter.
pub(super) fn watchdog(interval: Nanos) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    wait_for(limit.max(Duration::from_nanos(interval.0).saturating_mul(3)));
}

fn wait_for(time: Duration) {
    if let Ok(micros) = u32::try_from(time.as_micros()) {
        let _ = sd_notify::notify(&[NotifyState::WatchdogUsec(micros)]);
    }
}

/// The sockets for the metrics page that the service manager passed (jouled.socket).
///
/// # Errors
/// Where it passed something else.
pub(super) fn sockets() -> Result<Vec<TcpListener>> {
    let given = sd_notify::listen_fds_with_names().context("LISTEN_FDS, which the service manager sets")?;
    given.map(|(fd, name)| socket(fd, &name)).collect()
}

fn socket(fd: i32, name: &str) -> Result<TcpListener> {
    // SAFETY: the service manager passed this descriptor to this process (LISTEN_PID), and nothing else owns it.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    if name != PAGE {
        bail!("the service manager gave a socket named {name:?}: set FileDescriptorName={PAGE} in the socket unit");
    }
    let is_tcp =
        matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6)) && matches!(socket.r#type(), Ok(Type::STREAM));
    if !is_tcp || !socket.is_listener().unwrap_or(false) {
        bail!(
            "the service manager gave a socket that is no listening TCP socket: ListenStream=ADDRESS:PORT and Accept=no in the socket unit"
        );
    }
    Ok(socket.into())
}

/// Keeps `STATUS=` current: `note`, the sources in use, and the sources that are degraded or failed. Ends when the
/// snapshots end.
pub(super) async fn report_status(mut snapshots: watch::Receiver<Arc<Snapshot>>, mut note: watch::Receiver<String>) {
    let mut told = String::new();
    loop {
        let status = [note.borrow_and_update().clone(), status_line(&snapshots.borrow_and_update())];
        let status: String = status.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        let status = cut(&status);
        if status != told {
            let _ = sd_notify::notify(&[NotifyState::Status(&status)]);
            told = status;
        }
        let ended = tokio::select! {
            changed = snapshots.changed() => changed.is_err(),
            changed = note.changed() => changed.is_err(),
        };
        if ended {
            break;
        }
    }
}

/// Cuts a status that is too long; its end then says where the rest is.
fn cut(status: &str) -> String {
    match status.char_indices().nth(STATUS) {
        None => status.to_owned(),
        Some((end, _)) => format!("{}… (joulectl status has all)", &status[..end]),
    }
}

fn status_line(snapshot: &Snapshot) -> String {
    let mut names: Vec<&str> =
        snapshot.domains.iter().filter(|view| !view.past).map(|view| view.domain.source.as_str()).collect();
    names.dedup();
    let meters = if names.is_empty() { "nothing".to_string() } else { names.join(", ") };
    let estimated = if snapshot.estimated() { " (an estimate)" } else { "" };
    let usage = snapshot.sources.iter().find(|source| {
        source.role == SourceRole::Usage && !matches!(source.health, Health::Unsupported(_) | Health::Failed(_))
    });
    let usage = usage.map_or("nobody knows who", |source| source.source.as_str());
    let wrong =
        snapshot.sources.iter().filter(|source| matches!(source.health, Health::Degraded(_) | Health::Failed(_)));
    let wrong: Vec<String> = wrong
        .map(|source| format!("; {} {}: {}", source.source, source.health.as_str(), source.health.why()))
        .collect();
    format!("Measuring by {meters}{estimated}, use by {usage}{}", wrong.concat())
}
