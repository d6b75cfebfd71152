//! DCMI's power commands as bytes (DCMI 1.5, sections 6.1 and 6.6). Pure: sends nothing.

use super::link::Command;
use crate::model::units::{Microwatts, Nanos};

/// Group extension of every DCMI request and response.
const GROUP: u8 = 0xDC;
/// Network function of group extensions.
const NET_FN: u8 = 0x2C;
/// Get DCMI Capabilities Info.
const CAPABILITIES: u8 = 0x01;
/// Get Power Reading.
const POWER_READING: u8 = 0x02;
/// In its state byte: power measurement is active.
const ACTIVE: u8 = 1 << 6;
/// Largest difference between the steps of the BMC's clock and of ours, in seconds, for the BMC's clock to count as
/// running.
const CLOCK_SLACK: i64 = 2;
/// Number of consecutive readings with a running clock after which it is trusted.
const TRUSTED: u32 = 3;
/// A trusted clock that stands still for longer means that the BMC does not update the value.
const FROZEN: Nanos = Nanos(60 * Nanos::SECOND.0);
/// A value whose state is "not active" is not taken when it has not changed for longer.
const STILL: Nanos = Nanos(600 * Nanos::SECOND.0);

/// Get DCMI Capabilities Info, parameter 1: what is supported.
pub fn get_capabilities() -> Command {
    Command::new(NET_FN, CAPABILITIES, &[GROUP, 0x01])
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
pub fn get_power_reading() -> Command {
    Command::new(NET_FN, POWER_READING, &[GROUP, 0x01, 0x00, 0x00])
}

/// The response to Get Power Reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerReading {
    /// Watts now.
    pub current: u16,
    /// Lowest, highest and mean watts over `statistics`.
    pub range: (u16, u16, u16),
    /// The BMC's clock, seconds since 1970. Often wrong.
    pub clock: u32,
    /// Time over which minimum, maximum and mean are taken. Unrelated to the refresh of `current`.
    pub statistics: Nanos,
    /// Whether power measurement is active.
    pub active: bool,
}

impl PowerReading {
    /// From the answer's data.
    ///
    /// # Errors
    /// It is not a response to this command: too short, too long, or of another group.
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
    /// Why there is none.
    pub fn power(&self) -> Result<Microwatts, String> {
        match (self.active, self.current) {
            (false, _) => Err("power measurement is not active: switch it on in the BMC's power settings".into()),
            // A machine that runs draws something.
            (true, 0) => Err("0 W, which is no reading of a machine that runs".into()),
            // All ones stands for no value.
            (true, u16::MAX) => Err("65535 W, which is no reading".into()),
            (true, watts) => Ok(Microwatts(u64::from(watts) * 1_000_000)),
        }
    }
}

/// Takes the power of readings whose state says that power measurement is not active, where their value moves: some
/// BMCs measure, and have no such setting. A value that stands still is not taken, as it may be of another time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Movement {
    last: Option<u16>,
    /// When the value last changed, CLOCK_MONOTONIC.
    moved: Option<Nanos>,
}

impl Movement {
    /// The power of a reading that arrived at `now`, CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// Why there is none.
    pub fn power(&mut self, reading: &PowerReading, now: Nanos) -> Result<Microwatts, String> {
        let said = PowerReading { active: true, ..*reading }.power();
        if said.is_ok() {
            let last = self.last.replace(reading.current);
            if last.is_some_and(|last| last != reading.current) {
                self.moved = Some(now);
            }
        }
        let moves = self.moved.is_some_and(|moved| now - moved <= STILL);
        if moves { said } else { reading.power() }
    }
}

/// The first bytes, for a message.
fn begin(data: &[u8]) -> String {
    let bytes: Vec<String> = data.iter().take(4).map(|byte| format!("{byte:02X}")).collect();
    if bytes.is_empty() { String::new() } else { format!(" ({}…)", bytes.join(" ")) }
}

/// Detects by the timestamps of readings that the BMC no longer updates them. A timestamp is trusted only while it
/// advances as our clock does: on many BMCs it is 0, stands still, or is the end of the last hour.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimestampCheck {
    last: Option<(u32, Nanos)>,
    kept_up: u32,
    /// When the timestamp last changed, CLOCK_MONOTONIC.
    moved: Nanos,
}

impl TimestampCheck {
    /// Takes the timestamp of a reading that arrived at `now`, CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// A trusted timestamp stands still: the value is old.
    pub fn check(&mut self, stamp: u32, now: Nanos) -> Result<(), String> {
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
        // Always the same text: a change of it would be logged.
        Err(format!("the reading is an old one: its time stamp has stood still for more than {} s", FROZEN.seconds()))
    }
}

#[cfg(test)]
mod tests;
