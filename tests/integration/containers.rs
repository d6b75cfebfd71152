//! Names of containers as jouled-containers reports them, on a fake host: from the inventory socket to the metrics
//! page in both dialects, joulectl and the store. What a line may say is tested beside the code (entity/managers).

use crate::common::page::Series;
use crate::common::world::ZONES;
use crate::common::{Daemon, Page, World, joulectl, said, until};
use jouled::model::snapshot::Snapshot;
use jouled::model::source::Health;
use std::io::Write;
use std::os::unix::net::UnixStream;

const URI: &str = "unix:///run/docker.sock";

fn id(number: u32) -> String {
    format!("{number:064x}")
}

fn cgroup(number: u32) -> String {
    format!("/system.slice/docker-{}.scope", id(number))
}

/// A container of Docker with one process, which has this id.
fn run(world: &World, pid: u32) {
    world.spawn(pid, u64::from(pid), "app", &cgroup(pid), 0);
}

fn work(world: &World, pids: &[u32]) {
    pids.iter().for_each(|pid| world.run(*pid, 3));
    ZONES.iter().for_each(|(zone, _)| world.draw(zone, 2_000_000));
}

fn start(world: &World) -> Daemon {
    Daemon::start(world.jouled().env("JOULED_INTERVAL", "100ms"), &world.state)
}

/// The connection of a helper.
struct Helper(UnixStream);

impl Helper {
    fn connect(daemon: &Daemon) -> Self {
        let helper = Self(UnixStream::connect(daemon.state.join("inventory.sock")).unwrap());
        helper.say(r#","begin":true"#);
        helper
    }

    fn say(&self, rest: &str) {
        let line = format!("{{\"v\":2,\"source\":\"containers\",\"uri\":\"{URI}\",\"health\":\"ok\"{rest}}}\n");
        (&self.0).write_all(line.as_bytes()).unwrap();
    }

    fn name(&self, pid: u32, name: &str) {
        let of_compose = r#""image":"nginx:1","compose_project":"shop","compose_service":"web""#;
        let labels = r#"{"com.example.team":"blue","com.example-team":"red"}"#;
        self.say(&format!(r#","containers":[{{"id":"{}","name":{name:?},{of_compose},"labels":{labels}}}]"#, id(pid)));
    }
}

/// A label of each series of a metric whose container is this one.
fn label(page: &Page, metric: &str, pid: u32, label: &str) -> Vec<String> {
    let id = id(pid);
    let of = |(name, labels): &&Series| name == metric && labels.get("container_id") == Some(&id);
    let value = |(_, labels): &Series| labels.get(label).cloned().unwrap_or_default();
    let mut values: Vec<String> = page.samples.keys().filter(of).map(value).collect();
    values.dedup();
    values
}

fn health(snapshot: &Snapshot) -> &Health {
    &snapshot.sources.iter().find(|view| view.source == "containers").unwrap().health
}

#[test]
fn names_of_a_runtime_are_in_all_outputs_and_a_late_one_splits_no_counter() {
    let world = World::new();
    world.config("[export.prometheus]\ndialects = { kepler = true, legacy = true }\n");
    [101, 102].iter().for_each(|pid| run(&world, *pid));
    let daemon = start(&world);
    let helper = Helper::connect(&daemon);
    until("the helper is heard", || (*health(&daemon.snapshot()) == Health::Healthy).then_some(()));
    helper.name(101, "shop-web-1");
    let page = until("the names are on the page", || {
        work(&world, &[101, 102]);
        let page = daemon.page();
        page.adds_up();
        let is_shown = |pid| !label(&page, "kepler_container_cpu_joules_total", pid, "container_name").is_empty();
        let named = label(&page, "jouled_container_info", 101, "container_name") == ["shop-web-1"];
        (named && is_shown(101) && is_shown(102)).then_some(page)
    });
    let of = |name: &str| label(&page, "jouled_container_info", 101, name);
    assert_eq!((of("image"), of("compose_project")), (vec!["nginx:1".into()], vec!["shop".into()]));
    assert_eq!(of("compose_service"), ["web"]);
    assert_eq!(
        (of("label_com_example_team"), of("label_com_example_team_2")),
        (vec!["red".into()], vec!["blue".into()])
    );
    assert_eq!(
        label(&page, "kepler_container_package_joules_total", 101, "image"),
        [""],
        "Kepler's labels are its own"
    );

    // A name that comes after the wait, and a new name, change no label of a counter.
    let before = page.lasting();
    helper.name(102, "late");
    helper.name(101, "renamed");
    let page = until("the names are known", || {
        work(&world, &[101, 102]);
        let page = daemon.page();
        let known = |pid, name: &str| label(&page, "jouled_container_info", pid, "container_name") == [name];
        (known(102, "late") && known(101, "renamed")).then_some(page)
    });
    let after = page.lasting();
    for (series, value) in before.iter().filter(|((name, _), _)| name != "jouled_container_info") {
        assert!(after.get(series).is_some_and(|now| now >= value), "{series:?} fell or is gone");
    }
    page.adds_up();
    let table = said(joulectl(&world.state, &["list", "container"]));
    assert!(table.lines().any(|line| line.starts_with("late ")), "{table}");
    let json: serde_json::Value =
        serde_json::from_str(&said(joulectl(&world.state, &["list", "container", "--json"]))).unwrap();
    let renamed = json.as_array().unwrap().iter().find(|row| row["name"] == "renamed").unwrap();
    assert_eq!(renamed["labels"]["label.com.example.team"], "blue");
    assert_eq!(renamed["labels"]["compose_project"], "shop");
    daemon.stop();

    // From the next start on, also without the helper, the counters have the name.
    let daemon = start(&world);
    let page = until("the containers go on", || {
        work(&world, &[101, 102]);
        let page = daemon.page();
        let states = label(&page, "kepler_container_cpu_joules_total", 102, "state");
        states.contains(&"running".to_owned()).then_some(page)
    });
    assert_eq!(label(&page, "kepler_container_cpu_joules_total", 102, "container_name"), ["late"]);
    daemon.stop();
}

#[test]
fn a_container_that_starts_under_a_helper_is_never_shown_without_its_name() {
    let world = World::new();
    run(&world, 101);
    // A made-up tree says nothing of new cgroups.
    std::fs::create_dir_all(world.cgroups().join(&cgroup(102)[1..])).unwrap();
    let daemon = start(&world);
    let helper = Helper::connect(&daemon);
    until("the helper is heard", || (*health(&daemon.snapshot()) == Health::Healthy).then_some(()));
    run(&world, 102);
    let known = |snapshot: &Snapshot| {
        let rows = &snapshot.kind(jouled::model::entity::Kind::Container).rows;
        rows.iter().any(|row| row.labels.id() == id(102))
    };
    until("the container is known", || {
        work(&world, &[101, 102]);
        known(&daemon.snapshot()).then_some(())
    });
    helper.name(102, "a\"b\\c\u{202e}");
    let metric = "kepler_container_cpu_joules_total";
    let page = until("the container is on the page", || {
        work(&world, &[101, 102]);
        let page = daemon.page();
        (!label(&page, metric, 102, "container_name").is_empty()).then_some(page)
    });
    // On a machine that stood still for the two seconds of the wait, the name is in the info metric alone.
    let names = label(&page, metric, 102, "container_name");
    assert!(names == ["a\"b\\c\\u{202e}"] || names == [""], "{names:?}");
    daemon.stop();
}

/// A Docker with one container and one event of its start, which comes when the file `started` is there.
fn docker(socket: &std::path::Path, number: u32, started: std::path::PathBuf) {
    use std::io::Read;
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, started) = (stream.unwrap(), started.clone());
            std::thread::spawn(move || {
                let mut request = [0; 2048];
                let count = stream.read(&mut request).unwrap();
                let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                if !request[..count].starts_with(b"GET /events") {
                    return drop(stream.write_all(format!("{chunked}2\r\n[]\r\n0\r\n\r\n").as_bytes()));
                }
                let _ = stream.write_all(chunked.as_bytes());
                until("the container starts", || started.exists().then_some(()));
                let attributes = r#"{"name":"shop-web-1","image":"nginx:1","com.docker.compose.project":"shop"}"#;
                let actor = format!(r#"{{"ID":"{}","Attributes":{attributes}}}"#, id(number));
                let event = format!("{{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{actor}}}\n");
                let _ = stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
                // Docker's stream of events stays open.
                let _ = stream.read(&mut request);
            });
        }
    });
}

/// From a runtime through the real helper to the metrics page; as root with the helper as another user, whom the
/// inventory socket knows by its credentials. JOULED_CONTAINERS names the jouled-containers to run, which is built
/// separately.
#[test]
fn helper_names_a_container_on_the_metrics_page() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const OTHER: u32 = 65_534;
    let Some(program) = std::env::var_os("JOULED_CONTAINERS") else {
        println!("skipped: JOULED_CONTAINERS does not name a jouled-containers (make test-containers does)");
        return;
    };
    let world = World::new();
    world.config(&format!("[inventory]\nusers = [\"{OTHER}\"]\n"));
    run(&world, 101);
    // A made-up tree says nothing of new cgroups.
    std::fs::create_dir_all(world.cgroups().join(&cgroup(102)[1..])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (socket, started) = (folder.path().join("docker.sock"), folder.path().join("started"));
    docker(&socket, 102, started.clone());
    let daemon = start(&world);
    let mut command = std::process::Command::new(program);
    command.arg("--runtime").arg(&socket).arg("--socket").arg(daemon.state.join("inventory.sock"));
    if rustix::process::geteuid().is_root() {
        let open = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        // The packaged helper has jouled's group, by which it may enter the folder and write to the socket.
        daemon.state.ancestors().take_while(|path| path.starts_with("/tmp/")).for_each(|path| open(path, 0o755));
        open(folder.path(), 0o755);
        open(&socket, 0o666);
        command.uid(OTHER).gid(0);
    }
    let mut helper = command.spawn().unwrap();
    until("the helper is heard", || (*health(&daemon.snapshot()) == Health::Healthy).then_some(()));

    run(&world, 102);
    std::fs::write(started, "").unwrap();
    let began = std::time::Instant::now();
    until("the container is named", || {
        work(&world, &[101, 102]);
        let snapshot = daemon.snapshot();
        let mut rows = snapshot.kind(jouled::model::entity::Kind::Container).rows.iter();
        rows.any(|row| row.labels.get("container_name") == "shop-web-1").then_some(())
    });
    println!("a name {} ms after the start of its container, with a tick every 100 ms", began.elapsed().as_millis());
    let page = until("the page has the name", || {
        work(&world, &[101, 102]);
        let page = daemon.page();
        (label(&page, "jouled_container_info", 102, "compose_project") == ["shop"]).then_some(page)
    });
    assert_eq!(label(&page, "jouled_container_info", 102, "container_name"), ["shop-web-1"]);
    page.adds_up();

    // It is killed: the name stays, and the container goes on.
    helper.kill().unwrap();
    helper.wait().unwrap();
    work(&world, &[101, 102]);
    assert_eq!(label(&daemon.page(), "jouled_container_info", 102, "container_name"), ["shop-web-1"]);
    daemon.stop();
}
