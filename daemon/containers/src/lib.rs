//! jouled-containers: sends jouled the names of the containers that the container runtimes of this machine run. It is a
//! process of its own, because write access to a runtime's socket is root on the machine, which jouled must not be. It
//! changes nothing in a runtime, and nothing in jouled.

pub mod board;
pub mod container;
pub mod follow;
pub mod grpc;
pub mod http;
pub mod kubelet;
pub mod objects;
pub mod send;
pub mod sockets;
