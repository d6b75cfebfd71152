//! The ledger: what every entity was charged, as series that only rise. Pure; knows of windows, meters and files nothing.
//!
//! Increments go to the series that shows the entity at that tick, or to the kind's `rest`. No history moves between series, so
//! that rows + rest + ended + parked of a kind is all that was ever charged to it.

use crate::model::domain::Zone;
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{Energy, KindView, Row, State, Used};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

mod kept;
mod shown;

pub use kept::Entry;

/// An account of a living entity: its place in the ledger, and its number among all that ever were, as places are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountId {
    /// Place in the ledger. A place is used again when its account is closed.
    place: u32,
    /// Number among all accounts that were ever opened; tells the accounts of one place apart.
    number: u64,
}

/// Mean power by zone: dynamic, idle.
type Power = [[Microwatts; Zone::COUNT]; 2];

/// A series: what is shown under one set of labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Energy charged since it began.
    pub energy: Energy,
    /// Use charged since it began.
    pub used: Used,
    /// When it began, CLOCK_REALTIME.
    pub since: Nanos,
}

/// Limits of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most series of living entities shown at a time, by kind in the order of [`Kind::ALL`].
    pub shown: [u32; Kind::ALL.len()],
    /// Time for which the series of an ended entity stays.
    pub retention: Nanos,
}

#[derive(Debug)]
struct Account {
    number: u64,
    kind: Kind,
    labels: Labels,
    /// Apart, because most accounts of a large machine never have one.
    series: Option<Box<Series>>,
    /// Whether the series is shown; a series that made room for a busier one is parked.
    shown: bool,
    /// The entity is no more, and a window that saw it is still open.
    over: bool,
    /// The tick at which it was last charged, and where in that tick's charges.
    tick: u64,
    charged: u32,
    /// Energy, older parts fading: what decides who is shown.
    score: f64,
}

/// What an account was charged at this tick.
#[derive(Debug)]
struct Charged {
    account: u32,
    energy: Energy,
    used: Used,
    power: Power,
}

impl Charged {
    /// Whether there is anything but power in it.
    fn changed(&self) -> bool {
        self.energy != Energy::default() || self.used != Used::default()
    }
}

#[derive(Clone, Debug)]
struct Retired {
    series: Series,
    power: Power,
    power_tick: u64,
    until: Nanos,
}

#[derive(Debug, Default)]
struct KindTotals {
    rest: Energy,
    rest_power: [Microwatts; Zone::COUNT],
    ended: Energy,
    parked: Energy,
    shown: Vec<u32>,
    retired: FxHashMap<Labels, Retired>,
}

impl KindTotals {
    /// Labels of retired series that have to go.
    fn over(&self, now: Nanos, limit: usize) -> Vec<Labels> {
        let (over, mut kept): (Vec<_>, Vec<_>) = self.retired.iter().partition(|(_, retired)| retired.until <= now);
        let mut over: Vec<Labels> = over.into_iter().map(|(labels, _)| labels.clone()).collect();
        if kept.len() > limit {
            let excess = kept.len() - limit;
            kept.sort_by(|a, b| a.1.series.energy.sum().cmp(&b.1.series.energy.sum()).then(a.0.cmp(b.0)));
            over.extend(kept.into_iter().take(excess).map(|(labels, _)| labels.clone()));
        }
        over
    }
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    accounts: Vec<Option<Account>>,
    free: Vec<u32>,
    charged: Vec<Charged>,
    kinds: [KindTotals; Kind::ALL.len()],
    tick: u64,
    opened: u64,
    now: Nanos,
    realtime: Nanos,
    dropped: Vec<(Kind, Labels)>,
    /// Kinds whose `rest` or `ended` changed at this tick.
    dirty: [bool; Kind::ALL.len()],
}

/// Energy of so many ticks ago counts half.
const SCORE_HALF_LIFE: f64 = 30.0;

impl Ledger {
    /// An empty ledger.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            accounts: Vec::new(),
            free: Vec::new(),
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

    /// Other limits, from the next tick on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Begins a tick at `now` (CLOCK_MONOTONIC).
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

    /// Opens an account. The caller sees to it that no two accounts of a kind have the same labels at a time.
    ///
    /// A series of an earlier entity with these labels goes on at once: its counter must not begin again.
    pub fn open(&mut self, kind: Kind, labels: Labels) -> AccountId {
        self.opened += 1;
        let account = Account {
            number: self.opened,
            kind,
            labels,
            series: None,
            shown: false,
            over: false,
            tick: 0,
            charged: 0,
            score: 0.0,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.accounts[index as usize] = Some(account);
                index
            }
            None => {
                self.accounts.push(Some(account));
                (self.accounts.len() - 1) as u32
            }
        };
        self.resume(index);
        AccountId { place: index, number: self.opened }
    }

    fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id.place as usize)?.as_ref().filter(|account| account.number == id.number)
    }

    /// Charges an account with energy of a window of `time`; false: it was closed, and nobody is charged.
    pub fn add_energy(
        &mut self,
        id: AccountId,
        zone: Zone,
        dynamic: Microjoules,
        idle: Microjoules,
        time: Nanos,
    ) -> bool {
        let charged = self.touch(id);
        let open = charged.is_some();
        if let Some(charged) = charged {
            charged.energy.dynamic[zone.index()] += dynamic;
            charged.energy.idle[zone.index()] += idle;
            charged.power[0][zone.index()] += dynamic.over(time);
            charged.power[1][zone.index()] += idle.over(time);
        }
        open
    }

    /// Shows power of a window that closed at an earlier tick, and charges nothing; false: the account was closed.
    pub fn show_power(&mut self, id: AccountId, zone: Zone, dynamic: Microwatts, idle: Microwatts) -> bool {
        let charged = self.touch(id);
        let open = charged.is_some();
        if let Some(charged) = charged {
            charged.power[0][zone.index()] += dynamic;
            charged.power[1][zone.index()] += idle;
        }
        open
    }

    /// Shows such power of a kind's `rest`.
    pub fn show_rest_power(&mut self, kind: Kind, zone: Zone, power: Microwatts) {
        self.kinds[kind.index()].rest_power[zone.index()] += power;
    }

    /// Adds use to an account.
    pub fn add_use(&mut self, id: AccountId, used: &Used) {
        if let Some(charged) = self.touch(id) {
            charged.used.add(used);
        }
    }

    fn touch(&mut self, id: AccountId) -> Option<&mut Charged> {
        let account =
            self.accounts.get_mut(id.place as usize)?.as_mut().filter(|account| account.number == id.number)?;
        if account.tick != self.tick {
            account.score *= 0.5f64.powf((self.tick - account.tick) as f64 / SCORE_HALF_LIFE);
            (account.tick, account.charged) = (self.tick, self.charged.len() as u32);
            self.charged.push(Charged {
                account: id.place,
                energy: Energy::default(),
                used: Used::default(),
                power: Default::default(),
            });
        }
        self.charged.get_mut(account.charged as usize)
    }

    /// Labels of an account.
    pub fn labels(&self, id: AccountId) -> Option<&Labels> {
        self.account(id).map(|account| &account.labels)
    }

    /// The entity changed its labels (a process executed another program): its series ends, a new one begins with the next
    /// charge. Charges made earlier in this tick go to the new one.
    pub fn set_labels(&mut self, id: AccountId, labels: Labels) {
        if self.account(id).is_some_and(|account| account.labels != labels) {
            self.retire(id.place);
            if let Some(account) = self.accounts[id.place as usize].as_mut() {
                account.labels = labels;
            }
            self.resume(id.place);
        }
    }

    /// Charges a kind's `rest`: energy of something that belongs to the kind and is nobody in particular.
    pub fn add_rest_energy(&mut self, kind: Kind, zone: Zone, dynamic: Microjoules, idle: Microjoules, time: Nanos) {
        let totals = &mut self.kinds[kind.index()];
        totals.rest.dynamic[zone.index()] += dynamic;
        totals.rest.idle[zone.index()] += idle;
        totals.rest_power[zone.index()] += (dynamic + idle).over(time);
        self.dirty[kind.index()] = true;
    }

    /// Ends the tick: decides who is shown, then books this tick's charges.
    pub fn commit(&mut self) {
        let mut hidden: [Vec<u32>; Kind::ALL.len()] = Default::default();
        for charged in &self.charged {
            if let Some(account) = self.accounts[charged.account as usize].as_mut() {
                account.score += charged.energy.sum().0 as f64;
                // Who only shows power of an earlier window on was weighed when that closed.
                if !account.shown && charged.changed() {
                    hidden[account.kind.index()].push(charged.account);
                }
            }
        }
        for (kind, candidates) in Kind::ALL.into_iter().zip(hidden) {
            self.trim(kind);
            self.choose(kind, candidates);
        }
        for charged in &self.charged {
            let Some(account) = self.accounts[charged.account as usize].as_mut() else { continue };
            let totals = &mut self.kinds[account.kind.index()];
            match (&mut account.series, account.shown) {
                (Some(series), true) => {
                    series.energy.add(&charged.energy);
                    series.used.add(&charged.used);
                }
                _ => {
                    totals.rest.add(&charged.energy);
                    self.dirty[account.kind.index()] = true;
                    for zone in 0..Zone::COUNT {
                        totals.rest_power[zone] += charged.power[0][zone] + charged.power[1][zone];
                    }
                }
            }
        }
    }

    /// The entity ended, or is there again, while its account is open for windows that saw it.
    pub fn set_ended(&mut self, id: AccountId, over: bool) {
        if let Some(account) = self
            .accounts
            .get_mut(id.place as usize)
            .and_then(Option::as_mut)
            .filter(|account| account.number == id.number)
        {
            account.over = over;
        }
    }

    /// Closes the account of an entity that ended. After [`Ledger::commit`], so that its last charges are in its series.
    pub fn close(&mut self, id: AccountId) {
        if self.account(id).is_some() {
            self.retire(id.place);
            self.accounts[id.place as usize] = None;
            self.free.push(id.place);
        }
    }

    /// Drops series of ended entities whose time is over, and those with the least energy where there are more of them than
    /// may be shown of the living. After [`Ledger::commit`].
    pub fn expire(&mut self) {
        for (kind, totals) in Kind::ALL.into_iter().zip(&mut self.kinds) {
            for labels in totals.over(self.now, self.limits.shown[kind.index()] as usize) {
                if let Some(retired) = totals.retired.remove(&labels) {
                    totals.ended.add(&retired.series.energy);
                    self.dirty[kind.index()] = true;
                    self.dropped.push((kind, labels));
                }
            }
        }
    }

    /// What is shown, by kind.
    pub fn view(&self) -> Vec<KindView> {
        Kind::ALL.into_iter().zip(&self.kinds).map(|(kind, totals)| self.view_kind(kind, totals)).collect()
    }

    fn view_kind(&self, kind: Kind, totals: &KindTotals) -> KindView {
        let mut rows = Vec::with_capacity(totals.shown.len() + totals.retired.len());
        for &index in &totals.shown {
            if let Some(Account { labels, series: Some(series), tick, charged, over, .. }) =
                self.accounts[index as usize].as_ref()
            {
                let charged = self.charged.get(*charged as usize).filter(|_| *tick == self.tick);
                let power = charged.map_or_else(Power::default, |charged| charged.power);
                rows.push(row(labels, series, if *over { State::Terminated } else { State::Running }, power));
            }
        }
        for (labels, retired) in &totals.retired {
            let power = if retired.power_tick == self.tick { retired.power } else { Default::default() };
            rows.push(row(labels, &retired.series, State::Terminated, power));
        }
        rows.sort_by(|a, b| a.labels.cmp(&b.labels).then((a.state as u8).cmp(&(b.state as u8))));
        KindView {
            kind,
            rows,
            rest: totals.rest,
            ended: totals.ended,
            parked: totals.parked,
            rest_power: totals.rest_power,
        }
    }
}

fn row(labels: &Labels, series: &Series, state: State, [power, idle_power]: Power) -> Row {
    Row {
        labels: labels.clone(),
        state,
        energy: series.energy,
        power,
        idle_power,
        used: series.used,
        since: series.since,
    }
}

#[cfg(test)]
mod tests;
