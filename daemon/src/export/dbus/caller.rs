//! The callers: their users as the bus reports them, and how much each user may ask. Keeps calls that wait for the
//! bus's answer about their caller. Sends nothing.

use rustc_hash::FxHashMap;
use std::num::NonZeroU32;
use std::time::Instant;
use zbus::Message;
use zbus::fdo::ConnectionCredentials;
use zbus::names::{OwnedUniqueName, UniqueName};

/// Most callers that are remembered. The bus never reuses a unique name, so what is known about a caller stays true.
/// The bus is asked again about a forgotten one.
const CALLERS: usize = 4096;
/// Most calls that wait for the bus's answer about their caller.
const PARKED: usize = 256;
/// Most waiting calls of one connection.
const PARKED_EACH: usize = 16;
/// Most users whose calls are counted.
const USERS: usize = 1024;
/// Calls a second that one user may make without end. A call costs one more for each [`PAGE`] of its answer, and one
/// more for each [`DEAR`] beyond [`LARGE`].
pub(super) const RATE: u64 = 5_000;
/// Calls that one user may make at once.
pub(super) const BURST: u64 = 20_000;
/// Bytes of an answer that cost as much as a call.
const PAGE: usize = 4096;
/// Bytes beyond which an answer is about many objects, each of which takes time: all of 2,000 units take 27 ms.
const LARGE: usize = 64 << 10;
/// Bytes of a large answer that cost as much as a call.
const DEAR: usize = 512;

/// The caller of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Its user id; `None` where the bus does not know it.
    pub uid: Option<u32>,
    /// Its process id; `None` where the bus does not know it.
    pub pid: Option<u32>,
    /// Whether it gets the fine view: every tick, to the microjoule.
    pub fine: bool,
}

/// A caller that the bus knows nothing about.
pub(super) const STRANGER: Caller = Caller { uid: None, pid: None, fine: false };

/// The user and group that get the fine view, beside root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusted {
    /// Effective user id of jouled.
    pub uid: u32,
    /// Id of the group `group` in `[export.dbus]`; `None` where there is no such group.
    pub gid: Option<u32>,
}

impl Trusted {
    fn caller(&self, credentials: &ConnectionCredentials) -> Caller {
        let uid = credentials.unix_user_id();
        let groups = credentials.unix_group_ids().map_or(&[][..], Vec::as_slice);
        let fine =
            uid.is_some_and(|uid| uid == 0 || uid == self.uid) || self.gid.is_some_and(|gid| groups.contains(&gid));
        Caller { uid, pid: credentials.process_id(), fine }
    }
}

/// All callers of one connection to the bus.
pub(super) struct Callers {
    trusted: Trusted,
    known: FxHashMap<OwnedUniqueName, Caller>,
    /// Names that the bus was asked about, by the serial of the question.
    asked: FxHashMap<NonZeroU32, OwnedUniqueName>,
    parked: FxHashMap<OwnedUniqueName, Vec<Message>>,
    waiting: usize,
    budgets: FxHashMap<Option<u32>, Budget>,
}

/// What happens to a call whose caller is not known yet.
pub(super) enum Parked {
    /// It waits; this question has to be sent to the bus.
    Ask(Message),
    /// It waits for the answer to a question that was sent already.
    Waits,
    /// Too many calls wait already.
    Full,
}

impl Callers {
    pub fn new(trusted: Trusted) -> Self {
        Self {
            trusted,
            known: FxHashMap::default(),
            asked: FxHashMap::default(),
            parked: FxHashMap::default(),
            waiting: 0,
            budgets: FxHashMap::default(),
        }
    }

    /// The caller with this unique name, if it is known.
    pub fn known(&self, name: &UniqueName<'_>) -> Option<Caller> {
        self.known.get(name.as_str()).copied()
    }

    /// Keeps a call until [`Callers::told`] gets the bus's answer about its caller.
    ///
    /// # Errors
    /// Where the question cannot be put into a message.
    pub fn park(&mut self, name: &UniqueName<'_>, call: Message) -> zbus::Result<Parked> {
        let of_this = self.parked.get(name.as_str()).map_or(0, Vec::len);
        if self.waiting >= PARKED || of_this >= PARKED_EACH {
            return Ok(Parked::Full);
        }
        self.waiting += 1;
        let name = OwnedUniqueName::from(name.to_owned());
        if let Some(calls) = self.parked.get_mut(&name) {
            calls.push(call);
            return Ok(Parked::Waits);
        }
        let bus = "org.freedesktop.DBus";
        let question =
            Message::method_call("/org/freedesktop/DBus", "GetConnectionCredentials").destination(bus).interface(bus);
        let question = question.build(&name.as_str())?;
        self.asked.insert(question.primary_header().serial_num(), name.clone());
        self.parked.insert(name, vec![call]);
        Ok(Parked::Ask(question))
    }

    /// Takes the bus's answer to the question `serial`. Returns the calls that waited for it, and their caller. A
    /// caller that the bus does not know, or knows too little about, gets the coarse view.
    pub fn told(
        &mut self,
        serial: NonZeroU32,
        credentials: Option<&ConnectionCredentials>,
    ) -> Option<(Caller, Vec<Message>)> {
        let name = self.asked.remove(&serial)?;
        let caller = credentials.map_or(STRANGER, |credentials| self.trusted.caller(credentials));
        let calls = self.parked.remove(&name).unwrap_or_default();
        self.waiting = self.waiting.saturating_sub(calls.len());
        if self.known.len() >= CALLERS {
            self.known.clear();
        }
        self.known.insert(name, caller);
        Some((caller, calls))
    }

    /// Whether the caller's user has budget left.
    pub fn may_ask(&mut self, caller: Caller, now: Instant) -> bool {
        if self.budgets.len() >= USERS && !self.budgets.contains_key(&caller.uid) {
            self.budgets.clear();
        }
        self.budgets.entry(caller.uid).or_insert_with(|| Budget { left: BURST, at: now }).refill(now) > 0
    }

    /// Subtracts the cost of an answer from the budget of the caller's user.
    pub fn answered(&mut self, caller: Caller, bytes: usize) {
        if let Some(budget) = self.budgets.get_mut(&caller.uid) {
            let cost = 1 + bytes.min(LARGE) / PAGE + bytes.saturating_sub(LARGE) / DEAR;
            budget.left = budget.left.saturating_sub(cost as u64);
        }
    }
}

#[derive(Debug)]
struct Budget {
    left: u64,
    at: Instant,
}

impl Budget {
    fn refill(&mut self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.at).as_micros();
        let more = u64::try_from(passed * u128::from(RATE) / 1_000_000).unwrap_or(BURST);
        if more > 0 {
            (self.left, self.at) = (BURST.min(self.left + more), now);
        }
        self.left
    }
}
