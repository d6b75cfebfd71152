//! A strict parser of the two text formats, for tests. Panics on a malformed page.

use std::collections::{BTreeMap, BTreeSet};

/// A parsed page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Family name → type.
    pub families: BTreeMap<String, String>,
    /// Name and labels → value as text.
    pub samples: BTreeMap<(String, BTreeMap<String, String>), String>,
}

impl Page {
    /// The value of the only sample of that name that has these labels, as text.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<&str> {
        let mut found = self.all(name, labels);
        let first = found.next();
        assert!(found.next().is_none(), "several samples of {name} have {labels:?}");
        first
    }

    /// The values of all samples of that name that have these labels, as text.
    pub fn all(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &str> {
        self.samples
            .iter()
            .filter(move |((of, has), _)| {
                of == name && labels.iter().all(|(name, value)| has.get(*name).is_some_and(|has| has == value))
            })
            .map(|(_, value)| value.as_str())
    }
}

/// Parses a page. Holds that every sample follows the HELP and TYPE of its family, and that no family and no series
/// is there twice.
pub(super) fn parse(text: &str, openmetrics: bool) -> Page {
    assert!(text.ends_with('\n'));
    let mut page = Page::default();
    let mut helped = BTreeSet::new();
    let mut family = (String::new(), String::new());
    let mut lines: Vec<&str> = text.split_terminator('\n').collect();
    if openmetrics {
        assert_eq!(lines.pop(), Some("# EOF"));
    }
    for line in lines {
        if let Some(line) = line.strip_prefix("# HELP ") {
            let (name, help) = line.split_once(' ').unwrap();
            assert!(!help.trim().is_empty());
            assert!(helped.insert(name), "{name} is described twice");
        } else if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(helped.contains(name));
            assert!(page.families.insert(name.into(), kind.into()).is_none(), "family {name} comes twice");
            family = (name.into(), kind.into());
        } else if let Some(line) = line.strip_prefix("# UNIT ") {
            let (name, unit) = line.split_once(' ').unwrap();
            assert!(openmetrics && name == family.0 && name.ends_with(&format!("_{unit}")));
        } else {
            let (name, labels, value) = sample(line);
            let suffix = if openmetrics && family.1 == "counter" { "_total" } else { "" };
            assert_eq!(name, format!("{}{suffix}", family.0), "sample outside of its family");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(page.samples.insert((name, labels), value).is_none(), "series comes twice: {line}");
        }
    }
    page
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, String) {
    let mut labels = BTreeMap::new();
    let Some((name, mut rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ').unwrap();
        return (name.into(), labels, value.into());
    };
    while !rest.starts_with('}') {
        let (label, after) = rest.split_once("=\"").unwrap();
        let (value, after) = unescape(after);
        assert!(labels.insert(label.into(), value).is_none(), "label {label} comes twice: {line}");
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    (name.into(), labels, rest.strip_prefix("} ").unwrap().into())
}

/// A label value up to its closing quote, and the rest after it.
fn unescape(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().unwrap().1 {
                'n' => '\n',
                other @ ('"' | '\\') => other,
                other => panic!("unknown escape \\{other}"),
            }),
            other => value.push(other),
        }
    }
    panic!("label value does not end: {text}");
}
