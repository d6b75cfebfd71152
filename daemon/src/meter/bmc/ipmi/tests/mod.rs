//! A BMC that a test drives, behind the same trait as the device and the network.

use super::link::{Command, LinkError};
use super::*;
use std::collections::BTreeMap;

/// What a sensor's record says.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub kind: u8,
    pub owner: u8,
    pub number: u8,
    pub units: u8,
    pub unit: u8,
    pub linearization: u8,
    pub m: i16,
    pub b: i16,
    pub b_exponent: i8,
    pub exponent: i8,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            kind: 1,
            owner: 0x20,
            number: 1,
            units: 0,
            unit: 6,
            linearization: 0,
            m: 4,
            b: 0,
            b_exponent: 0,
            exponent: 0,
        }
    }
}

/// A Full Sensor Record, or one of another kind that begins as one.
pub fn record(name: &str, of: Record) -> Vec<u8> {
    let mut bytes = vec![0; 48];
    (bytes[2], bytes[3]) = (0x51, of.kind);
    (bytes[5], bytes[7], bytes[8]) = (of.owner, of.number, 7);
    (bytes[20], bytes[21], bytes[23]) = (of.units, of.unit, of.linearization);
    let ten = |value: i16| [value as u8, ((value as u16 >> 8 & 3) << 6) as u8];
    bytes[24..26].copy_from_slice(&ten(of.m));
    bytes[26..28].copy_from_slice(&ten(of.b));
    bytes[29] = (of.exponent as u8) << 4 | of.b_exponent as u8 & 0xF;
    bytes[47] = 0xC0 | name.len() as u8;
    bytes.extend(name.bytes());
    bytes[4] = (bytes.len() - 5) as u8;
    bytes
}

type Answer = Result<Vec<u8>, LinkError>;

/// What the BMC behind a test's connection does.
#[derive(Default)]
pub struct State {
    pub present: bool,
    pub capabilities: Option<Answer>,
    pub power: Option<Answer>,
    pub records: Vec<Vec<u8>>,
    pub readings: BTreeMap<u8, Answer>,
    /// Most bytes of a record that it gives at once.
    pub most: usize,
    /// It takes back its reservation after so many questions.
    pub reserved_for: Option<usize>,
    reservation: u16,
    pub asked: Vec<(u8, u8)>,
    pub connected: usize,
    pub refuses: Option<String>,
}

pub type Fake = Arc<Mutex<State>>;

pub fn fake() -> Fake {
    let state = State { present: true, most: 255, ..State::default() };
    Arc::new(Mutex::new(state))
}

struct FakeLink(Fake);

impl Link for FakeLink {
    fn execute(&mut self, command: &Command) -> Answer {
        let mut state = lock(&self.0);
        state.asked.push((command.net_fn, command.command));
        let unknown = || Err(LinkError::Refused(0xC1));
        match (command.net_fn, command.command) {
            (0x2C, 1) => state.capabilities.clone().unwrap_or_else(unknown),
            (0x2C, 2) => state.power.clone().unwrap_or_else(unknown),
            (0x0A, 0x22) => {
                state.reservation += 1;
                Ok(state.reservation.to_le_bytes().to_vec())
            }
            (0x0A, 0x23) => state.part(&command.data),
            (0x04, 0x2D) => state.readings.get(&command.data[0]).cloned().unwrap_or(Err(LinkError::Refused(0xCB))),
            _ => unknown(),
        }
    }
}

impl State {
    fn part(&mut self, data: &[u8]) -> Answer {
        let (reservation, id) = (u16::from_le_bytes([data[0], data[1]]), u16::from_le_bytes([data[2], data[3]]));
        let (from, count) = (usize::from(data[4]), usize::from(data[5]));
        if let Some(left) = &mut self.reserved_for {
            if *left == 0 {
                self.reserved_for = None;
                self.reservation += 1;
            } else {
                *left -= 1;
            }
        }
        if from != 0 && reservation != self.reservation {
            return Err(LinkError::Refused(0xC5));
        }
        let at = usize::from(id);
        let Some(record) = self.records.get(at) else { return Err(LinkError::Refused(0xCB)) };
        if count > self.most || from + count > record.len() {
            return Err(LinkError::Refused(0xCA));
        }
        let next = if at + 1 < self.records.len() { (at + 1) as u16 } else { 0xFFFF };
        Ok([&next.to_le_bytes(), &record[from..from + count]].concat())
    }
}

pub fn power(watts: u16) -> Answer {
    let [low, high] = watts.to_le_bytes();
    Ok(vec![0xDC, low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40])
}

pub fn capabilities(power: bool) -> Answer {
    Ok(vec![0xDC, 1, 5, 2, 0, u8::from(power), 7])
}

pub fn on(fake: &Fake, lan: bool) -> Opener {
    let kind = if lan { PlatformKind::IpmiLan } else { PlatformKind::Ipmi };
    let target =
        Target { source: "ipmi".into(), id: "ipmi/platform".into(), path: "/dev/ipmi9".into(), kind, by_name: lan };
    let fake = Arc::clone(fake);
    opener(
        target,
        Box::new(move || {
            let mut state = lock(&fake);
            if let Some(why) = &state.refuses {
                return Err(why.clone());
            }
            if !state.present {
                return Ok(None);
            }
            state.connected += 1;
            drop(state);
            Ok(Some(Box::new(FakeLink(Arc::clone(&fake))) as Box<dyn Link>))
        }),
    )
}

/// As the thread does: open, read once, what came of it.
pub fn read(opener: &mut Opener) -> (Vec<Result<Reading, String>>, Health, String) {
    let mut meter = opener().unwrap().unwrap();
    let mut out = Vec::new();
    meter.read(Stamp::now(), &mut out);
    assert!(out.iter().all(|one| meter.domains().iter().any(|domain| domain.id == one.domain)));
    (out.into_iter().map(|one| one.reading).collect(), meter.health(), meter.detail())
}

fn watts(watts: u64) -> Vec<Result<Reading, String>> {
    vec![Ok(Reading::Gauge { power: Microwatts(watts * 1_000_000) })]
}

mod answers;
mod sensors;
