//! The frames that wait for a receiver, oldest first: in the log on disk, or in memory while the disk refuses. Then
//! only the last time on the grid is kept: the next sample of a counter has all energy of the time before.

use super::log::Log;
use super::wire::Frame;
use std::collections::VecDeque;
use std::path::PathBuf;

/// Milliseconds after which a log that cannot be used is opened again.
const OPEN_AGAIN: i64 = 60_000;

/// The frames that wait.
#[derive(Debug)]
pub struct Queue {
    folder: PathBuf,
    limit: u64,
    age: i64,
    /// `Err`: why it cannot be used, and when that was.
    log: Result<Log, (String, i64)>,
    /// What is not on disk.
    memory: VecDeque<Frame>,
    /// The first frame, as it was read last.
    first: Option<Frame>,
    dropped: u64,
}

impl Queue {
    /// The queue with the log in `folder`, as it was left. `limit` in bytes, `age` and `now` in milliseconds.
    pub fn open(folder: PathBuf, limit: u64, age: i64, now: i64) -> Self {
        let log = Log::open(&folder, limit, age).map_err(|error| (error.to_string(), now));
        Self { folder, limit, age, log, memory: VecDeque::new(), first: None, dropped: 0 }
    }

    /// Appends the frames of one time.
    pub fn push(&mut self, frames: Vec<Frame>, now: i64) {
        if let Err((_, since)) = &self.log
            && now - since >= OPEN_AGAIN
        {
            self.log = Log::open(&self.folder, self.limit, self.age).map_err(|error| (error.to_string(), now));
            self.first = None;
        }
        let at = frames.first().map_or(now, |frame| frame.at);
        self.memory.extend(frames);
        while let (Ok(log), Some(frame)) = (&mut self.log, self.memory.front()) {
            match log.append(frame) {
                Ok(()) => {
                    self.memory.pop_front();
                    if log.has_dropped() {
                        self.first = None;
                    }
                }
                Err(error) => self.log_failed(&error.to_string(), now),
            }
        }
        while self.memory.front().is_some_and(|frame| frame.at < at) {
            self.dropped += self.memory.pop_front().map_or(0, |frame| frame.samples() as u64);
        }
    }

    /// The oldest frame; `None`: there is none.
    pub fn first(&mut self, now: i64) -> Option<&Frame> {
        if self.first.is_none() {
            self.first = match self.log.as_mut().map(|log| log.first(now)) {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    self.log_failed(&error.to_string(), now);
                    None
                }
                Err(_) => None,
            };
        }
        if self.first.is_none() {
            return self.memory.front();
        }
        self.first.as_ref()
    }

    /// Forgets the oldest frame, where it still is that of time `at`: the log may have dropped it.
    pub fn pop(&mut self, at: i64, now: i64) {
        if self.first(now).is_none_or(|first| first.at != at) {
            return;
        }
        if self.first.take().is_none() {
            self.memory.pop_front();
        } else if let Ok(log) = &mut self.log
            && let Err(error) = log.pop()
        {
            self.log_failed(&error.to_string(), now);
        }
    }

    /// Samples that wait.
    pub fn waiting(&self) -> u64 {
        let in_memory: usize = self.memory.iter().map(Frame::samples).sum();
        self.log.as_ref().map_or(0, Log::waiting) + in_memory as u64
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::bytes)
    }

    /// Why nothing is on disk.
    pub fn trouble(&self) -> Option<&str> {
        self.log.as_ref().err().map(|(why, _)| why.as_str())
    }

    /// Samples that were dropped since the last question.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped) + self.log.as_mut().map_or(0, Log::take_dropped)
    }

    fn log_failed(&mut self, why: &str, now: i64) {
        tracing::warn!("{}: {why}", self.folder.display());
        self.log = Err((why.to_owned(), now));
    }
}
