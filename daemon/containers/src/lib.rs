//! jouled-containers: sends jouled the names of the containers that runtimes of this machine run. A process of its own,
//! because write access to a runtime's socket is root on the machine: jouled never has it. It changes nothing in a
//! runtime, and nothing in jouled.

pub mod board;
pub mod container;
pub mod follow;
pub mod grpc;
pub mod http;
pub mod kubelet;
pub mod objects;
pub mod send;
pub mod sockets;
