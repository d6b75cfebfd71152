//! IPMI over LAN (RMCP+): opens a session, keeps it, and closes it. The commands are in `bmc`.
//!
//! Works around gaps of ipmi-rs 0.6. It panics where a BMC sends nonsense at login and where the kernel refuses to
//! send: panics are caught. It compares no sequence numbers, so a late or repeated response would be taken for the
//! next command's: before each command a harmless one is executed, and everything before its response is discarded.
//! It falls back to IPMI 1.5 at the peer's request, which can mean a password in clear text: a password of 20 bytes
//! makes that impossible. It has no way to end a session.

use super::config::{LanConfig, Privilege};
use super::link::{Command, Link, LinkError, data_of};
use super::lockout::Lockout;
use super::refusal;
use crate::meter::bmc::PEER;
use crate::sys::safe_text::quoted;
use crate::sys::secret::Secret;
use ipmi_rs::connection::{IpmiConnection, Response};
use ipmi_rs::rmcp::{Rmcp, RmcpIpmiError, RmcpIpmiReceiveError};
use std::fmt;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Length of RMCP+ passwords in bytes (IPMI 2.0, section 13.28). Shorter ones are padded with zeros, which changes no
/// HMAC.
const PASSWORD: usize = 20;
/// App: Get Device ID and Get Self Test Results, which every BMC answers at once. Executed alternately before each
/// command.
const FENCES: [u8; 2] = [0x01, 0x04];
/// App: Set Session Privilege Level.
const SET_PRIVILEGE: u8 = 0x3B;
/// App: Close Session.
const CLOSE: u8 = 0x3C;
/// Network function of these.
const APP: u8 = 0x06;
/// Most responses to other commands that are skipped while waiting for one.
const STRAYS: usize = 32;

/// A password. Its `Debug` does not show it.
#[derive(PartialEq, Eq)]
pub struct Password([u8; PASSWORD]);

impl fmt::Debug for Password {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Password(…)")
    }
}

impl Password {
    /// From the configured file or credential, without a line break at its end.
    ///
    /// # Errors
    /// Names the file and what is wrong with it, never its content.
    pub fn read(config: &LanConfig) -> Result<Self, String> {
        let secret = Secret::read(PEER, config.password_file.as_deref(), config.credential.as_deref())?;
        let text = secret.reveal().as_bytes();
        let mut password = [0; PASSWORD];
        let place = password
            .get_mut(..text.len())
            .ok_or("no password for the BMC: it is longer than the 20 bytes that IPMI has room for")?;
        place.copy_from_slice(text);
        Ok(Self(password))
    }
}

#[cfg(test)]
impl Password {
    /// For tests.
    pub fn of(text: &str) -> Self {
        let mut password = [0; PASSWORD];
        password[..text.len()].copy_from_slice(text.as_bytes());
        Self(password)
    }
}

/// A session.
pub struct Lan {
    rmcp: Rmcp,
    timeout: Duration,
    /// For Close Session.
    session: Option<u32>,
    /// The last of [`FENCES`] that was executed.
    fence: usize,
    /// A command timed out: its response may still arrive.
    unsettled: bool,
    /// Why the session can no longer be used.
    broken: Option<String>,
}

impl Lan {
    /// Logs in and requests the privilege, unless `lockout` forbids it.
    ///
    /// # Errors
    /// Says what to check.
    pub fn open(config: &LanConfig, lockout: &mut Lockout) -> Result<Self, String> {
        let password = Password::read(config)?;
        if let Some(why) = lockout.forbids(&password, Instant::now()) {
            return Err(why.to_owned());
        }
        let timeout = Duration::from_nanos(config.timeout.0.0);
        let address = &config.address;
        let mut rmcp = Rmcp::new((address.host.as_str(), address.port), timeout)
            .map_err(|error| format!("{address}: no such address: {error}"))?;
        let logged_in = caught(|| rmcp.activate(true, Some(&config.username), Some(&password.0)));
        match logged_in {
            Ok(Ok(())) => lockout.login_succeeded(),
            Ok(Err(error)) => {
                let why = format!("{address}: {}", refusal::words(&error, timeout));
                let refused = refusal::is_of_the_user(&error);
                return Err(if refused { lockout.login_refused(password, &why, Instant::now()) } else { why });
            }
            Err(what) => return Err(format!("{address}: the log-in ends in nonsense ({what})")),
        }
        let session = session_id(&rmcp);
        let mut lan = Self { rmcp, timeout, session, fence: 0, unsettled: false, broken: None };
        // ipmi-rs requests administrator at login; this command sets the level that counts.
        let level = config.privilege.level();
        match lan.execute(&Command::new(APP, SET_PRIVILEGE, &[level])) {
            // Whatever level the BMC grants: the response to the real command shows whether it is enough.
            Ok(_) => Ok(lan),
            Err(error) => {
                lan.close();
                Err(format!("{address}: {}", privilege_words(&error, &config.username, config.privilege)))
            }
        }
    }

    /// After this no earlier command's response is still under way, if datagrams keep their order.
    fn settle(&mut self) -> Result<(), LinkError> {
        let tries = if self.unsettled { 1 } else { 2 };
        let mut last = LinkError::Silent(self.timeout);
        for _ in 0..tries {
            // Alternately, so that a repeated response is not taken for the next one.
            self.fence = (self.fence + 1) % FENCES.len();
            match self.exchange(&Command::new(APP, FENCES[self.fence], &[])) {
                Ok(_) => {
                    self.unsettled = false;
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        // A session in which not even these are answered has ended: the BMC dropped it, or is gone.
        Err(self.breaks(last.to_string()))
    }

    fn exchange(&mut self, command: &Command) -> Result<Response, LinkError> {
        let sent = caught(|| self.rmcp.send(&mut command.request()));
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.breaks(format!("cannot be asked: {error:?}"))),
            Err(what) => return Err(self.breaks(format!("cannot be asked ({what})"))),
        }
        let since = Instant::now();
        let mut stray = None;
        for _ in 0..STRAYS {
            match caught(|| self.rmcp.recv()) {
                Ok(Ok(response)) if command.fits(&response) => return Ok(response),
                Ok(Ok(response)) => stray = Some(format!("to {:02X}h {:02X}h", response.netfn_raw(), response.cmd())),
                Ok(Err(RmcpIpmiError::Receive(RmcpIpmiReceiveError::Io(error)))) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => break,
                    _ => return Err(self.breaks(io_words(&error))),
                },
                // Any host can send a datagram: foreign and truncated ones are skipped.
                Ok(Err(error)) => stray = Some(format!("a datagram that cannot be understood ({error:?})")),
                Err(what) => return Err(self.breaks(format!("the BMC's answer makes no sense ({what})"))),
            }
            if since.elapsed() > self.timeout {
                break;
            }
        }
        self.unsettled = true;
        Err(stray.map_or(LinkError::Silent(self.timeout), LinkError::Wrong))
    }

    fn breaks(&mut self, why: String) -> LinkError {
        self.broken = Some(why.clone());
        LinkError::Broken(why)
    }
}

impl Link for Lan {
    fn execute(&mut self, command: &Command) -> Result<Vec<u8>, LinkError> {
        if let Some(why) = &self.broken {
            return Err(LinkError::Broken(why.clone()));
        }
        self.settle()?;
        let first = self.exchange(command);
        let response = match first {
            // Datagrams get lost: once more, if the session is alive.
            Err(LinkError::Silent(_) | LinkError::Wrong(_)) => {
                self.settle()?;
                self.exchange(command)?
            }
            other => other?,
        };
        data_of(&response)
    }

    fn close(&mut self) {
        // Not to a BMC that does not answer.
        if let (Some(session), None, false) = (self.session.take(), &self.broken, self.unsettled) {
            let command = Command::new(APP, CLOSE, &session.to_le_bytes());
            let _ = caught(|| self.rmcp.send(&mut command.request()));
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.close();
    }
}

fn privilege_words(error: &LinkError, user: &str, privilege: Privilege) -> String {
    let privilege = privilege.as_str();
    match error {
        // Codes of this command: 80h level not available to the user, 81h above the limit of user or channel.
        LinkError::Refused(0x80 | 0x81) => {
            format!("user {user:?} may not be {privilege} there: give it that, or set another privilege")
        }
        other => format!("privilege {privilege}: {other}"),
    }
}

/// Text for an error of the socket.
pub fn io_words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "nothing listens there: is IPMI over LAN switched on in the BMC?".into(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => format!("it cannot be reached: {error}"),
        _ => error.to_string(),
    }
}

/// Calls ipmi-rs where it may panic. The object that was used must not be used after a panic.
fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        quoted(text.unwrap_or("a fault in ipmi-rs"), 120)
    })
}

/// The BMC's session id, which Close Session needs. ipmi-rs shows it only in its `Debug` output; without it the
/// session ends by the BMC's time limit.
fn session_id(rmcp: &Rmcp) -> Option<u32> {
    let text = format!("{rmcp:?}");
    let (_, rest) = text.split_once("session_id: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..digits].parse().ok()
}
