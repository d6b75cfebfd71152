//! The meters of one sampler: reads them all at a tick, announces their domains, and reports their health. Opens none
//! of them.

use crate::meter::Meter;
use crate::model::domain::{Domain, DomainId, DomainReading};
use crate::model::source::{SourceRole, SourceState, Stamp};
use crate::model::text::safe;
use crate::model::tick::Tick;
use rustc_hash::FxHashMap;

/// The meters, in the order in which they are read.
#[derive(Default)]
pub struct Meters {
    meters: Vec<Box<dyn Meter>>,
    /// For each meter, how many of its domains are announced.
    announced: Vec<usize>,
    /// The meter of each domain, by its index in `meters`.
    owners: FxHashMap<DomainId, usize>,
}

impl Meters {
    /// Meters that have not been read yet. The order matters: a standby meter is read after the meter that it replaces.
    pub fn new(meters: Vec<Box<dyn Meter>>) -> Self {
        Self { announced: vec![0; meters.len()], meters, owners: FxHashMap::default() }
    }

    /// Reads every meter. The tick gets the domains that are new, and the readings of domains that are their meter's
    /// own.
    pub fn read(&mut self, at: Stamp, tick: &mut Tick) {
        for (number, (meter, announced)) in self.meters.iter_mut().zip(&mut self.announced).enumerate() {
            let from = tick.readings.len();
            meter.read(at, &mut tick.readings);
            for domain in &meter.domains()[*announced..] {
                *announced += 1;
                if self.owners.contains_key(&domain.id) {
                    let Domain { id, source, .. } = domain;
                    tracing::warn!("energy domain {id} by {source} is not used: another meter has a domain of this id");
                } else {
                    self.owners.insert(domain.id.clone(), number);
                    log_domain(domain);
                    tick.new_domains.push(domain.clone());
                }
            }
            let is_own = |reading: &DomainReading| self.owners.get(&reading.domain) == Some(&number);
            if !tick.readings[from..].iter().all(is_own) {
                let read = tick.readings.split_off(from);
                tick.readings.extend(read.into_iter().filter(is_own));
            }
        }
    }

    /// The state of every meter.
    pub fn states(&self) -> impl Iterator<Item = SourceState> {
        self.meters.iter().map(|meter| SourceState {
            detail: meter.detail(),
            expected: meter.expected(),
            ..SourceState::new(meter.source(), SourceRole::Meter, meter.health())
        })
    }

    /// Tells all meters at once that there are no more reads, so that they end their sessions side by side.
    pub fn stop(&mut self) {
        self.meters.iter_mut().for_each(|meter| meter.stop());
    }
}

fn log_domain(Domain { id, source, path, quality, .. }: &Domain) {
    let (id, quality) = (&*safe(id.as_str()), quality.as_str());
    let (source, path) = (&*safe(source), safe(path));
    tracing::info!("_domain" = id, "_source" = source, "energy domain {id}: {quality}, by {source}, {path}");
}
