//! Who is let in: the CID that the kernel vouches for, and the process behind it.

use super::*;

fn trusted() -> GuestConfig {
    GuestConfig { profile: Profile::Trusted, ..GuestConfig::default() }
}

#[tokio::test]
async fn each_guest_sees_itself_alone() {
    let mut host = Host::new([vm(1), vm(2)]);
    host.charge(0, 1_000_000);
    host.charge(1, 2_000_000);
    let rig = Cids::start(trusted(), host);
    settle().await;
    let (one, two) = (rig.energy(101).await, rig.energy(102).await);
    assert_eq!((&one["vm"]["name"], &one["zones"][0]["energy_uj"]), (&"vm1".into(), &1_000_000.into()));
    assert_eq!((&two["vm"]["name"], &two["zones"][0]["energy_uj"]), (&"vm2".into(), &2_000_000.into()));
    assert_ne!(one["source"], two["source"], "two guests cannot see that they are on one host");
    assert!(!one.to_string().contains("vm2"));
}

#[tokio::test]
async fn the_host_itself_and_strangers_are_closed() {
    let mut stranger = vm(2);
    stranger.cid = Some(2);
    let rig = Cids::start(trusted(), Host::new([vm(1), stranger]));
    settle().await;
    for cid in [0, 1, 2, 99, u32::MAX] {
        assert!(closed(rig.dial(cid).await).await, "{cid}");
    }
    let refused = rig.server.guests.totals();
    assert!(refused.is_none(), "no door is configured");
}

#[tokio::test]
async fn a_cid_of_two_vms_is_nobodys() {
    let mut other = vm(2);
    other.cid = Some(101);
    let rig = Cids::start(trusted(), Host::new([vm(1), other]));
    settle().await;
    assert!(closed(rig.dial(101).await).await);
}

#[tokio::test]
async fn a_reused_cid_ends_the_old_connection_and_shows_the_new_vm() {
    let mut host = Host::new([vm(1)]);
    host.charge(0, 5_000_000);
    let mut rig = Cids::start(trusted(), host);
    settle().await;
    let before = rig.energy(101).await;
    let mut old = Stream::open(rig.dial(101).await).await;
    old.next().await.unwrap();
    // Within a tick the process is gone and nobody knows yet whose the CID is.
    rig.server.dead.lock().unwrap().push(vm(1).process);
    assert!(closed(rig.dial(101).await).await);
    // The next tick knows: another VM, with that CID.
    let mut next = vm(7);
    next.cid = Some(101);
    rig.server.host.vms = BTreeMap::from([(0, (next, 42_000))]);
    rig.server.host.meet();
    rig.server.tick(1000);
    assert!(old.next().await.is_none(), "the old connection is closed");
    settle().await;
    let after = rig.energy(101).await;
    assert_eq!((&after["vm"]["name"], &after["zones"][0]["energy_uj"]), (&"vm7".into(), &42_000.into()));
    assert_ne!(before["source"], after["source"]);
}

#[tokio::test]
async fn the_same_vm_started_anew_is_another_generation() {
    let mut host = Host::new([vm(1)]);
    host.charge(0, 5_000_000);
    let mut rig = Cids::start(trusted(), host);
    settle().await;
    let before = rig.energy(101).await;
    let mut old = Stream::open(rig.dial(101).await).await;
    old.next().await.unwrap();
    rig.server.host.vms.get_mut(&0).unwrap().0.process.start += 500;
    rig.server.host.meet();
    rig.server.tick(1000);
    assert!(old.next().await.is_none());
    let after = rig.energy(101).await;
    assert_eq!(before["source"], after["source"]);
    assert_ne!(before["generation"], after["generation"]);
}

#[tokio::test]
async fn a_new_cid_of_the_same_vm_goes_on_with_the_same_totals() {
    let mut host = Host::new([vm(1)]);
    host.charge(0, 5_000_000);
    let mut rig = Cids::start(trusted(), host);
    settle().await;
    let before = rig.energy(101).await;
    let mut old = Stream::open(rig.dial(101).await).await;
    old.next().await.unwrap();
    rig.server.host.vms.get_mut(&0).unwrap().0.cid = Some(555);
    rig.server.host.meet();
    rig.server.tick(100);
    assert!(old.next().await.is_none() && closed(rig.dial(101).await).await);
    assert_eq!(rig.energy(555).await, before);
}

#[tokio::test]
async fn only_the_guests_root_where_that_is_asked_for() {
    let rig = Cids::start(GuestConfig { privileged_ports: true, ..trusted() }, Host::new([vm(1)]));
    settle().await;
    assert!(closed(rig.dial_from(101, 1024).await).await);
    assert_eq!(get(rig.dial_from(101, 1023).await, "/v1/energy").await.0, 200);
}

#[tokio::test]
async fn names_are_only_names() {
    let names = ["../../etc/passwd", "a\nb", "\"quoted\\\"", "\u{1b}[2J", &"x".repeat(10_000)];
    let vms = names.iter().zip(1..).map(|(name, n)| Vm { name: (*name).into(), ..vm(n) });
    let config = GuestConfig { vm: BTreeMap::from([("a\nb".into(), VmConfig { profile: Profile::Off })]), ..trusted() };
    let rig = Cids::start(config, Host::new(vms));
    settle().await;
    for (name, cid) in names.iter().zip(101..) {
        let (status, body) = get(rig.dial(cid).await, "/v1/energy").await;
        if *name == "a\nb" {
            assert_eq!(status, 403);
            continue;
        }
        assert_eq!(body.matches('\n').count(), 1, "one line");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["vm"]["name"], *name);
        let (_, page) = get(rig.dial(cid).await, "/metrics").await;
        assert!(page.lines().all(|line| line.starts_with("# ") || line.starts_with("jouled_guest_")), "{page:.2000}");
    }
}

#[tokio::test]
async fn a_finer_profile_is_only_for_vms_that_somebody_vouches_for() {
    let made_up = Vm { vouched: false, ..vm(2) };
    let asks = Vm { profile: Some("trusted".into()), ..vm(3) };
    let asks_made_up = Vm { profile: Some("trusted".into()), vouched: false, ..vm(4) };
    let coarser = Vm { profile: Some("multi-tenant".into()), vouched: false, ..vm(5) };
    let nonsense = Vm { profile: Some("../\n".into()), ..vm(6) };
    let both = Vm { profile: Some("off".into()), ..vm(1) };
    let config = GuestConfig {
        vm: [("vm1", Profile::Trusted), ("vm2", Profile::Trusted)]
            .map(|(name, profile)| (name.into(), VmConfig { profile }))
            .into(),
        ..GuestConfig::default()
    };
    let rig = Cids::start(config, Host::new([both, made_up, asks, asks_made_up, coarser, nonsense]));
    settle().await;
    let profiles: Vec<String> = rig.server.guests.list().into_iter().map(|guest| guest.profile).collect();
    assert_eq!(profiles, ["trusted", "default", "trusted", "default", "multi-tenant", "default"]);
}

#[tokio::test]
async fn profile_off_is_said_and_ends_streams() {
    let mut rig = Cids::start(trusted(), Host::new([vm(1)]));
    settle().await;
    let mut stream = Stream::open(rig.dial(101).await).await;
    stream.next().await.unwrap();
    rig.server.host.vms.get_mut(&0).unwrap().0.profile = Some("off".into());
    rig.server.host.meet();
    rig.server.tick(1000);
    assert!(stream.next().await.is_none());
    for path in ["/v1/energy", "/v1/stream", "/metrics"] {
        let (status, body) = get(rig.dial(101).await, path).await;
        assert!(status == 403 && body.contains("switched this channel off"), "{body}");
    }
}

#[tokio::test]
async fn who_ended_is_forgotten_and_its_requests_stay_counted() {
    let config = GuestConfig { serial: vec!["/nonexistent".into()], ..trusted() };
    let mut rig = Cids::start(config, Host::new([vm(1)]));
    settle().await;
    rig.energy(101).await;
    assert_eq!(rig.server.guests.totals().unwrap().requests, 1);
    for n in 0..50 {
        rig.server.host.vms = BTreeMap::from([(0, (vm(200 + n), 0))]);
        rig.server.host.meet();
        rig.server.tick(1000);
        settle().await;
        assert_eq!(rig.server.guests.list().len(), 1);
    }
    let totals = rig.server.guests.totals().unwrap();
    assert_eq!((totals.requests, totals.connections), (1, 0));
    assert!(rig.server.guests.list().iter().all(|guest| guest.requests == 0));
    assert!(closed(rig.dial(101).await).await);
    let refused = rig.server.guests.totals().unwrap().refused;
    assert!(refused.contains(&("unknown", 1)), "{refused:?}");
}
