//! Questions to one SNMP agent over UDP, version 2c or 3: one GET at a time, sent again once where no answer comes.
//! Answers to other questions, and ones that are not signed as they have to be, are passed over. Knows no meter.

use super::super::Failure;
use super::ber::{self, OCTETS, Oid, Pdu, RESPONSE, Reader, SEQUENCE, Value};
use super::usm::{self, Engine, Refusal, User};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

/// Longest answer that is read, in bytes: those to a few numbers have some hundreds.
pub(super) const LONGEST: usize = 8192;
/// Version 2c, as it is encoded.
const VERSION_2C: i64 = 1;
/// A request is sent so often within the time limit: UDP loses some.
const SENDS: u32 = 2;

/// How jouled logs in.
#[derive(Clone)]
pub(super) enum Login {
    /// Version 2c: with a community.
    Community(Vec<u8>),
    /// Version 3.
    User(User),
}

/// A socket, and what is known of the agent behind it.
pub(super) struct Session {
    socket: UdpSocket,
    login: Login,
    engine: Option<Engine>,
    /// Number of the next request.
    next: i32,
    /// Counts messages that are encrypted.
    salt: u64,
    limit: Duration,
}

impl Session {
    /// Sends nothing yet. `limit`: for each answer.
    pub(super) async fn open(host: &str, port: u16, login: Login, limit: Duration) -> Result<Self, Failure> {
        let seconds = limit.as_secs();
        let found = timeout(limit, lookup_host((host, port))).await;
        let found = found.map_err(|_| Failure::broken(format!("no address of {host} within {seconds} s")))?;
        let mut found = found.map_err(|error| Failure::broken(format!("no address of {host}: {error}")))?;
        let address = found.next().ok_or_else(|| Failure::broken(format!("no address of {host}")))?;
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let fail = |error| Failure::broken(format!("no UDP socket: {error}"));
        let socket = UdpSocket::bind(local).await.map_err(fail)?;
        // From now on only datagrams of the agent arrive.
        socket.connect(address).await.map_err(fail)?;
        let mut random = [0; 12];
        SystemRandom::new().fill(&mut random).map_err(|_| Failure::broken("no random number"))?;
        let [a, b, c, d, salt @ ..] = random;
        let next = i32::from_be_bytes([a & 0x3f, b, c, d]);
        Ok(Self { socket, login, engine: None, next, salt: u64::from_be_bytes(salt), limit })
    }

    /// The values of these OIDs, in their order.
    pub(super) async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Value>, Failure> {
        let pdu = self.ask(oids).await?;
        match pdu.status {
            0 => pdu.answers(oids).ok_or_else(|| Failure::unusable("it answers to other OIDs than were asked for")),
            // tooBig, and noSuchName of agents that are older than their version.
            1 | 2 if oids.len() > 1 => {
                let mut values = Vec::with_capacity(oids.len());
                for oid in oids {
                    values.extend(Box::pin(self.get(std::slice::from_ref(oid))).await?);
                }
                Ok(values)
            }
            2 => Ok(vec![Value::None]),
            6 | 16 => Err(Failure::login("the agent allows this login to read none of it (noAccess): see its views")),
            status => Err(Failure::unusable(format!("the agent answers with error-status {status}"))),
        }
    }

    fn number(&mut self) -> i32 {
        self.next = self.next.checked_add(1).unwrap_or(1);
        self.next
    }

    async fn ask(&mut self, oids: &[Oid]) -> Result<Pdu, Failure> {
        let number = self.number();
        match self.login.clone() {
            Login::Community(community) => {
                let parts = [ber::integer(VERSION_2C), ber::octets(&community), ber::get(number, oids)];
                let bytes = ber::wrap(SEQUENCE, &parts);
                let accept = |bytes: &[u8]| plain(bytes, number);
                self.exchange(&bytes, accept).await?.map_err(|refusal| self.failure(refusal))
            }
            Login::User(user) => self.ask_signed(&user, oids).await,
        }
    }

    async fn ask_signed(&mut self, user: &User, oids: &[Oid]) -> Result<Pdu, Failure> {
        let mut repeated = false;
        loop {
            let mut engine = match self.engine.take() {
                Some(engine) => engine,
                None => self.discover(user).await?,
            };
            let number = self.number();
            self.salt = self.salt.wrapping_add(1);
            let sealed = usm::seal(user, &engine, number, self.salt.to_be_bytes(), &ber::get(number, oids));
            let bytes = sealed.ok_or_else(|| Failure::unusable("the agent's clock cannot be right"))?;
            let answer = self.exchange(&bytes, |bytes| usm::open(user, &mut engine, number, bytes)).await?;
            match answer {
                Ok(pdu) if pdu.kind != RESPONSE || pdu.request != i64::from(number) => {
                    return Err(self.failure(Refusal::Garbage));
                }
                Ok(pdu) => {
                    self.engine = Some(engine);
                    return Ok(pdu);
                }
                // It was started again, or replaced.
                Err(Refusal::Clock) if !repeated => self.engine = Some(engine),
                Err(Refusal::OtherEngine) if !repeated => {}
                Err(refusal) => return Err(self.failure(refusal)),
            }
            repeated = true;
        }
    }

    async fn discover(&mut self, user: &User) -> Result<Engine, Failure> {
        let number = self.number();
        let bytes = usm::discovery(number);
        let found = self.exchange(&bytes, |bytes| usm::discovered(user, number, bytes)).await?;
        found.map_err(|refusal| self.failure(refusal))
    }

    /// Sends a request until an answer is accepted, or refused.
    async fn exchange<T>(
        &self,
        request: &[u8],
        mut accept: impl FnMut(&[u8]) -> Result<T, Refusal>,
    ) -> Result<Result<T, Refusal>, Failure> {
        let mut buffer = vec![0; LONGEST + 1];
        let mut passed_over = None;
        for _ in 0..SENDS {
            let end = Instant::now() + self.limit / SENDS;
            self.socket.send(request).await.map_err(|error| unreachable(&error))?;
            while let Ok(received) = timeout_at(end, self.socket.recv(&mut buffer)).await {
                let length = received.map_err(|error| unreachable(&error))?;
                if length > LONGEST {
                    return Err(Failure::unusable(format!("its answer is longer than {LONGEST} bytes: not read")));
                }
                match accept(&buffer[..length]) {
                    Err(refusal @ (Refusal::Late | Refusal::Forged)) => passed_over = Some(refusal),
                    answer => return Ok(answer),
                }
            }
        }
        let seconds = self.limit.as_secs();
        let hint = match (&self.login, passed_over) {
            (_, Some(Refusal::Forged)) => "answers came that are not signed and encrypted with these passwords",
            (_, Some(_)) => "answers to other requests came",
            (Login::Community(_), _) => "is address right? To a wrong community agents do not answer",
            (Login::User(user), _) if user.privacy.is_some() => {
                "is address right? To a wrong privacy password some agents do not answer"
            }
            (Login::User(_), _) => "is address right?",
        };
        Err(Failure::broken(format!("no answer within {seconds} s: {hint}")))
    }

    fn failure(&self, refusal: Refusal) -> Failure {
        match refusal {
            Refusal::User => Failure::login("the agent knows no user of this name (usmStatsUnknownUserNames)"),
            Refusal::Password => Failure::login("wrong password, or auth is another (usmStatsWrongDigests)"),
            Refusal::PrivacyPassword => {
                Failure::login("wrong privacy password, or privacy is another (usmStatsDecryptionErrors)")
            }
            Refusal::Level => {
                Failure::login("the agent wants privacy for this user, or has none (usmStatsUnsupportedSecLevels)")
            }
            Refusal::Garbage => Failure::unusable(match self.login {
                Login::Community(_) => "what answers there is no SNMP agent of version 2c",
                Login::User(_) => "what answers there is no SNMP agent of version 3",
            }),
            Refusal::Clock => Failure::broken("the agent's clock jumps (usmStatsNotInTimeWindows)"),
            Refusal::OtherEngine => Failure::broken("the agent's engine id changes"),
            Refusal::Late | Refusal::Forged => Failure::broken("its answers are to other requests"),
        }
    }
}

fn unreachable(error: &std::io::Error) -> Failure {
    Failure::broken(format!("nothing answers there ({error})"))
}

/// An answer in version 2c.
fn plain(bytes: &[u8], number: i32) -> Result<Pdu, Refusal> {
    let read = || {
        let mut message = Reader(Reader(bytes).expect(SEQUENCE)?);
        if message.integer()? != VERSION_2C {
            return None;
        }
        message.expect(OCTETS)?;
        message.pdu().filter(|pdu| pdu.kind == RESPONSE)
    };
    let pdu = read().ok_or(Refusal::Garbage)?;
    if pdu.request == i64::from(number) { Ok(pdu) } else { Err(Refusal::Late) }
}
