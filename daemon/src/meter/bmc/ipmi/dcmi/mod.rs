//! DCMI's power commands as bytes (DCMI 1.5, sections 6.1 and 6.6). Pure: talks to nobody.

use super::link::Ask;
use crate::model::units::{Microwatts, Nanos};

/// The group that every DCMI request and answer names.
const GROUP: u8 = 0xDC;
/// Network function of group extensions.
const NET_FN: u8 = 0x2C;
/// Get DCMI Capabilities Info.
const CAPABILITIES: u8 = 0x01;
/// Get Power Reading.
const POWER_READING: u8 = 0x02;
/// Of its state byte: power measurement is active.
const ACTIVE: u8 = 1 << 6;
/// So far a BMC's clock may go from ours between two questions and still count as one that goes.
const CLOCK_SLACK: i64 = 2;
/// A clock is trusted once it has kept up with ours so often.
const TRUSTED: u32 = 3;
/// A trusted clock that stands still for longer tells that nobody renews the value.
const FROZEN: Nanos = Nanos(60 * Nanos::SECOND.0);

/// Get DCMI Capabilities Info, parameter 1: what is supported.
pub fn ask_capabilities() -> Ask {
    Ask::new(NET_FN, CAPABILITIES, &[GROUP, 0x01])
}

/// Whether power management is supported, from the answer's data.
///
/// # Errors
/// The answer is not one to this.
pub fn manages_power(data: &[u8]) -> Result<bool, String> {
    // DCh, version, version, revision of the parameter, platform, optional platform, manageability.
    match data {
        [GROUP, _, _, _, _, optional, ..] => Ok(optional & 1 != 0),
        _ => Err(format!("its DCMI capabilities are {} bytes{}, not 7 that begin with DCh", data.len(), begin(data))),
    }
}

/// Get Power Reading, mode 1: system power statistics.
pub fn ask_power() -> Ask {
    Ask::new(NET_FN, POWER_READING, &[GROUP, 0x01, 0x00, 0x00])
}

/// What Get Power Reading says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerReading {
    /// Watts now.
    pub current: u16,
    /// Lowest, highest and mean watts over `statistics`.
    pub range: (u16, u16, u16),
    /// The BMC's clock, seconds since 1970; whatever it is worth.
    pub clock: u32,
    /// Time that minimum, maximum and mean are of: it says nothing of `current`, which has a refresh of its own.
    pub statistics: Nanos,
    /// Whether power measurement is active.
    pub active: bool,
}

impl PowerReading {
    /// From the answer's data.
    ///
    /// # Errors
    /// The answer is not one to this: too short, too long, or of another group.
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        let [GROUP, rest @ ..] = data else {
            return Err(format!("its power reading is {} bytes{}: no DCMI answer", data.len(), begin(data)));
        };
        let Ok(rest) = <&[u8; 17]>::try_from(rest) else {
            return Err(format!("its power reading is {} bytes, not 18", data.len()));
        };
        let two = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]);
        let four = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        Ok(Self {
            current: two(0),
            range: (two(2), two(4), two(6)),
            clock: four(8),
            statistics: Nanos(u64::from(four(12)) * 1_000_000),
            active: rest[16] & ACTIVE != 0,
        })
    }

    /// The power.
    ///
    /// # Errors
    /// There is none in it, and why.
    pub fn power(&self) -> Result<Microwatts, String> {
        match (self.active, self.current) {
            (false, _) => Err("power measurement is not active: switch it on in the BMC's power settings".into()),
            // What runs this draws something.
            (true, 0) => Err("0 W, which is no reading of a machine that runs".into()),
            // All ones is what a field without a value holds.
            (true, u16::MAX) => Err("65535 W, which is no reading".into()),
            (true, watts) => Ok(Microwatts(u64::from(watts) * 1_000_000)),
        }
    }
}

/// The first bytes, for an error.
fn begin(data: &[u8]) -> String {
    let bytes: Vec<String> = data.iter().take(4).map(|byte| format!("{byte:02X}")).collect();
    if bytes.is_empty() { String::new() } else { format!(" ({}…)", bytes.join(" ")) }
}

/// Whether the time stamps of readings tell that the BMC does not renew them. A stamp is believed only while it goes as our clock does:
/// on many BMCs it is 0, stands still, or is the end of the last hour.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamps {
    last: Option<(u32, Nanos)>,
    kept_up: u32,
    /// When a trusted stamp was last seen to move.
    moved: Nanos,
}

impl Stamps {
    /// None seen yet.
    pub const fn new() -> Self {
        Self { last: None, kept_up: 0, moved: Nanos::ZERO }
    }

    /// Takes in the stamp of a reading that came at `now`, CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// A stamp that went with time stands still: the value is an old one.
    pub fn take(&mut self, stamp: u32, now: Nanos) -> Result<(), String> {
        let Some((last, at)) = self.last.replace((stamp, now)) else { return Ok(()) };
        let passed = ((now - at).0 / Nanos::SECOND.0) as i64;
        let went = i64::from(stamp) - i64::from(last);
        if went != 0 {
            let keeps_up = stamp != u32::MAX && passed > CLOCK_SLACK && (went - passed).abs() <= CLOCK_SLACK;
            self.kept_up = if keeps_up { self.kept_up.saturating_add(1) } else { 0 };
            self.moved = now;
            return Ok(());
        }
        let still = now - self.moved;
        if self.kept_up < TRUSTED {
            if passed > CLOCK_SLACK {
                self.kept_up = 0;
            }
            return Ok(());
        }
        if still <= FROZEN {
            return Ok(());
        }
        // Always in the same words: a change of words is logged.
        Err(format!("the reading is an old one: its time stamp has stood still for more than {} s", FROZEN.seconds()))
    }
}

#[cfg(test)]
mod tests;
