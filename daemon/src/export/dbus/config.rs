//! `[export.dbus]`: whether this machine's programs may ask over the system bus. Opens nothing.

use serde::Deserialize;

/// `[export.dbus]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbusConfig {
    /// Whether jouled is on the system bus.
    #[serde(rename = "use")]
    pub mode: DbusMode,
    /// Whose members are told what root is told; empty: nobody's.
    pub group: String,
}

impl Default for DbusConfig {
    fn default() -> Self {
        Self { mode: DbusMode::Auto, group: "jouled".into() }
    }
}

/// Whether jouled is on the system bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DbusMode {
    /// Where there is one that lets it.
    #[default]
    Auto,
    /// Yes, or do not start.
    On,
    /// No.
    Off,
}
