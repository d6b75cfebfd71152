//! The names of a job from the environment of its processes (/proc/PID/environ, or process_vm_readv(2)), on a thread of
//! its own. Decides nothing about what is charged.
//!
//! What a process says of itself is a claim: the owner of a job can start a process with any environment. So the oldest
//! process counts, which the manager started, and only where it names this job's id and its own user; and the user is
//! the one that the kernel knows.

use crate::entity::path::Manager;
use crate::entity::reader::Request;
use crate::model::usage::ProcessKey;
use crate::sys::{proc_pid, users};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest environment that is read, in bytes.
const ENVIRONMENT_MAX: u64 = 1 << 20;
/// Processes of a job that are asked at most, the oldest first.
const ASKED_MAX: usize = 32;
/// Processes of a job that are listed at most.
const LISTED_MAX: usize = 4096;
/// Cgroups of a job that are searched at most.
const CGROUPS_MAX: usize = 512;

/// What the owner of a job and its manager call it. Empty: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub user: String,
    pub account: String,
    pub partition: String,
    pub job_name: String,
}

/// A request for the names of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesOf {
    pub manager: Manager,
    pub job_id: String,
    pub cgroup_id: String,
    /// The directory of the job's cgroup.
    pub dir: PathBuf,
    /// The path of that cgroup.
    pub root: String,
    /// Number or name of its user, where the path has it.
    pub uid: Option<u32>,
    pub user: Option<String>,
}

/// The environment variables in which a manager says what a job is.
struct Variables {
    /// The id, as the path has it. Empty: there is none.
    ids: &'static [&'static str],
    /// Number of the user.
    uid: &'static str,
    user: &'static str,
    account: &'static str,
    partition: &'static str,
    job_name: &'static str,
}

const fn variables(manager: Manager) -> Variables {
    match manager {
        // sbatch(1), "OUTPUT ENVIRONMENT VARIABLES".
        Manager::Slurm => Variables {
            ids: &["SLURM_JOB_ID", "SLURM_JOBID"],
            uid: "SLURM_JOB_UID",
            user: "SLURM_JOB_USER",
            account: "SLURM_JOB_ACCOUNT",
            partition: "SLURM_JOB_PARTITION",
            job_name: "SLURM_JOB_NAME",
        },
        // qsub(1B), "ENVIRONMENT VARIABLES".
        Manager::Pbs => Variables {
            ids: &["PBS_JOBID"],
            uid: "",
            user: "PBS_O_LOGNAME",
            account: "PBS_ACCOUNT",
            partition: "PBS_QUEUE",
            job_name: "PBS_JOBNAME",
        },
        // oarsub(1); it does not say the queue.
        Manager::Oar => Variables {
            ids: &["OAR_JOB_ID", "OAR_JOBID"],
            uid: "",
            user: "OAR_USER",
            account: "OAR_PROJECT_NAME",
            partition: "",
            job_name: "OAR_JOB_NAME",
        },
        Manager::Nomad => Variables {
            ids: &["NOMAD_ALLOC_ID"],
            uid: "",
            user: "",
            account: "NOMAD_NAMESPACE",
            partition: "NOMAD_DC",
            job_name: "NOMAD_JOB_NAME",
        },
        // Its job's id is only in a file that the job may write to.
        Manager::HtCondor => Variables { ids: &[], uid: "", user: "", account: "", partition: "", job_name: "" },
    }
}

impl Request for NamesOf {
    type Reply = (Self, Option<Names>);
    const THREAD: &'static str = "jouled-jobs";

    fn read(&self, procfs: &Path) -> Self::Reply {
        (self.clone(), self.find(procfs))
    }

    fn unanswered(&self, after: Duration) -> String {
        let (manager, id) = (self.manager.as_str(), &self.job_id);
        format!("the processes of {manager} job {id:?} cannot be read in {after:?}: it has no names yet")
    }
}

impl NamesOf {
    fn find(&self, procfs: &Path) -> Option<Names> {
        let mut processes = Vec::new();
        let mut left = CGROUPS_MAX;
        list(procfs, &self.dir, &mut left, &mut processes);
        processes.sort_by_key(|process: &ProcessKey| (process.start, process.pid));
        processes.iter().take(ASKED_MAX).find_map(|process| self.said_by(procfs, *process))
    }

    /// What one process of the job says. `None`: nothing of this job.
    fn said_by(&self, procfs: &Path, process: ProcessKey) -> Option<Names> {
        let of = variables(self.manager);
        let uid = proc_pid::uids(procfs, process.pid).first().copied()?;
        let environment = environment(procfs, process.pid);
        // The pid was not reused during the reads, and the process did not leave.
        let in_job = fs::read(procfs.join(format!("{}/cgroup", process.pid))).ok()?;
        let in_job = String::from_utf8_lossy(&in_job).lines().any(|line| self.is_inside(line));
        if !in_job || proc_pid::process(procfs, process.pid) != Some(process) {
            return None;
        }
        let environment = match environment {
            Ok(environment) => environment,
            // Without the permission, the user is known all the same; a process of root may be the manager's own.
            Err(ErrorKind::PermissionDenied) if uid != 0 => return Some(self.named(uid, |_| String::new())),
            Err(_) => return None,
        };
        let value = |name: &str| value(&environment, name);
        let says_id = of.ids.is_empty() || of.ids.iter().any(|id| value(id) == self.job_id);
        let says_user = of.uid.is_empty() || value(of.uid).is_empty() || value(of.uid) == uid.to_string();
        let of_manager = of.ids.is_empty() && uid == 0;
        (says_id && says_user && !of_manager).then(|| self.named(uid, value))
    }

    /// The names, where a process of the user `uid` has these `values`.
    fn named(&self, uid: u32, value: impl Fn(&str) -> String) -> Names {
        let of = variables(self.manager);
        let value = |name: &str| if name.is_empty() { String::new() } else { value(name) };
        let said = || Some(value(of.user)).filter(|user| !user.is_empty());
        let user = self.user.clone().or_else(|| users::name_of(self.uid.unwrap_or(uid))).or_else(said);
        Names {
            user: user.unwrap_or_else(|| self.uid.unwrap_or(uid).to_string()),
            account: value(of.account),
            partition: value(of.partition),
            job_name: value(of.job_name),
        }
    }

    /// Whether a line of /proc/PID/cgroup has a path inside of the job.
    fn is_inside(&self, line: &str) -> bool {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        path.strip_prefix(&self.root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Adds the processes in a cgroup and below it.
fn list(procfs: &Path, dir: &Path, left: &mut usize, processes: &mut Vec<ProcessKey>) {
    if *left == 0 || processes.len() >= LISTED_MAX {
        return;
    }
    *left -= 1;
    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let pids = pids.lines().filter_map(|pid| pid.parse().ok());
    processes.extend(pids.take(LISTED_MAX).filter_map(|pid| proc_pid::process(procfs, pid)));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(procfs, &entry.path(), left, processes);
        }
    }
}

/// The environment with which a process executed its program: `NAME=value`, each with a zero byte.
fn environment(procfs: &Path, pid: u32) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    let file = match File::open(procfs.join(format!("{pid}/environ"))) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return from_memory(procfs, pid),
        Err(error) => return Err(error.kind()),
    };
    file.take(ENVIRONMENT_MAX).read_to_end(&mut bytes).map_err(|error| error.kind())?;
    // A value that is cut off would be another one.
    if bytes.len() as u64 == ENVIRONMENT_MAX {
        bytes.truncate(bytes.iter().rposition(|byte| *byte == 0).map_or(0, |end| end + 1));
    }
    Ok(bytes)
}

/// The environment from the memory of a process: process_vm_readv(2) goes by CAP_SYS_PTRACE alone, while the mode of
/// /proc/PID/environ wants CAP_DAC_READ_SEARCH, too. The unit of the package allows neither.
fn from_memory(procfs: &Path, pid: u32) -> Result<Vec<u8>, ErrorKind> {
    // Numbers of another PID namespace would be other processes here.
    let in_reach = proc_pid::is_own(procfs).then_some(()).ok_or(ErrorKind::PermissionDenied);
    let (begin, end) = in_reach.and_then(|()| place(procfs, pid).ok_or(ErrorKind::PermissionDenied))?;
    let mut bytes = vec![0; end.saturating_sub(begin).min(ENVIRONMENT_MAX as usize)];
    let from = [RemoteIoVec { base: begin, len: bytes.len() }];
    let process = Pid::from_raw(i32::try_from(pid).map_err(|_| ErrorKind::NotFound)?);
    let read = process_vm_readv(process, &mut [IoSliceMut::new(&mut bytes)], &from);
    let read = read.map_err(|error| io::Error::from(error).kind())?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Where the environment is in the memory of a process: fields 50 and 51 of /proc/PID/stat. `None`: it has none, or the
/// kernel does not say.
fn place(procfs: &Path, pid: u32) -> Option<(usize, usize)> {
    let text = fs::read(procfs.join(format!("{pid}/stat"))).ok()?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    // The first field after the name is number 3.
    let mut fields = rest.split_ascii_whitespace().skip(50 - 3).map(|field| field.parse().ok());
    Some((fields.next()??, fields.next()??)).filter(|(begin, end)| 0 < *begin && begin < end)
}

/// The value of a variable; empty where there is none. Invalid UTF-8 is replaced.
fn value(environment: &[u8], name: &str) -> String {
    let mut variables = environment.split(|byte| *byte == 0);
    let found = variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_in_memory_as_it_is_in_proc() {
        let (procfs, me) = (Path::new("/proc"), std::process::id());
        let bytes = from_memory(procfs, me).unwrap();
        assert_eq!(bytes, fs::read("/proc/self/environ").unwrap());
        assert_eq!(from_memory(Path::new("/"), me), Err(ErrorKind::PermissionDenied));
        assert_eq!(from_memory(procfs, u32::MAX), Err(ErrorKind::PermissionDenied));
    }

    #[test]
    fn a_value_is_that_of_its_whole_name() {
        let environment = b"AB=no\0A=x=y\0A=later\0=\0B\0";
        assert_eq!(["A", "AB", "B", "C"].map(|name| value(environment, name)), ["x=y", "no", "", ""]);
    }
}
