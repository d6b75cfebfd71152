//! Jobs of batch systems and schedulers in cgroup paths. Reads nothing; what the environment of a job's processes says
//! is [`crate::entity::jobs`]'s.
//!
//! | manager | cgroup of a job, and where its source makes it |
//! |---|---|
//! | Slurm, v2 | `/system.slice/[NODE_]slurmstepd.scope/job_ID/step_STEP/…` (`src/plugins/cgroup/v2/cgroup_v2.c`) |
//! | Slurm, v1 | `/slurm[_NODE]/uid_UID/job_ID/step_STEP/…` (`src/plugins/cgroup/v1`) |
//! | PBS | `/pbs_jobs.service/{jobid,jobs}/ID` (OpenPBS: `src/hooks/cgroups/pbs_cgroups.PY` and its tests) |
//! | OAR 3 | `/oar.slice/oar-uUID.slice/oar-uUID-jID.slice/oar-uUID-jID-sSTEP.scope` (Alumet's OAR plugin) |
//! | OAR 2 | `/oar/USER_ID` (`sources/core/tools/job_resource_manager_cgroups.pl`) |
//! | Nomad | `/nomad.slice/{share,reserve}.slice/ALLOC.TASK.scope`, v1 `/nomad/ALLOC.TASK` (`client/lib/cgroupslib`) |
//! | HTCondor | `…/htcondor/condor_EXECUTE_SLOT` (`src/condor_starter.V6.1/vanilla_proc.cpp`) |
//!
//! A job counts only where everything above it is made by the system's manager or the scheduler: no ordinary user can
//! make a cgroup there.

use super::{is_hex, is_number};
use crate::model::text::unescape_unit;

/// A job that a cgroup is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job<'a> {
    /// Value of the label `manager`.
    pub manager: Manager,
    /// Value of the label `job_id`.
    pub id: String,
    /// The step, or the task of an allocation, where the path names one.
    pub step: Option<&'a str>,
    /// Path of the job's own cgroup: everything below it is the job's.
    pub root: &'a str,
    /// Path of the step's cgroup, where the path names one.
    pub step_root: Option<&'a str>,
    /// The number of its user, where the path has it.
    pub uid: Option<u32>,
    /// The name of its user, where the path has it.
    pub user: Option<&'a str>,
}

/// Who runs the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Manager {
    /// Slurm.
    Slurm,
    /// OpenPBS and PBS Professional.
    Pbs,
    /// OAR.
    Oar,
    /// HashiCorp Nomad.
    Nomad,
    /// HTCondor.
    HtCondor,
}

impl Manager {
    /// The value of the label `manager`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::Pbs => "pbs",
            Self::Oar => "oar",
            Self::Nomad => "nomad",
            Self::HtCondor => "htcondor",
        }
    }

    /// Whether two jobs may have one id, one after the other: then the job's cgroup is part of its identity.
    pub const fn repeats_ids(self) -> bool {
        !matches!(self, Self::Nomad)
    }
}

/// The job that a cgroup is, or is inside of: the outermost one in the path.
pub fn job(path: &str) -> Option<Job<'_>> {
    let parts = Parts::of(path)?;
    let first = parts.name(0)?;
    if first == "slurm" || first.starts_with("slurm_") {
        return slurm_v1(&parts);
    }
    match first {
        "pbs_jobs.service" => pbs(&parts),
        "oar.slice" => oar3(&parts),
        "oar" => oar2(&parts),
        "nomad.slice" | "nomad" => nomad(&parts),
        _ => slurm_v2(&parts).or_else(|| htcondor(&parts)),
    }
}

/// Segments of a path that are looked at: jobs are not deeper.
const DEPTH: usize = 8;

/// A path with the ends of its first segments.
struct Parts<'a> {
    path: &'a str,
    ends: [usize; DEPTH],
    count: usize,
}

impl<'a> Parts<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let mut parts = Self { path, ends: [0; DEPTH], count: 0 };
        let mut end = 0;
        for segment in path.strip_prefix('/')?.split('/').take(DEPTH) {
            end += 1 + segment.len();
            parts.ends[parts.count] = end;
            parts.count += 1;
        }
        Some(parts)
    }

    fn name(&self, at: usize) -> Option<&'a str> {
        self.root(at)?.rsplit('/').next()
    }

    /// The path up to a segment.
    fn root(&self, at: usize) -> Option<&'a str> {
        self.path.get(..*self.ends.get(..self.count)?.get(at)?)
    }

    /// The job whose cgroup is segment `at`, with the step that `step` finds in the name of the next segment.
    fn job(
        &self,
        at: usize,
        manager: Manager,
        id: impl Into<String>,
        step: impl Fn(&'a str) -> Option<&'a str>,
    ) -> Option<Job<'a>> {
        let step = self.name(at + 1).and_then(step);
        let step_root = step.and_then(|_| self.root(at + 1));
        Some(Job { manager, id: id.into(), step, root: self.root(at)?, step_root, uid: None, user: None })
    }

    /// Number of slices of the system's manager at the beginning.
    fn slices(&self) -> usize {
        let is_slice = |at: &usize| self.name(*at).is_some_and(|name| name.ends_with(".slice") && name != "user.slice");
        (0..self.count).take_while(is_slice).count()
    }
}

fn numbered<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix).filter(|number| is_number(number))
}

fn slurm_step(name: &str) -> Option<&str> {
    name.strip_prefix("step_").filter(|step| !step.is_empty())
}

fn slurm_v2<'a>(parts: &Parts<'a>) -> Option<Job<'a>> {
    let scope = parts.slices();
    let stem = parts.name(scope)?.strip_suffix("slurmstepd.scope")?;
    // MULTIPLE_SLURMD: the name of the node, which several daemons of one machine have.
    if scope == 0 || !(stem.is_empty() || stem.ends_with('_')) {
        return None;
    }
    let id = numbered(parts.name(scope + 1)?, "job_")?;
    parts.job(scope + 1, Manager::Slurm, id, slurm_step)
}

fn slurm_v1<'a>(parts: &Parts<'a>) -> Option<Job<'a>> {
    let uid = numbered(parts.name(1)?, "uid_")?;
    let id = numbered(parts.name(2)?, "job_")?;
    Some(Job { uid: uid.parse().ok(), ..parts.job(2, Manager::Slurm, id, slurm_step)? })
}

fn pbs<'a>(parts: &Parts<'a>) -> Option<Job<'a>> {
    let id = parts.name(2).filter(|_| matches!(parts.name(1), Some("jobid" | "jobs")))?;
    // `12345.server`, and of an array `12345[7].server`.
    let begins = id.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    if begins { parts.job(2, Manager::Pbs, unescape_unit(id), |_| None) } else { None }
}

fn oar3<'a>(parts: &Parts<'a>) -> Option<Job<'a>> {
    let at = parts.slices().checked_sub(1)?;
    let (uid, id) = parts.name(at)?.strip_suffix(".slice")?.strip_prefix("oar-u")?.split_once("-j")?;
    if !is_number(uid) || !is_number(id) {
        return None;
    }
    let step = |name: &'a str| {
        let step = name.strip_suffix(".scope")?.rsplit_once("-s")?.1;
        is_number(step).then_some(step)
    };
    Some(Job { uid: uid.parse().ok(), ..parts.job(at, Manager::Oar, id, step)? })
}

fn oar2<'a>(parts: &Parts<'a>) -> Option<Job<'a>> {
    let (user, id) = parts.name(1)?.rsplit_once('_').filter(|(user, id)| !user.is_empty() && is_number(id))?;
    Some(Job { user: Some(user), ..parts.job(1, Manager::Oar, id, |_| None)? })
}

fn nomad<'a>(parts: &Parts<'a>) -> Option<Job<'a>> {
    let in_partition = matches!(parts.name(1), Some("share.slice" | "reserve.slice" | "share" | "reserve"));
    let at = 1 + usize::from(in_partition);
    let name = parts.name(at)?;
    let (allocation, task) = name.strip_suffix(".scope").unwrap_or(name).split_once('.')?;
    let is_uuid =
        allocation.len() == 36 && is_hex(&allocation.replace('-', "")) && allocation.matches('-').count() == 4;
    if !is_uuid || task.is_empty() {
        return None;
    }
    let job = parts.job(at, Manager::Nomad, allocation, |_| None)?;
    Some(Job { step: Some(task), step_root: Some(job.root), ..job })
}

fn htcondor<'a>(parts: &Parts<'a>) -> Option<Job<'a>> {
    // The starter makes it beside its own service, or below the root in v1 hierarchies.
    let mut at = parts.slices();
    at += usize::from(parts.name(at) == Some("condor.service"));
    let name = parts.name(at + 1).filter(|_| parts.name(at) == Some("htcondor"))?.strip_prefix("condor_")?;
    // `condor_var_lib_condor_execute_slot1_2@host`: the folder of jobs, and the slot.
    let slot = name.rfind("_slot").and_then(|begin| name.get(begin + 1..)).unwrap_or(name);
    if slot.is_empty() { None } else { parts.job(at + 1, Manager::HtCondor, unescape_unit(slot), |_| None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Manager, id, step and root of the job in a path.
    fn found(path: &str) -> Option<(&'static str, String, Option<&str>, &str)> {
        job(path).map(|job| (job.manager.as_str(), job.id, job.step, job.root))
    }

    #[test]
    fn jobs_of_each_manager() {
        const ALLOC: &str = "e51d6910-4b6d-7708-0e27-c7aacf74197e";
        let nomad = format!("/nomad.slice/share.slice/{ALLOC}.web.scope");
        let nomad_v1 = format!("/nomad/{ALLOC}.web");
        let oar = "/oar.slice/oar-u1000.slice/oar-u1000-j45670.slice";
        let slurm = "/system.slice/slurmstepd.scope/job_211";
        let of_node = "/system.slice/n-1_slurmstepd.scope/job_21868";
        let condor = "/system.slice/htcondor/condor_var_lib_condor_execute_slot1_23@host";
        for (path, manager, id, step, root) in [
            (slurm.to_owned(), "slurm", "211", None, slurm),
            (format!("{slurm}/step_interactive"), "slurm", "211", Some("interactive"), slurm),
            (format!("{slurm}/step_extern/user/task_0"), "slurm", "211", Some("extern"), slurm),
            (format!("{slurm}/step_batch/slurm"), "slurm", "211", Some("batch"), slurm),
            (format!("{of_node}/step_1/user/task_special"), "slurm", "21868", Some("1"), of_node),
            ("/slurm/uid_1000/job_7/step_0/task_0".to_owned(), "slurm", "7", Some("0"), "/slurm/uid_1000/job_7"),
            ("/slurm_n1/uid_0/job_8".to_owned(), "slurm", "8", None, "/slurm_n1/uid_0/job_8"),
            (
                "/pbs_jobs.service/jobid/2404743.opbs".to_owned(),
                "pbs",
                "2404743.opbs",
                None,
                "/pbs_jobs.service/jobid/2404743.opbs",
            ),
            (
                "/pbs_jobs.service/jobs/12[7].pbs/x".to_owned(),
                "pbs",
                "12[7].pbs",
                None,
                "/pbs_jobs.service/jobs/12[7].pbs",
            ),
            (oar.to_owned(), "oar", "45670", None, oar),
            (format!("{oar}/oar-u1000-j45670-s17.scope"), "oar", "45670", Some("17"), oar),
            ("/oar/alice_b_4711/x".to_owned(), "oar", "4711", None, "/oar/alice_b_4711"),
            (nomad.clone(), "nomad", ALLOC, Some("web"), &nomad),
            (nomad_v1.clone(), "nomad", ALLOC, Some("web"), &nomad_v1),
            (condor.to_owned(), "htcondor", "slot1_23@host", None, condor),
            (
                "/htcondor/condor_var_lib_condor_execute_slot1".to_owned(),
                "htcondor",
                "slot1",
                None,
                "/htcondor/condor_var_lib_condor_execute_slot1",
            ),
        ] {
            assert_eq!(found(&path), Some((manager, id.to_owned(), step, root)), "{path}");
        }
        assert_eq!(job("/slurm/uid_1000/job_7").unwrap().uid, Some(1000));
        assert_eq!(job(oar).unwrap().uid, Some(1000));
        assert_eq!(job("/oar/alice_b_4711").unwrap().user, Some("alice_b"));
        let step = job("/slurm/uid_1000/job_7/step_0/task_0").unwrap().step_root;
        assert_eq!(step, Some("/slurm/uid_1000/job_7/step_0"));
    }

    #[test]
    fn what_a_user_or_a_container_could_make_is_no_job() {
        for path in [
            "",
            "/",
            "/system.slice/slurmd.service",
            "/system.slice/slurmstepd.scope/system",
            "/system.slice/slurmstepd.scope/job_",
            "/system.slice/slurmstepd.scope/job_1x",
            "/system.slice/evilslurmstepd.scope/job_1",
            "/slurmstepd.scope/job_1",
            "/user.slice/user-1000.slice/user@1000.service/slurmstepd.scope/job_1",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/slurmstepd.scope/job_1",
            "/system.slice/docker-0.scope/system.slice/slurmstepd.scope/job_1",
            "/user.slice/htcondor/condor_x_slot1",
            "/slurm/uid_x/job_1",
            "/slurm/job_1",
            "/pbs_jobs.service/jobid/../x",
            "/pbs_jobs.service/other/1.x",
            "/oar/1",
            "/oar.slice/oar-u1000.slice",
            "/oar.slice/oar-ux-j1.slice",
            "/nomad.slice/share.slice/web.scope",
            "/nomad.slice/share.slice/e51d6910-4b6d-7708-0e27-c7aacf74197e.scope",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_a_job_inside_of_itself_or_none(path in "(/[a-z_.0-9-]{0,20}){0,10}", tail in ".{0,20}") {
            for path in [path.clone(), format!("/slurm/uid_1/job_2{path}"), format!("/system.slice/slurmstepd.scope/job_{tail}")] {
                if let Some(job) = job(&path) {
                    prop_assert!(path.starts_with(job.root) && super::job(job.root).is_some_and(|own| own.id == job.id));
                    prop_assert!(job.step_root.is_none_or(|step| step.starts_with(job.root)));
                }
            }
        }
    }
}
