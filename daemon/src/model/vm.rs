//! What a virtual machine is: plain data. How it is found on a running kernel is `hypervisor`'s, what it draws the
//! ledger's.

use crate::model::entity::{Labels, VmLabels};
use crate::model::source::PciAddress;
use crate::model::usage::ProcessKey;
use serde::{Deserialize, Serialize};

/// The program that runs a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// QEMU, under whatever name a distribution gives it.
    Qemu,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// Firecracker.
    Firecracker,
}

impl Vmm {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Firecracker => "firecracker",
        }
    }
}

/// A virtual machine that runs now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// The `vm_id` label: the UUID where it has one that no other living VM has, else a word made of the process. No
    /// two living VMs have the same.
    pub id: String,
    /// The `vm_name` label. Anybody may have chosen it: for people to read, never a path, at most 256 bytes.
    pub name: String,
    /// The `hypervisor` label: `kvm`, or `qemu` where QEMU emulates.
    pub hypervisor: String,
    /// UUID, where it has one.
    pub uuid: Option<String>,
    /// What runs it.
    pub vmm: Vmm,
    /// The process of it. Its id and start tell a VM from the next one with its UUID or its CID.
    pub process: ProcessKey,
    /// Virtual CPUs, where known.
    pub vcpus: Option<u32>,
    /// The vsock context id that is this VM's alone; `None`: it has none, or another living VM claims the same with the
    /// same right.
    pub cid: Option<u32>,
    /// Paths of vhost-user sockets on its command line: how the process of a vhost-user device is known to be its.
    pub vhost_user: Vec<String>,
    /// PCI devices of the host that are handed to it and are this VM's alone: those that its command line names, and
    /// whose VFIO group or device it holds, as far as that can be seen.
    pub pci: Vec<PciAddress>,
    /// Whether the system's service manager keeps it in a scope of its own (libvirt, systemd-machined): then a user of
    /// the host cannot have made up its name and UUID.
    pub vouched: bool,
    /// Who manages it: `libvirt`, `machined`; empty: nobody who told.
    pub manager: String,
    /// `running`, `paused`, …, as the manager says; empty where there is none.
    pub state: String,
    /// The manager's title for it; empty where there is none.
    pub title: String,
    /// The guest channel's profile that the manager's metadata asks for.
    pub profile: Option<String>,
}

impl Vm {
    /// Its labels.
    pub fn labels(&self) -> Labels {
        VmLabels { vm_id: &self.id, vm_name: &self.name, hypervisor: &self.hypervisor }.into()
    }
}
