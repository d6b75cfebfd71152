//! Curves of power: means over equal spans of time, two bytes a point.

use crate::model::units::Microwatts;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Points of a curve of the last minutes.
pub(in crate::export::page) const POINTS: usize = 100;

/// A gap.
const GAP: u16 = 0;
/// No power.
const NONE: u16 = 1;
/// The largest power that has a code, in µW: 1 MW.
const MOST: f64 = 1e12;
/// Codes above [`NONE`], evenly on a logarithmic scale: neighbours differ by 0.04 %.
const STEPS: f64 = 65_533.0;

fn code(power: Option<f64>) -> u16 {
    match power {
        None => GAP,
        Some(power) if power < 1.0 => NONE,
        Some(power) => NONE + 1 + (power.min(MOST).ln() / MOST.ln() * STEPS) as u16,
    }
}

fn power(code: u16) -> Option<f64> {
    match code {
        GAP => None,
        NONE => Some(0.0),
        code => Some((f64::from(code - NONE - 1) / STEPS * MOST.ln()).exp()),
    }
}

/// The last points of something, each the mean over one span. Spans are numbered by a clock that goes on in suspend,
/// so that there is a gap where nothing was measured.
#[derive(Clone, Debug)]
pub(in crate::export::page) struct Curve {
    points: Box<[u16]>,
    /// Number of the span that is not over.
    span: u64,
    sum: f64,
    count: u32,
}

impl Curve {
    /// Without points, from span `span` on.
    pub fn new(points: usize, span: u64) -> Self {
        Self { points: vec![GAP; points].into(), span, sum: 0.0, count: 0 }
    }

    /// Adds a power in µW, or a gap, of span `span`.
    pub fn add(&mut self, span: u64, power: Option<f64>) {
        self.close(span);
        if let Some(power) = power {
            self.sum += power;
            self.count += 1;
        }
    }

    /// Number of the span that is not over.
    pub fn span(&self) -> u64 {
        self.span
    }

    fn close(&mut self, span: u64) {
        if span <= self.span {
            return;
        }
        let mean = (self.count > 0).then(|| self.sum / f64::from(self.count));
        let most = self.points.len() as u64;
        self.put(self.span, mean);
        for empty in (self.span + 1).max(span.saturating_sub(most))..span {
            self.put(empty, None);
        }
        (self.span, self.sum, self.count) = (span, 0.0, 0);
    }

    fn put(&mut self, span: u64, mean: Option<f64>) {
        let at = span % self.points.len() as u64;
        self.points[at as usize] = code(mean);
    }

    /// Takes away the points of span `from` and later.
    pub fn forget(&mut self, from: u64) {
        let most = self.points.len() as u64;
        for span in from.max(self.span.saturating_sub(most))..self.span {
            self.put(span, None);
        }
        if self.span >= from {
            (self.sum, self.count) = (0.0, 0);
        }
    }

    /// The points of the spans before `span`, the oldest first.
    pub fn points(&self, span: u64) -> impl Iterator<Item = Option<f64>> {
        let most = self.points.len() as u64;
        (span.saturating_sub(most)..span).map(move |one| {
            let known = one < self.span && one + most >= self.span;
            if known { power(self.points[(one % most) as usize]) } else { None }
        })
    }
}

/// Points as a browser reads them: the largest in µW, and a byte for each: 0 a gap, 1 no power, 255 the largest.
pub(in crate::export::page) fn packed(points: impl Iterator<Item = Option<f64>> + Clone) -> (Microwatts, String) {
    let largest = points.clone().flatten().fold(0.0, f64::max);
    let byte = |point: Option<f64>| match point {
        None => 0,
        Some(power) if largest > 0.0 => 1 + (power / largest * 254.0).round() as u8,
        Some(_) => 1,
    };
    let bytes: Vec<u8> = points.map(byte).collect();
    (Microwatts(largest.round() as u64), BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_keeps_its_power() {
        for watts in [0.0, 1.0, 12.0, 45_600.0, 123_456_789.0, 9e11] {
            let back = power(code(Some(watts))).unwrap();
            assert!((back - watts).abs() <= watts * 0.0005, "{watts}: {back}");
        }
        assert_eq!((power(code(None)), power(code(Some(1e15)))), (None, power(u16::MAX)));
    }

    #[test]
    fn a_span_without_a_value_is_a_gap() {
        let mut curve = Curve::new(4, 10);
        curve.add(10, Some(2e6));
        curve.add(10, Some(4e6));
        curve.add(11, None);
        curve.add(13, Some(0.0));
        curve.add(14, Some(1e6));
        let points: Vec<Option<f64>> = curve.points(14).collect();
        assert!((points[0].unwrap() - 3e6).abs() < 2e3, "{points:?}");
        assert_eq!(points[1..], [None, None, Some(0.0)]);
        let mut shorter = curve.clone();
        shorter.forget(13);
        assert_eq!(shorter.points(14).map(|point| point.is_some()).collect::<Vec<_>>(), [true, false, false, false]);
        shorter.add(15, None);
        assert_eq!(shorter.points(15).last(), Some(None), "the sum of span 14 was forgotten, too");
        // Much later nothing of it is left.
        curve.add(100, Some(1.0));
        assert!(curve.points(100).all(|point| point.is_none()));
        let (largest, text) = packed([None, Some(0.0), Some(5.0), Some(10.0)].into_iter());
        assert_eq!((largest, text), (Microwatts(10), BASE64_STANDARD.encode([0, 1, 128, 255])));
    }
}
