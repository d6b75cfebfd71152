//! Signed models: joulectl signs, checks, installs and fetches them, jouled uses, serves and refuses them. What a
//! signature is, and what is wrong with one, is tested beside the code; openssl as well.

use crate::common::{World, get, joulectl, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A model of the whole machine as Kepler 0.9 has it (kepler-model-db, Apache-2.0), in short.
const WEIGHTS: &str = r#"{"platform":{"All_Weights":{"Bias_Weight":63.7,"Categorical_Variables":{},"Numerical_Variables":{"bpf_cpu_time_ms":{"scale":3991.7,"weight":60.7}}}}}"#;

struct Lab(tempfile::TempDir);

impl Lab {
    /// A folder with the keys `a` and `b`, the folder `trusted` with `a.pub`, and the folder `models`.
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        for folder in ["trusted", "models", "installed"] {
            fs::create_dir(lab.path(folder)).unwrap();
        }
        for key in ["a", "b"] {
            let said = lab.says(&["key", "generate", "--out", &lab.text(key)]);
            assert!(said.contains("Private key: ") && said.contains(&lab.text(&format!("{key}.pub"))), "{said}");
        }
        fs::copy(lab.path("a.pub"), lab.path("trusted/a.pub")).unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = joulectl(Path::new("/nonexistent"), arguments);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        (output.status.code(), said)
    }

    fn says(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    }

    fn refuses(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        said
    }

    /// A model in the folder `models`, signed by a key where one is named.
    fn model(&self, name: &str, key: Option<&str>) -> String {
        let path = self.text(&format!("models/{name}_AbsPower.json"));
        fs::write(&path, WEIGHTS.replace("63.7", &format!("{}.5", name.len()))).unwrap();
        if let Some(key) = key {
            self.says(&["model", "sign", &path, "--key", &self.text(key)]);
        }
        path
    }
}

#[test]
fn joulectl_signs_and_checks_models() {
    let lab = Lab::new();
    let (trusted, a, b) = (lab.text("trusted"), lab.text("a"), lab.text("b"));
    let file = lab.model("lab", Some("a"));
    let verify = ["model", "verify", &file, "--trusted", &trusted];
    let said = lab.says(&verify);
    assert!(said.contains("signed by the key ") && said.contains("trusted/a.pub"), "{said}");
    lab.says(&["model", "verify", &file, "--key", &lab.text("a.pub")]);
    assert!(lab.refuses(&["model", "verify", &file, "--key", &lab.text("b.pub")]).contains("which is not trusted"));
    assert!(lab.refuses(&["model", "verify", &file, "--key", &a]).contains("it is a private key"));
    assert!(lab.refuses(&["model", "verify", &file, "--trusted", &lab.text("none")]).contains("has no key"));
    // A signature is not replaced by accident.
    assert!(lab.refuses(&["model", "sign", &file, "--key", &b]).contains("it exists"));
    lab.says(&["model", "sign", &file, "--key", &b, "--force"]);
    assert!(lab.refuses(&verify).contains("which is not trusted"));
    // The signature of another file, and none.
    let other = lab.model("other", Some("a"));
    fs::copy(format!("{other}.sig"), format!("{file}.sig")).unwrap();
    assert!(lab.refuses(&verify).contains("its signature is wrong"));
    fs::remove_file(format!("{file}.sig")).unwrap();
    assert!(lab.refuses(&verify).contains("it is not signed: there is no "));
    // What is no model is not signed.
    fs::write(lab.path("x.json"), "{}").unwrap();
    assert!(lab.refuses(&["model", "sign", &lab.text("x.json"), "--key", &a]).contains("x.json"));
    let refused = lab.refuses(&["model", "sign", &file, "--key", &lab.text("a.pub")]);
    assert!(refused.contains("no PRIVATE KEY"), "{refused}");
    assert!(lab.refuses(&["key", "generate", "--out", &a]).contains("never overwritten"));
}

#[test]
fn a_model_is_installed_with_its_signature() {
    let lab = Lab::new();
    let (trusted, installed, model) = (lab.text("trusted"), lab.text("installed"), lab.text("lab.json"));
    let mut samples =
        String::from("regime,seconds,busy,cycles,instructions,llc_misses,package_watts,dram_watts,platform_watts\n");
    for number in 0..120 {
        let busy = f64::from(number % 21) / 5.0;
        samples += &format!("work{},3,{busy},,,,{},,\n", number % 4, 10.0 + 5.0 * busy + f64::from(number % 3) / 10.0);
    }
    fs::write(lab.path("lab.csv"), samples).unwrap();
    let csv = lab.text("lab.csv");
    lab.says(&["model", "train", "--samples", &csv, "--target", "package", "--out", &model, "--threads", "4"]);
    // Another way to write the same JSON: the signature is of the bytes, and they are installed as they are.
    let compact: Value = serde_json::from_slice(&fs::read(&model).unwrap()).unwrap();
    fs::write(&model, compact.to_string()).unwrap();
    lab.says(&["model", "sign", &model, "--key", &lab.text("a")]);
    let import = ["model", "import", &model, "--folder", &installed, "--trusted", &trusted, "--force"];
    assert!(lab.says(&import).contains("signed by the key"));
    let there = lab.path("installed/lab.json");
    assert_eq!(fs::read_to_string(&there).unwrap(), compact.to_string());
    let list = ["model", "list", "--folder", &installed, "--trusted", &trusted];
    let rows: Value = serde_json::from_str(&lab.says(&[&list[..], &["--json"]].concat())).unwrap();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["signed"]), (1, &true.into()), "{rows}");
    assert!(rows[0]["signed_by"].as_str().unwrap().ends_with("trusted/a.pub"), "{rows}");
    assert!(lab.says(&list).contains(" yes "));
    // A file in the folder of keys that is none does no harm; one that is called as a key does.
    fs::write(lab.path("trusted/README"), "ours").unwrap();
    assert!(lab.says(&list).contains(" yes "));
    fs::write(lab.path("trusted/broken.pub"), "ours").unwrap();
    assert!(lab.refuses(&list).contains("broken.pub: it has no PUBLIC KEY"));
    fs::remove_file(lab.path("trusted/broken.pub")).unwrap();
    assert!(
        lab.says(&["model", "list", "--folder", &installed, "--trusted", &lab.text("none")]).contains("not checked")
    );
    // By a key that is not trusted: not installed, and the one before stays.
    lab.says(&["model", "sign", &model, "--key", &lab.text("b"), "--force"]);
    assert!(lab.refuses(&import).contains("which is not trusted"));
    assert!(lab.says(&list).contains(" yes "));
    // Without a signature: the one before does not stay beside it.
    fs::remove_file(lab.path("lab.json.sig")).unwrap();
    assert!(lab.says(&import).contains("not signed"));
    assert!(lab.says(&list).contains(" no "));
}

#[test]
fn jouled_uses_and_serves_what_is_signed_right() {
    let (world, lab) = (World::new(), Lab::new());
    for (name, key) in [("good", Some("a")), ("plain", None), ("foreign", Some("b")), ("cut", Some("a"))] {
        lab.model(name, key);
    }
    let cut = lab.path("models/cut_AbsPower.json.sig");
    let whole = fs::read_to_string(&cut).unwrap();
    fs::write(&cut, &whole[..whole.len() - 20]).unwrap();
    let config = |more: &str| {
        let (models, trusted) = (lab.text("models"), lab.text("trusted"));
        world.config(&format!(
            "[export.models]\nserve = true\nfolders = [{models:?}]\ntrusted_keys = {trusted:?}\n{more}\n"
        ));
    };
    config("");
    let daemon = world.start();
    let names = || {
        let list: Value = serde_json::from_str(&get(daemon.address, "/v1/models", &[]).body).unwrap();
        let name = |model: &Value| model["name"].as_str().unwrap().to_owned();
        let mut names: Vec<String> = list["models"].as_array().unwrap().iter().map(name).collect();
        names.retain(|name| name != "prior");
        names.sort();
        names
    };
    assert_eq!(names(), ["good_AbsPower", "plain_AbsPower"]);
    let said = |words: &str| drop(daemon.log.wait_for(words));
    said("foreign_AbsPower.json: not used: it is signed by the key ");
    said("cut_AbsPower.json.sig: line 4: the signature has to be 64 bytes");
    let served = get(daemon.address, "/v1/models/good_AbsPower.sig", &[]).body;
    assert_eq!(served, fs::read_to_string(lab.path("models/good_AbsPower.json.sig")).unwrap());

    // Signatures are asked for: what has none goes, and the rest goes on.
    config("require_signatures = true");
    daemon.signal(libc::SIGHUP);
    until("signed models alone", || (names() == ["good_AbsPower"]).then_some(()));
    said("plain_AbsPower.json: not used: it is not signed, and require_signatures of [export.models] asks for");

    // No key is trusted any more: nothing is used, and the log says why.
    fs::remove_file(lab.path("trusted/a.pub")).unwrap();
    until("no models", || {
        // A reload right after one of the same configuration is none.
        daemon.signal(libc::SIGHUP);
        names().is_empty().then_some(())
    });
    said("there is no key, and require_signatures of [export.models] is true");

    // And not asked for: without a key a signature says nothing, and one that cannot be read is still refused.
    config("");
    daemon.signal(libc::SIGHUP);
    until("all that can be read", || {
        (names() == ["foreign_AbsPower", "good_AbsPower", "plain_AbsPower"]).then_some(())
    });
    said("its signature is not checked, as there is no key in the folder trusted_keys");
    daemon.stop();
}
