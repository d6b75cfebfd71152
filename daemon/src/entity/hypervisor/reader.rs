//! Looks at processes from a thread of its own: a command line that blocks must not keep a tick waiting. Knows nothing of VMs.

use super::look::{self, Shown, Sight};
use crate::model::usage::ProcessKey;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One that says nothing for so long is left alone with its process.
const STUCK: Duration = Duration::from_secs(1);
/// With so many threads left alone, no more processes are looked at until one comes back.
const STUCK_MAX: usize = 16;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Does this process run a VM?
    Look(u32),
    /// What does the kernel show of this VM now?
    Show(ProcessKey),
}

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// A process that runs a VM.
    Sight(Box<Sight>),
    /// What the kernel shows of a VM.
    Shown(ProcessKey, Shown),
    /// Nothing.
    Nothing,
}

/// The reader.
pub struct Reader {
    procfs: PathBuf,
    worker: Option<Worker>,
    /// Questions that have no answer yet, in the order asked.
    open: VecDeque<Ask>,
    /// Since when the first of them is being looked into.
    since: Instant,
    stuck: Vec<JoinHandle<()>>,
}

struct Worker {
    asks: Sender<Ask>,
    answers: Receiver<Answer>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Reads the /proc at `procfs`. The thread starts with the first question.
    pub fn new(procfs: &Path) -> Self {
        Self {
            procfs: procfs.to_path_buf(),
            worker: None,
            open: VecDeque::new(),
            since: Instant::now(),
            stuck: Vec::new(),
        }
    }

    /// Asks, unless the same is being asked already.
    pub fn ask(&mut self, ask: Ask) {
        if self.open.contains(&ask) {
            return;
        }
        if self.open.is_empty() {
            self.since = Instant::now();
        }
        self.open.push_back(ask);
        if self.start()
            && let Some(worker) = &self.worker
        {
            let _ = worker.asks.send(ask);
        } else {
            self.open.pop_back();
        }
    }

    /// Makes sure that there is a worker; false: there can be none.
    fn start(&mut self) -> bool {
        if self.worker.is_some() {
            return true;
        }
        self.stuck.retain(|thread| !thread.is_finished());
        if self.stuck.len() >= STUCK_MAX {
            return false;
        }
        let (procfs, (asks, asked), (answer, answers)) = (self.procfs.clone(), channel(), channel());
        let work = move || {
            for ask in asked {
                let found = match ask {
                    Ask::Look(pid) => {
                        look::look(&procfs, pid).map_or(Answer::Nothing, |sight| Answer::Sight(Box::new(sight)))
                    }
                    Ask::Show(process) => Answer::Shown(process, look::shown(&procfs, process.pid)),
                };
                if answer.send(found).is_err() {
                    break;
                }
            }
        };
        match std::thread::Builder::new().name("jouled-vms".into()).spawn(work) {
            Ok(thread) => self.worker = Some(Worker { asks, answers, thread }),
            Err(error) => tracing::warn!("VMs cannot be looked for now: {error}"),
        }
        self.worker.is_some()
    }

    /// Answers, waiting for those that are not there yet for at most `patience`.
    pub fn answers(&mut self, patience: Duration) -> Vec<Answer> {
        let mut answers = Vec::new();
        let until = Instant::now() + patience;
        while !self.open.is_empty() {
            let Some(worker) = &self.worker else { break };
            let left = until.min(self.since + STUCK).saturating_duration_since(Instant::now());
            match worker.answers.recv_timeout(left) {
                Ok(answer) => {
                    answers.push(answer);
                    self.open.pop_front();
                    self.since = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) if self.since.elapsed() < STUCK => break,
                Err(_) => self.give_up(),
            }
        }
        answers
    }

    /// Leaves the worker alone with the process that it hangs on, and lets another one go on with the others.
    fn give_up(&mut self) {
        if let (Some(worker), Some(ask)) = (self.worker.take(), self.open.pop_front()) {
            let (Ask::Look(pid) | Ask::Show(ProcessKey { pid, .. })) = ask;
            self.stuck.push(worker.thread);
            let count = self.stuck.len();
            tracing::warn!(
                "/proc/{pid} cannot be read in {STUCK:?}: what runs there is taken for no VM ({count} such processes)"
            );
        }
        for ask in std::mem::take(&mut self.open) {
            self.ask(ask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_that_blocks_keeps_nobody_waiting() {
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
        let path = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: `path` is a C string.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);

        let mut reader = Reader::new(root.path());
        reader.ask(Ask::Look(7));
        reader.ask(Ask::Look(8));
        let from = Instant::now();
        assert!(reader.answers(Duration::from_millis(20)).is_empty());
        assert!(from.elapsed() < Duration::from_millis(500), "{:?}", from.elapsed());
        std::thread::sleep(STUCK);
        let answers = reader.answers(Duration::from_secs(5));
        assert!(
            matches!(&answers[..], [Answer::Sight(sight)] if sight.said.name.as_deref() == Some("good")),
            "{answers:?}"
        );
        assert_eq!(reader.stuck.len(), 1);
        // Lets the thread go.
        std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        while !reader.stuck[0].is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
