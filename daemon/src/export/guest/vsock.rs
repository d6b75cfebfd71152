//! AF_VSOCK: the listener and the peer's CID, which the kernel vouches for. Knows no VM.

use super::config::VsockMode;
use axum::serve::Listener;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// The kernel's own for guests. It is there where the module is loaded or can be.
const DEVICE: &str = "/dev/vhost-vsock";
/// Connections that wait to be accepted, of all guests: they are accepted at once, so one guest cannot fill this for long.
const BACKLOG: i32 = 1024;
/// When accepting fails (too many open files), it is tried again after this time.
const PAUSE: Duration = Duration::from_millis(200);

/// A socket that all guests reach, as CID 2.
pub(super) struct Vsock(VsockListener);

/// Listens, as the configuration wants it; `None`, with the reason, where this host has nothing to listen on.
///
/// # Errors
/// Where it is wanted by name and cannot be had.
pub(super) fn bind(mode: VsockMode, port: u32) -> Result<Result<Vsock, String>, io::Error> {
    match mode {
        VsockMode::Off => return Ok(Err("not wanted: vsock = \"off\" in [export.guest]".into())),
        VsockMode::Auto if !Path::new(DEVICE).exists() => return Ok(Err(format!("no {DEVICE}: modprobe vhost_vsock brings it"))),
        VsockMode::Auto | VsockMode::On => {}
    }
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
    // SAFETY: an open socket; listen(2) again changes only the length of its queue.
    unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) };
    Ok(Ok(Vsock(listener)))
}

impl Listener for Vsock {
    type Io = VsockStream;
    type Addr = VsockAddr;

    async fn accept(&mut self) -> (VsockStream, VsockAddr) {
        loop {
            match self.0.accept().await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!("guest channel: vsock: accept: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<VsockAddr> {
        self.0.local_addr()
    }
}
