//! The places of connections: how many there may be of each peer and of all, which one is closed to make room, and for
//! how long an answer may be held. Knows no protocol.
//!
//! A connection has a place, or waits for one. Where a peer has its share, or all places are taken, a new connection
//! gets the place of another one, in this order: connections that wait for a request and were never given a page (so
//! every one without the right password), then those of the peer with the most connections: idle ones, then those whose
//! reader stands still, then any, if that peer has at least two more than the new one's. One whose client has not sent
//! all of its request's body waits for a request.

use super::peer::Peer;
use crate::sys::mutex::lock;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Time without progress after which a reader may have to make room for another connection.
const STANDS_STILL: Duration = Duration::from_millis(250);
/// Time without progress of an answer after which its connection is closed.
const NO_PROGRESS: Duration = Duration::from_secs(10);
/// Time for a whole answer, except an endless one.
const ANSWER: Duration = Duration::from_secs(60);
/// Time for which a connection waits for a place.
const WAIT: Duration = Duration::from_secs(5);

/// Most connections.
#[derive(Clone, Copy, Debug)]
pub(in crate::export) struct Limits {
    /// Of all peers together.
    pub all: usize,
    /// Of each peer.
    pub each: usize,
    /// Further connections of each peer that wait for a place; four times as many of all. Nothing is read from them.
    pub waiting: usize,
}

/// All places of one server.
pub(in crate::export) struct Places {
    limits: Limits,
    open: Mutex<Open>,
    /// Told when a place may have become free.
    room: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    taken: BTreeMap<u64, Arc<Seat>>,
    waiting: FxHashMap<Peer, usize>,
}

/// One connection that has a place.
pub(in crate::export) struct Seat {
    /// Its owner.
    pub peer: Peer,
    /// Cancelled when it has to make room, or held an answer for too long.
    pub closed: CancellationToken,
    state: Mutex<State>,
}

struct State {
    /// It was given a page, so it is not one without the right password.
    served: bool,
    /// Requests without a complete answer.
    requests: usize,
    /// Those of which the answer is not made yet: the reader waits for it, not the other way round.
    unmade: usize,
    /// Those of which the client has not sent the body yet.
    unsent: usize,
    /// The transport takes no more bytes.
    blocked: bool,
    /// An endless answer has nothing to send now.
    waits: bool,
    /// Start of the answers that are under way; else end of the last one.
    since: Instant,
    /// Last progress of an answer.
    moved: Instant,
}

impl State {
    fn is_active(&self) -> bool {
        self.requests > self.unsent || self.blocked
    }

    fn stands_still_for(&self, now: Instant) -> Duration {
        if (self.waits || self.unmade > 0) && !self.blocked { Duration::ZERO } else { now - self.moved }
    }
}

/// How readily a connection is closed for another one: the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Unserved,
    Idle,
    StandsStill,
    Active,
}

/// A place. It is free again when this is dropped.
pub(in crate::export) struct Place {
    places: Arc<Places>,
    number: u64,
    pub seat: Arc<Seat>,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.open).taken.remove(&self.number);
        self.places.room.notify_waiters();
    }
}

/// A place in the queue of connections that wait for a place.
pub(in crate::export) struct Queued {
    places: Arc<Places>,
    peer: Peer,
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut open = lock(&self.places.open);
        if let Some(count) = open.waiting.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.waiting.remove(&self.peer);
            }
        }
    }
}

impl Queued {
    /// Waits for a place; `None` where there is none within [`WAIT`].
    pub async fn place(self) -> Option<Place> {
        let wait = async {
            loop {
                let room = self.places.room.notified();
                if let Some(place) = self.places.admit(self.peer) {
                    return place;
                }
                // A reader that stands still is not announced.
                let _ = timeout(STANDS_STILL / 4, room).await;
            }
        };
        timeout(WAIT, wait).await.ok()
    }
}

impl Places {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default(), room: Notify::new() })
    }

    /// Number of places that are taken.
    pub fn taken(&self) -> usize {
        lock(&self.open).taken.len()
    }

    /// A place for a connection of `peer`. `None` where no other connection can be closed for it now.
    pub fn admit(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let now = Instant::now();
        let mut open = lock(&self.open);
        let own = open.taken.values().filter(|seat| seat.peer == peer).count();
        if own >= self.limits.each {
            open.close_one(now, peer, own, |seat| seat.peer == peer)?;
        } else if open.taken.len() >= self.limits.all {
            open.close_one(now, peer, own, |_| true)?;
        }
        let state = State {
            served: false,
            requests: 0,
            unmade: 0,
            unsent: 0,
            blocked: false,
            waits: false,
            since: now,
            moved: now,
        };
        let seat = Arc::new(Seat { peer, closed: CancellationToken::new(), state: Mutex::new(state) });
        let number = open.next;
        open.next += 1;
        open.taken.insert(number, Arc::clone(&seat));
        Some(Place { places: Arc::clone(self), number, seat })
    }

    /// A place in the queue; `None` where it is full.
    pub fn queue(self: &Arc<Self>, peer: Peer) -> Option<Queued> {
        let mut open = lock(&self.open);
        let all: usize = open.waiting.values().sum();
        let own = open.waiting.entry(peer).or_default();
        if *own >= self.limits.waiting || all >= 4 * self.limits.waiting {
            return None;
        }
        *own += 1;
        Some(Queued { places: Arc::clone(self), peer })
    }

    /// Closes the connections that hold an answer which began before `time`.
    pub fn close_readers_since_before(&self, time: Instant) {
        for seat in lock(&self.open).taken.values() {
            let state = lock(&seat.state);
            let holds = state.blocked || state.requests > state.unmade;
            if holds && state.since < time {
                seat.closed.cancel();
            }
        }
    }
}

impl Open {
    /// Closes one of `among` for a connection of `peer`, which has `own` already.
    fn close_one(&mut self, now: Instant, peer: Peer, own: usize, among: impl Fn(&Seat) -> bool) -> Option<()> {
        let mut counts: FxHashMap<Peer, usize> = FxHashMap::default();
        for seat in self.taken.values() {
            *counts.entry(seat.peer).or_default() += 1;
        }
        let rank = |seat: &Seat| {
            let (used, since) = seat.used(now);
            let count = counts.get(&seat.peer).copied().unwrap_or_default();
            // Connections that were never served go first, whoever has them.
            (used != Use::Unserved, Reverse(count), used, since)
        };
        let seats = self.taken.iter().filter(|(_, seat)| among(seat));
        let (number, seat) = seats.min_by_key(|(_, seat)| rank(seat))?;
        let count = counts.get(&seat.peer).copied().unwrap_or_default();
        if seat.used(now).0 == Use::Active && (seat.peer == peer || count < own + 2) {
            return None;
        }
        seat.closed.cancel();
        let number = *number;
        self.taken.remove(&number);
        Some(())
    }
}

impl Seat {
    fn used(&self, now: Instant) -> (Use, Instant) {
        let state = lock(&self.state);
        match state.is_active() {
            true if state.stands_still_for(now) >= STANDS_STILL => (Use::StandsStill, state.moved),
            true => (Use::Active, state.moved),
            false if state.served => (Use::Idle, state.since),
            false => (Use::Unserved, state.since),
        }
    }

    /// Begins an answer.
    pub fn begin(self: &Arc<Self>) -> Answering {
        let now = Instant::now();
        let mut state = lock(&self.state);
        if !state.is_active() {
            state.since = now;
        }
        state.requests += 1;
        state.unmade += 1;
        (state.moved, state.waits) = (now, false);
        drop(state);
        Answering { seat: Arc::clone(self), made: false }
    }

    /// Notes whether the body of one more request is awaited from the client, or of one fewer.
    pub fn awaits_body(&self, awaits: bool) {
        let mut state = lock(&self.state);
        match awaits {
            true => state.unsent += 1,
            false => state.unsent -= 1,
        }
        if !awaits {
            state.moved = Instant::now();
        }
    }

    /// Notes whether the transport takes bytes.
    pub fn blocked(&self, blocked: bool) {
        let mut state = lock(&self.state);
        if state.blocked != blocked {
            state.blocked = blocked;
            if !state.is_active() {
                state.since = Instant::now();
            }
        }
    }

    /// Returns when an answer is held for too long, or when the connection has to make room.
    pub async fn overdue(&self) {
        let late = async {
            loop {
                tokio::time::sleep(NO_PROGRESS / 2).await;
                let (now, state) = (Instant::now(), lock(&self.state));
                let whole = if state.waits { Duration::ZERO } else { now - state.since };
                if state.is_active() && (state.stands_still_for(now) >= NO_PROGRESS || whole >= ANSWER) {
                    break;
                }
            }
        };
        tokio::select! {
            () = late => {}
            () = self.closed.cancelled() => {}
        }
    }
}

/// An answer that is under way, until this is dropped.
pub(in crate::export) struct Answering {
    seat: Arc<Seat>,
    made: bool,
}

impl Answering {
    /// The answer is there and is sent from now on; `served` says whether it is a page, not an error.
    pub fn sending(&mut self, served: bool) {
        let now = Instant::now();
        let mut state = lock(&self.seat.state);
        state.served |= served;
        if !std::mem::replace(&mut self.made, true) {
            state.unmade -= 1;
        }
        if state.requests == 1 && !state.blocked {
            state.since = now;
        }
        state.moved = now;
    }

    /// A part of the answer was taken. `renew`: it holds nothing of what was sent before.
    pub fn moved(&self, renew: bool) {
        let now = Instant::now();
        let mut state = lock(&self.seat.state);
        (state.moved, state.waits) = (now, false);
        if renew {
            state.since = now;
        }
    }

    /// All that there is was taken; more will come.
    pub fn waits(&self) {
        lock(&self.seat.state).waits = true;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = lock(&self.seat.state);
        state.requests -= 1;
        if !self.made {
            state.unmade -= 1;
        }
        (state.moved, state.waits) = (Instant::now(), false);
        if !state.is_active() {
            state.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { all: 8, each: 4, waiting: 2 };

    fn user(id: u32) -> Peer {
        Peer::User(id)
    }

    fn fill(places: &Arc<Places>, peer: Peer, count: usize) -> Vec<Place> {
        (0..count).map(|_| places.admit(peer).unwrap()).collect()
    }

    fn sending(place: &Place) -> Answering {
        let mut answer = place.seat.begin();
        answer.sending(true);
        answer
    }

    fn closed(places: &[Place]) -> Vec<usize> {
        (0..places.len()).filter(|at| places[*at].seat.closed.is_cancelled()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_takes_places_of_its_own_only() {
        let places = Places::new(LIMITS);
        let other = fill(&places, user(1), 1);
        let mine = fill(&places, user(2), 50);
        assert_eq!((closed(&mine).len(), closed(&other).len(), places.taken()), (46, 0, 5));
        // The oldest went first.
        assert_eq!(closed(&mine), (0..46).collect::<Vec<_>>());
        drop(mine);
        assert_eq!(places.taken(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_were_never_served_make_room_first() {
        let places = Places::new(LIMITS);
        let served = fill(&places, user(1), 4);
        served.iter().for_each(|place| place.seat.begin().sending(true));
        let refused = fill(&places, user(2), 4);
        refused.iter().for_each(|place| place.seat.begin().sending(false));
        let _new = places.admit(user(3)).unwrap();
        assert_eq!((closed(&served), closed(&refused)), (vec![], vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_under_way_are_kept_while_they_move() {
        let places = Places::new(LIMITS);
        let busy = fill(&places, user(1), 4);
        let answers: Vec<_> = busy.iter().map(sending).collect();
        assert!(places.admit(user(1)).is_none());
        tokio::time::advance(STANDS_STILL).await;
        answers[1..].iter().for_each(|answer| answer.moved(false));
        let waiting: Vec<_> = (0..3).filter_map(|_| places.queue(user(1))).collect();
        assert_eq!(waiting.len(), LIMITS.waiting);
        let place = waiting.into_iter().next().unwrap().place().await.unwrap();
        assert_eq!((closed(&busy), places.taken()), (vec![0], 4));
        drop(place);
        // Other peers may have as many each, but not more than their part when all places are taken.
        let more: Vec<_> = fill(&places, user(2), 4);
        let _answers: Vec<_> = more.iter().map(|place| place.seat.begin()).collect();
        answers.iter().for_each(|answer| answer.moved(false));
        let third = places.admit(user(3)).unwrap();
        let _asks = third.seat.begin();
        let _fourth = places.admit(user(4)).unwrap();
        assert_eq!(closed(&more).len() + closed(&busy).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_sent_the_body_makes_room() {
        let places = Places::new(LIMITS);
        let slow = fill(&places, user(1), 4);
        let _answers: Vec<_> = slow.iter().map(|place| place.seat.begin()).collect();
        assert!(places.admit(user(1)).is_none());
        slow[1..].iter().for_each(|place| place.seat.awaits_body(true));
        let _scrape = places.admit(user(1)).unwrap();
        // What came meanwhile is answered.
        slow[2].seat.awaits_body(false);
        let _next = places.admit(user(1)).unwrap();
        assert_eq!(closed(&slow), [1, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_not_held_for_ever() {
        let places = Places::new(LIMITS);
        let [still, slow, endless] = [1, 2, 3].map(|id| places.admit(user(id)).unwrap());
        let answers = [&still, &slow, &endless].map(sending);
        answers[2].waits();
        let crawl = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                answers[1].moved(false);
            }
        };
        let after = |place: Place| async move {
            let begin = Instant::now();
            tokio::select! {
                () = place.seat.overdue() => begin.elapsed().as_secs(),
                () = tokio::time::sleep(Duration::from_secs(1000)) => u64::MAX,
            }
        };
        let all = async { tokio::join!(after(still), after(slow), after(endless)) };
        let (still, slow, endless) = tokio::select! {
            all = all => all,
            () = crawl => panic!("endless"),
        };
        assert!((10..=15).contains(&still) && (60..=65).contains(&slow) && endless == u64::MAX, "{still} {slow}");
    }
}
