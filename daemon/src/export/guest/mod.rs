//! The guest channel, host side: each VM can read its own energy, and nothing else (docs/guest-protocol.md). Configured
//! by `[export.guest]`.

mod accept;
mod acpi;
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

pub use acpi::AcpiConfig;
pub use config::{Grain, GuestConfig, Profile, VmConfig, VsockMode};
pub use guests::{Alive, Guests, HostFacts};
pub use helper::{Served, served};
pub use status::Totals;

use super::Snapshots;
use crate::model::units::Nanos;
use crate::sys::private_dir::DirError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The channel could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The AF_VSOCK listener.
    #[error(
        "export.guest.vsock: cannot listen on vsock port {port}: {why}; another program may listen there, or set vsock = \"off\""
    )]
    Vsock {
        /// The configured port.
        port: u32,
        /// The system's error.
        why: io::Error,
    },
    /// The folder of the pages, or the table.
    #[error("export.guest.acpi.folder: {0}")]
    Pages(#[from] DirError),
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
    pages: Option<acpi::Pages>,
}

/// Opens the AF_VSOCK listener and the pages of power meters, where they are configured. Needs a tokio runtime.
///
/// # Errors
/// Where `vsock = "on"` and the listener cannot be opened, or the folder of the pages cannot be used.
pub fn bind(guests: Guests) -> Result<Channel, BindError> {
    let config = guests.config();
    let vsock = match config.vsock {
        VsockMode::Off => None,
        mode => match vsock::bind(mode, config.port).map_err(|why| BindError::Vsock { port: config.port, why })? {
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
    let pages = if config.acpi.vms.is_empty() { None } else { Some(acpi::Pages::open(&guests)?) };
    Ok(Channel { vsock, pages, guests })
}

impl Channel {
    /// Tells guests until `stop`.
    pub async fn serve(self, mut snapshots: Snapshots, stop: CancellationToken) {
        let Self { guests, vsock, pages } = self;
        let mut doors = JoinSet::new();
        let (stepped, steps) = watch::channel(Nanos::ZERO);
        if let Some(pages) = pages {
            doors.spawn(pages.follow(steps, stop.clone()));
        }
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
                    stepped.send_replace(snapshot.at.monotonic);
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
