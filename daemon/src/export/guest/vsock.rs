//! AF_VSOCK: the listener, and the peer's CID, which the kernel reports and a guest cannot forge. Knows no VM.

use super::config::VsockMode;
use axum::serve::Listener;
use socket2::SockRef;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// The kernel's device for guests' vsock. It exists where module vhost_vsock is loaded or can be loaded.
const DEVICE: &str = "/dev/vhost-vsock";
/// Length of the accept queue, for all guests. Connections are accepted at once, so one guest cannot fill it for long.
const BACKLOG: i32 = 1024;
/// Time until the next try where accepting fails (too many open files).
const PAUSE: Duration = Duration::from_millis(200);

/// The listener that all guests reach at CID 2.
pub(super) struct Vsock(VsockListener);

/// Opens the listener. The inner `Err` is the reason where it is not available and `mode` does not require it.
///
/// # Errors
/// Where `mode` is `on` and the listener cannot be opened.
pub(super) fn bind(mode: VsockMode, port: u32) -> io::Result<Result<Vsock, String>> {
    if mode == VsockMode::Auto && !Path::new(DEVICE).exists() {
        return Ok(Err(format!("unsupported: no {DEVICE} (modprobe vhost_vsock brings it)")));
    }
    let listener = match VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)) {
        Ok(listener) => listener,
        Err(error) if mode == VsockMode::Auto => return Ok(Err(format!("cannot listen on port {port}: {error}"))),
        Err(error) => return Err(error),
    };
    // A second listen(2) changes only the length of the queue.
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
                // The peer disconnected: the other guests must not wait for that.
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
