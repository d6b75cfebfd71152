//! What the command lines of Cloud Hypervisor and Firecracker say of their VM. Pure text.
//!
//! Their vsock is a Unix socket (hybrid): the CID on the command line is the guest's own business and none of the host's.

use super::command::Described;
use super::words;

/// What Cloud Hypervisor's arguments say; `None`: no VM.
pub fn cloud_hypervisor(arguments: &[String]) -> Option<Described> {
    let mut said = Described { hypervisor: "kvm".into(), ..Described::default() };
    let mut option = "";
    for argument in arguments {
        if matches!(argument.as_str(), "-h" | "--help" | "-V" | "--version") {
            return None;
        }
        // An option may have several values, each an argument of its own.
        let value = match argument.strip_prefix("--").map(|long| long.split_once('=').unwrap_or((long, ""))) {
            Some((name, value)) => {
                option = name;
                value
            }
            None => argument,
        };
        let get = |key: &str| {
            value
                .split(',')
                .find_map(|part| part.split_once('=').filter(|(other, _)| *other == key))
                .map(|(_, value)| value)
        };
        match option {
            "cpus" => {
                said.vcpus = get("boot").or_else(|| value.split(',').next()).and_then(words::vcpus).or(said.vcpus)
            }
            "platform" => said.uuid = get("uuid").and_then(words::uuid).or(said.uuid),
            "device" if said.pci.len() < 64 => said.pci.extend(get("path").and_then(words::pci_path)),
            "fs" | "net" | "disk" => said.vhost_user.extend(get("socket").and_then(words::socket)),
            _ => {}
        }
    }
    said.vhost_user.truncate(16);
    Some(said)
}

/// What Firecracker's arguments say; `None`: no VM. The configuration file is not opened: its path is the VM's owner's word, and may
/// be one inside a jail. vCPUs are counted by their threads.
pub fn firecracker(arguments: &[String]) -> Option<Described> {
    let mut said = Described { hypervisor: "kvm".into(), ..Described::default() };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" | "-V" | "--version" | "--snapshot-version" | "--describe-snapshot" => return None,
            // What follows is Firecracker's jailer's business, or a script's.
            "--" => break,
            _ => {}
        }
        let id = match argument.strip_prefix("--id") {
            Some("") => arguments.next().map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        if let Some(id) = id {
            (said.name, said.uuid) = (Some(words::name(id)), words::uuid(id));
        }
    }
    Some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn cloud_hypervisors() {
        let said = cloud_hypervisor(&split(
            "--api-socket /run/ch.sock --cpus boot=4,max=8 --memory size=1G --kernel /k --vsock cid=3,socket=/run/vm.vsock \
             --platform num_pci_segments=1,uuid=8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7 --fs tag=a,socket=/run/fs",
        ))
        .unwrap();
        assert_eq!((said.vcpus, said.cid, said.uuid.is_some()), (Some(4), None, true));
        assert_eq!((said.hypervisor.as_str(), said.vhost_user), ("kvm", vec!["/run/fs".to_owned()]));
        let said = cloud_hypervisor(&split(
            "--device path=/sys/bus/pci/devices/0000:41:00.0/,id=a path=/sys/bus/pci/devices/0000:c1:00.0",
        ));
        let pci: Vec<String> = said.unwrap().pci.iter().map(ToString::to_string).collect();
        assert_eq!(pci, ["0000:41:00.0", "0000:c1:00.0"]);
        assert_eq!(cloud_hypervisor(&split("--cpus=boot=2")).unwrap().vcpus, Some(2));
        assert_eq!(cloud_hypervisor(&split("--api-socket x")).unwrap().vcpus, None);
        assert_eq!(cloud_hypervisor(&split("--version")), None);
    }

    #[test]
    fn firecrackers() {
        let said = firecracker(&split("--id my-vm --config-file /c.json --no-api")).unwrap();
        assert_eq!((said.name.as_deref(), said.uuid, said.vcpus), (Some("my-vm"), None, None));
        let said = firecracker(&split("--id=8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7 --start-time-us 5")).unwrap();
        assert_eq!(said.uuid.as_deref(), Some("8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7"));
        assert_eq!(firecracker(&split("--version")), None);
        assert_eq!(firecracker(&[]).unwrap().name, None);
    }

    proptest! {
        #[test]
        fn any_line_is_taken(arguments in proptest::collection::vec("(--(id|cpus|platform|fs)=?|\\PC{0,40})", 0..9)) {
            let _ = cloud_hypervisor(&arguments);
            if let Some(said) = firecracker(&arguments) {
                prop_assert!(said.name.unwrap_or_default().len() <= 256);
            }
        }
    }
}
