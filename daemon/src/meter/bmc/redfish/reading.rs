//! One reading from the resource that was chosen: what its members mean, and what of them is no reading. Chooses nothing.

use super::doc::{Decimal, Doc, Node};
use super::session::Bmc;
use super::{Problem, clock, cut};
use crate::model::domain::Reading;
use crate::model::source::Stamp;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::sys::date_time;

/// No machine that a BMC meters draws more, in µW.
const MOST_POWER: u64 = 1_000_000_000_000;
/// µJ in a kilowatt-hour.
const KWH: u64 = 3_600_000_000_000;

/// What one of a quantity is in µW or µJ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Power(u64),
    Energy(u64),
}

pub(super) const WATTS: Unit = Unit::Power(1_000_000);
pub(super) const JOULES: Unit = Unit::Energy(1_000_000);
pub(super) const KILOWATT_HOURS: Unit = Unit::Energy(KWH);

/// Where a chassis' power or energy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A Sensor resource.
    Sensor(String),
    /// A member of EnvironmentMetrics.
    Metrics(String, &'static str, Unit),
    /// A member of PowerControl in the older Power resource.
    Control(String, usize),
    /// The inputs of all power supplies in the older Power resource.
    Inputs(String),
    /// The inputs of all power supplies: their Metrics resources.
    Supplies(Vec<String>),
}

/// A reading and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) reading: Reading,
    /// The smallest change that the number can show, in µW or µJ.
    pub(super) step: u64,
    /// When the sensor was read by the BMC's clock, ns since 1970.
    pub(super) time: Option<i128>,
    /// The answer's `Date`.
    pub(super) date: Option<u64>,
    /// When the answer came, CLOCK_MONOTONIC.
    pub(super) answered: Nanos,
    pub(super) accuracy_ppm: Option<u32>,
    /// How often the sensor is read.
    pub(super) refresh: Option<Nanos>,
}

impl Way {
    /// The resource, and the place in it.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Sensor(uri) => format!("{uri}#/Reading"),
            Self::Metrics(uri, key, _) => format!("{uri}#/{key}"),
            Self::Control(uri, index) => format!("{uri}#/PowerControl/{index}"),
            Self::Inputs(uri) => format!("{uri}#/PowerSupplies"),
            Self::Supplies(uris) => uris.first().cloned().unwrap_or_default(),
        }
    }

    /// For people: what is read.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Supplies(uris) => format!("the inputs of {} power supplies ({}, …)", uris.len(), cut(&self.path())),
            Self::Inputs(_) => format!("the inputs of its power supplies ({})", cut(&self.path())),
            _ => cut(&self.path()),
        }
    }

    /// Asks the BMC.
    pub(super) async fn take(&self, bmc: &mut Bmc) -> Result<Taken, Problem> {
        match self {
            Self::Sensor(uri) | Self::Metrics(uri, ..) | Self::Control(uri, _) | Self::Inputs(uri) => {
                let got = bmc.get(uri).await?;
                Ok(Taken { date: got.date, answered: Stamp::now().monotonic, ..self.read(&got.doc)? })
            }
            Self::Supplies(uris) => {
                let (mut sum, mut date) = (Microwatts::ZERO, None);
                for uri in uris {
                    let got = bmc.get(uri).await?;
                    sum += input(&got.doc.root().at("InputPowerWatts")?.at("Reading")?)?;
                    date = got.date;
                }
                Ok(Taken { date, answered: Stamp::now().monotonic, ..gauge(sum, &cut(&self.path()))? })
            }
        }
    }

    /// What a resource says.
    pub(super) fn read(&self, doc: &Doc) -> Result<Taken, Problem> {
        let root = doc.root();
        match self {
            Self::Sensor(_) => sensor(&root),
            Self::Metrics(_, key, unit) => {
                enabled(&root)?;
                let member = root.at(key)?;
                // Its time, where the sensor's is told along.
                Ok(Taken { time: time(&member)?, ..quantity(&member.at("Reading")?, *unit)? })
            }
            Self::Control(_, index) => {
                let list = root.list("PowerControl")?;
                let control = list
                    .get(*index)
                    .ok_or_else(|| Problem::absent(format!("{} has no member {index} any more", root.place())))?;
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
            Self::Supplies(_) => Err(Problem::odd("power supplies are read one by one".into())),
        }
    }
}

/// A Sensor resource: DMTF DSP2046, "Sensor".
fn sensor(root: &Node<'_>) -> Result<Taken, Problem> {
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
            return Err(Problem::odd(format!("{}: a sensor of {kind} in {units}: no power or energy", root.place())));
        }
    };
    let ppm = root.at("Accuracy")?.number()?.and_then(|percent| percent.times(10_000));
    Ok(Taken {
        time: time(root)?,
        accuracy_ppm: ppm.and_then(|ppm| u32::try_from(ppm).ok()).filter(|ppm| (1..=1_000_000).contains(ppm)),
        refresh: root.text("SensingInterval")?.and_then(clock::duration),
        ..quantity(&root.at("Reading")?, unit)?
    })
}

fn time(node: &Node<'_>) -> Result<Option<i128>, Problem> {
    Ok(node.text("ReadingTime")?.and_then(date_time::parse))
}

/// What is there and not in use has no reading, whatever number it shows.
fn enabled(node: &Node<'_>) -> Result<(), Problem> {
    match node.at("Status")?.text("State")? {
        None | Some("Enabled") => Ok(()),
        Some(state) => Err(Problem::absent(format!("{}: no reading: its state is \"{}\"", node.place(), cut(state)))),
    }
}

fn present(node: &Node<'_>) -> Result<Decimal, Problem> {
    node.number()?.ok_or_else(|| Problem::absent(format!("{}: no reading (null or absent)", node.place())))
}

fn quantity(node: &Node<'_>, unit: Unit) -> Result<Taken, Problem> {
    let number = present(node)?;
    match unit {
        Unit::Power(factor) => {
            let power = watts(node, number, factor)?;
            Ok(Taken { step: number.step(factor), ..gauge(power, &node.place())? })
        }
        Unit::Energy(factor) => match number.times(factor) {
            Some(0) => Err(Problem::absent(format!("{}: no reading: the counter is at 0", node.place()))),
            Some(total) => {
                let reading = Reading::Counter { total: Microjoules(total), wraps_at: None };
                Ok(Taken { reading, step: number.step(factor), ..Taken::new() })
            }
            None => Err(Problem::odd(format!("{} is negative or too large for an energy", node.place()))),
        },
    }
}

fn watts(node: &Node<'_>, number: Decimal, factor: u64) -> Result<Microwatts, Problem> {
    match number.times(factor) {
        Some(power) if power <= MOST_POWER => Ok(Microwatts(power)),
        _ => Err(Problem::odd(format!("{} is negative or above 1 MW: not the power of a machine", node.place()))),
    }
}

/// A power supply's input. One of several may draw nothing.
fn input(node: &Node<'_>) -> Result<Microwatts, Problem> {
    watts(node, present(node)?, 1_000_000)
}

fn gauge(power: Microwatts, place: &str) -> Result<Taken, Problem> {
    if power == Microwatts::ZERO {
        return Err(Problem::absent(format!("{place}: no reading: 0 W, while this machine runs")));
    }
    Ok(Taken { reading: Reading::Gauge { power }, step: 1_000_000, ..Taken::new() })
}

impl Taken {
    const fn new() -> Self {
        Self {
            reading: Reading::Standby,
            step: 0,
            time: None,
            date: None,
            answered: Nanos::ZERO,
            accuracy_ppm: None,
            refresh: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::bmc::redfish::Trouble;

    fn read(way: &Way, json: &str) -> Result<Reading, Problem> {
        way.read(&Doc::parse("/m", json.as_bytes()).unwrap()).map(|taken| taken.reading)
    }

    fn power(watts: u64) -> Reading {
        Reading::Gauge { power: Microwatts(watts * 1_000_000) }
    }

    #[test]
    fn what_is_no_reading_is_none() {
        let metrics = Way::Metrics("/m".into(), "PowerWatts", WATTS);
        assert_eq!(read(&metrics, r#"{"PowerWatts": {"Reading": 374}}"#).unwrap(), power(374));
        for (json, trouble, words) in [
            (r#"{"PowerWatts": {"Reading": null}}"#, Trouble::Absent, "null or absent"),
            (r#"{"PowerWatts": null}"#, Trouble::Absent, "null or absent"),
            (r#"{}"#, Trouble::Absent, "null or absent"),
            (r#"{"PowerWatts": {"Reading": 0}}"#, Trouble::Absent, "0 W, while this machine runs"),
            (
                r#"{"Status": {"State": "StandbyOffline"}, "PowerWatts": {"Reading": 5}}"#,
                Trouble::Absent,
                "StandbyOffline",
            ),
            (r#"{"PowerWatts": {"Reading": -3}}"#, Trouble::Odd, "negative"),
            (r#"{"PowerWatts": {"Reading": 1e7}}"#, Trouble::Odd, "above 1 MW"),
            (r#"{"PowerWatts": {"Reading": "374"}}"#, Trouble::Odd, "/m#/PowerWatts/Reading is a text, not a number"),
            (r#"{"PowerWatts": 374}"#, Trouble::Odd, "/m#/PowerWatts is a number, not an object"),
        ] {
            let problem = read(&metrics, json).unwrap_err();
            assert!(problem.trouble == trouble && problem.why.contains(words), "{json}: {problem:?}");
        }
    }

    #[test]
    fn sensors_say_what_they_measure_and_how_well() {
        let sensor = Way::Sensor("/m".into());
        let full = r#"{"ReadingType": "Power", "ReadingUnits": "W", "Reading": 344.5, "ReadingTime": "1970-01-01T00:00:01Z",
            "SensingInterval": "PT10S", "Accuracy": 1.5, "Status": {"State": "Enabled"}}"#;
        let taken = sensor.read(&Doc::parse("/m", full.as_bytes()).unwrap()).unwrap();
        assert_eq!(taken.reading, Reading::Gauge { power: Microwatts(344_500_000) });
        assert_eq!(
            (taken.time, taken.accuracy_ppm, taken.refresh),
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
        let inputs = Way::Inputs("/m".into());
        let json = |second: &str| format!(r#"{{"PowerSupplies": [{{"PowerInputWatts": 150}}, {second}]}}"#);
        assert_eq!(read(&inputs, &json(r#"{"PowerInputWatts": 0}"#)).unwrap(), power(150));
        assert_eq!(read(&inputs, &json(r#"{"Status": {"State": "Absent"}}"#)).unwrap(), power(150));
        assert!(read(&inputs, &json(r#"{"PowerInputWatts": null}"#)).is_err());
        assert!(read(&inputs, "{}").is_err());
    }
}
