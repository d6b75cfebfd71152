//! Whose connection it is: the user of a process on this machine, or another machine. Limits are counted by this.

use crate::sys::sock_diag;
use socket2::SockRef;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_vsock::VsockStream;

/// The owner of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::export) enum Peer {
    /// A user of this machine, by numeric id.
    User(u32),
    /// Another machine, or this one where the kernel does not say which user. Of an IPv6 address the first 64 bits: a
    /// machine can have all addresses of such a network.
    Machine(IpAddr),
    /// Not known, or identified by other means.
    Other,
}

/// A connection of which the owner can be found.
pub(in crate::export) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Its owner.
    fn peer(&self) -> Peer {
        Peer::Other
    }

    /// Makes that what was not sent yet is dropped when the connection is closed, instead of being kept for a peer
    /// that does not read.
    fn drop_unsent(&self) {}
}

impl Transport for TcpStream {
    fn peer(&self) -> Peer {
        let (Ok(theirs), Ok(ours)) = (self.peer_addr(), self.local_addr()) else { return Peer::Other };
        let address = theirs.ip().to_canonical();
        if (address.is_loopback() || address == ours.ip().to_canonical())
            && let Some(user) = sock_diag::user_of(theirs, ours)
        {
            return Peer::User(user);
        }
        Peer::Machine(network(address))
    }

    fn drop_unsent(&self) {
        // Where the system refuses, the kernel keeps it until TCP_USER_TIMEOUT.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Transport for UnixStream {
    fn peer(&self) -> Peer {
        self.peer_cred().map_or(Peer::Other, |of| Peer::User(of.uid()))
    }
}

// Guests: the channel knows which VM it is.
impl Transport for VsockStream {}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Transport for tokio::io::DuplexStream {}

    #[test]
    fn all_addresses_of_a_machine_are_one_peer() {
        for (address, of) in [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")] {
            assert_eq!(network(address.parse().unwrap()), of.parse::<IpAddr>().unwrap());
        }
    }

    #[tokio::test]
    async fn a_local_connection_is_its_users() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let me = Peer::User(rustix::process::geteuid().as_raw());
        let peer = listener.accept().await.unwrap().0.peer();
        assert!(peer == me || peer == Peer::Machine([127, 0, 0, 1].into()), "{peer:?}");
        assert_eq!(UnixStream::pair().unwrap().0.peer(), me);
    }
}
