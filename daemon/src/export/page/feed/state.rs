//! What the feed keeps from tick to tick: rows, curves, and the frames of the event stream.

use super::bounds::Intervals;
use super::curve::{Curve, POINTS, packed};
use super::head::Head;
use super::lacking::Lacking;
use super::rows::{self, Rows, Tick};
use crate::model::billing::Base;
use crate::model::entity::Kind;
use crate::model::snapshot::Snapshot;
use crate::model::units::{Microwatts, Nanos};
use crate::words::meters::sees;
use axum::body::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Frames that are kept for readers that fall behind or come back, and their bytes together.
const FRAMES: usize = 60;
const FRAME_BYTES: usize = 8 << 20;
/// Shortest span of a point, and the span in intervals between ticks.
const SPAN: Nanos = Nanos(3 * Nanos::SECOND.0);
/// The machine's hours: a point a minute, for a day.
pub(super) const HOURS: (usize, Nanos) = (1440, Nanos(60 * Nanos::SECOND.0));
/// Rows of which the first frame has the curve; others are asked for.
const CURVES: usize = 200;

/// What is kept.
pub(super) struct State {
    pub life: String,
    /// Number of ticks that were taken in.
    pub number: u64,
    pub kinds: Vec<Kind>,
    pub rows: Rows,
    pub span: u64,
    step: Nanos,
    pub power: Curve,
    idle: Curve,
    pub hours: [Curve; 2],
    pub minute: u64,
    pub lacking: Lacking,
    /// The span and the minute from which on curves lack what cannot be read, and since when, CLOCK_REALTIME.
    partial: Option<(u64, u64, Nanos)>,
    pub frames: VecDeque<(u64, Bytes)>,
}

impl State {
    /// Without anything.
    pub fn new(life: String) -> Self {
        let curve = |points| Curve::new(points, 0);
        Self {
            life,
            number: 0,
            kinds: Vec::new(),
            rows: Rows::default(),
            span: 0,
            step: SPAN,
            power: curve(POINTS),
            idle: curve(POINTS),
            hours: [curve(HOURS.0), curve(HOURS.0)],
            minute: 0,
            lacking: Lacking::default(),
            partial: None,
            frames: VecDeque::new(),
        }
    }

    /// Takes in a snapshot. `wanted`: whether there are readers, for which a frame is made.
    pub fn take(&mut self, snapshot: &Snapshot, wanted: bool) {
        let base = Base::of(snapshot);
        self.number += 1;
        let step = SPAN.max(Nanos(snapshot.host.interval.0.saturating_mul(2)));
        if step != self.step {
            // Points of other spans are not comparable.
            self.step = step;
            self.rows = Rows::default();
            (self.power, self.idle) = (Curve::new(POINTS, 0), Curve::new(POINTS, 0));
        }
        self.span = snapshot.at.boottime.0 / step.0;
        self.minute = snapshot.at.boottime.0 / HOURS.1.0;
        let node = base.node(snapshot);
        let missing = base.missing(snapshot).map(|view| sees(&view.domain));
        if self.lacking.step(missing, snapshot.at.boottime) {
            self.another_sum(snapshot.at.realtime);
        }
        let gap = node.power.is_none() || self.lacking.waits();
        let point = |power: Option<Microwatts>| power.filter(|_| !gap).map(|power| power.0 as f64);
        self.power.add(self.span, point(node.power));
        self.idle.add(self.span, point(node.idle_power));
        // No minute has points of two sums.
        if self.partial.is_none_or(|(_, minute, _)| self.minute >= minute) {
            self.hours[0].add(self.minute, point(node.power));
            self.hours[1].add(self.minute, point(node.idle_power));
        }
        let intervals = Intervals::of(snapshot);
        let bounds = intervals.any().then_some(&intervals);
        let tick = Tick { number: self.number, span: self.span, gap, kinds: &self.kinds, base: &base, bounds };
        let changes = self.rows.step(snapshot, &tick, wanted);
        if !wanted {
            self.frames.clear();
            return;
        }
        let head = serde_json::to_string(&Head::of(snapshot, &base)).unwrap_or_default();
        let (lack, others) = (self.lack(), self.others(snapshot, &base));
        let frame = format!(
            "id: {}.{}\ndata: {{\"tick\":{},\"at\":{},\"span\":{},\"gap\":{gap},\"head\":{head},\"lack\":{lack},\
             \"others\":{others},\"rows\":[{}],\"power\":[{}],\"bounds\":[{}],\"energy\":[{}],\"gone\":[{}]}}\n\n",
            self.life,
            self.number,
            self.number,
            snapshot.at.realtime.0 / 1_000_000,
            self.span,
            changes.rows,
            changes.power,
            changes.bounds,
            changes.energy,
            changes.gone,
        );
        self.keep(frame.into());
    }

    /// Begins to add up other domains than before, at `now`, CLOCK_REALTIME. Points that lacked some are taken away:
    /// what is not said to lack something is the whole.
    fn another_sum(&mut self, now: Nanos) {
        if let Some((span, minute, _)) = self.partial.take() {
            self.power.forget(span);
            self.idle.forget(span);
            self.hours.iter_mut().for_each(|curve| curve.forget(minute));
            self.rows.forget(span);
        }
        if !self.lacking.without().is_empty() {
            self.partial = Some((self.span, self.minute + 1, now));
        }
    }

    /// What the curves lack, and since when in milliseconds since 1970; `null`: nothing.
    fn lack(&self) -> Value {
        let since = |(_, _, since): (u64, u64, Nanos)| since.0 / 1_000_000;
        json!(self.partial.map(|partial| json!({ "what": self.lacking.without(), "since": since(partial) })))
    }

    /// By kind, where there are any: how many rows are not shown, and the power of entities without a row, in µW.
    fn others(&self, snapshot: &Snapshot, base: &Base) -> Value {
        let of = |kind: &Kind| {
            let view = snapshot.kind(*kind);
            let (cut, rest) = (rows::cut(&view.rows), base.power(&view.rest_power).0);
            (cut > 0 || rest > 0).then(|| (kind.as_str().to_owned(), json!([cut, rows::rounded(rest)])))
        };
        Value::Object(self.kinds.iter().filter_map(of).collect())
    }

    fn keep(&mut self, frame: Bytes) {
        self.frames.push_back((self.number, frame));
        let mut bytes: usize = self.frames.iter().map(|(_, frame)| frame.len()).sum();
        while self.frames.len() > FRAMES || (bytes > FRAME_BYTES && self.frames.len() > 1) {
            bytes -= self.frames.pop_front().map_or(0, |(_, frame)| frame.len());
        }
    }

    /// The first frame for a reader that knows nothing, of the last snapshot.
    pub fn full(&self, snapshot: &Snapshot) -> String {
        let base = Base::of(snapshot);
        let (rows, busiest) = self.rows.all(snapshot, &self.kinds, &base, CURVES);
        let curve = |known: &rows::Known| {
            let (most, points) = packed(known.points(self.span).into_iter());
            json!([known.id, most, points])
        };
        // Where there are fewer, all others drew nothing.
        let more = busiest.len() >= CURVES;
        let curves: Vec<Value> = busiest.into_iter().map(|(_, known)| curve(known)).collect();
        let machine =
            [&self.power, &self.idle].map(|curve| packed(curve.points(self.span).collect::<Vec<_>>().into_iter()));
        let host = &snapshot.host;
        let all = json!({
            "life": self.life,
            "tick": self.number,
            "at": snapshot.at.realtime.0 / 1_000_000,
            "interval": host.interval.seconds(),
            "step": self.step.seconds(),
            "points": POINTS,
            "span": self.span,
            "node": host.node_name,
            "version": host.version,
            "arch": host.arch,
            "cpus": host.cpus.len(),
            "kinds": self.kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(),
            "head": Head::of(snapshot, &base),
            "gap": self.lacking.waits(),
            "lack": self.lack(),
            "others": self.others(snapshot, &base),
            "machine": machine,
            "curves": curves,
            "more": more,
        });
        // The rows are JSON already.
        let all = all.to_string();
        format!(
            "event: full\nid: {}.{}\ndata: {},\"rows\":[{rows}]}}\n\n",
            self.life,
            self.number,
            &all[..all.len() - 1]
        )
    }
}
