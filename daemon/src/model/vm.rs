//! A virtual machine: plain data. VMs are found by `entity/hypervisor`; their energy is in the ledger.

use crate::model::entity::{Details, Labels, VmLabels};
use crate::model::source::PciAddress;
use crate::model::usage::ProcessKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// The value of the `vmm` label.
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
    /// The label `vm_id`: its UUID where no other living VM has the same, else a word made of its process. Unique among
    /// living VMs.
    pub id: String,
    /// The label `vm_name`, at most 256 bytes. Any user of the host may have chosen it: it is for people to read, and
    /// never part of a path.
    pub name: String,
    /// The label `hypervisor`: `kvm`, or `qemu` where QEMU emulates the processor.
    pub hypervisor: String,
    /// Its UUID, where it has one.
    pub uuid: Option<String>,
    /// The program that runs it.
    pub vmm: Vmm,
    /// The process that runs it. Its id and start tell a VM from a later one with the same UUID or CID.
    pub process: ProcessKey,
    /// Number of virtual CPUs, where it is known.
    pub vcpus: Option<u32>,
    /// The vsock context id of this VM. `None` where it has none, and where another living VM claims the same id with
    /// the same right.
    pub cid: Option<u32>,
    /// Paths of vhost-user sockets on its command line, by which the processes of its vhost-user devices are found.
    pub vhost_user: Vec<String>,
    /// PCI devices of the host that are passed through to this VM: those that its command line names, and whose VFIO
    /// group or device it has open, as far as that can be seen.
    pub pci: Vec<PciAddress>,
    /// Whether it runs in a machine scope of the system's service manager (libvirt, systemd-machined): then no ordinary
    /// user of the host chose its name and UUID.
    pub vouched: bool,
    /// The manager that knows it: `libvirt`, `machined`; empty where none reported it.
    pub manager: String,
    /// Its state as the manager reports it: `running`, `paused`, …; empty where no manager does.
    pub state: String,
    /// Its title as the manager reports it; empty where no manager does.
    pub title: String,
    /// The guest channel's profile that the manager's metadata asks for.
    pub profile: Option<String>,
    /// Whose it is, as its manager reports it: those of [`crate::model::entity::Kind::detail_names`] that are known.
    /// Recordings of releases without them lack them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl Vm {
    /// Its labels, with its details.
    pub fn labels(&self) -> Labels {
        let labels = Labels::from(VmLabels { vm_id: &self.id, vm_name: &self.name, hypervisor: &self.hypervisor });
        if self.details.is_empty() {
            return labels;
        }
        labels.with_details(&Details::of(self.details.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
    }
}
