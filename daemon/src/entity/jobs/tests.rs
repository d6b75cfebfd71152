//! Jobs on a made-up /proc and cgroup tree, through [`Entities::observe`].

use super::super::{Entities, Named};
use super::*;
use crate::model::entity::Kind;
use crate::model::source::{PackageId, Stamp};
use crate::model::units::Nanos;
use crate::model::usage::{CgroupBorn, ProcessKey, UsageSample, Use, Used};
use std::fs;

const JOB: &str = "/system.slice/slurmstepd.scope/job_7";

struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(host.proc().join("self")).unwrap();
        let mount = format!("26 25 0:23 / {} rw - cgroup2 cgroup2 rw\n", host.dir("").display());
        fs::write(host.proc().join("self/mountinfo"), mount).unwrap();
        host.make("/system.slice");
        host
    }

    fn proc(&self) -> PathBuf {
        self.root.path().join("proc")
    }

    fn dir(&self, path: &str) -> PathBuf {
        self.root.path().join("cgroup").join(path.trim_start_matches('/'))
    }

    fn make(&self, path: &str) -> CgroupId {
        fs::create_dir_all(self.dir(path)).unwrap();
        CgroupId(fs::metadata(self.dir(path)).unwrap().ino())
    }

    /// A process of a user in a cgroup, which started at `start`.
    fn process(&self, pid: u32, start: u64, uid: u32, cgroup: &str, environment: &[u8]) {
        let dir = self.proc().join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let stat = format!("{pid} (sim) S 1 1 1 0 -1 4194560 1 1 1 1 9 0 0 0 20 0 1 0 {start} 1 1");
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("status"), format!("Name:\tsim\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")).unwrap();
        fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        fs::write(dir.join("environ"), environment).unwrap();
        let procs = self.dir(cgroup).join("cgroup.procs");
        let earlier = fs::read_to_string(&procs).unwrap_or_default();
        fs::write(procs, format!("{earlier}{pid}\n")).unwrap();
    }

    fn open(&self) -> Entities {
        let mut entities = Entities::open(&self.proc(), &self.root.path().join("sys"), None);
        // A busy machine may be late: what is tested here is not the time.
        entities.jobs.reply_wait = Duration::from_secs(20);
        entities
    }
}

fn tick(entities: &mut Entities, ran: &[CgroupId]) -> Named {
    tick_with(entities, ran, Vec::new())
}

/// A tick at which these cgroups are new.
fn tick_with(entities: &mut Entities, ran: &[CgroupId], born: Vec<CgroupBorn>) -> Named {
    let uses = ran.iter().map(|cgroup| Use {
        process: ProcessKey { pid: 1, start: 1 },
        cgroup: *cgroup,
        package: PackageId(0),
        used: Used::on_cpu(Nanos(1)),
    });
    let mut sample = UsageSample { uses: uses.collect(), born, ..UsageSample::default() };
    entities.observe(&mut sample, Stamp::default())
}

/// The labels of jobs and steps in what was listed, each as words.
fn jobs(named: &Named) -> Vec<(CgroupId, String)> {
    let of = |kind: Kind| matches!(kind, Kind::Job | Kind::JobStep);
    let mut all: Vec<_> = named
        .cgroups
        .iter()
        .flat_map(|listed| listed.entities.iter().map(move |labels| (listed.cgroup, labels)))
        .filter(|(_, labels)| of(labels.kind()))
        .map(|(cgroup, labels)| (cgroup, format!("{} {}", labels.kind().as_str(), labels.values().join(" "))))
        .collect();
    all.sort();
    all
}

fn slurm(id: &str, uid: &str, account: &str) -> Vec<u8> {
    let words = [
        "PATH=/bin".to_owned(),
        format!("SLURM_JOB_ID={id}"),
        format!("SLURM_JOB_UID={uid}"),
        "SLURM_JOB_USER=nobody-here".to_owned(),
        format!("SLURM_JOB_ACCOUNT={account}"),
        "SLURM_JOB_PARTITION=cpu".to_owned(),
        "SLURM_JOB_NAME=a \"b\"\n../c".to_owned(),
    ];
    words.join("\0").into_bytes()
}

#[test]
fn a_job_and_its_steps_have_the_names_of_the_oldest_process_that_knows_them() {
    let host = Host::new();
    let task = host.make(&format!("{JOB}/step_0/user/task_0"));
    let root = host.make(JOB);
    // The manager's own process comes first and says nothing; a later one claims another account.
    let uid = "4294000001";
    host.process(10, 1, 0, &format!("{JOB}/step_0"), b"PATH=/bin\0SLURM_CONF=/etc/slurm.conf");
    host.process(11, 2, 4_294_000_001, &format!("{JOB}/step_0/user/task_0"), &slurm("7", uid, "physics"));
    host.process(12, 3, 4_294_000_001, &format!("{JOB}/step_0/user/task_0"), &slurm("7", uid, "others"));
    let mut entities = host.open();
    let named = tick(&mut entities, &[task]);
    let names = "nobody-here physics cpu a \"b\"\\u{a}../c";
    let id = root.0;
    let mut expected = vec![
        (root, format!("job slurm 7 {id} {names}")),
        (task, format!("job slurm 7 {id} {names}")),
        (task, format!("job-step slurm 7 {id} 0 {names}")),
    ];
    expected.sort();
    assert_eq!(jobs(&named), expected);
    // A cgroup of the same job that runs later.
    let batch = host.make(&format!("{JOB}/step_batch"));
    let born = CgroupBorn { cgroup: batch, path: format!("{JOB}/step_batch") };
    let named = tick_with(&mut entities, &[task, batch], vec![born]);
    assert_eq!(
        jobs(&named),
        [(batch, format!("job slurm 7 {id} {names}")), (batch, format!("job-step slurm 7 {id} batch {names}")),]
    );
}

#[test]
fn names_that_come_late_are_listed_again_with_the_same_identity() {
    let host = Host::new();
    let step = host.make(&format!("{JOB}/step_extern"));
    let root = host.make(JOB);
    let mut entities = host.open();
    let first = tick(&mut entities, &[step]);
    assert!(jobs(&first).contains(&(root, format!("job slurm 7 {}    ", root.0))));
    // Another job's environment, and one that names another user, are no names of this job.
    let none = tick(&mut entities, &[step]);
    assert_eq!(jobs(&none), []);
    host.process(20, 5, 4_294_000_001, &format!("{JOB}/step_extern"), &slurm("8", "4294000001", "eve"));
    host.process(21, 6, 4_294_000_001, &format!("{JOB}/step_extern"), &slurm("7", "4294000002", "eve"));
    assert_eq!(jobs(&tick(&mut entities, &[step])), []);
    host.process(22, 7, 4_294_000_001, &format!("{JOB}/step_extern"), &slurm("7", "4294000001", "physics"));
    let late = tick(&mut entities, &[step]);
    let listed: Vec<_> = late.cgroups.iter().map(|listed| listed.cgroup).collect();
    assert!(listed.contains(&step) && listed.contains(&root), "{listed:?}");
    assert!(jobs(&late).iter().all(|(_, labels)| labels.contains("nobody-here physics cpu")));
    let of = |named: &Named| named.cgroups.iter().flat_map(|listed| listed.entities.clone()).collect::<Vec<_>>();
    let job = |named: &Named| of(named).into_iter().find(|labels| labels.kind() == Kind::Job).unwrap();
    assert_eq!(job(&first), job(&late));
    assert_eq!(jobs(&tick(&mut entities, &[step])), [], "once");
}

#[test]
fn a_job_lives_as_long_as_its_own_cgroup_and_a_repeated_id_is_another_job() {
    let host = Host::new();
    let step = host.make(&format!("{JOB}/step_0"));
    let root = host.make(JOB);
    let mut entities = host.open();
    let first = tick(&mut entities, &[step]);
    fs::remove_dir_all(host.dir(&format!("{JOB}/step_0"))).unwrap();
    let between = tick(&mut entities, &[]);
    assert_eq!(between.gone, [step], "the job goes on");
    fs::rename(host.dir(JOB), host.dir("/system.slice/elsewhere")).unwrap();
    let ended = tick(&mut entities, &[]);
    assert_eq!(ended.gone, [root]);
    assert!(entities.jobs.jobs.is_empty() && entities.jobs.members.is_empty() && entities.jobs.unnamed == 0);
    let again = host.make(&format!("{JOB}/step_0"));
    let born = CgroupBorn { cgroup: again, path: format!("{JOB}/step_0") };
    let second = tick_with(&mut entities, &[again], vec![born]);
    let job = |named: &Named| {
        let mut all = named.cgroups.iter().flat_map(|listed| listed.entities.clone());
        all.find(|labels| labels.kind() == Kind::Job).unwrap()
    };
    assert_eq!((job(&first).get("job_id"), job(&second).get("job_id")), ("7", "7"));
    assert_ne!(job(&first), job(&second));
}

#[test]
fn a_job_that_sleeps_over_a_restart_is_found_by_its_cgroup() {
    let host = Host::new();
    let step = host.make(&format!("{JOB}/step_0"));
    let root = host.make(JOB);
    let labels = tick(&mut host.open(), &[step]);
    let awaited = labels.cgroups.iter().flat_map(|listed| listed.entities.clone()).map(|labels| (labels, Nanos(1)));
    let mut entities = host.open();
    entities.await_series(awaited.collect());
    let named = tick(&mut entities, &[]);
    let listed: Vec<_> = jobs(&named).into_iter().map(|(cgroup, _)| cgroup).collect();
    assert!(listed.contains(&root) && listed.contains(&step), "{listed:?}");
}

#[test]
fn an_environment_that_is_odd_or_huge_does_no_harm() {
    let host = Host::new();
    let step = host.make(&format!("{JOB}/step_0"));
    host.make(JOB);
    let mut environment = b"SLURM_JOB_ID=7\0=\0\0SLURM_JOB_NAME=\xff\xfe\x1b[2J\0SLURM_JOB_ACCOUNT=".to_vec();
    environment.extend(std::iter::repeat_n(b'x', 2 << 20));
    host.process(11, 2, 4_294_000_001, &format!("{JOB}/step_0"), &environment);
    let mut entities = host.open();
    let named = tick(&mut entities, &[step]);
    let all = named.cgroups.iter().flat_map(|listed| listed.entities.clone());
    let job = all.into_iter().find(|labels| labels.kind() == Kind::Job).unwrap();
    assert_eq!((job.get("user"), job.get("account")), ("4294000001", ""), "a value that is cut off is none");
    assert_eq!(job.get("job_name"), "\u{fffd}\u{fffd}\\u{1b}[2J");
}
