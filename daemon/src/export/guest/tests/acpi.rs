//! Power meters of guests: the page of each VM, as its guest would see it.

use super::*;
use crate::export::guest::acpi::Pages;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// All ones: "cannot be measured".
const UNKNOWN: u32 = u32::MAX;

/// A host whose VMs have pages, and time that goes on by hand.
struct Rig {
    host: Host,
    guests: Guests,
    pages: Pages,
    dir: tempfile::TempDir,
}

fn me() -> String {
    rustix::process::geteuid().as_raw().to_string()
}

fn qemu(n: u32) -> Vm {
    Vm { vmm: Vmm::Qemu, ..vm(n) }
}

fn config(dir: &Path, vms: &[(&str, &str)]) -> GuestConfig {
    let vms = vms.iter().map(|(vm, user)| ((*vm).to_owned(), (*user).to_owned())).collect();
    let acpi = AcpiConfig { vms, folder: dir.join("pages"), ..AcpiConfig::default() };
    GuestConfig { acpi, ..GuestConfig::default() }
}

impl Rig {
    fn new(vms: impl IntoIterator<Item = Vm>, pages: &[(&str, &str)], change: impl FnOnce(&mut GuestConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), pages);
        change(&mut config);
        let (guests, _) = guests(config);
        Self { host: Host::new(vms), pages: Pages::open(&guests).unwrap(), guests, dir }
    }

    /// One second goes on, in which each VM is charged so many millijoules.
    fn second(&mut self, millijoules: &[u64]) {
        for (vm, charge) in millijoules.iter().enumerate() {
            self.host.charge(vm as u32, charge * 1000);
        }
        let snapshot = self.host.tick(1000);
        self.guests.step(&snapshot);
        self.pages.step(snapshot.at.monotonic);
    }

    fn seconds(&mut self, count: u32, millijoules: &[u64]) {
        (0..count).for_each(|_| self.second(millijoules));
    }

    fn path(&self, vm: &str) -> PathBuf {
        self.dir.path().join(format!("pages/{vm}.page"))
    }

    /// Epoch, power and period in the page of a VM.
    fn page(&self, vm: &str) -> (u32, u32, u32) {
        let bytes = fs::read(self.path(vm)).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((&bytes[..4], word(4), word(8)), (&b"JOUL"[..], 1, word(20)), "a page that holds together");
        (word(8), word(12), word(16))
    }

    fn power(&self, vm: &str) -> u32 {
        self.page(vm).1
    }

    fn state(&self, vm: &str) -> String {
        self.guests.meter_pages().into_iter().find(|page| page.vm == vm).unwrap().state
    }
}

#[test]
fn each_vm_sees_its_own_mean_power_by_epochs() {
    let me = me();
    let uuid = qemu(2).id;
    let mut rig = Rig::new([qemu(1), qemu(2)], &[("vm1", &me), (&uuid, &me)], |_| {});
    assert_eq!((rig.power("vm1"), rig.power(&uuid)), (UNKNOWN, UNKNOWN), "the pages are there before a VM runs");
    rig.seconds(10, &[5_300, 9_000]);
    assert_eq!(rig.power("vm1"), UNKNOWN, "one total is no power");
    let (mut epochs, mut sums) = (Vec::new(), [0, 0]);
    for second in 0..600 {
        // A burst of 7 s in 23.
        let one = if second % 23 < 7 { 30_000 } else { 1_300 };
        rig.second(&[one, 9_000]);
        let (epoch, power, period) = rig.page("vm1");
        assert_eq!(period, 10_000);
        epochs.push(epoch);
        if second >= 5 {
            sums[0] += u64::from(power);
        }
        sums[1] += one;
    }
    epochs.dedup();
    assert!((60..=62).contains(&epochs.len()) && epochs.is_sorted(), "{epochs:?}");
    assert!((8_900..=9_100).contains(&rig.power(&uuid)), "{}", rig.power(&uuid));
    let off = sums[0] as f64 / sums[1] as f64 - 1.0;
    assert!(off.abs() < 0.02, "{off}: what it saw is late by an epoch, and lacks the first seconds");
    assert_eq!(rig.state(&uuid), "9.000 W");
}

#[test]
fn profiles_hold_here_too() {
    let me = me();
    let of = |profile| {
        move |config: &mut GuestConfig| {
            config.vm.insert("vm1".into(), VmConfig { profile });
        }
    };
    let mut rig = Rig::new([qemu(1)], &[("vm1", &me)], of(Profile::Trusted));
    rig.seconds(3, &[1_234]);
    assert_eq!((rig.page("vm1").1, rig.page("vm1").2), (1_234, 1_000));
    let mut rig = Rig::new([qemu(1)], &[("vm1", &me)], of(Profile::MultiTenant));
    assert_eq!(rig.page("vm1").2, 60_000, "before it runs, for the guest's driver");
    rig.seconds(130, &[1_234]);
    let power = rig.power("vm1");
    // Steps of 10 J in 60 s.
    assert!([1_000, 1_166, 1_333].contains(&power), "{power}");
    let mut rig = Rig::new([qemu(1)], &[("vm1", &me)], of(Profile::Off));
    rig.seconds(130, &[1_234]);
    assert_eq!(rig.power("vm1"), UNKNOWN);
}

#[test]
fn what_is_not_known_is_no_number() {
    let me = me();
    let mut rig = Rig::new([qemu(1), qemu(2)], &[("vm1", &me)], |_| {});
    rig.seconds(25, &[5_000, 5_000]);
    assert_eq!(rig.power("vm1"), 5_000);
    // Nothing new for three epochs: no meter is read.
    for _ in 0..40 {
        let snapshot = rig.host.tick(1000);
        rig.pages.step(snapshot.at.monotonic);
    }
    assert_eq!((rig.power("vm1"), rig.state("vm1").as_str()), (UNKNOWN, "nothing new is measured"));
    rig.seconds(25, &[5_000, 5_000]);
    assert_ne!(rig.power("vm1"), UNKNOWN);
    // The VM ends, and starts again.
    let (gone, _) = rig.host.vms.remove(&0).unwrap();
    rig.host.meet();
    rig.second(&[]);
    assert_eq!((rig.power("vm1"), rig.state("vm1").as_str()), (UNKNOWN, "its VM does not run"));
    rig.host.vms.insert(0, (gone, 0));
    rig.host.meet();
    rig.second(&[]);
    assert_eq!(rig.power("vm1"), UNKNOWN, "the new life has had no epoch");
    rig.seconds(22, &[5_000]);
    assert_eq!(rig.power("vm1"), 5_000);
}

#[test]
fn a_page_follows_only_the_qemu_of_its_user() {
    let me = me();
    let mut rig = Rig::new([qemu(1)], &[("vm1", "4711")], |_| {});
    rig.seconds(25, &[5_000]);
    assert_eq!(rig.power("vm1"), UNKNOWN, "another user runs it");
    let mut rig = Rig::new([vm(1)], &[("vm1", &me)], |_| {});
    rig.seconds(25, &[5_000]);
    assert_eq!(rig.power("vm1"), UNKNOWN, "it is no QEMU");
    // A twin by name, of the same user: none, as it is not known which.
    let twin = |vouched| Vm { name: "vm1".into(), vouched, ..qemu(2) };
    let mut rig = Rig::new([qemu(1), twin(true)], &[("vm1", &me)], |_| {});
    rig.seconds(25, &[5_000, 7_000]);
    assert_eq!(rig.power("vm1"), UNKNOWN);
    // The service manager vouches for one of them.
    let mut rig = Rig::new([qemu(1), twin(false)], &[("vm1", &me)], |_| {});
    rig.seconds(25, &[5_000, 7_000]);
    assert_eq!(rig.power("vm1"), 5_000);
    // A name that is another one's UUID is no claim to it.
    let uuid = qemu(1).id;
    let mut rig = Rig::new([qemu(1), Vm { name: uuid.clone(), ..qemu(2) }], &[(&uuid, &me)], |_| {});
    rig.seconds(25, &[5_000, 7_000]);
    assert_eq!(rig.power(&uuid), 5_000);
}

#[test]
fn what_a_guest_writes_into_its_page_reaches_nobody() {
    let me = me();
    let mut rig = Rig::new([qemu(1), qemu(2)], &[("vm1", &me), ("vm2", &me)], |config| {
        config.acpi.migration = true;
    });
    rig.seconds(25, &[5_000, 9_000]);
    let file = fs::File::options().write(true).open(rig.path("vm1")).unwrap();
    for second in 0..40u32 {
        // Any bytes, and any length.
        file.write_all_at(&[0xee; 4096], 0).unwrap();
        file.set_len(if second % 2 == 0 { 1 } else { 1 << 20 }).unwrap();
        rig.second(&[5_000, 9_000]);
        assert_eq!(rig.power("vm2"), 9_000);
        assert_eq!(rig.state("vm1"), "5.000 W", "the host goes by what it measured");
    }
}

#[test]
fn pages_that_cannot_be_made_do_not_keep_others_from_theirs() {
    let me = me();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("pages/vm1.page")).unwrap();
    let pages = [("vm1", me.as_str()), ("vm2", &me), ("vm3", "no-such-user")];
    let (guests, _) = guests(config(dir.path(), &pages));
    drop(Pages::open(&guests).unwrap());
    let states: Vec<String> = guests.meter_pages().into_iter().map(|page| page.state).collect();
    assert!(states[0].contains("no plain file") && states[0].contains("vm1.page"), "{states:?}");
    assert_eq!(states[1], "its VM does not run");
    assert!(states[2].contains("no user \"no-such-user\""), "{states:?}");
    assert!(fs::read(dir.path().join("pages/power-meter.aml")).unwrap().starts_with(b"SSDT"));
}

#[tokio::test]
async fn a_page_has_no_power_after_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let me = me();
    let mut config = config(dir.path(), &[("vm1", &me)]);
    config.profile = Profile::Trusted;
    let mut server = Server::start(config, Host::new([qemu(1)]));
    let power = || {
        let bytes = fs::read(dir.path().join("pages/vm1.page")).unwrap();
        u32::from_le_bytes(bytes[12..16].try_into().unwrap())
    };
    let mut tries = 0;
    while power() != 3_000 {
        server.host.charge(0, 3_000_000);
        server.tick(1000);
        settle().await;
        tries += 1;
        assert!(tries < 500, "it is {}", power());
    }
    server.end().await;
    assert_eq!(power(), UNKNOWN);
}
