//! Text that the kernel, other processes and managers of VMs write: names, lines, objects, XML.

use arbitrary::{Arbitrary, Unstructured};
use jouled::entity::hypervisor::command;
use jouled::entity::managers::Managers;
use jouled::entity::{mounts, path};
use jouled::export::guest;
use jouled::meter::host_channel::{Channel, Object};
use jouled::model::domain::Zone;
use jouled::model::entity::Kind;
use jouled::model::source::{PciAddress, Stamp};
use jouled::model::units::{Microjoules, Nanos};
use jouled::model::values::{Mode, Span};
use jouled::model::vm::Vmm;
use jouled::sys::{date_time, proc_pid, safe_text};
use jouled::usage::{bpf, gpu};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;
use std::borrow::Cow;
use std::time::Instant;

#[path = "../../../daemon/libvirt/src/domain.rs"]
#[allow(dead_code)]
mod domain;

/// The bytes as text, as jouled reads bytes that should be text.
pub fn lossy(data: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(data)
}

/// Whether text is fit for a log and a terminal.
pub fn is_safe(text: &str) -> bool {
    !text.chars().any(safe_text::acts)
}

/// The path of a cgroup: at most one entity of a kind, slices apart, and each with all its labels.
pub fn cgroup_path(data: &[u8]) {
    let text = lossy(data);
    let found = path::entities(&text);
    for (at, labels) in found.iter().enumerate() {
        let again = |other: &_| jouled::model::entity::Labels::kind(other) == labels.kind();
        assert!(labels.kind() == Kind::Slice || !found[..at].iter().any(again), "{labels:?} twice in {text:?}");
        assert!(!found[..at].contains(labels), "{labels:?} twice in {text:?}");
    }
    if let Some(root) = path::payload_root(&text) {
        assert!(text.starts_with(root));
        let inside = format!("{root}/system.slice/a.service");
        assert_eq!(path::payload_root(&inside), Some(root), "what is inside of a payload is part of it");
    }
    if let Some(machine) = path::machine(&text) {
        assert!(text.starts_with(machine.scope));
        assert!(!machine.scope.contains("/user.slice/"), "a user's scope is no machine: {}", machine.scope);
    }
}

/// /proc/PID/cmdline of VMMs and of the helper of hybrid sockets.
pub fn command_line(data: &[u8]) {
    let Some((&how, line)) = data.split_first() else { return };
    let exe = if how & 1 == 0 { "" } else { "/usr/bin/kvm" };
    // A file that the command line names has the text of the line itself.
    let read = |_: &str| (how & 4 == 0).then(|| lossy(line).replace('\0', "\n"));
    for vmm in [Vmm::Qemu, Vmm::CloudHypervisor, Vmm::Firecracker] {
        let Some(claims) = command::describe(vmm, exe, line, how & 2 == 0, &read) else { continue };
        let name = claims.name.unwrap_or_default();
        assert!(name.len() <= 256 && is_safe(&name), "{name:?}");
        assert!(claims.uuid.is_none_or(|uuid| uuid.len() == 36));
        assert!(claims.cid.is_none_or(|cid| cid > 2 && cid < u32::MAX));
        assert!(claims.vcpus.is_none_or(|vcpus| vcpus >= 1), "{:?}", claims.vcpus);
        assert!(claims.vhost_user.len() <= 64 && claims.pci.len() <= 256, "unbounded");
        assert!(matches!(claims.hypervisor.as_str(), "kvm" | "xen" | "qemu"), "{}", claims.hypervisor);
    }
    if let Some(Ok(all)) = guest::served(line) {
        assert!(all.iter().all(|one| !one.uds.is_empty() && !one.socket.is_empty()));
    }
    let text = lossy(line);
    command::vmm(&text, &text);
}

/// /proc/PID/cgroup and mountinfo.
pub fn cgroup_files(data: &[u8]) {
    let text = lossy(data);
    mounts::parse(&text);
    if let Some(place) = mounts::place(data) {
        assert!(place.path.starts_with('/'), "{}", place.path);
    }
    if let Some(path) = mounts::v2_path(&text) {
        path::entities(path);
    }
}

/// /proc/PID/stat, and fdinfo of GPUs.
pub fn proc_files(data: &[u8]) {
    if let Some(stat) = proc_pid::parse_stat(data) {
        stat.name();
        stat.short_name();
    }
    let text = lossy(data);
    if let Some(client) = gpu::fdinfo::parse(&text) {
        assert!(client.engines.len() <= 64, "unbounded");
    }
    if let Ok(address) = text.parse::<PciAddress>() {
        assert_eq!(address.to_string().parse::<PciAddress>(), Ok(address));
    }
}

/// Lines of the inventory socket.
pub fn inventory(data: &[u8]) {
    let managers = Managers::default();
    for line in data.split(|byte| *byte == b'\n') {
        if let Err(why) = managers.accept_line(line, Instant::now()) {
            assert!(is_safe(&why) && why.len() < 2000, "{why:?}");
        }
    }
    managers.expire(Instant::now());
}

/// An object of the guest channel.
pub fn guest_object(data: &[u8]) {
    match Object::parse(data) {
        Ok(object) => {
            assert!(object.zones.len() <= 16 && object.period.0 >= 100_000_000);
            assert!(object.vm.chars().count() <= 64 && is_safe(&object.vm), "{:?}", object.vm);
        }
        Err(why) => assert!(is_safe(&why) && why.len() < 2000, "{why:?}"),
    }
}

#[derive(Arbitrary, Debug)]
struct Epoch {
    source: u8,
    number: u64,
    small: bool,
    period: u32,
    at: u64,
    running: u64,
    realtime: u64,
    zones: Vec<(u8, u64, u64, u64, bool)>,
    after: u32,
    first: bool,
}

/// Objects of the guest channel one after the other: none is of the future, and their numbers never fall.
pub fn guest_channel(data: &[u8]) {
    let Ok(epochs) = Vec::<Epoch>::arbitrary(&mut Unstructured::new(data)) else { return };
    let good = Object::parse(include_bytes!("../seeds/guest-object/object-0")).unwrap();
    let mut now = 1_000_000_000;
    let mut channel = Channel::new(Nanos(now));
    let mut number = 0;
    for epoch in epochs.into_iter().take(50) {
        now += u64::from(epoch.after) * 1000;
        let mut object = Object {
            source: format!("{:032x}", epoch.source % 2),
            generation: u64::from(epoch.source / 2 % 2),
            epoch: if epoch.small { epoch.number % 16 } else { epoch.number },
            period: Nanos(100_000_000 + u64::from(epoch.period)),
            at: Nanos(epoch.at),
            running: Nanos(epoch.running),
            ..good.clone()
        };
        object.zones.truncate(epoch.zones.len());
        for (total, &(zone, energy, window, age, billed)) in object.zones.iter_mut().zip(&epoch.zones) {
            (total.zone, total.billed) = (Zone::ALL[usize::from(zone) % Zone::COUNT], billed);
            (total.energy, total.window, total.age) = (Microjoules(energy), Nanos(window), Nanos(age));
        }
        let stamp = Stamp { monotonic: Nanos(now), boottime: Nanos(now), realtime: Nanos(epoch.realtime) };
        channel.take(object, stamp, epoch.first);
        let latest = channel.latest().unwrap();
        assert!(latest.at.0 <= now && latest.number >= number);
        number = latest.number;
        channel.condition(Nanos(now));
    }
}

/// A domain's XML of libvirt.
pub fn libvirt(data: &[u8]) {
    match domain::parse(&lossy(data), "running") {
        Ok(machine) => assert!(machine.name.len() <= 256 && machine.title.len() <= 256),
        Err(why) => assert!(why.len() < 2000, "{why:?}"),
    }
}

/// BTF of the kernel.
pub fn btf(data: &[u8]) {
    let _ = bpf::offsets::settings(data);
}

/// Words in configuration and protocols: times, spans, modes; and text that is made safe.
pub fn words(data: &[u8]) {
    let text = lossy(data);
    date_time::parse(&text);
    let _ = Span::deserialize(IntoDeserializer::<Error>::into_deserializer(&*text));
    let _ = Mode::deserialize(IntoDeserializer::<Error>::into_deserializer(&*text));
    assert!(is_safe(&safe_text::safe(&text)));
    assert!(is_safe(&safe_text::quoted(&text, 40)) && is_safe(&safe_text::excerpt(&text, 40)));
    assert!(is_safe(&safe_text::replaced(&text, '?', 40)) && is_safe(&safe_text::removed(&text, 40)));
}
