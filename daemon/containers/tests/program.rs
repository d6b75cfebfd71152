//! The program between simulated runtimes and a simulated jouled: what is sent when, and what a bad runtime does.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Jouled, PATIENCE, World, id, lacks_ok};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn listed(number: u32, name: &str) -> String {
    let labels = r#"{"com.docker.compose.project":"shop","team":"blue"}"#;
    format!(r#"{{"Id":"{}","Names":["/{name}"],"Image":"nginx","Labels":{labels}}}"#, id(number))
}

/// What a simulated runtime does.
#[derive(Default)]
struct Runtime {
    /// The answer to a list: the whole response.
    list: String,
    /// Streams of events that are open.
    events: Vec<UnixStream>,
    /// It takes requests and answers nothing.
    hangs: bool,
    lists: usize,
}

type Shared = Arc<Mutex<Runtime>>;

fn whole(containers: &[String]) -> String {
    let body = format!("[{}]\n", containers.join(","));
    format!("{CHUNKED}{}0\r\n\r\n", chunk(&body))
}

/// Listens at `path` as Docker does.
fn listen(path: &Path, list: String) -> Shared {
    let listener = UnixListener::bind(path).unwrap();
    let runtime = Arc::new(Mutex::new(Runtime { list, ..Runtime::default() }));
    let shared = Arc::clone(&runtime);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, shared) = (stream.unwrap(), Arc::clone(&shared));
            std::thread::spawn(move || {
                let mut request = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while reader.read_line(&mut request).is_ok_and(|count| count > 2) {}
                let mut runtime = shared.lock().unwrap();
                if runtime.hangs {
                    runtime.events.push(stream);
                } else if request.starts_with("GET /events") {
                    let _ = stream.write_all(CHUNKED.as_bytes());
                    runtime.events.push(stream);
                } else {
                    runtime.lists += 1;
                    let list = runtime.list.clone();
                    drop(runtime);
                    let _ = stream.write_all(list.as_bytes());
                }
            });
        }
    });
    runtime
}

fn event(runtime: &Shared, action: &str, number: u32, name: &str) {
    let actor = format!(r#"{{"ID":"{}","Attributes":{{"name":"{name}","image":"nginx"}}}}"#, id(number));
    let text = format!("{{\"Type\":\"container\",\"Action\":\"{action}\",\"Actor\":{actor}}}\n");
    runtime.lock().unwrap().events.iter_mut().for_each(|stream| drop(stream.write_all(chunk(&text).as_bytes())));
}

#[test]
fn names_of_a_runtime_reach_jouled_and_a_new_jouled() {
    let mut world = World::new();
    let docker = listen(&world.path("docker"), whole(&[listed(1, "shop-web-1")]));
    let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
    world.start(&[("--runtime", "docker")]);
    let mut jouled = Jouled::accept(&listener);
    let first = jouled.line(|line| line.contains("begin"));
    assert_eq!((&first["v"], &first["source"], &first["health"]), (&2.into(), &"containers".into(), &"ok".into()));
    let named = jouled.line(|line| line.contains("containers\":["));
    let expected = serde_json::json!([{
        "id": id(1), "name": "shop-web-1", "image": "nginx", "compose_project": "shop", "labels": { "team": "blue" }
    }]);
    assert_eq!(named["containers"], expected);
    event(&docker, "start", 2, "new");
    assert_eq!(jouled.line(|line| line.contains(&id(2)))["containers"][0]["name"], "new");
    event(&docker, "rename", 2, "newer");
    assert_eq!(jouled.line(|line| line.contains(&id(2)))["containers"][0]["name"], "newer");
    event(&docker, "die", 1, "shop-web-1");
    assert_eq!(jouled.line(|line| line.contains(&id(1)))["gone"][0], id(1));
    // Another jouled hears everything, whatever the runtime does.
    docker.lock().unwrap().hangs = true;
    drop(jouled);
    let mut jouled = Jouled::accept(&listener);
    let known = jouled.line(|line| line.contains("containers\":["));
    assert_eq!((known["containers"].as_array().unwrap().len(), &known["containers"][0]["name"]), (1, &"newer".into()));
    std::fs::remove_file(world.path("docker")).unwrap();
    jouled.line(|line| line.contains(r#""health":"absent""#));
}

#[test]
fn a_runtime_that_is_restarted_is_asked_again() {
    let mut world = World::new();
    let docker = listen(&world.path("docker"), whole(&[listed(1, "one"), listed(2, "two")]));
    let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
    world.start(&[("--runtime", "docker")]);
    let mut jouled = Jouled::accept(&listener);
    jouled.line(|line| line.contains("containers\":["));
    {
        let mut docker = docker.lock().unwrap();
        docker.list = whole(&[listed(2, "two"), listed(3, "three")]);
        docker.events.clear();
    }
    let health = jouled.line(lacks_ok)["health"].to_string();
    assert!(health.contains("broke off"), "{health}");
    let news = jouled.line(|line| line.contains(&id(3)));
    assert_eq!((&news["containers"][0]["name"], &news["gone"][0]), (&"three".into(), &id(1).into()));
}

#[test]
fn bad_answers_are_named_and_the_other_runtime_goes_on() {
    let long = format!("{CHUNKED}{}", chunk(&format!("[{{\"Id\":\"{}", "x".repeat(2 << 20))));
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let good = listed(7, "good");
    let broken = r#"{"Id":"../../etc/passwd","Names":["/a"]}"#.to_owned();
    let cases = [
        (long, "an object of more than 1048576 bytes", false),
        (format!("{CHUNKED}{}0\r\n\r\n", chunk("[{}")), "has no end", false),
        (format!("{head}[{good},"), "the answer broke off", false),
        ("\u{1b}[31mno HTTP\r\n\r\n".to_owned(), "invalid HTTP", false),
        ("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_owned(), "status 500", false),
        (format!("{CHUNKED}{}0\r\n\r\n", chunk("<html>")), "no list of objects", false),
        (whole(&[broken, good.clone()]), "cannot be read: an id that has not 64", true),
        (whole(&[listed(1, "a"), listed(1, "b"), good]), "two containers with one id", true),
    ];
    for (answer, words, others) in cases {
        let mut world = World::new();
        let _bad = listen(&world.path("bad"), answer);
        let _docker = listen(&world.path("docker"), whole(&[listed(5, "kept")]));
        let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
        world.start(&[("--runtime", "bad"), ("--runtime", "docker")]);
        let mut jouled = Jouled::accept(&listener);
        let (mut kept, mut good, mut said) = (false, !others, String::new());
        while !kept || !good || !said.contains(words) {
            let line = jouled.line(|line| lacks_ok(line) || line.contains("kept") || line.contains("good"));
            kept |= line.to_string().contains("kept");
            good |= line.to_string().contains("good");
            assert!(!line["containers"].to_string().contains(&id(1)), "one of two with this id is named");
            said = if lacks_ok(&line.to_string()) { line["health"].as_str().unwrap().to_owned() } else { said };
            assert!(!said.chars().any(char::is_control));
        }
    }
}

#[test]
fn an_answer_of_a_gigabyte_takes_no_memory_and_a_hung_runtime_is_named() {
    let mut world = World::new();
    let list = UnixListener::bind(world.path("endless")).unwrap();
    std::thread::spawn(move || {
        for stream in list.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 2048];
            let count = stream.read(&mut request).unwrap();
            let is_list = request[..count].starts_with(b"GET /containers");
            std::thread::spawn(move || {
                let mut say = |text: &str| stream.write_all(text.as_bytes());
                let blanks = chunk(&" ".repeat(1 << 20));
                let _ = say(CHUNKED);
                // The stream of events stays open; the list never ends.
                while is_list && say(&blanks).is_ok() {}
                std::thread::sleep(PATIENCE);
            });
        }
    });
    let hung = listen(&world.path("hung"), String::new());
    hung.lock().unwrap().hangs = true;
    let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
    world.start(&[("--runtime", "endless"), ("--runtime", "hung")]);
    let mut jouled = Jouled::accept(&listener);
    let (mut long, mut slow) = (false, false);
    let began = Instant::now();
    while !(long && slow) {
        let line = jouled.line(lacks_ok);
        let health = line["health"].as_str().unwrap();
        long |= health.contains("more than 200 MiB");
        slow |= health.contains("does not answer within 10 s");
        assert!(began.elapsed() < PATIENCE, "{health}");
    }
    assert!(world.peak_kilobytes() < 30 << 10, "{} kB", world.peak_kilobytes());
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let said = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_jouled-containers")).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["--runtime", "docker.sock"]).contains("an absolute path"));
    assert!(said(&["--label", ""]).contains("a name has 1 to 128 bytes"));
    assert!(said(&["--label=a"; 17]).contains("at most 16"));
}

/// A socket of the system that somebody else listens at is not asked.
#[test]
fn a_socket_that_belongs_to_another_user_is_not_asked() {
    use jouled_containers::http::get;
    use jouled_containers::sockets::Owner;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker.sock");
    let _runtime = listen(&path, whole(&[]));
    let own = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&path).unwrap());
    let tasks = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |owner| tasks.block_on(get(&path, owner, "/containers/json")).map(|_| ());
    assert_eq!(ask(Owner::Any), Ok(()));
    assert_eq!(ask(Owner::User(own)), Ok(()));
    let error = ask(Owner::User(own + 1)).unwrap_err();
    assert!(error.contains(&format!("belongs to user {own} and not to user {}", own + 1)), "{error}");
    if own != 0 {
        assert!(ask(Owner::Root).unwrap_err().contains("and not to root"));
    }
}
