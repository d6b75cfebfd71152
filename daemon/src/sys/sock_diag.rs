//! The user at the other end of a TCP connection within this machine, from the kernel: sock_diag(7). Needs no
//! privilege, and asks about one socket, not for a list of all. For limits only, never for access: a process can hand
//! its socket to a process of another user.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

/// NETLINK_SOCK_DIAG of linux/netlink.h.
const SOCK_DIAG: libc::c_int = 4;
/// SOCK_DIAG_BY_FAMILY of linux/sock_diag.h: the type of the question and of its answer.
const BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST, without NLM_F_DUMP: one socket.
const REQUEST: u16 = 1;
/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Size of the question: the header and `struct inet_diag_req_v2`.
const QUESTION: usize = HEADER + 56;
/// Place of `idiag_uid` in the answer: after the header, in `struct inet_diag_msg`.
const UID: usize = HEADER + 64;
/// Place of `idiag_inode`, likewise.
const INODE: usize = HEADER + 68;

/// The user that made the socket at `theirs`, which is connected to `ours`. `None` where the kernel does not say: the
/// socket is closed, or is of another machine or network namespace, or netlink is not allowed.
pub fn user_of(theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let answer = ask(&question(theirs, ours)).ok()?;
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let answers = answer.get(4..6)? == BY_FAMILY.to_ne_bytes();
    // A socket without an inode is closed; older kernels report root as its user.
    (answers && number(INODE)? != 0).then(|| number(UID))?
}

fn ask(question: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(Protocol::from(SOCK_DIAG)))?;
    // The kernel answers within send(2): there is nothing to wait for.
    socket.set_nonblocking(true)?;
    socket.send(question)?;
    let mut answer = vec![0; 512];
    let length = socket.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn question(theirs: SocketAddr, ours: SocketAddr) -> [u8; QUESTION] {
    // A listener for both versions shows IPv4 clients by mapped addresses; their sockets are IPv4.
    let (from, to) = (theirs.ip().to_canonical(), ours.ip().to_canonical());
    let family = if from.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut out = Vec::with_capacity(QUESTION);
    out.extend((QUESTION as u32).to_ne_bytes());
    out.extend(BY_FAMILY.to_ne_bytes());
    out.extend(REQUEST.to_ne_bytes());
    // Sequence number and port id: one question, one answer.
    out.extend([0; 8]);
    // Family, protocol, no extensions, padding; every state.
    out.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    out.extend(u32::MAX.to_ne_bytes());
    out.extend(theirs.port().to_be_bytes());
    out.extend(ours.port().to_be_bytes());
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => out.extend([&v4.octets()[..], &[0; 12]].concat()),
            IpAddr::V6(v6) => out.extend(v6.octets()),
        }
    }
    // Any interface; INET_DIAG_NOCOOKIE.
    out.extend([0; 4]);
    out.extend([0xff; 8]);
    let mut question = [0; QUESTION];
    question.copy_from_slice(&out);
    question
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_user_of_a_connection_is_ours() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, theirs) = listener.accept().unwrap();
            let ours = server.local_addr().unwrap();
            if ask(&question(theirs, ours)).is_err() {
                println!("skipped: no netlink here");
                return;
            }
            assert_eq!(user_of(theirs, ours), Some(rustix::process::geteuid().as_raw()), "{address}");
            let other = SocketAddr::new(theirs.ip(), theirs.port() ^ 1);
            assert_eq!(user_of(other, SocketAddr::new(ours.ip(), ours.port() ^ 1)), None);
            drop(client);
            assert_ne!(user_of(theirs, ours), Some(u32::MAX));
        }
    }
}
