//! What is asked of a BMC: found out once a connection, then one reading at a time. Not how it is reached, nor when.

use super::code::{cc, passes, unknown};
use super::dcmi::{self, PowerReading, Stamps};
use super::link::{Ask, Link, Trouble};
use super::repository;
use super::sdr::{Choice, Sensor, choose};
use crate::model::source::Stamp;
use crate::model::units::Microwatts;
use std::time::{Duration, Instant};

/// Opens a way to the BMC. `Ok(None)`: there is none here (now).
pub type Connect = Box<dyn FnMut() -> Result<Option<Box<dyn Link>>, String> + Send>;

/// Network function Sensor/Event.
const SENSOR: u8 = 0x04;
/// Get Sensor Reading.
const READING: u8 = 0x2D;
/// A BMC that tells no power is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// A session that was silent for longer may have ended by the BMC's time limit (60 s in IPMI 2.0, less on some).
const MAY_HAVE_ENDED: Duration = Duration::from_secs(20);
/// A BMC that is busy is asked again once after this.
const BUSY: Duration = Duration::from_millis(250);

/// A reading.
#[derive(Debug, PartialEq, Eq)]
pub struct Power {
    /// The power.
    pub power: Microwatts,
    /// What is not in it.
    pub missing: Option<String>,
}

/// Why there is no reading.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// In words.
    pub why: String,
    /// Whether it may go by itself.
    pub passes: bool,
}

/// How this BMC tells the power.
enum Plan {
    /// DCMI Get Power Reading.
    Dcmi,
    /// A sensor of the whole machine.
    Whole(Sensor),
    /// Sensors of the power supplies' inputs, and whether each has had a reading.
    Inputs(Vec<(Sensor, bool)>),
    /// It does not, as was found then.
    Nothing(String, Instant),
}

/// A BMC.
pub struct Bmc {
    connect: Connect,
    lan: bool,
    link: Option<Box<dyn Link>>,
    plan: Option<Plan>,
    stamps: Stamps,
    answered: Option<Instant>,
}

impl Bmc {
    /// One that was not asked yet. `lan`: by a session that can end.
    pub const fn new(connect: Connect, lan: bool) -> Self {
        let stamps = Stamps::new();
        Self { connect, lan, link: None, plan: None, stamps, answered: None }
    }

    /// Connects and finds out how it tells the power, where that is not known. `false`: it is not here.
    ///
    /// # Errors
    /// It is here and cannot be asked.
    pub fn ready(&mut self) -> Result<bool, String> {
        if self.link.is_none() {
            let Some(link) = (self.connect)()? else { return Ok(false) };
            (self.link, self.plan, self.stamps) = (Some(link), None, Stamps::new());
        }
        if matches!(&self.plan, Some(Plan::Nothing(_, at)) if at.elapsed() > LOOK_AGAIN) {
            self.plan = None;
        }
        if self.plan.is_none()
            && let Some(link) = &mut self.link
        {
            match plan(link.as_mut()) {
                Ok(plan) => self.plan = Some(plan),
                Err(trouble) => {
                    self.after(&trouble);
                    return Err(self.words(&trouble));
                }
            }
        }
        Ok(true)
    }

    /// Why it tells no power, where it is known not to.
    pub fn nothing(&self) -> Option<String> {
        match &self.plan {
            Some(Plan::Nothing(why, _)) => Some(why.clone()),
            _ => None,
        }
    }

    /// The power now.
    ///
    /// # Errors
    /// There is no reading, and why.
    pub fn power(&mut self) -> Result<Power, Problem> {
        let idle = self.answered.is_some_and(|at| at.elapsed() > MAY_HAVE_ENDED);
        match self.ask() {
            // One that has ended is no fault of anybody's.
            Err(Failure::Link(_)) if self.lan && idle && self.link.is_none() && self.ready() == Ok(true) => self.ask(),
            other => other,
        }
        .map_err(|failure| match failure {
            Failure::Link(trouble) => {
                Problem { passes: matches!(trouble, Trouble::Refused(code) if passes(code)), why: self.words(&trouble) }
            }
            Failure::Value(why) => Problem { why, passes: true },
        })
    }

    fn ask(&mut self) -> Result<Power, Failure> {
        let (Some(link), Some(plan)) = (&mut self.link, &mut self.plan) else {
            return Err(Failure::Link(Trouble::Broken("not connected".into())));
        };
        let result = match plan {
            Plan::Dcmi => power_reading(link.as_mut(), &mut self.stamps),
            Plan::Whole(sensor) => {
                sensor_reading(link.as_mut(), sensor).and_then(|reading| whole(reading.map_err(Failure::Value)?))
            }
            Plan::Inputs(sensors) => inputs(link.as_mut(), sensors),
            Plan::Nothing(why, _) => Err(Failure::Value(why.clone())),
        };
        match &result {
            Err(Failure::Link(trouble)) => self.after(&trouble.clone()),
            Ok(_) | Err(Failure::Value(_)) => self.answered = Some(Instant::now()),
        }
        result
    }

    /// How the power is told, for people.
    pub fn detail(&self) -> String {
        match &self.plan {
            Some(Plan::Dcmi) => "DCMI power reading".into(),
            Some(Plan::Whole(sensor)) => format!("sensor {}, in steps of {} W,", sensor.shown(), sensor.step().watts()),
            Some(Plan::Inputs(sensors)) => {
                let names: Vec<String> = sensors.iter().map(|(sensor, _)| sensor.shown()).collect();
                let step: Microwatts = sensors.iter().map(|(sensor, _)| sensor.step()).sum();
                format!("sum of sensors {}, in steps of {} W,", names.join(" + "), step.watts())
            }
            Some(Plan::Nothing(..)) | None => "nothing".into(),
        }
    }

    /// A connection that failed is not used again: its late answers go with it.
    fn after(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Silent(_) if self.lan => {}
            Trouble::Silent(_) | Trouble::Broken(_) => self.link = None,
            Trouble::Refused(_) | Trouble::Wrong(_) => self.answered = Some(Instant::now()),
        }
    }

    fn words(&self, trouble: &Trouble) -> String {
        match trouble {
            Trouble::Refused(cc::PRIVILEGE) if self.lan => {
                format!("{trouble}: give [[meter.ipmi.lan]] a higher privilege (\"operator\", \"administrator\")")
            }
            other => other.to_string(),
        }
    }
}

/// Why a reading failed.
enum Failure {
    /// No answer, or a refusal.
    Link(Trouble),
    /// An answer without a power in it.
    Value(String),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::Link(trouble)
    }
}

fn plan(link: &mut dyn Link) -> Result<Plan, Trouble> {
    let without = match ask(link, &dcmi::ask_capabilities()) {
        Ok(data) if !dcmi::manages_power(&data).map_err(Trouble::Wrong)? => Some("DCMI without power management"),
        // Some have the reading and not the capabilities.
        Ok(_) | Err(Trouble::Refused(_)) => match ask(link, &dcmi::ask_power()) {
            Err(Trouble::Refused(code)) if unknown(code) => Some("no DCMI power reading"),
            Ok(_) | Err(Trouble::Refused(_)) => None,
            Err(trouble) => return Err(trouble),
        },
        Err(trouble) => return Err(trouble),
    };
    let Some(without) = without else { return Ok(Plan::Dcmi) };
    let nothing = |why: String| Plan::Nothing(format!("the BMC has {without}, and {why}"), Instant::now());
    let sensors = match repository::sensors_in_watts(link) {
        Ok(sensors) => sensors,
        Err(trouble @ Trouble::Refused(code)) if !passes(code) => return Ok(nothing(repository::words_for(&trouble))),
        Err(trouble) => return Err(trouble),
    };
    Ok(match choose(&sensors) {
        Some(Choice::Whole(sensor)) => Plan::Whole(sensor),
        Some(Choice::Inputs(sensors)) => Plan::Inputs(sensors.into_iter().map(|sensor| (sensor, false)).collect()),
        None if sensors.is_empty() => nothing("no sensor in watts".into()),
        None => {
            let names: Vec<String> = sensors.iter().take(8).map(Sensor::shown).collect();
            nothing(format!(
                "no sensor in watts that is known to be of the whole machine (it has {})",
                names.join(", ")
            ))
        }
    })
}

/// Asks; a BMC that is busy, once more.
fn ask(link: &mut dyn Link, question: &Ask) -> Result<Vec<u8>, Trouble> {
    match link.ask(question) {
        Err(Trouble::Refused(cc::BUSY)) => {
            std::thread::sleep(BUSY);
            link.ask(question)
        }
        other => other,
    }
}

fn power_reading(link: &mut dyn Link, stamps: &mut Stamps) -> Result<Power, Failure> {
    let data = ask(link, &dcmi::ask_power())?;
    let reading = PowerReading::parse(&data).map_err(Trouble::Wrong)?;
    let power = reading.power().map_err(Failure::Value)?;
    stamps.take(reading.clock, Stamp::now().monotonic).map_err(Failure::Value)?;
    Ok(Power { power, missing: None })
}

fn sensor_reading(link: &mut dyn Link, sensor: &Sensor) -> Result<Result<Microwatts, String>, Failure> {
    match ask(link, &Ask { lun: sensor.lun, ..Ask::new(SENSOR, READING, &[sensor.number]) }) {
        Ok(data) => Ok(sensor.power(&data)),
        // That sensor's own refusal.
        Err(Trouble::Refused(cc::NOT_PRESENT)) => Ok(Err(format!("{}: no such sensor any more", sensor.shown()))),
        Err(trouble) => Err(trouble.into()),
    }
}

fn whole(power: Microwatts) -> Result<Power, Failure> {
    match power {
        Microwatts(0) => Err(Failure::Value("0 W, which is no reading of a machine that runs".into())),
        power => Ok(Power { power, missing: None }),
    }
}

/// The sum of what the supplies take in. A slot without a supply has no reading from the first time on, and is left out; where a supply
/// that had one has none, there is no sum until the next time, when it may have been taken out.
fn inputs(link: &mut dyn Link, sensors: &mut [(Sensor, bool)]) -> Result<Power, Failure> {
    let (mut sum, mut missing, mut lost) = (Microwatts::ZERO, Vec::new(), None);
    for (sensor, had) in sensors {
        match sensor_reading(link, sensor)? {
            Ok(power) => (sum, *had) = (sum + power, true),
            Err(why) if std::mem::replace(had, false) => lost = Some(why),
            Err(why) => missing.push(why),
        }
    }
    if let Some(why) = lost.or_else(|| (sum == Microwatts::ZERO).then(|| missing.first().cloned()).flatten()) {
        return Err(Failure::Value(why));
    }
    let missing = (!missing.is_empty()).then(|| format!("{}: not in the sum", missing.join("; ")));
    whole(sum).map(|power| Power { missing, ..power })
}
