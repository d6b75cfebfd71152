//! The guest channel, host side: each VM can read its own energy, and nothing else (docs/guest-protocol.md). Configured
//! by `[export.guest]`.

mod accept;
mod book;
mod client;
mod config;
mod folder;
mod guests;
mod helper;
mod http;
mod hybrid;
mod look;
mod object;
mod serial;
mod share;
mod status;
mod vsock;

pub use config::{Grain, GuestConfig, Profile, VmConfig, VsockMode};
pub use guests::{Alive, Guests, HostFacts};
pub use helper::{Served, served};
pub use status::Totals;

use super::Snapshots;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The AF_VSOCK listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "export.guest.vsock: cannot listen on vsock port {port}: {why}; another program may listen there, or set vsock = \"off\""
)]
pub struct BindError {
    port: u32,
    why: io::Error,
}

/// Open files that are left to the rest of jouled.
const OTHER_FILES: u64 = 512;
/// Most open files that jouled asks the system for.
const FILES: u64 = 1 << 16;

/// Most connections of all guests together, one open file each. Raises the soft limit of open files as far as the hard
/// limit allows (`LimitNOFILE=`).
pub fn connections() -> usize {
    let files = getrlimit(Resource::Nofile);
    let most = files.maximum.map_or(FILES, |maximum| maximum.min(FILES));
    // Where the system refuses, the limit stays as it is, and is read again below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..files });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(FILES);
    usize::try_from(files.saturating_sub(OTHER_FILES).max(16)).unwrap_or(usize::MAX)
}

/// The channel, ready to serve.
pub struct Channel {
    guests: Guests,
    vsock: Option<vsock::Vsock>,
}

/// Opens the AF_VSOCK listener if it is configured. Needs a tokio runtime.
///
/// # Errors
/// Where `vsock = "on"` and the listener cannot be opened.
pub fn bind(guests: Guests) -> Result<Channel, BindError> {
    let config = guests.config();
    let vsock = match config.vsock {
        VsockMode::Off => None,
        mode => match vsock::bind(mode, config.port).map_err(|why| BindError { port: config.port, why })? {
            Ok(vsock) => {
                guests.vsock_is_open();
                tracing::info!("guest channel: listening on vsock port {}", config.port);
                Some(vsock)
            }
            Err(why) => {
                tracing::info!("guest channel: vsock: {why}");
                None
            }
        },
    };
    Ok(Channel { vsock, guests })
}

impl Channel {
    /// Tells guests until `stop`.
    pub async fn serve(self, mut snapshots: Snapshots, stop: CancellationToken) {
        let Self { guests, vsock } = self;
        let mut doors = JoinSet::new();
        if let Some(vsock) = vsock {
            let (known, all) = (guests.clone(), guests.clone());
            doors.spawn(accept::accept(vsock, all, move |_, peer| known.by_cid(peer.cid(), peer.port()), stop.clone()));
        }
        let config = guests.config();
        if !config.hybrid.is_empty() {
            doors.spawn(look::follow(
                guests.clone(),
                config.hybrid.clone(),
                hybrid::Hybrid::new(guests.clone()),
                stop.clone(),
            ));
        }
        if !config.serial.is_empty() {
            doors.spawn(look::follow(
                guests.clone(),
                config.serial.clone(),
                serial::Serial::new(guests.clone()),
                stop.clone(),
            ));
        }
        let epochs = async {
            loop {
                let snapshot = std::sync::Arc::clone(&snapshots.borrow_and_update());
                if snapshot.ticks > 0 {
                    guests.step(&snapshot);
                }
                if snapshots.changed().await.is_err() {
                    break stop.cancelled().await;
                }
            }
        };
        tokio::select! {
            () = epochs => {}
            () = stop.cancelled() => {}
        }
        doors.join_all().await;
    }
}

#[cfg(test)]
pub(in crate::export) mod tests;
