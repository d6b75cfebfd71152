//! What is learned of the power of a domain while its meter measures: two power models, one of CPU time alone (or of
//! the busy time of a GPU) and one of hardware counters, where these are counted. Which windows teach is decided in
//! `lessons`; how they teach in `power_model::learn`.

use crate::model::domain::{Domain, PowerInterval, Quality, Scope, Zone};
use crate::model::platform::PlatformKind;
use crate::model::snapshot::{CpuInfo, LearnedBand, LearnedView, PredictedPower};
use crate::model::units::{Microwatts, Nanos};
use crate::power_model::basis::Basis;
use crate::power_model::learn::Learner;
use crate::power_model::model::{BANDS, Form, Machine, Model, Training};
use crate::power_model::samples::Target;
use crate::power_model::stand_in::Taught;
use crate::power_model::{Features, Predicted, file};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Time between two versions of the model that is shown, exported and used by the estimate.
const RENEW: f64 = 60.0;

/// What was learned of the power of one domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// The machine, or its part, that it is of. It is of no use for another one.
    pub machine: Machine,
    /// By the busy share alone.
    pub by_time: Learner,
    /// By hardware counters; `None`: these were never counted.
    pub by_counters: Option<Learner>,
    /// The model as of the last renewal, and its text.
    made: Option<(Arc<Model>, Arc<str>)>,
    /// What the learners said at that time, the one with the smaller error first; also of GPUs.
    forms: Vec<Form>,
    /// Seconds that had taught it at that time.
    made_at: f64,
    /// Time of the last lesson, CLOCK_REALTIME; `None`: not known. And seconds that had taught it then.
    taught_at: Option<Nanos>,
    dated: f64,
}

impl Learned {
    /// Nothing yet, of this machine.
    pub fn new(machine: Machine) -> Self {
        let by_time = Learner::new(Basis::Time, machine.threads);
        Self::of(machine, by_time, None, None)
    }

    /// What is known already. `taught_at`: time of the last lesson, CLOCK_REALTIME; `None`: not known.
    pub fn of(machine: Machine, by_time: Learner, by_counters: Option<Learner>, taught_at: Option<Nanos>) -> Self {
        let dated = by_time.taught();
        Self { machine, by_time, by_counters, made: None, forms: Vec::new(), made_at: 0.0, taught_at, dated }
    }

    /// The machine that a model of a domain is of; `None`: of such a domain nothing is learned. `cpus`: those of the
    /// host.
    pub fn machine(domain: &Domain, cpus: &[CpuInfo]) -> Option<Machine> {
        // What the host reports is of its meter, and of what it thinks this VM used.
        if domain.quality != Quality::Measured || domain.by_host {
            return None;
        }
        // A meter that is only compared may be of more or less than this machine.
        if domain.platform.as_ref().is_some_and(PlatformKind::is_check) {
            return None;
        }
        let threads = |own: &dyn Fn(&CpuInfo) -> bool| {
            u32::try_from(cpus.iter().filter(|cpu| own(cpu)).count()).unwrap_or(u32::MAX)
        };
        let processor = || cpus.first().map(|cpu| cpu.model_name.clone()).unwrap_or_default();
        let packages = || u32::try_from(cpus.iter().map(|cpu| cpu.physical_id).collect::<BTreeSet<_>>().len()).ok();
        let (processor, packages, threads) = match (domain.zone, domain.scope) {
            (Zone::Package | Zone::Dram, Scope::Package(package)) => {
                (processor(), Some(1), threads(&|cpu| cpu.physical_id == u32::from(package.0)))
            }
            (Zone::Package | Zone::Dram | Zone::Platform, Scope::Machine) => {
                (processor(), packages(), threads(&|_| true))
            }
            (Zone::Gpu, Scope::Gpu(_)) => (domain.gpu.as_ref()?.name.clone(), None, 1),
            _ => return None,
        };
        (threads > 0).then_some(Machine { processor, packages, threads, memory_gib: None })
    }

    /// A lesson: the features of some time, and the power in watts that the meter saw.
    pub fn observe(&mut self, domain: &Domain, features: &Features, watts: f64, time: Nanos) {
        self.by_time.observe(features, watts, time.seconds());
        if let (Some(_), Some(_), Some(_)) = (features.cycles, features.instructions, features.cache_misses) {
            let basis = match domain.zone {
                Zone::Dram => Basis::Memory,
                _ => Basis::Counters,
            };
            let new = || Learner::new(basis, self.machine.threads);
            self.by_counters.get_or_insert_with(new).observe(features, watts, time.seconds());
        }
        if self.by_time.taught() - self.made_at >= RENEW || self.by_time.taught() < self.made_at {
            self.renew(domain);
        }
    }

    /// After it was read from a file: what is solved from time to time is solved now.
    pub fn refresh(&mut self, domain: &Domain) {
        self.learners_mut().for_each(Learner::refresh);
        self.dated = self.by_time.taught();
        self.renew(domain);
    }

    fn renew(&mut self, domain: &Domain) {
        self.made_at = self.by_time.taught();
        self.forms = self.learners().filter_map(Learner::form).collect();
        self.made = self.make(domain).map(|model| {
            let text = file::write(&model).into();
            (Arc::new(model), text)
        });
    }

    /// The learners, the one with the smaller error first.
    fn learners(&self) -> impl Iterator<Item = &Learner> {
        let error = |learner: &Learner| learner.error_percent().unwrap_or(f64::INFINITY);
        let better = self.by_counters.as_ref().filter(|learner| error(learner) < error(&self.by_time));
        let worse = self.by_counters.as_ref().filter(|_| better.is_none());
        better.into_iter().chain([&self.by_time]).chain(worse)
    }

    fn learners_mut(&mut self) -> impl Iterator<Item = &mut Learner> {
        [&mut self.by_time].into_iter().chain(&mut self.by_counters)
    }

    fn make(&self, domain: &Domain) -> Option<Model> {
        let target = target(domain)?;
        let model = self.by_time.model(name(domain), target, self.machine.clone(), domain.source.clone())?;
        let training = Training { ended: self.taught_at, ..model.training };
        Some(Model { forms: self.forms.clone(), training, ..model })
    }

    /// The model as of the last minute; `None` before it has learned enough, and for GPUs.
    pub fn model(&self) -> Option<Arc<Model>> {
        self.made.as_ref().map(|(model, _)| model.clone())
    }

    /// The power where these features ran; `None`: it has not learned enough.
    pub fn predict(&self, features: &Features) -> Option<Predicted> {
        self.learners().find_map(|learner| learner.predict(features))
    }

    /// What the last version of the model says of the power of a window that has not taught it; `None`: it has not
    /// learned enough.
    pub(super) fn says(&self, features: &Features) -> Option<PredictedPower> {
        let threads = f64::from(self.machine.threads);
        let said = self.forms.iter().find_map(|form| form.predict(features, threads))?;
        let micro = |watts: f64| Microwatts((watts * 1e6).round() as u64);
        let interval =
            PowerInterval { low: micro(said.low), high: micro(said.high), extrapolating: said.extrapolating };
        Some(PredictedPower { power: micro(said.watts), interval })
    }

    /// What may stand in for the domain's meter; `None`: of such a domain there is no model.
    pub(super) fn taught_of(&self, domain: &Domain) -> Option<Taught> {
        Some(Taught {
            domain: domain.id.clone(),
            source: domain.source.clone(),
            scope: domain.scope,
            target: target(domain)?,
            model: self.model(),
            at: self.taught_at,
        })
    }

    /// Notes the time of the last lesson: at the end of each tick. `now`: CLOCK_REALTIME.
    pub(super) fn date(&mut self, now: Nanos) {
        if self.by_time.taught() != self.dated {
            (self.dated, self.taught_at) = (self.by_time.taught(), Some(now));
        }
    }

    /// Whether a version of the model was made: of one that is read from a file none is at first.
    pub(super) fn is_made(&self) -> bool {
        self.made.is_some()
    }

    /// Time of the last lesson, CLOCK_REALTIME; `None`: not known.
    pub fn taught_at(&self) -> Option<Nanos> {
        self.taught_at
    }

    /// Time that taught it.
    pub fn taught(&self) -> Nanos {
        Nanos((self.by_time.taught() * 1e9) as u64)
    }

    /// The line for an operator about what was learned of another machine.
    pub(super) fn discarded(&self, domain: &Domain, now: Option<&Machine>) -> String {
        let named = |machine: &Machine| {
            let processor = if machine.processor.is_empty() { "an unnamed processor" } else { &machine.processor };
            let packages = machine.packages.map(|packages| format!("{packages} package(s), ")).unwrap_or_default();
            format!("{processor}, {packages}{} threads", machine.threads)
        };
        let now = now.map_or_else(|| "a domain of which nothing is learned".to_owned(), named);
        format!(
            "{}: what was learned of its power is of {}, and this is {now}: it is discarded",
            domain.id,
            named(&self.machine)
        )
    }

    /// As the snapshot shows it: the errors of the model that is used. `predicted`: what it says of the last window.
    pub(super) fn view(&self, domain: &Domain, predicted: Option<PredictedPower>) -> LearnedView {
        let ppm = |percent: f64| (percent * 1e4).round() as u64;
        let best = self.learners().next().unwrap_or(&self.by_time);
        let percent = |share: f64| (share * 100.0).round() as u8;
        let bands = BANDS.windows(2).zip(best.errors_percent()).filter_map(|(band, error)| {
            let (from_percent, to_percent) = (percent(band[0]), percent(band[1]));
            Some(LearnedBand { from_percent, to_percent, error_ppm: ppm(error?) })
        });
        LearnedView {
            name: name(domain),
            taught: self.taught(),
            taught_at: self.taught_at,
            error_ppm: best.error_percent().map(ppm),
            bands: bands.collect(),
            predicted,
            model: self.made.as_ref().map(|(_, text)| text.clone()),
        }
    }
}

/// Whose power a model of a domain says; `None`: of its zone there are no models.
fn target(domain: &Domain) -> Option<Target> {
    match domain.zone {
        Zone::Package => Some(Target::Package),
        Zone::Dram => Some(Target::Dram),
        Zone::Platform => Some(Target::Platform),
        _ => None,
    }
}

/// The name of a domain's model.
fn name(domain: &Domain) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '-' };
    format!("learned-{}", domain.id.as_str().chars().map(letter).take(90).collect::<String>())
}
