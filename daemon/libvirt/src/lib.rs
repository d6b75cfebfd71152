//! jouled-libvirt: sends jouled the list of VMs that libvirt runs. A process of its own, without privileges, so that
//! libvirt's C library is kept away from jouled's capabilities. It changes nothing in libvirt and nothing in jouled.

pub mod board;
pub mod domain;
pub mod events;
pub mod follow;
pub mod send;
