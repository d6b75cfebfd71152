//! Counters of the guest channel for the metrics page of the host. Plain data.

/// Counters of the whole channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Open connections of all guests.
    pub connections: u64,
    /// Requests of all guests since jouled started.
    pub requests: u64,
    /// Refused connections since jouled started, by reason.
    pub refused: Vec<(&'static str, u64)>,
}
