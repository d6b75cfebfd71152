use super::*;
use crate::power_model::Features;
use crate::power_model::samples::Sample;
use crate::power_model::train::{About, train};

/// A model of a machine of 8 threads that draws 20 W + 60 W × busy share.
fn sample_model() -> Model {
    let samples: Vec<Sample> = (0..200)
        .map(|number| {
            let busy = f64::from(number % 9);
            Sample {
                regime: format!("work{}", number % 4),
                seconds: 1.0,
                busy: Some(busy),
                cycles: Some(busy * 2e9),
                cache_misses: Some(busy * 1e6),
                instructions: Some(busy * 3e9),
                platform: Some(20.0 + 60.0 * busy / 8.0 + f64::from(number % 3) * 0.1),
                ..Sample::default()
            }
        })
        .collect();
    let about = About { name: "lab-1".to_owned(), source: "lab.csv".to_owned(), ..About::default() };
    train(&samples.iter().collect::<Vec<_>>(), Target::Platform, &about).unwrap()
}

fn error_of(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_model_comes_back_as_it_was_written() {
    let model = sample_model();
    let text = write(&model);
    let again = read(text.as_bytes()).unwrap();
    let features = Features { busy: 0.5, ..Features::default() };
    let (before, after) = (model.predict(&features).unwrap(), again.predict(&features).unwrap());
    assert!((before.watts - 50.0).abs() < 1.0 && (before.watts - after.watts).abs() < 1e-9, "{before:?}");
    assert_eq!(write(&again), text);
    assert_eq!((again.name.as_str(), again.machine.threads), ("lab-1", 8));
}

#[test]
fn what_is_no_model_is_said_with_its_field() {
    let text = write(&sample_model());
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}: {text}");
        error_of(&text.replacen(from, to, 1))
    };
    assert!(replaced("\"version\": 1", "\"version\": 2").starts_with("field version: it is 2"));
    assert!(replaced("\"version\": 1", "\"version\": \"one\"").starts_with("field version"));
    assert!(replaced("jouled power model", "other").starts_with("field format"));
    assert!(replaced("\"unit\": \"W\"", "\"unit\": \"mW\"").starts_with("field unit: it is \"mW\""));
    assert!(replaced("share of a thread", "percent").contains("features[0].unit: it is \"percent\""));
    assert!(replaced("\"threads\": 8", "\"threads\": 0").starts_with("field machine.threads"));
    assert!(replaced("\"threads\": 8", "\"threads\": -8").contains("field threads, line"));
    assert!(replaced("\"lab-1\"", "\"../lab\"").starts_with("field name"));
    assert!(replaced("\"name\": \"lab-1\"", "\"nom\": \"lab-1\"").contains("unknown field `nom`"));
    assert!(replaced("\"term\": \"u\"", "\"term\": \"v\"").contains("].term: it is \"v\""));
    assert!(replaced("\"busy_to\": 0.1", "\"busy_to\": 0.2").contains("forms[0].intervals: they are not"));
    let first = text.find("\"watts\": ").unwrap() + 9;
    let end = first + text[first..].find('\n').unwrap();
    let weight = |value: &str| error_of(&format!("{}{value}{}", &text[..first], &text[end..]));
    assert!(weight("-3.5").starts_with("field forms[0].weights[0].watts: -3.5 W is negative"));
    assert!(weight("2e6").contains("more than any machine draws"));
    let nan = weight("NaN");
    assert!(nan.starts_with("field watts, line") && nan.contains("NaN"), "{nan}");
    assert!(weight("\"7\"").starts_with("field watts, line"));
    assert!(weight("1e999").starts_with("field watts, line"));
}

#[test]
fn other_files_are_named() {
    assert!(read(b"PK\x03\x04....").unwrap_err().to_string().contains("a zip archive"));
    assert!(read(b"\x80\x04\x95....").unwrap_err().to_string().contains("a pickle of Python"));
    assert!(read(b"\x1f\x8b\x08").unwrap_err().to_string().contains("gzip"));
    assert!(read(b"").unwrap_err().to_string().contains("empty"));
    assert!(read(b"\xff\xfe").unwrap_err().to_string().contains("not UTF-8"));
    assert!(read(&vec![b' '; MOST_BYTES + 1]).unwrap_err().to_string().contains("more than"));
    let marked = format!("\u{feff}{}", write(&sample_model()));
    assert!(read(marked.as_bytes()).is_ok(), "a byte order mark is no fault");
    let deep = error_of(&format!("{{\"format\": {}", "[".repeat(1000)));
    assert!(deep.contains("nested more than 127 deep") && !deep.contains("NaN"), "{deep}");
    assert!(error_of("{}").starts_with("field format: it is missing"));
    assert!(error_of("[1,2]").starts_with("field format: it is missing"));
}

#[test]
fn every_truncation_is_an_error_and_none_a_panic() {
    let text = write(&sample_model());
    for end in 0..text.trim_end().len() {
        let error = read(&text.as_bytes()[..end]).unwrap_err().to_string();
        assert!(error.contains("cut short") || error.contains("empty"), "{end}: {error}");
    }
}
