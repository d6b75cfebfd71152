//! A guest's side of the guest channel, as the control socket shows it and joulectl reads it. Plain data.

use serde::{Deserialize, Serialize};

/// One VM and its channel: an element of `GET /v1/guests` on the control socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestView {
    /// The VM's id: label `vm_id`.
    pub vm_id: String,
    /// The VM's name.
    pub name: String,
    /// `vsock`, `hybrid` or `serial`; empty where no transport serves the VM.
    pub channel: String,
    /// The VM's address on that transport: its CID, or the path of the socket.
    pub peer: String,
    /// Open connections.
    pub connections: usize,
    /// The profile: `trusted`, `default`, `multi-tenant` or `off`.
    pub profile: String,
    /// Number of the last published epoch; `None` before the first one.
    pub epoch: Option<u64>,
    /// Seconds since the last answer or line; `None`: never.
    pub served_seconds_ago: Option<f64>,
    /// Requests since jouled started.
    pub requests: u64,
    /// Connections refused since jouled started.
    pub refused: u64,
}

/// The page of a VM's ACPI power meter: an element of `GET /v1/guests/acpi` on the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterPage {
    /// The VM's UUID or name, as configured.
    pub vm: String,
    /// The user that runs its QEMU, as configured.
    pub user: String,
    /// Path of the page.
    pub page: String,
    /// Size of the page in bytes.
    pub bytes: u64,
    /// Path of the ACPI table.
    pub table: String,
    /// Slot of the page's device on the guest's first PCI bus.
    pub slot: u8,
    /// Whether QEMU may write to the page, and so can migrate the VM.
    pub migration: bool,
    /// The power that the page has now, or why it has none, for people.
    pub state: String,
}
