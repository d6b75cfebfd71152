use super::*;
use crate::power_model::file;
use crate::power_model::kepler::models::Models;
use crate::power_model::kepler::served;
use crate::power_model::prior;
use crate::power_model::registry::{Content, Entry, Signature};
use crate::power_model::samples::Sample;
use crate::power_model::train::{About, train};

const CPU: &str = "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz";

/// A model of the package of a machine that draws 40 W at rest and 200 W at full load, nearly straight; cycles and
/// misses cost as much as time.
pub(in crate::power_model) fn model(name: &str, threads: u32) -> Model {
    bent(name, threads, Target::Package, 0.0)
}

/// The same, with `bend` W more from the first work on.
fn bent(name: &str, threads: u32, target: Target, bend: f64) -> Model {
    let full = f64::from(threads);
    let sample = |number: u32| {
        let busy = full * f64::from(number % 21) / 20.0;
        let intensity = 0.6 + 0.1 * f64::from(number % 5);
        let u = busy / full;
        let watts = 40.0 + 80.0 * u + 80.0 * u * intensity + bend * u / (u + 0.05) + 0.2 * f64::from(number % 3);
        let mut sample = Sample {
            regime: format!("work{}", number % 4),
            seconds: 3.0,
            busy: Some(busy),
            cycles: Some(busy * 3e9 * intensity),
            instructions: Some(busy * 4e9 * intensity),
            cache_misses: Some(busy * 1e6 * intensity),
            ..Sample::default()
        };
        match target {
            Target::Package => sample.package = Some(watts),
            Target::Dram => sample.dram = Some(watts / 10.0),
            Target::Platform => sample.platform = Some(watts),
        }
        sample
    };
    let samples: Vec<Sample> = (0..420).map(sample).collect();
    let machine = crate::power_model::model::Machine {
        processor: CPU.to_owned(),
        packages: Some(2),
        threads,
        memory_gib: Some(188.0),
    };
    let about = About { name: name.to_owned(), machine, source: "lab.csv".to_owned() };
    train(&samples.iter().collect::<Vec<_>>(), target, &about).unwrap()
}

fn models(own: &[Model]) -> Models {
    let machine = prior::Machine {
        cpu: CPU.to_owned(),
        packages: 2,
        threads: 96,
        memory_gib: Some(188.0),
        ..prior::Machine::default()
    };
    let entry = |model: &Model| Entry {
        name: model.name.clone(),
        file: format!("/etc/jouled/models.d/{}.json", model.name),
        bytes: file::write(model).into_bytes(),
        signature: Signature::default(),
        content: Content::Own(model.clone()),
    };
    Models::new(machine, own.iter().map(entry).collect())
}

fn ask(models: &Models, request: &str) -> Value {
    let request = Request::read(request.as_bytes()).unwrap();
    serde_json::from_str(&models.estimate(&request).to_json()).unwrap()
}

fn watts(answer: &Value, component: &str) -> Vec<f64> {
    answer["powers"][component].as_array().unwrap().iter().map(|watts| watts.as_f64().unwrap()).collect()
}

const HALF: &str = r#"{"metrics":["bpf_cpu_time_ms","bpf_page_cache_hit"],"values":[[48000,9]],"output_type":"AbsPower","source":"rapl-sysfs"}"#;

#[test]
fn a_node_is_answered_by_the_model_of_this_machine() {
    let of_lab = models(&[model("lab", 96)]);
    let answer = ask(&of_lab, HALF);
    // 40 + 40 + 40 × the mean intensity of 0.8.
    assert!((watts(&answer, "package")[0] - 112.0).abs() < 2.5, "{answer}");
    let prior = ask(&models(&[]), HALF);
    assert_eq!(answer["powers"]["dram"], prior["powers"]["dram"], "memory has no model of its own: the prior's");
    assert_ne!(answer["powers"]["package"], prior["powers"]["package"]);
    assert_eq!((answer["msg"].as_str(), answer["core_ratio"].as_f64()), (Some(""), Some(1.0)));
    let with_memory = models(&[model("lab", 96), bent("lab-dram", 96, Target::Dram, 0.0)]);
    assert!((watts(&ask(&with_memory, HALF), "dram")[0] - 11.2).abs() < 0.5);
    // Counters say more than time: little work at the same load.
    let light = r#"{"metrics":["bpf_cpu_time_ms","cache_miss","cpu_cycles","cpu_instructions"],"values":[[48000,28800000,86400000000,115200000000]],"output_type":"AbsPower","source":"rapl-sysfs"}"#;
    let light = ask(&of_lab, light);
    assert!((watts(&light, "package")[0] - 104.0).abs() < 2.0, "{light}");
}

#[test]
fn another_machine_s_model_does_not_answer() {
    let other = models(&[model("small", 8)]);
    assert_eq!(ask(&other, HALF), ask(&models(&[]), HALF));
    let list: Value = serde_json::from_str(&served::list(&other)).unwrap();
    let listed = &list["models"][0];
    assert_eq!((listed["kind"].as_str(), listed["answers"].as_bool()), (Some("jouled"), Some(false)));
    assert!(listed["note"].as_str().unwrap().contains("8 threads"), "{listed}");
    // A client of such a machine gets it.
    let request = r#"{"metrics":["bpf_cpu_time_ms"],"output_type":"AbsPower","source":"acpi","weight":true,"machine_spec":{"processor":"intel_xeon_platinum_8275cl","cores":8}}"#;
    let platform = models(&[bent("small", 8, Target::Platform, 0.0)]);
    let filter = request.replace("\"bpf_cpu_time_ms\"", "\"bpf_cpu_time_ms\",\"bpf_page_cache_hit\"");
    let weights: Value = serde_json::from_str(&served::model(&platform, filter.as_bytes()).unwrap()).unwrap();
    assert_eq!(weights["machine_spec"]["cores"], 8);
    assert_eq!(weights["platform"]["All_Weights"]["Numerical_Variables"]["bpf_cpu_time_ms"]["scale"], 8000.0);
}

#[test]
fn processes_share_what_the_model_adds_to_rest() {
    let of_lab = models(&[model("lab", 96)]);
    let request = |rows: &str| HALF.replace("[[48000,9]]", rows).replace("AbsPower", "DynPower");
    let answer = ask(&of_lab, &request("[[12000,0],[36000,0],[0,0]]"));
    let powers = watts(&answer, "package");
    let added =
        watts(&ask(&of_lab, HALF), "package")[0] - watts(&ask(&of_lab, &HALF.replace("48000", "0")), "package")[0];
    assert!((powers.iter().sum::<f64>() - added).abs() < 0.01, "{powers:?} {added}");
    assert!((powers[1] / powers[0] - 3.0).abs() < 0.01 && powers[2] == 0.0, "{powers:?}");
    let none = ask(&of_lab, &request("[[0,0]]"));
    assert_eq!(watts(&none, "package"), [0.0]);
    // Far more CPU time than the machine has: a number, never below 0, and said.
    let flood = ask(&of_lab, &request("[[1e15,0]]"));
    assert!(watts(&flood, "package")[0] > 0.0, "{flood}");
}

#[test]
fn a_straight_model_becomes_weights_and_a_bent_one_is_refused() {
    let straight = model("lab", 96);
    for group in LINEAR_GROUPS {
        for output in [Output::Absolute, Output::Dynamic] {
            let line = linear(&straight, output, group).unwrap();
            assert!(line.error_percent < 15.0, "{group} {output:?}: {line:?}");
        }
    }
    let line = linear(&straight, Output::Absolute, "BPFOnly").unwrap();
    assert!((line.bias - 40.0).abs() < 3.0 && line.variables[0].scale == 96_000.0, "{line:?}");
    assert!((line.bias + line.variables[0].weight - 184.0).abs() < 5.0, "{line:?}");
    let bent = bent("bent", 96, Target::Package, 300.0);
    let why = linear(&bent, Output::Absolute, "BPFOnly").unwrap_err();
    assert!(why.starts_with("a straight line differs by ") && why.contains("more than 20 %"), "{why}");
    assert!(linear(&straight, Output::Absolute, "Other").is_err());
    // A refused one is listed with the reason, and the client of the model server gets the prior.
    let all = models(&[bent]);
    let list: Value = serde_json::from_str(&served::list(&all)).unwrap();
    let refused = &list["models"][0]["kepler"]["AbsPower"]["BPFOnly"]["refused"];
    assert!(refused.as_str().unwrap().contains("straight line"), "{list}");
    let request = r#"{"metrics":["bpf_cpu_time_ms","bpf_page_cache_hit"],"output_type":"AbsPower","source":"rapl-sysfs","weight":true}"#;
    assert_eq!(served::model(&all, request.as_bytes()), served::model(&models(&[]), request.as_bytes()));
    let of_lab = served::model(&models(&[straight]), request.as_bytes()).unwrap();
    let weights: Value = serde_json::from_str(&of_lab).unwrap();
    assert!((weights["package"]["All_Weights"]["Bias_Weight"].as_f64().unwrap() - line.bias).abs() < 1e-9, "{of_lab}");
    // What is written can be read again.
    let again = Weights::read(of_lab.as_bytes(), "AbsPower.json").unwrap();
    assert_eq!(again.machine, Some(spec(&model("lab", 96))));
}
