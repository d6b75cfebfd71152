//! From a BMC's root to the resources that give this machine's power: links followed, lists paged, ways tried in order. Reads no series.

use super::chassis::{self, Chassis, System};
use super::doc::{Doc, Node};
use super::reading::{JOULES, KILOWATT_HOURS, Taken, WATTS, Way};
use super::session::{Bmc, ROOT};
use super::{Problem, Trouble, cut};
use crate::model::domain::Reading;
use crate::model::units::{Microwatts, Nanos};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pages of one list.
const PAGES: usize = 64;
/// Members of one list: an NVIDIA HGX has some 50 chassis.
const MEMBERS: usize = 256;
/// Words of a PowerControl member that is a part of the machine only.
const PARTS: [&str; 10] =
    ["cpu", "processor", "memory", "dimm", "gpu", "accelerator", "fan", "storage", "drive", "pci"];
/// Words of one that is the whole.
const WHOLE: [&str; 5] = ["system", "server", "chassis", "total", "platform"];

/// Resources read so far: a slow BMC is explored over several periods, and asked nothing twice.
pub(super) type Cache = BTreeMap<String, Arc<Doc>>;

/// A chassis and how its power is read.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) way: Way,
    /// The reading that was got on the way.
    pub(super) first: Taken,
}

/// What is looked for.
pub(super) struct Search<'a> {
    pub(super) bmc: &'a mut Bmc,
    pub(super) cache: &'a mut Cache,
    /// Configured ids or URIs of chassis.
    pub(super) chassis: &'a [String],
    pub(super) uuid: Option<[u8; 16]>,
    pub(super) period: Nanos,
}

impl Search<'_> {
    /// The chassis of this machine with a way to read each, and how it is known that they are this machine's.
    pub(super) async fn run(&mut self) -> Result<(Vec<Found>, String), Problem> {
        let (chosen, why) = if self.chassis.is_empty() { self.by_links().await? } else { self.by_name().await? };
        let mut found = Vec::new();
        for uri in chosen {
            found.push(self.ways(&uri).await?);
        }
        Ok((found, why))
    }

    async fn doc(&mut self, uri: &str) -> Result<Arc<Doc>, Problem> {
        if let Some(doc) = self.cache.get(uri) {
            return Ok(Arc::clone(doc));
        }
        let doc = Arc::new(self.bmc.get(uri).await?.doc);
        self.cache.insert(uri.to_owned(), Arc::clone(&doc));
        Ok(doc)
    }

    /// The members of a collection, over all of its pages.
    async fn members(&mut self, collection: &str) -> Result<Vec<String>, Problem> {
        let (mut page, mut seen, mut members) = (collection.to_owned(), BTreeSet::new(), Vec::new());
        loop {
            if !seen.insert(page.clone()) {
                return Err(Problem::odd(format!(
                    "the pages of {} go round in a circle: set chassis to a URI",
                    cut(collection)
                )));
            }
            let doc = self.doc(&page).await?;
            members.extend(doc.root().links("Members")?);
            if seen.len() > PAGES || members.len() > MEMBERS {
                return Err(Problem::odd(format!(
                    "{} has more than {MEMBERS} members or {PAGES} pages",
                    cut(collection)
                )));
            }
            match doc.root().text("Members@odata.nextLink")? {
                Some(next) => page = doc.root().path_of(next)?,
                None => return Ok(members),
            }
        }
    }

    async fn collection(&mut self, key: &str) -> Result<Vec<String>, Problem> {
        let root = self.doc(ROOT).await?;
        match root.root().link(key)? {
            Some(uri) => self.members(&uri).await,
            None => Ok(Vec::new()),
        }
    }

    async fn by_name(&mut self) -> Result<(Vec<String>, String), Problem> {
        let (mut chosen, mut known): (Vec<String>, Option<Vec<String>>) = (Vec::new(), None);
        for name in self.chassis {
            if name.starts_with('/') {
                chosen.push(name.clone());
                continue;
            }
            let members = match &known {
                Some(members) => members.clone(),
                None => self.collection("Chassis").await?,
            };
            // An id is the last part of its URI, by DSP0266; only where it is not does the resource itself have to be read.
            let last = |uri: &&String| uri.trim_end_matches('/').rsplit('/').next() == Some(name.as_str());
            let uri = members.iter().find(last).cloned();
            known = Some(members);
            chosen.push(uri.ok_or_else(|| {
                Problem::odd(format!("the BMC has no chassis {name:?} (chassis in the configuration)"))
            })?);
        }
        Ok((chosen, "as configured".into()))
    }

    async fn by_links(&mut self) -> Result<(Vec<String>, String), Problem> {
        let mut systems = Vec::new();
        for uri in self.collection("Systems").await? {
            systems.push(System::read(&*self.doc(&uri).await?)?);
        }
        let system = chassis::system(&systems, self.uuid.as_ref()).map_err(Problem::odd)?;
        let mut uris = self.collection("Chassis").await?;
        for linked in system.iter().flat_map(|(system, _)| &system.chassis) {
            if !uris.iter().any(|uri| chassis::alike(uri, linked)) {
                uris.push(linked.clone());
            }
        }
        let mut all = Vec::new();
        for uri in uris {
            all.push(Chassis::read(&*self.doc(&uri).await?)?);
        }
        let one = chassis::outermost(&all, system.map(|(system, _)| system)).map_err(Problem::odd)?;
        let why = system.map_or("the only chassis of the BMC, which tells of no system", |(_, why)| why);
        Ok((vec![one.uri.clone()], why.to_owned()))
    }

    /// The best way to read a chassis: energy where its counter is fine enough, else power.
    async fn ways(&mut self, uri: &str) -> Result<Found, Problem> {
        let doc = self.doc(uri).await?;
        let last = uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let id = doc.root().text("Id")?.unwrap_or(last).to_owned();
        let mut tried = Vec::new();
        let (mut power, energy) = self.environment(&doc.root(), &mut tried).await?;
        if power.is_none() {
            power = self.older(&doc.root(), &mut tried).await?;
        }
        if power.is_none() {
            power = self.supplies(&doc.root(), &mut tried).await?;
        }
        let fine = |taken: &Taken| match power.as_ref().map(|(_, taken)| taken.reading) {
            Some(Reading::Gauge { power }) => fine_enough(taken.step, power, self.period),
            // Where there is no power, a coarse counter still tells the sum.
            _ => true,
        };
        let best = energy.filter(|(_, taken)| fine(taken)).or(power);
        let Some((way, first)) = best else {
            let why = if tried.is_empty() {
                "it has no EnvironmentMetrics, Power or PowerSubsystem".to_owned()
            } else {
                tried.join("; ")
            };
            return Err(Problem::absent(format!("{} gives no power: {why}", cut(uri))));
        };
        Ok(Found { id, way, first })
    }

    async fn environment(
        &mut self,
        chassis: &Node<'_>,
        tried: &mut Vec<String>,
    ) -> Result<(Option<(Way, Taken)>, Option<(Way, Taken)>), Problem> {
        let Some(uri) = chassis.link("EnvironmentMetrics")? else { return Ok((None, None)) };
        let Some(doc) = note(self.doc(&uri).await, tried)? else { return Ok((None, None)) };
        let best = |one: &mut Option<(Way, Taken)>, other| {
            if one.is_none() {
                *one = other;
            }
        };
        let (mut power, mut energy) = (None, None);
        for (key, unit) in [("PowerWatts", WATTS), ("EnergyJoules", JOULES), ("EnergykWh", KILOWATT_HOURS)] {
            let Some(member) = note(doc.root().at(key), tried)?.filter(|member| !member.is_none()) else { continue };
            let sensor = note(member.text("DataSourceUri"), tried)?.flatten().filter(|source| !source.contains('#'));
            let sensor = sensor.and_then(|source| member.path_of(source).ok()).map(Way::Sensor);
            let excerpt = Way::Metrics(uri.clone(), key, unit);
            for way in sensor.into_iter().chain([excerpt]) {
                if let Some(taken) = note(way.take(self.bmc).await, tried)? {
                    let kept = if matches!(taken.reading, Reading::Gauge { .. }) { &mut power } else { &mut energy };
                    best(kept, Some((way, taken)));
                    break;
                }
            }
        }
        Ok((power, energy))
    }

    /// The Power resource, deprecated since 2020.4 and still what most BMCs have.
    async fn older(&mut self, chassis: &Node<'_>, tried: &mut Vec<String>) -> Result<Option<(Way, Taken)>, Problem> {
        let Some(uri) = chassis.link("Power")? else { return Ok(None) };
        let Some(doc) = note(self.doc(&uri).await, tried)? else { return Ok(None) };
        let controls = note(doc.root().list("PowerControl"), tried)?.unwrap_or_default();
        if let Some(index) = note(whole(&controls, &cut(&uri)), tried)?.flatten() {
            let way = Way::Control(uri.clone(), index);
            if let Some(taken) = note(way.take(self.bmc).await, tried)? {
                return Ok(Some((way, taken)));
            }
        }
        if doc.root().at("PowerSupplies").is_ok_and(|supplies| !supplies.is_none()) {
            let way = Way::Inputs(uri);
            if let Some(taken) = note(way.take(self.bmc).await, tried)? {
                return Ok(Some((way, taken)));
            }
        }
        Ok(None)
    }

    /// The inputs of the power supplies in PowerSubsystem. Never outputs: what a supply itself loses is drawn too.
    async fn supplies(&mut self, chassis: &Node<'_>, tried: &mut Vec<String>) -> Result<Option<(Way, Taken)>, Problem> {
        let Some(uri) = chassis.link("PowerSubsystem")? else { return Ok(None) };
        let Some(doc) = note(self.doc(&uri).await, tried)? else { return Ok(None) };
        let Some(supplies) = note(doc.root().link("PowerSupplies"), tried)?.flatten() else {
            tried.push(format!("{} has no PowerSupplies", cut(&uri)));
            return Ok(None);
        };
        let Some(members) = note(self.members(&supplies).await, tried)? else { return Ok(None) };
        let mut metrics = Vec::new();
        for member in members {
            let Some(doc) = note(self.doc(&member).await, tried)? else { return Ok(None) };
            let state = note(doc.root().at("Status").and_then(|status| status.text("State")), tried)?.flatten();
            if state == Some("Absent") {
                continue;
            }
            let Some(uri) = note(doc.root().link("Metrics"), tried)?.flatten() else {
                // A sum without it would be too low.
                tried.push(format!("{} has no Metrics", cut(&member)));
                return Ok(None);
            };
            // A spare one that says what it draws counts too; one that is off says nothing.
            if state.is_none_or(|state| state == "Enabled") || self.has_input(&uri).await? {
                metrics.push(uri);
            }
        }
        if metrics.is_empty() {
            tried.push(format!("{} has no power supply in use", cut(&supplies)));
            return Ok(None);
        }
        let way = Way::Supplies(metrics);
        Ok(note(way.take(self.bmc).await, tried)?.map(|taken| (way, taken)))
    }
}

impl Search<'_> {
    /// Whether a power supply's metrics have a number for its input.
    async fn has_input(&mut self, metrics: &str) -> Result<bool, Problem> {
        let Some(doc) = note(self.doc(metrics).await, &mut Vec::new())? else { return Ok(false) };
        let reading = doc.root().at("InputPowerWatts").and_then(|input| input.at("Reading"));
        Ok(reading.is_ok_and(|reading| !reading.is_none()))
    }
}

/// What a way lacks is noted, and the next one is tried; a BMC that does not answer ends the search.
fn note<T>(result: Result<T, Problem>, tried: &mut Vec<String>) -> Result<Option<T>, Problem> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(problem) if matches!(problem.trouble, Trouble::Absent | Trouble::Odd) => {
            if tried.len() < 8 && !tried.contains(&problem.why) {
                tried.push(problem.why);
            }
            Ok(None)
        }
        Err(problem) => Err(problem),
    }
}

/// Whether a counter with this step (µJ) tells the energy of three periods to 1 %.
fn fine_enough(step: u64, power: Microwatts, period: Nanos) -> bool {
    let energy = power.for_time(Nanos(period.0.saturating_mul(3)));
    step.saturating_mul(100) <= energy.0
}

/// Which member of PowerControl is the whole machine.
fn whole(controls: &[Node<'_>], uri: &str) -> Result<Option<usize>, Problem> {
    let mut rest = Vec::new();
    for (index, control) in controls.iter().enumerate() {
        let name = control.text("Name")?.unwrap_or_default().to_lowercase();
        let number = !control.at("PowerConsumedWatts")?.is_none();
        if number && !PARTS.iter().any(|part| name.contains(part)) {
            rest.push((index, name));
        }
    }
    let named: Vec<usize> =
        rest.iter().filter(|(_, name)| WHOLE.iter().any(|word| name.contains(word))).map(|(index, _)| *index).collect();
    match (rest.as_slice(), named.as_slice()) {
        ([], _) if controls.is_empty() => Ok(None),
        ([], _) => Err(Problem::absent(format!("{uri}#/PowerControl: no reading of the whole machine"))),
        ([(index, _)], _) | (_, [index]) => Ok(Some(*index)),
        _ => Err(Problem::odd(format!(
            "{uri}#/PowerControl has several members, and none says that it is the whole machine"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(json: &str) -> Result<Option<usize>, Problem> {
        let doc = Doc::parse("/p", json.as_bytes()).unwrap();
        let list = doc.root().list("PowerControl").unwrap();
        whole(&list, "/p")
    }

    #[test]
    fn the_power_of_the_whole_machine_is_picked_and_never_a_part() {
        let lenovo = r#"{"PowerControl": [{"Name": "CPU Sub-system Power", "PowerConsumedWatts": 90}, {"Name": "Memory Sub-system Power",
            "PowerConsumedWatts": 20}, {"Name": "Server Power Control", "PowerConsumedWatts": 300}]}"#;
        assert_eq!(pick(lenovo).unwrap(), Some(2));
        assert_eq!(pick(r#"{"PowerControl": [{"PowerConsumedWatts": 90}]}"#).unwrap(), Some(0));
        assert_eq!(pick("{}").unwrap(), None);
        assert!(
            pick(
                r#"{"PowerControl": [{"Name": "a", "PowerConsumedWatts": 9}, {"Name": "b", "PowerConsumedWatts": 9}]}"#
            )
            .is_err()
        );
        assert!(
            pick(r#"{"PowerControl": [{"Name": "CPU Power", "PowerConsumedWatts": 9}]}"#)
                .unwrap_err()
                .why
                .contains("no reading")
        );
        assert!(pick(r#"{"PowerControl": [{"Name": 5}]}"#).is_err());
    }

    #[test]
    fn a_counter_is_preferred_only_where_it_is_fine_enough() {
        let (power, period) = (Microwatts(350_000_000), Nanos(10 * Nanos::SECOND.0));
        assert!(fine_enough(1_000_000, power, period), "1 J");
        assert!(fine_enough(36_000_000, power, period), "0.00001 kWh");
        assert!(!fine_enough(3_600_000_000, power, period), "1 Wh");
    }
}
