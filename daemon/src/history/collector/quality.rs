//! How long energy was measured, derived or estimated, by zone and for the node. Not how much.
//!
//! A meter that fails may make up for it: a counter that is read again has the energy of the time before. So time in
//! which a meter gives nothing is settled when it gives energy again (then it was measured), or says that it has none
//! (then it was not). Until then, and for ever where jouled stops before, it counts as not measured.

use crate::history::slot::{Spans, ZonePart};
use crate::model::domain::Quality;
use crate::model::snapshot::DomainView;
use std::collections::BTreeMap;

/// Quality of the domains of one zone in a minute.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZoneTime {
    /// The worst quality of the domains that gained energy.
    gained: Option<Quality>,
    /// The worst quality of the domains that are measured now.
    live: Option<Quality>,
    /// Whether one of these domains had no reading at the end of the minute.
    is_silent: bool,
}

impl ZoneTime {
    /// Adds a domain of the zone.
    pub fn add(&mut self, view: &DomainView, has_gained: bool) {
        let quality = Some(view.domain.quality);
        if has_gained {
            self.gained = self.gained.max(quality);
        }
        if !view.past {
            self.live = self.live.max(quality);
            self.is_silent |= !view.error.is_empty();
        }
    }

    /// The quality of the zone's energy; `None`: none of its domains is measured.
    fn quality(&self) -> Option<Quality> {
        self.gained.or(self.live)
    }
}

/// Time that is not settled yet, in ms.
#[derive(Debug, Default)]
pub struct Unsettled {
    zones: BTreeMap<String, u64>,
    node: u64,
}

impl Unsettled {
    /// Settles a minute that lasted `observed` ms. Fills in the times of the zones, and returns those of the node,
    /// which are those of its worst zone among the zones that are added up.
    pub fn close(&mut self, observed: u64, zones: &mut [ZonePart], times: &[ZoneTime]) -> Spans {
        let (mut worst, mut missing, mut is_silent) = (None, 0, false);
        for (part, time) in zones.iter_mut().zip(times) {
            if part.billed {
                worst = worst.max(time.quality());
                missing = missing.max(part.missing_ms);
                is_silent |= time.is_silent;
            }
            let waiting = self.zones.entry(part.zone.clone()).or_default();
            part.quality_ms = settle(observed, waiting, time.quality(), part.missing_ms, time.is_silent);
        }
        settle(observed, &mut self.node, worst, missing, is_silent)
    }
}

fn settle(observed: u64, waiting: &mut u64, quality: Option<Quality>, missing: u64, is_silent: bool) -> Spans {
    let mut spans = Spans { of: observed, ..Spans::default() };
    *waiting = waiting.saturating_add(observed);
    let Some(quality) = quality.filter(|_| !is_silent) else { return spans };
    let whole = std::mem::take(waiting).saturating_sub(missing);
    *match quality {
        Quality::Measured => &mut spans.measured,
        Quality::Derived => &mut spans.derived,
        Quality::Estimated => &mut spans.estimated,
    } = whole;
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, missing_ms: u64) -> ZonePart {
        ZonePart { zone: name.into(), billed: name != "core", missing_ms, ..ZonePart::default() }
    }

    fn time(gained: Option<Quality>, live: Option<Quality>, is_silent: bool) -> ZoneTime {
        ZoneTime { gained, live, is_silent }
    }

    const MEASURED: Option<Quality> = Some(Quality::Measured);
    const ESTIMATED: Option<Quality> = Some(Quality::Estimated);

    #[test]
    fn the_worst_zone_that_is_added_up_decides() {
        let mut zones = [zone("package", 0), zone("dram", 0), zone("core", 0)];
        let times = [time(MEASURED, MEASURED, false), time(None, ESTIMATED, false), time(None, None, true)];
        let node = Unsettled::default().close(60_000, &mut zones, &times);
        assert_eq!(node, Spans { of: 60_000, estimated: 60_000, ..Spans::default() });
        assert_eq!(zones[0].quality_ms, Spans { of: 60_000, measured: 60_000, ..Spans::default() });
        assert_eq!(zones[2].quality_ms, Spans { of: 60_000, ..Spans::default() }, "of no quality");
    }

    #[test]
    fn time_without_readings_is_measured_when_the_counter_comes_back_and_missing_after_a_gap() {
        let mut unsettled = Unsettled::default();
        let mut close = |missing, silent| {
            let mut zones = [zone("package", missing)];
            unsettled.close(60_000, &mut zones, &[time(None, MEASURED, silent)]).measured
        };
        assert_eq!([close(0, false), close(0, true), close(0, true), close(0, false)], [60_000, 0, 0, 180_000]);
        assert_eq!([close(0, true), close(0, true), close(130_000, false)], [0, 0, 50_000]);
        assert_eq!([close(600_000, false), close(0, false)], [0, 60_000], "a gap of before this run");
    }
}
