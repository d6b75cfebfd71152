//! Opens the way to the host: the only place that touches AF_VSOCK on this side. What is said there is the reader's.

use super::address::Address;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockStream};

const LIMIT: Duration = Duration::from_secs(5);

/// Both directions of a connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open way.
pub(super) enum Line {
    /// HTTP is spoken here.
    Http(Box<dyn Duplex>),
    /// Lines come from here, and nothing is said.
    Serial(File),
}

/// Opens it, within seconds.
pub(super) async fn open(address: &Address) -> io::Result<Line> {
    let open = async {
        Ok(match address {
            Address::Vsock { cid, port } => {
                Line::Http(Box::new(VsockStream::connect(VsockAddr::new(*cid, *port)).await?))
            }
            Address::Unix(path) => Line::Http(Box::new(UnixStream::connect(path).await?)),
            Address::Serial(path) => Line::Serial(serial(path)?),
        })
    };
    timeout(LIMIT, open).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// A virtio-serial port has one reader at a time, and tells by an end of file that nobody is on the host's side.
fn serial(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_char_device() || kind.is_fifo() { Ok(file) } else { Err(io::Error::other("not a serial port")) }
}
