//! The program between simulated containerds and CRI-Os, which speak gRPC, and a simulated jouled: what is sent when,
//! what bad ones do, and the memory for 10,000 containers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Jouled, World, id, lacks_ok};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jouled_containers::grpc::messages::{
    Any, Container, ContainerEvent, CriContainer, Envelope, Filters, Image, Metadata, Namespace,
};
use prost::Message;
use std::collections::HashMap;
use std::convert::Infallible;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

type Body = StreamBody<Frames>;

/// The frames of an answer: those of a stream of events are sent as they come.
struct Frames(mpsc::Receiver<Frame<Bytes>>);

impl futures_core::Stream for Frames {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

/// What a simulated runtime has and does.
#[derive(Default)]
struct Runtime {
    /// Containers of containerd by namespace, and of the CRI.
    containers: Vec<(String, Container)>,
    of_cri: Vec<CriContainer>,
    events: Vec<mpsc::Sender<Frame<Bytes>>>,
    /// The stream of events of the CRI ends at once.
    has_no_events: bool,
    /// What a list is answered with in place of the containers: the frames.
    answer: Option<Vec<Frame<Bytes>>>,
    /// The last frame of `answer` is sent again and again.
    is_endless: bool,
    hangs: bool,
    lists: usize,
}

type Shared = Arc<Mutex<Runtime>>;

fn framed(message: &[u8]) -> Frame<Bytes> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    Frame::data([&[0], &length[..], message].concat().into())
}

/// Field 1 of a message, which is this one.
fn element(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut field = vec![0x0a];
    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
    [field, bytes].concat()
}

fn status(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    Frame::trailers(trailers)
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (sender, receiver) = mpsc::channel(1024);
    let mut runtime = shared.lock().unwrap();
    let namespace = head.headers.get("containerd-namespace").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut frames = Vec::new();
    match head.uri.path().rsplit('/').next().unwrap() {
        _ if runtime.hangs => runtime.events.push(sender.clone()),
        "GetContainerEvents" if runtime.has_no_events => frames.push(status("0")),
        "Subscribe" | "GetContainerEvents" => runtime.events.push(sender.clone()),
        "List" => {
            let mut names: Vec<&str> = runtime.containers.iter().map(|(namespace, _)| namespace.as_str()).collect();
            names.dedup();
            let names = names.into_iter().map(|name| element(&Namespace { name: name.to_owned() }));
            frames = vec![framed(&names.collect::<Vec<_>>().concat()), status("0")];
        }
        "ListStream" | "ListContainers" if runtime.answer.is_some() => {
            runtime.lists += 1;
            frames = runtime.answer.iter().flatten().map(clone).collect();
            while runtime.is_endless && frames.len() < 16 {
                frames.push(clone(frames.last().unwrap()));
            }
        }
        "ListStream" => {
            runtime.lists += 1;
            let filters = Filters::decode(&body[5..]).unwrap().filters;
            let is_asked = |(of, container): &&(String, Container)| {
                of == namespace && (filters.is_empty() || filters.contains(&format!("id=={}", container.id)))
            };
            let asked = runtime.containers.iter().filter(is_asked);
            frames = asked.map(|(_, container)| framed(&element(container))).collect();
            frames.push(status("0"));
        }
        "ListContainers" => {
            runtime.lists += 1;
            let all: Vec<u8> = runtime.of_cri.iter().flat_map(element).collect();
            frames = vec![framed(&all), status("0")];
        }
        other => panic!("{other}"),
    }
    let is_endless = runtime.is_endless;
    drop(runtime);
    tokio::spawn(async move {
        loop {
            for frame in &frames {
                if sender.send(clone(frame)).await.is_err() {
                    return;
                }
            }
            if !is_endless || frames.is_empty() {
                return;
            }
        }
    });
    Response::builder().header("content-type", "application/grpc").body(StreamBody::new(Frames(receiver))).unwrap()
}

fn clone(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (_, trailers) => Frame::trailers(trailers.cloned().unwrap_or_default()),
    }
}

/// Listens at `path` as containerd and CRI-O do.
fn listen(path: &Path, runtime: Runtime) -> Shared {
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let shared = Arc::new(Mutex::new(runtime));
    let of_thread = Arc::clone(&shared);
    std::thread::spawn(move || {
        let tasks = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tasks.block_on(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&of_thread);
                tokio::spawn(async move {
                    let each = |request| {
                        let shared = Arc::clone(&shared);
                        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
                    };
                    let server = http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service_fn(each)).await;
                });
            }
        });
    });
    shared
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A container as nerdctl makes it.
fn of_nerdctl(number: u32, name: &str) -> (String, Container) {
    let labels = labels(&[("nerdctl/name", name), ("nerdctl/hostname", "h"), ("com.docker.compose.project", "shop")]);
    ("default".to_owned(), Container { id: id(number), labels, image: "docker.io/library/nginx:1".to_owned() })
}

fn of_cri(number: u32, name: &str) -> CriContainer {
    let uid = format!("uid-{number}");
    CriContainer {
        id: id(number),
        metadata: Some(Metadata { name: name.to_owned() }),
        image: Some(Image { image: "nginx:1".to_owned(), ..Image::default() }),
        state: 1,
        labels: labels(&[
            ("io.kubernetes.container.name", name),
            ("io.kubernetes.pod.uid", &uid),
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
        ]),
    }
}

/// Tells all that listen, as containerd and CRI-O do.
fn happens(runtime: &Shared, topic: &str, namespace: &str, number: u32) {
    let value = ContainerEvent { id: id(number) }.encode_to_vec();
    let event = Envelope { namespace: namespace.to_owned(), topic: topic.to_owned(), event: Some(Any { value }) };
    // The CRI's events are not read but for their first field, the id.
    let message = if topic.is_empty() { element(&ContainerEvent { id: id(number) }) } else { event.encode_to_vec() };
    runtime.lock().unwrap().events.retain(|stream| stream.try_send(framed(&message)).is_ok());
}

#[test]
fn containers_of_nerdctl_reach_jouled_and_events_are_followed() {
    let mut world = World::new();
    let mut kubernetes = of_nerdctl(7, "nginx");
    kubernetes.0 = "k8s.io".to_owned();
    kubernetes.1.labels = of_cri(7, "nginx").labels;
    let mut of_docker = of_nerdctl(8, "docker's own");
    of_docker.0 = "moby".to_owned();
    let of_ctr = ("default".to_owned(), Container { id: "redis".to_owned(), ..Container::default() });
    let containers = vec![of_nerdctl(1, "shop-web-1"), of_ctr, kubernetes, of_docker];
    let containerd = listen(&world.path("containerd"), Runtime { containers, ..Runtime::default() });
    let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
    world.start(&[("--containerd", "containerd")]);
    let mut jouled = Jouled::accept(&listener);
    let first = jouled.line(|line| line.contains("begin"));
    assert_eq!((&first["health"], first.get("user")), (&"ok".into(), None));
    let named = jouled.line(|line| line.contains("containers\":["));
    let expected = serde_json::json!([
        { "id": id(1), "name": "shop-web-1", "image": "docker.io/library/nginx:1", "compose_project": "shop" },
        { "id": id(7), "name": "nginx", "image": "docker.io/library/nginx:1",
          "pod_uid": "uid-7", "pod_name": "web-0", "pod_namespace": "shop" },
    ]);
    assert_eq!(named["containers"], expected);

    containerd.lock().unwrap().containers.push(of_nerdctl(2, "new"));
    happens(&containerd, "/containers/create", "default", 2);
    assert_eq!(jouled.line(|line| line.contains(&id(2)))["containers"][0]["name"], "new");
    containerd.lock().unwrap().containers.last_mut().unwrap().1.labels.insert("nerdctl/name".into(), "newer".into());
    happens(&containerd, "/containers/update", "default", 2);
    assert_eq!(jouled.line(|line| line.contains(&id(2)))["containers"][0]["name"], "newer");
    containerd.lock().unwrap().containers.remove(0);
    happens(&containerd, "/containers/delete", "default", 1);
    assert_eq!(jouled.line(|line| line.contains(&id(1)))["gone"][0], id(1));

    // It is restarted: what is new is found, and what ended.
    {
        let mut runtime = containerd.lock().unwrap();
        runtime.containers = vec![of_nerdctl(3, "three")];
        runtime.events.clear();
    }
    assert!(jouled.line(lacks_ok)["health"].as_str().unwrap().contains("broke off"));
    let news = jouled.line(|line| line.contains(&id(3)));
    assert_eq!(news["containers"][0]["name"], "three");
    assert_eq!(news["gone"].as_array().unwrap().len(), 2);
}

#[test]
fn containers_of_the_cri_are_followed_with_events_and_without() {
    for has_no_events in [false, true] {
        let mut world = World::new();
        let of_cri_o = vec![of_cri(1, "nginx"), CriContainer { state: 2, ..of_cri(5, "ended") }];
        let crio = listen(&world.path("crio"), Runtime { of_cri: of_cri_o, has_no_events, ..Runtime::default() });
        let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
        world.start(&[("--cri", "crio")]);
        let mut jouled = Jouled::accept(&listener);
        let named = jouled.line(|line| line.contains("containers\":["));
        let expected = serde_json::json!([{
            "id": id(1), "name": "nginx", "image": "nginx:1", "pod_uid": "uid-1", "pod_name": "web-0",
            "pod_namespace": "shop",
        }]);
        assert_eq!(named["containers"], expected);
        // A container is restarted: a new id under the same name.
        crio.lock().unwrap().of_cri = vec![of_cri(2, "nginx")];
        happens(&crio, "", "", 2);
        let news = jouled.line(|line| line.contains(&id(2)));
        assert_eq!((&news["containers"][0]["name"], &news["gone"][0]), (&"nginx".into(), &id(1).into()));
    }
}

#[test]
fn bad_answers_are_named_and_the_other_runtime_goes_on() {
    let good = || framed(&element(&of_cri(7, "good")));
    let wrong = CriContainer { id: "../../etc/passwd".to_owned(), ..of_cri(1, "a") };
    let no_text = framed(b"\x0a\x04\x0a\x02\xff\xfe");
    let huge = [&[0], &u32::MAX.to_be_bytes()[..], b"\x0a\xff\xff\xff\x7f"].concat();
    let twice = [element(&of_cri(1, "a")), element(&of_cri(1, "b")), element(&of_cri(7, "good"))].concat();
    let cases = [
        (vec![Frame::data(huge.into())], "a message of more than 1048576 bytes", false),
        (vec![Frame::data(Bytes::from_static(b"\x01\0\0\0\0"))], "compressed", false),
        (vec![framed(b"<html>")], "no message of Protocol Buffers", false),
        (vec![status("12")], "status 12 of gRPC", false),
        (vec![good()], "the answer broke off", false),
        (vec![Frame::data(Bytes::from_static(b"\0\0\0\0\x09\x0a")), status("0")], "in the middle", false),
        (vec![framed(&element(&wrong)), good(), status("0")], "an id that has not 64", true),
        (vec![no_text, good(), status("0")], "cannot be read", true),
        (vec![framed(&twice), status("0")], "two containers with one id", true),
    ];
    for (answer, words, others) in cases {
        let mut world = World::new();
        let bad = Runtime { answer: Some(answer), has_no_events: true, ..Runtime::default() };
        let _bad = listen(&world.path("bad"), bad);
        let containers = vec![of_nerdctl(5, "kept")];
        let _good = listen(&world.path("good"), Runtime { containers, ..Runtime::default() });
        let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
        world.start(&[("--cri", "bad"), ("--containerd", "good")]);
        let mut jouled = Jouled::accept(&listener);
        let (mut kept, mut good, mut said) = (false, !others, String::new());
        while !kept || !good || !said.contains(words) {
            let line = jouled.line(|line| lacks_ok(line) || line.contains("kept") || line.contains("good\","));
            kept |= line.to_string().contains("kept");
            good |= line["containers"].to_string().contains("good");
            assert!(!line["containers"].to_string().contains(&id(1)), "one of two with this id is named");
            said = if lacks_ok(&line.to_string()) { line["health"].as_str().unwrap().to_owned() } else { said };
            assert!(!said.chars().any(char::is_control));
        }
    }
}

#[test]
fn an_endless_answer_takes_no_memory_and_a_hung_runtime_is_named() {
    let mut world = World::new();
    let frames = vec![Frame::data(Bytes::from(vec![0; 5 << 13]))];
    let endless = Runtime { answer: Some(frames), is_endless: true, has_no_events: true, ..Runtime::default() };
    let _endless = listen(&world.path("endless"), endless);
    let _hung = listen(&world.path("hung"), Runtime { hangs: true, ..Runtime::default() });
    let listener = UnixListener::bind(world.path("inventory.sock")).unwrap();
    world.start(&[("--cri", "endless"), ("--containerd", "hung")]);
    let mut jouled = Jouled::accept(&listener);
    let (mut long, mut slow) = (false, false);
    while !(long && slow) {
        let line = jouled.line(lacks_ok);
        let health = line["health"].as_str().unwrap();
        long |= health.contains("more than 200 MiB") || health.contains("takes more than 60 s");
        slow |= health.contains("does not answer within 10 s");
    }
    assert!(world.peak_kilobytes() < 30 << 10, "{} kB", world.peak_kilobytes());
}

/// Prints the memory of the program, which is a figure of the documentation for a release build.
#[test]
fn ten_thousand_containers_take_little_memory() {
    let mut world = World::new();
    // The specification that containerd keeps with each container is field 5.
    let spec = vec![b'x'; 8_000];
    let of_cri_o: Vec<CriContainer> = (1..=10_000).map(|number| of_cri(number, "a-container-of-a-pod")).collect();
    let with_spec = |container: &CriContainer| {
        let Any { value } = Any { value: spec.clone() };
        let labels = container.labels.clone();
        let plain = Container { id: container.id.clone(), labels, image: "nginx:1".to_owned() };
        let mut field = vec![0x2a];
        prost::encoding::encode_varint(value.len() as u64, &mut field);
        let bytes = [plain.encode_to_vec(), field, value].concat();
        let mut whole = vec![0x0a];
        prost::encoding::encode_varint(bytes.len() as u64, &mut whole);
        framed(&[whole, bytes].concat())
    };
    let mut stream: Vec<Frame<Bytes>> = of_cri_o.iter().map(with_spec).collect();
    stream.push(status("0"));
    for (option, runtime) in [
        ("--cri", Runtime { of_cri: of_cri_o, ..Runtime::default() }),
        ("--containerd", Runtime { containers: vec![of_nerdctl(1, "")], answer: Some(stream), ..Runtime::default() }),
    ] {
        let _runtime = listen(&world.path(option), runtime);
        let socket = world.path("inventory.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        world.start(&[(option, option)]);
        let mut jouled = Jouled::accept(&listener);
        let (mut count, began) = (0, Instant::now());
        while count < 10_000 {
            let line = jouled.line(|line| line.contains("containers\":["));
            count += line["containers"].as_array().unwrap().len();
            assert!(began.elapsed() < Duration::from_secs(60));
        }
        println!("{option}: {} kB at the peak", world.peak_kilobytes());
        assert!(world.peak_kilobytes() < 20 << 10, "{} kB", world.peak_kilobytes());
    }
}
