//! Tests of the list on a hand-built snapshot.

use super::super::fixture;
use super::*;
use crate::model::domain::Quality;

fn choice(kind: Kind) -> Choice {
    Choice { kind, limit: usize::MAX, sort: Sort::Power, ended: false }
}

#[test]
fn the_table_adds_up() {
    let lines = lines(&fixture::snapshot(), &[], choice(Kind::Unit), None);
    assert_eq!(
        lines,
        [
            "UNIT                          POWER   ENERGY    SHARE  CPU s",
            "nginx.service                16.5 W   55.0 J   30.0 %   0.50",
            "cron.service                 11.0 W    110 J   20.0 %   1.00",
            "backup.service [terminated]     0 W    330 J    0.0 %   3.00",
            "rest                         2.20 W   66.0 J    4.0 %",
            "ended                                 44.0 J",
            "total of all units           29.7 W    605 J   54.0 %",
            "unattributed                          55.0 J",
            "idle                         22.0 W    440 J   40.0 %",
            "node                         55.0 W  1.10 kJ  100.0 %",
            "",
            "POWER and ENERGY: package + dram. No platform meter: fans, disks and power supply losses are not in these numbers.",
            "rest: without a line of their own. ended: no longer shown.",
        ]
    );
}

#[test]
fn what_is_in_no_container_is_said() {
    let text = lines(&fixture::snapshot(), &[], choice(Kind::Container), None).join("\n");
    assert!(text.contains("in no container") && text.contains("550 J"), "{text}");
}

#[test]
fn slices_are_not_added_up() {
    let text = lines(&fixture::snapshot(), &[], choice(Kind::Slice), None).join("\n");
    assert!(text.contains("-.slice") && !text.contains("total of"), "{text}");
    assert!(text.contains("Slices contain each other"), "{text}");
}

#[test]
fn a_limit_hides_nothing_from_the_sums() {
    let snapshot = fixture::snapshot();
    let text = lines(&snapshot, &[], Choice { limit: 1, ..choice(Kind::Unit) }, None).join("\n");
    assert!(text.contains("(2 more)") && text.contains("total of all units  29.7 W    605 J"), "{text}");
    let items = json(&snapshot, &[], Choice { limit: 1, ..choice(Kind::Unit) });
    assert_eq!(items.iter().map(|item| item.row).collect::<Vec<_>>(), ["entity", "more", "rest", "ended", "parked"]);
    let all: u64 = json(&snapshot, &[], choice(Kind::Unit)).iter().map(|item| item.microjoules).sum();
    assert_eq!(items.iter().map(|item| item.microjoules).sum::<u64>(), all);
}

#[test]
fn a_vm_shows_its_channel() {
    let mut snapshot = fixture::snapshot();
    let vm = |id: &str| fixture::labelled(11, 110, Kind::Vm, &[id, "web\u{1b}[2J", "kvm"]);
    snapshot.kinds[Kind::Vm.index()].rows = vec![vm("1"), vm("2"), vm("3")];
    let guest = |id: &str, channel: &str, profile: &str, served| GuestView {
        vm_id: id.into(),
        name: "web".into(),
        channel: channel.into(),
        peer: "CID 42".into(),
        connections: 1,
        profile: profile.into(),
        epoch: Some(7),
        served_seconds_ago: served,
        requests: 5,
        refused: 0,
    };
    let guests = [guest("1", "vsock", "default", Some(3.4)), guest("2", "hybrid", "off", None)];
    let lines = lines(&snapshot, &guests, choice(Kind::Vm), None);
    assert!(lines[0].ends_with("CHANNEL"), "{lines:#?}");
    for (line, end) in lines[1..4].iter().zip(["vsock 3 s ago", "hybrid off", " -"]) {
        assert!(line.ends_with(end) && line.contains("22.0 %"), "{line}");
    }
    assert!(!lines.concat().contains('\u{1b}'));
    let items = serde_json::to_value(json(&snapshot, &guests, choice(Kind::Vm))).unwrap();
    assert_eq!((&items[0]["channel"]["peer"], &items[0]["channel"]["connections"]), (&"CID 42".into(), &1.into()));
    assert!(items[2].get("channel").is_none());
}

#[test]
fn every_order_is_total() {
    let snapshot = fixture::snapshot();
    let names = |sort| {
        let rows = sorted(&snapshot, &Base::of(&snapshot), Kind::Unit, sort);
        rows.into_iter().map(|(name, _)| name.chars().next().unwrap()).collect::<String>()
    };
    assert_eq!(names(Sort::Power), "ncb");
    assert_eq!(names(Sort::Energy), "bcn");
    assert_eq!(names(Sort::Name), "bcn");
}

#[test]
fn estimates_are_marked_once_per_column() {
    let mut snapshot = fixture::snapshot();
    fixture::domain(&mut snapshot, 1).quality = Quality::Estimated;
    let text = lines(&snapshot, &[], choice(Kind::Unit), None);
    assert!(
        text[0].contains("POWER (est.)") && text[0].contains("ENERGY (est.)"),
        "a sum with an estimate in it: {}",
        text[0]
    );
    assert_eq!(text.join("\n").matches("est.").count(), 2);
}

#[test]
fn json_is_exact_and_by_name() {
    let mut snapshot = fixture::snapshot();
    snapshot.kinds[Kind::Unit.index()].rows[1].energy.dynamic[Zone::Package.index()] =
        Microjoules(9_007_199_254_740_993);
    let items = serde_json::to_value(json(&snapshot, &[], choice(Kind::Unit))).unwrap();
    let first = &items[0];
    assert_eq!(first["labels"]["unit"], "nginx.service");
    assert_eq!(first["labels"]["slice"], "system.slice");
    assert_eq!(first["microjoules_total"]["package"]["dynamic"], 9_007_199_254_740_993_u64);
    assert_eq!(first["microjoules_total"]["dram"]["idle"], 0);
    assert!(first["microjoules_total"].get("uncore").is_none(), "a zone that is not there has no number");
    assert_eq!(first["since"], "2025-12-31T23:59:59.000Z");
    assert_eq!((&first["state"], &first["quality"]), (&"running".into(), &"measured".into()));
    assert_eq!((first["cycles"].as_u64(), first["instructions"].as_u64()), (Some(5), None));
    assert_eq!(first["watts"], 16.5);
}

#[test]
fn ended_jobs_alone_with_their_last_numbers() {
    let mut snapshot = fixture::snapshot();
    let labels = |id| ["slurm", id, "99", "alice", "physics", "cpu", "sim"];
    let jobs = &mut snapshot.kinds[Kind::Job.index()].rows;
    *jobs = vec![fixture::labelled(10, 20, Kind::Job, &labels("7")), fixture::labelled(0, 30, Kind::Job, &labels("6"))];
    (jobs[1].state, jobs[1].settled) = (State::Terminated, true);
    let ended = Choice { ended: true, ..choice(Kind::Job) };
    let text = lines(&snapshot, &[], ended, None).join("\n");
    assert!(text.contains("slurm 6 sim (alice) [terminated]") && !text.contains("slurm 7"), "{text}");
    assert!(!text.contains("total of all") && !text.contains("unattributed"), "{text}");
    let items = serde_json::to_value(json(&snapshot, &[], ended)).unwrap();
    assert_eq!(items.as_array().unwrap().len(), 1);
    assert_eq!((&items[0]["labels"]["job_id"], &items[0]["settled"]), (&"6".into(), &true.into()));
    let all = lines(&snapshot, &[], choice(Kind::Job), None).join("\n");
    assert!(all.contains("slurm 7") && all.contains("total of all jobs"), "{all}");
    assert!(lines(&snapshot, &[], Choice { ended: true, ..choice(Kind::Container) }, None).len() > 1);
}
