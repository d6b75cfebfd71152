//! `[[meter.nut]]`: the power that a UPS or PDU reports to Network UPS Tools (upsd, TCP 3493): `GET VAR`. Real power
//! alone: a load in per cent of a nominal power is no measurement. NUT knows no energy and no time of a value.

#[cfg(test)]
mod tests;

use super::net::{endpoint, runtime};
use super::quantity::{Number, PowerUnit};
use super::{Answer, Common, Entries, Entry, Failure, Probe, Said, Say, entry};
use crate::sys::safe_text::excerpt;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// upsd's port.
const PORT: u16 = 3493;
/// Longest line of an answer, in bytes: those of NUT have at most 512.
const LONGEST: usize = 2048;
/// Longest excerpt of an answer, in characters.
const EXCERPT: usize = 80;
/// Variables with a real power, in the order in which they are tried: what the UPS gives to its loads, and what it
/// draws itself, with its losses and the charging of its battery.
const VARIABLES: [&str; 4] = ["ups.realpower", "output.realpower", "outlet.realpower", "input.realpower"];

/// `[[meter.nut]]`.
pub type NutConfig = Entries<NutMeter>;

entry! {
    "nut",
    /// One UPS or PDU.
    NutMeter {
        /// Host of upsd, and its port where it is another.
        address: String = "127.0.0.1".to_owned(),
        /// The name of the UPS in ups.conf.
        ups: String = String::new(),
        /// The variable; `None`: the first of [`VARIABLES`] that there is.
        variable: Option<String> = None,
    }
}

impl Entry for NutMeter {
    type Probe = NutProbe;

    fn common(&self) -> Common<'_> {
        self.keys()
    }

    fn wrong(&self, say: &mut Say<'_>) {
        if endpoint(&self.address, PORT).is_none() {
            say("address", "the host of upsd, with or without a port: \"192.0.2.30\", \"ups.example:3493\"");
        }
        // Each is a word of the protocol.
        let is_word = |text: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
            !text.is_empty() && text.len() <= 128 && text.chars().all(plain)
        };
        if self.ups.is_empty() {
            say("ups", "is missing: the name of the UPS, as upsc -l shows it");
        } else if !is_word(&self.ups) {
            say("ups", "letters, digits, '-', '_' and '.'");
        }
        if self.variable.as_ref().is_some_and(|variable| !is_word(variable)) {
            say("variable", "the name of a variable with a power in watts, such as \"outlet.1.realpower\"");
        }
    }

    fn path(&self) -> String {
        format!("nut {}@{}", self.ups, self.address)
    }

    fn probe(&self, stop: CancellationToken) -> Result<NutProbe, String> {
        let (host, port) = endpoint(&self.address, PORT).ok_or("address: no host")?;
        let limit = Duration::from_nanos(self.timeout.0.0);
        let link = Link { stream: None, host, port, limit, variable: self.variable.clone() };
        Ok(NutProbe { runtime: Some(runtime()?), stop, config: self.clone(), link })
    }
}

/// Asks one upsd.
pub struct NutProbe {
    runtime: Option<Runtime>,
    stop: CancellationToken,
    config: NutMeter,
    link: Link,
}

struct Link {
    stream: Option<TcpStream>,
    host: String,
    port: u16,
    limit: Duration,
    /// The variable that is read.
    variable: Option<String>,
}

impl Drop for NutProbe {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Probe for NutProbe {
    fn ask(&mut self) -> Result<Answer, Failure> {
        let Self { runtime, stop, config, link } = self;
        let Some(runtime) = runtime else { return Err(Failure::broken("no runtime")) };
        let limit = link.limit;
        let asked = runtime.block_on(async {
            tokio::select! {
                result = timeout(2 * limit, link.power(&config.ups)) => result.unwrap_or_else(|_| {
                    Err(Failure::broken(format!("no answer within {} s", 2 * limit.as_secs())))
                }),
                () = stop.cancelled() => Err(Failure::broken("jouled ends")),
            }
        });
        let value = asked.map_err(|failure| {
            link.stream = None;
            Failure { why: format!("{}: {}", config.address, failure.why), ..failure }
        })?;
        let place = link.variable.clone().unwrap_or_default();
        let power = Number::read(&value, &place)?.power(&place, PowerUnit::Watts, None, config.keys().factor())?;
        Ok(Answer { power: Some(Said { value: power, time: None }), ..Answer::default() })
    }

    fn counts(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        let variable = self.link.variable.as_deref().unwrap_or("no variable yet");
        format!("NUT, {} of {} at {}", variable, self.config.ups, self.config.address)
    }
}

impl Link {
    /// The power as upsd says it, in watts.
    async fn power(&mut self, ups: &str) -> Result<String, Failure> {
        if let Some(variable) = self.variable.clone() {
            return match self.variable(ups, &variable).await {
                Err(Refused::No) => Err(Failure::unusable(format!(
                    "the UPS has no {}: upsc {ups} shows what it has",
                    excerpt(&variable, EXCERPT)
                ))),
                Err(Refused::Failed(failure)) => Err(failure),
                Ok(value) => Ok(value),
            };
        }
        for variable in VARIABLES {
            match self.variable(ups, variable).await {
                Ok(value) => {
                    self.variable = Some(variable.to_owned());
                    return Ok(value);
                }
                Err(Refused::No) => {}
                Err(Refused::Failed(failure)) => return Err(failure),
            }
        }
        Err(Failure::unusable(
            "the UPS reports no real power (ups.realpower, output.realpower, input.realpower): its load in per cent is no \
             measurement, and is not used",
        ))
    }

    async fn variable(&mut self, ups: &str, variable: &str) -> Result<String, Refused> {
        let line = self.ask(&format!("GET VAR {ups} {variable}\n")).await?;
        let prefix = format!("VAR {ups} {variable} \"");
        if let Some(value) = line.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix('"')) {
            return Ok(value.to_owned());
        }
        let failure = match line.strip_prefix("ERR ").map(|rest| rest.split(' ').next().unwrap_or_default()) {
            Some("VAR-NOT-SUPPORTED") => return Err(Refused::No),
            Some("UNKNOWN-UPS") => Failure::unusable(format!("upsd knows no UPS {ups}: upsc -l shows the names")),
            Some("DATA-STALE") => {
                Failure::absent("upsd has no fresh data of the UPS (DATA-STALE): its driver gets no answer")
            }
            Some("DRIVER-NOT-CONNECTED") => {
                Failure::absent("the driver of the UPS does not run (DRIVER-NOT-CONNECTED)")
            }
            Some("ACCESS-DENIED") => Failure::login("upsd denies access to this machine: allow it in upsd.conf"),
            Some(_) => Failure::unusable(format!("upsd answers {}", excerpt(&line, EXCERPT))),
            None => Failure::unusable("what answers there is no upsd"),
        };
        Err(Refused::Failed(failure))
    }

    /// Sends a line, and returns the line that answers it.
    async fn ask(&mut self, line: &str) -> Result<String, Failure> {
        if self.stream.is_none() {
            let connect = TcpStream::connect((self.host.as_str(), self.port));
            let stream = timeout(self.limit, connect).await;
            let seconds = self.limit.as_secs();
            let stream = stream
                .map_err(|_| Failure::broken(format!("no TCP connection within {seconds} s")))?
                .map_err(|error| Failure::broken(format!("no TCP connection: {error}")))?;
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { return Err(Failure::broken("no TCP connection")) };
        let (limit, seconds) = (self.limit, self.limit.as_secs());
        let exchange = async {
            stream.write_all(line.as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\n") && answer.len() < LONGEST {
                match stream.read_u8().await {
                    Ok(byte) => answer.push(byte),
                    Err(error) => return Err(error),
                }
            }
            Ok(answer)
        };
        let answer = timeout(limit, exchange)
            .await
            .map_err(|_| Failure::broken(format!("no answer within {seconds} s")))?
            .map_err(|_: std::io::Error| Failure::broken("upsd closed the connection without an answer"))?;
        if !answer.ends_with(b"\n") {
            return Err(Failure::unusable("what answers there is no upsd"));
        }
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }
}

/// Why a variable has no value.
enum Refused {
    /// The UPS does not have it.
    No,
    Failed(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
