//! Command lines of Cloud Hypervisor and Firecracker. Pure.
//!
//! Their vsock is a Unix socket on the host ("hybrid"): the CID on the command line is known to the guest only and not
//! used here.

use super::command::Claims;
use super::untrusted;

/// What Cloud Hypervisor's arguments say; `None`: it runs no VM.
pub fn cloud_hypervisor(arguments: &[String]) -> Option<Claims> {
    let mut claims = Claims { hypervisor: "kvm".into(), ..Claims::default() };
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
                claims.vcpus =
                    get("boot").or_else(|| value.split(',').next()).and_then(untrusted::vcpus).or(claims.vcpus)
            }
            "platform" => claims.uuid = get("uuid").and_then(untrusted::uuid).or(claims.uuid),
            "device" if claims.pci.len() < 64 => claims.pci.extend(get("path").and_then(untrusted::pci_path)),
            "fs" | "net" | "disk" => claims.vhost_user.extend(get("socket").and_then(untrusted::socket)),
            _ => {}
        }
    }
    claims.vhost_user.truncate(16);
    Some(claims)
}

/// What Firecracker's arguments say; `None`: it runs no VM. The configuration file is not opened: the VM's owner chose
/// its path, which may be inside a jail. vCPUs are counted by their threads.
pub fn firecracker(arguments: &[String]) -> Option<Claims> {
    let mut claims = Claims { hypervisor: "kvm".into(), ..Claims::default() };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" | "-V" | "--version" | "--snapshot-version" | "--describe-snapshot" => return None,
            // What follows belongs to Firecracker's jailer or to a script.
            "--" => break,
            _ => {}
        }
        let id = match argument.strip_prefix("--id") {
            Some("") => arguments.next().map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        if let Some(id) = id {
            (claims.name, claims.uuid) = (Some(untrusted::name(id)), untrusted::uuid(id));
        }
    }
    Some(claims)
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
        let claims = cloud_hypervisor(&split(
            "--api-socket /run/ch.sock --cpus boot=4,max=8 --memory size=1G --kernel /k --vsock cid=3,socket=/run/vm.vsock \
             --platform num_pci_segments=1,uuid=8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7 --fs tag=a,socket=/run/fs",
        ))
        .unwrap();
        assert_eq!((claims.vcpus, claims.cid, claims.uuid.is_some()), (Some(4), None, true));
        assert_eq!((claims.hypervisor.as_str(), claims.vhost_user), ("kvm", vec!["/run/fs".to_owned()]));
        let claims = cloud_hypervisor(&split(
            "--device path=/sys/bus/pci/devices/0000:41:00.0/,id=a path=/sys/bus/pci/devices/0000:c1:00.0",
        ));
        let pci: Vec<String> = claims.unwrap().pci.iter().map(ToString::to_string).collect();
        assert_eq!(pci, ["0000:41:00.0", "0000:c1:00.0"]);
        assert_eq!(cloud_hypervisor(&split("--cpus=boot=2")).unwrap().vcpus, Some(2));
        assert_eq!(cloud_hypervisor(&split("--api-socket x")).unwrap().vcpus, None);
        assert_eq!(cloud_hypervisor(&split("--version")), None);
    }

    #[test]
    fn firecrackers() {
        let claims = firecracker(&split("--id my-vm --config-file /c.json --no-api")).unwrap();
        assert_eq!((claims.name.as_deref(), claims.uuid, claims.vcpus), (Some("my-vm"), None, None));
        let claims = firecracker(&split("--id=8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7 --start-time-us 5")).unwrap();
        assert_eq!(claims.uuid.as_deref(), Some("8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7"));
        assert_eq!(firecracker(&split("--version")), None);
        assert_eq!(firecracker(&[]).unwrap().name, None);
    }

    proptest! {
        #[test]
        fn any_line_parses_without_a_panic(arguments in proptest::collection::vec("(--(id|cpus|platform|fs)=?|\\PC{0,40})", 0..9)) {
            let _ = cloud_hypervisor(&arguments);
            if let Some(claims) = firecracker(&arguments) {
                prop_assert!(claims.name.unwrap_or_default().len() <= 256);
            }
        }
    }
}
