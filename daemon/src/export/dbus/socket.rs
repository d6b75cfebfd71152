//! The socket to the D-Bus daemon, woken by incoming data only. Knows no messages.
//!
//! tokio's UnixStream, which zbus uses, is registered for both directions. It therefore wakes a second time for each
//! answer, when the bus has read the answer and the socket has room again, which costs 10 to 15 µs a call. Here only
//! the reading half is registered, and the writer waits for room only after a write found none. tokio registers one
//! direction of a descriptor by [`pipe`](tokio::net::unix::pipe) (or by AsyncFd, which is `unsafe`).

use std::io::{self, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use zbus::address::transport::{Transport, UnixSocket};
use zbus::connection::Builder;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::{Address, Message};

/// Size of a read, in bytes. A call is shorter, so one read returns one call or several.
const AT_ONCE: usize = 8 << 10;

/// A connection to the bus at this address, to be built. It takes no file descriptors, as no method here does, and the
/// bus refuses calls with some.
///
/// # Errors
/// Where there is no listener at the address.
pub async fn connect(address: Address) -> zbus::Result<Builder<'static>> {
    let path = match address.transport() {
        Transport::Unix(unix) => match unix.path() {
            UnixSocket::File(path) => path.clone(),
            UnixSocket::Abstract(name) => std::ffi::OsString::from_vec([b"\0", name.as_bytes()].concat()).into(),
            _ => return Ok(Builder::address(address)),
        },
        _ => return Ok(Builder::address(address)),
    };
    let connected = async { BusSocket::new(tokio::net::UnixStream::connect(path).await?.into_std()?) };
    match connected.await {
        Ok(socket) => Ok(Builder::socket(socket)),
        Err(error) => Err(zbus::Error::Connection(Arc::new(error), Box::new(address))),
    }
}

struct BusSocket {
    read: Reader,
    write: Writer,
}

impl BusSocket {
    /// Takes a non-blocking stream.
    fn new(stream: UnixStream) -> io::Result<Self> {
        let write = Writer(stream.try_clone()?);
        let stream = Receiver::from_owned_fd_unchecked(stream.into())?;
        Ok(Self { read: Reader { stream, buffer: vec![0; AT_ONCE].into(), ahead: 0..0 }, write })
    }
}

impl Socket for BusSocket {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        Split::new(self.read, self.write)
    }
}

#[derive(Debug)]
struct Reader {
    /// The socket, registered for reading only. It is no pipe, but both are read with read(2).
    stream: Receiver,
    buffer: Box<[u8]>,
    /// The range of `buffer` that was read from the socket and not returned yet.
    ahead: Range<usize>,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if self.ahead.is_empty() {
            if buffer.len() >= AT_ONCE {
                return Ok((self.stream.read(buffer).await?, Vec::new()));
            }
            self.ahead = 0..self.stream.read(&mut self.buffer).await?;
        }
        let read = buffer.len().min(self.ahead.len());
        buffer[..read].copy_from_slice(&self.buffer[self.ahead.start..][..read]);
        self.ahead.start += read;
        Ok((read, Vec::new()))
    }
}

#[derive(Debug)]
struct Writer(UnixStream);

#[async_trait]
impl WriteHalf for Writer {
    async fn send_messages(&mut self, messages: &[Message]) -> zbus::Result<()> {
        if let [message] = messages {
            return self.send_message(message).await;
        }
        let bytes = messages.iter().map(|message| &message.data()[..]).collect::<Vec<_>>().concat();
        let mut sent = 0;
        while sent < bytes.len() {
            sent += self.sendmsg(&bytes[sent..], &[]).await?;
        }
        Ok(())
    }

    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        loop {
            match self.0.write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A second descriptor of the same socket, while it waits for room.
                    Sender::from_owned_fd_unchecked(self.0.try_clone()?.into())?.writable().await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pair() -> (Reader, Writer, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (read, write) = BusSocket::new(ours).unwrap().split().take();
        (read, write, theirs)
    }

    #[tokio::test]
    async fn what_finds_no_room_is_sent_when_there_is_some() {
        let (_read, mut write, mut theirs) = pair();
        let sent: Vec<u8> = (0..4 << 20).map(|at: u32| (at >> 8) as u8).collect();
        let got = std::thread::spawn(move || {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).map(|_| got)
        });
        let mut from = 0;
        while from < sent.len() {
            from += write.sendmsg(&sent[from..], &[]).await.unwrap();
        }
        write.close().await.unwrap();
        assert!(got.join().unwrap().unwrap() == sent);
        assert_eq!(write.sendmsg(b"x", &[]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_comes_is_read_in_any_portions_to_its_end() {
        let (mut read, _write, mut theirs) = pair();
        let sent: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        let all = sent.clone();
        let sender = std::thread::spawn(move || theirs.write_all(&all));
        let (mut got, mut portion) = (Vec::<u8>::new(), 1);
        loop {
            let mut buffer = vec![0; portion];
            // Cancelled in the middle, which must lose nothing.
            let Ok(part) = tokio::time::timeout(std::time::Duration::from_micros(1), read.recvmsg(&mut buffer)).await
            else {
                continue;
            };
            match part.unwrap().0 {
                0 => break,
                part => got.extend(&buffer[..part]),
            }
            portion = 1 + portion * 3 % 20_011;
        }
        sender.join().unwrap().unwrap();
        assert!(got == sent);
    }

    #[tokio::test]
    async fn where_nobody_listens_the_address_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}/none", folder.path().display());
        let Err(error) = connect(Address::try_from(address.as_str()).unwrap()).await else { panic!("nobody listens") };
        assert!(error.to_string().contains(&address), "{error}");
    }
}
