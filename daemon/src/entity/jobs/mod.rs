//! Jobs of batch systems and schedulers: which cgroups are a job's, and what its owner calls it. Which path is a job is
//! decided in `path`; `environment` reads names from the environment of the job's processes.
//!
//! A job is its manager, its id and its cgroup. Its names (user, account, partition, job name) are labels, and what a
//! process says of itself: they are read once, from the job's oldest process that says which job it is, and change
//! nothing of what is charged.

mod environment;

use super::CgroupPath;
use super::cgroups::Resolver;
use super::path::{self, Job, Manager};
use super::reader::Reader;
use crate::model::entity::{JobLabels, JobStepLabels, Labels};
use crate::model::usage::CgroupId;
use environment::{Names, NamesOf};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time that a tick waits for the names of new jobs; later replies count from the next tick on.
const REPLY_WAIT: Duration = Duration::from_millis(50);
/// Ticks for which the names of a new job are looked for at each tick: a job may begin with its manager's processes
/// alone.
const LOOKED_FOR_EACH_TICK: u32 = 30;
/// After that they are looked for once in this many ticks.
const LOOK_INTERVAL: u32 = 64;

/// What identifies a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct JobKey {
    manager: Manager,
    id: String,
    /// Value of the label `cgroup_id`.
    cgroup: String,
}

impl JobKey {
    /// `inode`: the id of the job's cgroup in the kernel.
    fn new(job: &Job<'_>, inode: u64) -> Self {
        let cgroup = if job.manager.repeats_ids() { inode.to_string() } else { String::new() };
        Self { manager: job.manager, id: job.id.clone(), cgroup }
    }

    fn labels(&self, names: &Names) -> Labels {
        JobLabels {
            manager: self.manager.as_str(),
            job_id: &self.id,
            cgroup_id: &self.cgroup,
            user: &names.user,
            account: &names.account,
            partition: &names.partition,
            job_name: &names.job_name,
        }
        .into()
    }

    fn step_labels(&self, step: &str, names: &Names) -> Labels {
        JobStepLabels {
            manager: self.manager.as_str(),
            job_id: &self.id,
            cgroup_id: &self.cgroup,
            step_id: step,
            user: &names.user,
            account: &names.account,
            partition: &names.partition,
            job_name: &names.job_name,
        }
        .into()
    }
}

/// A job with a cgroup that was listed.
#[derive(Debug)]
struct JobState {
    /// `None`: not known yet.
    names: Option<Names>,
    /// The directory of its cgroup.
    dir: PathBuf,
    /// The path of its cgroup.
    root: String,
    uid: Option<u32>,
    user: Option<String>,
    /// Number of listed cgroups.
    members: usize,
    /// Ticks since it was found.
    age: u32,
}

/// A listed cgroup of a job.
#[derive(Debug)]
struct Member {
    job: JobKey,
    step: Option<String>,
    path: String,
}

/// The jobs on this kernel.
pub struct Jobs {
    reader: Reader<NamesOf>,
    jobs: BTreeMap<JobKey, JobState>,
    members: FxHashMap<CgroupId, Member>,
    /// Number of jobs without names.
    unnamed: usize,
    /// Longest time that a tick waits for names: [`REPLY_WAIT`].
    pub(super) reply_wait: Duration,
}

impl Jobs {
    /// No jobs yet. Reads the /proc at `procfs`.
    pub fn new(procfs: &Path) -> Self {
        Self {
            reader: Reader::new(procfs),
            jobs: BTreeMap::new(),
            members: FxHashMap::default(),
            unnamed: 0,
            reply_wait: REPLY_WAIT,
        }
    }

    /// Takes in the newly listed cgroups that are parts of jobs. The cgroup of a new job itself is listed too: it lives
    /// as long as the job, also between two steps.
    pub(super) fn add(&mut self, cgroups: &mut Vec<CgroupPath>, resolver: &mut Resolver) {
        let mut roots = Vec::new();
        for CgroupPath { cgroup, path, .. } in &*cgroups {
            let Some(path) = path else { continue };
            let Some(job) = path::job(path) else { continue };
            let root = resolver.report_root(*cgroup, path, job.root);
            let key = JobKey::new(&job, root.as_ref().map_or(cgroup.0, |root| root.inode));
            if let Some(root) = &root
                && root.is_new
                && root.cgroup != *cgroup
            {
                self.add_member(root.cgroup, job.root, &job, &key, &root.dir);
                roots.push(CgroupPath { cgroup: root.cgroup, path: Some(job.root.to_owned()), vm: None });
            }
            let dir = root.map(|root| root.dir).unwrap_or_default();
            self.add_member(*cgroup, path, &job, &key, &dir);
        }
        let listed = |root: &CgroupPath| cgroups.iter().any(|listed| listed.cgroup == root.cgroup);
        roots.retain(|root| !listed(root));
        cgroups.append(&mut roots);
    }

    fn add_member(&mut self, cgroup: CgroupId, path: &str, job: &Job<'_>, key: &JobKey, dir: &Path) {
        // The step is the cgroup's own: that of the job itself has none.
        let step = job.step_root.is_some_and(|step| path.starts_with(step)).then_some(job.step).flatten();
        let member = Member { job: key.clone(), step: step.map(str::to_owned), path: path.to_owned() };
        if self.members.insert(cgroup, member).is_some() {
            return;
        }
        let unnamed = &mut self.unnamed;
        let state = self.jobs.entry(key.clone()).or_insert_with(|| {
            *unnamed += 1;
            JobState {
                names: None,
                dir: dir.to_path_buf(),
                root: job.root.to_owned(),
                uid: job.uid,
                user: job.user.map(str::to_owned),
                members: 0,
                age: 0,
            }
        });
        state.members += 1;
    }

    /// Looks for the names of jobs that have none. Cgroups whose job got its names are listed again.
    pub(super) fn find_names(&mut self, cgroups: &mut Vec<CgroupPath>) {
        if self.unnamed == 0 {
            return;
        }
        for (key, state) in self.jobs.iter_mut().filter(|(_, state)| state.names.is_none()) {
            state.age = state.age.saturating_add(1);
            if state.age <= LOOKED_FOR_EACH_TICK || state.age.is_multiple_of(LOOK_INTERVAL) {
                self.reader.request(NamesOf {
                    manager: key.manager,
                    job_id: key.id.clone(),
                    cgroup_id: key.cgroup.clone(),
                    dir: state.dir.clone(),
                    root: state.root.clone(),
                    uid: state.uid,
                    user: state.user.clone(),
                });
            }
        }
        for (of, names) in self.reader.replies(self.reply_wait) {
            let key = JobKey { manager: of.manager, id: of.job_id, cgroup: of.cgroup_id };
            let Some(state) = self.jobs.get_mut(&key).filter(|state| state.names.is_none()) else { continue };
            let Some(names) = names else { continue };
            state.names = Some(names);
            self.unnamed -= 1;
            for (cgroup, member) in self.members.iter().filter(|(_, member)| member.job == key) {
                if !cgroups.iter().any(|listed| listed.cgroup == *cgroup) {
                    cgroups.push(CgroupPath { cgroup: *cgroup, path: Some(member.path.clone()), vm: None });
                }
            }
        }
    }

    /// The labels of the job, and of the step, that a listed cgroup is part of; empty for other cgroups.
    pub(super) fn labels(&self, cgroup: CgroupId) -> Vec<Labels> {
        let Some(member) = self.members.get(&cgroup) else { return Vec::new() };
        let unknown = Names::default();
        let names = self.jobs.get(&member.job).and_then(|state| state.names.as_ref()).unwrap_or(&unknown);
        let step = member.step.as_deref().map(|step| member.job.step_labels(step, names));
        [member.job.labels(names)].into_iter().chain(step).collect()
    }

    /// Forgets cgroups that are gone, and jobs without any.
    pub(super) fn forget(&mut self, gone: &[CgroupId]) {
        for cgroup in gone {
            let Some(member) = self.members.remove(cgroup) else { continue };
            let Some(state) = self.jobs.get_mut(&member.job) else { continue };
            state.members -= 1;
            if state.members == 0 {
                self.unnamed -= usize::from(state.names.is_none());
                self.jobs.remove(&member.job);
            }
        }
    }
}

/// The labels, without names, of the job or step whose own cgroup has this path and directory: what it is known by over
/// a restart of jouled.
pub(super) fn of_root(path: &str, dir: Option<&Path>) -> Vec<Labels> {
    let Some(job) = path::job(path) else { return Vec::new() };
    let (is_job, is_step) = (job.root == path, job.step_root == Some(path));
    if !is_job && !is_step {
        return Vec::new();
    }
    let below = path.get(job.root.len()..).unwrap_or_default().split('/').filter(|segment| !segment.is_empty()).count();
    let root = dir.and_then(|dir| dir.ancestors().nth(below)).and_then(|root| fs::metadata(root).ok());
    let Some(root) = root else { return Vec::new() };
    let (key, names) = (JobKey::new(&job, root.ino()), Names::default());
    let step = job.step.filter(|_| is_step).map(|step| key.step_labels(step, &names));
    is_job.then(|| key.labels(&names)).into_iter().chain(step).collect()
}

#[cfg(test)]
mod tests;
