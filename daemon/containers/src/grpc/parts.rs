//! Finds the parts of a gRPC answer in a stream of bytes: whole messages, or the elements of the repeated field 1 of
//! each message, as a list has them. Holds one part at a time, so that a message of any length needs no memory.
//!
//! Formats: gRPC over HTTP/2 ("Length-Prefixed-Message": a flag, four bytes of length, the message) and Protocol
//! Buffers (a tag of field number and wire type before each field).

use crate::objects::OBJECT_MAX;

/// Bytes before each message.
const PREFIX: usize = 5;
/// Longest number in Protocol Buffers, in bytes.
const VARINT_MAX: usize = 10;

/// Which parts are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Whole messages.
    Messages,
    /// Each element of field 1 of each message; other fields are skipped.
    Elements,
}

/// The parts of one answer, as far as it has come.
#[derive(Debug)]
pub struct Parts {
    take: Take,
    buffer: Vec<u8>,
    /// Bytes of a skipped field that are still to come.
    skip: u64,
    /// Bytes of the message that were not taken yet, without `skip`; `None`: between two messages.
    left: Option<u64>,
}

impl Parts {
    /// Nothing has come.
    pub fn new(take: Take) -> Self {
        Self { take, buffer: Vec::new(), skip: 0, left: None }
    }

    /// Takes the next bytes, and calls `each` for each part that ends in them.
    ///
    /// # Errors
    /// Where a part is longer than [`OBJECT_MAX`], or the bytes are no such messages.
    pub fn add(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), String> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        self.buffer.extend_from_slice(&bytes[skipped..]);
        let mut at = 0;
        while let Some(taken) = self.step(at, &mut each)? {
            at += taken;
        }
        self.buffer.drain(..at);
        self.buffer.shrink_to(64 << 10);
        Ok(())
    }

    /// Whether no message is begun.
    pub fn is_whole(&self) -> bool {
        self.left.is_none() && self.skip == 0 && self.buffer.is_empty()
    }

    /// Takes what comes next at `at`. Returns its length; `None`: it is not complete.
    fn step(&mut self, at: usize, each: &mut impl FnMut(&[u8])) -> Result<Option<usize>, String> {
        let rest = &self.buffer[at..];
        if self.skip > 0 {
            return Ok(None);
        }
        let Some(left) = self.left else {
            let &[flag, a, b, c, d, ..] = rest else { return Ok(None) };
            if flag != 0 {
                return Err("it sends a compressed message, for which it was not asked".to_owned());
            }
            self.left = Some(u32::from_be_bytes([a, b, c, d]).into()).filter(|length| *length > 0);
            return Ok(Some(PREFIX));
        };
        if self.take == Take::Messages {
            let length = bounded(left)?;
            let Some(message) = rest.get(..length) else { return Ok(None) };
            each(message);
            self.left = None;
            return Ok(Some(length));
        }
        let Some((tag, mut head)) = varint(rest)? else { return Ok(None) };
        let mut length = 0;
        match tag & 7 {
            0 => match varint(&rest[head..])? {
                Some((_, more)) => head += more,
                None => return Ok(None),
            },
            1 => length = 8,
            5 => length = 4,
            2 => match varint(&rest[head..])? {
                Some((of_field, more)) => {
                    head += more;
                    length = of_field;
                }
                None => return Ok(None),
            },
            _ => return Err(NO_PROTOBUF.to_owned()),
        }
        let whole = length.saturating_add(head as u64);
        if tag >> 3 == 0 || whole > left {
            return Err(NO_PROTOBUF.to_owned());
        }
        let taken = if tag == (1 << 3 | 2) {
            let end = head + bounded(length)?;
            let Some(element) = rest.get(head..end) else { return Ok(None) };
            each(element);
            end
        } else {
            let here = whole.min(rest.len() as u64);
            self.skip = whole - here;
            usize::try_from(here).unwrap_or_default()
        };
        self.left = Some(left - whole).filter(|left| *left > 0);
        Ok(Some(taken))
    }
}

const NO_PROTOBUF: &str = "what it sends is no message of Protocol Buffers";

fn bounded(length: u64) -> Result<usize, String> {
    let is_short = |length: &usize| *length <= OBJECT_MAX;
    let long = || format!("it sends a message of more than {OBJECT_MAX} bytes");
    usize::try_from(length).ok().filter(is_short).ok_or_else(long)
}

/// The number at the beginning, and its length in bytes; `None`: it is not complete.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, String> {
    let mut number = 0;
    for (place, byte) in bytes.iter().take(VARINT_MAX).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((number, place + 1)));
        }
    }
    if bytes.len() >= VARINT_MAX { Err(NO_PROTOBUF.to_owned()) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[u8]) -> Vec<u8> {
        let length = u32::try_from(fields.len()).unwrap().to_be_bytes();
        [&[0], &length[..], fields].concat()
    }

    fn parts(take: Take, bytes: &[u8], step: usize) -> Result<(Vec<String>, bool), String> {
        let (mut parts, mut found) = (Parts::new(take), Vec::new());
        for bytes in bytes.chunks(step) {
            parts.add(bytes, |part| found.push(String::from_utf8_lossy(part).into_owned()))?;
        }
        Ok((found, parts.is_whole()))
    }

    #[test]
    fn elements_are_found_wherever_the_bytes_are_cut() {
        // Fields: 1 "ab", 2 "skipped", 3 a number, 4 of eight bytes, 5 of four bytes, 1 "".
        let fields = b"\x0a\x02ab\x12\x07skipped\x18\x96\x01\x2112345678\x2d1234\x0a\x00";
        let bytes = [message(fields), message(b""), message(b"\x0a\x01c")].concat();
        for step in 1..bytes.len() {
            let expected = ["ab", "", "c"].map(str::to_owned).to_vec();
            assert_eq!(parts(Take::Elements, &bytes, step), Ok((expected, true)), "{step}");
            assert_eq!(parts(Take::Messages, &bytes[..bytes.len() - 1], step).unwrap().0.len(), 1);
        }
        assert_eq!(parts(Take::Messages, &message(b"xy"), 3), Ok((vec!["xy".to_owned()], true)));
        assert!(!parts(Take::Elements, &bytes[..bytes.len() - 1], 5).unwrap().1, "half an answer is not whole");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let long = [&[0], &u32::MAX.to_be_bytes()[..], b"\x0a\xff\xff\xff\x7f"].concat();
        for (bytes, words) in [
            (message(b"\x0a\x05ab"), "no message"),
            (message(b"\x0f\x05ab"), "no message"),
            (message(b"\x02\x00"), "no message"),
            (message(&[0xff; 12]), "no message"),
            (message(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "no message"),
            (vec![1, 0, 0, 0, 0], "compressed"),
            (long, "more than 1048576 bytes"),
        ] {
            let error = parts(Take::Elements, &bytes, 1).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(parts(Take::Messages, &[0, 0xff, 0xff, 0xff, 0xff], 5).unwrap_err().contains("more than"));
        // A long field that is not wanted is skipped, and nothing of it is held.
        let mut skipping = Parts::new(Take::Elements);
        skipping.add(&[&[0], &u32::MAX.to_be_bytes()[..], b"\x12\x80\x80\x80\x80\x08"].concat(), |_| {}).unwrap();
        (0..64).for_each(|_| skipping.add(&[0; 64 << 10], |_| {}).unwrap());
        assert!(skipping.buffer.capacity() <= 64 << 10);
    }
}
