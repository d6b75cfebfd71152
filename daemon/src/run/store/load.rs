//! Reads the files of the store: which of them counts, and what becomes of one that cannot be used.

use super::format::{Carried, Reader};
use super::place::Place;
use super::{StoreError, frames, legacy};
use crate::attribution::{DomainRecord, State};
use crate::sys::safe_text;
use std::io::Read;
use std::path::PathBuf;

/// The first line of a file: the format that is written.
pub(super) const MAGIC: &[u8] = b"jouled ledger 3\n";
const BEFORE_NUMBER: &[u8] = b"jouled ledger ";
/// The present format, and the one before it.
const TEXT: u32 = 3;
const POSTCARD: u32 = 2;
/// Most names of unknown records in a line of the log, and most characters of each: there may be thousands.
const NAMES: usize = 8;
const LONGEST_NAME: usize = 160;

/// What was kept.
#[derive(Default)]
pub(super) struct Kept {
    pub generation: u64,
    pub machine: String,
    pub state: State,
    pub carried: Carried,
}

struct Candidate<'a> {
    place: &'a mut Place,
    path: PathBuf,
    generation: u64,
    reader: Reader,
    /// Written on another machine than this one.
    foreign: bool,
}

/// The newest of the files at `places`. One of another machine counts only where this machine has none of its own.
pub(super) fn newest(places: [&mut Place; 2], machine: &str, notes: &mut Vec<String>) -> Result<Kept, StoreError> {
    let mut found = Vec::new();
    for place in places {
        if let Some((generation, reader)) = load(place, notes)? {
            let foreign = !machine.is_empty() && !reader.machine.is_empty() && reader.machine != machine;
            found.push(Candidate { path: place.file_path(), place, generation, reader, foreign });
        }
    }
    if found.iter().any(|one| !one.foreign) {
        let (own, foreign) = found.into_iter().partition(|one| !one.foreign);
        found = own;
        for Candidate { path, place, .. } in foreign {
            let aside = place.set_aside("other-machine".into());
            notes.push(format!(
                "{}: written on another machine, and this one has totals of its own: {aside}; its totals are not \
                 taken over",
                path.display()
            ));
        }
    }
    let newest = found.iter().enumerate().max_by_key(|(_, one)| one.generation).map(|(number, _)| number);
    let Some(Candidate { path, generation, reader, foreign, .. }) = newest.map(|number| found.swap_remove(number))
    else {
        return Ok(Kept::default());
    };
    if foreign {
        notes.push(format!(
            "{}: written on another machine: its totals are taken over; to begin at zero, stop jouled and remove the \
             file",
            path.display()
        ));
    }
    let machine = reader.machine.clone();
    let (mut state, carried) = reader.end();
    // Power models are in whole states only. A checkpoint has newer ones than a journal that began hours ago.
    for other in found.into_iter().filter(|other| other.foreign == foreign) {
        for record in other.reader.end().0.domains {
            let taught = |record: &DomainRecord| record.learned.as_ref().map(|learned| learned.taught());
            if let Some(kept) = state.domains.iter_mut().find(|kept| kept.domain.id == record.domain.id)
                && taught(kept) < taught(&record)
            {
                kept.learned = record.learned;
            }
        }
    }
    if !carried.is_empty() {
        let name = |name: &String| safe_text::safe(&name.chars().take(LONGEST_NAME).collect::<String>());
        let names: Vec<_> = carried.names.iter().take(NAMES).map(name).collect();
        let more = if carried.names.len() > NAMES { ", …" } else { "" };
        notes.push(format!(
            "{}: {} record(s) are not known to this version of jouled ({}{more}): they are kept in the file, and not \
             shown",
            path.display(),
            carried.len(),
            names.join(", ")
        ));
    }
    Ok(Kept { generation, machine, state, carried })
}

/// Reads a file; `None` where there is none. One that is damaged from the start, cannot be read, or is in a format that
/// is not known, is set aside.
fn load(place: &mut Place, notes: &mut Vec<String>) -> Result<Option<(u64, Reader)>, StoreError> {
    let Some(dir) = place.dir() else { return Ok(None) };
    let (mut bytes, path) = (Vec::new(), place.file_path());
    let Some(mut file) = dir.read(place.file())? else { return Ok(None) };
    if let Err(error) = file.read_to_end(&mut bytes) {
        notes.push(format!("{}: cannot be read: {error}; its totals are not taken over", path.display()));
        // When a file can be written again: until then somebody may look at it.
        place.set_aside_later("unreadable".into());
        return Ok(None);
    }
    let (number, mut rest) = format_of(&bytes).unwrap_or_default();
    if number != 0 && number != TEXT && number != POSTCARD {
        let aside = place.set_aside(format!("format-{number}"));
        notes.push(format!(
            "{}: in format {number} of {} version of jouled, which this one cannot read: {aside}; its totals are not \
             taken over",
            path.display(),
            if number > TEXT { "a newer" } else { "an older" }
        ));
        return Ok(None);
    }
    let next = |rest: &mut &'_ [u8], whole: bool| match (number, whole) {
        (TEXT, _) => frames::take(rest).map(str::to_owned),
        (_, true) => legacy::whole(rest),
        (_, false) => legacy::change(rest),
    };
    let reader = next(&mut rest, true).and_then(|whole| Reader::begin(&whole));
    let Some((mut generation, mut reader)) = reader.and_then(|reader| Some((reader.generation?, reader))) else {
        let aside = place.set_aside("damaged".into());
        notes.push(format!("{}: damaged; {aside}; its totals are not taken over", path.display()));
        return Ok(None);
    };
    while !rest.is_empty() {
        let before = rest;
        if next(&mut rest, false).and_then(|json| reader.change(&json)).is_none() {
            notes.push(format!(
                "{}: the last {} bytes are cut short or damaged and were left out",
                path.display(),
                before.len()
            ));
            break;
        }
        generation += 1;
    }
    Ok(Some((generation, reader)))
}

/// The number of the format that a file is in, and what comes behind its first line.
fn format_of(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let end = bytes.iter().take(64).position(|byte| *byte == b'\n')?;
    let number = std::str::from_utf8(bytes[..end].strip_prefix(BEFORE_NUMBER)?).ok()?;
    Some((number.parse().ok().filter(|number| *number > 0)?, &bytes[end + 1..]))
}
