//! What managers of VMs say of them: plain data. How it gets here is its sender's, what becomes of it `hypervisor`'s.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::watch;

/// Whether a machine that a manager knows is a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A virtual machine.
    #[default]
    Vm,
    /// A container: of no concern here, and never merged into a VM.
    Container,
    /// The host itself, or something this version does not know.
    #[serde(other)]
    Other,
}

/// One machine, as one manager describes it. Anybody who may define a VM chose these words: they are made fit for labels where they are
/// merged, so a sender need not do it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// Who says so: `libvirt`, `machined`. Where several know a VM, what the earlier one in the list leaves open the later one fills in.
    pub manager: String,
    /// Its name there.
    pub name: String,
    /// Its UUID, in any spelling; a VM that runs is found by it.
    pub uuid: Option<String>,
    /// `running`, `paused`, …; empty where the manager does not say.
    pub state: String,
    /// Its title for people; empty where it has none.
    pub title: String,
    /// Virtual CPUs now.
    pub vcpus: Option<u32>,
    /// Vsock context id now.
    pub cid: Option<u32>,
    /// The guest channel's profile in its metadata, as written there.
    pub profile: Option<String>,
    /// Process id of its VMM, where the manager says; a VM that runs is found by it where there is no UUID.
    pub leader: Option<u32>,
    /// What it is.
    pub class: Class,
}

/// Everything that the system's managers know now. The receiver side is the sampler's; a sender replaces the whole list. What a user's own
/// manager says (`qemu:///session`) does not belong into it: that user could name anybody's UUID.
pub type Inventory = watch::Receiver<Arc<[Known]>>;
