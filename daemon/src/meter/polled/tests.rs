use super::*;
use crate::model::domain::{Reading, Scope, Zone};
use crate::model::units::Microwatts;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Instant;

/// A meter of one domain; the test sets its state.
#[derive(Clone, Default)]
struct Fake {
    /// 0: absent. 1: works. 2: fails. 3: hangs.
    state: Arc<AtomicU32>,
    opened: Arc<AtomicU32>,
}

struct Opened(Fake, Vec<Domain>);

impl Fake {
    fn opener(&self) -> Opener {
        let fake = self.clone();
        Box::new(move || {
            if fake.state.load(SeqCst) == 0 {
                return Ok(None);
            }
            fake.opened.fetch_add(1, SeqCst);
            let domain = Domain {
                max_power: Microwatts(1_000_000_000),
                ..Domain::measured("fake/1", "fake", Zone::Platform, Scope::Machine, "/fake".into())
            };
            Ok(Some(Box::new(Opened(fake.clone(), vec![domain])) as Box<dyn Meter>))
        })
    }

    fn start(&self) -> Polled {
        let poll = Poll {
            source: "fake".into(),
            absent: "no fake in /fake".into(),
            period: Duration::from_millis(20),
            by_name: false,
            expected: None,
        };
        Polled::start(poll, self.opener())
    }

    fn set(&self, state: u32) {
        self.state.store(state, SeqCst);
    }
}

impl Meter for Opened {
    fn source(&self) -> &str {
        "fake"
    }
    fn domains(&self) -> &[Domain] {
        &self.1
    }
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        while self.0.state.load(SeqCst) == 3 {
            thread::sleep(Duration::from_millis(5));
        }
        let reading = match self.0.state.load(SeqCst) {
            1 => Ok(Reading::Gauge { power: Microwatts(7) }),
            _ => Err("/fake: gone".into()),
        };
        out.push(DomainReading::new("fake/1".into(), now.monotonic, reading));
    }
    fn health(&self) -> Health {
        if self.0.state.load(SeqCst) == 1 { Health::Healthy } else { Health::Failed("/fake: gone".into()) }
    }
}

/// Reads until `enough`, for at most 30 s. Returns all readings.
fn tick(polled: &mut Polled, mut enough: impl FnMut(&Polled, &[DomainReading]) -> bool) -> Vec<DomainReading> {
    let start = Instant::now();
    let mut all = Vec::new();
    while !enough(polled, &all) {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?} {all:?}", polled.health());
        polled.read(Stamp::now(), &mut all);
        thread::sleep(Duration::from_millis(5));
    }
    all
}

#[test]
fn a_source_that_appears_later_is_picked_up_and_one_that_goes_is_let_go() {
    let fake = Fake::default();
    let mut polled = fake.start();
    tick(&mut polled, |polled, _| polled.health() == Health::Unsupported("no fake in /fake".into()));
    // The growing pause between attempts to open it does not count as a late answer.
    let mut later = Stamp::now();
    later.monotonic += Nanos(60 * Nanos::SECOND.0);
    polled.read(later, &mut Vec::new());
    assert!(matches!(polled.health(), Health::Unsupported(_)), "{:?}", polled.health());
    fake.set(1);
    let readings = tick(&mut polled, |_, all| all.len() > 1);
    assert!(
        readings.iter().all(|one| one.domain == "fake/1" && one.reading == Ok(Reading::Gauge { power: Microwatts(7) }))
    );
    assert_eq!((polled.domains().len(), polled.health()), (1, Health::Healthy));
    fake.set(2);
    tick(&mut polled, |_, all| all.iter().any(|one| one.reading.is_err()));
    assert_eq!(polled.health(), Health::Failed("/fake: gone".into()));
    fake.set(1);
    tick(&mut polled, |_, all| all.last().is_some_and(|one| one.reading.is_ok()));
    assert!(fake.opened.load(SeqCst) >= 2, "it is opened anew");
    assert_eq!(polled.domains().len(), 1, "and its domain is the same");
}

#[test]
fn a_source_that_hangs_delays_no_tick() {
    let fake = Fake::default();
    fake.set(1);
    let mut polled = fake.start();
    tick(&mut polled, |_, all| !all.is_empty());
    fake.set(3);
    thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    let mut out = Vec::new();
    for _ in 0..1000 {
        polled.read(Stamp::now(), &mut out);
    }
    // The source answers only when this test lets it.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // A late answer is reported once.
    out.clear();
    let mut later = Stamp::now();
    later.monotonic += Nanos(60 * Nanos::SECOND.0);
    polled.read(later, &mut out);
    polled.read(later, &mut out);
    assert_eq!(out.len(), 1);
    assert!(out[0].reading.as_ref().is_err_and(|why| why.starts_with("no answer for more than ")), "{out:?}");
    assert!(matches!(polled.health(), Health::Failed(why) if why.starts_with("no answer for more than ")));
    fake.set(1);
    tick(&mut polled, |polled, _| polled.health() == Health::Healthy);
}

/// A meter with a session: it is not reopened, and ends its session when it is dropped.
struct Keeps(Fake, Arc<AtomicU32>, Duration);

impl Meter for Keeps {
    fn source(&self) -> &str {
        "keeps"
    }
    fn domains(&self) -> &[Domain] {
        &[]
    }
    fn read(&mut self, _: Stamp, _: &mut Vec<DomainReading>) {
        self.0.state.fetch_add(1, SeqCst);
    }
    fn health(&self) -> Health {
        Health::Failed("nothing yet".into())
    }
    fn is_reopened(&self) -> bool {
        false
    }
}

impl Drop for Keeps {
    fn drop(&mut self) {
        thread::sleep(self.2);
        self.1.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_meter_with_something_to_keep_is_not_opened_anew_and_has_time_for_a_farewell() {
    let start = |farewell| {
        let (fake, gone) = (Fake::default(), Arc::new(AtomicU32::new(0)));
        let (opened, let_go) = (fake.clone(), Arc::clone(&gone));
        let opener: Opener = Box::new(move || {
            opened.opened.fetch_add(1, SeqCst);
            Ok(Some(Box::new(Keeps(opened.clone(), Arc::clone(&let_go), farewell)) as Box<dyn Meter>))
        });
        let poll = Poll {
            source: "keeps".into(),
            absent: String::new(),
            period: Duration::from_millis(10),
            by_name: true,
            expected: None,
        };
        let halt = CancellationToken::new();
        let polled = Polled::start_until(poll, opener, halt.clone());
        while fake.state.load(SeqCst) < 5 {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(fake.opened.load(SeqCst), 1);
        (polled, gone, halt)
    };
    let (mut polled, gone, halt) = start(Duration::from_millis(200));
    assert!(!halt.is_cancelled());
    polled.stop();
    assert!(halt.is_cancelled(), "a read that is under way is told to end");
    drop(polled);
    assert_eq!(gone.load(SeqCst), 1, "it was waited for");
    // A session that never ends does not delay the drop for ever.
    let (polled, gone, _) = start(Duration::from_secs(60));
    let told = Instant::now();
    drop(polled);
    assert!(told.elapsed() < Duration::from_secs(20) && gone.load(SeqCst) == 0);
}

/// A meter that needs some time to end its session.
struct Slow(Vec<Domain>, Duration, Arc<AtomicU32>);

impl Meter for Slow {
    fn source(&self) -> &str {
        "slow"
    }
    fn domains(&self) -> &[Domain] {
        &self.0
    }
    fn read(&mut self, _: Stamp, _: &mut Vec<DomainReading>) {
        thread::sleep(self.1);
    }
    fn health(&self) -> Health {
        Health::Healthy
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.2.fetch_add(1, SeqCst);
    }
}

fn slow(reading: Duration) -> (Polled, Arc<AtomicU32>) {
    let gone = Arc::new(AtomicU32::new(0));
    let mine = Arc::clone(&gone);
    let opener: Opener =
        Box::new(move || Ok(Some(Box::new(Slow(Vec::new(), reading, Arc::clone(&mine))) as Box<dyn Meter>)));
    let poll = Poll {
        source: "slow".into(),
        absent: String::new(),
        period: Duration::from_secs(3600),
        by_name: false,
        expected: None,
    };
    (Polled::start(poll, opener), gone)
}

#[test]
fn a_source_has_let_go_when_its_meter_is_dropped() {
    let (meter, gone) = slow(Duration::from_millis(300));
    drop(meter);
    assert_eq!(gone.load(SeqCst), 1);
}

#[test]
fn many_that_hang_are_waited_for_together_and_not_for_ever() {
    let mut meters: Vec<Polled> = (0..5).map(|_| slow(Duration::from_secs(3600)).0).collect();
    meters.iter_mut().for_each(|meter| meter.stop());
    let since = Instant::now();
    drop(meters);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}
