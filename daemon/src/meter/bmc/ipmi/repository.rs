//! Reads the records of a BMC's sensors (IPMI 2.0, section 33): those in watts, as wholes. Not what they mean (see `sdr`).
//!
//! ipmi-rs's own way through records asks for each as a whole, which BMCs behind slow interfaces refuse, and for those of the device,
//! which need not be the repository's.

use super::code::{cc, words};
use super::link::{Ask, Link, Trouble};
use super::sdr::{HEADER, Sensor, UP_TO_UNIT, is_in_watts, length};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Network function Storage.
const STORAGE: u8 = 0x0A;
/// Reserve SDR Repository.
const RESERVE: u8 = 0x22;
/// Get SDR.
const GET: u8 = 0x23;
/// The id that ends the records.
const LAST: u16 = 0xFFFF;
/// What every interface can carry at once.
const CHUNK: usize = 16;
/// A Full Sensor Record with the longest name.
const LONGEST: usize = 96;
/// No BMC needs longer for all of its records.
const PATIENCE: Duration = Duration::from_secs(60);
/// So often a record is begun anew where the BMC takes back its reservation.
const RESERVATIONS: u32 = 5;

/// The sensors in watts.
///
/// # Errors
/// The repository cannot be read.
pub fn sensors_in_watts(link: &mut dyn Link) -> Result<Vec<Sensor>, Trouble> {
    let until = Instant::now() + PATIENCE;
    let mut reader = Reader { reservation: reserve(link)?, reservations: 1, link };
    let (mut sensors, mut seen, mut id) = (Vec::new(), BTreeSet::new(), 0);
    // A record that names one before it as the next would be read for ever.
    while id != LAST && seen.insert(id) {
        if Instant::now() > until {
            return Err(Trouble::Wrong(format!("its sensor records do not end within {PATIENCE:?}")));
        }
        let (next, record) = reader.record(id)?;
        sensors.extend(Sensor::parse(&record));
        id = next;
    }
    Ok(sensors)
}

fn reserve(link: &mut dyn Link) -> Result<[u8; 2], Trouble> {
    match link.ask(&Ask::new(STORAGE, RESERVE, &[])) {
        Ok(data) => data.get(..2).and_then(|two| two.try_into().ok()).ok_or_else(|| short("reservation", &data)),
        // Without reservations, records are read as wholes and from their beginning, which needs none.
        Err(Trouble::Refused(code)) if super::code::unknown(code) => Ok([0, 0]),
        Err(trouble) => Err(trouble),
    }
}

fn short(what: &str, data: &[u8]) -> Trouble {
    Trouble::Wrong(format!("its {what} is {} bytes", data.len()))
}

struct Reader<'a> {
    link: &'a mut dyn Link,
    reservation: [u8; 2],
    reservations: u32,
}

impl Reader<'_> {
    /// A record and the id of the next one. Of a record that is not in watts, the beginning.
    fn record(&mut self, id: u16) -> Result<(u16, Vec<u8>), Trouble> {
        loop {
            match self.try_record(id) {
                Err(Trouble::Refused(cc::RESERVATION_LOST)) if self.reservations < RESERVATIONS => {
                    self.reservations += 1;
                    self.reservation = reserve(self.link)?;
                }
                other => return other,
            }
        }
    }

    fn try_record(&mut self, id: u16) -> Result<(u16, Vec<u8>), Trouble> {
        let begin = self.part(id, 0, UP_TO_UNIT);
        let (next, mut record) = match begin {
            // A record that has not so many.
            Err(Trouble::Refused(
                cc::LENGTH | cc::LENGTH_LIMIT | cc::OUT_OF_RANGE | cc::TOO_MANY_BYTES | 0xCC | 0xFF,
            )) => self.part(id, 0, HEADER)?,
            other => other?,
        };
        if record.len() < HEADER {
            return Err(short("sensor record", &record));
        }
        // What a sensor in watts needs ends before.
        let whole = length(&record).min(LONGEST);
        while record.len() < UP_TO_UNIT.min(whole) {
            self.more(id, &mut record, UP_TO_UNIT.min(whole))?;
        }
        while is_in_watts(&record) && record.len() < whole {
            self.more(id, &mut record, whole)?;
        }
        Ok((next, record))
    }

    fn more(&mut self, id: u16, record: &mut Vec<u8>, until: usize) -> Result<(), Trouble> {
        let wanted = CHUNK.min(until - record.len());
        let (_, part) = self.part(id, record.len(), wanted)?;
        if part.is_empty() || part.len() > wanted {
            return Err(Trouble::Wrong(format!(
                "{} bytes of a sensor record, where {wanted} were asked for",
                part.len()
            )));
        }
        record.extend(part);
        Ok(())
    }

    fn part(&mut self, id: u16, from: usize, count: usize) -> Result<(u16, Vec<u8>), Trouble> {
        let ([low, high], [first, second]) = (id.to_le_bytes(), self.reservation);
        let data = self.link.ask(&Ask::new(STORAGE, GET, &[first, second, low, high, from as u8, count as u8]))?;
        match data.as_slice() {
            [low, high, record @ ..] => Ok((u16::from_le_bytes([*low, *high]), record.to_vec())),
            _ => Err(short("sensor record", &data)),
        }
    }
}

/// What a repository that cannot be read means for the search.
pub fn words_for(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Refused(code) => format!("its sensor records cannot be read: it {}", words(*code)),
        other => format!("its sensor records cannot be read: {other}"),
    }
}
