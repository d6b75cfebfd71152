//! The ledger: the energy and use of every entity, as series that only rise. Pure: it knows no windows, meters or
//! files.
//!
//! A charge to an account at a tick is added to its series if that is shown, else to `rest` of its kind. Energy never
//! moves between series, so rows + rest + ended + parked of a kind is all energy that was ever charged to that kind.

use crate::model::domain::Zone;
pub use crate::model::entity::Limits;
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::Energy;
use crate::model::tenant::MOST_RULES;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::Used;
use rustc_hash::FxHashMap;
use std::sync::Arc;

mod dropped;
mod entries;
mod held;
mod shown;
mod small;
mod view;

use dropped::Dropped;
pub use entries::Entry;

/// As [`Limits::name_wait`], of jobs: how long a job may have processes of its manager alone, usually.
const JOBS_WAIT: Nanos = Nanos(5 * Nanos::SECOND.0);

/// As [`Limits::name_wait`], of containers whose runtime reports names: a moment after the start, and a tick.
const CONTAINERS_WAIT: Nanos = Nanos(2 * Nanos::SECOND.0);

/// As [`Limits::name_wait`], of containers and pods while a look for names is under way: on a machine that is slow, the
/// first looks take longer than the other waits.
const SOUGHT_WAIT: Nanos = Nanos(5 * Nanos::SECOND.0);

/// Which names of containers and pods may come.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamesToCome {
    /// A helper reports names of containers.
    pub reported: bool,
    /// The first looks for a name have not ended.
    pub sought: bool,
}

/// Time for which an entity may await its name; `None`: it awaits none.
fn awaits_name(limits: &Limits, labels: &Labels, to_come: NamesToCome) -> Option<Nanos> {
    let wait = match labels.kind() {
        Kind::Job | Kind::JobStep => JOBS_WAIT,
        Kind::Container if labels.get("pod_id").is_empty() => CONTAINERS_WAIT,
        Kind::Container | Kind::Pod if to_come.reported => limits.name_wait.max(CONTAINERS_WAIT),
        _ => limits.name_wait,
    };
    let wait = labels.awaits_name(to_come.reported).then_some(wait);
    let sought = (to_come.sought && labels.is_name_sought()).then_some(SOUGHT_WAIT);
    wait.max(sought)
}

/// Half-life of an account's score, in ticks.
const SCORE_HALF_LIFE: f64 = 30.0;

/// Identifies an account, the entry of one living entity in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountId {
    /// Index in `Ledger::accounts`. It is reused after the account is closed.
    place: u32,
    /// Serial number: distinguishes accounts that used the same place one after the other.
    number: u64,
}

/// Mean power by zone, in µW: `[dynamic, idle]`.
type Power = [[Microwatts; Zone::COUNT]; 2];

/// A series: the counters that are shown under one set of labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// Energy charged since the series began.
    pub energy: Energy,
    /// Use charged since the series began.
    pub used: Used,
    /// When the series began, CLOCK_REALTIME.
    pub since: Nanos,
}

#[derive(Debug)]
struct Account {
    number: u64,
    labels: Labels,
    /// `None` until it is first shown. Boxed, because most accounts of a large machine never get a series.
    series: Option<Box<Series>>,
    /// Whether the series is shown. A series that made room for a busier one is parked: it is kept and not shown.
    shown: bool,
    /// The series is small: a process has too little energy yet to be shown. It is charged, and ends with a restart.
    small: bool,
    /// It has had enough energy to be shown.
    grown: bool,
    /// The entity has ended, and a window that may charge it is still open.
    ended: bool,
    /// When it was opened, CLOCK_MONOTONIC.
    opened_at: Nanos,
    /// Its counters have been on the metrics page: their labels stay.
    settled: bool,
    /// Labels of its counters on the metrics page; `None`: `labels`.
    first_labels: Option<Labels>,
    /// See [`Row::within`](crate::model::snapshot::Row::within).
    within: Option<Arc<[Labels]>>,
    /// The tick of the last charge.
    tick: u64,
    /// Position of that charge in [`Ledger::charged`].
    charged: u32,
    /// Energy in µJ, halved every [`SCORE_HALF_LIFE`] ticks: the accounts with the highest scores are shown.
    score: f64,
}

/// The charges of one account at this tick.
#[derive(Debug)]
struct TickCharge {
    /// Place of the account.
    account: u32,
    energy: Energy,
    used: Used,
    power: Power,
    /// It has been added to a small series.
    collected: bool,
}

impl TickCharge {
    /// Whether it contains energy or use. A charge with power only does not change the series.
    fn changes_series(&self) -> bool {
        self.energy != Energy::default() || self.used != Used::default()
    }
}

/// The series of an entity that ended.
#[derive(Clone, Debug)]
struct Retired {
    series: Series,
    power: Power,
    /// The tick of `power`. At other ticks the power is zero.
    power_tick: u64,
    /// When the series is dropped, CLOCK_MONOTONIC.
    until: Nanos,
    /// It is of an earlier run: its labels on the metrics page may change once, at the start.
    restored: bool,
    /// Labels of its counters on the metrics page; `None`: those of the series.
    first_labels: Option<Labels>,
    /// As of the account.
    within: Option<Arc<[Labels]>>,
}

/// The series of one kind, and the energy that is not in a shown series.
#[derive(Debug, Default)]
struct KindTotals {
    /// Energy charged to accounts without a shown series.
    rest: Energy,
    rest_power: [Microwatts; Zone::COUNT],
    /// Energy of dropped series.
    ended: Energy,
    /// Energy of parked series.
    parked: Energy,
    /// Energy of small series.
    small: Energy,
    /// Energy that is held until it is known whom it is charged to. Not kept over a restart.
    held: Energy,
    /// Places of the accounts whose series are shown.
    shown: Vec<u32>,
    retired: FxHashMap<Labels, Retired>,
    dropped: Dropped,
}

impl KindTotals {
    /// Shows the power of a charge in the kind's `rest`.
    fn add_rest_power(&mut self, charge: &TickCharge) {
        for zone in 0..Zone::COUNT {
            self.rest_power[zone] += charge.power[0][zone] + charge.power[1][zone];
        }
    }

    /// Labels of the retired series to drop: those whose retention has ended; and if more than `limit` others remain,
    /// the excess, least energy first.
    fn expired(&self, now: Nanos, limit: usize) -> Vec<Labels> {
        let (expired, mut kept): (Vec<_>, Vec<_>) = self.retired.iter().partition(|(_, retired)| retired.until <= now);
        let mut expired: Vec<Labels> = expired.into_iter().map(|(labels, _)| labels.clone()).collect();
        if kept.len() > limit {
            let excess = kept.len() - limit;
            kept.sort_by(|a, b| a.1.series.energy.sum().cmp(&b.1.series.energy.sum()).then(a.0.cmp(b.0)));
            expired.extend(kept.into_iter().take(excess).map(|(labels, _)| labels.clone()));
        }
        expired
    }
}

/// The ledger. A tick is [`Ledger::begin_tick`], then charges, then [`Ledger::commit`], then closing and
/// [`Ledger::expire`].
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    /// By place; `None` where a place is free.
    accounts: Vec<Option<Account>>,
    free: Vec<u32>,
    /// Accounts of kinds with names whose counters have not been on the metrics page.
    unsettled: Vec<AccountId>,
    /// Which names of containers and pods may come now.
    names_to_come: NamesToCome,
    /// What was charged at this tick, at most one entry per account.
    charged: Vec<TickCharge>,
    kinds: [KindTotals; Kind::ALL.len()],
    /// Ticks so far.
    tick: u64,
    /// Accounts opened so far.
    opened: u64,
    /// Time of the tick, CLOCK_MONOTONIC.
    now: Nanos,
    /// Time of the tick, CLOCK_REALTIME.
    realtime: Nanos,
    /// Series that were dropped at this tick.
    dropped: Vec<Labels>,
    /// Kinds whose `rest` or `ended` changed at this tick.
    dirty: [bool; Kind::ALL.len()],
}

impl Ledger {
    /// An empty ledger.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            accounts: Vec::new(),
            free: Vec::new(),
            unsettled: Vec::new(),
            names_to_come: NamesToCome::default(),
            charged: Vec::new(),
            kinds: Default::default(),
            tick: 0,
            opened: 0,
            now: Nanos::ZERO,
            realtime: Nanos::ZERO,
            dropped: Vec::new(),
            dirty: [false; Kind::ALL.len()],
        }
    }

    /// Sets other limits, in force from the next tick on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Most series of a kind that are shown at one time. Tenants are few, and their sum is to be complete.
    fn limit(&self, kind: Kind) -> usize {
        match kind {
            Kind::Tenant => MOST_RULES + 1,
            kind => self.limits.shown[kind.index()] as usize,
        }
    }

    /// Time for which a name or detail of an entity may come late; `None`: none is awaited.
    pub fn awaits_labels(&self, labels: &Labels) -> Option<Nanos> {
        let awaits_details = labels.awaits_details(self.names_to_come.reported).then_some(CONTAINERS_WAIT);
        awaits_name(&self.limits, labels, self.names_to_come).or(awaits_details)
    }

    /// Begins a tick at `now` (CLOCK_MONOTONIC) and `realtime` (CLOCK_REALTIME).
    pub fn begin_tick(&mut self, now: Nanos, realtime: Nanos) {
        self.tick += 1;
        (self.now, self.realtime) = (now, realtime);
        self.charged.clear();
        self.dropped.clear();
        self.dirty = Default::default();
        for totals in &mut self.kinds {
            totals.rest_power = Default::default();
        }
    }

    /// Says which names of containers and pods may come now.
    pub fn expect_names(&mut self, names: NamesToCome) {
        self.names_to_come = names;
    }

    /// Opens an account. The caller ensures that no two open accounts have the same labels.
    ///
    /// If an earlier entity with these labels left a series, the account continues it at once: a counter must not
    /// restart.
    pub fn open(&mut self, labels: Labels) -> AccountId {
        self.opened += 1;
        let settled = labels.kind().name_labels().is_empty();
        let account = Account {
            number: self.opened,
            labels,
            series: None,
            shown: false,
            small: false,
            grown: false,
            ended: false,
            opened_at: self.now,
            settled,
            first_labels: None,
            within: None,
            tick: 0,
            charged: 0,
            score: 0.0,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.accounts[place as usize] = Some(account);
                place
            }
            None => {
                self.accounts.push(Some(account));
                (self.accounts.len() - 1) as u32
            }
        };
        self.resume(place);
        let id = AccountId { place, number: self.opened };
        if !settled {
            self.unsettled.push(id);
        }
        id
    }

    fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id.place as usize)?.as_ref().filter(|account| account.number == id.number)
    }

    fn account_mut(&mut self, id: AccountId) -> Option<&mut Account> {
        self.accounts.get_mut(id.place as usize)?.as_mut().filter(|account| account.number == id.number)
    }

    /// Adds energy of a window of length `time` to an account. Returns false, and adds nothing, if the account is
    /// closed.
    pub fn add_energy(
        &mut self,
        id: AccountId,
        zone: Zone,
        dynamic: Microjoules,
        idle: Microjoules,
        time: Nanos,
    ) -> bool {
        let charge = self.tick_charge(id);
        let open = charge.is_some();
        if let Some(charge) = charge {
            charge.energy.dynamic[zone.index()] += dynamic;
            charge.energy.idle[zone.index()] += idle;
            charge.power[0][zone.index()] += dynamic.over(time);
            charge.power[1][zone.index()] += idle.over(time);
        }
        open
    }

    /// Shows the power of a window that closed at an earlier tick, and adds no energy. Returns false if the account is
    /// closed.
    pub fn show_power(&mut self, id: AccountId, zone: Zone, dynamic: Microwatts, idle: Microwatts) -> bool {
        let charge = self.tick_charge(id);
        let open = charge.is_some();
        if let Some(charge) = charge {
            charge.power[0][zone.index()] += dynamic;
            charge.power[1][zone.index()] += idle;
        }
        open
    }

    /// Shows the power of a window that closed at an earlier tick in a kind's `rest`.
    pub fn show_rest_power(&mut self, kind: Kind, zone: Zone, power: Microwatts) {
        self.kinds[kind.index()].rest_power[zone.index()] += power;
    }

    /// Adds use to an account. Does nothing if the account is closed.
    pub fn add_use(&mut self, id: AccountId, used: &Used) {
        if let Some(charge) = self.tick_charge(id) {
            charge.used.add(used);
        }
    }

    /// Adds energy to a kind's `rest`: energy for which there is no account. `time` is the length of the window.
    pub fn add_rest_energy(&mut self, kind: Kind, zone: Zone, dynamic: Microjoules, idle: Microjoules, time: Nanos) {
        let totals = &mut self.kinds[kind.index()];
        totals.rest.dynamic[zone.index()] += dynamic;
        totals.rest.idle[zone.index()] += idle;
        totals.rest_power[zone.index()] += (dynamic + idle).over(time);
        self.dirty[kind.index()] = true;
    }

    /// The charge of an account at this tick, created by the first call. `None` if the account is closed.
    fn tick_charge(&mut self, id: AccountId) -> Option<&mut TickCharge> {
        let account =
            self.accounts.get_mut(id.place as usize)?.as_mut().filter(|account| account.number == id.number)?;
        if account.tick != self.tick {
            account.score *= 0.5f64.powf((self.tick - account.tick) as f64 / SCORE_HALF_LIFE);
            (account.tick, account.charged) = (self.tick, self.charged.len() as u32);
            self.charged.push(TickCharge {
                account: id.place,
                energy: Energy::default(),
                used: Used::default(),
                power: Default::default(),
                collected: false,
            });
        }
        self.charged.get_mut(account.charged as usize)
    }

    /// Whether an account has a series that is shown.
    pub fn is_shown(&self, id: AccountId) -> bool {
        self.account(id).is_some_and(|account| account.shown)
    }

    /// Labels of an account; `None` if it is closed.
    pub fn labels(&self, id: AccountId) -> Option<&Labels> {
        self.account(id).map(|account| &account.labels)
    }

    /// Sets in what an entity runs: see [`Row::within`](crate::model::snapshot::Row::within).
    pub fn set_within(&mut self, id: AccountId, within: &Arc<[Labels]>) {
        if let Some(account) = self.account_mut(id) {
            account.within = Some(Arc::clone(within));
        }
    }

    /// Gives an account other labels, as when a process executes another program: its series ends, and a new one begins
    /// with the next charge. Charges made earlier in this tick go to the new series.
    pub fn set_labels(&mut self, id: AccountId, labels: Labels) {
        if self.account(id).is_some_and(|account| account.labels != labels) {
            self.retire(id.place);
            if let Some(account) = self.account_mut(id) {
                account.labels = labels;
            }
            self.resume(id.place);
        }
    }

    /// Sets the names of an entity (`labels` are of the same identity; names that they lack stay). Its series goes on.
    /// Once its counters have been on the metrics page, they keep their labels there.
    pub fn rename(&mut self, id: AccountId, labels: &Labels) {
        let Some(account) = self.account_mut(id) else { return };
        if labels.same_values(&account.labels) || *labels != account.labels {
            return;
        }
        let labels = labels.clone().or_names_of(&account.labels);
        let earlier = std::mem::replace(&mut account.labels, labels);
        if account.settled {
            let first = account.first_labels.take().unwrap_or(earlier);
            account.first_labels = (first.values() != account.labels.values()).then_some(first);
        }
    }

    /// Settles the labels of the accounts that are on the metrics page from this tick on.
    fn settle_labels(&mut self) {
        let Self { accounts, unsettled, limits, now, names_to_come, .. } = self;
        unsettled.retain(|id| {
            let account = accounts.get_mut(id.place as usize).and_then(Option::as_mut);
            let Some(account) = account.filter(|account| account.number == id.number) else { return false };
            let wait = awaits_name(limits, &account.labels, *names_to_come);
            let waits = wait.is_some_and(|wait| *now < account.opened_at + wait);
            account.settled |= account.shown && !waits;
            !account.settled
        });
    }

    /// Ends the charges of the tick: chooses which series are shown, then adds the tick's charges to them.
    pub fn commit(&mut self) {
        let mut hidden: [Vec<u32>; Kind::ALL.len()] = Default::default();
        self.collect_small();
        for charge in &self.charged {
            if let Some(account) = self.accounts[charge.account as usize].as_mut() {
                account.score += charge.energy.sum().0 as f64;
                // Power that is only shown again was counted in the score when its window closed.
                if !account.shown && !charge.collected && charge.changes_series() {
                    hidden[account.labels.kind().index()].push(charge.account);
                }
            }
        }
        for (kind, candidates) in Kind::ALL.into_iter().zip(hidden) {
            self.trim(kind);
            self.choose(kind, candidates);
        }
        self.give_up_small();
        for charge in self.charged.iter().filter(|charge| !charge.collected) {
            let Some(account) = self.accounts[charge.account as usize].as_mut() else { continue };
            let kind = account.labels.kind().index();
            let totals = &mut self.kinds[kind];
            match (&mut account.series, account.shown) {
                (Some(series), true) => {
                    series.energy.add(&charge.energy);
                    series.used.add(&charge.used);
                }
                _ => {
                    totals.rest.add(&charge.energy);
                    self.dirty[kind] = true;
                    totals.add_rest_power(charge);
                }
            }
        }
        self.settle_labels();
    }

    /// Sets whether the entity has ended. Its account stays open for windows that may still charge it.
    pub fn set_ended(&mut self, id: AccountId, ended: bool) {
        if let Some(account) = self.account_mut(id) {
            account.ended = ended;
        }
    }

    /// Closes the account of an entity that ended. To be called after [`Ledger::commit`], so that its last charges are
    /// in its series.
    pub fn close(&mut self, id: AccountId) {
        if self.account(id).is_some() {
            self.retire(id.place);
            self.accounts[id.place as usize] = None;
            self.free.push(id.place);
        }
    }

    /// Drops series of ended entities: after [`Limits::retention`], and earlier, least energy first, while there are
    /// more than [`Limits::shown`]. To be called after [`Ledger::commit`].
    pub fn expire(&mut self) {
        let limits = Kind::ALL.map(|kind| self.limit(kind));
        for ((kind, totals), limit) in Kind::ALL.into_iter().zip(&mut self.kinds).zip(limits) {
            for labels in totals.expired(self.now, limit) {
                if let Some(retired) = totals.retired.remove(&labels) {
                    totals.ended.add(&retired.series.energy);
                    self.dirty[kind.index()] = true;
                    if kind == Kind::Process {
                        totals.dropped.insert(&labels, &retired.series);
                    }
                    self.dropped.push(labels);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
