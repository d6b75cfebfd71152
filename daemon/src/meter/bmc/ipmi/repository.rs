//! Reads the sensor data records of a BMC (SDR repository: IPMI 2.0, section 33): the whole records of sensors in
//! watts, the beginnings of the others. Their meaning is in `sdr`.
//!
//! ipmi-rs requests each record as a whole, which BMCs behind slow interfaces refuse, and the records of the device,
//! which may differ from the repository's.

use super::code::{cc, words};
use super::link::{Command, Link, LinkError};
use super::sdr::{HEADER, Sensor, UP_TO_UNIT, is_in_watts, length};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Network function Storage.
const STORAGE: u8 = 0x0A;
/// Reserve SDR Repository.
const RESERVE: u8 = 0x22;
/// Get SDR.
const GET: u8 = 0x23;
/// The id after the last record.
const LAST: u16 = 0xFFFF;
/// Bytes that every interface can carry in one response.
const CHUNK: usize = 16;
/// Enough bytes for a Full Sensor Record with the longest name.
const LONGEST: usize = 96;
/// Longest time for reading all records.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most reservations: a record is read again when the BMC cancels its reservation.
const RESERVATIONS: u32 = 5;

/// The sensors in watts.
///
/// # Errors
/// The repository cannot be read.
pub fn sensors_in_watts(link: &mut dyn Link) -> Result<Vec<Sensor>, LinkError> {
    let until = Instant::now() + PATIENCE;
    let mut reader = Reader { reservation: reserve(link)?, reservations: 1, link };
    let (mut sensors, mut seen, mut id) = (Vec::new(), BTreeSet::new(), 0);
    // Records whose next ids form a loop are read once.
    while id != LAST && seen.insert(id) {
        if Instant::now() > until {
            return Err(LinkError::Wrong(format!("its sensor records do not end within {PATIENCE:?}")));
        }
        let (next, record) = reader.record(id)?;
        sensors.extend(Sensor::parse(&record));
        id = next;
    }
    Ok(sensors)
}

fn reserve(link: &mut dyn Link) -> Result<[u8; 2], LinkError> {
    match link.execute(&Command::new(STORAGE, RESERVE, &[])) {
        Ok(data) => data.get(..2).and_then(|two| two.try_into().ok()).ok_or_else(|| short("reservation", &data)),
        // A BMC without reservations: reading from a record's beginning needs none.
        Err(LinkError::Refused(code)) if super::code::unknown(code) => Ok([0, 0]),
        Err(error) => Err(error),
    }
}

fn short(what: &str, data: &[u8]) -> LinkError {
    LinkError::Wrong(format!("its {what} is {} bytes", data.len()))
}

struct Reader<'a> {
    link: &'a mut dyn Link,
    reservation: [u8; 2],
    reservations: u32,
}

impl Reader<'_> {
    /// A record and the id of the next one. Only the beginning of a record that is not in watts.
    fn record(&mut self, id: u16) -> Result<(u16, Vec<u8>), LinkError> {
        loop {
            match self.try_record(id) {
                Err(LinkError::Refused(cc::RESERVATION_LOST)) if self.reservations < RESERVATIONS => {
                    self.reservations += 1;
                    self.reservation = reserve(self.link)?;
                }
                other => return other,
            }
        }
    }

    fn try_record(&mut self, id: u16) -> Result<(u16, Vec<u8>), LinkError> {
        let begin = self.part(id, 0, UP_TO_UNIT);
        let (next, mut record) = match begin {
            // The record is shorter.
            Err(LinkError::Refused(
                cc::LENGTH | cc::LENGTH_LIMIT | cc::OUT_OF_RANGE | cc::TOO_MANY_BYTES | 0xCC | 0xFF,
            )) => self.part(id, 0, HEADER)?,
            other => other?,
        };
        if record.len() < HEADER {
            return Err(short("sensor record", &record));
        }
        // The fields of a sensor in watts end before LONGEST.
        let whole = length(&record).min(LONGEST);
        while record.len() < UP_TO_UNIT.min(whole) {
            self.more(id, &mut record, UP_TO_UNIT.min(whole))?;
        }
        while is_in_watts(&record) && record.len() < whole {
            self.more(id, &mut record, whole)?;
        }
        Ok((next, record))
    }

    fn more(&mut self, id: u16, record: &mut Vec<u8>, until: usize) -> Result<(), LinkError> {
        let wanted = CHUNK.min(until - record.len());
        let (_, part) = self.part(id, record.len(), wanted)?;
        if part.is_empty() || part.len() > wanted {
            return Err(LinkError::Wrong(format!(
                "{} bytes of a sensor record, where {wanted} were asked for",
                part.len()
            )));
        }
        record.extend(part);
        Ok(())
    }

    fn part(&mut self, id: u16, from: usize, count: usize) -> Result<(u16, Vec<u8>), LinkError> {
        let ([low, high], [first, second]) = (id.to_le_bytes(), self.reservation);
        let data =
            self.link.execute(&Command::new(STORAGE, GET, &[first, second, low, high, from as u8, count as u8]))?;
        match data.as_slice() {
            [low, high, record @ ..] => Ok((u16::from_le_bytes([*low, *high]), record.to_vec())),
            _ => Err(short("sensor record", &data)),
        }
    }
}

/// Text for a repository that cannot be read.
pub fn cannot_read_text(error: &LinkError) -> String {
    match error {
        LinkError::Refused(code) => format!("its sensor records cannot be read: it {}", words(*code)),
        other => format!("its sensor records cannot be read: {other}"),
    }
}
