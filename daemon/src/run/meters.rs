//! The meters of one sampler: reads them all at a tick, announces their domains, and reports their health. Opens none
//! of them.

use crate::meter::Meter;
use crate::model::domain::{Domain, DomainId, DomainReading, Verdict, Zone};
use crate::model::source::{Health, SourceRole, SourceState, Stamp};
use crate::model::text::safe;
use crate::model::tick::Tick;
use crate::power_model::stand_in::{Installed, Known};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Beginning of the reason of a meter that answers, and of which no value can be used.
pub const NO_POWER: &str = "no power: ";

/// The meters, in the order in which they are read.
#[derive(Default)]
pub struct Meters {
    meters: Vec<Box<dyn Meter>>,
    /// For each meter, how many of its domains are announced.
    announced: Vec<usize>,
    /// The meter of each domain, by its index in `meters`.
    owners: FxHashMap<DomainId, usize>,
    /// What the core found out about their values at the last tick, for domains that are not beyond doubt.
    verdicts: Vec<(DomainId, Verdict)>,
    /// The models that may stand in, as of the last tick.
    known: Known,
}

impl Meters {
    /// Meters that have not been read yet. The order matters: a standby meter is read after the meter that it replaces.
    pub fn new(meters: Vec<Box<dyn Meter>>) -> Self {
        Self { announced: vec![0; meters.len()], meters, ..Self::default() }
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

    /// Takes what the core found out about the values of the last tick: a meter is as good as its values can be used.
    pub fn judge(&mut self, verdicts: Vec<(DomainId, Verdict)>) {
        if verdicts == self.verdicts {
            return;
        }
        for (number, meter) in self.meters.iter_mut().enumerate() {
            let own = |id: &DomainId| self.owners.get(id) == Some(&number);
            let without = |(id, verdict): &(DomainId, Verdict)| {
                (own(id) && matches!(verdict, Verdict::NoPower(_))).then(|| id.clone())
            };
            meter.set_without_power(&verdicts.iter().filter_map(without).collect::<Vec<_>>());
        }
        self.verdicts = verdicts;
    }

    /// Tells the meters which models may stand in for them, where that has changed.
    pub fn set_models(&mut self, known: Known) {
        if known.same_models(&self.known) && known.platform_is_away == self.known.platform_is_away {
            return;
        }
        self.meters.iter_mut().for_each(|meter| meter.set_models(&known));
        self.known = known;
    }

    /// Models that meters were given.
    pub fn given_models(&self) -> Arc<[Installed]> {
        self.meters.iter().find_map(|meter| meter.given_models()).unwrap_or_else(|| Arc::clone(&self.known.given))
    }

    /// The state of every meter.
    pub fn states(&self) -> impl Iterator<Item = SourceState> {
        self.meters.iter().enumerate().map(|(number, meter)| SourceState {
            detail: meter.detail(),
            expected: meter.expected(),
            ..SourceState::new(meter.source(), SourceRole::Meter, self.health(number, &**meter))
        })
    }

    /// The health of a meter that answers is that of its values.
    fn health(&self, number: usize, meter: &dyn Meter) -> Health {
        let health = meter.health();
        let own = self.verdicts.iter().filter(|(id, _)| self.owners.get(id) == Some(&number));
        let mut without = own.clone().filter(|(_, verdict)| matches!(verdict, Verdict::NoPower(_)));
        let mut doubted = own.clone().filter(|(_, verdict)| matches!(verdict, Verdict::Doubtful(_)));
        let mut suspect = own.clone().filter(|(_, verdict)| matches!(verdict, Verdict::Suspect(_)));
        match (without.next(), doubted.next().or_else(|| suspect.next())) {
            _ if !health.answers() => health,
            (Some((id, Verdict::NoPower(why))), _) => {
                let why = format!("{NO_POWER}{id}: {why}");
                let has = |zone: Zone| meter.domains().iter().any(|domain| domain.zone == zone);
                // Parts of packages are nothing without these.
                let counts = |domain: &&Domain| !has(Zone::Package) || domain.zone == Zone::Package;
                let is_without = |domain: &Domain| {
                    own.clone().any(|(id, verdict)| *id == domain.id && matches!(verdict, Verdict::NoPower(_)))
                };
                match meter.domains().iter().filter(counts).all(is_without) {
                    true => Health::Failed(why),
                    false => Health::Degraded(why),
                }
            }
            (_, Some((id, Verdict::Doubtful(why)))) if health == Health::Healthy => {
                Health::Degraded(format!("some of its values are no power, and are left out: {id}: {why}"))
            }
            (_, Some((id, Verdict::Suspect(why)))) if health == Health::Healthy => {
                Health::Degraded(format!("its values may be wrong: {id}: {why}"))
            }
            _ => health,
        }
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
