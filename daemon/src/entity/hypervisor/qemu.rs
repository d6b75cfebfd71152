//! QEMU's command line (qemu(1)). Pure; `identity` decides which of its claims are believed.

use super::command::Claims;
use super::untrusted;
use serde_json::Value;

/// Options without a value. All others take the next argument, even one that begins with a dash.
const WITHOUT_VALUE: [&str; 40] = [
    "h",
    "help",
    "version",
    "S",
    "s",
    "nographic",
    "no-reboot",
    "no-shutdown",
    "enable-kvm",
    "no-kvm",
    "no-kvm-irqchip",
    "no-kvm-pit",
    "no-kvm-pit-reinjection",
    "nodefaults",
    "no-user-config",
    "nodefconfig",
    "no-acpi",
    "no-hpet",
    "no-fd-bootchk",
    "daemonize",
    "snapshot",
    "full-screen",
    "no-quit",
    "no-frame",
    "alt-grab",
    "ctrl-grab",
    "curses",
    "sdl",
    "usb",
    "win2k-hack",
    "rtc-td-hack",
    "singlestep",
    "one-insn-per-tick",
    "mem-prealloc",
    "semihosting",
    "preconfig",
    "only-migratable",
    "xen-attach",
    "xen-create",
    "xen-domid-restrict",
];
/// Options for which QEMU lists the possible values and exits, where the value asks for help.
const WITH_HELP: [&str; 14] = [
    "machine", "M", "cpu", "accel", "device", "object", "netdev", "nic", "net", "chardev", "display", "audiodev", "d",
    "trace",
];
/// Levels of a CPU topology: their product is the number of CPUs where that is not given.
const TOPOLOGY: [&str; 8] = ["drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"];
/// vhost-user sockets kept per VM.
const SOCKETS_MAX: usize = 16;
/// Host devices kept per VM.
const DEVICES_MAX: usize = 64;

/// Files of `-readconfig` that are read per VM.
const FILES_MAX: usize = 4;

/// What the arguments say; `None`: it runs no VM (help, version, or a manager's probe of QEMU's capabilities).
/// `called_kvm`: the program was called by a name that ends in `kvm`. `read` gives the text of a file of `-readconfig`,
/// in which LXD and Incus write most of a VM.
pub fn describe(called_kvm: bool, arguments: &[String], read: &dyn Fn(&str) -> Option<String>) -> Option<Claims> {
    let mut parser = Parser::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        // One dash and two mean the same; an argument without a dash is a disk image.
        let Some(option) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else { continue };
        if matches!(option, "h" | "help" | "version") {
            return None;
        }
        if option == "enable-kvm" {
            parser.accelerator.get_or_insert("kvm".into());
        } else if !WITHOUT_VALUE.contains(&option) {
            let Some(value) = arguments.next() else { break };
            if option == "readconfig" {
                parser.files += 1;
                let text = if parser.files <= FILES_MAX { read(value) } else { None };
                parser.config(&text.unwrap_or_default());
            } else {
                parser.option(option, value)?;
            }
        }
    }
    Some(parser.finish(called_kvm))
}

#[derive(Default)]
struct Parser {
    claims: Claims,
    smbios: Option<String>,
    accelerator: Option<String>,
    smp: Vec<(String, String)>,
    /// Character devices that are Unix sockets: id, path.
    sockets: Vec<(String, String)>,
    /// Ids of the character devices of vhost-user devices.
    vhost_user: Vec<String>,
    /// Number of `-readconfig` options.
    files: usize,
}

impl Parser {
    /// Applies one option; `None`: it runs no VM.
    fn option(&mut self, option: &str, value: &str) -> Option<()> {
        let parts = if WITH_HELP.contains(&option) || matches!(option, "name" | "smp" | "smbios") {
            parts(value)
        } else {
            Vec::new()
        };
        if WITH_HELP.contains(&option)
            && parts.iter().any(|(key, value)| asks_for_help(value) && key.is_empty() || asks_for_help(key))
        {
            return None;
        }
        self.apply(option, value, parts)
    }

    /// Applies the text of a file of `-readconfig`: sections `[device "id"]` of lines `key = "value"`.
    fn config(&mut self, text: &str) {
        let mut section: Option<(String, Vec<(String, String)>)> = None;
        for line in text.lines().map(str::trim).chain(["[]"]) {
            let unquoted = |text: &str| text.trim().trim_matches('"').to_owned();
            if let Some(head) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                if let Some((group, parts)) = section.take() {
                    let option = if group == "smp-opts" { "smp" } else { group.as_str() };
                    // Where it says that there is no VM (`type = "none"`), the command line decides.
                    let _ = self.apply(option, "", parts);
                }
                let (group, id) = head.split_once(' ').unwrap_or((head, ""));
                let id = unquoted(id);
                let parts = if id.is_empty() { Vec::new() } else { vec![("id".to_owned(), id)] };
                section = Some((group.trim().to_owned(), parts));
            } else if let (Some((_, parts)), Some((key, value))) = (&mut section, line.split_once('='))
                && !line.starts_with('#')
            {
                parts.push((key.trim().to_owned(), unquoted(value)));
            }
        }
    }

    /// Applies one option by its parts; `None`: it runs no VM.
    fn apply(&mut self, option: &str, value: &str, parts: Vec<(String, String)>) -> Option<()> {
        let get = |key: &str| parts.iter().rev().find(|(other, _)| other == key).map(|(_, value)| value.as_str());
        let first = |key: &str| get("").or_else(|| get(key));
        match option {
            "name" => self.claims.name = first("guest").map(untrusted::name).or(self.claims.name.take()),
            "uuid" => self.claims.uuid = untrusted::uuid(value),
            "smbios" if get("type") == Some("1") => {
                self.smbios = get("uuid").and_then(untrusted::uuid).or(self.smbios.take())
            }
            "smp" => self.smp.extend(parts),
            "accel" => {
                let accelerator = first("accel").unwrap_or_default().to_owned();
                self.accelerator.get_or_insert(accelerator);
            }
            "machine" | "M" if first("type") == Some("none") => return None,
            "machine" | "M" => {
                let is_xen = first("type").is_some_and(|machine| machine.starts_with("xen"));
                let accelerator = get("accel").and_then(|list| list.split(':').next()).or(is_xen.then_some("xen"));
                self.accelerator = self.accelerator.take().or(accelerator.map(str::to_owned));
            }
            // QEMU is the device model of a Xen domain; Xen runs its processors.
            "xen-domid" => self.accelerator = Some("xen".to_owned()),
            "chardev" if first("backend") == Some("socket") => {
                if let (Some(id), Some(path)) = (get("id"), get("path").and_then(untrusted::socket)) {
                    self.sockets.push((id.to_owned(), path));
                }
            }
            "device" => {
                let driver = first("driver").unwrap_or_default();
                if driver.starts_with("vhost-vsock-") {
                    self.claims.cid = self.claims.cid.or(get("guest-cid").and_then(untrusted::cid));
                }
                if driver.starts_with("vhost-user-") {
                    self.vhost_user.extend(get("chardev").map(str::to_owned));
                }
                if matches!(driver, "vfio-pci" | "vfio-pci-nohotplug") && self.claims.pci.len() < DEVICES_MAX {
                    let host = get("host").and_then(|host| host.parse().ok());
                    self.claims.pci.extend(host.or_else(|| get("sysfsdev").and_then(untrusted::pci_path)));
                }
            }
            "netdev" if first("type") == Some("vhost-user") => {
                self.vhost_user.extend(get("chardev").map(str::to_owned))
            }
            _ => {}
        }
        Some(())
    }

    fn finish(self, called_kvm: bool) -> Claims {
        // QEMU's default is emulation (tcg); a program named `…kvm` defaults to KVM.
        let default = if called_kvm { "kvm" } else { "tcg" };
        let accelerator = self.accelerator.as_deref().unwrap_or(default);
        let used = self.sockets.iter().filter(|(id, _)| self.vhost_user.contains(id));
        Claims {
            uuid: self.claims.uuid.or(self.smbios),
            vcpus: vcpus(&self.smp),
            by_default: self.smp.is_empty() || (self.accelerator.is_none() && !called_kvm) || self.files > 0,
            hypervisor: if matches!(accelerator, "kvm" | "xen") { accelerator.to_owned() } else { "qemu".to_owned() },
            vhost_user: used.map(|(_, path)| path.clone()).take(SOCKETS_MAX).collect(),
            ..self.claims
        }
    }
}

fn asks_for_help(text: &str) -> bool {
    matches!(text, "help" | "?")
}

/// Number of virtual CPUs by all `-smp` options; 1 where there is none.
fn vcpus(smp: &[(String, String)]) -> Option<u32> {
    let get = |key: &str| smp.iter().rev().find(|(other, _)| other == key).map(|(_, value)| value.as_str());
    if let Some(cpus) = get("cpus").or_else(|| get("")) {
        return untrusted::vcpus(cpus);
    }
    if TOPOLOGY.iter().all(|part| get(part).is_none()) {
        return get("maxcpus").map_or(Some(1), untrusted::vcpus);
    }
    let product = TOPOLOGY
        .iter()
        .filter_map(|part| get(part))
        .try_fold(1u32, |product, part| product.checked_mul(part.parse().ok()?));
    untrusted::vcpus(&product?.to_string())
}

/// The parts of an option's value as (key, value): `first,key=value,flag` with `,,` for a comma, or JSON. The key of
/// `first` is empty, and so is the value of a flag.
fn parts(text: &str) -> Vec<(String, String)> {
    if text.starts_with('{') {
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { return Vec::new() };
        return object.into_iter().map(|(key, value)| (key, json_text(value))).collect();
    }
    let mut pieces = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(character) = chars.next() {
        match (character, pieces.last_mut()) {
            (',', _) if chars.peek() != Some(&',') => pieces.push(String::new()),
            (character, Some(piece)) => {
                if character == ',' {
                    chars.next();
                }
                piece.push(character);
            }
            _ => {}
        }
    }
    let part = |(at, piece): (usize, String)| match piece.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None if at == 0 => (String::new(), piece),
        None => (piece, String::new()),
    };
    pieces.into_iter().enumerate().map(part).collect()
}

fn json_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn says(line: &str) -> Option<Claims> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        describe(false, &arguments, &|_| None)
    }

    #[test]
    fn a_libvirt_line() {
        let claims = says(
            "-name guest=web,debug-threads=on -S -machine pc-q35-7.2,usb=off,dump-guest-core=off -accel kvm -cpu host -m size=2097152k \
             -smp 4,sockets=4,cores=1,threads=1 -uuid 8C0D1A2B-3C4D-5E6F-7081-92A3B4C5D6E7 -no-user-config -nodefaults \
             -chardev socket,id=charmonitor,fd=28,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control \
             -chardev socket,id=chr-vu-fs0,path=/run/fs0.sock -device {\"driver\":\"vhost-user-fs-pci\",\"chardev\":\"chr-vu-fs0\"} \
             -device {\"driver\":\"vhost-vsock-pci\",\"id\":\"vsock0\",\"guest-cid\":7,\"vhostfd\":\"29\"} -msg timestamp=on",
        )
        .unwrap();
        let expected = Claims {
            name: Some("web".into()),
            uuid: Some("8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7".into()),
            vcpus: Some(4),
            cid: Some(7),
            hypervisor: "kvm".into(),
            by_default: false,
            vhost_user: vec!["/run/fs0.sock".into()],
            pci: Vec::new(),
        };
        assert_eq!(claims, expected);
    }

    /// Kepler's fault no. 8: `-name foo,debug-threads=on` gave the name "foo,debug-threads=on".
    #[test]
    fn kepler_fault_8_a_name_is_a_name() {
        let name =
            |value: &str| describe(true, &["-name".into(), value.into()], &|_| None).unwrap().name.unwrap_or_default();
        assert_eq!(name("foo"), "foo");
        assert_eq!(name("foo,debug-threads=on"), "foo");
        assert_eq!(name("guest=foo,debug-threads=on"), "foo");
        assert_eq!(name("debug-threads=on,guest=foo"), "foo");
        assert_eq!(name("foo,,bar,process=x"), "foo,bar");
        assert_eq!(name("guest=a=b"), "a=b");
        assert_eq!(name("debug-threads=on"), "");
        assert_eq!(name("a\nb\"c"), "a\u{fffd}b\"c");
        assert_eq!(name(&"x".repeat(10_000)).len(), 256);
    }

    #[test]
    fn numbers_and_accelerators() {
        let vcpus = |smp: &str| says(&format!("-smp {smp}")).unwrap().vcpus;
        assert_eq!(vcpus("8"), Some(8));
        assert_eq!(vcpus("cpus=8,maxcpus=16"), Some(8));
        assert_eq!(vcpus("sockets=2,cores=3,threads=2"), Some(12));
        assert_eq!(vcpus("maxcpus=6"), Some(6));
        assert_eq!(vcpus("0"), None);
        assert_eq!(vcpus("sockets=65536,cores=65536"), None);
        assert_eq!(says("-m 1G").unwrap().vcpus, Some(1));
        let hypervisor = |line: &str| says(line).unwrap().hypervisor;
        assert_eq!(hypervisor(""), "qemu");
        assert_eq!(hypervisor("-enable-kvm"), "kvm");
        assert_eq!(hypervisor("--enable-kvm -smp 2"), "kvm");
        assert_eq!(hypervisor("-machine q35,accel=kvm:tcg"), "kvm");
        assert_eq!(hypervisor("-machine accel=tcg -smp 2"), "qemu");
        assert_eq!(hypervisor("-accel tcg,thread=multi -accel kvm"), "qemu");
        assert_eq!(describe(true, &[], &|_| None).unwrap().hypervisor, "kvm");
        assert_eq!(hypervisor("-xen-domid 5 -no-shutdown -machine pc,accel=tcg"), "xen");
        assert_eq!(hypervisor("-machine xenfv,max-ram-below-4g=4026531840 -xen-attach -smp 2"), "xen");
        assert_eq!(says("-xen-domid 5 -xen-attach -smp 2").unwrap().vcpus, Some(2));
    }

    /// LXD and Incus write most of a VM into a file.
    #[test]
    fn a_file_of_readconfig() {
        let conf = "# Machine\n[machine]\ngraphics = \"off\"\ntype = \"q35\"\naccel = \"kvm\"\n\n[smp-opts]\ncpus = \"4\"\n\
                    sockets = \"1\"\n# comment = \"x\"\n[chardev \"fs\"]\nbackend = \"socket\"\npath = \"/run/fs.sock\"\n\
                    [device \"dev-fs\"]\ndriver = \"vhost-user-fs-pci\"\nchardev = \"fs\"\n\
                    [device \"qemu_vsock\"]\ndriver = \"vhost-vsock-pci\"\nbus = \"qemu_pcie4\"\nguest-cid = \"10\"\n\
                    [device \"gpu\"]\ndriver = \"vfio-pci\"\nhost = \"0000:41:00.0\"\n";
        let line: Vec<String> =
            "-S -name v1 -daemonize -cpu host -nodefaults -readconfig /var/log/lxd/v1/qemu.conf -pidfile /run/p"
                .split_whitespace()
                .map(str::to_owned)
                .collect();
        let read = |path: &str| (path == "/var/log/lxd/v1/qemu.conf").then(|| conf.to_owned());
        let claims = describe(false, &line, &read).unwrap();
        assert_eq!((claims.name.as_deref(), claims.hypervisor.as_str(), claims.vcpus), (Some("v1"), "kvm", Some(4)));
        assert_eq!((claims.cid, claims.pci.len(), claims.vhost_user.len()), (Some(10), 1, 1));
        let unread = describe(false, &line, &|_| None).unwrap();
        assert_eq!(
            (unread.hypervisor.as_str(), unread.vcpus, unread.cid, unread.by_default),
            ("qemu", Some(1), None, true)
        );
    }

    #[test]
    fn context_ids() {
        let cid = |device: &str| says(&format!("-device {device}")).unwrap().cid;
        for driver in ["vhost-vsock-pci", "vhost-vsock-device", "vhost-vsock-ccw", "vhost-vsock-pci-non-transitional"] {
            assert_eq!(cid(&format!("{driver},guest-cid=42")), Some(42), "{driver}");
            assert_eq!(cid(&format!("{{\"driver\":\"{driver}\",\"guest-cid\":\"42\"}}")), Some(42), "{driver}");
        }
        // The CID of a vhost-user device belongs to its backend, not to the host's kernel.
        assert_eq!(cid("vhost-user-vsock-pci,guest-cid=42,chardev=c"), None);
        assert_eq!(cid("vhost-vsock-pci,guest-cid=2"), None);
        assert_eq!(cid("vhost-vsock-pci,guest-cid=4294967299"), None);
        assert_eq!(cid("{\"driver\":\"vhost-vsock-pci\",\"guest-cid\":[1,2"), None);
        // An argument that looks like an option but is the value of the one before.
        assert_eq!(says("-append -device -device vhost-vsock-pci,guest-cid=5").unwrap().cid, Some(5));
        assert_eq!(says("-name -device vhost-vsock-pci,guest-cid=5 -serial none").unwrap().cid, None);
    }

    #[test]
    fn devices_of_the_host() {
        let pci = |line: &str| says(line).unwrap().pci.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(pci("-device vfio-pci,host=0000:41:00.0,id=hostdev0"), ["0000:41:00.0"]);
        assert_eq!(
            pci("-device vfio-pci,host=41:00.0 -device vfio-pci,host=0001:c1:00.1"),
            ["0000:41:00.0", "0001:c1:00.1"]
        );
        assert_eq!(
            pci("-device {\"driver\":\"vfio-pci\",\"host\":\"0000:41:00.0\",\"id\":\"hostdev0\"}"),
            ["0000:41:00.0"]
        );
        assert_eq!(pci("-device vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:41:00.0"), ["0000:41:00.0"]);
        assert_eq!(pci("-device vfio-pci-nohotplug,host=41:00.0,display=on"), ["0000:41:00.0"]);
        for none in [
            "-device vfio-pci,sysfsdev=/sys/bus/mdev/devices/8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7",
            "-device vfio-pci,host=../../etc",
            "-device virtio-net-pci,host=41:00.0",
            "-append -device=vfio-pci,host=41:00.0",
        ] {
            assert!(pci(none).is_empty(), "{none}");
        }
        assert_eq!(pci(&"-device vfio-pci,host=41:00.0 ".repeat(1000)).len(), DEVICES_MAX);
    }

    #[test]
    fn the_uuid_may_be_in_smbios_only() {
        let claims = says("-id 100 -name vm -smbios type=1,uuid=8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7").unwrap();
        assert_eq!(claims.uuid.as_deref(), Some("8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7"));
        assert_eq!(says("-uuid ../../etc/passwd").unwrap().uuid, None);
    }

    #[test]
    fn arguments_without_a_vm() {
        for line in [
            "--version",
            "-version",
            "-h",
            "-help",
            "-machine help",
            "-M ?",
            "-device help",
            "-device virtio-net-pci,help",
            "-cpu host -accel help",
            "-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -qmp unix:/x,server=on -daemonize",
        ] {
            assert_eq!(says(line), None, "{line}");
        }
        assert!(says("-name help -append help disk.img").is_some());
        assert!(says("").is_some());
    }

    proptest! {
        #[test]
        fn any_line_parses_without_a_panic(arguments in proptest::collection::vec("(-(name|smp|device|uuid|machine|chardev|accel)|[a-z={}\\[\\]\",:0-9\\n-]{0,60}|\\PC{0,20})", 0..12)) {
            let text = arguments.join("\n");
            if let Some(claims) = describe(false, &arguments, &|_| Some(text.clone())) {
                prop_assert!(claims.name.unwrap_or_default().len() <= 256);
                prop_assert!(claims.cid.is_none_or(|cid| cid > 2));
                prop_assert!(claims.uuid.is_none_or(|uuid| uuid.len() == 36));
            }
        }

        #[test]
        fn a_comma_in_a_name_survives(name in "[a-z,=]{1,30}") {
            let escaped = format!("guest={},debug-threads=on", name.replace(',', ",,"));
            let claims = describe(true, &["-name".into(), escaped], &|_| None).unwrap();
            prop_assert_eq!(claims.name.unwrap(), name);
        }
    }
}
