//! Recognises the program of a VMM, and dispatches its command line to the parser for it. Pure. Command lines are
//! claims: `identity` decides which of them are believed.

use super::{micro_vm, qemu};
use crate::model::source::PciAddress;
use crate::model::vm::Vmm;

/// What a command line claims of its VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Name, fit for a label.
    pub name: Option<String>,
    /// UUID in lower case with dashes.
    pub uuid: Option<String>,
    /// Number of virtual CPUs; `None`: not on the command line.
    pub vcpus: Option<u32>,
    /// The vsock context id that it requests from the host's kernel.
    pub cid: Option<u32>,
    /// `kvm`, `xen`, or `qemu` where QEMU emulates.
    pub hypervisor: String,
    /// Neither the command line nor a file that it names says how many CPUs the VM has, or what runs them: the values
    /// above are then the program's defaults.
    pub by_default: bool,
    /// Paths of vhost-user sockets.
    pub vhost_user: Vec<String>,
    /// PCI devices of the host that it requests by VFIO.
    pub pci: Vec<PciAddress>,
}

/// The VMM that a process runs, by the path of its executable; by its short name (`comm`) only where that path cannot
/// be read, as any process may change its short name.
pub fn vmm(exe: &str, comm: &str) -> Option<Vmm> {
    let program = if exe.is_empty() { comm } else { program(exe) };
    let is = |start: &str| program.starts_with(start);
    if is("qemu-system-") || matches!(program, "qemu-kvm" | "kvm") {
        Some(Vmm::Qemu)
    } else if is("cloud-hyperviso") {
        Some(Vmm::CloudHypervisor)
    } else if is("firecracker") {
        Some(Vmm::Firecracker)
    } else {
        None
    }
}

/// File name of an executable. The kernel appends ` (deleted)` after an upgrade; NixOS wraps programs as
/// `.NAME-wrapped`.
fn program(exe: &str) -> &str {
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
    let name = exe.rsplit('/').next().unwrap_or(exe);
    name.strip_prefix('.').and_then(|name| name.strip_suffix("-wrapped")).unwrap_or(name)
}

/// What /proc/PID/cmdline says; `None`: it runs no VM. Where the text was cut off (not `whole`), its last argument is
/// left out. `read` gives the text of a file that the command line names.
pub fn describe(
    vmm: Vmm,
    exe: &str,
    cmdline: &[u8],
    whole: bool,
    read: &dyn Fn(&str) -> Option<String>,
) -> Option<Claims> {
    let end = if whole { cmdline.len() } else { cmdline.iter().rposition(|byte| *byte == 0)? };
    let text = cmdline.get(..end)?;
    let mut arguments = text
        .strip_suffix(b"\0")
        .unwrap_or(text)
        .split(|byte| *byte == 0)
        .map(|one| String::from_utf8_lossy(one).into_owned());
    let first = arguments.next().filter(|first| !first.is_empty())?;
    let arguments: Vec<String> = arguments.collect();
    match vmm {
        Vmm::Qemu => {
            // QEMU itself goes by the name that it was called by: Proxmox' /usr/bin/kvm is a link.
            let called_kvm = [program(exe), program(&first)].iter().any(|name| name.ends_with("kvm"));
            qemu::describe(called_kvm, &arguments, read)
        }
        Vmm::CloudHypervisor => micro_vm::cloud_hypervisor(&arguments),
        Vmm::Firecracker => micro_vm::firecracker(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn programs() {
        for (exe, comm, vmm_is) in [
            ("/usr/bin/qemu-system-x86_64", "CPU 0/KVM", Some(Vmm::Qemu)),
            ("/usr/bin/qemu-system-aarch64 (deleted)", "x", Some(Vmm::Qemu)),
            ("/nix/store/x/bin/.qemu-system-x86_64-wrapped", "x", Some(Vmm::Qemu)),
            ("/usr/libexec/qemu-kvm", "x", Some(Vmm::Qemu)),
            ("", "qemu-system-x86", Some(Vmm::Qemu)),
            ("", "cloud-hyperviso", Some(Vmm::CloudHypervisor)),
            ("/opt/firecracker-v1.7.0-x86_64", "fc_vcpu 0", Some(Vmm::Firecracker)),
            ("/usr/bin/qemu-img", "qemu-img", None),
            ("/usr/bin/qemu-x86_64", "qemu-x86_64", None),
            // Only the short name is a VMM's.
            ("/usr/bin/sleep", "qemu-system-x86", None),
            ("/bin/sh", "kvm", None),
            ("", "", None),
        ] {
            assert_eq!(vmm(exe, comm), vmm_is, "{exe} {comm}");
        }
    }

    #[test]
    fn the_name_that_qemu_is_called_by_counts() {
        let hypervisor = |exe: &str, line: &[u8]| describe(Vmm::Qemu, exe, line, true, &|_| None).unwrap().hypervisor;
        assert_eq!(hypervisor("/usr/bin/qemu-system-x86_64", b"/usr/bin/kvm\0-id\x00100\0"), "kvm");
        assert_eq!(hypervisor("", b"/usr/libexec/qemu-kvm\0-id\x00100\0"), "kvm");
        assert_eq!(hypervisor("/usr/libexec/qemu-kvm", b"guest=web\0"), "kvm");
        assert_eq!(hypervisor("/usr/bin/qemu-system-x86_64", b"/usr/bin/kvm\0-accel\0tcg\0"), "qemu");
        assert_eq!(hypervisor("/usr/bin/qemu-system-x86_64", b"qemu-system-x86_64\0-name\0kvm\0"), "qemu");
    }

    #[test]
    fn hostile_lines() {
        let says = |text: &[u8], whole| describe(Vmm::Qemu, "/usr/bin/qemu-system-x86_64", text, whole, &|_| None);
        assert_eq!(says(b"", true), None);
        assert_eq!(says(b"qemu", false), None);
        assert_eq!(says(b"qemu\0--version\0", true), None);
        // Cut off in the middle of a CID.
        assert_eq!(says(b"qemu\0-device\0vhost-vsock-pci,guest-cid=12", true).unwrap().cid, Some(12));
        assert_eq!(says(b"qemu\0-device\0vhost-vsock-pci,guest-cid=12", false).unwrap().cid, None);
        assert_eq!(says(b"qemu\0-name\0\xff\xfe../\n\0", true).unwrap().name.unwrap(), "\u{fffd}\u{fffd}../\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_text_parses_without_a_panic(text in proptest::collection::vec(any::<u8>(), 0..400), whole: bool) {
            for vmm in [Vmm::Qemu, Vmm::CloudHypervisor, Vmm::Firecracker] {
                let _ = describe(vmm, "", &text, whole, &|_| Some(String::from_utf8_lossy(&text).into_owned()));
            }
        }
    }
}
