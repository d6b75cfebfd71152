//! `joulectl model fetch`, which jouled-models.service runs: from another jouled over TLS, and from a web server that
//! does everything wrong. Which models there can be is tested beside the code.

use crate::common::{World, joulectl, until};
use crate::web::{Files, TLS};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A model of the whole machine as Kepler 0.9 has it (kepler-model-db, Apache-2.0), in short.
const WEIGHTS: &str = r#"{"platform":{"All_Weights":{"Bias_Weight":63.7,"Categorical_Variables":{},"Numerical_Variables":{"bpf_cpu_time_ms":{"scale":3991.7,"weight":60.7}}}}}"#;

/// A folder for the list and the files.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(lab.path("models")).unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn list(&self, lines: &str) {
        fs::write(self.path("models.urls"), lines).unwrap();
    }

    fn fetch(&self, more: &[&str]) -> Output {
        let (list, folder, changed) = (self.path("models.urls"), self.path("models"), self.path("changed"));
        let _ = fs::remove_file(&changed);
        let [list, folder, changed] = [&list, &folder, &changed].map(|path| path.to_str().unwrap());
        let arguments = ["model", "fetch", "--list", list, "--folder", folder, "--changed", changed];
        joulectl(Path::new("/nonexistent"), &[&arguments[..], more].concat())
    }

    /// Names of all files in the folder of models.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("models")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn texts(output: &Output) -> (bool, String, String) {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap());
    assert!(!err.contains("panicked"), "{err}");
    (output.status.success(), out, err)
}

#[test]
fn models_of_another_jouled_are_fetched_kept_up_to_date_and_removed() {
    let (world, files, lab) = (World::new(), Files::new(), Lab::new());
    files.issue("127.0.0.1");
    let (web, ca) = (files.write("web.yml", TLS), files.write("ca.crt", &files.authority()));
    let served = lab.path("served");
    fs::create_dir(&served).unwrap();
    let source = served.join("acpi_AbsPower.json");
    fs::write(&source, WEIGHTS).unwrap();
    world.config(&format!(
        "[export]\nweb_config_file = {web:?}\n[export.models]\nserve = true\nfolders = [{served:?}]\n"
    ));
    let daemon = world.start();
    let address = format!("https://{}/v1/models/acpi_AbsPower", daemon.address);
    lab.list(&format!("# ours\n{address}\n"));
    let trusted = ["--ca-file", ca.to_str().unwrap()];

    let (well, out, err) = texts(&lab.fetch(&trusted));
    let name = format!("127.0.0.1_{}_v1_models_acpi_AbsPower.json", daemon.address.port());
    let file = lab.path("models").join(&name);
    assert!(well && out.contains(&format!("written to {}", file.display())), "{out}{err}");
    assert_eq!(fs::read_to_string(&file).unwrap(), WEIGHTS);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(lab.files(), [".fetched.json", &name]);
    assert!(lab.path("changed").exists());
    let list =
        joulectl(Path::new("/nonexistent"), &["model", "list", "--folder", lab.path("models").to_str().unwrap()]);
    assert!(texts(&list).1.contains("weights of Kepler"));

    // Nothing new: the server says so by its mark, and nothing is written.
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    let (well, out, _) = texts(&lab.fetch(&trusted));
    assert!(well && out.contains("as it was") && !lab.path("changed").exists(), "{out}");
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
    // A file that somebody damaged is fetched again.
    fs::write(&file, "{}").unwrap();
    assert!(texts(&lab.fetch(&trusted)).0);
    assert_eq!(fs::read_to_string(&file).unwrap(), WEIGHTS);

    // A newer one.
    let newer = WEIGHTS.replace("63.7", "64.7");
    fs::write(&source, &newer).unwrap();
    daemon.signal(libc::SIGHUP);
    until("the newer model", || {
        assert!(texts(&lab.fetch(&trusted)).0);
        (fs::read_to_string(&file).unwrap() == newer && lab.path("changed").exists()).then_some(())
    });

    // With its signature, which the other jouled serves beside it.
    let (key, keys) = (lab.path("key"), lab.path("keys"));
    let sign = ["model", "sign", source.to_str().unwrap(), "--key", key.to_str().unwrap(), "--force"];
    assert!(texts(&joulectl(Path::new("/"), &["key", "generate", "--out", key.to_str().unwrap()])).0);
    fs::create_dir(&keys).unwrap();
    fs::rename(lab.path("key.pub"), keys.join("key.pub")).unwrap();
    lab.list(&format!("{address} signed\n"));
    let checked = [trusted[0], trusted[1], "--trusted", keys.to_str().unwrap()];
    let (well, out, _) = texts(&lab.fetch(&checked));
    assert!(!well && out.contains("its signature: the server answers 404"), "{out}");
    assert_eq!(fs::read_to_string(&file).unwrap(), newer, "the last file stays");
    assert!(texts(&joulectl(Path::new("/"), &sign)).0);
    until("the signature", || {
        // A reload right after one of the same configuration is none.
        daemon.signal(libc::SIGHUP);
        texts(&lab.fetch(&checked)).0.then_some(())
    });
    let beside = format!("{name}.sig");
    assert_eq!(lab.files(), [".fetched.json", &name, &beside]);
    let text = fs::read_to_string(served.join("acpi_AbsPower.json.sig")).unwrap();
    assert_eq!(fs::read_to_string(lab.path("models").join(&beside)).unwrap(), text);
    let (well, out, _) = texts(&lab.fetch(&checked));
    assert!(well && out.contains("as it was") && !lab.path("changed").exists(), "{out}");
    // By another key: neither the file nor its signature changes.
    let other = lab.path("other");
    assert!(texts(&joulectl(Path::new("/"), &["key", "generate", "--out", other.to_str().unwrap()])).0);
    let by_other = [&sign[..4], &[other.to_str().unwrap(), "--force"]].concat();
    assert!(texts(&joulectl(Path::new("/"), &by_other)).0);
    until("the other signature", || {
        daemon.signal(libc::SIGHUP);
        let (well, out, _) = texts(&lab.fetch(&checked));
        (!well && out.contains("which is not trusted")).then_some(())
    });
    assert_eq!(fs::read_to_string(lab.path("models").join(&beside)).unwrap(), text);
    // Not asked for any more.
    lab.list(&format!("{address}\n"));
    assert!(texts(&lab.fetch(&checked)).0);
    assert_eq!(lab.files(), [".fetched.json", &name]);

    // A server that proves nothing: the last file stays, and the unit fails.
    let (well, out, err) = texts(&lab.fetch(&[]));
    assert!(!well && out.contains("not fetched: ") && out.contains("the last file stays"), "{out}{err}");
    assert!(err.contains("1 of 1 files could not be fetched"), "{err}");
    assert_eq!(fs::read_to_string(&file).unwrap(), newer);

    // Not in the list any more. A file of somebody else stays.
    fs::write(lab.path("models/own.json"), WEIGHTS).unwrap();
    lab.list("# none\n");
    let (well, out, _) = texts(&lab.fetch(&trusted));
    assert!(well && out.contains("removed") && out.contains("names no address"), "{out}");
    assert_eq!(lab.files(), [".fetched.json", "own.json"]);
    assert!(lab.path("changed").exists());
    daemon.stop();
}

/// Answers each request by its path, in one thread, until the test ends.
fn web_server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            let Some(Ok(first)) = lines.next() else { continue };
            lines.by_ref().map_while(Result::ok).find(String::is_empty);
            // A client that is gone needs no answer.
            let _ = (&stream).write_all(&answer(first.split(' ').nth(1).unwrap_or_default()));
        }
    });
    address
}

fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_a_server_does_wrong_is_said_and_the_other_files_come() {
    let huge = format!("{}{WEIGHTS}", " ".repeat(2 << 20));
    let cut = &WEIGHTS[..80];
    let bias = WEIGHTS.replace("platform", "Platform");
    let body = |status: &str, more: &str, text: &str| {
        format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
    };
    let answers: Vec<(&str, String, String, &str)> = vec![
        (
            "/moved_AbsPower.json",
            body("302 Found", "Location: https://other.example/x\r\n", ""),
            sha256(""),
            "only addresses of the list",
        ),
        ("/none_AbsPower.json", body("404 Not Found", "", "no"), sha256("no"), "404"),
        ("/huge_AbsPower.json", body("200 OK", "", &huge), sha256(&huge), "longer than 1048576 bytes"),
        ("/zip_AbsPower.json", body("200 OK", "", "PK\u{3}\u{4}"), sha256("PK\u{3}\u{4}"), "a zip archive"),
        ("/cut_AbsPower.json", body("200 OK", "", cut), sha256(cut), "cut short"),
        ("/other_AbsPower.json", body("200 OK", "", &bias), sha256(&bias), "no weights of Kepler"),
        ("/changed_AbsPower.json", body("200 OK", "", WEIGHTS), sha256("what was meant"), "the list asks for"),
        (
            "/broken_AbsPower.json",
            body("200 OK", "", WEIGHTS).replace("Content-Length: 1", "Content-Length: 9"),
            sha256(WEIGHTS),
            "broke off",
        ),
        ("/unnamed.json", body("200 OK", "", WEIGHTS), sha256(WEIGHTS), "AbsPower or DynPower"),
    ];
    let all: Vec<(String, String)> = answers.iter().map(|one| (one.0.to_owned(), one.1.clone())).collect();
    let good = body("200 OK", "ETag: \"1\"\r\n", WEIGHTS);
    let address = web_server(move |path| {
        let found = all.iter().find(|(known, _)| known == path);
        found.map_or_else(|| good.clone(), |(_, answer)| answer.clone()).into_bytes()
    });
    let lab = Lab::new();
    let line = |path: &str, sum: &str| format!("http://{address}{path} sha256={sum}\n");
    let mut list: String = answers.iter().map(|(path, _, sum, _)| line(path, sum)).collect();
    list.push_str(&line("/good_AbsPower.json?token=hidden", &sha256(WEIGHTS)));
    lab.list(&list);
    let (well, out, err) = texts(&lab.fetch(&[]));
    assert!(!well && err.contains(&format!("{} of {} files", answers.len(), answers.len() + 1)), "{out}{err}");
    for (path, _, _, why) in &answers {
        let said = out.lines().find(|line| line.contains(path)).unwrap_or_else(|| panic!("{path}: {out}"));
        assert!(said.contains("not fetched: ") && said.contains(why), "{said}");
    }
    assert!(!out.contains("hidden") && !err.contains("hidden"), "{out}{err}");
    let name = format!("127.0.0.1_{}_good_AbsPower.json", address.port());
    assert_eq!(lab.files(), [".fetched.json", &name], "no other file, and no part of one");
    assert!(!fs::read_to_string(lab.path("models/.fetched.json")).unwrap().contains("hidden"));
    // The only file that will do is there: nobody is asked.
    lab.list(&line("/good_AbsPower.json?token=hidden", &sha256(WEIGHTS)));
    let (well, out, _) = texts(&lab.fetch(&[]));
    assert!(well && out.contains("as it was"), "{out}");
}

#[test]
fn a_list_or_folder_that_cannot_be_used_is_named() {
    let lab = Lab::new();
    let refused = || {
        let (well, _, err) = texts(&lab.fetch(&[]));
        assert!(!well && err.starts_with("joulectl: "), "{err}");
        err
    };
    assert!(refused().contains("models.urls: "), "no list");
    lab.list("https://models.example/lab.json\nhttp://models.example/lab.json\n");
    assert!(refused().contains("models.urls: line 2: http:// protects nothing"));
    lab.list("");
    fs::remove_dir_all(lab.path("models")).unwrap();
    assert!(refused().contains("/models: "), "no folder");
}

/// The unit as it is shipped: its score, and a line for each mark.
#[test]
fn the_unit_that_fetches_is_sandboxed_and_each_mark_is_explained() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/jouled-models.service");
    let arguments = ["security", "--no-pager", "--offline=yes", "--threshold=11", unit];
    let Ok(done) = Command::new("systemd-analyze").args(arguments).output() else {
        println!("skipped: no systemd-analyze");
        return;
    };
    let said = String::from_utf8(done.stdout).unwrap();
    if !said.contains("Overall exposure level") {
        println!("skipped: this systemd-analyze cannot look at files");
        return;
    }
    assert!(done.status.success(), "{said}");
    let text = fs::read_to_string(unit).unwrap();
    let explained = text.split("still marks, and why").nth(1).unwrap();
    for line in said.lines().filter(|line| line.starts_with('✗')) {
        let mark = line.split_whitespace().nth(1).unwrap();
        let words = mark.split(['=', '~', '/', '(', ')', '|']).filter(|word| word.len() > 3);
        let known = |word: &str| word != "RestrictAddressFamilies" && explained.contains(word);
        assert!(words.into_iter().any(known), "{mark} is not explained in the unit");
    }
}
