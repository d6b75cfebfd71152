//! How the channel is, for people and for the host's metrics. Plain data.

use serde::{Deserialize, Serialize};

/// One VM and its channel, as `GET /v1/guests` on the control socket tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestView {
    /// The VM's id.
    pub vm_id: String,
    /// Its name.
    pub name: String,
    /// `vsock`, `hybrid` or `serial`; empty: there is no door for it.
    pub channel: String,
    /// Who it is on that channel: its CID, or the path of the socket.
    pub peer: String,
    /// Open connections.
    pub connections: usize,
    /// How finely it is told: `trusted`, `default`, `multi-tenant`, `off`.
    pub profile: String,
    /// The last epoch that it was told of; `None`: none yet.
    pub epoch: Option<u64>,
    /// Seconds since it was last given something; `None`: never.
    pub served_seconds_ago: Option<f64>,
    /// Requests so far.
    pub requests: u64,
    /// Connections refused so far.
    pub refused: u64,
}

/// The channel as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Open connections.
    pub connections: u64,
    /// Requests so far, of all guests.
    pub requests: u64,
    /// Connections that were not let in, by reason.
    pub refused: Vec<(&'static str, u64)>,
}
