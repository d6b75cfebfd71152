//! AF_VSOCK: the listener and the peer's CID, which the kernel vouches for. Knows no VM.

use super::config::VsockMode;
use axum::serve::Listener;
use socket2::SockRef;
use std::io;
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

/// Listens, as the configuration wants it; `Err` within, with the reason, where it is not to be had here and need not be.
///
/// # Errors
/// Where it is wanted by name and cannot be had.
pub(super) fn bind(mode: VsockMode, port: u32) -> io::Result<Result<Vsock, String>> {
    if mode == VsockMode::Auto && !Path::new(DEVICE).exists() {
        return Ok(Err(format!("unsupported: no {DEVICE} (modprobe vhost_vsock brings it)")));
    }
    let listener = match VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)) {
        Ok(listener) => listener,
        Err(error) if mode == VsockMode::Auto => return Ok(Err(format!("cannot listen on port {port}: {error}"))),
        Err(error) => return Err(error),
    };
    // listen(2) again changes only the length of the queue.
    if let Err(error) = SockRef::from(&listener).listen(BACKLOG) {
        tracing::debug!("guest channel: vsock: backlog of {BACKLOG}: {error}");
    }
    Ok(Ok(Vsock(listener)))
}

impl Listener for Vsock {
    type Io = VsockStream;
    type Addr = VsockAddr;

    async fn accept(&mut self) -> (VsockStream, VsockAddr) {
        loop {
            match self.0.accept().await {
                Ok(connection) => return connection,
                // The peer's own doing must not keep the others waiting.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
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
