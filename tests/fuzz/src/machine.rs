//! Trees of sysfs and procfs, as a driver or a process may make them.

use crate::text::is_safe;
use crate::tree::Tree;
use jouled::entity::Entities;
use jouled::meter::estimate::{Estimate, EstimateConfig};
use jouled::meter::hwmon::Hwmon;
use jouled::meter::rapl::RaplConfig;
use jouled::meter::rapl::perf::{Opener, Perf};
use jouled::meter::rapl::powercap::{self, Powercap};
use jouled::meter::standby::PackageMeters;
use jouled::meter::{Meter, Roots, Topology};
use jouled::model::domain::Reading;
use jouled::model::source::{PackageId, Stamp};
use jouled::model::units::Nanos;
use jouled::usage::procfs::ProcfsUsage;
use jouled::usage::{Usage, gpu};

fn roots(tree: &Tree) -> Roots {
    Roots { sysfs: tree.path().join("sys"), procfs: tree.path().join("proc") }
}

/// hwmon chips, RAPL zones and PMUs, the topology: the files lie below `class` and `devices` of `sys`, or in `proc`.
pub fn sysfs(data: &[u8]) {
    let tree = Tree::new();
    tree.fill(data);
    let roots = roots(&tree);
    let topology = Topology::read(&roots);
    let rapl = RaplConfig::default();
    gpu::passed_through(&roots.sysfs);
    powercap::absent(&roots);
    let mut meters: Vec<Box<dyn Meter>> =
        vec![Box::new(Hwmon::open(&roots.sysfs.join("class/hwmon"), PackageMeters::default()))];
    match Powercap::open(&rapl, &roots, &topology) {
        Ok(meter) => meters.extend(meter.map(|meter| Box::new(meter) as Box<dyn Meter>)),
        Err(why) => assert!(is_safe(&why), "{why:?}"),
    }
    // The counters that the kernel would open are a file of the tree.
    let counter = tree.path().join("counter");
    let open: Opener = Box::new(move |_, _, _, _| std::fs::File::open(&counter));
    if let Ok(Some(meter)) = Perf::open_with(&rapl, &roots, &topology, open) {
        meters.push(Box::new(meter));
    }
    if let Ok(meter) = Estimate::open(&EstimateConfig::default(), &roots, &topology) {
        meters.push(Box::new(meter));
    }
    for mut meter in meters {
        let mut readings = Vec::new();
        for second in 1..3 {
            let at = Nanos(second * Nanos::SECOND.0);
            meter.read(Stamp { monotonic: at, boottime: at, realtime: at }, &mut readings);
        }
        for reading in readings {
            assert!(meter.domains().iter().any(|domain| domain.id == reading.domain));
            match reading.reading {
                Ok(Reading::Counter { total, wraps_at: Some(most) }) => assert!(most.0 > 0, "{total:?} of {most:?}"),
                Ok(_) => {}
                Err(why) => assert!(is_safe(&why), "{why:?}"),
            }
        }
        assert!(is_safe(&meter.detail()) && is_safe(meter.health().why()), "{:?}", meter.health());
    }
}

/// Processes: the files lie in `proc`, those of cgroups in `cgroup`.
pub fn procfs(data: &[u8]) {
    let tree = Tree::new();
    tree.write("proc/stat", b"cpu 0\n");
    tree.fill(data);
    // Else the cgroups of this machine would be walked. `cgroup-files` has any mountinfo.
    let cgroups = format!("30 23 0:26 / {}/cgroup rw - cgroup2 cgroup2 rw\n", tree.path().display());
    tree.write("proc/self/mountinfo", cgroups.as_bytes());
    let roots = roots(&tree);
    let mut entities = Entities::open(&roots.procfs, &roots.sysfs, None);
    let cgroup2 = tree.path().join("cgroup");
    let Ok(mut usage) = ProcfsUsage::open(&roots.procfs, Some(&cgroup2), &[PackageId(0)], "") else { return };
    for second in 1..4 {
        let at = Nanos(second * Nanos::SECOND.0);
        let Ok(mut sample) = usage.sample() else { continue };
        entities.observe(&mut sample, Stamp { monotonic: at, boottime: at, realtime: at });
        if second == 2 {
            tree.fill(&data[data.len() / 2..]);
        }
    }
}
