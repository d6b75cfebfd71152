//! The labels of each kind of entity by field. What they have in common is [`Labels`].

use super::{Kind, Labels};
use crate::model::text::label;

/// The labels of one kind by field, with each label's name beside it. Converts into [`Labels`], and from them where the
/// kind is the same.
macro_rules! labels {
    ($(#[$about:meta])* $kind:ident: $name:ident { $($(#[$doc:meta])* $field:ident: $label:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name<'a> {
            $($(#[$doc])* pub $field: &'a str,)+
        }

        impl<'a> $name<'a> {
            /// The label names, in the order of the fields.
            pub const NAMES: &'static [&'static str] = &[$($label),+];

            /// The labels by field; `None` where they are of another kind.
            pub fn of(labels: &'a Labels) -> Option<Self> {
                match (labels.kind, &*labels.values) {
                    (Kind::$kind, [$($field),+, ..]) => Some(Self { $($field),+ }),
                    _ => None,
                }
            }
        }

        impl From<$name<'_>> for Labels {
            fn from($name { $($field),+ }: $name<'_>) -> Self {
                Self { kind: Kind::$kind, values: [$(label($field).into_owned()),+].into() }
            }
        }
    };
}

labels! {
    /// Labels of a process.
    Process: ProcessLabels {
        /// Process id (thread group id), decimal.
        pid: "pid",
        /// The kernel's short name, at most 15 bytes; invalid UTF-8 is replaced.
        comm: "comm",
        /// Path of the executable; empty where it is not known (kernel threads, a process that ended too soon, no
        /// permission).
        exe: "exe",
        /// `container` or `vm` where the process is part of one, else `regular`.
        process_type: "type",
        /// The container that it runs in; empty where it is in none.
        container_id: "container_id",
        /// The VM that it is part of; empty where it is of none.
        vm_id: "vm_id",
    }
}

labels! {
    /// Labels of a unit of the system's service manager.
    Unit: UnitLabels {
        /// Name of the unit: `ssh.service`.
        unit: "unit",
        /// Name of the slice that the unit is in.
        slice: "slice",
    }
}

labels! {
    /// Labels of a unit of a user's service manager.
    UserUnit: UserUnitLabels {
        /// Name of the unit.
        unit: "unit",
        /// Name of the user's slice that the unit is in.
        slice: "slice",
        /// Numeric id of the user, decimal.
        user: "user",
    }
}

labels! {
    /// Labels of a slice.
    Slice: SliceLabels {
        /// Name of the slice.
        slice: "slice",
    }
}

labels! {
    /// Labels of a login session.
    Session: SessionLabels {
        /// Id of the session, as logind counts.
        session: "session",
        /// Numeric id of the user, decimal.
        user: "user",
    }
}

labels! {
    /// Labels of a user.
    User: UserLabels {
        /// Numeric id of the user, decimal.
        user: "user",
    }
}

labels! {
    /// Labels of a container.
    Container: ContainerLabels {
        /// Id of the container, or its name where the runtime has only names.
        container_id: "container_id",
        /// Name of the container; empty where it is not known.
        container_name: "container_name",
        /// `docker`, `containerd`, `crio`, `podman`, `kata`, `buildkit`, `lxc`, `systemd-nspawn` or `kubepods`; empty
        /// where the cgroup does not say it.
        runtime: "runtime",
        /// Uid of the pod that the container is in; empty where it is in none.
        pod_id: "pod_id",
    }
}

labels! {
    /// Labels of a Kubernetes pod.
    Pod: PodLabels {
        /// Uid of the pod.
        pod_id: "pod_id",
        /// Name of the pod; empty where it is not known.
        pod_name: "pod_name",
        /// Namespace of the pod; empty where it is not known.
        pod_namespace: "pod_namespace",
    }
}

labels! {
    /// Labels of a VM.
    Vm: VmLabels {
        /// Id of the VM: its UUID, or a word made of its process where it has none of its own.
        vm_id: "vm_id",
        /// Name of the VM, at most 256 bytes. Whoever started the VM chose it.
        vm_name: "vm_name",
        /// `kvm`, or `qemu` where QEMU emulates the processor.
        hypervisor: "hypervisor",
    }
}

labels! {
    /// Labels of a job. The first three identify it; the others are what the environment of its first process says.
    Job: JobLabels {
        /// `slurm`, `pbs`, `oar`, `nomad` or `htcondor`.
        manager: "manager",
        /// Id of the job, as its manager counts: of Nomad the allocation's, of HTCondor the slot's name.
        job_id: "job_id",
        /// Id of the job's cgroup in the kernel, decimal: job ids repeat, these do not until a reboot. Empty where job
        /// ids never repeat (Nomad).
        cgroup_id: "cgroup_id",
        /// Name of its user, else the number; empty where it is not known.
        user: "user",
        /// Account that it is charged to, project of OAR, namespace of Nomad; empty where it is not known.
        account: "account",
        /// Partition or queue; empty where it is not known.
        partition: "partition",
        /// Name of the job, which its owner chose; empty where it is not known.
        job_name: "job_name",
    }
}

labels! {
    /// Labels of a step of a job. The first four identify it.
    JobStep: JobStepLabels {
        /// As in [`JobLabels`].
        manager: "manager",
        /// As in [`JobLabels`].
        job_id: "job_id",
        /// As in [`JobLabels`].
        cgroup_id: "cgroup_id",
        /// Id of the step: `batch`, `extern`, `interactive` or a number; of Nomad the name of the task.
        step_id: "step_id",
        /// As in [`JobLabels`].
        user: "user",
        /// As in [`JobLabels`].
        account: "account",
        /// As in [`JobLabels`].
        partition: "partition",
        /// As in [`JobLabels`].
        job_name: "job_name",
    }
}

labels! {
    /// Labels of a tenant.
    Tenant: TenantLabels {
        /// Name of the tenant as its rule gives it, or `unassigned`.
        tenant: "tenant",
    }
}
