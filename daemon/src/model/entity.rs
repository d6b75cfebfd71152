//! The kinds of thing that energy is attributed to, and their labels. Pure data.

use super::units::Nanos;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A kind of entity. All kinds go through the same ledger, series and export code; only their labels differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A process.
    Process,
    /// A unit of the system's service manager: service, scope, socket, mount, swap… A user's service manager (`user@UID.service`) is one.
    Unit,
    /// A unit of a user's service manager.
    UserUnit,
    /// A slice of the system's service manager; includes everything below it, so slices contain each other.
    Slice,
    /// A login session.
    Session,
    /// A user, by numeric id: everything below `user-UID.slice`.
    User,
    /// A container.
    Container,
    /// A Kubernetes pod.
    Pod,
    /// A virtual machine.
    Vm,
}

impl Kind {
    /// Every kind, in the order of [`Kind::index`].
    pub const ALL: [Self; 9] = [
        Self::Process,
        Self::Unit,
        Self::UserUnit,
        Self::Slice,
        Self::Session,
        Self::User,
        Self::Container,
        Self::Pod,
        Self::Vm,
    ];

    /// Position in [`Kind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for it on the command line and in metric names (with `-` as `_`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Unit => "unit",
            Self::UserUnit => "user-unit",
            Self::Slice => "slice",
            Self::Session => "session",
            Self::User => "user",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Vm => "vm",
        }
    }

    /// Whether an entity with these labels is one that comes back under the same name, as a unit of a timer does: its series then
    /// stays when it ended, so that its counter goes on. Scopes and transient units have names of their own each time.
    pub fn returns(self, labels: &Labels) -> bool {
        match self {
            Self::Unit | Self::UserUnit => !labels[0].ends_with(".scope") && !labels[0].starts_with("run-"),
            Self::Slice | Self::User => true,
            Self::Process | Self::Session | Self::Container | Self::Pod | Self::Vm => false,
        }
    }

    /// Names of the labels that tell entities of this kind apart, in the order of [`Labels`].
    pub const fn label_names(self) -> &'static [&'static str] {
        match self {
            Self::Process => &["pid", "comm", "exe", "type", "container_id", "vm_id"],
            Self::Unit => &["unit", "slice"],
            Self::UserUnit => &["unit", "slice", "user"],
            Self::Slice => &["slice"],
            Self::Session => &["session", "user"],
            Self::User => &["user"],
            Self::Container => &["container_id", "container_name", "runtime", "pod_id"],
            Self::Pod => &["pod_id", "pod_name", "pod_namespace"],
            Self::Vm => &["vm_id", "vm_name", "hypervisor"],
        }
    }
}

/// Label values of an entity, in the order of [`Kind::label_names`]. Two series of one kind never have the same.
pub type Labels = Arc<[String]>;

/// Series of before that wait for their entities, and when each began (CLOCK_REALTIME).
pub type Awaited = FxHashMap<(Kind, Labels), Nanos>;
