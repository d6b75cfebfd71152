//! One connection to the bus, from acquiring the name to its end: one task that reads one stream of messages and never
//! waits for a single one. The bus' own answers arrive on the same stream as calls, so a task that waited for an answer
//! would stop the stream that brings it.

use super::call::{Call, CallError};
use super::caller::{BURST, Caller, Callers, Parked, RATE, STRANGER, Trusted};
use super::dispatch::{self, Xml};
use super::grain;
use super::history::{self, Question};
use super::signals::{PACE, Signals};
use super::view::View;
use super::{Facts, NAME, PATIENCE, socket};
use crate::export::Snapshots;
use crate::export::epochs::Epochs;
use crate::model::snapshot::Snapshot;
use crate::model::units::Nanos;
use std::convert::Infallible;
use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use zbus::export::futures_core::Stream;
use zbus::fdo::ConnectionCredentials;
use zbus::message::{Flags, Type};
use zbus::{Address, Connection, Message, MessageStream};

const BUS: &str = "org.freedesktop.DBus";
/// Most messages that wait for this task. While it is full nothing is read: further messages wait in the bus, which has
/// its own limits and reports them to the senders.
const QUEUE: NonZeroUsize = NonZeroUsize::new(16).unwrap();
/// Longest message that can be a call of a method here, in bytes.
const LONGEST: usize = 64 << 10;
/// Answers, and time, after which other tasks of the thread get their turn.
const BATCH: (usize, Duration) = (64, Duration::from_millis(2));
/// Most calls that are kept while the name is being acquired.
const EARLY: usize = 64;
/// Most reports and statements that are being made or wait for their turn.
const REPORTS: usize = 16;
/// A report or statement costs its caller as much as an answer that is so many bytes longer: a report of a year takes a
/// fifth of a second of a processor.
const REPORT_BYTES: usize = 1 << 20;

/// A connection that has asked for the name.
pub(super) struct Link {
    connection: Connection,
    stream: MessageStream,
    early: Vec<Message>,
    /// Whether this connection owns the name. Otherwise another process owns it, and this connection is queued for it.
    pub owns: bool,
}

impl Link {
    /// Connects and requests the name.
    ///
    /// # Errors
    /// Where there is no bus, or the bus refuses.
    pub async fn open(bus: zbus::Result<Address>) -> zbus::Result<Self> {
        let bus = bus?;
        let build = async { socket::connect(bus).await?.method_timeout(PATIENCE).max_queued(QUEUE).build().await };
        let connection = within(build).await?;
        let mut link = Self { stream: MessageStream::from(&connection), connection, early: Vec::new(), owns: false };
        let request = Message::method_call("/org/freedesktop/DBus", "RequestName").destination(BUS).interface(BUS);
        // No flags: no other process can take the name over, and a name that is taken is queued for.
        let request = request.build(&(NAME, 0_u32))?;
        within(link.connection.send(&request)).await?;
        let reply = within(link.reply_to(request.primary_header().serial_num())).await?;
        if reply.message_type() == Type::Error {
            return Err(zbus::Error::from(reply));
        }
        // RequestName's reply: 1: owner. 2: in the queue. 4: was the owner already.
        link.owns = matches!(reply.body().deserialize::<u32>()?, 1 | 4);
        Ok(link)
    }

    async fn reply_to(&mut self, serial: NonZeroU32) -> zbus::Result<Message> {
        loop {
            let message = next(&mut self.stream).await?;
            if answers(&message) == Some(serial) {
                return Ok(message);
            }
            if message.message_type() == Type::MethodCall && message.data().len() <= LONGEST && self.early.len() < EARLY
            {
                self.early.push(message);
            }
        }
    }
}

/// The serial of the call that this message of the bus itself answers; `None` for any other message.
fn answers(message: &Message) -> Option<NonZeroU32> {
    let header = message.header();
    let is_reply = matches!(message.message_type(), Type::MethodReturn | Type::Error);
    (is_reply && of_bus(message)).then(|| header.reply_serial()).flatten()
}

fn of_bus(message: &Message) -> bool {
    message.header().sender().is_some_and(|sender| sender.as_str() == BUS)
}

async fn within<T>(work: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    let late = |_| zbus::Error::InputOutput(Arc::new(io::ErrorKind::TimedOut.into()));
    timeout(PATIENCE, work).await.map_err(late)?
}

async fn next(stream: &mut MessageStream) -> zbus::Result<Message> {
    let message = std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await;
    message.unwrap_or_else(|| Err(zbus::Error::InputOutput(Arc::new(io::ErrorKind::UnexpectedEof.into()))))
}

/// The next message, if one has arrived already.
async fn at_hand(stream: &mut MessageStream) -> Option<zbus::Result<Message>> {
    std::future::poll_fn(|context| match Pin::new(&mut *stream).poll_next(context) {
        Poll::Ready(message) => Poll::Ready(message),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The state of one connection.
pub(super) struct Session<'a> {
    facts: &'a Facts,
    callers: Callers,
    xml: Xml,
    snapshot: Arc<Snapshot>,
    /// The fine view: made at the first call that needs it, once for each snapshot.
    fine: Option<View>,
    coarse: View,
    epochs: Epochs,
    signals: Signals,
    owns: bool,
    out: Vec<Message>,
    /// Reports and statements that are being made.
    making: usize,
    made: (mpsc::Sender<Made>, mpsc::Receiver<Made>),
}

/// A finished report or statement: the call, its caller and the answer.
type Made = (Message, Caller, zbus::Result<Message>);

impl<'a> Session<'a> {
    /// A session that starts with the last snapshot.
    pub fn new(facts: &'a Facts, trusted: Trusted, snapshot: Arc<Snapshot>, owns: bool) -> Self {
        let mut epochs = Epochs::default();
        epochs.advance(snapshot.at.monotonic, period(&snapshot));
        Self {
            facts,
            callers: Callers::new(trusted),
            xml: Xml::default(),
            coarse: grain::coarse(View::of(&snapshot), None, grain::coarse_grain().quantum),
            snapshot,
            fine: None,
            epochs,
            signals: Signals::default(),
            owns,
            out: Vec::new(),
            making: 0,
            made: mpsc::channel(REPORTS),
        }
    }

    /// Answers calls until the connection ends. `owns` is called when the name is acquired or lost.
    pub async fn run(mut self, link: Link, snapshots: &mut Snapshots, owns: impl Fn(bool)) -> zbus::Result<Infallible> {
        let Link { connection, mut stream, early, .. } = link;
        for call in early {
            self.take(call)?;
        }
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.flush(&connection).await?;
            let owned = self.owns;
            tokio::select! {
                message = next(&mut stream) => {
                    self.take(message?)?;
                    let (most, longest) = BATCH;
                    let (begun, mut more) = (Instant::now(), true);
                    for _ in 1..most {
                        if begun.elapsed() > longest {
                            break;
                        }
                        let Some(message) = at_hand(&mut stream).await else {
                            more = false;
                            break;
                        };
                        self.take(message?)?;
                    }
                    self.flush(&connection).await?;
                    if more {
                        // The bus may always have more messages: scrapes, on the same thread, get their turn.
                        tokio::task::yield_now().await;
                    }
                }
                changed = snapshots.changed() => match changed {
                    Ok(()) => {
                        let snapshot = Arc::clone(&snapshots.borrow_and_update());
                        self.step(snapshot);
                    }
                    // The sampler ended, so jouled ends soon.
                    Err(_) => std::future::pending().await,
                },
                Some((call, caller, answer)) = self.made.1.recv() => {
                    self.making = self.making.saturating_sub(1);
                    let answer = answer?;
                    self.callers.answered(caller, answer.data().len() + REPORT_BYTES);
                    self.reply(&call, answer);
                }
                _ = pace.tick(), if !self.signals.is_empty() => self.out = self.signals.portion(&self.coarse)?,
            }
            if self.owns != owned {
                owns(self.owns);
            }
        }
    }

    async fn flush(&mut self, connection: &Connection) -> zbus::Result<()> {
        if !self.out.is_empty() {
            within(connection.send_all(&self.out)).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Takes in the next snapshot.
    fn step(&mut self, snapshot: Arc<Snapshot>) {
        let period = period(&snapshot);
        self.snapshot = snapshot;
        self.fine = None;
        let at = self.snapshot.at.monotonic;
        if self.epochs.are_due(at) {
            self.epochs.advance(at, period);
            let coarse = grain::coarse(View::of(&self.snapshot), Some(&self.coarse), grain::coarse_grain().quantum);
            let before = std::mem::replace(&mut self.coarse, coarse);
            if self.owns {
                self.signals.epoch(before, &self.coarse, Duration::from_nanos(period.0));
            }
        }
    }

    /// Handles one message; replies are added to `out`.
    fn take(&mut self, message: Message) -> zbus::Result<()> {
        match message.message_type() {
            Type::MethodCall => self.call(message)?,
            Type::MethodReturn | Type::Error => {
                if let Some(serial) = answers(&message) {
                    let credentials = message.body().deserialize::<ConnectionCredentials>().ok();
                    let credentials = credentials.filter(|_| message.message_type() == Type::MethodReturn);
                    let (caller, calls) =
                        self.callers.told(serial, credentials.as_ref()).unwrap_or((STRANGER, Vec::new()));
                    for call in calls {
                        self.answer(&call, caller)?;
                    }
                }
            }
            Type::Signal if of_bus(&message) => {
                let body = message.body();
                let about_us = body.deserialize::<&str>().is_ok_and(|name| name == NAME);
                match message.header().member().map(|member| member.as_str()) {
                    Some("NameAcquired") if about_us => self.owns = true,
                    Some("NameLost") if about_us => self.owns = false,
                    _ => {}
                }
            }
            Type::Signal => {}
        }
        Ok(())
    }

    fn call(&mut self, message: Message) -> zbus::Result<()> {
        let header = message.header();
        // The bus adds the sender to every message.
        let Some(sender) = header.sender() else { return Ok(()) };
        if message.data().len() > LONGEST {
            let why = format!("no method here takes more than {LONGEST} bytes");
            return self.refuse(&message, &CallError::limits(why));
        }
        match self.callers.known(sender) {
            Some(caller) => self.answer(&message, caller),
            None => match self.callers.park(sender, message.clone())? {
                Parked::Ask(question) => {
                    self.out.push(question);
                    Ok(())
                }
                Parked::Waits => Ok(()),
                Parked::Full => {
                    self.refuse(&message, &CallError::limits("too many callers that are not known yet: try again"))
                }
            },
        }
    }

    fn answer(&mut self, message: &Message, caller: Caller) -> zbus::Result<()> {
        if !self.callers.may_ask(caller, Instant::now()) {
            let why = format!(
                "more than {RATE} calls a second of one user ({BURST} at once): ask for more with each (GetAll, ListUnits, \
                 GetManagedObjects), or follow PropertiesChanged"
            );
            return self.refuse(message, &CallError::limits(why));
        }
        let view = if caller.fine { self.fine.get_or_insert_with(|| View::of(&self.snapshot)) } else { &self.coarse };
        let header = message.header();
        let call = Call { message, header: &header, view, caller, facts: self.facts };
        match history::asked(&call) {
            Some(Ok(question)) => return self.make(message, caller, question),
            Some(Err(error)) => return self.refuse(message, &error),
            None => {}
        }
        let answer = dispatch::answer(&call, &self.xml)?;
        self.callers.answered(caller, answer.data().len());
        self.reply(message, answer);
        Ok(())
    }

    /// Lets another thread read the history; [`Session::run`] sends the answer.
    fn make(&mut self, message: &Message, caller: Caller, question: Question) -> zbus::Result<()> {
        if self.making >= REPORTS {
            return self.refuse(message, &CallError::limits(format!("{REPORTS} reports are being made: try again")));
        }
        self.making += 1;
        let (reports, snapshot) = (self.facts.reports.clone(), Arc::clone(&self.snapshot));
        let (message, made) = (message.clone(), self.made.0.clone());
        tokio::spawn(async move {
            let answer = history::answer(question, &reports, snapshot, &message, caller).await;
            // Where the session has ended, nobody waits for it.
            let _ = made.send((message, caller, answer)).await;
        });
        Ok(())
    }

    fn refuse(&mut self, message: &Message, error: &CallError) -> zbus::Result<()> {
        let reply = error.reply(&message.header())?;
        self.reply(message, reply);
        Ok(())
    }

    fn reply(&mut self, to: &Message, reply: Message) {
        if !to.primary_header().flags().contains(Flags::NO_REPLY_EXPECTED) {
            self.out.push(reply);
        }
    }
}

/// Period of the coarse view.
fn period(snapshot: &Snapshot) -> Nanos {
    grain::coarse_grain().period.max(snapshot.host.interval)
}
