//! virtio-serial: writes the lines of /v1/stream to the Unix sockets on which VMMs listen for port `org.jouled.0`, in
//! the folders of `serial` in `[export.guest]`. Reads nothing and never waits for a guest.

use super::client::Guest;
use super::guests::Guests;
use super::look::{Key, ListeningSocket, Noted, Serving, Task};
use crate::model::vm::Vm;
use axum::body::Bytes;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// The port's name in the guest. Only sockets with this name are used: other sockets of the VMM have another purpose.
const PORT: &str = "org.jouled.0";

/// Connects to the sockets and writes to them.
pub(super) struct Serial {
    guests: Guests,
    noted: Noted,
}

impl Serial {
    pub fn new(guests: Guests) -> Self {
        Self { guests, noted: Noted::default() }
    }
}

impl Task for Serial {
    fn noted(&self) -> &Noted {
        &self.noted
    }

    fn may_be(&self, name: &OsStr) -> bool {
        let before = name.to_str().and_then(|name| name.strip_suffix(PORT));
        before.is_some_and(|before| before.is_empty() || before.ends_with(['-', '.', '_']))
    }

    fn whose(&self, found: &ListeningSocket, vms: &[Vm]) -> Option<Key> {
        let vm = vms.iter().find(|vm| vm.process.pid == found.owner.pid)?;
        let is_its =
            self.guests.by_id(&vm.id, vm.process).is_ok() && self.guests.runs_as(vm.process.pid, found.owner.uid);
        is_its.then(|| Key::of(vm, found))
    }

    fn begin(&self, key: &Key, found: &ListeningSocket, stop: CancellationToken) -> Option<Serving> {
        let path = found.folder.path(&found.name);
        let guest = self.guests.by_id(&key.vm, key.process).ok()?;
        let connected = match found.folder.socket(&found.name) {
            Ok(Some(socket)) if socket.id == found.id => socket.connect(),
            Ok(_) => return None,
            Err(error) => Err(error),
        };
        let io = match connected {
            Ok(io) => io,
            Err(error) => {
                self.noted.warn(path, format!("cannot be connected to for VM {:?}: {error}", key.vm));
                return None;
            }
        };
        let shown = path.to_string_lossy().into_owned();
        self.guests.door(&key.vm, "serial", &shown);
        let guests = self.guests.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                outcome = feed(&io, &guest) => if let Err(error) = outcome {
                    tracing::debug!("guest {:?}: {shown:?}: {error}", guest.id);
                },
                () = guest.ended.cancelled() => {}
                () = stop.cancelled() => {}
            }
            guests.no_door(&guest.id, &shown);
        });
        Some(Serving { task, made: None })
    }
}

/// Writes each new line. A line is skipped while the guest has not read the one before.
async fn feed(io: &UnixStream, guest: &Arc<Guest>) -> io::Result<()> {
    let mut latest = guest.latest.subscribe();
    latest.mark_changed();
    let mut rest = Bytes::new();
    // tokio's try_write reports WouldBlock until the socket was found writable once.
    io.writable().await?;
    while latest.changed().await.is_ok() {
        let line = latest.borrow_and_update().as_ref().map(|told| told.line.clone());
        if unread(io)? > 0 {
            continue;
        }
        // A line that was written in part is completed before the next one starts.
        for piece in [std::mem::take(&mut rest), line.unwrap_or_default()] {
            if !rest.is_empty() || piece.is_empty() {
                continue;
            }
            match io.try_write(&piece) {
                Ok(written) => {
                    rest = piece.slice(written..);
                    guest.served();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Bytes in the socket that the other side has not read yet.
fn unread(io: &UnixStream) -> io::Result<libc::c_int> {
    let mut bytes = 0;
    // SAFETY: SIOCOUTQ, which has TIOCOUTQ's number, writes one int.
    match unsafe { libc::ioctl(io.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}
