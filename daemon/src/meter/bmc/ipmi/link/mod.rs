//! One command at a time to a BMC, and the response to this command: late, repeated and foreign responses are
//! discarded. The device (/dev/ipmi0) is here; the network is in `lan`. Knows no command's meaning.
//!
//! Works around gaps of ipmi-rs. Its `Ipmi::send_recv` refuses every response of network function 2Ch (it compares
//! the request's number with the response's), and its connections read one message per command: after a timeout each
//! response would be the previous command's. So connections are driven by `send` and `recv`, responses are matched
//! here, and stale ones are discarded.

use super::code::words;
use ipmi_rs::connection::{IpmiConnection, LogicalUnit, Message, NetFn, Request, RequestTargetAddress, Response};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Most responses to other commands that are skipped while waiting for one.
const STRAYS: usize = 32;
/// Longest time of the driver: it retries for some seconds, as some BMCs need.
const DEVICE_PATIENCE: Duration = Duration::from_secs(5);

/// A command: network function, number, data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Network function of the request, an even number.
    pub net_fn: u8,
    /// Command.
    pub command: u8,
    /// Logical unit of the BMC.
    pub lun: u8,
    /// Data.
    pub data: Vec<u8>,
}

impl Command {
    /// A command for logical unit 0.
    pub fn new(net_fn: u8, command: u8, data: &[u8]) -> Self {
        Self { net_fn, command, lun: 0, data: data.to_vec() }
    }

    /// The request of ipmi-rs.
    pub fn request(&self) -> Request {
        let message = Message::new_request(NetFn::from(self.net_fn), self.command, self.data.clone());
        Request::new(message, RequestTargetAddress::Bmc(LogicalUnit::from_low_bits(self.lun)))
    }

    /// Whether `response` has the network function and number of a response to this.
    pub fn fits(&self, response: &Response) -> bool {
        response.netfn_raw() == self.net_fn | 1 && response.cmd() == self.command
    }
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The BMC answered with this completion code.
    Refused(u8),
    /// No response in this time.
    Silent(Duration),
    /// What arrived is not a response to this command. The connection still works.
    Wrong(String),
    /// The connection can no longer be used.
    Broken(String),
}

impl fmt::Display for LinkError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(to, "the BMC {}", words(*code)),
            Self::Silent(time) => write!(to, "the BMC gives no answer within {time:?}"),
            Self::Wrong(what) => write!(to, "the BMC gives a wrong answer: {what}"),
            Self::Broken(why) => to.write_str(why),
        }
    }
}

/// A connection to a BMC.
pub trait Link: Send {
    /// Executes a command. Returns the data of its response, without the completion code.
    ///
    /// # Errors
    /// There is no response, or one with an error code.
    fn execute(&mut self, command: &Command) -> Result<Vec<u8>, LinkError>;

    /// Closes the connection, without waiting for a response.
    fn close(&mut self) {}
}

/// The data of a response, or its error code.
pub fn data_of(response: &Response) -> Result<Vec<u8>, LinkError> {
    match response.cc() {
        0 => Ok(response.data().to_vec()),
        code => Err(LinkError::Refused(code)),
    }
}

/// A connection that numbers its messages, as /dev/ipmi0 does.
pub struct Device<C> {
    connection: C,
    patience: Duration,
}

impl Device<ipmi_rs::File> {
    /// Opens the device.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(path: &Path) -> io::Result<Self> {
        // The same limit for one message and for the whole command, as several messages may be stale.
        Ok(Self::new(ipmi_rs::File::new(path, DEVICE_PATIENCE)?, DEVICE_PATIENCE))
    }
}

impl<C> Device<C> {
    /// On an open connection.
    pub const fn new(connection: C, patience: Duration) -> Self {
        Self { connection, patience }
    }
}

impl<C: IpmiConnection<SendError = io::Error, RecvError = io::Error> + Send> Link for Device<C> {
    fn execute(&mut self, command: &Command) -> Result<Vec<u8>, LinkError> {
        let since = Instant::now();
        self.connection
            .send(&mut command.request())
            .map_err(|error| LinkError::Broken(format!("cannot be asked: {error}")))?;
        let mut stray = None;
        // The response to a command that timed out may still be in the driver's queue, before this one's.
        for _ in 0..STRAYS {
            match self.connection.recv() {
                Ok(response) if command.fits(&response) => return data_of(&response),
                Ok(response) => stray = Some(format!("to {:02X}h {:02X}h", response.netfn_raw(), response.cmd())),
                // Errors of ipmi-rs itself: another message number, no response, an empty response.
                Err(error) if error.kind() == ErrorKind::Other && error.raw_os_error().is_none() => {
                    stray = Some(error.to_string())
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(stray.map_or(LinkError::Silent(self.patience), LinkError::Wrong));
                }
                Err(error) => return Err(LinkError::Broken(format!("gives no answer: {error}"))),
            }
            if since.elapsed() > self.patience {
                break;
            }
        }
        Err(LinkError::Wrong(stray.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests;
