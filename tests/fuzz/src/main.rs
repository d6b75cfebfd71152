//! Fuzz targets: one program, and `FUZZ_TARGET` names the target. Each target takes any bytes: nothing panics, and what
//! comes out keeps the promises that the rest of jouled builds on. See README.md.

#![no_main]

mod attribution;
mod bmc;
mod factors;
mod kept;
mod machine;
mod served;
mod text;
mod tree;

use std::sync::LazyLock;

/// A target: its name, which is also the name of its folder of seeds, and what it does with the bytes.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 29] = [
    ("cgroup-path", text::cgroup_path),
    ("command-line", text::command_line),
    ("cgroup-files", text::cgroup_files),
    ("proc-files", text::proc_files),
    ("inventory", text::inventory),
    ("guest-object", text::guest_object),
    ("guest-channel", text::guest_channel),
    ("libvirt", text::libvirt),
    ("btf", text::btf),
    ("words", text::words),
    ("dcmi", bmc::dcmi),
    ("sdr", bmc::sdr),
    ("sdr-repository", bmc::sdr_repository),
    ("redfish", bmc::redfish),
    ("sysfs", machine::sysfs),
    ("procfs", machine::procfs),
    ("config", served::config),
    ("web-config", served::web_config),
    ("http", served::http),
    ("dbus", served::dbus),
    ("ledger", kept::ledger),
    ("recording", kept::recording),
    ("history", kept::history),
    ("factors", factors::factors),
    ("tariffs", factors::tariffs),
    ("fetch", factors::fetch),
    ("signature", factors::signature),
    ("core", attribution::core),
    ("page", attribution::page),
];

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some((_, target)) = TARGETS.iter().find(|(name, _)| *name == wanted) else {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        panic!("FUZZ_TARGET names the target: one of {}", names.join(" "));
    };
    *target
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
