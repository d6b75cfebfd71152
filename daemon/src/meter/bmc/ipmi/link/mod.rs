//! One question at a time to a BMC, and the answer to this one: what is late, repeated or foreign is never taken for it. The device is
//! here; the network is in `lan`. Knows no command's meaning.
//!
//! What ipmi-rs does not do is done here. Its `Ipmi::send_recv` refuses every answer of network function 2Ch (it compares the request's
//! number with the answer's), and its connections take one message per question: after a time-out each answer would be that of the
//! question before. So connections are driven by `send` and `recv`, answers are matched here, and stale ones are read away.

use super::code::words;
use ipmi_rs::connection::{IpmiConnection, LogicalUnit, Message, NetFn, Request, RequestTargetAddress, Response};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

/// A BMC that sends more than this instead of an answer is not listened to any longer.
const STRAYS: usize = 32;
/// How long the driver may take: it asks again by itself for some seconds, as some BMCs need.
const DEVICE_PATIENCE: Duration = Duration::from_secs(5);

/// A question: network function, command, data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Network function of the request, an even number.
    pub net_fn: u8,
    /// Command.
    pub command: u8,
    /// Logical unit of the BMC.
    pub lun: u8,
    /// Data.
    pub data: Vec<u8>,
}

impl Ask {
    /// To logical unit 0.
    pub fn new(net_fn: u8, command: u8, data: &[u8]) -> Self {
        Self { net_fn, command, lun: 0, data: data.to_vec() }
    }

    /// As ipmi-rs has it.
    pub fn request(&self) -> Request {
        let message = Message::new_request(NetFn::from(self.net_fn), self.command, self.data.clone());
        Request::new(message, RequestTargetAddress::Bmc(LogicalUnit::from_low_bits(self.lun)))
    }

    /// Whether `response` has the numbers of an answer to this.
    pub fn fits(&self, response: &Response) -> bool {
        response.netfn_raw() == self.net_fn | 1 && response.cmd() == self.command
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The BMC answered with this completion code.
    Refused(u8),
    /// No answer in this time.
    Silent(Duration),
    /// What came is no answer to what was asked. The connection is good.
    Wrong(String),
    /// The connection is of no use any more.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(to, "the BMC {}", words(*code)),
            Self::Silent(time) => write!(to, "the BMC gives no answer within {time:?}"),
            Self::Wrong(what) => write!(to, "the BMC gives a wrong answer: {what}"),
            Self::Broken(why) => to.write_str(why),
        }
    }
}

/// A way to a BMC.
pub trait Link: Send {
    /// Asks and waits for the answer to this question: its data, without the completion code.
    ///
    /// # Errors
    /// There is no answer, or it is a refusal.
    fn ask(&mut self, ask: &Ask) -> Result<Vec<u8>, Trouble>;

    /// Ends it in an orderly way, without waiting for anything.
    fn close(&mut self) {}
}

/// The data of an answer, or its refusal.
pub fn data_of(response: &Response) -> Result<Vec<u8>, Trouble> {
    match response.cc() {
        0 => Ok(response.data().to_vec()),
        code => Err(Trouble::Refused(code)),
    }
}

/// Through a connection that numbers its messages, as /dev/ipmi0 does.
pub struct Device<C> {
    connection: C,
    patience: Duration,
}

impl Device<ipmi_rs::File> {
    /// Opens the device.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Less than all of its time for one message: several may be stale.
        Ok(Self::new(ipmi_rs::File::new(path, DEVICE_PATIENCE)?, DEVICE_PATIENCE))
    }
}

impl<C> Device<C> {
    /// On a connection that is open.
    pub const fn new(connection: C, patience: Duration) -> Self {
        Self { connection, patience }
    }
}

impl<C: IpmiConnection<SendError = io::Error, RecvError = io::Error> + Send> Link for Device<C> {
    fn ask(&mut self, ask: &Ask) -> Result<Vec<u8>, Trouble> {
        let since = Instant::now();
        self.connection
            .send(&mut ask.request())
            .map_err(|error| Trouble::Broken(format!("cannot be asked: {error}")))?;
        let mut stray = None;
        // The answer to a question that was given up is still in the driver's queue, before the one to this.
        for _ in 0..STRAYS {
            match self.connection.recv() {
                Ok(response) if ask.fits(&response) => return data_of(&response),
                Ok(response) => stray = Some(format!("to {:02X}h {:02X}h", response.netfn_raw(), response.cmd())),
                // ipmi-rs's own errors: another message number, no answer at all, nothing in it.
                Err(error) if error.kind() == ErrorKind::Other && error.raw_os_error().is_none() => {
                    stray = Some(error.to_string())
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(stray.map_or(Trouble::Silent(self.patience), Trouble::Wrong));
                }
                Err(error) => return Err(Trouble::Broken(format!("gives no answer: {error}"))),
            }
            if since.elapsed() > self.patience {
                break;
            }
        }
        Err(Trouble::Wrong(stray.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests;
