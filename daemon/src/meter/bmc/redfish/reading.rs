//! Reads a power or energy from the resource that was chosen (Sensor, EnvironmentMetrics, Power, PowerSubsystem):
//! what its members mean, and which values are no reading. `discover` chooses the resource.

use super::doc::{Decimal, Doc, Node};
use super::session::Bmc;
use super::{BmcError, clock, cut};
use crate::model::domain::Reading;
use crate::model::source::Stamp;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::sys::date_time;

/// Largest power of a machine, in µW: 1 MW.
const MOST_POWER: u64 = 1_000_000_000_000;
/// µJ in a kilowatt-hour.
const KWH: u64 = 3_600_000_000_000;

/// A unit as its factor: one of it in µW or µJ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Power(u64),
    Energy(u64),
}

pub(super) const WATTS: Unit = Unit::Power(1_000_000);
pub(super) const JOULES: Unit = Unit::Energy(1_000_000);
pub(super) const KILOWATT_HOURS: Unit = Unit::Energy(KWH);

/// Where a chassis' power or energy is: a resource, and the place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// A Sensor resource: its URI.
    Sensor(String),
    /// A member of EnvironmentMetrics: URI, key, unit.
    Metrics(String, &'static str, Unit),
    /// A member of PowerControl in the older Power resource: URI and index.
    Control(String, usize),
    /// The sum of all power supplies' inputs in the older Power resource: its URI.
    Inputs(String),
    /// The sum of all power supplies' inputs: the URIs of their Metrics resources.
    Supplies(Vec<String>),
}

/// A reading, and what the BMC says about it.
#[derive(Clone, Debug)]
pub(super) struct Measurement {
    pub(super) reading: Reading,
    /// The smallest change that the number can show, in µW or µJ.
    pub(super) step: u64,
    /// When the BMC read the sensor, by the BMC's clock, ns since 1970.
    pub(super) sensor_time: Option<i128>,
    /// The response's `Date` header, seconds since 1970 by the BMC's clock.
    pub(super) date: Option<u64>,
    /// When the response arrived, CLOCK_MONOTONIC.
    pub(super) received: Nanos,
    /// Stated accuracy, parts per million.
    pub(super) accuracy_ppm: Option<u32>,
    /// Time between two reads of the sensor by the BMC, as stated.
    pub(super) refresh: Option<Nanos>,
}

impl Location {
    /// One of every kind that a single resource can be.
    pub(super) fn every_kind() -> [Self; 6] {
        let uri = || "/redfish/v1/Any".to_owned();
        [
            Self::Sensor(uri()),
            Self::Metrics(uri(), "PowerWatts", WATTS),
            Self::Metrics(uri(), "EnergykWh", KILOWATT_HOURS),
            Self::Metrics(uri(), "EnergyJoules", JOULES),
            Self::Control(uri(), 0),
            Self::Inputs(uri()),
        ]
    }

    /// URI of the resource, with the place in it after `#`.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Sensor(uri) => format!("{uri}#/Reading"),
            Self::Metrics(uri, key, _) => format!("{uri}#/{key}"),
            Self::Control(uri, index) => format!("{uri}#/PowerControl/{index}"),
            Self::Inputs(uri) => format!("{uri}#/PowerSupplies"),
            Self::Supplies(uris) => uris.first().cloned().unwrap_or_default(),
        }
    }

    /// What is read, for the operator.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Supplies(uris) => format!("the inputs of {} power supplies ({}, …)", uris.len(), cut(&self.path())),
            Self::Inputs(_) => format!("the inputs of its power supplies ({})", cut(&self.path())),
            _ => cut(&self.path()),
        }
    }

    /// Reads it from the BMC.
    pub(super) async fn read(&self, bmc: &mut Bmc) -> Result<Measurement, BmcError> {
        match self {
            Self::Sensor(uri) | Self::Metrics(uri, ..) | Self::Control(uri, _) | Self::Inputs(uri) => {
                let got = bmc.get(uri).await?;
                Ok(Measurement { date: got.date, received: Stamp::now().monotonic, ..self.parse(&got.doc)? })
            }
            Self::Supplies(uris) => {
                let (mut sum, mut date) = (Microwatts::ZERO, None);
                for uri in uris {
                    let got = bmc.get(uri).await?;
                    sum += input(&got.doc.root().at("InputPowerWatts")?.at("Reading")?)?;
                    date = got.date;
                }
                Ok(Measurement { date, received: Stamp::now().monotonic, ..gauge(sum, &cut(&self.path()))? })
            }
        }
    }

    /// Reads it from a resource that was fetched.
    pub(super) fn parse(&self, doc: &Doc) -> Result<Measurement, BmcError> {
        let root = doc.root();
        match self {
            Self::Sensor(_) => sensor(&root),
            Self::Metrics(_, key, unit) => {
                enabled(&root)?;
                let member = root.at(key)?;
                // The member may repeat the sensor's ReadingTime.
                Ok(Measurement { sensor_time: time(&member)?, ..quantity(&member.at("Reading")?, *unit)? })
            }
            Self::Control(_, index) => {
                let list = root.list("PowerControl")?;
                let control = list
                    .get(*index)
                    .ok_or_else(|| BmcError::absent(format!("{} has no member {index} any more", root.place())))?;
                enabled(control)?;
                quantity(&control.at("PowerConsumedWatts")?, WATTS)
            }
            Self::Inputs(_) => {
                let mut sum = Microwatts::ZERO;
                for supply in root.list("PowerSupplies")? {
                    if supply.at("Status")?.text("State")? != Some("Absent") {
                        sum += input(&supply.at("PowerInputWatts")?)?;
                    }
                }
                gauge(sum, &cut(&self.path()))
            }
            Self::Supplies(_) => Err(BmcError::unusable("power supplies are read one by one".into())),
        }
    }
}

/// A Sensor resource: DMTF DSP2046, "Sensor".
fn sensor(root: &Node<'_>) -> Result<Measurement, BmcError> {
    enabled(root)?;
    let (kind, units) = (root.text("ReadingType")?, root.text("ReadingUnits")?);
    let unit = match (kind, units) {
        (Some("Power") | None, Some("W")) | (Some("Power"), None) => WATTS,
        (Some("Power"), Some("kW")) => Unit::Power(1_000_000_000),
        (Some("Power"), Some("mW")) => Unit::Power(1_000),
        (Some("EnergyJoules") | None, Some("J")) | (Some("EnergyJoules"), None) => JOULES,
        (Some("EnergyJoules"), Some("kJ")) => Unit::Energy(1_000_000_000),
        (Some("EnergykWh") | None, Some("kW.h" | "kWh")) | (Some("EnergykWh"), None) => KILOWATT_HOURS,
        (Some("EnergyWh"), Some("W.h" | "Wh") | None) => Unit::Energy(KWH / 1000),
        _ => {
            let (kind, units) = (cut(kind.unwrap_or("nothing")), cut(units.unwrap_or("nothing")));
            return Err(BmcError::unusable(format!(
                "{}: a sensor of {kind} in {units}: no power or energy",
                root.place()
            )));
        }
    };
    let ppm = root.at("Accuracy")?.number()?.and_then(|percent| percent.times(10_000));
    Ok(Measurement {
        sensor_time: time(root)?,
        accuracy_ppm: ppm.and_then(|ppm| u32::try_from(ppm).ok()).filter(|ppm| (1..=1_000_000).contains(ppm)),
        refresh: root.text("SensingInterval")?.and_then(clock::duration),
        ..quantity(&root.at("Reading")?, unit)?
    })
}

fn time(node: &Node<'_>) -> Result<Option<i128>, BmcError> {
    Ok(node.text("ReadingTime")?.and_then(date_time::parse))
}

/// Refuses a resource that is present but not in use, whatever number it shows.
fn enabled(node: &Node<'_>) -> Result<(), BmcError> {
    match node.at("Status")?.text("State")? {
        None | Some("Enabled") => Ok(()),
        Some(state) => Err(BmcError::absent(format!("{}: no reading: its state is \"{}\"", node.place(), cut(state)))),
    }
}

fn present(node: &Node<'_>) -> Result<Decimal, BmcError> {
    node.number()?.ok_or_else(|| BmcError::absent(format!("{}: no reading (null or absent)", node.place())))
}

fn quantity(node: &Node<'_>, unit: Unit) -> Result<Measurement, BmcError> {
    let number = present(node)?;
    match unit {
        Unit::Power(factor) => {
            let power = watts(node, number, factor)?;
            Ok(Measurement { step: number.step(factor), ..gauge(power, &node.place())? })
        }
        Unit::Energy(factor) => match number.times(factor) {
            Some(0) => Err(BmcError::absent(format!("{}: no reading: the counter is at 0", node.place()))),
            Some(total) => {
                let reading = Reading::Counter { total: Microjoules(total), wraps_at: None };
                Ok(Measurement { reading, step: number.step(factor), ..Measurement::new() })
            }
            None => Err(BmcError::unusable(format!("{} is negative or too large for an energy", node.place()))),
        },
    }
}

fn watts(node: &Node<'_>, number: Decimal, factor: u64) -> Result<Microwatts, BmcError> {
    match number.times(factor) {
        Some(power) if power <= MOST_POWER => Ok(Microwatts(power)),
        _ => Err(BmcError::unusable(format!("{} is negative or above 1 MW: not the power of a machine", node.place()))),
    }
}

/// A power supply's input. Zero is a reading, as one of several supplies may draw nothing.
fn input(node: &Node<'_>) -> Result<Microwatts, BmcError> {
    watts(node, present(node)?, 1_000_000)
}

fn gauge(power: Microwatts, place: &str) -> Result<Measurement, BmcError> {
    if power == Microwatts::ZERO {
        return Err(BmcError::absent(format!("{place}: no reading: 0 W, while this machine runs")));
    }
    Ok(Measurement { reading: Reading::Gauge { power }, step: 1_000_000, ..Measurement::new() })
}

impl Measurement {
    const fn new() -> Self {
        Self {
            reading: Reading::Standby,
            step: 0,
            sensor_time: None,
            date: None,
            received: Nanos::ZERO,
            accuracy_ppm: None,
            refresh: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::bmc::redfish::ErrorKind;

    fn read(location: &Location, json: &str) -> Result<Reading, BmcError> {
        location.parse(&Doc::parse("/m", json.as_bytes()).unwrap()).map(|measurement| measurement.reading)
    }

    fn power(watts: u64) -> Reading {
        Reading::Gauge { power: Microwatts(watts * 1_000_000) }
    }

    #[test]
    fn what_is_no_reading_is_none() {
        let metrics = Location::Metrics("/m".into(), "PowerWatts", WATTS);
        assert_eq!(read(&metrics, r#"{"PowerWatts": {"Reading": 374}}"#).unwrap(), power(374));
        for (json, kind, words) in [
            (r#"{"PowerWatts": {"Reading": null}}"#, ErrorKind::Absent, "null or absent"),
            (r#"{"PowerWatts": null}"#, ErrorKind::Absent, "null or absent"),
            (r#"{}"#, ErrorKind::Absent, "null or absent"),
            (r#"{"PowerWatts": {"Reading": 0}}"#, ErrorKind::Absent, "0 W, while this machine runs"),
            (
                r#"{"Status": {"State": "StandbyOffline"}, "PowerWatts": {"Reading": 5}}"#,
                ErrorKind::Absent,
                "StandbyOffline",
            ),
            (r#"{"PowerWatts": {"Reading": -3}}"#, ErrorKind::Unusable, "negative"),
            (r#"{"PowerWatts": {"Reading": 1e7}}"#, ErrorKind::Unusable, "above 1 MW"),
            (
                r#"{"PowerWatts": {"Reading": "374"}}"#,
                ErrorKind::Unusable,
                "/m#/PowerWatts/Reading is a text, not a number",
            ),
            (r#"{"PowerWatts": 374}"#, ErrorKind::Unusable, "/m#/PowerWatts is a number, not an object"),
        ] {
            let error = read(&metrics, json).unwrap_err();
            assert!(error.kind == kind && error.why.contains(words), "{json}: {error:?}");
        }
    }

    #[test]
    fn sensors_say_what_they_measure_and_how_well() {
        let sensor = Location::Sensor("/m".into());
        let full = r#"{"ReadingType": "Power", "ReadingUnits": "W", "Reading": 344.5, "ReadingTime": "1970-01-01T00:00:01Z",
            "SensingInterval": "PT10S", "Accuracy": 1.5, "Status": {"State": "Enabled"}}"#;
        let measurement = sensor.parse(&Doc::parse("/m", full.as_bytes()).unwrap()).unwrap();
        assert_eq!(measurement.reading, Reading::Gauge { power: Microwatts(344_500_000) });
        assert_eq!(
            (measurement.sensor_time, measurement.accuracy_ppm, measurement.refresh),
            (Some(1_000_000_000), Some(15_000), Some(Nanos(10_000_000_000)))
        );
        let counter = |total| Reading::Counter { total: Microjoules(total), wraps_at: None };
        let energy = |kind: &str, units: &str| {
            read(&sensor, &format!(r#"{{"ReadingType": "{kind}", "ReadingUnits": "{units}", "Reading": 1.5}}"#))
        };
        assert_eq!(energy("EnergykWh", "kW.h").unwrap(), counter(5_400_000_000_000));
        assert_eq!(energy("EnergyJoules", "J").unwrap(), counter(1_500_000));
        assert_eq!(energy("EnergyWh", "W.h").unwrap(), counter(5_400_000_000));
        assert_eq!(energy("Power", "kW").unwrap(), power(1500));
        assert!(energy("Temperature", "Cel").unwrap_err().why.contains("no power or energy"));
        assert!(energy("Power", "Cel").is_err());
    }

    #[test]
    fn supplies_are_summed_only_where_each_has_a_reading() {
        let inputs = Location::Inputs("/m".into());
        let json = |second: &str| format!(r#"{{"PowerSupplies": [{{"PowerInputWatts": 150}}, {second}]}}"#);
        assert_eq!(read(&inputs, &json(r#"{"PowerInputWatts": 0}"#)).unwrap(), power(150));
        assert_eq!(read(&inputs, &json(r#"{"Status": {"State": "Absent"}}"#)).unwrap(), power(150));
        assert!(read(&inputs, &json(r#"{"PowerInputWatts": null}"#)).is_err());
        assert!(read(&inputs, "{}").is_err());
    }
}
