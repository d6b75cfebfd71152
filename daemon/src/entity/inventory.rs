//! The inventory: VMs as their managers (libvirt, systemd-machined) report them. Plain data. Managers are asked in
//! `managers`; entries are merged into running VMs in `hypervisor`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The class of a machine that a manager reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A virtual machine.
    #[default]
    Vm,
    /// A container: ignored, and never merged into a VM.
    Container,
    /// The host itself, or a class that this version does not know.
    #[serde(other)]
    Other,
}

/// One machine, as one manager reports it. Users who may define VMs choose these texts; they are made safe for labels
/// where they are merged, so a sender need not do that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownMachine {
    /// The manager: `libvirt`, `machined`. Where several know a VM, the later one in the list fills in what the earlier
    /// one leaves open.
    pub manager: String,
    /// Name of the machine in that manager.
    pub name: String,
    /// Its UUID, in any spelling, by which a running VM is matched.
    pub uuid: Option<String>,
    /// Its state: `running`, `paused`, …; empty where the manager does not report one.
    pub state: String,
    /// Its title for people; empty where it has none.
    pub title: String,
    /// Number of virtual CPUs now.
    pub vcpus: Option<u32>,
    /// Vsock context id now.
    pub cid: Option<u32>,
    /// The guest channel's profile in its metadata, as written there.
    pub profile: Option<String>,
    /// Process id of its VMM, where the manager reports it; a running VM is matched by it where there is no UUID.
    pub leader: Option<u32>,
    /// The class of the machine.
    pub class: Class,
    /// Whose it is, by the names of [`crate::model::entity::Kind::detail_names`] of a VM; other names are ignored.
    pub labels: BTreeMap<String, String>,
}

/// Everything that the system's managers report now. The entity sources hold the receiver; a sender replaces the whole
/// list. Reports of a user's own manager (`qemu:///session`) are not allowed in it: that user could claim any UUID.
pub type Inventory = watch::Receiver<Arc<[KnownMachine]>>;
