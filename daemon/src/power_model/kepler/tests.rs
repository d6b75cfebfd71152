//! Files and requests in the shapes of Kepler 0.6 to 0.9. The numbers of the weights are those of its published models
//! (kepler-model-db, Apache-2.0).

use super::answer::{Answer, MOST_BYTES};
use super::machine::{Spec, processor};
use super::models::{Loaded, Models};
use super::request::{End, Filter, Request};
use super::served::{self, BestQuery};
use super::weights::{Variable, Weights};
use super::{Component, Output};
use crate::power_model::prior::Machine;
use crate::power_model::registry::{Content, Entry, Signature};
use proptest::prelude::*;
use serde_json::{Value, json};

fn linear(bias: f64, weight: f64, scale: f64) -> Value {
    json!({"All_Weights": {"Bias_Weight": bias, "Categorical_Variables": {}, "Numerical_Variables": {
        "bpf_cpu_time_ms": {"scale": scale, "weight": weight}, "bpf_page_cache_hit": {"scale": 1.0, "weight": 0.0}}}})
}

fn curve(of: &[f64]) -> Value {
    json!({"All_Weights": {"Categorical_Variables": {}, "CurveFit_Weights": of, "Numerical_Variables": {
        "cache_miss": {"scale": 47_758_890_482.0}, "cpu_cycles": {"scale": 296_920_248_053.0},
        "cpu_instructions": {"scale": 365_426_866_197.0}}}})
}

/// Kepler 0.9's own weights for nodes with RAPL.
fn rapl() -> Value {
    json!({"model_name": "SGDRegressorTrainer_0",
        "package": linear(143.812_063_245_066_58, 305.148_172_889_668, 95_877.0), "core": linear(0.0, 0.0, 95_877.0),
        "uncore": linear(0.0, 0.0, 95_877.0), "dram": linear(18.616_285_480_502_686, 8.434_209_551_249_596, 95_877.0)})
}

fn read(value: &Value, path: &str) -> Result<Weights, String> {
    Weights::read(value.to_string().as_bytes(), path)
}

fn loaded(path: &str, value: &Value) -> Loaded {
    Loaded {
        name: path.replace('/', "_"),
        file: path.into(),
        bytes: value.to_string().into_bytes(),
        weights: read(value, path).unwrap(),
    }
}

fn machine() -> Machine {
    Machine {
        cpu: "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz".into(),
        packages: 2,
        threads: 96,
        memory_gib: Some(188.0),
        ..Machine::default()
    }
}

fn models(files: Vec<Loaded>) -> Models {
    Models::new(machine(), entries(files))
}

fn entries(files: Vec<Loaded>) -> Vec<Entry> {
    let of = |Loaded { name, file, bytes, weights }| Entry {
        name,
        file,
        bytes,
        signature: Signature::default(),
        content: Content::Kepler(weights),
    };
    files.into_iter().map(of).collect()
}

fn ask(models: &Models, request: &str) -> String {
    match Request::read(request.as_bytes()) {
        Ok(request) => models.estimate(&request).to_json(),
        Err(why) => Answer::error(why).to_json(),
    }
}

/// What a 0.7 exporter asks for its node.
const NODE: &str = r#"{"metrics":["bpf_cpu_time_ms","bpf_page_cache_hit"],"values":[[9587.7,52000]],"output_type":"AbsPower","source":"rapl-sysfs","system_features":["cpu_architecture"],"system_values":["Sky Lake"],"trainer_name":"","filter":""}"#;

#[test]
fn a_node_by_published_weights() {
    let models = models(vec![loaded("intel_rapl_AbsPowerModel.json", &rapl())]);
    let wanted =
        r#"{"powers":{"package":[174.327],"core":[0.000],"uncore":[0.000],"dram":[19.460]},"msg":"","core_ratio":1}"#;
    assert_eq!(ask(&models, NODE), wanted);
    // 0.9 calls the source so; #878 leaves it out; 0.6 counts microseconds.
    assert_eq!(ask(&models, &NODE.replace("rapl-sysfs", "intel_rapl")), wanted);
    assert_eq!(ask(&models, &NODE.replace(r#""source":"rapl-sysfs","#, "")), wanted);
    assert_eq!(ask(&models, &NODE.replace("_time_ms", "_time_us").replace("9587.7", "9587700")), wanted);
    // The row of zeros that a client sends at its start.
    assert!(ask(&models, &NODE.replace("9587.7,52000", "0,0")).starts_with(r#"{"powers":{"package":[143.812],"#));
    // A laptop: clients multiply idle power by the ratio of threads.
    let laptop = Models::new(
        Machine { cpu: "x".into(), packages: 1, threads: 8, ..Machine::default() },
        entries(vec![loaded("intel_rapl_AbsPowerModel.json", &rapl())]),
    );
    assert!(ask(&laptop, NODE).ends_with(r#""core_ratio":0.0833}"#), "{}", ask(&laptop, NODE));
    let platform = json!({"platform": linear(63.7, 60.7, 3991.69)});
    let models = self::models(vec![loaded("acpi_AbsPowerModel.json", &platform)]);
    let acpi = NODE.replace("rapl-sysfs", "acpi").replace("9587.7", "3991.69");
    assert!(ask(&models, &acpi).starts_with(r#"{"powers":{"platform":[124.400]},"msg":"""#));
}

#[test]
fn faults_of_exporters_are_repaired_or_named() {
    let models = models(vec![loaded("intel_rapl_AbsPowerModel.json", &rapl())]);
    let right = ask(&models, NODE);
    let powers = |answer: &str| serde_json::from_str::<Value>(answer).unwrap()["powers"].clone();
    // A name twice: with one value fewer, and with all.
    let twice = NODE.replace(r#"["bpf_cpu_time_ms","#, r#"["bpf_cpu_time_ms","bpf_cpu_time_ms","#);
    for request in [twice.clone(), twice.replace("[[9587.7,", "[[9587.7,1,")] {
        assert_eq!(powers(&ask(&models, &request)), powers(&right), "{request}");
        assert!(ask(&models, &request).contains("named twice"));
    }
    let irq = NODE.replace("bpf_page_cache_hit\"", "bpf_page_cache_hit\",\"irq_net_tx\",\"bpf_net_tx_irq\"");
    assert_eq!(powers(&ask(&models, &irq.replace("52000", "52000,7"))), powers(&right));
    // Which value is missing cannot be known.
    let fewer = ask(&models, &NODE.replace("9587.7,52000", "9587.7"));
    assert_eq!(fewer, r#"{"powers":{},"msg":"values: row 1 has 1 values for 2 metrics"}"#);
    assert_eq!(
        powers(&ask(&models, &NODE.replace("9587.7", "-4"))),
        powers(&ask(&models, &NODE.replace("9587.7", "0")))
    );
    for (from, to, why) in [
        ("AbsPower", "Watts", "output_type"),
        ("rapl-sysfs", "moon", "source"),
        ("9587.7", "\"much\"", "cannot be read"),
        ("9587.7", "null", "cannot be read"),
        ("9587.7", "1e999", "cannot be read"),
    ] {
        let answer: Value = serde_json::from_str(&ask(&models, &NODE.replace(from, to))).unwrap();
        assert!(
            answer["powers"].as_object().unwrap().is_empty() && answer["msg"].as_str().unwrap().contains(why),
            "{answer}"
        );
    }
    // Go writes empty lists as null.
    let none = ask(&models, &NODE.replace("[[9587.7,52000]]", "null"));
    assert!(none.starts_with(r#"{"powers":{"package":[],"#), "{none}");
    let features = vec!["x"; 65];
    let wide = json!({"metrics": features, "values": [vec![0; 65]]}).to_string();
    assert!(ask(&models, &wide).contains("more than 64"));
    let long = json!({"metrics": ["bpf_cpu_time_ms"], "values": vec![[0]; 2001]}).to_string();
    assert!(ask(&models, &long).contains("more than 2000 rows"));
}

#[test]
fn processes_by_the_prior() {
    let models = models(Vec::new());
    let rows: Vec<[f64; 2]> = (0..4).map(|at| [f64::from(at) * 8_000.0, 0.0]).collect();
    let request = json!({"metrics": ["bpf_cpu_time_ms", "bpf_page_cache_hit"], "values": rows, "output_type": "DynPower",
        "source": "intel_rapl", "system_features": null, "system_values": null, "trainer_name": "", "filter": ""});
    let answer: Value = serde_json::from_str(&ask(&models, &request.to_string())).unwrap();
    let package: Vec<f64> = serde_json::from_value(answer["powers"]["package"].clone()).unwrap();
    let added = models.prior().package(0.5).watts - models.prior().package(0.0).watts;
    assert!((package.iter().sum::<f64>() - added).abs() < 0.01, "{package:?} {added}");
    assert!(package[0] == 0.0 && (package[3] / package[1] - 3.0).abs() < 1e-3);
    assert!(answer["powers"]["core"].is_null() && answer["powers"]["dram"].is_array());
    let counters = ask(&models, &request.to_string().replace("bpf_cpu_time_ms", "cpu_cycles"));
    assert!(counters.contains("needs bpf_cpu_time_ms"), "{counters}");
    assert!(ask(&models, NODE).contains("\"core_ratio\":1}"));
}

#[test]
fn the_sum_of_many_small_processes_is_kept_and_no_time_is_too_long() {
    let models = models(Vec::new());
    let sum = |answer: &str, of: &str| -> f64 {
        let answer: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        serde_json::from_value::<Vec<f64>>(answer["powers"][of].clone()).unwrap().iter().sum()
    };
    let request = |rows: Vec<[f64; 1]>| {
        json!({"metrics": ["bpf_cpu_time_ms"], "values": rows, "output_type": "DynPower"}).to_string()
    };
    for all in [100.0, 300.0, 1000.0] {
        let whole = ask(&models, &request(vec![[all]]));
        for rows in [400, 500] {
            let split = ask(&models, &request(vec![[all / f64::from(rows)]; rows as usize]));
            let (found, wanted) = (sum(&split, "package"), sum(&whole, "package"));
            assert!((found - wanted).abs() < 0.06, "{rows} rows of {all} ms in all: {found} of {wanted} W");
        }
    }
    let long = ask(&models, &request(vec![[2000.0], [1e308], [1e308]]));
    assert!(sum(&long, "package") > 0.0, "{long}");
}

#[test]
fn an_answer_fits_what_clients_read() {
    let both = |rows: usize, watts: f64| Answer {
        powers: vec![(Component::Package, vec![watts; rows]), (Component::Dram, vec![watts / 10.0; rows])],
        message: String::new(),
        core_ratio: 1.0,
    };
    for rows in [1, 100, 250, 500, 1000, 2000] {
        for watts in [0.0, 0.001, 1.25, 123.456] {
            let json = both(rows, watts).to_json();
            assert!(json.len() <= MOST_BYTES, "{rows} rows of {watts} W: {} bytes", json.len());
            let answer: Value = serde_json::from_str(&json).unwrap();
            match answer["powers"]["package"].as_array() {
                Some(powers) => {
                    assert_eq!(powers.len(), rows);
                    assert!((powers[0].as_f64().unwrap() - watts).abs() < 0.051, "{rows} rows of {watts} W");
                }
                None => assert!(rows > 500 && answer["msg"].as_str().unwrap().contains("ask for fewer")),
            }
        }
    }
    assert!(both(500, 1.25).to_json().contains("left out, as clients read 4096 bytes: dram"));
    assert!(both(200, 123.456).to_json().contains("dram\":[12.3"));
    let below = Answer { powers: vec![(Component::Package, vec![-3.0, -0.0])], ..Answer::default() };
    assert_eq!(below.to_json(), r#"{"powers":{"package":[0.000,0.000]},"msg":""}"#);
}

#[test]
fn curves_take_the_feature_that_was_fitted() {
    let file = json!({"package": curve(&[78.104, 80.835, 49.383]), "dram": curve(&[2.0178, 1066.2, 11.7246])});
    let path = "ec2/rapl-sysfs/AbsPower/CounterOnly/LogarithmicRegressionTrainer_0.json";
    let models = models(vec![loaded(path, &file)]);
    let request = r#"{"metrics":["cache_miss","cpu_cycles","cpu_instructions"],"values":[[4775889048.2,0,36542686619.7]],"output_type":"AbsPower","source":"rapl-sysfs"}"#;
    let package = 78.104 * (80.835_f64 * 0.1 + 1.0).ln() + 49.383;
    let dram = 2.0178 * (1066.2_f64 * 0.1 + 1.0).ln() + 11.7246;
    let wanted = format!(r#"{{"powers":{{"package":[{package:.3}],"dram":[{dram:.3}]}},"msg":"","core_ratio":1}}"#);
    assert_eq!(ask(&models, request), wanted);
    let shapes = [("Exponential", &[100.0, 0.5, 20.0][..]), ("Logistic", &[200.0, 0.5, 4.0, 50.0])];
    let values = [100.0 * 0.05_f64.exp() + 20.0, 200.0 / (1.0 + (-4.0 * (0.1 - 0.5_f64)).exp()) + 50.0];
    for ((shape, of), watts) in shapes.into_iter().zip(values) {
        let file = json!({"model_name": format!("{shape}RegressionTrainer_2"), "package": curve(of)});
        let models = self::models(vec![loaded("AbsPower.json", &file)]);
        assert!(ask(&models, request).contains(&format!("[{watts:.3}]")), "{shape}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_the_field() {
    let abs = "AbsPower/SGDRegressorTrainer_0.json";
    for (bytes, why) in [
        (&b"PK\x03\x04rest"[..], "zip archive"),
        (b"\x80\x04\x95", "pickle of Python"),
        (b"cposix\nsystem\n", "pickle of Python"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"", "empty"),
        (br#"{"package": {"All_Weights": {"Bias_Weight": NaN}}}"#, "NaN"),
        (br#"{"package": {"All_Weights": {"Bias"#, "cut short"),
        (br#"{"package": {"All_Weights": {"Bias_Weight": 1e999}}}"#, "larger than any"),
        (b"[1]", "no JSON object"),
        (br#"{"weights": {}}"#, "none of the fields"),
    ] {
        let error = Weights::read(bytes, abs).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let big = vec![b' '; (1 << 20) + 1];
    assert!(Weights::read(&big, abs).unwrap_err().contains("more than 1048576 bytes"));
    let without = |key: &str| {
        let mut file = rapl();
        let all = &mut file["package"]["All_Weights"];
        match key {
            "scale" => drop(all["Numerical_Variables"]["bpf_cpu_time_ms"].as_object_mut().unwrap().remove("scale")),
            "weight" => drop(all["Numerical_Variables"]["bpf_cpu_time_ms"].as_object_mut().unwrap().remove("weight")),
            key => drop(all.as_object_mut().unwrap().remove(key)),
        }
        file
    };
    for (key, field) in [
        ("Bias_Weight", "package.All_Weights.Bias_Weight"),
        ("Numerical_Variables", "package.All_Weights.Numerical_Variables"),
        ("scale", "bpf_cpu_time_ms.scale"),
        ("weight", "bpf_cpu_time_ms.weight"),
    ] {
        let error = read(&without(key), abs).unwrap_err();
        assert!(error.contains(&format!("{field}: it is missing")), "{error}");
    }
    for (key, value, why) in [
        ("Bias_Weight", json!("much"), "package.All_Weights.Bias_Weight: it is no number"),
        ("Bias_Weight", json!(1e9), "more than any machine draws"),
        ("CurveFit_Weights", json!([1, 2, 3]), "has no curve"),
    ] {
        let mut file = rapl();
        file["package"]["All_Weights"][key] = value;
        let error = read(&file, abs).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    assert!(read(&rapl(), "weights.json").unwrap_err().contains("AbsPower or DynPower"));
    let file = json!({"package": curve(&[1.0, 2.0, 3.0])});
    assert!(read(&file, "AbsPower/a_0.json").unwrap_err().contains("names the trainer"));
    assert!(read(&file, "AbsPower/LogisticRegressionTrainer_0.json").unwrap_err().contains("list of 4 numbers"));
}

#[test]
fn processes_get_nothing_for_doing_nothing() {
    let rapl = json!({"package": linear(89.26, 304.9, 95_877.0), "dram": linear(4.46, 8.25, 95_877.0)});
    let error = read(&rapl, "intel_rapl_DynPowerModel.json").unwrap_err();
    assert!(error.contains("field package: each process gets 89.3 W for doing nothing, 44630 W for 500"), "{error}");
    let acpi = json!({"platform": linear(2.298, 59.306, 3991.69)});
    let weights = read(&acpi, "acpi_DynPowerModel.json").unwrap();
    assert!(weights.notes[0].contains("2.298 W"), "{:?}", weights.notes);
    assert_eq!(weights.to_json()["platform"]["All_Weights"]["Bias_Weight"], 0.0);
    let models = models(vec![loaded("acpi_DynPowerModel.json", &acpi)]);
    let request = r#"{"metrics":["bpf_cpu_time_ms","bpf_page_cache_hit"],"values":[[0,0],[3991.69,5]],"output_type":"DynPower","source":"acpi"}"#;
    assert!(ask(&models, request).starts_with(r#"{"powers":{"platform":[0.000,59.306]},"#));
}

#[test]
fn curves_that_fall_below_zero_are_said_and_taken_last() {
    let file = |of: [f64; 3]| {
        json!({"package": {"All_Weights": {"Categorical_Variables": {}, "CurveFit_Weights": of, "Numerical_Variables": {
            "bpf_cpu_time_ms": {"scale": 95_877.0}, "bpf_page_cache_hit": {"scale": 1.0}}}}})
    };
    let log = loaded("AbsPower/LogarithmicRegressionTrainer_0.json", &file([70.64, 4_157_417.5, -683.43]));
    assert!(log.weights.notes[0].contains("package: it says -683.4 W"), "{:?}", log.weights.notes);
    let first = models(vec![log.clone()]);
    assert!(ask(&first, &NODE.replace("9587.7", "0")).contains(r#""package":[0.000]"#));
    let both = models(vec![log, loaded("intel_rapl_AbsPowerModel.json", &rapl())]);
    assert!(ask(&both, &NODE.replace("9587.7", "0")).contains("143.812"));
    // The page cache was never used in training: its curve says nothing about others.
    let mut dram = file([-2305.07, 1.0, 2326.03]);
    dram["dram"] = dram["package"].clone();
    dram["package"] = linear(100.0, 1.0, 95_877.0);
    dram["package"]["All_Weights"]["CurveFit_Weights"] = json!([1.0, 0.1, 99.0]);
    let models = models(vec![loaded("AbsPower/ExponentialRegressionTrainer_0.json", &dram)]);
    assert!(ask(&models, NODE).contains(r#""dram":[20.960]"#), "{}", ask(&models, NODE));
}

#[test]
fn another_machines_model_is_not_this_ones() {
    let of = |processor: &str, cores: u32| {
        let mut file = rapl();
        file["machine_spec"] =
            json!({"processor": processor, "cores": cores, "chips": 2, "memory": 377, "frequency": 3500});
        loaded("AbsPower.json", &file)
    };
    let prior = ask(&models(Vec::new()), NODE);
    for (processor, cores, used) in [
        ("intel_xeon_platinum_8275cl", 96, true),
        ("intel_xeon_platinum_8259cl", 96, true),
        ("intel_xeon_platinum_8259cl", 16, false),
        ("intel_xeon_e5_2686v4", 72, false),
        ("amd_epyc_7763", 96, false),
    ] {
        assert_eq!(ask(&models(vec![of(processor, cores)]), NODE) != prior, used, "{processor} {cores}");
    }
    // The best one: the same processor, then the smaller error.
    let (mut a, mut b) = (of("intel_xeon_platinum_8259cl", 96), of("intel_xeon_platinum_8275cl", 96));
    (a.weights.mae, b.weights.mae) = (Some(1.0), Some(9.0));
    b.weights.name = "best".into();
    assert!(served::best_models(&models(vec![a, b]), &BestQuery::default()).unwrap().contains("best"));
}

#[test]
fn names_of_processors() {
    for (name, wanted) in [
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", "intel_xeon_e5_2686v4"),
        ("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", "intel_xeon_platinum_8259cl"),
        ("AMD EPYC 7763 64-Core Processor", "amd_epyc_7763_64_core"),
        ("", ""),
    ] {
        assert_eq!(processor(name), wanted);
    }
    // The prior understands them: the TDP is found.
    for name in ["intel_xeon_e5_2686v4", "intel_xeon_platinum_8259cl", "amd_epyc_7763_64_core", "intel_core_i7_8700"] {
        let spec = Spec { processor: name.into(), cores: Some(32), chips: Some(1), ..Spec::default() };
        let prior = crate::power_model::prior::Prior::of(&spec.machine(&machine()));
        assert!(prior.tdp_is_listed(), "{name}: {}", prior.description());
    }
}

/// What Kepler 0.7's exporter sends to the model server.
const MODEL: &str = r#"{"metrics":["bpf_cpu_time_ms","bpf_page_cache_hit","cpu_architecture"],"output_type":"AbsPower","source":"rapl-sysfs","node_type":0,"weight":true,"trainer_name":"SGDRegressorTrainer","filter":""}"#;

#[test]
fn weights_are_served() {
    let models = models(vec![loaded("intel_rapl_AbsPowerModel.json", &rapl())]);
    let answer: Value = serde_json::from_str(&served::model(&models, MODEL.as_bytes()).unwrap()).unwrap();
    assert_eq!(
        (&answer["model_name"], &answer["machine_spec"]["cores"]),
        (&json!("SGDRegressorTrainer_0"), &json!(96))
    );
    for component in ["package", "core", "uncore", "dram"] {
        assert_eq!(answer[component], rapl()[component], "{component}");
    }
    for (from, to, why) in [
        (r#""weight":true"#, r#""weight":false"#, "only weights are served"),
        ("SGDRegressorTrainer", "XgboostFitTrainer", "cannot be had as weights"),
        ("SGDRegressorTrainer", "LogarithmicRegressionTrainer", "no model for source rapl-sysfs, AbsPower"),
        (r#""filter":"""#, r#""filter":"mae:0.5""#, "no model"),
        ("bpf_cpu_time_ms", "cpu_cycles", "no model"),
        ("AbsPower", "", "output_type"),
        ("{", "", "cannot be read"),
    ] {
        let error = served::model(&models, MODEL.replace(from, to).as_bytes()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(
        served::best_models(&models, &BestQuery::default()).unwrap(),
        r#"{"AbsPower":{"BPFOnly":"SGDRegressorTrainer_0"},"DynPower":{"BPFOnly":"SGDRegressorTrainer_0"}}"#
    );
    assert!(served::best_models(&models, &BestQuery { energy_source: "x".into(), ..BestQuery::default() }).is_err());
    let list: Value = serde_json::from_str(&served::list(&models)).unwrap();
    assert_eq!(list["models"][0]["feature_group"], "BPFOnly");
    assert_eq!(list["models"][1]["name"], "prior");
}

#[test]
fn the_prior_is_served_as_weights_of_the_machine_that_asks() {
    let models = models(Vec::new());
    let spec = r#""filter":"","machine_spec":{"vendor":"GenuineIntel","processor":"intel_xeon_e5_2686v4","cores":72,"chips":2,"memory":503,"frequency":3000,"threads_per_core":2}"#;
    let request = MODEL.replace(r#""filter":"""#, spec);
    for output in ["AbsPower", "DynPower"] {
        let answer = served::model(&models, request.replace("AbsPower", output).as_bytes()).unwrap();
        let weights = Weights::read(answer.as_bytes(), output).unwrap();
        assert_eq!(weights.machine.as_ref().unwrap().processor, "intel_xeon_e5_2686v4");
        let prior = crate::power_model::prior::Prior::of(&weights.machine.as_ref().unwrap().machine(&machine()));
        let (_, package) = &weights.components[0];
        let full = package.watts(|name| if name == super::CPU_TIME { 72_000.0 } else { 5.0 }, &[]);
        let rest = package.watts(|_| 0.0, &[]);
        let wanted = prior.package(1.0).watts - if output == "DynPower" { prior.package(0.0).watts } else { 0.0 };
        assert!((full / wanted - 1.0).abs() < 0.3, "{output}: {full} {wanted}");
        assert!(if output == "DynPower" { rest == 0.0 } else { rest > 0.0 });
    }
}

#[test]
fn written_weights_are_read_again() {
    let of = |name: &str, scale, weight| Variable { name: name.into(), scale, weight };
    let parts = vec![(Component::Package, 20.5, vec![of("bpf_cpu_time_ms", 8000.0, 60.0)])];
    let spec = Spec { processor: "x".into(), cores: Some(8), ..Spec::default() };
    let weights = Weights::linear(Output::Absolute, Some(spec), parts);
    let text = weights.to_json().to_string();
    assert_eq!(Weights::read(text.as_bytes(), "AbsPower").unwrap(), weights);
    assert!(text.contains(r#"{"All_Weights":{"Bias_Weight":20.5,"Categorical_Variables":{},"Numerical_Variables":{"bpf_cpu_time_ms":{"scale":8000.0,"weight":60.0}}}}"#), "{text}");
}

#[test]
fn facts_about_the_machine_count() {
    let mut file = rapl();
    file["package"]["All_Weights"]["Categorical_Variables"] =
        json!({"cpu_architecture": {"Sky Lake": {"weight": 10.0}}});
    let models = models(vec![loaded("AbsPower.json", &file)]);
    assert!(ask(&models, NODE).contains("[184.327]"));
    assert!(ask(&models, &NODE.replace("Sky Lake", "Ice Lake")).contains("[174.327]"));
}

#[test]
fn a_filter_is_used_or_refused() {
    let filter = Filter::read(" mae:0.5;features:a, irq_block ;;").unwrap();
    assert_eq!((filter.mae, filter.features), (Some(0.5), vec!["a".to_owned(), "bpf_block_irq".to_owned()]));
    for (text, why) in [
        ("mape:5", "the condition \"mape\" is not known"),
        ("best", "the condition \"best\" is not known"),
        ("mae:little", "mae is \"little\""),
        ("mae:-1", "mae is \"-1\""),
        ("mae:nan", "mae is \"nan\""),
        ("features:", "features has 0 names"),
    ] {
        let error = Filter::read(text).unwrap_err();
        assert!(error.starts_with("filter: ") && error.contains(why), "{text}: {error}");
        // Neither server answers such a request.
        assert!(
            served::model(
                &models(Vec::new()),
                MODEL.replace(r#""filter":"""#, &format!(r#""filter":"{text}""#)).as_bytes()
            )
            .is_err()
        );
        let answer = ask(&models(Vec::new()), &NODE.replace(r#""filter":"""#, &format!(r#""filter":"{text}""#)));
        assert!(answer.starts_with(r#"{"powers":{},"msg":"filter: "#), "{answer}");
    }
    // What the prior cannot say of itself is not said to be so.
    let answer = ask(&models(Vec::new()), &NODE.replace(r#""filter":"""#, r#""filter":"mae:50""#));
    assert!(answer.starts_with(r#"{"powers":{},"msg":"filter: no model for rapl-sysfs AbsPower meets it"#), "{answer}");
    let answer = ask(&models(Vec::new()), &NODE.replace(r#""filter":"""#, r#""filter":"features:bpf_cpu_time_ms""#));
    assert!(answer.contains(r#""package":["#), "{answer}");
    let request = MODEL.replace(r#""filter":"""#, r#""filter":"features:bpf_cpu_time_ms""#);
    let answer = served::model(&models(Vec::new()), request.as_bytes()).unwrap();
    assert!(answer.contains("bpf_cpu_time_ms") && !answer.contains("bpf_page_cache_hit"), "{answer}");
    let best = |filter: &str| {
        served::best_models(&models(Vec::new()), &BestQuery { filter: filter.into(), ..BestQuery::default() }).unwrap()
    };
    assert!(best("features:bpf_cpu_time_ms").contains("SGD") && !best("mae:1").contains("SGD"));
    let group = BestQuery { feature_group: "Everything".into(), ..BestQuery::default() };
    assert!(served::best_models(&models(Vec::new()), &group).unwrap_err().starts_with("feature-group: "));
}

#[test]
fn another_trainers_answer_says_so_and_another_pipeline_has_none() {
    let trees = NODE.replace(r#""trainer_name":"""#, r#""trainer_name":"XgboostFitTrainer""#);
    let answer = ask(&models(Vec::new()), &trees);
    assert!(answer.contains("no model of trainer XgboostFitTrainer: this is the prior of this machine"), "{answer}");
    let path = "ec2-0.7.11/rapl-sysfs/AbsPower/BPFOnly/SGDRegressorTrainer_0.json";
    let all = models(vec![loaded(path, &rapl())]);
    let answer = ask(&all, &trees);
    assert!(answer.contains("143") || answer.contains("174.327"), "{answer}");
    assert!(answer.contains("this is SGDRegressorTrainer_0"), "{answer}");
    let of = |pipeline: &str| MODEL.replace(r#""filter":"""#, &format!(r#""filter":"","pipeline_name":"{pipeline}""#));
    assert!(served::model(&all, of("ec2-0.7.11").as_bytes()).is_ok());
    let error = served::model(&all, of("specpower-0.7.11").as_bytes()).unwrap_err();
    assert!(error.contains("this pipeline_name"), "{error}");
}

#[test]
fn a_guests_own_description_is_that_of_a_guest() {
    let guest = Machine { packages: 1, threads: 4, memory_gib: Some(15.3), guest: true, ..machine() };
    let models = Models::new(guest.clone(), Vec::new());
    let spec = |cores: u32, memory: u32| {
        format!(
            r#""machine_spec":{{"vendor":"GenuineIntel","processor":"Intel(R)_Xeon_Platinum-8275CL","cores":{cores},"chips":1,"memory":{memory},"frequency":3600,"threads_per_core":2}},"filter":"""#
        )
    };
    let full = |request: &str| {
        let answer: Value = serde_json::from_str(&served::model(&models, request.as_bytes()).unwrap()).unwrap();
        let all = &answer["package"]["All_Weights"];
        all["Bias_Weight"].as_f64().unwrap() + all["Numerical_Variables"]["bpf_cpu_time_ms"]["weight"].as_f64().unwrap()
    };
    let own = full(MODEL);
    for memory in [15, 16] {
        assert_eq!(full(&MODEL.replace(r#""filter":"""#, &spec(4, memory))), own, "{memory} GiB");
    }
    // A neighbour with twice the threads has twice the power; a machine of the host's size is the host.
    let eight = full(&MODEL.replace(r#""filter":"""#, &spec(8, 32)));
    assert!((eight / own - 2.0).abs() < 0.01, "{eight} {own}");
    let asked = |cores| Spec { processor: "intel_xeon_platinum_8275cl".into(), cores: Some(cores), ..Spec::default() };
    assert!(!Spec { chips: Some(2), ..asked(96) }.machine(&guest).guest);
    // On bare metal, too: no package of this processor is so small.
    assert!(asked(4).machine(&machine()).guest);
    assert_eq!(Spec { chips: Some(2), memory: Some(192), ..asked(96) }.machine(&machine()), machine());
}

#[test]
fn numbers_in_another_unit_are_refused() {
    let with = |spec: &str| MODEL.replace(r#""filter":"""#, &format!(r#""filter":"","machine_spec":{spec}"#));
    for (spec, why) in [
        (r#"{"processor":"x","cores":4,"memory":4294967296}"#, "machine_spec.memory: 4294967296 is more"),
        (r#"{"processor":"x","cores":4,"memory":"16777216"}"#, "machine_spec.memory: 16777216 is more"),
        (r#"{"processor":"x","cores":1e6}"#, "machine_spec.cores: 1000000 is more"),
        (r#"{"processor":"x","cores":4,"chips":8}"#, "machine_spec.cores: 4 is less than the 8"),
        (r#"{"processor":"x","cores":4,"chips":1e300}"#, "machine_spec.chips: "),
    ] {
        let error = served::model(&models(Vec::new()), with(spec).as_bytes()).unwrap_err();
        assert!(error.contains(why), "{spec}: {error}");
    }
    // What a client could not find out is not known.
    let unknown = r#"{"processor":"intel_xeon_e5_2686v4","cores":72,"chips":0,"memory":-1,"frequency":null}"#;
    let answer = served::model(&models(Vec::new()), with(unknown).as_bytes()).unwrap();
    assert!(!answer.contains("dram") && answer.contains(r#""cores":72"#), "{answer}");
    let mut file = rapl();
    file["machine_spec"] = json!({"processor": "x", "memory": 1e12});
    let error = read(&file, "AbsPower.json").unwrap_err();
    assert!(error.starts_with("field machine_spec.memory: "), "{error}");
}

#[test]
fn a_request_with_a_byte_order_mark_is_read() {
    let models = models(Vec::new());
    let marked = format!("\u{feff}{NODE}");
    assert_eq!(ask(&models, &marked), ask(&models, NODE));
    let mut end = End::default();
    for length in 0..marked.len() {
        assert_eq!(end.find(&marked.as_bytes()[..length]).unwrap(), None, "{length}");
    }
    assert_eq!(end.find(marked.as_bytes()).unwrap(), Some(marked.len()));
    assert!(served::model(&models, format!("\u{feff}{MODEL}").as_bytes()).is_ok());
    let deep = format!(r#"{{"machine_spec":{}"#, "[".repeat(300));
    let error = served::model(&models, deep.as_bytes()).unwrap_err();
    assert!(error.contains("nested more than 127 deep"), "{error}");
    let nan = served::model(&models, MODEL.replace("0,", "NaN,").as_bytes()).unwrap_err();
    assert!(nan.contains("NaN and infinity are no numbers"), "{nan}");
    assert!(Weights::read(format!("\u{feff}{}", rapl()).as_bytes(), "AbsPower.json").is_ok());
}

#[test]
fn the_end_is_found_in_pieces() {
    let text = r#" {"a":"}\"{","b":[[1,{"c":"\\"}]]}"#;
    let mut end = End::default();
    for length in 0..text.len() {
        assert_eq!(end.find(&text.as_bytes()[..length]).unwrap(), None, "{length}");
    }
    assert_eq!(end.find(format!("{text} more").as_bytes()).unwrap(), Some(text.len()));
    for wrong in [&b"GET / HTTP/1.1"[..], b"[1]", b"\x80", &[b'['; 2]] {
        assert!(End::default().find(wrong).is_err());
    }
    assert!(End::default().find("{\"a\":".repeat(9).as_bytes()).unwrap_err().contains("nested"));
    let long = format!("{{\"a\":\"{}", "x".repeat(super::request::MOST_BYTES));
    assert!(End::default().find(long.as_bytes()).unwrap_err().contains("bytes"));
}

proptest! {
    #[test]
    fn any_request_is_answered(text in "\\PC{0,200}", bytes: Vec<u8>, values: Vec<f64>) {
        let models = models(vec![loaded("intel_rapl_AbsPowerModel.json", &rapl())]);
        let _ = End::default().find(&bytes);
        let _ = Weights::read(&bytes, "AbsPower");
        let row: Vec<f64> = values.iter().copied().chain([0.0, 0.0]).take(2).collect();
        let request = json!({"metrics": ["bpf_cpu_time_ms", "bpf_page_cache_hit"], "values": [row]}).to_string();
        for text in [text, request] {
            let answer = ask(&models, &text);
            prop_assert!(answer.len() <= MOST_BYTES);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            for powers in answer["powers"].as_object().unwrap().values() {
                prop_assert!(powers.as_array().unwrap().iter().all(|watts| watts.as_f64().unwrap() >= 0.0));
            }
        }
    }
}
