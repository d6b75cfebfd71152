//! Reads a BMC's power: finds out once for each connection which way it offers (DCMI, a sensor, supplies' inputs),
//! then reads. Neither the transport (`link`, `lan`) nor the schedule (`polled`).

use super::code::{cc, passes, unknown};
use super::dcmi::{self, Movement, PowerReading, TimestampCheck};
use super::link::{Command, Link, LinkError};
use super::repository;
use super::sdr::{Choice, Sensor, choose};
use crate::model::source::Stamp;
use crate::model::units::Microwatts;
use std::time::{Duration, Instant};

/// Connects to the BMC. `Ok(None)`: there is none, or none now.
pub type Connect = Box<dyn FnMut() -> Result<Option<Box<dyn Link>>, String> + Send>;

/// Network function Sensor/Event.
const SENSOR: u8 = 0x04;
/// Get Sensor Reading.
const READING: u8 = 0x2D;
/// Time until a BMC without a power reading is examined again.
const EXAMINE_AGAIN: Duration = Duration::from_secs(600);
/// Failures of DCMI in a row after which sensors are tried: where the answer says that it will stay so, once DCMI has
/// worked; and where it may pass. A DCMI that has never worked is not waited for.
const FAILURES: (u32, u32) = (3, 6);
/// After this time without a request the BMC may have ended the session: 60 s in IPMI 2.0, less on some BMCs.
const MAY_HAVE_ENDED: Duration = Duration::from_secs(20);
/// Pause before the one repetition of a command that a busy BMC refused.
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// A reading.
#[derive(Debug, PartialEq, Eq)]
pub struct Power {
    /// The power.
    pub power: Microwatts,
    /// Which supplies the sum lacks, for the operator.
    pub missing: Option<String>,
}

/// Why there is no reading.
#[derive(Debug, PartialEq, Eq)]
pub struct PowerError {
    /// One line for the operator.
    pub why: String,
    /// Whether it is likely to pass without intervention.
    pub passes: bool,
}

/// Where this BMC's power is.
enum Plan {
    /// DCMI Get Power Reading.
    Dcmi,
    /// A sensor of the whole machine.
    Whole(Sensor),
    /// Sensors of the power supplies' inputs, and whether each has had a reading.
    Inputs(Vec<(Sensor, bool)>),
    /// Nowhere: why, and when that was found.
    Nothing(String, Instant),
}

/// What is known of a BMC's DCMI power reading.
#[derive(Default)]
struct Dcmi {
    timestamps: TimestampCheck,
    movement: Movement,
    worked: bool,
    /// Failures in a row.
    failures: u32,
    /// When sensors were last looked for in its place.
    searched: Option<Instant>,
    /// Why a sensor is read in its place.
    replaced: Option<String>,
}

/// A BMC.
pub struct Bmc {
    connect: Connect,
    lan: bool,
    link: Option<Box<dyn Link>>,
    plan: Option<Plan>,
    dcmi: Dcmi,
    answered: Option<Instant>,
}

impl Bmc {
    /// Not connected yet. `lan`: over a session, which can end.
    pub fn new(connect: Connect, lan: bool) -> Self {
        Self { connect, lan, link: None, plan: None, dcmi: Dcmi::default(), answered: None }
    }

    /// Connects and finds out where the power is, unless that is known. `false`: there is no BMC.
    ///
    /// # Errors
    /// There is a BMC, and it does not answer.
    pub fn ready(&mut self) -> Result<bool, String> {
        if self.link.is_none() {
            let Some(link) = (self.connect)()? else { return Ok(false) };
            (self.link, self.plan, self.dcmi) = (Some(link), None, Dcmi::default());
        }
        if matches!(&self.plan, Some(Plan::Nothing(_, at)) if at.elapsed() > EXAMINE_AGAIN) {
            self.plan = None;
        }
        if self.plan.is_none()
            && let Some(link) = &mut self.link
        {
            match plan(link.as_mut()) {
                Ok(plan) => self.plan = Some(plan),
                Err(error) => {
                    self.command_failed(&error);
                    return Err(self.words(&error));
                }
            }
        }
        Ok(true)
    }

    /// Why it has no power reading, where it is known to have none.
    pub fn nothing(&self) -> Option<String> {
        match &self.plan {
            Some(Plan::Nothing(why, _)) => Some(why.clone()),
            _ => None,
        }
    }

    /// Reads the power.
    ///
    /// # Errors
    /// Why there is no reading.
    pub fn power(&mut self) -> Result<Power, PowerError> {
        let idle = self.answered.is_some_and(|at| at.elapsed() > MAY_HAVE_ENDED);
        match self.execute() {
            // The session ended while idle: connect again.
            Err(ReadError::Link(_)) if self.lan && idle && self.link.is_none() && self.ready() == Ok(true) => {
                self.execute()
            }
            other => other,
        }
        .map_err(|error| match error {
            ReadError::Link(error) => PowerError {
                passes: matches!(error, LinkError::Refused(code) if passes(code)),
                why: self.words(&error),
            },
            ReadError::Value(why) => PowerError { why, passes: true },
        })
    }

    fn execute(&mut self) -> Result<Power, ReadError> {
        let (Some(link), Some(plan)) = (&mut self.link, &mut self.plan) else {
            return Err(ReadError::Link(LinkError::Broken("not connected".into())));
        };
        // A sensor in place of DCMI is coarse: DCMI is tried again now and then.
        if self.dcmi.replaced.is_some() && self.dcmi.searched.is_none_or(|at| at.elapsed() > EXAMINE_AGAIN) {
            let mut dcmi = Dcmi::default();
            match power_reading(link.as_mut(), &mut dcmi) {
                Ok(_) => (*plan, self.dcmi) = (Plan::Dcmi, dcmi),
                Err(_) => self.dcmi.searched = Some(Instant::now()),
            }
        }
        let mut result = match &mut *plan {
            Plan::Dcmi => power_reading(link.as_mut(), &mut self.dcmi),
            other => sensors(link.as_mut(), other),
        };
        if matches!(plan, Plan::Dcmi)
            && let Err(error) = &result
            && self.dcmi.has_failed_for_good(error)
            && let Some((instead, power)) = instead_of_dcmi(link.as_mut())
        {
            let why = match error {
                ReadError::Link(error) => error.to_string(),
                ReadError::Value(why) => why.clone(),
            };
            *plan = instead;
            self.dcmi.replaced = Some(why);
            result = Ok(power);
        }
        match &result {
            Err(ReadError::Link(error)) => self.command_failed(&error.clone()),
            Ok(_) | Err(ReadError::Value(_)) => self.answered = Some(Instant::now()),
        }
        result
    }

    /// Where the power is read, for the operator.
    pub fn detail(&self) -> String {
        match &self.plan {
            Some(Plan::Dcmi) => "DCMI power reading".into(),
            Some(Plan::Whole(sensor)) => {
                format!("sensor {}, in steps of {} W,{}", sensor.shown(), sensor.step().watts(), self.not_dcmi())
            }
            Some(Plan::Inputs(sensors)) => {
                let names: Vec<String> = sensors.iter().map(|(sensor, _)| sensor.shown()).collect();
                let step: Microwatts = sensors.iter().map(|(sensor, _)| sensor.step()).sum();
                format!("sum of sensors {}, in steps of {} W,{}", names.join(" + "), step.watts(), self.not_dcmi())
            }
            Some(Plan::Nothing(..)) | None => "nothing".into(),
        }
    }

    /// Why it is a sensor that is read, where the BMC has a DCMI power reading too.
    fn not_dcmi(&self) -> String {
        let why = self.dcmi.replaced.as_ref();
        why.map(|why| format!(" as its DCMI power reading cannot be used ({why}),")).unwrap_or_default()
    }

    /// After a failed command: drops a connection that failed, and with it its late responses.
    fn command_failed(&mut self, error: &LinkError) {
        match error {
            LinkError::Silent(_) if self.lan => {}
            LinkError::Silent(_) | LinkError::Broken(_) => self.link = None,
            LinkError::Refused(_) | LinkError::Wrong(_) => self.answered = Some(Instant::now()),
        }
    }

    fn words(&self, error: &LinkError) -> String {
        match error {
            LinkError::Refused(cc::PRIVILEGE) if self.lan => {
                format!("{error}: give [[meter.ipmi.lan]] a higher privilege (\"operator\", \"administrator\")")
            }
            other => other.to_string(),
        }
    }
}

/// Why a reading failed.
enum ReadError {
    /// No response, or an error code.
    Link(LinkError),
    /// A response without a power.
    Value(String),
}

impl From<LinkError> for ReadError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl Dcmi {
    /// Counts a failure. Whether it is time to look for sensors, which is done now and then only.
    fn has_failed_for_good(&mut self, error: &ReadError) -> bool {
        let most = match error {
            // The connection, and not DCMI.
            ReadError::Link(LinkError::Silent(_) | LinkError::Broken(_)) => return false,
            ReadError::Link(LinkError::Refused(code)) if passes(*code) => FAILURES.1,
            _ if self.worked => FAILURES.0,
            _ => 1,
        };
        self.failures = self.failures.saturating_add(1);
        let due = self.failures >= most && self.searched.is_none_or(|at| at.elapsed() > EXAMINE_AGAIN);
        if due {
            self.searched = Some(Instant::now());
        }
        due
    }
}

/// A sensor with a reading, where DCMI has none. Whatever goes wrong here, the reason is that of DCMI.
fn instead_of_dcmi(link: &mut dyn Link) -> Option<(Plan, Power)> {
    let found = repository::sensors_in_watts(link).ok()?;
    let mut plan = choose(&found)?.into();
    let power = sensors(link, &mut plan).ok()?;
    Some((plan, power))
}

impl From<Choice> for Plan {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Whole(sensor) => Self::Whole(sensor),
            Choice::Inputs(sensors) => Self::Inputs(sensors.into_iter().map(|sensor| (sensor, false)).collect()),
        }
    }
}

fn plan(link: &mut dyn Link) -> Result<Plan, LinkError> {
    let mut wrong = None;
    let without = match execute(link, &dcmi::get_capabilities()).map(|data| dcmi::manages_power(&data)) {
        Ok(Ok(false)) => Some("DCMI without power management"),
        Ok(Err(why)) => {
            wrong = Some(LinkError::Wrong(why));
            Some("DCMI without power management")
        }
        // Some BMCs have the reading and not the capabilities.
        Ok(_) | Err(LinkError::Refused(_)) => match execute(link, &dcmi::get_power_reading()) {
            Err(LinkError::Refused(code)) if unknown(code) => Some("no DCMI power reading"),
            Ok(_) | Err(LinkError::Refused(_)) => None,
            Err(error) => return Err(error),
        },
        Err(error) => return Err(error),
    };
    let Some(without) = without else { return Ok(Plan::Dcmi) };
    let nothing = |why: String| Plan::Nothing(format!("the BMC has {without}, and {why}"), Instant::now());
    let sensors = match repository::sensors_in_watts(link) {
        Ok(sensors) => sensors,
        Err(LinkError::Refused(_) | LinkError::Wrong(_)) if wrong.is_some() => Vec::new(),
        Err(error @ LinkError::Refused(code)) if !passes(code) => {
            return Ok(nothing(repository::cannot_read_text(&error)));
        }
        Err(error) => return Err(error),
    };
    Ok(match (choose(&sensors), wrong) {
        (Some(choice), _) => choice.into(),
        (None, Some(wrong)) => return Err(wrong),
        (None, None) if sensors.is_empty() => nothing("no sensor in watts".into()),
        (None, None) => {
            let names: Vec<String> = sensors.iter().take(8).map(Sensor::shown).collect();
            nothing(format!(
                "no sensor in watts that is known to be of the whole machine (it has {})",
                names.join(", ")
            ))
        }
    })
}

/// Executes a command; once more after a pause where the BMC is busy.
fn execute(link: &mut dyn Link, command: &Command) -> Result<Vec<u8>, LinkError> {
    match link.execute(command) {
        Err(LinkError::Refused(cc::BUSY)) => {
            std::thread::sleep(BUSY_PAUSE);
            link.execute(command)
        }
        other => other,
    }
}

fn power_reading(link: &mut dyn Link, dcmi: &mut Dcmi) -> Result<Power, ReadError> {
    let data = execute(link, &dcmi::get_power_reading())?;
    let reading = PowerReading::parse(&data).map_err(LinkError::Wrong)?;
    let now = Stamp::now().monotonic;
    let power = dcmi.movement.power(&reading, now).map_err(ReadError::Value)?;
    dcmi.timestamps.check(reading.clock, now).map_err(ReadError::Value)?;
    (dcmi.worked, dcmi.failures) = (true, 0);
    Ok(Power { power, missing: None })
}

/// Reads the sensors of a plan.
fn sensors(link: &mut dyn Link, plan: &mut Plan) -> Result<Power, ReadError> {
    match plan {
        Plan::Whole(sensor) => sensor_reading(link, sensor)?.map_err(ReadError::Value).and_then(whole),
        Plan::Inputs(sensors) => inputs(link, sensors),
        Plan::Nothing(why, _) => Err(ReadError::Value(why.clone())),
        Plan::Dcmi => Err(ReadError::Value("DCMI is no sensor".into())),
    }
}

fn sensor_reading(link: &mut dyn Link, sensor: &Sensor) -> Result<Result<Microwatts, String>, ReadError> {
    match execute(link, &Command { lun: sensor.lun, ..Command::new(SENSOR, READING, &[sensor.number]) }) {
        Ok(data) => Ok(sensor.power(&data)),
        // Affects this sensor alone.
        Err(LinkError::Refused(cc::NOT_PRESENT)) => Ok(Err(format!("{}: no such sensor any more", sensor.shown()))),
        Err(error) => Err(error.into()),
    }
}

fn whole(power: Microwatts) -> Result<Power, ReadError> {
    match power {
        Microwatts(0) => Err(ReadError::Value("0 W, which is no reading of a machine that runs".into())),
        power => Ok(Power { power, missing: None }),
    }
}

/// The sum of the supplies' inputs. A slot without a supply never has a reading and is left out. Where a supply loses
/// its reading, there is no sum in this round; from the next round on it is left out, as it may have been removed.
fn inputs(link: &mut dyn Link, sensors: &mut [(Sensor, bool)]) -> Result<Power, ReadError> {
    let (mut sum, mut missing, mut lost) = (Microwatts::ZERO, Vec::new(), None);
    for (sensor, had) in sensors {
        match sensor_reading(link, sensor)? {
            Ok(power) => (sum, *had) = (sum + power, true),
            Err(why) if std::mem::replace(had, false) => lost = Some(why),
            Err(why) => missing.push(why),
        }
    }
    if let Some(why) = lost.or_else(|| (sum == Microwatts::ZERO).then(|| missing.first().cloned()).flatten()) {
        return Err(ReadError::Value(why));
    }
    let missing = (!missing.is_empty()).then(|| format!("{}: not in the sum", missing.join("; ")));
    whole(sum).map(|power| Power { missing, ..power })
}
