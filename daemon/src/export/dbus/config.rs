//! `[export.dbus]`: whether jouled is on the system bus, and which group gets the fine view. Opens nothing.

use serde::Deserialize;

/// `[export.dbus]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbusConfig {
    /// Whether jouled is on the system bus.
    #[serde(rename = "use")]
    pub mode: DbusMode,
    /// Group whose members get the same view as root; empty: none.
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
    /// Where there is a system bus whose policy allows the name.
    #[default]
    Auto,
    /// Yes; jouled does not start without it.
    On,
    /// No.
    Off,
}
