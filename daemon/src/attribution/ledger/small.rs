//! Small series: what a process was charged before it had enough energy to be shown. Most processes end with less, so
//! they never get a series of their own. Chooses none of the series that are shown.

use super::{Account, Ledger, Series, TickCharge};
use crate::model::entity::Kind;

impl Ledger {
    /// Adds this tick's charges of processes that have too little energy yet to their small series. What is not
    /// collected is to be shown, if there is room.
    pub(super) fn collect_small(&mut self) {
        let totals = &mut self.kinds[Kind::Process.index()];
        for charge in self.charged.iter_mut().filter(|charge| charge.changes_series()) {
            let Some(account) = self.accounts[charge.account as usize].as_mut() else { continue };
            // A series that is shown or parked was shown before: it goes on.
            if account.labels.kind() != Kind::Process || account.shown || (account.series.is_some() && !account.small) {
                continue;
            }
            let begun = Series { since: self.realtime, ..Series::default() };
            let mut series = account.series.as_deref().copied().unwrap_or(begun);
            series.add(charge);
            let enough = account.grown || series.energy.sum() >= self.limits.least;
            if enough && totals.dropped.is_passed(&account.labels, &series) {
                continue;
            }
            account.collect(series);
            totals.small.add(&charge.energy);
            totals.add_rest_power(charge);
            charge.collected = true;
            self.dirty[Kind::Process.index()] = true;
        }
    }

    /// For processes that had enough energy to be shown, and for which there was no room: what they had so far goes to
    /// the kind's `rest`, as will what follows.
    pub(super) fn give_up_small(&mut self) {
        let totals = &mut self.kinds[Kind::Process.index()];
        for charge in self.charged.iter_mut().filter(|charge| !charge.collected) {
            let Some(account) = self.accounts[charge.account as usize].as_mut().filter(|account| account.small) else {
                continue;
            };
            let Some(mut series) = account.series.take_if(|_| charge.changes_series()) else { continue };
            if totals.dropped.has(&account.labels) {
                // A series that begins later could be lower than it was before.
                series.add(charge);
                account.collect(*series);
                totals.small.add(&charge.energy);
                totals.add_rest_power(charge);
                charge.collected = true;
            } else {
                totals.small.subtract(&series.energy);
                totals.rest.add(&series.energy);
                (account.small, account.grown) = (false, true);
            }
            self.dirty[Kind::Process.index()] = true;
        }
    }
}

impl Account {
    fn collect(&mut self, series: Series) {
        match &mut self.series {
            Some(own) => **own = series,
            None => self.series = Some(Box::new(series)),
        }
        self.small = true;
    }
}

impl Series {
    fn add(&mut self, charge: &TickCharge) {
        self.energy.add(&charge.energy);
        self.used.add(&charge.used);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AccountId, Limits};
    use super::*;
    use crate::model::domain::Zone;
    use crate::model::entity::{Labels, ProcessLabels};
    use crate::model::snapshot::KindView;
    use crate::model::units::{Microjoules, Nanos};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn process(pid: u32, comm: &str) -> Labels {
        let pid = pid.to_string();
        ProcessLabels { pid: &pid, comm, exe: "/bin/sh", process_type: "regular", container_id: "", vm_id: "" }.into()
    }

    fn ledger(shown: u32, least: u64) -> Ledger {
        let shown = [shown; Kind::ALL.len()];
        Ledger::new(Limits { shown, retention: Nanos(3), least: Microjoules(least), name_wait: Nanos(0) })
    }

    fn tick(ledger: &mut Ledger, at: u64, charges: &[(AccountId, u64)]) {
        ledger.begin_tick(Nanos(at), Nanos(at));
        for (id, energy) in charges {
            ledger.add_energy(*id, Zone::Package, Microjoules(*energy), Microjoules(0), Nanos::SECOND);
        }
        ledger.commit();
    }

    fn view(ledger: &Ledger) -> KindView {
        ledger.view().swap_remove(Kind::Process.index())
    }

    /// (rows, rest, ended, parked), in µJ.
    fn sums(ledger: &Ledger) -> (Vec<u64>, u64, u64, u64) {
        let view = view(ledger);
        let rows = view.rows.iter().map(|row| row.energy.sum().0).collect();
        (rows, view.rest.sum().0, view.ended.sum().0, view.parked.sum().0)
    }

    #[test]
    fn what_ends_with_little_energy_never_has_a_series() {
        let mut ledger = ledger(5, 100);
        let (short, long) = (ledger.open(process(1, "sh")), ledger.open(process(2, "cc1")));
        tick(&mut ledger, 1, &[(short, 30), (long, 60)]);
        assert_eq!(sums(&ledger), (vec![], 0, 0, 90));
        ledger.close(short);
        assert_eq!(sums(&ledger), (vec![], 0, 30, 60));
        // With enough energy it is shown, with all that it had.
        tick(&mut ledger, 2, &[(long, 40)]);
        assert_eq!(sums(&ledger), (vec![100], 0, 30, 0));
        // Another program begins small again; the series of the one before stays for the retention.
        ledger.begin_tick(Nanos(3), Nanos(3));
        ledger.set_labels(long, process(2, "ld"));
        ledger.add_energy(long, Zone::Package, Microjoules(7), Microjoules(0), Nanos::SECOND);
        ledger.commit();
        assert_eq!(sums(&ledger), (vec![100], 0, 30, 7));
        ledger.close(long);
        assert_eq!(sums(&ledger), (vec![100], 0, 37, 0));
        // Other kinds have their series at once.
        let unit = ledger.open(crate::model::entity::SliceLabels { slice: "a.slice" }.into());
        tick(&mut ledger, 4, &[(unit, 1)]);
        assert_eq!(ledger.view()[Kind::Slice.index()].rows.len(), 1);
    }

    #[test]
    fn small_series_are_ended_ones_after_a_restart() {
        let mut before = ledger(5, 100);
        let (small, big) = (before.open(process(1, "sh")), before.open(process(2, "cc1")));
        tick(&mut before, 1, &[(small, 30), (big, 600)]);
        let changes: Vec<_> = before.changes().collect();
        let mut after = ledger(5, 100);
        after.restore(changes.into_iter(), Nanos(100));
        assert_eq!(sums(&after), (vec![600], 0, 30, 0));
        let mut whole = ledger(5, 100);
        whole.restore(before.entries(), Nanos(100));
        assert_eq!(sums(&whole), sums(&after));
    }

    #[test]
    fn without_room_a_process_is_part_of_the_rest() {
        let mut ledger = ledger(1, 100);
        let (a, b) = (ledger.open(process(1, "a")), ledger.open(process(2, "b")));
        tick(&mut ledger, 1, &[(a, 500), (b, 60)]);
        assert_eq!(sums(&ledger), (vec![500], 0, 0, 60));
        tick(&mut ledger, 2, &[(a, 500), (b, 60)]);
        assert_eq!(sums(&ledger), (vec![1000], 120, 0, 0));
        tick(&mut ledger, 3, &[(b, 5000)]);
        assert_eq!(sums(&ledger), (vec![5000], 120, 0, 1000));
    }

    #[test]
    fn a_pid_that_is_used_again_brings_no_series_back_lower() {
        let mut ledger = ledger(5, 100);
        let first = ledger.open(process(7, "cc1"));
        tick(&mut ledger, 1, &[(first, 500)]);
        ledger.close(first);
        tick(&mut ledger, 10, &[]);
        ledger.expire();
        assert_eq!(sums(&ledger), (vec![], 0, 500, 0));
        let second = ledger.open(process(7, "cc1"));
        tick(&mut ledger, 11, &[(second, 300)]);
        assert_eq!(sums(&ledger), (vec![], 0, 500, 300), "it would be lower than it was");
        tick(&mut ledger, 12, &[(second, 250)]);
        assert_eq!(sums(&ledger), (vec![550], 0, 500, 0));
        ledger.close(second);
        tick(&mut ledger, 20, &[]);
        ledger.expire();
        // Each counter counts: more energy in all, but less of the package's.
        let third = ledger.open(process(7, "cc1"));
        ledger.begin_tick(Nanos(21), Nanos(21));
        ledger.add_energy(third, Zone::Dram, Microjoules(9000), Microjoules(0), Nanos::SECOND);
        ledger.commit();
        assert_eq!(sums(&ledger), (vec![], 0, 1050, 9000));
    }

    proptest! {
        /// The storm: few pids and names, all used again and again, with limits for everything. Nothing is lost, and no
        /// series is ever lower than it once was.
        #[test]
        fn a_storm_is_counted_to_the_microjoule(
            ops in proptest::collection::vec((0u32..5, 0u8..3, 0u64..400, 0u8..10), 1..300),
            least in 0u64..300,
            shown in 1u32..9,
        ) {
            let mut ledger = ledger(shown, least);
            let mut open: HashMap<u32, AccountId> = HashMap::new();
            let mut highest: HashMap<Labels, u64> = HashMap::new();
            let mut charged = 0;
            let mut now = 0;
            let names = ["a", "b", "c"];
            for (pid, name, energy, what) in ops {
                now += 1;
                match what {
                    0..=1 => if let Some(id) = open.remove(&pid) { ledger.close(id) },
                    2 => if let Some(id) = open.get(&pid) {
                        ledger.set_labels(*id, process(pid, names[usize::from(name)]));
                    },
                    3 => now += 5,
                    4 => {
                        let entries: Vec<_> = ledger.entries().collect();
                        let mut restored = self::ledger(shown, least);
                        restored.restore(entries.into_iter(), Nanos(now + 3));
                        let (rows, rest, ended, parked) = sums(&restored);
                        prop_assert_eq!(rows.iter().sum::<u64>() + rest + ended + parked, charged);
                    }
                    _ => {
                        let labels = process(pid, names[usize::from(name)]);
                        let id = *open.entry(pid).or_insert_with(|| ledger.open(labels));
                        tick(&mut ledger, now, &[(id, energy)]);
                        charged += energy;
                    }
                }
                ledger.expire();
                let (rows, rest, ended, parked) = sums(&ledger);
                prop_assert_eq!(rows.iter().sum::<u64>() + rest + ended + parked, charged);
                for row in view(&ledger).rows {
                    let energy = row.energy.sum().0;
                    let before = highest.insert(row.labels.clone(), energy).unwrap_or(0);
                    prop_assert!(energy >= before, "{:?} fell from {before} to {energy}", row.labels);
                    // Without room, it was part of the rest with that.
                    prop_assert!(energy >= least || shown < 5);
                }
            }
        }
    }
}
