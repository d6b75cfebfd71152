//! The connection to a broker, on a thread of its own: messages are stamped when they arrive, not when jouled asks. It
//! connects again by itself, ever more rarely.

use super::super::{Failure, LOGIN_PAUSES, LONGEST_PAUSE};
use super::packet::{self, Decoder, Packet};
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::sys::backoff::Backoff;
use crate::sys::https_client::Client;
use crate::sys::mutex::lock;
use crate::sys::secret::Secret;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The broker ends a connection that is silent for one and a half of this; so does jouled, in seconds.
const KEEP_ALIVE: u16 = 30;
/// First pause after a failure.
const FIRST_PAUSE: Nanos = Nanos(2 * Nanos::SECOND.0);

/// What a link needs.
pub(super) struct Wanted {
    pub(super) client: Client,
    pub(super) topic: String,
    /// The name of this client, as no two of a broker may have the same.
    pub(super) name: String,
    pub(super) login: Option<(String, Secret)>,
    pub(super) limit: Duration,
}

/// What arrived.
#[derive(Debug)]
pub(super) struct Inbox {
    /// The last message that was not taken yet.
    pub(super) message: Option<(Vec<u8>, Stamp)>,
    /// When the last message came; before the first, when the topic was subscribed.
    pub(super) heard: Option<Nanos>,
    /// Time between the last two messages.
    pub(super) between: Nanos,
    /// Messages since the subscription.
    pub(super) count: u64,
    /// The broker had a retained message. Its age is not known, so it is no reading.
    pub(super) retained: bool,
    /// Why there is no connection.
    pub(super) failure: Option<Failure>,
}

/// A connection.
pub(super) struct Link {
    pub(super) inbox: Arc<Mutex<Inbox>>,
    stop: CancellationToken,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Link {
    /// Starts the thread. `stop`: ends it, beside the drop.
    pub(super) fn start(wanted: Wanted, stop: &CancellationToken) -> Result<Self, String> {
        let stop = stop.child_token();
        let failure = Some(Failure::absent("no connection yet"));
        let inbox = Inbox { message: None, heard: None, between: Nanos::ZERO, count: 0, retained: false, failure };
        let inbox = Arc::new(Mutex::new(inbox));
        let (shared, cancelled) = (inbox.clone(), stop.clone());
        let runtime = super::super::net::runtime()?;
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stay(&wanted, &shared) => {}
                    () = cancelled.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("mqtt".into()).spawn(run).map_err(|error| format!("no thread: {error}"))?;
        Ok(Self { inbox, stop })
    }
}

/// Connects again and again.
async fn stay(wanted: &Wanted, inbox: &Mutex<Inbox>) {
    let mut retry = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut login_retry = Backoff::new(LOGIN_PAUSES.0, LOGIN_PAUSES.1);
    loop {
        let Err(failure) = listen(wanted, inbox, &mut retry).await;
        let is_login = failure.kind == super::super::FailureKind::Login;
        {
            let mut inbox = lock(inbox);
            (inbox.failure, inbox.heard, inbox.message) = (Some(failure), None, None);
        }
        let pause = if is_login { login_retry.pause() } else { retry.pause() };
        sleep(Duration::from_nanos(pause.0)).await;
    }
}

/// Listens until the connection fails.
async fn listen(
    wanted: &Wanted,
    inbox: &Mutex<Inbox>,
    retry: &mut Backoff<Nanos>,
) -> Result<std::convert::Infallible, Failure> {
    let gone = |error: std::io::Error| Failure::broken(format!("the broker closed the connection: {error}"));
    let ended = || Failure::broken("the broker closed the connection");
    let seconds = wanted.limit.as_secs();
    let silent = || Failure::broken(format!("no answer within {seconds} s: is a broker there?"));
    let mut stream = wanted.client.stream().await?;
    let login = wanted.login.as_ref().map(|(user, secret)| (user.as_str(), secret.reveal()));
    stream.write_all(&packet::connect(&wanted.name, KEEP_ALIVE, login)).await.map_err(gone)?;
    let (mut decoder, mut buffer) = (Decoder::default(), vec![0; 16 << 10]);
    let (mut connected, mut subscribed) = (false, false);
    loop {
        if !connected && !decoder.is_broker() {
            return Err(Failure::unusable("what answers there is no MQTT broker"));
        }
        while let Some(packet) = decoder.next().map_err(Failure::unusable)? {
            match packet {
                Packet::Connected(0) => {
                    connected = true;
                    stream.write_all(&packet::subscribe(&wanted.topic)).await.map_err(gone)?;
                }
                Packet::Connected(code) => return Err(refused(code, login.is_some())),
                Packet::Subscribed(0x80) => {
                    return Err(Failure::login("the broker does not let this user read the topic (SUBACK 0x80)"));
                }
                Packet::Subscribed(_) => {
                    subscribed = true;
                    retry.reset();
                    let mut inbox = lock(inbox);
                    (inbox.failure, inbox.count, inbox.retained) = (None, 0, false);
                    inbox.heard = Some(Stamp::now().monotonic);
                }
                Packet::Message { retained: true, .. } => lock(inbox).retained = true,
                Packet::Message { payload, .. } => {
                    let (now, mut inbox) = (Stamp::now(), lock(inbox));
                    if inbox.count > 0 {
                        inbox.between = inbox.heard.map_or(Nanos::ZERO, |heard| now.monotonic - heard);
                    }
                    (inbox.heard, inbox.message) = (Some(now.monotonic), Some((payload, now)));
                    inbox.count += 1;
                }
                Packet::Other => {}
            }
        }
        let limit = if subscribed { Duration::from_secs(KEEP_ALIVE.into()) } else { wanted.limit };
        let received = match timeout(limit, stream.read(&mut buffer)).await {
            Ok(received) => received.map_err(gone)?,
            Err(_) if subscribed => {
                // It answers a ping, or is gone.
                stream.write_all(&packet::ping()).await.map_err(gone)?;
                timeout(wanted.limit, stream.read(&mut buffer)).await.map_err(|_| silent())?.map_err(gone)?
            }
            Err(_) => return Err(silent()),
        };
        if received == 0 {
            return Err(ended());
        }
        decoder.add(&buffer[..received]);
    }
}

/// The refusals of CONNACK.
fn refused(code: u8, has_login: bool) -> Failure {
    match code {
        4 | 5 if has_login => Failure::login(format!("wrong user or password (CONNACK {code})")),
        4 | 5 => Failure::login(format!("it wants a login (CONNACK {code}): set username and password_file")),
        1 => Failure::unusable("the broker does not speak MQTT 3.1.1 (CONNACK 1)"),
        code => Failure::broken(format!("the broker refuses the connection (CONNACK {code})")),
    }
}
