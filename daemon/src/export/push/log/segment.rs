//! One file of the log. Its first line is `jouled push log 1 POSITION`, where POSITION has 20 digits: the offset of the
//! first frame that was not sent yet, written in place. Frames follow: length (4 bytes) and CRC-32 (4 bytes) of the
//! rest, its time (8 bytes, milliseconds since 1970), its number of samples (4 bytes), and a request of remote write
//! 2.0, compressed with snappy. Numbers are little-endian.

use super::LogError;
use crate::export::push::wire::Frame;
use crate::sys::private_dir::PrivateDir;
use prost::Message as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const HEAD: &str = "jouled push log 1 ";
const DIGITS: usize = 20;
/// Where the first frame is.
const BEGIN: u64 = (HEAD.len() + DIGITS + 1) as u64;
/// Length and checksum.
const BEFORE: usize = 8;
/// Time and number of samples.
const ABOUT: usize = 12;
/// A longer frame is damage, in bytes.
const FRAME_MAX: u32 = 16 << 20;

/// The name of a segment.
pub fn name(number: u64) -> String {
    format!("{number}.log")
}

/// A frame as it is stored.
pub struct Stored(Vec<u8>);

impl Stored {
    /// # Errors
    /// Where it cannot be compressed.
    pub fn new(frame: &Frame) -> Result<Self, LogError> {
        let payload = snap::raw::Encoder::new()
            .compress_vec(&frame.request.encode_to_vec())
            .map_err(|why| LogError::Io(io::Error::other(why)))?;
        let mut rest = frame.at.to_le_bytes().to_vec();
        rest.extend((frame.samples() as u32).to_le_bytes());
        rest.extend(payload);
        let mut bytes = (rest.len() as u32).to_le_bytes().to_vec();
        bytes.extend(crc32fast::hash(&rest).to_le_bytes());
        bytes.extend(rest);
        Ok(Self(bytes))
    }

    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// A frame as it was found.
struct Found {
    /// Where the next one is.
    next: u64,
    at: i64,
    samples: u32,
    payload: Vec<u8>,
}

/// One file of the log.
#[derive(Debug)]
pub struct Segment {
    pub number: u64,
    /// Where the first frame is that was not read.
    read: u64,
    /// Where the last frame ends: the length of the file.
    pub end: u64,
    /// Samples that were not read.
    pub waiting: u64,
    /// Time of its last frame, milliseconds since 1970.
    pub newest: i64,
}

impl Segment {
    /// A new file.
    pub fn make(dir: &PrivateDir, number: u64) -> Result<Self, LogError> {
        // One that could not be read may have this name.
        let number = (number..).find(|number| dir.id_of(&name(*number)).is_none()).unwrap_or(number);
        let file = dir.new_file(&name(number))?;
        let segment = Self { number, read: BEGIN, end: BEGIN, waiting: 0, newest: 0 };
        file.write_all_at(head(BEGIN).as_bytes(), 0)?;
        Ok(segment)
    }

    /// Opens a file. From a frame on that is cut short or damaged, it is cut off: how many samples that were is not
    /// known. `None`: another version wrote it.
    pub fn open(dir: &PrivateDir, number: u64) -> Result<Option<Self>, LogError> {
        let file = dir.read_write(&name(number))?;
        let length = file.metadata()?.len();
        let mut line = vec![0; BEGIN as usize];
        let head_is_whole = length >= BEGIN;
        if head_is_whole {
            file.read_exact_at(&mut line, 0)?;
        }
        let line = String::from_utf8_lossy(&line);
        if head_is_whole && !line.starts_with(HEAD) {
            return Ok(None);
        }
        let mut segment = Self { number, read: BEGIN, end: BEGIN, waiting: 0, newest: 0 };
        if !head_is_whole {
            file.set_len(0)?;
            file.write_all_at(head(BEGIN).as_bytes(), 0)?;
            return Ok(Some(segment));
        }
        let position: Option<u64> = line.get(HEAD.len()..HEAD.len() + DIGITS).and_then(|digits| digits.parse().ok());
        let mut is_position = position == Some(BEGIN);
        let (mut all, mut read) = (0, 0);
        while let Some(found) = find(&file, segment.end, length)? {
            all += u64::from(found.samples);
            segment.end = found.next;
            segment.newest = found.at;
            if position == Some(segment.end) {
                (is_position, read) = (true, all);
            }
        }
        match position.filter(|_| is_position) {
            Some(position) => segment.read = position,
            None => file.write_all_at(head(BEGIN).as_bytes(), 0)?,
        }
        segment.waiting = all - if is_position { read } else { 0 };
        if segment.end < length {
            tracing::warn!(
                "{}: {} bytes at its end are cut short or damaged: removed",
                dir.path().join(name(number)).display(),
                length - segment.end
            );
            file.set_len(segment.end)?;
        }
        Ok(Some(segment))
    }

    /// Appends a frame.
    pub fn append(&mut self, dir: &PrivateDir, frame: &Frame, stored: &Stored) -> Result<(), LogError> {
        let file = dir.read_write(&name(self.number))?;
        if let Err(why) = file.write_all_at(&stored.0, self.end) {
            // A part of it would be damage in the middle.
            let _ = file.set_len(self.end);
            return Err(why.into());
        }
        self.end += stored.len();
        self.waiting += frame.samples() as u64;
        self.newest = frame.at;
        Ok(())
    }

    /// The first frame that was not read; `None`: there is none, or it is damaged.
    pub fn first(&self, dir: &PrivateDir) -> Result<Option<Frame>, LogError> {
        if self.is_read() {
            return Ok(None);
        }
        let file = dir.read_write(&name(self.number))?;
        let Some(found) = find(&file, self.read, self.end)? else { return Ok(None) };
        let bytes = snap::raw::Decoder::new().decompress_vec(&found.payload).ok();
        Ok(bytes.and_then(|bytes| Frame::decode(found.at, &bytes)))
    }

    /// Passes the first frame.
    pub fn skip(&mut self, dir: &PrivateDir) -> Result<(), LogError> {
        if self.is_read() {
            return Ok(());
        }
        let file = dir.read_write(&name(self.number))?;
        let Some(found) = find(&file, self.read, self.end)? else { return Ok(()) };
        self.read = found.next;
        self.waiting = self.waiting.saturating_sub(u64::from(found.samples));
        Ok(file.write_all_at(head(self.read).as_bytes(), 0)?)
    }

    /// Whether all of it was read.
    pub fn is_read(&self) -> bool {
        self.read >= self.end
    }

    /// Removes what was read.
    pub fn empty(&mut self, dir: &PrivateDir) -> Result<(), LogError> {
        if self.end == BEGIN {
            return Ok(());
        }
        let file = dir.read_write(&name(self.number))?;
        // In this order: a position beyond the end is that of an empty file, and the other way round all would be sent
        // once more.
        file.set_len(BEGIN)?;
        file.write_all_at(head(BEGIN).as_bytes(), 0)?;
        (self.read, self.end, self.waiting) = (BEGIN, BEGIN, 0);
        Ok(())
    }

    /// Removes the file.
    pub fn remove(self, dir: &PrivateDir) -> Result<(), LogError> {
        Ok(dir.remove(&name(self.number))?)
    }
}

fn head(position: u64) -> String {
    format!("{HEAD}{position:0DIGITS$}\n")
}

/// The frame at an offset; `None` where there is none, or it is cut short or damaged.
fn find(file: &File, from: u64, end: u64) -> Result<Option<Found>, LogError> {
    let mut before = [0; BEFORE];
    if from + (BEFORE + ABOUT) as u64 > end {
        return Ok(None);
    }
    file.read_exact_at(&mut before, from)?;
    let [a, b, c, d, e, f, g, h] = before;
    let (length, crc) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    let next = from + BEFORE as u64 + u64::from(length);
    if length < ABOUT as u32 || length > FRAME_MAX || next > end {
        return Ok(None);
    }
    let mut rest = vec![0; length as usize];
    file.read_exact_at(&mut rest, from + BEFORE as u64)?;
    if crc32fast::hash(&rest) != crc {
        return Ok(None);
    }
    let payload = rest.split_off(ABOUT);
    let Some((Ok(at), Ok(samples))) = rest.split_at_checked(8).map(|(at, samples)| (at.try_into(), samples.try_into()))
    else {
        return Ok(None);
    };
    let (at, samples) = (i64::from_le_bytes(at), u32::from_le_bytes(samples));
    Ok(Some(Found { next, at, samples, payload }))
}
