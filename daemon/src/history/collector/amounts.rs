//! Carbon and cost of a minute.

use crate::history::slot::{AmountPart, AmountSource, Slot};
use crate::model::snapshot::Snapshot;

/// Adds them by the factors of the last tick of the minute: factors change with minutes alone.
pub fn add(slot: &mut Slot, snapshot: &Snapshot) {
    let Some(footprint) = &snapshot.footprint else { return };
    let energy = slot.billed().total.0;
    for factor in &footprint.factors {
        let mut part =
            AmountPart { measure: factor.measure.as_str().into(), unit: factor.unit.to_string(), ..Default::default() };
        match factor.per_kwh {
            None => part.uncounted = energy,
            Some(_) => {
                let source = AmountSource { source: factor.source.to_string(), energy, ..Default::default() };
                part.sources.push(AmountSource { fallback: factor.fallback, ..source });
            }
        }
        part.uniform = Some(factor.per_kwh.unwrap_or_default());
        slot.amounts.push(part);
    }
    slot.apply_uniform();
}
