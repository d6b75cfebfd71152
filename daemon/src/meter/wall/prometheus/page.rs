//! The page of an exporter: the one sample of a name with some labels, in the text format of Prometheus or OpenMetrics.

use super::super::Failure;
use super::super::net::Link;
use super::{EXCERPT, Found};
use crate::sys::safe_text::excerpt;

/// A name, and labels that a series has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    name: String,
    labels: Vec<(String, String)>,
}

impl Selector {
    /// Reads `name{label="value"}`; `None`: it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (series, rest) = series(text.trim())?;
        rest.trim().is_empty().then_some(series)
    }

    fn matches(&self, other: &Self) -> bool {
        self.name == other.name && self.labels.iter().all(|label| other.labels.contains(label))
    }
}

/// A series at the beginning of a line, and the rest of it.
fn series(text: &str) -> Option<(Selector, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside.trim_start();
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once('=')?;
            let (value, after) = quoted(after.trim_start())?;
            labels.push((label.trim().to_owned(), value));
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        rest = &rest[1..];
    }
    Some((Selector { name: name.to_owned(), labels }, rest))
}

/// A text in quotation marks, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in inside.char_indices() {
        match (escaped, c) {
            (true, 'n') => value.push('\n'),
            (true, c) => value.push(c),
            (false, '\\') => {}
            (false, '"') => return Some((value, &inside[at + 1..])),
            (false, c) => value.push(c),
        }
        escaped = !escaped && c == '\\';
    }
    None
}

/// Samples of two series of the page, and the exporter's clock.
pub(super) async fn ask(
    link: &mut Link,
    queries: [Option<&str>; 2],
) -> Result<(Option<Found>, Option<Found>, Option<u64>), Failure> {
    let got = link.get(&link.path()).await?;
    let page = std::str::from_utf8(&got.body).map_err(|_| Failure::unusable("the page is no text"))?;
    let mut found = [None, None];
    for (found, query) in found.iter_mut().zip(queries) {
        if let Some(query) = query {
            *found = Some(sample(page, query)?);
        }
    }
    let [power, energy] = found;
    Ok((power, energy, got.date))
}

/// The one sample of a series.
pub(super) fn sample(page: &str, query: &str) -> Result<Found, Failure> {
    let place = excerpt(query, EXCERPT);
    let wanted = Selector::parse(query).ok_or_else(|| Failure::unusable(format!("{place} is no series")))?;
    let mut found = None;
    for line in page.lines().filter(|line| line.starts_with(wanted.name.as_str())) {
        let Some((series, rest)) = series(line) else { continue };
        if !wanted.matches(&series) {
            continue;
        }
        if found.is_some() {
            return Err(Failure::unusable(format!(
                "{place}: several series of the page, and one is wanted: add labels"
            )));
        }
        // An exemplar of OpenMetrics follows a #.
        let mut words = rest.split('#').next().unwrap_or_default().split_whitespace();
        let value = words.next().unwrap_or_default().to_owned();
        let time = words.next().and_then(|time| time.parse::<f64>().ok()).filter(|time| *time > 0.0 && *time < 1e15);
        // OpenMetrics has seconds, the older format milliseconds.
        let millis = time.map(|time| if time > 1e11 { time } else { time * 1e3 });
        let time = millis.map(|millis| millis.round() as i128 * 1_000_000);
        found = Some(Found { value, time });
    }
    found.ok_or_else(|| Failure::absent(format!("{place}: the page has no such series")))
}
