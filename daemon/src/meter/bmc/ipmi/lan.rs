//! IPMI over LAN (RMCP+): one session, kept, and ended. Not the questions asked in it.
//!
//! What ipmi-rs 0.6 leaves open is closed here. It panics where a BMC sends nonsense at log-in and where the kernel refuses to send: that
//! is caught. It compares no sequence numbers, so an answer that comes late or twice would be taken for the next one's: before each question
//! another command is asked, and all that comes before its answer is read away. It falls back to IPMI 1.5 if the other side says so, which can mean a password
//! in clear text: a password of 20 bytes makes that impossible. It has no way to end a session.

use super::config::{LanConfig, Privilege};
use super::link::{Ask, Link, Trouble, data_of};
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

/// RMCP+ passwords (IPMI 2.0, section 13.28): shorter ones are filled up with zeros, which changes no HMAC.
const PASSWORD: usize = 20;
/// App: Get Device ID and Get Self Test Results, which every BMC answers at once. Asked in turn before each question.
const FENCES: [u8; 2] = [0x01, 0x04];
/// App: Set Session Privilege Level.
const SET_PRIVILEGE: u8 = 0x3B;
/// App: Close Session.
const CLOSE: u8 = 0x3C;
/// Network function of these.
const APP: u8 = 0x06;
/// A BMC that sends more than this instead of an answer is not listened to any longer.
const STRAYS: usize = 32;

/// A password. Shown to nobody.
#[derive(PartialEq, Eq)]
pub struct Password([u8; PASSWORD]);

impl fmt::Debug for Password {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Password(…)")
    }
}

impl Password {
    /// From the file or credential that the configuration names; a line break at its end does not belong to it.
    ///
    /// # Errors
    /// Names the file and what is wrong with it, never what is in it.
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
    /// A test's.
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
    /// The last of [`FENCES`] that was asked.
    fence: usize,
    /// A question was given up: its answer may still come.
    unsettled: bool,
    /// Why there can be no more questions.
    broken: Option<String>,
}

impl Lan {
    /// Logs in and asks for the privilege, where `lockout` does not stand against it.
    ///
    /// # Errors
    /// Says what to look at.
    pub fn open(config: &LanConfig, lockout: &mut Lockout) -> Result<Self, String> {
        let password = Password::read(config)?;
        if let Some(why) = lockout.stands(&password, Instant::now()) {
            return Err(why.to_owned());
        }
        let timeout = Duration::from_nanos(config.timeout.0.0);
        let address = &config.address;
        let mut rmcp = Rmcp::new((address.host.as_str(), address.port), timeout)
            .map_err(|error| format!("{address}: no such address: {error}"))?;
        let logged_in = caught(|| rmcp.activate(true, Some(&config.username), Some(&password.0)));
        match logged_in {
            Ok(Ok(())) => lockout.let_in(),
            Ok(Err(error)) => {
                let why = format!("{address}: {}", refusal::words(&error, timeout));
                let refused = refusal::is_of_the_user(&error);
                return Err(if refused { lockout.refused(password, &why, Instant::now()) } else { why });
            }
            Err(what) => return Err(format!("{address}: the log-in ends in nonsense ({what})")),
        }
        let session = session_id(&rmcp);
        let mut lan = Self { rmcp, timeout, session, fence: 0, unsettled: false, broken: None };
        // ipmi-rs asks for administrator at log-in; what counts is this level.
        let level = config.privilege.level();
        match lan.ask(&Ask::new(APP, SET_PRIVILEGE, &[level])) {
            // Get used to what a BMC has: the answer to the real question tells whether it is enough.
            Ok(_) => Ok(lan),
            Err(trouble) => {
                lan.close();
                Err(format!("{address}: {}", privilege_words(&trouble, &config.username, config.privilege)))
            }
        }
    }

    /// After this no earlier question's answer is on its way, where datagrams keep their order.
    fn settle(&mut self) -> Result<(), Trouble> {
        let tries = if self.unsettled { 1 } else { 2 };
        let mut last = Trouble::Silent(self.timeout);
        for _ in 0..tries {
            // In turn, so that an answer that comes twice does not stand for the next time's.
            self.fence = (self.fence + 1) % FENCES.len();
            match self.exchange(&Ask::new(APP, FENCES[self.fence], &[])) {
                Ok(_) => {
                    self.unsettled = false;
                    return Ok(());
                }
                Err(trouble) => last = trouble,
            }
        }
        // A session that does not even say who the BMC is has ended: the BMC forgot it, or is gone.
        Err(self.breaks(last.to_string()))
    }

    fn exchange(&mut self, ask: &Ask) -> Result<Response, Trouble> {
        let sent = caught(|| self.rmcp.send(&mut ask.request()));
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.breaks(format!("cannot be asked: {error:?}"))),
            Err(what) => return Err(self.breaks(format!("cannot be asked ({what})"))),
        }
        let since = Instant::now();
        let mut stray = None;
        for _ in 0..STRAYS {
            match caught(|| self.rmcp.recv()) {
                Ok(Ok(response)) if ask.fits(&response) => return Ok(response),
                Ok(Ok(response)) => stray = Some(format!("to {:02X}h {:02X}h", response.netfn_raw(), response.cmd())),
                Ok(Err(RmcpIpmiError::Receive(RmcpIpmiReceiveError::Io(error)))) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => break,
                    _ => return Err(self.breaks(io_words(&error))),
                },
                // Anybody can send a datagram: one that is not the BMC's, or was cut short, is no answer.
                Ok(Err(error)) => stray = Some(format!("a datagram that cannot be understood ({error:?})")),
                Err(what) => return Err(self.breaks(format!("the BMC's answer makes no sense ({what})"))),
            }
            if since.elapsed() > self.timeout {
                break;
            }
        }
        self.unsettled = true;
        Err(stray.map_or(Trouble::Silent(self.timeout), Trouble::Wrong))
    }

    fn breaks(&mut self, why: String) -> Trouble {
        self.broken = Some(why.clone());
        Trouble::Broken(why)
    }
}

impl Link for Lan {
    fn ask(&mut self, ask: &Ask) -> Result<Vec<u8>, Trouble> {
        if let Some(why) = &self.broken {
            return Err(Trouble::Broken(why.clone()));
        }
        self.settle()?;
        let first = self.exchange(ask);
        let response = match first {
            // Datagrams get lost: once more, where the session is alive.
            Err(Trouble::Silent(_) | Trouble::Wrong(_)) => {
                self.settle()?;
                self.exchange(ask)?
            }
            other => other?,
        };
        data_of(&response)
    }

    fn close(&mut self) {
        // One that gives no answer is not asked for another.
        if let (Some(session), None, false) = (self.session.take(), &self.broken, self.unsettled) {
            let ask = Ask::new(APP, CLOSE, &session.to_le_bytes());
            let _ = caught(|| self.rmcp.send(&mut ask.request()));
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.close();
    }
}

fn privilege_words(trouble: &Trouble, user: &str, privilege: Privilege) -> String {
    let privilege = privilege.as_str();
    match trouble {
        // Of this command: 80h the level is not available to the user, 81h it is above the limit of user or channel.
        Trouble::Refused(0x80 | 0x81) => {
            format!("user {user:?} may not be {privilege} there: give it that, or set another privilege")
        }
        other => format!("privilege {privilege}: {other}"),
    }
}

/// Words for an error of the socket.
pub fn io_words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "nothing listens there: is IPMI over LAN switched on in the BMC?".into(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => format!("it cannot be reached: {error}"),
        _ => error.to_string(),
    }
}

/// Runs what may panic in ipmi-rs. What it was called on is of no use after a panic.
fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        quoted(text.unwrap_or("a fault in ipmi-rs"), 120)
    })
}

/// The BMC's number of the session, which Close Session needs. ipmi-rs shows it in its `Debug` alone; where it does not, the session
/// ends by the BMC's own time limit.
fn session_id(rmcp: &Rmcp) -> Option<u32> {
    let text = format!("{rmcp:?}");
    let (_, rest) = text.split_once("session_id: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..digits].parse().ok()
}
