//! The hand-out against pollers of many periods at every phase: meters that are read on time, late, not at all, and at
//! other periods than before.

use super::*;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// A meter and its mirror: readings that reach the mirror at the end of a tick.
struct Run {
    hand_out: HandOut,
    tick: u64,
    now: u64,
    total: Total,
    /// What a reader sees, each 10 ms, from the start on: time, µJ.
    seen: Vec<(u64, u64)>,
}

impl Run {
    /// A machine that has drawn 5 J before, and is read for the first time.
    fn new(tick: u64) -> Self {
        let total = Total { at: Some(Nanos(100 * S)), energy: Microjoules(5_000_000), gaps: 0 };
        let hand_out = HandOut::new(total, Nanos(100 * S));
        Self { hand_out, tick, now: 100 * S, total, seen: vec![(100 * S, 5_000_000)] }
    }

    /// Lets time pass until `to`, in the mirror's steps.
    fn until(&mut self, to: u64) {
        while self.now < to {
            self.now += 10 * MS;
            let energy = self.hand_out.energy(Nanos(self.now));
            let before = self.seen.last().unwrap().1;
            assert!(energy.0 >= before, "falls at {}", self.now);
            assert!(energy <= self.total.energy, "runs ahead at {}", self.now);
            self.seen.push((self.now, energy.0));
        }
    }

    /// A reading of `energy` more that was made at `at`, and reaches the mirror `late` later.
    fn read(&mut self, at: u64, energy: u64, late: u64) {
        self.until(at + late);
        self.total = Total { at: Some(Nanos(at)), energy: self.total.energy + Microjoules(energy), ..self.total };
        self.hand_out.take(self.total, Nanos(self.tick), Nanos(self.now));
    }

    /// Readings of `watts`, each `period`, until `to`.
    fn steady(&mut self, watts: u64, period: u64, to: u64) {
        loop {
            let at = self.total.at.unwrap().0 + period;
            if at > to {
                break;
            }
            self.read(at, watts * period / 1000, 3 * MS);
        }
    }

    /// What a reader sees at a time.
    fn at(&self, time: u64) -> u64 {
        let next = self.seen.partition_point(|(at, _)| *at <= time);
        self.seen[next - 1].1
    }

    /// Power in watts that a poller of this period and phase sees, window by window, from `from` to `to`.
    fn powers(&self, period: u64, phase: u64, from: u64, to: u64) -> Vec<f64> {
        let looks = (0..).map(|look| from + phase + look * period).take_while(|at| *at <= to).map(|at| self.at(at));
        let looks: Vec<u64> = looks.collect();
        looks.windows(2).map(|pair| (pair[1] - pair[0]) as f64 * 1000.0 / period as f64).collect()
    }

    /// Every poller at every phase sees from `low` to `high` watts in every window from `from` to `to`.
    fn all_see(&self, from: u64, to: u64, low: f64, high: f64) {
        for period in [1, 3, 5, 15].map(|seconds| seconds * S) {
            for phase in (0..period).step_by(70_000_003) {
                let powers = self.powers(period, phase, from, to);
                assert!(powers.len() > 1);
                for power in powers {
                    assert!(power >= low && power <= high, "period {period}, phase {phase}: {power} W");
                }
            }
        }
    }
}

/// 79 W with 2 % on both sides.
const TRUE: (f64, f64) = (79.0 * 0.98, 79.0 * 1.02);

#[test]
fn every_poller_sees_the_true_power() {
    for period in [S, 10 * S, 60 * S] {
        let mut run = Run::new(S);
        let end = 100 * S + 20 * period + 60 * S;
        run.steady(79, period, end);
        // The first epoch is known at its end, and handed out from one tick later.
        let from = 100 * S + period + S + 10 * MS;
        run.all_see(from, end, TRUE.0, TRUE.1);
        // At the end of each epoch, shifted by one epoch and one tick, the total is exact.
        for epoch in 1..20 {
            let (at, exact) = (100 * S + (epoch + 1) * period + S, 5_000_000 + epoch * 79 * period / 1000);
            let shown = run.at(at);
            assert!(shown.abs_diff(exact) <= 79 * 10 * MS / 1000, "epoch {epoch}: {shown} instead of {exact}");
        }
        run.until(run.now + 2 * period + 5 * S);
        assert_eq!(run.at(run.now), run.total.energy.0, "and nothing is left when readings end");
        assert!(!run.hand_out.is_pending());
    }
}

#[test]
fn readings_that_reach_the_mirror_at_any_phase_of_its_ticks_leave_no_window_empty() {
    // Epochs of 10.004 s and ticks of 1 s: the mirror gets an epoch up to a tick after its end.
    let mut run = Run::new(S);
    for epoch in 1..60 {
        let end = 100 * S + epoch * 10_004 * MS;
        let late = (S - end % S) % S + 20 * MS;
        run.read(end, 79_000_000 * 10_004 / 1000, late);
    }
    run.all_see(112 * S, run.now, TRUE.0, TRUE.1);
    // Ticks of 1 s that end up to 400 ms late, of a meter that is read in them.
    let mut run = Run::new(S);
    for tick in 1..200_u64 {
        let late = tick * 7919 % 40 * 10 * MS;
        let at = 100 * S + tick * S + late;
        run.read(at, 79 * (at - run.total.at.unwrap().0) / 1000, 30 * MS);
    }
    run.all_see(103 * S, run.now, TRUE.0, TRUE.1);
}

#[test]
fn loads_that_change_are_shown_as_they_were() {
    let mut run = Run::new(S);
    let powers: Vec<u64> = (0..40).map(|epoch| [20, 200, 90, 0][epoch as usize % 4]).collect();
    for (epoch, watts) in (1..).zip(&powers) {
        run.read(100 * S + epoch * 10 * S, watts * 10_000_000, 3 * MS);
    }
    for (epoch, watts) in (1..39).zip(&powers) {
        let from = 100 * S + epoch * 10 * S + S;
        let seen = (run.at(from + 10 * S) - run.at(from)) as f64 / 1e7;
        assert!((seen - *watts as f64).abs() <= 0.002 * 200.0, "epoch {epoch}: {seen} W instead of {watts}");
    }
}

#[test]
fn a_late_or_missing_epoch_is_followed_by_no_burst() {
    for late in [3, 9, 15, 25] {
        let mut run = Run::new(S);
        run.steady(79, 10 * S, 200 * S);
        // One epoch that is longer, or two in one.
        run.read((210 + late) * S, 79_000_000 * (10 + late), 3 * MS);
        run.steady(79, 10 * S, 600 * S);
        run.all_see(112 * S, run.now, 0.0, TRUE.1);
        run.all_see((212 + late) * S, run.now, TRUE.0, TRUE.1);
        // It is on its way back to the usual lag.
        let lag = |run: &Run, at: u64| (run.total.energy.0 - run.at(at)) / 79_000_000;
        let after = lag(&run, run.now);
        assert!((11..=11 + late).contains(&after), "{after} s");
        run.steady(79, 10 * S, 8_000 * S);
        assert!(lag(&run, run.now) <= 12, "{late}: {} s", lag(&run, run.now));
    }
}

#[test]
fn epochs_of_another_length_make_no_burst() {
    for (before, after) in [(10, 60), (60, 10), (10, 1), (1, 10), (1, 60)].map(|(one, other)| (one * S, other * S)) {
        let mut run = Run::new(S);
        run.steady(79, before, 500 * S);
        let changed = run.now;
        run.steady(79, after, 1_500 * S);
        run.all_see(100 * S + before + S + 10 * MS, run.now, 0.0, TRUE.1);
        // Where epochs became longer, the first of them is known when it ends.
        run.all_see(changed + after + S + 10 * MS, run.now, TRUE.0, TRUE.1);
    }
}

#[test]
fn a_gap_is_no_energy_and_no_time() {
    let mut run = Run::new(S);
    run.steady(79, 10 * S, 200 * S);
    // Paused for an hour by the clock of the machine, or on another host: nothing is known of this time.
    let back = 3_803 * S;
    run.total.gaps += 1;
    run.read(back, 0, 3 * MS);
    assert_eq!(run.at(run.now), run.total.energy.0);
    run.steady(79, 10 * S, 4_000 * S);
    run.all_see(back + 11 * S + 20 * MS, run.now, TRUE.0, TRUE.1);
    run.all_see(100 * S, run.now, 0.0, TRUE.1);
    // Another meter stood in meanwhile: no gap, and no energy either.
    let mut run = Run::new(S);
    run.steady(79, 10 * S, 200 * S);
    run.read(3_803 * S, 0, 3 * MS);
    run.steady(79, 10 * S, 4_000 * S);
    run.all_see(back + 11 * S + 20 * MS, run.now, TRUE.0, TRUE.1);
}

#[test]
fn energy_of_less_than_a_quantum_waits() {
    // 0.05 W in steps of 1 J: every second epoch has none. Each is handed out as it was measured.
    let mut run = Run::new(S);
    for epoch in 1..100 {
        run.read(100 * S + epoch * 10 * S, 1_000_000 * (epoch % 2), 3 * MS);
    }
    let mean = (run.at(run.now) - run.at(200 * S)) as f64 / ((run.now - 200 * S) as f64 / 1e3);
    assert!((mean - 0.05).abs() < 0.001, "{mean}");
}

#[test]
fn a_total_that_falls_begins_again() {
    let mut run = Run::new(S);
    run.steady(79, 10 * S, 200 * S);
    let total = Total { energy: Microjoules(7), at: Some(Nanos(201 * S)), gaps: 0 };
    run.hand_out.take(total, Nanos(S), Nanos(201 * S));
    assert_eq!(run.hand_out.energy(Nanos(202 * S)), Microjoules(7));
    assert!(!run.hand_out.is_pending());
}

#[test]
fn what_waits_is_bounded() {
    let mut run = Run::new(S);
    run.read(100_000 * S, 1_000_000, 0);
    for reading in 1..20_000 {
        let at = Nanos(100_000 * S + reading * 10 * MS);
        run.total = Total { at: Some(at), energy: run.total.energy + Microjoules(reading), gaps: 0 };
        run.hand_out.take(run.total, Nanos(S), at);
    }
    assert!(run.hand_out.segments.len() <= MOST_SEGMENTS);
    let end = Nanos(1_000_000 * S);
    assert_eq!(run.hand_out.energy(end), run.total.energy);
}

proptest! {
    #[test]
    fn never_ahead_and_never_falling(
        steps in proptest::collection::vec(
            (any::<u64>(), 0_u64..1 << 50, 0_u64..3, 0_u64..1 << 40, any::<bool>()), 1..40,
        ),
    ) {
        let mut total = Total { at: None, energy: Microjoules(0), gaps: 0 };
        let mut hand_out = HandOut::new(total, Nanos(0));
        let (mut now, mut before) = (0_u64, 0);
        for (at, energy, gaps, passed, none) in steps {
            now = now.saturating_add(passed);
            total.at = (!none).then_some(Nanos(at));
            total.energy += Microjoules(energy);
            total.gaps += gaps;
            hand_out.take(total, Nanos(S), Nanos(now));
            for later in [0, 1, S] {
                let shown = hand_out.energy(Nanos(now.saturating_add(later))).0;
                prop_assert!(shown >= before && shown <= total.energy.0);
                before = shown;
            }
        }
    }
}
