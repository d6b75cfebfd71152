//! Names of 10,000 containers of Kubernetes: time of a tick and memory, with the kubelet's folders and without.

use crate::Failure;
use crate::clock::{median, ms};
use crate::report::{Limit, Report};
use jouled::entity::Entities;
use jouled::model::source::{PackageId, Stamp};
use jouled::model::units::Nanos;
use jouled::model::usage::{CgroupBorn, CgroupId, ProcessKey, UsageSample, Use, Used};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const CONTAINERS: usize = 10_000;
const CHANGED: usize = 100;
const TICKS: usize = 50;

/// A made-up host with one container in each pod.
struct Host {
    root: tempfile::TempDir,
    next: usize,
    uses: Vec<Use>,
    born: Vec<CgroupBorn>,
    paths: Vec<PathBuf>,
}

impl Host {
    fn new() -> Result<Self, Failure> {
        let root = tempfile::tempdir()?;
        let base = root.path();
        for dir in ["proc/self", "cgroup", "log/pods", "log/containers"] {
            fs::create_dir_all(base.join(dir))?;
        }
        let mount = format!("26 25 0:23 / {} rw - cgroup2 cgroup2 rw\n", base.join("cgroup").display());
        fs::write(base.join("proc/self/mountinfo"), mount)?;
        Ok(Self { root, next: 0, uses: Vec::new(), born: Vec::new(), paths: Vec::new() })
    }

    /// A new container, with what the kubelet makes for it.
    fn begin(&mut self) -> Result<(), Failure> {
        let (base, number) = (self.root.path(), self.next);
        self.next += 1;
        let uid = format!("{number:08x}-1f2a-4b6c-8d7e-9fa0b1c2d3e4");
        let pod =
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        let path = format!("{pod}/cri-containerd-{number:064x}.scope");
        let dir = base.join("cgroup").join(&path[1..]);
        fs::create_dir_all(&dir)?;
        let name = format!("web-7d9f4c5b6-{number:05}");
        fs::create_dir(base.join(format!("log/pods/production_{name}_{uid}")))?;
        symlink("x", base.join(format!("log/containers/{name}_production_nginx-{number:064x}.log")))?;
        let cgroup = CgroupId(fs::metadata(&dir)?.ino());
        let process = ProcessKey { pid: number as u32 + 10, start: 1 };
        self.uses.push(Use { process, cgroup, package: PackageId(0), used: Used::on_cpu(Nanos(1)) });
        self.born.push(CgroupBorn { cgroup, path });
        self.paths.push(dir);
        Ok(())
    }

    /// Ends the oldest containers.
    fn end(&mut self, count: usize) -> Result<(), Failure> {
        self.uses.drain(..count);
        for dir in self.paths.drain(..count) {
            fs::remove_dir(&dir)?;
        }
        Ok(())
    }

    /// One tick: its time, and how many containers got a name.
    fn tick(&mut self, entities: &mut Entities) -> (Duration, usize) {
        let born = std::mem::take(&mut self.born);
        let mut sample = UsageSample { uses: self.uses.clone(), born, ..UsageSample::default() };
        let begin = Instant::now();
        let named = entities.observe(&mut sample, Stamp::now());
        let time = begin.elapsed();
        let has_name = |name: &&_| !jouled::model::entity::Labels::get(name, "container_name").is_empty();
        (time, named.cgroups.iter().flat_map(|listed| &listed.entities).filter(has_name).count())
    }
}

/// Bytes in use on the heap.
fn heap() -> usize {
    // SAFETY: no arguments.
    unsafe { libc::mallinfo2() }.uordblks
}

struct Figures {
    steady: Duration,
    changing: Duration,
    bytes: usize,
    /// Ticks until every container had its name.
    named_after: usize,
}

fn measure(with_names: bool) -> Result<Figures, Failure> {
    let mut host = Host::new()?;
    for _ in 0..CONTAINERS {
        host.begin()?;
    }
    let log = host.root.path().join("log");
    let (proc, sys) = (host.root.path().join("proc"), host.root.path().join("sys"));
    let before = heap();
    let mut entities = Entities::open(&proc, &sys, None).with_names(with_names.then_some(&*log), None, None);
    let (mut names, mut named_after) = (0, 0);
    while with_names && names < CONTAINERS && named_after < 1000 {
        names += host.tick(&mut entities).1;
        named_after += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    host.tick(&mut entities);
    let bytes = heap().saturating_sub(before);
    let steady = median((0..TICKS).map(|_| host.tick(&mut entities).0).collect());
    let mut changing = Vec::new();
    for _ in 0..TICKS {
        host.end(CHANGED)?;
        for _ in 0..CHANGED {
            host.begin()?;
        }
        changing.push(host.tick(&mut entities).0);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Figures { steady, changing: median(changing), bytes, named_after })
}

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let (without, with) = (measure(false)?, measure(true)?);
    let bytes = with.bytes.saturating_sub(without.bytes) / CONTAINERS;
    report.line(&format!(
        "{CONTAINERS} containers, all named after {} ticks of 20 ms. A tick of all entities: {:.2} ms (without names {:.2}); with \
         {CHANGED} that begin and {CHANGED} that end {:.2} ms (without names {:.2}); {bytes} bytes a container",
        with.named_after,
        ms(with.steady),
        ms(without.steady),
        ms(with.changing),
        ms(without.changing),
    ))?;
    let more = |with: Duration, without: Duration| ms(with.saturating_sub(without));
    report.target("names, 10,000 containers, a tick", more(with.steady, without.steady), Limit::Most(1.0), "ms");
    let changing = more(with.changing, without.changing);
    report.target("names, 10,000 containers, 100 begin and 100 end", changing, Limit::Most(2.0), "ms");
    report.target("names, memory of a container", bytes as f64 / 1000.0, Limit::Most(1.0), "KB");
    Ok(())
}
