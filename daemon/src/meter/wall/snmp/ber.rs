//! SNMP messages as bytes: BER (X.690) as far as SNMP needs it, and the PDUs of RFC 3416. Pure. Reads any bytes without
//! a panic: what is not understood is `None`.
//!
//! The crate `snmp2` is not used: an agent that states a long engine id makes it panic, and it writes through a shared
//! reference.

/// Tag of an INTEGER.
pub(super) const INTEGER: u8 = 0x02;
/// Tag of an OCTET STRING.
pub(super) const OCTETS: u8 = 0x04;
/// Tag of a SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
/// Tag of a Counter32.
pub(super) const COUNTER32: u8 = 0x41;
/// Tags of PDUs.
pub(super) const GET: u8 = 0xa0;
/// The same of answers.
pub(super) const RESPONSE: u8 = 0xa2;
/// The same of reports (version 3).
pub(super) const REPORT: u8 = 0xa8;

const NULL: u8 = 0x05;
const OBJECT: u8 = 0x06;
const GAUGE32: u8 = 0x42;
const COUNTER64: u8 = 0x46;
const NO_SUCH_OBJECT: u8 = 0x80;
const NO_SUCH_INSTANCE: u8 = 0x81;
const END_OF_VIEW: u8 = 0x82;
/// Longest OID, in numbers (RFC 3416).
const LONGEST: usize = 128;

/// The name of a value, as it is encoded, and as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Oid {
    text: String,
    bytes: Vec<u8>,
}

impl Oid {
    /// Reads `1.3.6.1…`, with or without a dot before it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('.').unwrap_or(text);
        let numbers = text.split('.').map(number).collect::<Option<Vec<_>>>()?;
        let [first, second, rest @ ..] = numbers.as_slice() else { return None };
        if *first > 2 || *second > 39 || numbers.len() > LONGEST {
            return None;
        }
        let mut bytes = Vec::with_capacity(text.len());
        for number in std::iter::once(&(first * 40 + second)).chain(rest) {
            let groups = (32 - number.leading_zeros()).div_ceil(7).max(1);
            for group in (0..groups).rev() {
                let more = if group > 0 { 0x80 } else { 0 };
                bytes.push((number >> (7 * group)) as u8 & 0x7f | more);
            }
        }
        Some(Self { text: text.to_owned(), bytes })
    }

    /// Its numbers.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// A number of an OID: digits alone.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A number. `counter32`: a Counter32, which begins again at 2³².
    Number { value: i128, counter32: bool },
    /// Text, or other bytes.
    Text(Vec<u8>),
    /// The agent has no such object or instance.
    None,
    /// Of another type.
    Other,
}

/// A PDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pdu {
    /// [`RESPONSE`], [`REPORT`] or another.
    pub(super) kind: u8,
    /// The number of the request.
    pub(super) request: i64,
    /// `error-status`; 0: none.
    pub(super) status: i64,
    /// The values, each with its encoded OID.
    pub(super) values: Vec<(Vec<u8>, Value)>,
}

impl Pdu {
    /// The values for these OIDs; `None`: they are of others.
    pub(super) fn answers(self, oids: &[Oid]) -> Option<Vec<Value>> {
        let is = self.values.len() == oids.len()
            && self.values.iter().zip(oids).all(|((bytes, _), oid)| *bytes == oid.bytes);
        is.then(|| self.values.into_iter().map(|(_, value)| value).collect())
    }

    /// Whether the only value is of this OID.
    pub(super) fn is_about(&self, oid: &str) -> bool {
        Oid::parse(oid).is_some_and(|oid| self.values.len() == 1 && self.values[0].0 == oid.bytes)
    }
}

/// A GET request.
pub(super) fn get(request: i32, oids: &[Oid]) -> Vec<u8> {
    let bindings =
        oids.iter().flat_map(|oid| wrap(SEQUENCE, &[wrap(OBJECT, std::slice::from_ref(&oid.bytes)), wrap(NULL, &[])]));
    let bindings = wrap(SEQUENCE, &[bindings.collect()]);
    wrap(GET, &[integer(request.into()), integer(0), integer(0), bindings])
}

/// Content with its tag and length.
pub(super) fn wrap(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let length = parts.iter().map(Vec::len).sum::<usize>();
    let mut bytes = vec![tag];
    if length < 128 {
        bytes.push(length as u8);
    } else {
        let long = length.to_be_bytes();
        let long = &long[long.iter().take_while(|byte| **byte == 0).count()..];
        bytes.push(0x80 | long.len() as u8);
        bytes.extend(long);
    }
    parts.iter().for_each(|part| bytes.extend(part));
    bytes
}

/// An INTEGER.
pub(super) fn integer(value: i64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    // The shortest form: its first nine bits are not all the same.
    let same = |pair: &[u8]| (pair[0] == 0 && pair[1] < 0x80) || (pair[0] == 0xff && pair[1] >= 0x80);
    let skipped = bytes.windows(2).take_while(|pair| same(pair)).count();
    wrap(INTEGER, &[bytes[skipped..].to_vec()])
}

/// An OCTET STRING.
pub(super) fn octets(bytes: &[u8]) -> Vec<u8> {
    wrap(OCTETS, &[bytes.to_vec()])
}

/// Reads one value after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value's tag and content.
    pub(super) fn take(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, mut rest) = rest.split_first()?;
        let mut length = usize::from(*first);
        if *first >= 0x80 {
            let count = usize::from(first & 0x7f);
            if !(1..=4).contains(&count) || rest.len() < count {
                return None;
            }
            length = rest[..count].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            rest = &rest[count..];
        }
        if rest.len() < length {
            return None;
        }
        let (content, rest) = rest.split_at(length);
        self.0 = rest;
        Some((*tag, content))
    }

    /// The content of the next value, which has to have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.take().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// The next value, an INTEGER.
    pub(super) fn integer(&mut self) -> Option<i64> {
        signed(self.expect(INTEGER)?).and_then(|value| i64::try_from(value).ok())
    }

    /// The next value, a PDU of an answer.
    pub(super) fn pdu(&mut self) -> Option<Pdu> {
        let (kind, content) = self.take()?;
        let mut inside = Reader(content);
        let (request, status, _index) = (inside.integer()?, inside.integer()?, inside.integer()?);
        let mut bindings = Reader(inside.expect(SEQUENCE)?);
        let mut values = Vec::new();
        while !bindings.0.is_empty() {
            let mut binding = Reader(bindings.expect(SEQUENCE)?);
            let oid = binding.expect(OBJECT)?.to_vec();
            let (tag, content) = binding.take()?;
            values.push((oid, value(tag, content)?));
        }
        Some(Pdu { kind, request, status, values })
    }
}

fn value(tag: u8, content: &[u8]) -> Option<Value> {
    Some(match tag {
        INTEGER => Value::Number { value: signed(content)?, counter32: false },
        GAUGE32 | COUNTER64 => Value::Number { value: unsigned(content)?, counter32: false },
        COUNTER32 => Value::Number { value: unsigned(content)?, counter32: true },
        OCTETS => Value::Text(content.to_vec()),
        NO_SUCH_OBJECT | NO_SUCH_INSTANCE | END_OF_VIEW | NULL => Value::None,
        _ => Value::Other,
    })
}

/// A number with its sign, of at most eight bytes.
fn signed(content: &[u8]) -> Option<i128> {
    let negative = *content.first()? >= 0x80;
    (content.len() <= 8).then(|| {
        let begin = if negative { -1 } else { 0 };
        content.iter().fold(begin, |sum: i128, byte| sum << 8 | i128::from(*byte))
    })
}

/// A number without a sign. Some agents leave out the zero before a highest bit that is set.
fn unsigned(content: &[u8]) -> Option<i128> {
    let is = !content.is_empty() && (content.len() <= 8 || content.len() == 9 && content[0] == 0);
    is.then(|| content.iter().fold(0, |sum, byte| sum << 8 | i128::from(*byte)))
}
