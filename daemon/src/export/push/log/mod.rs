//! The log of what could not be sent yet: frames in files of a folder, oldest first, bounded in size and age. It
//! outlives a restart. A file that is cut short by a crash ends at its last whole frame.
//!
//! The segments are `1.log`, `2.log` and so on. A frame is appended to the last one and read from the first one, which
//! is removed when all of it was read. [`segment`] is one file.

mod segment;

use super::wire::Frame;
use crate::sys::private_dir::{Access, DirError, PrivateDir};
use segment::{Segment, Stored};
use std::collections::VecDeque;
use std::io;
use std::path::Path;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A folder or file.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The system's error.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The log of one receiver.
#[derive(Debug)]
pub struct Log {
    dir: PrivateDir,
    /// Bytes of all segments.
    limit: u64,
    /// Milliseconds.
    age: i64,
    segments: VecDeque<Segment>,
    /// Samples that were dropped: they were too many or too old, or damaged on disk.
    dropped: u64,
}

impl Log {
    /// Opens the log in a folder, which is made where there is none. `limit`: bytes of all segments; `age`:
    /// milliseconds after which a frame is dropped.
    ///
    /// # Errors
    /// Where the folder or a file of it cannot be used.
    pub fn open(folder: &Path, limit: u64, age: i64) -> Result<Self, LogError> {
        let dir = PrivateDir::create(folder, 0o700, Access::Private)?;
        let mut numbers: Vec<u64> = std::fs::read_dir(dir.place("."))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let mut log = Self { dir, limit, age, segments: VecDeque::new(), dropped: 0 };
        for number in numbers {
            match Segment::open(&log.dir, number)? {
                Some(segment) => log.segments.push_back(segment),
                None => tracing::warn!(
                    "{}: not a log that this version reads: left as it is",
                    log.dir.path().join(segment::name(number)).display()
                ),
            }
        }
        log.remove_read()?;
        Ok(log)
    }

    /// Appends a frame. Drops the oldest ones where the log would be too large.
    ///
    /// # Errors
    /// Where the disk refuses; then the frame is not in the log.
    pub fn append(&mut self, frame: &Frame) -> Result<(), LogError> {
        let stored = Stored::new(frame)?;
        let most = (self.limit / 16).max(64 << 10);
        if self.segments.back().is_none_or(|last| last.end + stored.len() > most) {
            let next = self.segments.back().map_or(1, |last| last.number + 1);
            self.segments.push_back(Segment::make(&self.dir, next)?);
        }
        if let Some(last) = self.segments.back_mut() {
            last.append(&self.dir, frame, &stored)?;
        }
        while self.bytes() > self.limit && self.segments.len() > 1 {
            self.drop_first()?;
        }
        Ok(())
    }

    /// The oldest frame, without those that are too old at `now` (milliseconds since 1970); `None`: there is none.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn first(&mut self, now: i64) -> Result<Option<Frame>, LogError> {
        loop {
            let Some(first) = self.segments.front_mut() else { return Ok(None) };
            if first.newest < now - self.age && first.waiting > 0 {
                self.drop_first()?;
                continue;
            }
            match first.first(&self.dir)? {
                Some(frame) if frame.at < now - self.age => {
                    self.dropped += frame.samples() as u64;
                    first.skip(&self.dir)?;
                }
                Some(frame) => return Ok(Some(frame)),
                None if first.is_read() => return Ok(None),
                // What cannot be read any more was damaged since the start.
                None => self.drop_first()?,
            }
            self.remove_read()?;
        }
    }

    /// Forgets the oldest frame: it was sent, or is not wanted.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn pop(&mut self) -> Result<(), LogError> {
        if let Some(first) = self.segments.front_mut() {
            first.skip(&self.dir)?;
        }
        self.remove_read()
    }

    /// Samples that wait.
    pub fn waiting(&self) -> u64 {
        self.segments.iter().map(|segment| segment.waiting).sum()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// Whether samples were dropped since the last question.
    pub fn has_dropped(&self) -> bool {
        self.dropped > 0
    }

    /// Samples that were dropped since the last question.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn drop_first(&mut self) -> Result<(), LogError> {
        if let Some(first) = self.segments.pop_front() {
            self.dropped += first.waiting;
            first.remove(&self.dir)?;
        }
        Ok(())
    }

    /// Removes segments that were read; the last one is emptied.
    fn remove_read(&mut self) -> Result<(), LogError> {
        while self.segments.len() > 1 && self.segments.front().is_some_and(Segment::is_read) {
            self.drop_first()?;
        }
        match self.segments.front_mut() {
            Some(last) if last.is_read() => last.empty(&self.dir),
            _ => Ok(()),
        }
    }
}
