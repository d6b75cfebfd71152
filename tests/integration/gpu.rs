//! NVIDIA GPUs with a stand-in for libnvidia-ml.so that is compiled and loaded (nvml/standin.c): energy by the built
//! daemon, use by jouled's library. Needs a C compiler, and no root, GPU or driver.

use crate::common::{Daemon, Ticks, World, until};
use jouled::meter::Meter;
use jouled::model::domain::{Quality, Reading, Scope, Zone};
use jouled::model::snapshot::{DomainView, Snapshot, SourceView};
use jouled::model::source::{Health, PciAddress, SourceRole, Stamp};
use jouled::model::tick::Tick;
use jouled::model::usage::{GpuSample, ProcessKey};
use jouled::run::record::Head;
use jouled::run::store::frames;
use jouled::sys::nvml::NvmlConfig;
use jouled::usage::{GpuUsage, gpu};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub const ONE: &str = "gpu 0 GPU-8c0d1a2b-0000 00000000:41:00.0 NVIDIA H100 80GB HBM3\n";
const TWO: &str = "gpu 1 GPU-8c0d1a2b-0001 00000000:C1:00.0 NVIDIA H100 80GB HBM3\n";
const ADDRESS: PciAddress = PciAddress { domain: 0, bus: 0x41, devfn: 0 };

/// Compiles the stand-in for NVML, which answers what the file `answers` says. Without a C compiler it prints that the
/// test is skipped, and returns false.
pub fn build_stand_in(library: &Path, answers: &Path) -> bool {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/integration/nvml/standin.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library);
    cc.arg(format!("-DSTANDIN_FILE=\"{}\"", answers.display())).arg(source);
    match cc.status() {
        Ok(status) => assert!(status.success(), "{cc:?}: {status}"),
        Err(error) => println!("skipped: no C compiler for the stand-in of NVML: cc: {error}"),
    }
    library.exists()
}

/// A fake host with the stand-in beside it.
struct Rig {
    world: World,
    library: PathBuf,
    answers: PathBuf,
}

impl Rig {
    /// `None`, with a message, where there is no C compiler.
    fn new(answers: &str) -> Option<Self> {
        let world = World::new();
        let dir = world.state.parent().unwrap();
        let rig = Self { library: dir.join("libnvidia-ml.so.1"), answers: dir.join("nvml.txt"), world };
        rig.say(answers);
        if !build_stand_in(&rig.library, &rig.answers) {
            return None;
        }
        rig.world.config(&format!("[meter.nvml]\nlibrary = \"{}\"\n", rig.library.display()));
        Some(rig)
    }

    /// What the stand-in answers from now on.
    fn say(&self, answers: &str) {
        let new = self.answers.with_extension("new");
        std::fs::write(&new, answers).unwrap();
        std::fs::rename(new, &self.answers).unwrap();
    }

    /// The calls of the library so far: I for its start, S for its end, q for any other.
    fn asked(&self) -> String {
        std::fs::read_to_string(self.answers.with_extension("txt.asked")).unwrap_or_default()
    }

    /// What the kernel says of the first GPU's power management.
    fn kernel(&self, file: &str, text: &str) {
        let path = self.world.host.sysfs().join("bus/pci/devices/0000:41:00.0").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
    }

    fn start(&self) -> (Daemon, Ticks) {
        let daemon = self.world.start();
        let ticks = daemon.ticks();
        (daemon, ticks)
    }

    /// The source of GPU use; there is one.
    fn usage(&self) -> Box<dyn GpuUsage> {
        let config = NvmlConfig { library: Some(self.library.clone()), ..NvmlConfig::default() };
        let (ways, _) = gpu::open_all(true, &config, &self.world.host.sysfs(), &self.world.host.procfs());
        ways.into_iter().find(|way| way.source() == "nvml").unwrap()
    }
}

fn gpus(snapshot: &Snapshot) -> Vec<&DomainView> {
    snapshot.domains.iter().filter(|view| view.domain.zone == Zone::Gpu).collect()
}

fn source(snapshot: &Snapshot, role: SourceRole) -> &SourceView {
    snapshot.sources.iter().find(|source| source.source == "nvml" && source.role == role).unwrap()
}

fn health(snapshot: &Snapshot, role: SourceRole) -> (&'static str, &str) {
    let health = &source(snapshot, role).health;
    (health.as_str(), health.why())
}

#[test]
fn a_gpus_counter_is_a_domain_of_its_own() {
    let Some(rig) = Rig::new(&format!("{ONE}{TWO}energy 0 5000000\npower 1 90000\n")) else { return };
    let (daemon, mut ticks) = rig.start();
    let first = ticks.find("both GPUs", |snapshot| gpus(snapshot).len() == 2 && gpus(snapshot)[1].power.is_some());
    let one = &gpus(&first)[0].domain;
    assert_eq!(
        (one.id.as_str(), one.source.as_str(), one.path.as_str()),
        ("gpu/GPU-8c0d1a2b-0000", "nvml", "0000:41:00.0")
    );
    assert_eq!(
        (one.scope, one.billed, one.quality, one.continuous),
        (Scope::Gpu(ADDRESS), true, Quality::Measured, false)
    );
    let info = one.gpu.as_ref().unwrap();
    assert_eq!((info.index, info.name.as_str(), info.vendor.as_str()), (0, "NVIDIA H100 80GB HBM3", "nvidia"));
    assert_eq!(health(&first, SourceRole::Meter), ("healthy", ""));
    let detail = &source(&first, SourceRole::Meter).detail;
    assert!(detail.contains("driver 999.01") && detail.contains("1 without an energy counter"), "{detail}");

    // Exactly what the counter counted.
    assert_eq!(gpus(&first)[0].energy.total.0, 0);
    rig.say(&format!("{ONE}{TWO}energy 0 5123456\npower 1 90000\n"));
    let later = ticks.find("its energy", |snapshot| gpus(snapshot)[0].energy.total.0 > 0);
    assert_eq!(gpus(&later)[0].energy.total.0, 123_456_000);
    // The other GPU has no counter: its power is integrated.
    let later = ticks.find("energy of the other", |snapshot| gpus(snapshot)[1].energy.total.joules() > 100.0);
    let (from, to) = (gpus(&first)[1], gpus(&later)[1]);
    let power = (to.energy.total - from.energy.total).over(to.read_at.unwrap() - from.read_at.unwrap());
    assert!(power.0.abs_diff(90_000_000) < 100, "{power:?}");
    daemon.stop();
}

#[test]
fn a_driver_that_is_reloaded_is_picked_up_and_its_new_counter_is_no_energy() {
    let Some(rig) = Rig::new(&format!("{ONE}energy 0 1000\n")) else { return };
    let (daemon, mut ticks) = rig.start();
    ticks.find("the GPU", |snapshot| gpus(snapshot).len() == 1 && gpus(snapshot)[0].read_at.is_some());
    rig.say(&format!("{ONE}energy 0 3000\n"));
    ticks.find("two joules", |snapshot| gpus(snapshot)[0].energy.total.0 == 2_000_000);
    rig.say(&format!("{ONE}energy 0 3000\nlost 0 15\n"));
    let lost = ticks.find("that it is lost", |snapshot| health(snapshot, SourceRole::Meter).0 == "failed");
    assert!(
        health(&lost, SourceRole::Meter).1.contains("GPU 0: NVML says that the GPU is lost"),
        "{:?}",
        health(&lost, SourceRole::Meter)
    );
    rig.say("init 9\n");
    let gone = ticks.find("that the driver is gone", |snapshot| {
        health(snapshot, SourceRole::Meter).0 == "unsupported"
            && health(snapshot, SourceRole::GpuUsage).0 == "unsupported"
    });
    assert!(health(&gone, SourceRole::Meter).1.contains("the driver is not loaded") && gpus(&gone)[0].power.is_none());
    // The GPU is back. Its counter began at zero and is already above its last value.
    rig.say(&format!("{ONE}energy 0 900000\n"));
    ticks.find("that it is back", |snapshot| {
        health(snapshot, SourceRole::Meter).0 == "healthy" && gpus(snapshot)[0].read_at > gpus(&gone)[0].read_at
    });
    rig.say(&format!("{ONE}energy 0 904000\n"));
    let back = ticks.find("its energy", |snapshot| gpus(snapshot)[0].energy.total.0 > 2_000_000);
    assert_eq!(gpus(&back).len(), 1);
    assert_eq!(gpus(&back)[0].energy.total.0, 6_000_000);
    daemon.stop();
}

#[test]
fn a_lost_gpu_does_not_affect_the_other() {
    let Some(rig) = Rig::new(&format!("{ONE}{TWO}energy 0 1000\nenergy 1 1000\n")) else { return };
    let (daemon, mut ticks) = rig.start();
    ticks.find("both GPUs", |snapshot| {
        gpus(snapshot).len() == 2 && gpus(snapshot).iter().all(|view| view.read_at.is_some())
    });
    rig.say(&format!("{ONE}{TWO}energy 0 1000\nenergy 1 2000\nlost 0 15\n"));
    let lost = ticks.find("energy of the other", |snapshot| gpus(snapshot)[1].energy.total.0 == 1_000_000);
    let lost = if health(&lost, SourceRole::Meter).0 == "degraded" { lost } else { ticks.next() };
    assert!(
        health(&lost, SourceRole::Meter).0 == "degraded" && health(&lost, SourceRole::Meter).1.starts_with("GPU 0: "),
        "{:?}",
        health(&lost, SourceRole::Meter)
    );
    assert!(gpus(&lost)[0].error.contains("lost"), "{:?}", gpus(&lost)[0].error);
    daemon.stop();
}

#[test]
fn a_library_that_hangs_delays_no_tick() {
    let Some(rig) = Rig::new(&format!("{ONE}energy 0 1000\n")) else { return };
    let (daemon, mut ticks) = rig.start();
    ticks.find("the GPU", |snapshot| gpus(snapshot).len() == 1);
    rig.say("hang 3600\n");
    // The library does not answer for ten seconds. Ticks of 100 ms go on.
    let (from, first) = (Instant::now(), ticks.next().ticks);
    let failed = ticks.find("that it does not answer", |snapshot| {
        health(snapshot, SourceRole::Meter).1.contains("no answer")
            && health(snapshot, SourceRole::GpuUsage).1.contains("no answer")
    });
    let expected = from.elapsed().as_millis() as u64 / 100;
    assert!(failed.ticks - first > expected / 4, "{} ticks in {:?}", failed.ticks - first, from.elapsed());
    assert_eq!(health(&failed, SourceRole::Meter).0, "failed");
    // It does not delay the end of the daemon either.
    daemon.stop();
}

#[test]
fn a_missing_library_is_unsupported() {
    let world = World::new();
    world.config("[meter.nvml]\nlibrary = \"/nonexistent/libnvidia-ml.so.1\"\n");
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let snapshot = ticks.find("a look", |snapshot| health(snapshot, SourceRole::GpuUsage).0 == "unsupported");
    for role in [SourceRole::Meter, SourceRole::GpuUsage] {
        let (state, why) = health(&snapshot, role);
        assert!(
            state == "unsupported" && why.contains("/nonexistent/libnvidia-ml.so.1 is not there"),
            "{role:?} {state} {why}"
        );
    }
    assert!(!daemon.stop().contains("ERROR"));

    let world = World::new();
    let daemon = world.start();
    let snapshot = daemon.snapshot();
    assert!(
        health(&snapshot, SourceRole::Meter).1.starts_with("not tried, as --sysfs is not /sys"),
        "{:?}",
        health(&snapshot, SourceRole::Meter)
    );
    daemon.stop();
}

/// Samples until `is` holds for all that was sampled, and returns it.
fn watch(usage: &mut dyn GpuUsage, what: &str, is: impl Fn(&GpuSample) -> bool) -> GpuSample {
    let mut all = GpuSample::default();
    until(what, || {
        all.watched.clear();
        usage.sample(&mut all);
        is(&all).then_some(())
    });
    all
}

fn busy(sample: &GpuSample, pid: u32) -> f64 {
    sample.uses.iter().filter(|one| one.process.pid == pid).map(|one| one.busy.seconds()).sum()
}

#[test]
fn gpu_time_is_charged_by_process_samples_and_unknown_processes_get_none() {
    let Some(rig) = Rig::new(&format!("{ONE}process 0 70 40\nprocess 0 71 20\nprocess 0 999 20\nbusy 0 80\n")) else {
        return;
    };
    rig.world.spawn(70, 700, "train", "/a", 0);
    rig.world.spawn(71, 710, "infer", "/b", 0);
    let mut usage = rig.usage();
    let (mut all, mut busy_all, from) = (GpuSample::default(), 0.0, Instant::now());
    while from.elapsed() < Duration::from_secs(4) {
        let mut one = GpuSample::default();
        usage.sample(&mut one);
        assert!(one.watched.iter().all(|watched| watched.gpu == ADDRESS && !watched.estimated));
        busy_all += one.watched.iter().map(|watched| watched.busy.seconds()).sum::<f64>();
        all.uses.extend(one.uses);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(usage.health(), Health::Healthy);
    let (train, infer) = (busy(&all, 70), busy(&all, 71));
    assert!(train > 0.2 && (train / infer - 2.0).abs() < 0.01, "{train} {infer}");
    // The 20 % of the third process are GPU time that no process is charged.
    assert!((busy_all / train - 2.0).abs() < 0.01, "{busy_all} {train}");
    assert!(all.uses.iter().all(|one| one.process.start == u64::from(one.process.pid) * 10), "{all:?}");
    assert_eq!(busy(&all, 999), 0.0);
}

#[test]
fn a_process_that_ended_is_still_known_as_a_holder_of_the_gpu() {
    let Some(rig) = Rig::new(&format!("{ONE}holder 0 70\nbusy 0 0\n")) else { return };
    rig.world.spawn(70, 700, "train", "/a", 0);
    let mut usage = rig.usage();
    watch(&mut *usage, "a look", |sample| !sample.watched.is_empty());
    rig.say(&format!("{ONE}process 0 70 50\nbusy 0 50\n"));
    rig.world.end(70);
    let seen = watch(&mut *usage, "its use", |sample| !sample.uses.is_empty());
    assert_eq!(seen.uses[0].process, ProcessKey { pid: 70, start: 700 });
}

#[test]
fn mig_use_is_split_by_slices_and_marked_as_estimated() {
    let Some(rig) = Rig::new(&format!("{ONE}mig 0\ninstance 0 1 4 70\ninstance 0 2 2 71\ninstance 0 3 1 0\n")) else {
        return;
    };
    rig.world.spawn(70, 700, "train", "/a", 0);
    rig.world.spawn(71, 710, "infer", "/b", 0);
    let mut usage = rig.usage();
    let seen = watch(&mut *usage, "use of both", |sample| busy(sample, 70) > 0.1 && busy(sample, 71) > 0.1);
    assert!(seen.watched[0].estimated, "{seen:?}");
    assert!((busy(&seen, 70) / busy(&seen, 71) - 2.0).abs() < 0.01, "{seen:?}");
    let health = usage.health();
    assert!(matches!(&health, Health::Degraded(why) if why.contains("MIG") && why.contains("slices")), "{health:?}");
}

#[test]
fn a_gpu_without_process_samples_charges_no_process() {
    let Some(rig) = Rig::new(&format!("{ONE}holder 0 70\nbusy 0 90\nnoprocess 0 3\n")) else { return };
    rig.world.spawn(70, 700, "train", "/a", 0);
    let mut usage = rig.usage();
    let mut sample = GpuSample::default();
    until("a look", || {
        usage.sample(&mut sample);
        usage.health().why().contains("does not say which process").then_some(())
    });
    assert_eq!((usage.health().as_str(), sample), ("degraded", GpuSample::default()));
}

/// The ticks of a recording.
fn recorded(path: &Path) -> Vec<Tick> {
    let mut file = BufReader::new(File::open(path).unwrap());
    file.read_until(b'\n', &mut Vec::new()).unwrap();
    frames::read::<Head>(&mut file).unwrap().unwrap();
    std::iter::from_fn(|| frames::read::<Tick>(&mut file).unwrap()).collect()
}

#[test]
fn each_tick_lists_gpu_use_by_process_with_any_driver() {
    let Some(rig) = Rig::new(&format!("{ONE}energy 0 1000\nprocess 0 70 40\nbusy 0 40\n")) else { return };
    let amd: PciAddress = "0000:03:00.0".parse().unwrap();
    let (sysfs, procfs) = (rig.world.host.sysfs(), rig.world.host.procfs());
    let device = sysfs.join("devices/pci0000:00/0000:03:00.0");
    std::fs::create_dir_all(&device).unwrap();
    std::fs::create_dir_all(sysfs.join("class/drm/card0")).unwrap();
    symlink("../../../bus/pci/drivers/amdgpu", device.join("driver")).unwrap();
    symlink(&device, sysfs.join("class/drm/card0/device")).unwrap();
    rig.world.spawn(70, 700, "train", "/a", 0);
    rig.world.spawn(71, 710, "render", "/b", 0);
    for dir in ["70/fd", "71/fd", "71/fdinfo"] {
        std::fs::create_dir_all(procfs.join(dir)).unwrap();
    }
    symlink("/dev/dri/renderD128", procfs.join("71/fd/5")).unwrap();
    let client = |busy: u64| {
        let text = format!("drm-driver:\tamdgpu\ndrm-pdev:\t{amd}\ndrm-client-id:\t3\ndrm-engine-gfx:\t{busy} ns\n");
        std::fs::write(procfs.join("71/fdinfo/new"), text).unwrap();
        std::fs::rename(procfs.join("71/fdinfo/new"), procfs.join("71/fdinfo/5")).unwrap();
    };
    client(5_000_000_000);
    let recording = rig.world.state.with_extension("rec");
    let daemon = Daemon::start(rig.world.jouled().arg("--record").arg(&recording), &rig.world.state);
    let mut ticks = daemon.ticks();
    ticks.find("both ways", |snapshot| {
        let healthy = |source: &&SourceView| source.role == SourceRole::GpuUsage && source.health == Health::Healthy;
        snapshot.sources.iter().filter(healthy).count() == 2
    });
    client(5_000_700_000);
    let from = ticks.next().ticks;
    ticks.find("forty more ticks", |snapshot| snapshot.ticks > from + 40);
    daemon.stop();

    let told = recorded(&recording);
    let uses = told.iter().flat_map(|tick| &tick.gpus.uses);
    let (mut nvidia, mut used_amd) = (0.0, 0);
    for one in uses {
        match one.gpu {
            ADDRESS => {
                assert_eq!(one.process, ProcessKey { pid: 70, start: 700 });
                nvidia += one.busy.seconds();
            }
            gpu => {
                assert_eq!((gpu, one.process), (amd, ProcessKey { pid: 71, start: 710 }));
                used_amd += one.busy.0;
            }
        }
    }
    // The rise of the counter, not its value; and 40 % of the time. The last part of each may not be reported yet.
    assert!((690_000..=700_000).contains(&used_amd), "{used_amd}");
    let time = (told.last().unwrap().at.monotonic - told[0].at.monotonic).seconds();
    assert!(nvidia > 0.1 * time && nvidia <= 0.41 * time, "{nvidia} s of {time} s");
    // The GPU is in each tick from the first sample on, also where it was not used.
    let watched = |tick: &Tick| tick.gpus.watched.iter().map(|one| one.gpu).collect::<BTreeSet<_>>();
    let first = told.iter().position(|tick| watched(tick).len() == 2).unwrap();
    assert!(told[first..].iter().all(|tick| watched(tick) == BTreeSet::from([amd, ADDRESS])));
}

/// On a machine with an NVIDIA GPU; nvml/real.sh runs it. JOULED_NVML_LIBRARY is the value of `library` in
/// [meter.nvml]. With a command in JOULED_GPU_BURNER that keeps a GPU busy for a minute it also checks what the command
/// is charged.
#[test]
fn a_real_gpu_counts_energy_and_says_who_uses_it() {
    let (sysfs, procfs) = (Path::new("/sys"), Path::new("/proc"));
    let config =
        NvmlConfig { library: std::env::var_os("JOULED_NVML_LIBRARY").map(PathBuf::from), ..NvmlConfig::default() };
    let library = config.library(sysfs).unwrap();
    match library.open() {
        Ok(Some((_, count))) => println!("{count} GPU(s)"),
        Ok(None) => return println!("skipped: {}", library.absent()),
        Err(why) => return println!("skipped: {why}"),
    }
    let mut meter = jouled::meter::nvml::start(library);
    let mut joules = BTreeMap::new();
    until("ten seconds of energy", || {
        let mut readings = Vec::new();
        meter.read(Stamp::now(), &mut readings);
        for reading in readings {
            match reading.reading.unwrap() {
                Reading::Total { total, .. } => {
                    let first = *joules.entry(reading.domain.clone()).or_insert((reading.at, total));
                    if reading.at.0 - first.0.0 > 10_000_000_000 {
                        let watts = (total.joules() - first.1.joules()) / (reading.at - first.0).seconds();
                        println!("{}: {watts:.1} W", reading.domain);
                        assert!((1.0..2500.0).contains(&watts));
                        return Some(());
                    }
                }
                Reading::Gauge { power } => {
                    println!("{}: {} µW, no energy counter", reading.domain, power.0);
                    return Some(());
                }
                other => panic!("{other:?}"),
            }
        }
        None
    });
    assert_eq!(meter.health(), Health::Healthy, "{}", meter.detail());
    let (ways, _) = gpu::open_all(true, &config, sysfs, procfs);
    let mut usage = ways.into_iter().find(|way| way.source() == "nvml").unwrap();
    let Some(burner) = std::env::var_os("JOULED_GPU_BURNER") else {
        let sample = watch(&mut *usage, "that GPUs are watched", |sample| !sample.watched.is_empty());
        return println!("{sample:?}, {:?}; no JOULED_GPU_BURNER to be charged", usage.health());
    };
    let mut child = Command::new("sh").arg("-c").arg("exec $0").arg(&burner).spawn().unwrap();
    let pid = child.id();
    let sample = watch(&mut *usage, "its use", |sample| busy(sample, pid) > 2.0);
    let all: f64 = sample.uses.iter().map(|one| one.busy.seconds()).sum();
    child.kill().unwrap();
    child.wait().unwrap();
    println!("{} of {all} s of use were pid {pid}'s; {:?}", busy(&sample, pid), usage.health());
    assert!(busy(&sample, pid) > 0.5 * all, "{sample:?}");
}

fn both_say(snapshot: &Snapshot, words: &str) -> bool {
    [SourceRole::Meter, SourceRole::GpuUsage].iter().all(|role| {
        let source = source(snapshot, *role);
        source.health == Health::Healthy && source.detail.contains(words)
    })
}

#[test]
fn a_gpu_that_sleeps_is_not_asked_and_the_library_is_let_go() {
    let Some(rig) = Rig::new(&format!("{ONE}energy 0 5000000\nholder 0 70\n")) else { return };
    for (file, text) in [("vendor", "0x10de"), ("class", "0x030200"), ("power/runtime_status", "suspended")] {
        rig.kernel(file, text);
    }
    let (daemon, mut ticks) = rig.start();
    ticks.find("that it sleeps", |snapshot| both_say(snapshot, "(asleep)"));
    assert_eq!(rig.asked(), "", "not even the library was started");

    rig.kernel("power/runtime_status", "active");
    ticks.find("the GPU", |snapshot| gpus(snapshot).len() == 1 && gpus(snapshot)[0].read_at.is_some());
    rig.say(&format!("{ONE}energy 0 5002000\nholder 0 70\n"));
    ticks.find("its energy", |snapshot| gpus(snapshot)[0].energy.total.0 == 2_000_000);

    rig.kernel("power/runtime_status", "suspended");
    let asleep = ticks.find("that it sleeps", |snapshot| both_say(snapshot, "(asleep)") && gpus(snapshot)[0].past);
    assert!(gpus(&asleep)[0].power.is_none());
    let asked = rig.asked();
    let count = |letter: char| asked.chars().filter(|one| *one == letter).count();
    assert!(count('S') == count('I') && asked.ends_with('S'), "{asked}");
    let from = ticks.next().ticks;
    ticks.find("thirty ticks more", |snapshot| snapshot.ticks > from + 30);
    assert_eq!(rig.asked(), asked, "it is not woken");

    // What its counter did meanwhile is not known to be of one beginning.
    rig.say(&format!("{ONE}energy 0 9000000\nholder 0 70\n"));
    rig.kernel("power/runtime_status", "active");
    ticks.find("that it is awake", |snapshot| {
        !gpus(snapshot)[0].past && gpus(snapshot)[0].read_at > gpus(&asleep)[0].read_at
    });
    rig.say(&format!("{ONE}energy 0 9003000\nholder 0 70\n"));
    let awake = ticks.find("its energy", |snapshot| gpus(snapshot)[0].energy.total.0 > 2_000_000);
    assert_eq!(gpus(&awake)[0].energy.total.0, 5_000_000);
    assert!(!source(&awake, SourceRole::Meter).detail.contains("asleep"));
    daemon.stop();
}

#[test]
fn of_two_gpus_only_the_one_that_is_awake_is_asked() {
    let Some(rig) = Rig::new(&format!("{ONE}{TWO}energy 0 1000\nenergy 1 1000\n")) else { return };
    rig.kernel("power/runtime_status", "active");
    let (daemon, mut ticks) = rig.start();
    ticks.find("both GPUs", |snapshot| {
        gpus(snapshot).len() == 2 && gpus(snapshot).iter().all(|view| view.read_at.is_some())
    });
    rig.kernel("power/runtime_status", "suspended");
    // A question to it would be answered so.
    rig.say(&format!("{ONE}{TWO}energy 0 1000\nenergy 1 2000\nlost 0 15\n"));
    let one = ticks.find("energy of the other", |snapshot| gpus(snapshot)[1].energy.total.0 == 1_000_000);
    let one = if both_say(&one, "GPU 0 (asleep)") {
        one
    } else {
        ticks.find("that one sleeps", |snapshot| both_say(snapshot, "GPU 0 (asleep)"))
    };
    assert!(gpus(&one)[0].past && !gpus(&one)[1].past);
    daemon.stop();
}

#[test]
fn a_library_is_let_go_while_nothing_uses_the_gpu_and_no_energy_is_lost() {
    let Some(rig) = Rig::new(&format!("{ONE}energy 0 1000\n")) else { return };
    for (file, text) in [("status", "active"), ("control", "auto"), ("suspended_time", "77")] {
        let file = if file == "control" { "power/control".to_owned() } else { format!("power/runtime_{file}") };
        rig.kernel(&file, text);
    }
    let (daemon, mut ticks) = rig.start();
    ticks.find("that it is let go", |snapshot| both_say(snapshot, "nothing uses them"));
    let asked = rig.asked();
    assert!(asked.ends_with('S'), "{asked}");
    rig.say(&format!("{ONE}energy 0 301000\n"));
    let from = ticks.next().ticks;
    ticks.find("thirty ticks more", |snapshot| snapshot.ticks > from + 30);
    assert_eq!(rig.asked(), asked);
    // It never slept, so its counter goes on.
    ticks.find("the energy of the time between", |snapshot| gpus(snapshot)[0].energy.total.0 == 300_000_000);
    rig.kernel("power/runtime_status", "suspended");
    ticks.find("that it sleeps", |snapshot| both_say(snapshot, "(asleep)") && gpus(snapshot)[0].past);
    daemon.stop();
}
