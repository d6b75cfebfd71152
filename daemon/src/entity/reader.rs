//! Reads processes in /proc on a thread of its own, so that a file that blocks does not delay a tick: the pages of a
//! command line or an environment may be of a file system in user space that never answers. Does not interpret the
//! results.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A thread that has not replied for so long is abandoned with its process.
const HANG_AFTER: Duration = Duration::from_secs(1);
/// Abandoned threads at most; then nothing is read until one of them returns.
const ABANDONED_MAX: usize = 16;

/// A request to the thread of a [`Reader`].
pub(super) trait Request: Clone + PartialEq + Send + 'static {
    /// What the thread replies.
    type Reply: Send + 'static;
    /// Name of the thread, at most 15 bytes.
    const THREAD: &'static str;

    /// Reads what is asked for, from the /proc at `procfs`. May block.
    fn read(&self, procfs: &Path) -> Self::Reply;

    /// What cannot be read where this request is not answered in the time `after`, and what follows: for the log.
    fn unanswered(&self, after: Duration) -> String;
}

/// A reader of /proc with its thread.
pub(super) struct Reader<R: Request> {
    procfs: PathBuf,
    worker: Option<Worker<R>>,
    /// Requests without a reply, in the order sent.
    waiting: VecDeque<R>,
    /// When work on the first of them began.
    since: Instant,
    abandoned: Vec<JoinHandle<()>>,
}

struct Worker<R: Request> {
    requests: Sender<R>,
    replies: Receiver<R::Reply>,
    thread: JoinHandle<()>,
}

impl<R: Request> Reader<R> {
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
    pub fn request(&mut self, request: R) {
        if self.waiting.contains(&request) {
            return;
        }
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.waiting.push_back(request.clone());
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
        let (procfs, (requests, received), (reply, replies)) = (self.procfs.clone(), channel::<R>(), channel());
        let work = move || {
            for request in received {
                if reply.send(request.read(&procfs)).is_err() {
                    break;
                }
            }
        };
        match std::thread::Builder::new().name(R::THREAD.into()).spawn(work) {
            Ok(thread) => self.worker = Some(Worker { requests, replies, thread }),
            Err(error) => tracing::warn!("no thread {} that reads processes: {error}", R::THREAD),
        }
        self.worker.is_some()
    }

    /// The replies so far; waits up to `patience` for those that are missing.
    pub fn replies(&mut self, patience: Duration) -> Vec<R::Reply> {
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

    /// Abandons the thread with the request that it hangs on, and sends the other requests to a new one.
    fn abandon(&mut self) {
        if let (Some(worker), Some(request)) = (self.worker.take(), self.waiting.pop_front()) {
            self.abandoned.push(worker.thread);
            let count = self.abandoned.len();
            tracing::warn!("{} ({count} such processes)", request.unanswered(HANG_AFTER));
        }
        for request in std::mem::take(&mut self.waiting) {
            self.request(request);
        }
    }

    /// Number of threads that were abandoned and have not ended.
    #[cfg(test)]
    pub fn abandoned(&self) -> &[JoinHandle<()>] {
        &self.abandoned
    }

    /// The time after which a thread is abandoned.
    #[cfg(test)]
    pub const HANG_AFTER: Duration = HANG_AFTER;
}
