//! Inspects processes on a thread of its own, so that a command line that blocks does not delay a tick. Does not
//! interpret the results.

use super::inspect::{self, Evidence, VmProcess};
use crate::model::usage::ProcessKey;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A thread that has not replied for so long is abandoned with its process.
const HANG_AFTER: Duration = Duration::from_secs(1);
/// Abandoned threads at most; then no process is inspected until one of them returns.
const ABANDONED_MAX: usize = 16;

/// A request to the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Inspect this process: does it run a VM?
    Inspect(u32),
    /// Read the evidence of this VMM process again.
    Evidence(ProcessKey),
}

/// The reply to one request.
#[derive(Debug)]
pub enum Reply {
    /// The process runs a VM.
    VmProcess(Box<VmProcess>),
    /// The evidence of a VMM process.
    Evidence(ProcessKey, Evidence),
    /// The process runs no VM, or ended.
    NotVm,
}

/// A reader of /proc with its thread.
pub struct Reader {
    procfs: PathBuf,
    worker: Option<Worker>,
    /// Requests without a reply, in the order sent.
    waiting: VecDeque<Request>,
    /// When work on the first of them began.
    since: Instant,
    abandoned: Vec<JoinHandle<()>>,
}

struct Worker {
    requests: Sender<Request>,
    replies: Receiver<Reply>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Reads the /proc at `procfs`. The thread starts with the first request.
    pub fn new(procfs: &Path) -> Self {
        Self {
            procfs: procfs.to_path_buf(),
            worker: None,
            waiting: VecDeque::new(),
            since: Instant::now(),
            abandoned: Vec::new(),
        }
    }

    /// Sends a request, unless the same one is waiting already.
    pub fn request(&mut self, request: Request) {
        if self.waiting.contains(&request) {
            return;
        }
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.waiting.push_back(request);
        if self.ensure_thread()
            && let Some(worker) = &self.worker
        {
            let _ = worker.requests.send(request);
        } else {
            self.waiting.pop_back();
        }
    }

    /// Makes sure that a thread runs; false: it cannot.
    fn ensure_thread(&mut self) -> bool {
        if self.worker.is_some() {
            return true;
        }
        self.abandoned.retain(|thread| !thread.is_finished());
        if self.abandoned.len() >= ABANDONED_MAX {
            return false;
        }
        let (procfs, (requests, received), (reply, replies)) = (self.procfs.clone(), channel(), channel());
        let work = move || {
            for request in received {
                let found = match request {
                    Request::Inspect(pid) => inspect::inspect(&procfs, pid)
                        .map_or(Reply::NotVm, |vm_process| Reply::VmProcess(Box::new(vm_process))),
                    Request::Evidence(process) => Reply::Evidence(process, inspect::evidence(&procfs, process.pid)),
                };
                if reply.send(found).is_err() {
                    break;
                }
            }
        };
        match std::thread::Builder::new().name("jouled-vms".into()).spawn(work) {
            Ok(thread) => self.worker = Some(Worker { requests, replies, thread }),
            Err(error) => tracing::warn!("no thread that inspects processes for VMs: {error}"),
        }
        self.worker.is_some()
    }

    /// The replies so far; waits up to `patience` for those that are missing.
    pub fn replies(&mut self, patience: Duration) -> Vec<Reply> {
        let mut replies = Vec::new();
        let until = Instant::now() + patience;
        while !self.waiting.is_empty() {
            let Some(worker) = &self.worker else { break };
            let left = until.min(self.since + HANG_AFTER).saturating_duration_since(Instant::now());
            match worker.replies.recv_timeout(left) {
                Ok(reply) => {
                    replies.push(reply);
                    self.waiting.pop_front();
                    self.since = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) if self.since.elapsed() < HANG_AFTER => break,
                Err(_) => self.abandon(),
            }
        }
        replies
    }

    /// Abandons the thread with the process that it hangs on, and sends the other requests to a new one.
    fn abandon(&mut self) {
        if let (Some(worker), Some(request)) = (self.worker.take(), self.waiting.pop_front()) {
            let (Request::Inspect(pid) | Request::Evidence(ProcessKey { pid, .. })) = request;
            self.abandoned.push(worker.thread);
            let count = self.abandoned.len();
            tracing::warn!(
                "/proc/{pid} cannot be read in {HANG_AFTER:?}: what runs there is taken for no VM \
                 ({count} such processes)"
            );
        }
        for request in std::mem::take(&mut self.waiting) {
            self.request(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_that_blocks_does_not_delay_others() {
        let root = tempfile::tempdir().unwrap();
        let fake = |pid: u32| {
            let dir = root.path().join(pid.to_string());
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(
                dir.join("stat"),
                format!("{pid} (kvm) S 1 1 1 0 -1 4194560 1 1 1 1 1 0 0 0 20 0 1 0 {pid} 1 1"),
            )
            .unwrap();
            std::os::unix::fs::symlink("/usr/bin/kvm", dir.join("exe")).unwrap();
            dir
        };
        std::fs::write(fake(8).join("cmdline"), "kvm\0-name\0good\0").unwrap();
        let pipe = fake(7).join("cmdline");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();

        let mut reader = Reader::new(root.path());
        reader.request(Request::Inspect(7));
        reader.request(Request::Inspect(8));
        let from = Instant::now();
        assert!(reader.replies(Duration::from_millis(20)).is_empty());
        assert!(from.elapsed() < HANG_AFTER, "{:?}", from.elapsed());
        std::thread::sleep(HANG_AFTER);
        let replies = reader.replies(Duration::from_secs(5));
        assert!(
            matches!(&replies[..], [Reply::VmProcess(vm_process)] if vm_process.claims.name.as_deref() == Some("good")),
            "{replies:?}"
        );
        assert_eq!(reader.abandoned.len(), 1);
        // Lets the thread end.
        std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        while !reader.abandoned[0].is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
