//! Who asks, as the bus vouches for it, and how much each user may ask. Keeps what waits for the bus's word; sends nothing.

use rustc_hash::FxHashMap;
use std::num::NonZeroU32;
use std::time::Instant;
use zbus::Message;
use zbus::fdo::ConnectionCredentials;
use zbus::names::{OwnedUniqueName, UniqueName};

/// Callers that are remembered. The bus never gives a name again, so what is known of one stays true; who is forgotten is asked for again.
const CALLERS: usize = 4096;
/// Calls that wait until it is known who makes them.
const PARKED: usize = 256;
/// Of them, those of one connection.
const PARKED_EACH: usize = 16;
/// Users whose calls are counted.
const USERS: usize = 1024;
/// Calls a second of one user, for as long as they like. One counts more by each [`PAGE`] of its answer, and by each [`DEAR`] beyond
/// [`LARGE`].
pub(super) const RATE: u64 = 5_000;
/// Calls that may come at once.
pub(super) const BURST: u64 = 20_000;
/// So many bytes of an answer cost as much as a call.
const PAGE: usize = 4096;
/// A longer answer is of many objects, each of which takes time: all of 2,000 units take 27 ms.
const LARGE: usize = 64 << 10;
/// So many bytes of it cost as much as a call.
const DEAR: usize = 512;

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Its user; `None`: the bus does not say.
    pub uid: Option<u32>,
    /// Its process.
    pub pid: Option<u32>,
    /// Whether it is told every tick, to the microjoule.
    pub fine: bool,
}

/// Of whom the bus says nothing.
pub(super) const STRANGER: Caller = Caller { uid: None, pid: None, fine: false };

/// Who is told all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusted {
    /// jouled's own user.
    pub uid: u32,
    /// The group.
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
    /// Questions to the bus, by serial.
    asked: FxHashMap<NonZeroU32, OwnedUniqueName>,
    parked: FxHashMap<OwnedUniqueName, Vec<Message>>,
    waiting: usize,
    budgets: FxHashMap<Option<u32>, Budget>,
}

/// What becomes of a call whose maker is not known.
pub(super) enum Parked {
    /// It waits; this question goes to the bus.
    Ask(Message),
    /// It waits for an answer to a question that is under way.
    Waits,
    /// There is no room for it.
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

    /// Who has this name on the bus, where that is known.
    pub fn known(&self, name: &UniqueName<'_>) -> Option<Caller> {
        self.known.get(name.as_str()).copied()
    }

    /// Keeps a call until [`Callers::told`] knows who makes it.
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

    /// Takes the bus's answer to one of the questions: the calls that waited for it, and who made them. Whom the bus does not know, or
    /// does not say enough of, is told what everybody is.
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

    /// Whether a user may ask now.
    pub fn may_ask(&mut self, caller: Caller, now: Instant) -> bool {
        if self.budgets.len() >= USERS && !self.budgets.contains_key(&caller.uid) {
            self.budgets.clear();
        }
        self.budgets.entry(caller.uid).or_insert_with(|| Budget { left: BURST, at: now }).refill(now) > 0
    }

    /// Notes what an answer cost.
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
