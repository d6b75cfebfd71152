//! Searches a BMC, from its service root, for the resources that give this machine's power: follows links, reads all
//! pages of collections, tries the possible places in order. Which chassis are this machine's is found in `linked`. The
//! reading itself is in `reading`.

use super::chassis::last_segment;
use super::doc::{Doc, Node};
use super::reading::{JOULES, KILOWATT_HOURS, Location, Measurement, WATTS};
use super::session::{Bmc, ROOT};
use super::{BmcError, ErrorKind, cut};
use crate::model::domain::Reading;
use crate::model::units::{Microwatts, Nanos};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most pages of one collection.
const PAGES: usize = 64;
/// Most members of one collection; an NVIDIA HGX has some 50 chassis.
const MEMBERS: usize = 256;
/// Words in the name of a PowerControl member that covers only a part of the machine.
const PARTS: [&str; 10] =
    ["cpu", "processor", "memory", "dimm", "gpu", "accelerator", "fan", "storage", "drive", "pci"];
/// Words in the name of one that covers the whole machine.
const WHOLE: [&str; 5] = ["system", "server", "chassis", "total", "platform"];

/// Resources read so far, by URI: a search of a slow BMC takes several rounds, and requests nothing twice.
pub(super) type Cache = BTreeMap<String, Arc<Doc>>;

/// A chassis, and where its power or energy is.
#[derive(Clone, Debug)]
pub(super) struct FoundChassis {
    pub(super) id: String,
    pub(super) location: Location,
    /// The measurement that the search got there.
    pub(super) first: Measurement,
}

/// A search.
pub(super) struct Search<'a> {
    pub(super) bmc: &'a mut Bmc,
    pub(super) cache: &'a mut Cache,
    /// Configured ids or URIs of chassis. Empty: the chassis of this machine's system.
    pub(super) chassis: &'a [String],
    pub(super) uuid: Option<[u8; 16]>,
    pub(super) period: Nanos,
    /// What the search left out, and why.
    pub(super) left_out: Vec<BmcError>,
}

impl Search<'_> {
    /// The chassis of this machine and where to read each, and for the operator, why they are this machine's.
    pub(super) async fn run(&mut self) -> Result<(Vec<FoundChassis>, String), BmcError> {
        if self.chassis.is_empty() {
            return match self.linked_chassis().await {
                Ok((found, why)) => Ok((vec![found], why)),
                Err(error) => Err(self.with_way_out(error).await),
            };
        }
        let mut found = Vec::new();
        for uri in self.configured_chassis().await? {
            found.push(self.best_location(&uri).await?);
        }
        Ok((found, "as configured".into()))
    }

    pub(super) async fn doc(&mut self, uri: &str) -> Result<Arc<Doc>, BmcError> {
        if let Some(doc) = self.cache.get(uri) {
            return Ok(Arc::clone(doc));
        }
        let doc = Arc::new(self.bmc.get(uri).await?.doc);
        self.cache.insert(uri.to_owned(), Arc::clone(&doc));
        Ok(doc)
    }

    /// The members of a collection, over all of its pages.
    async fn members(&mut self, collection: &str) -> Result<Vec<String>, BmcError> {
        let mut left_out = Vec::new();
        let members = self.good_members(collection, &mut left_out).await?;
        left_out.pop().map_or(Ok(members), Err)
    }

    /// The members of a collection, over all of its pages. Members that are no links, and pages after the first that
    /// cannot be read, are left out, and `left_out` gets the reasons.
    async fn good_members(&mut self, collection: &str, left_out: &mut Vec<BmcError>) -> Result<Vec<String>, BmcError> {
        let (mut page, mut seen, mut members) = (collection.to_owned(), BTreeSet::new(), Vec::new());
        loop {
            if !seen.insert(page.clone()) {
                return Err(BmcError::unusable(format!(
                    "the pages of {} go round in a circle: set chassis to a URI",
                    cut(collection)
                )));
            }
            let doc = match self.doc(&page).await {
                Err(error) if error.is_of_one_resource() && seen.len() > 1 => {
                    left_out.push(error);
                    return Ok(members);
                }
                doc => doc?,
            };
            // A list that is none is no collection.
            doc.root().list("Members")?;
            members.extend(doc.root().links("Members", left_out));
            if seen.len() > PAGES || members.len() > MEMBERS {
                return Err(BmcError::unusable(format!(
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

    /// The members of a collection in the service root, as [`Search::good_members`].
    pub(super) async fn collection(
        &mut self,
        key: &str,
        left_out: &mut Vec<BmcError>,
    ) -> Result<Vec<String>, BmcError> {
        let root = self.doc(ROOT).await?;
        match root.root().link(key)? {
            Some(uri) => self.good_members(&uri, left_out).await,
            None => Ok(Vec::new()),
        }
    }

    async fn configured_chassis(&mut self) -> Result<Vec<String>, BmcError> {
        let (mut chosen, mut known): (Vec<String>, Option<Vec<String>>) = (Vec::new(), None);
        for name in self.chassis {
            if name.starts_with('/') {
                chosen.push(name.clone());
                continue;
            }
            let members = match &known {
                Some(members) => members.clone(),
                None => self.collection("Chassis", &mut Vec::new()).await?,
            };
            let last = |uri: &&String| last_segment(uri) == name.as_str();
            let uri = members.iter().find(last).cloned();
            known = Some(members);
            chosen.push(uri.ok_or_else(|| {
                BmcError::unusable(format!("the BMC has no chassis {name:?} (chassis in the configuration)"))
            })?);
        }
        Ok(chosen)
    }

    /// Where to read a chassis: its energy where the counter is fine enough, else its power.
    pub(super) async fn best_location(&mut self, uri: &str) -> Result<FoundChassis, BmcError> {
        let doc = self.doc(uri).await?;
        let mut tried = Tried::default();
        let id = or_next(doc.root().text("Id"), &mut tried)?.flatten().unwrap_or(last_segment(uri)).to_owned();
        let (mut power, energy) = self.environment(&doc.root(), &mut tried).await?;
        if power.is_none() {
            power = self.power_resource(&doc.root(), &mut tried).await?;
        }
        if power.is_none() {
            power = self.supplies(&doc.root(), &mut tried).await?;
        }
        let fine = |measurement: &Measurement| match power.as_ref().map(|(_, measurement)| measurement.reading) {
            Some(Reading::Gauge { power }) => fine_enough(measurement.step, power, self.period),
            // Without a power, a coarse counter is still right in the long run.
            _ => true,
        };
        let best = energy.filter(|(_, measurement)| fine(measurement)).or(power);
        let Some((location, first)) = best else {
            let why = if tried.whys.is_empty() {
                "it has no EnvironmentMetrics, Power or PowerSubsystem".to_owned()
            } else {
                tried.whys.join("; ")
            };
            let kind = tried.refused.map_or(ErrorKind::Absent, ErrorKind::Refused);
            return Err(BmcError { kind, why: format!("{} gives no power: {why}", cut(uri)) });
        };
        Ok(FoundChassis { id, location, first })
    }

    async fn environment(
        &mut self,
        chassis: &Node<'_>,
        tried: &mut Tried,
    ) -> Result<(Option<(Location, Measurement)>, Option<(Location, Measurement)>), BmcError> {
        let Some(uri) = or_next(chassis.link("EnvironmentMetrics"), tried)?.flatten() else { return Ok((None, None)) };
        let Some(doc) = or_next(self.doc(&uri).await, tried)? else { return Ok((None, None)) };
        let best = |one: &mut Option<(Location, Measurement)>, other| {
            if one.is_none() {
                *one = other;
            }
        };
        let (mut power, mut energy) = (None, None);
        for (key, unit) in [("PowerWatts", WATTS), ("EnergyJoules", JOULES), ("EnergykWh", KILOWATT_HOURS)] {
            let Some(member) = or_next(doc.root().at(key), tried)?.filter(|member| !member.is_none()) else { continue };
            let sensor = or_next(member.text("DataSourceUri"), tried)?.flatten().filter(|source| !source.contains('#'));
            let sensor = sensor.and_then(|source| member.path_of(source).ok()).map(Location::Sensor);
            let excerpt = Location::Metrics(uri.clone(), key, unit);
            for location in sensor.into_iter().chain([excerpt]) {
                if let Some(measurement) = or_next(location.read(self.bmc).await, tried)? {
                    let kept =
                        if matches!(measurement.reading, Reading::Gauge { .. }) { &mut power } else { &mut energy };
                    best(kept, Some((location, measurement)));
                    break;
                }
            }
        }
        if tried.whys.is_empty() && power.is_none() && energy.is_none() {
            tried.add(format!("{} has no PowerWatts, EnergyJoules or EnergykWh", cut(&uri)));
        }
        Ok((power, energy))
    }

    /// The Power resource: deprecated since Redfish 2020.4, and still what most BMCs have.
    async fn power_resource(
        &mut self,
        chassis: &Node<'_>,
        tried: &mut Tried,
    ) -> Result<Option<(Location, Measurement)>, BmcError> {
        let Some(uri) = or_next(chassis.link("Power"), tried)?.flatten() else { return Ok(None) };
        let Some(doc) = or_next(self.doc(&uri).await, tried)? else { return Ok(None) };
        let controls = or_next(doc.root().list("PowerControl"), tried)?.unwrap_or_default();
        if let Some(index) = or_next(whole_machine(&controls, &cut(&uri)), tried)?.flatten() {
            let location = Location::Control(uri.clone(), index);
            if let Some(measurement) = or_next(location.read(self.bmc).await, tried)? {
                return Ok(Some((location, measurement)));
            }
        }
        if doc.root().at("PowerSupplies").is_ok_and(|supplies| !supplies.is_none()) {
            let location = Location::Inputs(uri.clone());
            if let Some(measurement) = or_next(location.read(self.bmc).await, tried)? {
                return Ok(Some((location, measurement)));
            }
        }
        if controls.is_empty() {
            tried.add(format!("{} has no PowerControl, and no input of its power supplies", cut(&uri)));
        }
        Ok(None)
    }

    /// The inputs of the power supplies in PowerSubsystem. Never their outputs, which lack the supplies' own losses.
    async fn supplies(
        &mut self,
        chassis: &Node<'_>,
        tried: &mut Tried,
    ) -> Result<Option<(Location, Measurement)>, BmcError> {
        let Some(uri) = or_next(chassis.link("PowerSubsystem"), tried)?.flatten() else { return Ok(None) };
        let Some(doc) = or_next(self.doc(&uri).await, tried)? else { return Ok(None) };
        let Some(supplies) = or_next(doc.root().link("PowerSupplies"), tried)?.flatten() else {
            tried.add(format!("{} has no PowerSupplies", cut(&uri)));
            return Ok(None);
        };
        let Some(members) = or_next(self.members(&supplies).await, tried)? else { return Ok(None) };
        let mut metrics = Vec::new();
        for member in members {
            let Some(doc) = or_next(self.doc(&member).await, tried)? else { return Ok(None) };
            let state = or_next(doc.root().at("Status").and_then(|status| status.text("State")), tried)?.flatten();
            if state == Some("Absent") {
                continue;
            }
            let Some(uri) = or_next(doc.root().link("Metrics"), tried)?.flatten() else {
                // A sum without this supply would be too low.
                tried.add(format!("{} has no Metrics", cut(&member)));
                return Ok(None);
            };
            // A standby supply counts if it has a number for its input.
            if state.is_none_or(|state| state == "Enabled") || self.has_input(&uri).await? {
                metrics.push(uri);
            }
        }
        if metrics.is_empty() {
            tried.add(format!("{} has no power supply in use", cut(&supplies)));
            return Ok(None);
        }
        let location = Location::Supplies(metrics);
        Ok(or_next(location.read(self.bmc).await, tried)?.map(|measurement| (location, measurement)))
    }
}

impl Search<'_> {
    /// Whether a power supply's metrics have a number for its input.
    async fn has_input(&mut self, metrics: &str) -> Result<bool, BmcError> {
        let Some(doc) = or_next(self.doc(metrics).await, &mut Tried::default())? else { return Ok(false) };
        let reading = doc.root().at("InputPowerWatts").and_then(|input| input.at("Reading"));
        Ok(reading.is_ok_and(|reading| !reading.is_none()))
    }
}

/// Places without a power, for the message if none is found.
#[derive(Default)]
struct Tried {
    whys: Vec<String>,
    /// The last status by which the BMC refused one of them.
    refused: Option<u16>,
}

impl Tried {
    fn add(&mut self, why: String) {
        if self.whys.len() < 8 && !self.whys.contains(&why) {
            self.whys.push(why);
        }
    }
}

/// A failure of one resource goes into `tried`, and the search goes on. A failure of the BMC as a whole ends the
/// search.
fn or_next<T>(result: Result<T, BmcError>, tried: &mut Tried) -> Result<Option<T>, BmcError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_of_one_resource() => {
            if let ErrorKind::Refused(code) = error.kind {
                tried.refused = Some(code);
            }
            tried.add(error.why);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether a counter with this step (µJ) gives the energy of three periods to 1 %.
fn fine_enough(step: u64, power: Microwatts, period: Nanos) -> bool {
    let energy = power.for_time(Nanos(period.0.saturating_mul(3)));
    step.saturating_mul(100) <= energy.0
}

/// The index of the PowerControl member that covers the whole machine.
fn whole_machine(controls: &[Node<'_>], uri: &str) -> Result<Option<usize>, BmcError> {
    let mut rest = Vec::new();
    for (index, control) in controls.iter().enumerate() {
        // An odd member is none that could be taken.
        let name = control.text("Name").ok().flatten().unwrap_or_default().to_lowercase();
        let number = control.at("PowerConsumedWatts").is_ok_and(|watts| !watts.is_none());
        if number && !PARTS.iter().any(|part| name.contains(part)) {
            rest.push((index, name));
        }
    }
    let named: Vec<usize> =
        rest.iter().filter(|(_, name)| WHOLE.iter().any(|word| name.contains(word))).map(|(index, _)| *index).collect();
    match (rest.as_slice(), named.as_slice()) {
        ([], _) if controls.is_empty() => Ok(None),
        ([], _) => Err(BmcError::absent(format!("{uri}#/PowerControl: no reading of the whole machine"))),
        ([(index, _)], _) | (_, [index]) => Ok(Some(*index)),
        _ => Err(BmcError::unusable(format!(
            "{uri}#/PowerControl has several members, and none says that it is the whole machine"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(json: &str) -> Result<Option<usize>, BmcError> {
        let doc = Doc::parse("/p", json.as_bytes()).unwrap();
        let list = doc.root().list("PowerControl").unwrap();
        whole_machine(&list, "/p")
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
