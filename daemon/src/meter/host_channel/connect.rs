//! Connects to the host. The only file of the meter that uses AF_VSOCK. `reader` speaks the protocol.

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

/// Longest time of a connection attempt.
const LIMIT: Duration = Duration::from_secs(5);

/// Both directions of a connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open connection.
pub(super) enum Connection {
    /// For HTTP.
    Http(Box<dyn Duplex>),
    /// For reading lines.
    Serial(File),
}

/// Connects, within [`LIMIT`].
pub(super) async fn open(address: &Address) -> io::Result<Connection> {
    let open = async {
        Ok(match address {
            Address::Vsock { cid, port } => {
                Connection::Http(Box::new(VsockStream::connect(VsockAddr::new(*cid, *port)).await?))
            }
            Address::Unix(path) => Connection::Http(Box::new(UnixStream::connect(path).await?)),
            Address::Serial(path) => Connection::Serial(serial(path)?),
        })
    };
    timeout(LIMIT, open).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Opens a virtio-serial port. A port allows one reader at a time. A read returns end of file while the host's side is
/// not connected.
fn serial(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_char_device() || kind.is_fifo() { Ok(file) } else { Err(io::Error::other("not a serial port")) }
}
