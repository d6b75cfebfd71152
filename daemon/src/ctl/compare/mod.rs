//! `joulectl meters compare`: a meter of the whole machine beside what jouled measures of it, over some minutes of
//! snapshots: ratio, offset, loss of the supply, lag and correlation. Asks no meter itself.

mod curve;
mod fit;
#[cfg(test)]
mod tests;
mod words;

use super::client::{Client, ClientError};
use super::{Error, text};
use crate::model::domain::{Domain, Quality, Zone};
use crate::model::snapshot::{DomainView, Role, Snapshot};
use crate::model::units::Nanos;
use curve::Curve;
use fit::Fit;
use std::io::Write;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout_at};

/// What is compared, and for how long.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The meter: its source, its name, or a kind of platform meter.
    pub against: &'a str,
    /// For so long.
    pub length: Duration,
}

/// A finished comparison.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The sources of the meter.
    against: String,
    /// What it was compared with, in words.
    own: String,
    fit: Fit,
    notes: Vec<String>,
}

/// Compares, until the time is over or Ctrl-C.
///
/// # Errors
/// There is no such meter, it gave too few readings, or jouled cannot be reached.
pub async fn run(client: &Client, asked: &Asked<'_>, json: bool, out: &mut dyn Write) -> Result<(), Error> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stream = client.stream().await?;
    let end = Instant::now() + asked.length;
    let mut taken: Option<Taken> = None;
    let mut lost = None;
    loop {
        let next = tokio::select! {
            next = timeout_at(end, stream.next()) => next,
            _ = interrupt.recv() => break,
        };
        match next {
            Err(_over) => break,
            Ok(Ok(Some(snapshot))) => {
                let taken = match &mut taken {
                    Some(taken) => taken,
                    None => taken.insert(Taken::new(asked.against, &snapshot).map_err(Error::Usage)?),
                };
                taken.see(&snapshot);
            }
            // Another attempt would give the same answer.
            Ok(Err(error @ ClientError::OtherVersion(..))) => return Err(error.into()),
            Ok(Ok(None) | Err(_)) => {
                lost = Some("the connection to jouled ended before the time was over".to_owned());
                break;
            }
        }
    }
    let Some(taken) = taken else { return Err(Error::Lost("there was no snapshot".into())) };
    let compared = taken.compared(lost).map_err(Error::Model)?;
    if json {
        writeln!(out, "{}", text::json(&words::json(&compared)))?;
    } else {
        text::write_lines(out, &words::lines(&compared))?;
    }
    Ok(())
}

/// What snapshots showed so far.
struct Taken {
    /// Domains of the meter, and their curves.
    wall: Vec<(Domain, Curve)>,
    /// Domains of what jouled measures without it.
    own: Vec<(Domain, Curve)>,
    words: &'static str,
    estimated: bool,
}

impl Taken {
    /// # Errors
    /// There is no such meter; names those that there are.
    fn new(name: &str, snapshot: &Snapshot) -> Result<Self, String> {
        let is_it = |domain: &Domain| {
            let short = domain.source.split_once(':').map_or("", |(_, short)| short);
            let kind = domain.platform.as_ref().map_or("", |kind| kind.as_str());
            domain.zone == Zone::Platform && (&*domain.source == name || short == name || kind == name)
        };
        let of = |is: &dyn Fn(&DomainView) -> bool| {
            let views = snapshot.domains.iter().filter(|view| is(view));
            views.map(|view| (Domain::clone(&view.domain), Curve::default())).collect::<Vec<_>>()
        };
        let wall = of(&|view| is_it(&view.domain) && view.role != Role::Past);
        if wall.is_empty() {
            let mut known: Vec<String> = snapshot
                .domains
                .iter()
                .filter(|view| view.domain.zone == Zone::Platform)
                .map(|view| text::safe(&view.domain.source))
                .collect();
            known.dedup();
            let known =
                if known.is_empty() { "there is none".to_owned() } else { format!("there is {}", known.join(", ")) };
            return Err(format!(
                "no meter of the whole machine is named {name:?}: {known} (joulectl meters shows them)"
            ));
        }
        // `other` is what the authority measures beyond the components: it would be compared with itself.
        let authority = snapshot.platform.authority.as_ref();
        let is_authority = wall.iter().any(|(domain, _)| authority.is_some() && domain.platform.as_ref() == authority);
        let own = of(&|view| view.role == Role::Billed && (view.domain.zone != Zone::Other || !is_authority));
        if own.is_empty() {
            return Err(
                "jouled measures nothing of this machine without that meter: there is nothing to compare".into()
            );
        }
        let has_other = own.iter().any(|(domain, _)| domain.zone == Zone::Other);
        let words = if has_other {
            "the whole machine as jouled measures it"
        } else {
            "the components that jouled measures (packages, memory, GPUs)"
        };
        let estimated = own.iter().any(|(domain, _)| domain.quality == Quality::Estimated);
        Ok(Self { wall, own, words, estimated })
    }

    fn see(&mut self, snapshot: &Snapshot) {
        for (domain, curve) in self.wall.iter_mut().chain(&mut self.own) {
            match snapshot.domains.iter().find(|view| view.domain.id == domain.id) {
                Some(view) => curve.see(view),
                None => curve.interrupt(),
            }
        }
    }

    /// # Errors
    /// There were too few readings; why that may be.
    fn compared(self, lost: Option<String>) -> Result<Compared, String> {
        let curves = |of: &[(Domain, Curve)]| of.iter().map(|(_, curve)| curve.clone()).collect::<Vec<_>>();
        let sources = self.wall.iter().map(|(domain, _)| domain.source.to_string()).collect::<Vec<_>>();
        let against = sources.join(" and ");
        let fit = Fit::new(&curves(&self.wall), &curves(&self.own)).ok_or_else(|| {
            let refresh = self.wall.iter().filter_map(|(domain, _)| domain.refresh).max().unwrap_or(Nanos::ZERO);
            format!(
                "{against} gave too few readings beside jouled's in that time (one each {:.0} s is expected): compare \
                 for longer, and see joulectl status for why it fails",
                refresh.seconds().max(1.0)
            )
        })?;
        let estimate = "jouled's side is an estimate, not a measurement: this compares the estimate with the meter";
        let notes = self.estimated.then(|| estimate.to_owned()).into_iter().chain(lost).collect();
        Ok(Compared { against, own: self.words.to_owned(), fit, notes })
    }
}
