//! What answers change.

use super::*;
use crate::export::push::totals::{REFUSED, WRITTEN};
use crate::model::source::Health;

fn samples(courier: &Courier, result: &str) -> u64 {
    courier.totals.samples.get(result).copied().unwrap_or_default()
}

#[test]
fn a_receiver_of_version_1_is_recognised_and_gets_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut courier = courier(dir.path(), terms());
    let mut receiver = Receiver::default();
    courier.take(vec![counters(0, 3)], vec![Frame::new(START, &[one("watts", 1, 5.0, false)])], at(0));
    deliver(&mut courier, &mut receiver, at(0));
    assert_eq!((receiver.count(), receiver.requests, samples(&courier, WRITTEN)), (4, 3, 4));
    // The version is known from here on.
    courier.take(vec![counters(MINUTE, 3)], Vec::new(), at(MINUTE));
    deliver(&mut courier, &mut receiver, at(MINUTE));
    assert_eq!((receiver.count(), receiver.requests), (7, 4));
    assert_eq!(courier.health(at(MINUTE)), Health::Healthy);
    // Where 2.0 alone is wanted, that is an error.
    let dir = tempfile::tempdir().unwrap();
    let mut courier = super::courier(dir.path(), Terms { may_fall_back: false, ..terms() });
    courier.take(vec![counters(0, 3)], Vec::new(), at(0));
    deliver(&mut courier, &mut receiver, at(0));
    let Health::Failed(why) = courier.health(at(0)) else { panic!("{:?}", courier.health(at(0))) };
    assert!(why.contains("does not know this version of remote write"), "{why}");
}

#[test]
fn start_times_are_those_of_the_series() {
    let dir = tempfile::tempdir().unwrap();
    let mut courier = courier(dir.path(), terms());
    let mut receiver = Receiver { knows_2: true, ..Receiver::default() };
    courier.take(vec![counters(0, 1)], vec![Frame::new(START, &[one("watts", 1, 5.0, false)])], at(0));
    deliver(&mut courier, &mut receiver, at(0));
    let starts: Vec<i64> = receiver.starts.values().flatten().copied().collect();
    assert_eq!(starts, [START - 1_000, 0]);
}

#[test]
fn one_series_of_a_thousand_that_is_refused_costs_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut courier = courier(dir.path(), terms());
    let mut receiver = Receiver { refuses: Some("\"617.service\"".into()), ..Receiver::default() };
    courier.take(vec![counters(0, 1_000)], Vec::new(), at(0));
    deliver(&mut courier, &mut receiver, at(0));
    assert_eq!((receiver.count(), samples(&courier, WRITTEN), samples(&courier, REFUSED)), (999, 999, 1));
    assert!(receiver.requests <= 22, "{}", receiver.requests);
    let Health::Degraded(why) = courier.health(at(0)) else { panic!() };
    assert!(why.contains("refused samples") && why.contains("out of order sample"), "{why}");
    // It is not asked about each minute.
    let before = receiver.requests;
    courier.take(vec![counters(MINUTE, 1_000)], Vec::new(), at(MINUTE));
    deliver(&mut courier, &mut receiver, at(MINUTE));
    assert_eq!((receiver.requests - before, receiver.count(), samples(&courier, REFUSED)), (1, 2 * 999, 2));
    // An hour later it is tried again, and fits.
    receiver.refuses = None;
    let later = 61 * MINUTE;
    courier.take(vec![counters(later, 1_000)], Vec::new(), at(later));
    deliver(&mut courier, &mut receiver, at(later));
    assert_eq!((receiver.count(), courier.totals.waiting), (2 * 999 + 1_000, 0));
}

#[test]
fn a_receiver_of_version_2_that_keeps_a_part_is_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut courier = courier(dir.path(), terms());
    let mut receiver = Receiver { refuses: Some("\"6".into()), knows_2: true, is_partial: true, ..Receiver::default() };
    courier.take(vec![counters(0, 10)], Vec::new(), at(0));
    deliver(&mut courier, &mut receiver, at(0));
    assert_eq!((receiver.requests, samples(&courier, WRITTEN), samples(&courier, REFUSED)), (1, 9, 1));
}

#[test]
fn a_receiver_that_refuses_all_samples_is_not_asked_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut courier = courier(dir.path(), terms());
    let mut receiver = Receiver { refuses: Some("service".into()), ..Receiver::default() };
    let frames = 64;
    for number in 0..frames {
        courier.take(vec![counters(number * MINUTE, 1_000)], Vec::new(), at(number * MINUTE));
        deliver(&mut courier, &mut receiver, at(number * MINUTE));
    }
    assert_eq!((samples(&courier, REFUSED), courier.totals.waiting), (64_000, 0));
    // The first frame, and every sixteenth, is asked about in parts; a frame in between by two requests.
    assert!(receiver.requests < 5 * 17 + 60 * 3, "{}", receiver.requests);
    receiver.refuses = None;
    courier.take(vec![counters(frames * MINUTE, 1_000)], Vec::new(), at(frames * MINUTE));
    deliver(&mut courier, &mut receiver, at(frames * MINUTE));
    assert!(receiver.count() >= 980, "{}", receiver.count());
}

#[test]
fn a_request_that_is_too_large_is_halved() {
    let dir = tempfile::tempdir().unwrap();
    let mut courier = courier(dir.path(), Terms { version: Version::V1, ..terms() });
    let mut receiver = Receiver::default();
    courier.take(vec![counters(0, 1_000)], Vec::new(), at(0));
    for _ in 0..100 {
        let Next::Send(job) = courier.next(at(0)) else { break };
        let is_small = job.frame.samples() <= 100;
        let verdict = if is_small { receiver.take(&job) } else { Verdict::TooLarge("status 413".into()) };
        courier.answered("x".into(), verdict, at(0));
    }
    assert_eq!((receiver.count(), receiver.largest, samples(&courier, REFUSED)), (1_000, 63, 0));
}

#[test]
fn a_refused_login_pauses_and_loses_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut courier = courier(dir.path(), Terms { version: Version::V1, ..terms() });
    let mut receiver = Receiver::default();
    let (mut requests, mut wanted) = (0, true);
    for minute in 0..120 {
        let now = at(minute * MINUTE);
        courier.take(vec![counters(minute * MINUTE, 10)], Vec::new(), now);
        while let Next::Send(job) = courier.next(now) {
            // Nothing that was refused is sent again, and nothing else until something is taken.
            assert!(wanted || job.frame.samples() == 0, "{}", job.frame.samples());
            wanted = false;
            requests += 1;
            courier.answered("401".into(), Verdict::Closed("wrong login (status 401)".into()), now);
        }
    }
    assert!((10..30).contains(&requests), "{requests} requests in two hours");
    let Health::Failed(why) = courier.health(at(120 * MINUTE)) else { panic!() };
    assert!(why.contains("the receiver refuses everything: wrong login (status 401)"), "{why}");
    assert!(why.contains("samples since 2026-11-28T00:01:00.000Z wait"), "{why}");
    // Another token: at once.
    courier.try_again();
    let mut now = at(120 * MINUTE);
    while let Some(until) = deliver(&mut courier, &mut receiver, now) {
        now = at(until);
    }
    assert_eq!((receiver.count(), samples(&courier, REFUSED), courier.totals.waiting), (119 * 10, 10, 0));
    assert_eq!(courier.health(now), Health::Healthy);
}

#[test]
fn a_receiver_says_when_it_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut courier = courier(dir.path(), terms());
    courier.take(vec![counters(0, 10)], Vec::new(), at(0));
    let Next::Send(_) = courier.next(at(0)) else { panic!() };
    let after = Some(Duration::from_secs(42));
    courier.answered("429".into(), Verdict::Later { after, why: "status 429".into() }, at(0));
    assert_eq!(courier.next(at(1)), Next::Wait(Some(42_000)));
    assert!(matches!(courier.next(at(42_000)), Next::Send(_)));
    assert_eq!(courier.totals.requests, BTreeMap::from([("429".to_owned(), 1)]));
}

#[test]
fn pauses_grow_and_differ_between_hosts() {
    let pauses = |seed| {
        let dir = tempfile::tempdir().unwrap();
        let mut courier = courier(dir.path(), Terms { seed, ..terms() });
        courier.take(vec![counters(0, 10)], Vec::new(), at(0));
        let mut now = 0;
        let pauses: Vec<i64> = (0..12)
            .map(|_| {
                let until = fail(&mut courier, at(now)).unwrap();
                let pause = until - now;
                now = until;
                pause
            })
            .collect();
        pauses
    };
    let (one, other) = (pauses(1), pauses(2));
    assert_ne!(one, other);
    for pauses in [one, other] {
        assert!((500..1_000).contains(&pauses[0]) && pauses.iter().all(|pause| (500..300_000).contains(pause)));
        assert!(pauses[11] >= 150_000, "{pauses:?}");
    }
}

#[test]
fn a_host_waits_for_its_own_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut courier = courier(dir.path(), Terms { delay: 9_000, ..terms() });
    courier.take(vec![counters(0, 10)], vec![counters(0, 1)], at(1_000));
    assert_eq!(courier.next(at(1_000)), Next::Wait(Some(9_000)));
    assert!(matches!(courier.next(at(9_000)), Next::Send(_)));
    // A clock that was set back does not hold it up.
    let set_back = Now { monotonic: 10_000, real: START - 3_600_000 };
    assert!(matches!(courier.next(set_back), Next::Send(_)));
}
