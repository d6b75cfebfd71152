//! Frames of a file: one line each, `CRC-32 in 8 hex digits, space, JSON`. A line that is cut short or damaged shows as
//! such. Recordings have the same frames as the ledger.

use super::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

/// No frame is longer: a longer line is damage.
const LIMIT: u64 = 256 << 20;
/// The checksum and the space behind it.
const HEAD: usize = 9;

/// The line of a value.
pub(super) fn line<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = vec![b' '; HEAD];
    serde_json::to_writer(&mut line, value)?;
    let crc = format!("{:08x}", crc32fast::hash(&line[HEAD..]));
    line[..HEAD - 1].copy_from_slice(crc.as_bytes());
    line.push(b'\n');
    Ok(line)
}

/// Takes the JSON of the first frame from `rest`; `None`, and `rest` as it is, where that is cut short or damaged.
pub(super) fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (line, tail) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (*rest, &[][..]),
    };
    let json = json(line)?;
    *rest = tail;
    Some(json)
}

fn json(line: &[u8]) -> Option<&str> {
    let (head, json) = line.split_at_checked(HEAD)?;
    let crc = std::str::from_utf8(head.strip_suffix(b" ")?).ok()?;
    let right = crc.len() == HEAD - 1 && u32::from_str_radix(crc, 16) == Ok(crc32fast::hash(json));
    std::str::from_utf8(json).ok().filter(|_| right)
}

/// Writes one frame of a recording.
///
/// # Errors
/// Where the writer fails.
pub fn write<T: Serialize>(to: &mut impl Write, value: &T) -> Result<(), StoreError> {
    to.write_all(&line(value)?).map_err(|why| StoreError::Io { path: Path::new("recording").to_path_buf(), why })
}

/// Reads one frame of a recording; `None` at the end.
///
/// # Errors
/// Where the frame is cut short or damaged, or is not a `T`.
pub fn read<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let Some(json) = read_json(from)? else { return Ok(None) };
    serde_json::from_str(&json).map(Some).map_err(|error| damaged(&error.to_string()))
}

/// Reads the JSON of one frame; `None` at the end.
pub(crate) fn read_json(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.take(LIMIT).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_none() && json(&line).is_none() {
        return Err(damaged("cut short"));
    }
    json(&line).map(|json| Some(json.to_owned())).ok_or_else(|| damaged("damaged (checksum)"))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
