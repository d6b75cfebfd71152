//! Which model stands in for a meter, in this order: what this machine's own meter of the domain taught, in a VM what
//! its host learned, a model of just such a machine from a file, and nothing (the caller's prior). Only forms that need
//! the busy share alone can stand in: hardware counters are not known where /proc/stat is read. Pure: the core hands
//! over what was taught, and `run` what the files hold.

#[cfg(test)]
mod tests;

use super::basis::Basis;
use super::kepler::machine::processor;
use super::model::{Form, Model};
use super::samples::Target;
use super::{Features, Predicted, prior};
use crate::model::domain::{DomainId, Scope};
use crate::model::units::Nanos;
use std::sync::Arc;
use time::OffsetDateTime;

/// Domains of one meter that were last taught longer before the newest of them are taken for gone: a BMC that was
/// replaced leaves its chassis under other names.
const GONE: Nanos = Nanos(3600 * Nanos::SECOND.0);

/// What the meter of a domain taught of its power.
#[derive(Clone, Debug)]
pub struct Taught {
    /// The domain.
    pub domain: DomainId,
    /// Its source. The domains of one source and scope are parts of one power (dies of a package, BMCs of a machine).
    pub source: String,
    /// Whose CPUs the power goes by.
    pub scope: Scope,
    /// Whose power.
    pub target: Target,
    /// The model; `None`: too little was learned.
    pub model: Option<Arc<Model>>,
    /// When it was taught last, CLOCK_REALTIME; `None`: not known.
    pub at: Option<Nanos>,
}

/// A model of a file.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Path of the file, for people.
    pub file: String,
    /// What it says.
    pub model: Arc<Model>,
}

/// All models that may stand in now, and for what.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What meters of this machine taught, also of those that are away.
    pub taught: Vec<Taught>,
    /// In a VM: its part of what its host learned.
    pub given: Arc<[Installed]>,
    /// Models of files, the preferred ones first.
    pub installed: Arc<[Installed]>,
    /// No meter of the whole machine measures now.
    pub platform_is_away: bool,
}

impl Known {
    /// Whether these are the very same models.
    pub fn same_models(&self, other: &Self) -> bool {
        let same = |one: &Taught, other: &Taught| {
            let models = match (&one.model, &other.model) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            models && one.domain == other.domain
        };
        Arc::ptr_eq(&self.installed, &other.installed)
            && Arc::ptr_eq(&self.given, &other.given)
            && self.taught.len() == other.taught.len()
            && self.taught.iter().zip(&other.taught).all(|(one, other)| same(one, other))
    }
}

/// The machine, or the part of it, that a model is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whose power.
    pub target: Target,
    /// One package or the whole machine.
    pub scope: Scope,
    /// Its hardware threads.
    pub threads: u32,
    /// This machine.
    pub machine: &'a prior::Machine,
}

/// What stands in.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Their powers add up.
    parts: Vec<Part>,
    /// Names of the models.
    names: String,
    /// Why it is chosen, how good and how old it is.
    about: String,
}

/// One model, or a share of it.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    form: Form,
    threads: f64,
    share: f64,
}

impl Chosen {
    /// The power at a busy share of 0 to 1.
    pub fn predict(&self, busy: f64) -> Predicted {
        let features = Features { busy, ..Features::default() };
        let mut all = Predicted { watts: 0.0, low: 0.0, high: 0.0, extrapolating: false };
        for Part { form, threads, share } in &self.parts {
            let Some(one) = form.predict(&features, *threads) else { continue };
            all.watts += one.watts * share;
            // Ends are added up as if all were wrong in one direction: they are of one machine and one load.
            all.low += one.low * share;
            all.high += one.high * share;
            all.extrapolating |= one.extrapolating;
        }
        all
    }

    /// Which models these are.
    pub fn names(&self) -> &str {
        &self.names
    }

    /// Why it is chosen, how good and how old it is.
    pub fn about(&self) -> &str {
        &self.about
    }
}

/// The form of a model that needs the busy share alone.
pub fn by_time(model: &Model) -> Option<&Form> {
    model.forms.iter().find(|form| form.basis == Basis::Time)
}

/// Why a model of a file is none of this machine, or cannot stand in on it: names the field and says what to do.
pub fn refuses(model: &Model, machine: &prior::Machine) -> Option<String> {
    let theirs = &model.machine;
    let of_a_package = machine.threads / machine.packages.max(1);
    let is_named = !theirs.processor.is_empty() && !machine.cpu.is_empty();
    if is_named && processor(&theirs.processor) != processor(&machine.cpu) {
        let (theirs, mine) = (cut(&theirs.processor), cut(&machine.cpu));
        return Some(format!(
            "field machine.processor: it is of {theirs:?}, and this machine has {mine:?}: train one here"
        ));
    }
    if theirs.threads != machine.threads && (theirs.threads != of_a_package || model.target == Target::Platform) {
        return Some(format!(
            "field machine.threads: it is of {} threads, and this machine has {}: train one here",
            theirs.threads, machine.threads
        ));
    }
    if let (Some(theirs), Some(mine)) = (theirs.memory_gib, machine.memory_gib)
        && model.target != Target::Package
        && !(0.8..=1.25).contains(&(theirs / mine))
    {
        return Some(format!(
            "field machine.memory_gib: it is of {theirs:.0} GiB, and this machine has {mine:.0}: train one here"
        ));
    }
    by_time(model).is_none().then(|| {
        "field forms: none has the basis time, and nothing counts cycles where it would stand in: train it again with \
         this version"
            .to_owned()
    })
}

/// The model that stands in; `None`: there is none but the prior.
pub fn choose(known: &Known, wanted: &Wanted<'_>) -> Option<Chosen> {
    taught(known, wanted).or_else(|| given(known, wanted)).or_else(|| installed(known, wanted))
}

fn taught(known: &Known, wanted: &Wanted<'_>) -> Option<Chosen> {
    let of_target = || known.taught.iter().filter(|one| one.target == wanted.target);
    let of_scope = |scope: Scope| {
        let mut sources: Vec<&str> =
            of_target().filter(|one| one.scope == scope).map(|one| one.source.as_str()).collect();
        sources.sort_unstable();
        sources.dedup();
        let groups = sources.into_iter().filter_map(move |source| {
            group(of_target().filter(|one| one.scope == scope && one.source == source).collect(), wanted, scope)
        });
        groups.min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, chosen)| chosen)
    };
    let own = of_scope(wanted.scope);
    let whole = || (wanted.scope != Scope::Machine).then(|| of_scope(Scope::Machine)).flatten();
    // A package without a counter beside others that have one.
    let alike = || {
        let others = of_target().filter(|one| matches!(one.scope, Scope::Package(_)) && one.scope != wanted.scope);
        let mut scopes = others.filter(|_| wanted.scope != Scope::Machine).map(|one| one.scope);
        scopes.find_map(of_scope)
    };
    own.or_else(whole).or_else(alike)
}

/// The sum of what the meters of one source taught, with its error in percent; `None`: one of them lacks a model.
fn group(mut all: Vec<&Taught>, wanted: &Wanted<'_>, scope: Scope) -> Option<(f64, Chosen)> {
    let newest = all.iter().filter_map(|one| one.at).max().unwrap_or_default();
    all.retain(|one| one.at.is_none_or(|at| newest - at <= GONE));
    let (mut parts, mut names, mut watts, mut wrong) = (Vec::new(), Vec::new(), 0.0, 0.0);
    let mut seconds = f64::INFINITY;
    for one in &all {
        let model = one.model.as_ref()?;
        let form = by_time(model)?;
        let threads = model.machine.threads;
        if scope != Scope::Machine && threads != wanted.threads {
            return None;
        }
        let share = f64::from(wanted.threads) / f64::from(threads.max(1));
        // At half load, as the weight of each part.
        let half = form.predict(&Features { busy: 0.5, ..Features::default() }, f64::from(threads))?.watts;
        (watts, wrong) = (watts + half, wrong + half * form.held.mape_percent);
        seconds = seconds.min(model.training.seconds);
        names.push(model.name.as_str());
        parts.push(Part { form: form.clone(), threads: f64::from(threads), share });
    }
    let first = all.first()?;
    let error = if watts > 0.0 { wrong / watts } else { 0.0 };
    let of = match (scope == wanted.scope, scope) {
        (true, _) => "this machine's own meter".to_owned(),
        (false, Scope::Package(package)) => format!("the meter of package {}, which is alike,", package.0),
        (false, _) => "the meter of all packages".to_owned(),
    };
    let until = all.iter().filter_map(|one| one.at).max().map(|at| format!(" until {}", date(at))).unwrap_or_default();
    let about = format!(
        "taught by {of} {}, {}{until}; {} % mean error before each window taught it",
        first.source,
        hours(seconds),
        rounded(error)
    );
    Some((error, Chosen { parts, names: names.join(" + "), about }))
}

/// What the host of this VM learned: of the part of its threads that are this VM's vCPUs.
fn given(known: &Known, wanted: &Wanted<'_>) -> Option<Chosen> {
    let fits =
        |one: &&Installed| one.model.target == wanted.target && one.model.machine.threads == wanted.machine.threads;
    let one = known.given.iter().find(fits)?;
    let (model, form) = (&one.model, by_time(&one.model)?);
    let threads = f64::from(model.machine.threads);
    let until = model.training.ended.map(|at| format!(" until {}", date(at))).unwrap_or_default();
    let about = format!(
        "the host's, by {}: this VM's part of it; {}{until}; {} % mean error on the whole host",
        one.file,
        hours(model.training.seconds),
        rounded(form.held.mape_percent)
    );
    let part = Part { form: form.clone(), threads, share: f64::from(wanted.threads) / threads };
    Some(Chosen { parts: vec![part], names: model.name.clone(), about })
}

fn installed(known: &Known, wanted: &Wanted<'_>) -> Option<Chosen> {
    let fits = |one: &&Installed| one.model.target == wanted.target && refuses(&one.model, wanted.machine).is_none();
    // A model of a single package does not say what all of them draw.
    let one = known.installed.iter().filter(fits).find(|one| {
        let threads = one.model.machine.threads;
        threads == wanted.machine.threads || threads == wanted.threads
    })?;
    let model = &one.model;
    let form = by_time(model)?;
    let threads = f64::from(model.machine.threads);
    let share = f64::from(wanted.threads) / threads;
    let class = match (model.machine.processor.is_empty(), share < 1.0) {
        (true, _) => "of as many threads; its processor is not named",
        (false, true) => "of such a machine, its part by threads",
        (false, false) => "of such a machine",
    };
    let trained = model.training.ended.map_or_else(|| "no date".to_owned(), |at| format!("trained on {}", date(at)));
    let about = format!(
        "{}, {class}; {} samples, {}, {trained}; {} % mean error on work left out of its training",
        one.file,
        model.training.samples,
        hours(model.training.seconds),
        rounded(form.held.mape_percent)
    );
    Some(Chosen { parts: vec![Part { form: form.clone(), threads, share }], names: model.name.clone(), about })
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A whole number of percent: the text is a line of the log each time it changes.
fn rounded(percent: f64) -> String {
    if percent < 1.0 { "below 1".to_owned() } else { format!("{percent:.0}") }
}

fn hours(seconds: f64) -> String {
    if seconds >= 36.0 * 3600.0 {
        format!("{:.0} d", seconds / 86_400.0)
    } else if seconds >= 5400.0 {
        format!("{:.0} h", seconds / 3600.0)
    } else {
        format!("{:.0} min", seconds / 60.0)
    }
}

/// The day in UTC: `2026-11-28`. `at`: since 1970.
pub fn date(at: Nanos) -> String {
    // u64 nanoseconds end in 2554, which every calendar has.
    let at = OffsetDateTime::from_unix_timestamp_nanos(at.0.into()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day())
}
