//! The bytes of an interval in the database: a version, a header in JSON with names, then numbers of variable length.
//! Nothing in them depends on the order of zones or kinds in the code.

use super::slot::{AmountPart, KindPart, SeriesId, Slot, Spans, Values, ZonePart};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// First byte.
const VERSION: u8 = 2;
/// The same without carbon and cost, as versions of jouled before these wrote it.
const WITHOUT_AMOUNTS: u8 = 1;
/// Most zones and amounts of an interval together: each has two columns, and a row has a bit for each column.
const ZONES_MAX: usize = 32;
const CUT: DecodeError = DecodeError::Damaged("it ends too early");

/// Why bytes are no interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a later version of jouled.
    #[error("its format is number {0}, and this version of jouled knows number {VERSION}")]
    Version(u8),
    /// Cut short or damaged.
    #[error("it is damaged ({0})")]
    Damaged(&'static str),
}

/// What comes before the numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// As [`Slot::from`].
    pub from: i64,
    /// As [`Slot::until`].
    pub until: i64,
    /// As [`Slot::observed_ms`].
    pub observed_ms: u64,
    /// As [`Slot::quality_ms`].
    #[serde(default, skip_serializing_if = "Spans::is_empty")]
    pub quality_ms: Spans,
    /// As [`Slot::zones`].
    pub zones: Vec<ZonePart>,
    /// As [`Slot::amounts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amounts: Vec<AmountPart>,
    kinds: Vec<KindHeader>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KindHeader {
    name: String,
    rows: usize,
    /// Length of its numbers.
    bytes: usize,
}

/// The bytes of an interval.
pub fn encode(slot: &Slot) -> Vec<u8> {
    let (mut numbers, mut kinds) = (Vec::new(), Vec::new());
    let rates = Slot::rates(&slot.zones, &slot.amounts);
    // Of amounts, what the factors do not say.
    let columns = |row: &Values, amounts: Option<&Values>| {
        let mut values = row.clone();
        if !rates.is_empty() {
            values.resize(slot.zones.len() * 2, 0);
            let expected = Slot::expected(&slot.zones, &rates, row);
            let amount = |at: usize| amounts.and_then(|amounts| amounts.get(at)).copied().unwrap_or_default();
            values.extend(expected.iter().enumerate().map(|(at, expected)| amount(at).wrapping_sub(*expected)));
        }
        values
    };
    for (name, part) in &slot.kinds {
        let begin = numbers.len();
        put_values(&mut numbers, &columns(&part.rest, Some(&part.amounts_rest)));
        let mut before: SeriesId = 0;
        for (id, row) in &part.rows {
            put(&mut numbers, id - before);
            before = *id;
            put_values(&mut numbers, &columns(row, part.amounts.get(id)));
        }
        kinds.push(KindHeader { name: name.clone(), rows: part.rows.len(), bytes: numbers.len() - begin });
    }
    let (from, until, observed_ms, quality_ms) = (slot.from, slot.until, slot.observed_ms, slot.quality_ms);
    let (zones, amounts) = (slot.zones.clone(), slot.amounts.clone());
    let version = if amounts.is_empty() { WITHOUT_AMOUNTS } else { VERSION };
    let header = Header { from, until, observed_ms, quality_ms, zones, amounts, kinds };
    // Names and numbers always have a form in JSON.
    let header = serde_json::to_vec(&header).unwrap_or_default();
    let mut out = vec![version];
    put(&mut out, header.len() as u64);
    out.extend(header);
    out.extend(numbers);
    out
}

/// An interval of which only the header is read yet.
#[derive(Clone, Debug)]
pub struct Encoded<'a> {
    /// What comes before the numbers.
    pub header: Header,
    numbers: &'a [u8],
}

/// One line of numbers of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// What a series gained.
    Series(SeriesId),
    /// What entities without a row gained.
    Rest,
}

impl<'a> Encoded<'a> {
    /// Reads the header of what [`encode`] wrote.
    ///
    /// # Errors
    /// Where the bytes are of a later version, cut short or damaged.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (version, mut rest) = bytes.split_first().ok_or(DecodeError::Damaged("it is empty"))?;
        if ![WITHOUT_AMOUNTS, VERSION].contains(version) {
            return Err(DecodeError::Version(*version));
        }
        let length = usize::try_from(take(&mut rest)?).map_err(|_| CUT)?;
        let (header, numbers) = rest.split_at_checked(length).ok_or(CUT)?;
        let header: Header =
            serde_json::from_slice(header).map_err(|_| DecodeError::Damaged("its header is no JSON"))?;
        if header.zones.len() + header.amounts.len() > ZONES_MAX {
            return Err(DecodeError::Damaged("it has too many zones"));
        }
        let length = header.kinds.iter().try_fold(0_usize, |sum, kind| sum.checked_add(kind.bytes));
        match length.ok_or(CUT)?.cmp(&numbers.len()) {
            Ordering::Less => Err(DecodeError::Damaged("something follows its end")),
            Ordering::Equal => Ok(Self { header, numbers }),
            Ordering::Greater => Err(CUT),
        }
    }

    /// Reads the numbers of the kinds that `wanted` accepts: their name, and each line with its values by column: two
    /// for each zone, then two for each of the header's amounts.
    ///
    /// # Errors
    /// Where they are damaged.
    pub fn lines(
        &self,
        wanted: impl Fn(&str) -> bool,
        mut each: impl FnMut(&str, Line, &[i64]),
    ) -> Result<(), DecodeError> {
        let (zones, amounts) = (&self.header.zones, &self.header.amounts);
        let (rates, energies) = (Slot::rates(zones, amounts), zones.len() * 2);
        let mut values = vec![0; energies + amounts.len() * 2];
        let take_values = |part: &mut &[u8], values: &mut [i64]| -> Result<(), DecodeError> {
            take_values(part, values)?;
            if !rates.is_empty() {
                let expected = Slot::expected(zones, &rates, &values[..energies]);
                values[energies..].iter_mut().zip(expected).for_each(|(value, it)| *value = value.wrapping_add(it));
            }
            Ok(())
        };
        let mut numbers = self.numbers;
        for kind in &self.header.kinds {
            let (mut part, after) = numbers.split_at_checked(kind.bytes).ok_or(CUT)?;
            numbers = after;
            if !wanted(&kind.name) {
                continue;
            }
            take_values(&mut part, &mut values)?;
            each(&kind.name, Line::Rest, &values);
            let mut id: SeriesId = 0;
            for _ in 0..kind.rows {
                id = id.checked_add(take(&mut part)?).ok_or(DecodeError::Damaged("a series has no such number"))?;
                take_values(&mut part, &mut values)?;
                each(&kind.name, Line::Series(id), &values);
            }
            if !part.is_empty() {
                return Err(DecodeError::Damaged("a kind has more numbers than rows"));
            }
        }
        Ok(())
    }
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// Where the bytes are of a later version, cut short or damaged.
pub fn decode(bytes: &[u8]) -> Result<Slot, DecodeError> {
    let encoded = Encoded::parse(bytes)?;
    let mut kinds: BTreeMap<String, KindPart> = BTreeMap::new();
    let energies = encoded.header.zones.len() * 2;
    encoded.lines(
        |_| true,
        |kind, line, values| {
            let (energy, amounts) = values.split_at(energies);
            let part = kinds.entry(kind.to_owned()).or_default();
            match line {
                Line::Rest => (part.rest, part.amounts_rest) = (energy.to_vec(), amounts.to_vec()),
                Line::Series(id) => {
                    part.rows.insert(id, energy.to_vec());
                    if !amounts.is_empty() {
                        part.amounts.insert(id, amounts.to_vec());
                    }
                }
            }
        },
    )?;
    let Header { from, until, observed_ms, quality_ms, zones, amounts, .. } = encoded.header;
    Ok(Slot { from, until, observed_ms, quality_ms, zones, kinds, amounts })
}

/// LEB128: seven bits a byte, the lowest first.
fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(CUT)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Damaged("a number is too long"))
}

/// A bit for each column that is not 0, then these columns; negative numbers as zigzag.
fn put_values(out: &mut Vec<u8>, values: &Values) {
    let used = values.iter().enumerate().filter(|(_, value)| **value != 0);
    put(out, used.clone().fold(0, |mask, (column, _)| mask | 1_u64 << column));
    for (_, value) in used {
        put(out, (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
    }
}

fn take_values(bytes: &mut &[u8], values: &mut [i64]) -> Result<(), DecodeError> {
    let (mask, columns) = (take(bytes)?, values.len());
    if columns < 64 && mask >> columns != 0 {
        return Err(DecodeError::Damaged("it has numbers of zones that it lacks"));
    }
    for (column, value) in values.iter_mut().enumerate() {
        *value = 0;
        if mask >> column & 1 == 1 {
            let zigzag = take(bytes)?;
            *value = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::domain::NodeEnergy;
    use crate::model::units::Microjoules;
    use proptest::prelude::*;

    fn slots() -> impl Strategy<Value = Slot> {
        let value = prop_oneof![Just(0_i64), any::<i64>(), 0..1_000_000_i64];
        let counts = (0..6_usize, 0..3_usize);
        counts.prop_flat_map(move |(zones, amounts)| {
            let values = prop::collection::vec(value.clone(), (zones + amounts) * 2);
            let rows = prop::collection::btree_map(any::<u64>(), values.clone(), 0..20);
            let part = (rows, values).prop_map(move |(rows, rest)| {
                let split = |values: &Values| (values[..zones * 2].to_vec(), values[zones * 2..].to_vec());
                let (rest, amounts_rest) = split(&rest);
                let mut part = KindPart { rest, amounts_rest, ..KindPart::default() };
                for (id, values) in rows {
                    let (row, of_row) = split(&values);
                    part.rows.insert(id, row);
                    if amounts > 0 {
                        part.amounts.insert(id, of_row);
                    }
                }
                part
            });
            let kinds = prop::collection::btree_map("[a-z]{1,8}", part, 0..4);
            (any::<i64>(), any::<u64>(), kinds).prop_map(move |(from, number, kinds)| {
                let zone = |at: usize| ZonePart {
                    zone: format!("zone{at}"),
                    billed: at.is_multiple_of(2),
                    energy: NodeEnergy { total: Microjoules(number), ..NodeEnergy::default() },
                    measured: number,
                    ..ZonePart::default()
                };
                let zones = (0..zones).map(zone).collect();
                let quality_ms = Spans { of: number, estimated: number / 3, ..Spans::default() };
                let amount = |at: usize| AmountPart {
                    measure: format!("measure{at}"),
                    uniform: at.is_multiple_of(2).then_some(from / 1000),
                    active: from / 2,
                    ..AmountPart::default()
                };
                let amounts = (0..amounts).map(amount).collect();
                Slot { zones, kinds, amounts, observed_ms: number, quality_ms, ..Slot::empty(from, from) }
            })
        })
    }

    proptest! {
        #[test]
        fn an_interval_comes_back_as_it_was(slot in slots()) {
            prop_assert_eq!(decode(&encode(&slot)), Ok(slot));
        }

        #[test]
        fn damaged_bytes_are_an_error(slot in slots(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&slot);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn later_versions_are_named() {
        assert_eq!(decode(&[9, 0]), Err(DecodeError::Version(9)));
    }

    /// As the version of jouled before carbon and cost wrote it.
    #[test]
    fn intervals_of_before_are_read() {
        let text = include_str!("../../../tests/integration/fixtures/unreleased/history-interval-1.hex");
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
        assert_eq!(bytes[0], WITHOUT_AMOUNTS);
        let slot = decode(&bytes).unwrap();
        assert_eq!((slot.zones[0].zone.as_str(), slot.zones[0].energy.total.0), ("package", 400));
        assert_eq!((&slot.kinds["unit"].rows[&7], &slot.kinds["unit"].rest), (&vec![300, 0], &vec![-3, 2]));
        assert_eq!(encode(&slot), bytes, "without amounts, earlier versions can read what this one writes");
    }

    #[test]
    fn uniform_factors_cost_no_byte_in_rows() {
        let mut slot = Slot::empty(0, 3600);
        for zone in ["package", "dram"] {
            slot.zone_index(zone, true);
        }
        let row = |id: u64| (id, vec![36_000_000 + id as i64 * 777, 0, 4_000_000, 0]);
        slot.kinds.insert("unit".into(), KindPart { rows: (0..1000).map(row).collect(), ..KindPart::default() });
        let before = encode(&slot).len();
        for (measure, rate) in [("co2e_location", 342_123_456), ("cost", -300_001)] {
            let uniform = Some(rate);
            slot.amounts.push(AmountPart { measure: measure.into(), uniform, ..AmountPart::default() });
        }
        slot.apply_uniform();
        let after = encode(&slot).len();
        assert!(after < before + 600, "{before} {after}");
        slot.kinds.get_mut("unit").unwrap().amounts_rest.resize(4, 0);
        slot.kinds.get_mut("unit").unwrap().rest.resize(4, 0);
        assert_eq!(decode(&encode(&slot)), Ok(slot));
    }

    #[test]
    fn intervals_of_earlier_versions_have_no_times_of_quality() {
        let mut slot = Slot::empty(60, 120);
        slot.zone_index("package", true);
        let bytes = encode(&slot);
        assert!(!bytes.windows(10).any(|word| word == b"quality_ms"), "as they wrote it: {bytes:?}");
        assert_eq!(decode(&bytes), Ok(slot));
    }

    #[test]
    fn a_row_is_small() {
        let mut slot = Slot::empty(0, 3600);
        ["package", "dram", "other"].iter().for_each(|zone| {
            slot.zone_index(zone, true);
        });
        let header = encode(&slot).len();
        let rows = (0..1000).map(|id| (id, vec![36_000_000 + id as i64 * 777, 0, 4_000_000, 0, 0, 0])).collect();
        slot.kinds.insert("unit".into(), KindPart { rows, rest: vec![0; 6], ..KindPart::default() });
        let each = (encode(&slot).len() - header) / 1000;
        assert!(each <= 10, "{each} bytes for a series with energy in two zones");
    }
}
