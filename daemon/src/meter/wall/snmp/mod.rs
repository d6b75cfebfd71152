//! `[[meter.snmp]]`: the power and energy that a PDU or UPS says by SNMP, version 2c or 3: by the OIDs of a maker
//! (`presets`), or of the entry. One GET for everything: agents of PDUs are slow. Sets nothing.

mod ber;
mod presets;
mod session;
#[cfg(test)]
mod tests;
mod usm;

pub use presets::Preset;
pub use usm::{Auth, Privacy};

use super::net::{endpoint, runtime};
use super::quantity::{EnergyUnit, Number, PowerUnit};
use super::{Answer, Common, Entries, Entry, Failure, MAX_POWER, PEER, Probe, Said, Say, entry};
use crate::meter::wall::follow::Total;
use crate::model::units::{Microjoules, Nanos};
use crate::sys::secret::{self, Secret, warn_of_open_secret};
use ber::{Oid, Value};
use presets::{Field, Plan};
use serde::Deserialize;
use session::{Login, Session};
use std::hash::Hasher as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use usm::User;

/// The port of agents.
const PORT: u16 = 161;
/// The community where none is configured.
const COMMUNITY: &str = "public";
/// Shortest password of version 3 (RFC 3414), in bytes.
const SHORTEST: usize = 8;
/// Values of a Counter32.
const COUNTER: i128 = 1 << 32;
/// A value of an agent may be older than its answer by so much.
const BEHIND: Duration = Duration::from_secs(60);

/// `[[meter.snmp]]`.
pub type SnmpConfig = Entries<SnmpMeter>;

/// The version of SNMP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Version {
    /// Version 2 with a community, which everybody on the network can read.
    #[default]
    #[serde(rename = "2c")]
    V2c,
    /// Version 3 with users.
    #[serde(rename = "3")]
    V3,
}

entry! {
    "snmp",
    /// One PDU, outlet or UPS.
    SnmpMeter {
        /// Host of the agent, and its port where it is not 161.
        address: String = String::new(),
        /// The version of SNMP.
        version: Version = Version::V2c,
        /// Whose OIDs are read.
        preset: Preset = Preset::Oids,
        /// Number of the PDU in a chain; `None`: the first.
        pdu: Option<u16> = None,
        /// Number of the inlet or cord.
        inlet: u16 = 1,
        /// Number of the outlet; `None`: the whole inlet.
        outlet: Option<u16> = None,
        /// `entPhysicalIndex` of the sensor.
        sensor: u32 = 0,
        /// OID of the power.
        power: Option<String> = None,
        /// OID of the energy counter.
        energy: Option<String> = None,
        /// Unit of the power.
        power_unit: PowerUnit = PowerUnit::Watts,
        /// Unit of the energy.
        energy_unit: EnergyUnit = EnergyUnit::WattHours,
        /// What one count of the power is, in its unit.
        power_scale: f64 = 1.0,
        /// What one count of the energy is, in its unit.
        energy_scale: f64 = 1.0,
        /// The user (version 3).
        username: String = String::new(),
        /// How messages are signed (version 3).
        auth: Auth = Auth::Sha256,
        /// File with the community, or the password of the user.
        password_file: Option<PathBuf> = None,
        /// The systemd credential that is the community or the password.
        credential: Option<String> = None,
        /// How messages are encrypted; `None`: not at all (version 3).
        privacy: Option<Privacy> = None,
        /// File with the password of the privacy.
        privacy_password_file: Option<PathBuf> = None,
        /// The systemd credential that is the password of the privacy.
        privacy_credential: Option<String> = None,
    }
}

impl SnmpMeter {
    fn login_wrong(&self, say: &mut Say<'_>) {
        let has_password = self.password_file.is_some() || self.credential.is_some();
        let has_privacy = self.privacy_password_file.is_some() || self.privacy_credential.is_some();
        secret::keys_wrong(self.password_file.as_deref(), self.credential.as_deref(), say);
        secret::keys_wrong(
            self.privacy_password_file.as_deref(),
            self.privacy_credential.as_deref(),
            &mut |key: &str, rule: &str| say(&format!("privacy_{key}"), &rule.replace("either ", "one of these: ")),
        );
        if self.version == Version::V2c {
            if !self.username.is_empty() {
                say("username", "is for version = \"3\"");
            }
            if self.privacy.is_some() || has_privacy {
                say("privacy", "is for version = \"3\"");
            }
            return;
        }
        if self.username.is_empty() || self.username.len() > 32 || self.username.contains(char::is_control) {
            say("username", "the name of a user of the agent, 1 to 32 bytes");
        }
        if !has_password {
            say("password_file", "is missing: a file with the user's password (or credential, a systemd credential)");
        }
        match self.privacy {
            None if has_privacy => say("privacy", "is missing: \"aes128\" or \"aes256\", beside its password"),
            Some(_) if !has_privacy => {
                say("privacy_password_file", "is missing: a file with the password of the privacy");
            }
            Some(privacy) if !privacy.fits(self.auth) => {
                say("privacy", "\"aes256\" needs auth = \"sha256\", \"sha384\" or \"sha512\"");
            }
            _ => {}
        }
    }

    fn read_login(&self) -> Result<Login, String> {
        let password = || Secret::read(PEER, self.password_file.as_deref(), self.credential.as_deref());
        if self.version == Version::V2c {
            let is_default = self.password_file.is_none() && self.credential.is_none();
            let community = if is_default { COMMUNITY.to_owned() } else { password()?.reveal().to_owned() };
            return Ok(Login::Community(community.into_bytes()));
        }
        let long = |secret: Secret, key: &str| {
            let bytes = secret.reveal().as_bytes().to_vec();
            let is_long = bytes.len() >= SHORTEST;
            is_long.then_some(bytes).ok_or_else(|| format!("{key}: passwords of SNMP have at least {SHORTEST} bytes"))
        };
        let privacy = self.privacy.map(|privacy| {
            let secret = Secret::read(PEER, self.privacy_password_file.as_deref(), self.privacy_credential.as_deref())?;
            Ok::<_, String>((privacy, long(secret, "privacy_password_file")?))
        });
        Ok(Login::User(User {
            name: self.username.clone(),
            auth: self.auth,
            password: long(password()?, "password_file")?,
            privacy: privacy.transpose()?,
        }))
    }
}

impl Entry for SnmpMeter {
    type Probe = SnmpProbe;

    fn common(&self) -> Common<'_> {
        self.keys()
    }

    fn wrong(&self, say: &mut Say<'_>) {
        if endpoint(&self.address, PORT).is_none() {
            say("address", "the host of the agent, with or without a port: \"192.0.2.40\", \"pdu.example:161\"");
        }
        self.login_wrong(say);
        let by_oids = self.preset == Preset::Oids;
        if by_oids && self.power.is_none() && self.energy.is_none() {
            say("preset", "is missing: the maker, such as \"apc\" (or OIDs in power and energy)");
        }
        for (key, oid) in [("power", &self.power), ("energy", &self.energy)] {
            match oid {
                Some(_) if !by_oids => say(key, "is for entries without a preset: this one knows its OIDs"),
                Some(text) if Oid::parse(text).is_none() => say(key, "an OID in numbers: \"1.3.6.1.4.1.99.7.0\""),
                _ => {}
            }
        }
        for (key, scale) in [("power_scale", self.power_scale), ("energy_scale", self.energy_scale)] {
            if !(1e-6..=1e6).contains(&scale) {
                say(key, "0.000001 to 1000000");
            } else if !by_oids && scale != 1.0 {
                say(key, "is for entries without a preset: this one knows its units");
            }
        }
        let knows_outlets = matches!(self.preset, Preset::Raritan | Preset::Sentry4 | Preset::Eaton | Preset::Hpe);
        if self.outlet.is_some() && !knows_outlets {
            say("outlet", "is for raritan, sentry4, eaton and hpe: with others, set the OIDs of the outlet");
        }
        match (self.preset, self.sensor) {
            (Preset::EntitySensor, 0) => say("sensor", "is missing: the index of the sensor (entPhysicalIndex)"),
            (Preset::EntitySensor, _) | (_, 0) => {}
            _ => say("sensor", "is for preset = \"entity-sensor\""),
        }
    }

    fn path(&self) -> String {
        let plan = presets::plans(self).into_iter().next();
        let field = plan.and_then(|plan| plan.energy.or(plan.power));
        let oid = field.map_or_else(String::new, |field| field.oid.text().to_owned());
        format!("snmp {} {oid}", self.address)
    }

    fn warn(&self) {
        [&self.password_file, &self.privacy_password_file]
            .into_iter()
            .flatten()
            .for_each(|path| warn_of_open_secret(path));
    }

    fn probe(&self, stop: CancellationToken) -> Result<SnmpProbe, String> {
        Ok(SnmpProbe {
            runtime: Some(runtime()?),
            stop,
            login: self.read_login()?,
            config: self.clone(),
            session: None,
            plan: None,
            wraps: Wraps::default(),
        })
    }
}

/// Asks one agent.
pub struct SnmpProbe {
    runtime: Option<Runtime>,
    stop: CancellationToken,
    config: SnmpMeter,
    login: Login,
    session: Option<Session>,
    plan: Option<Plan>,
    wraps: Wraps,
}

impl Drop for SnmpProbe {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Probe for SnmpProbe {
    fn ask(&mut self) -> Result<Answer, Failure> {
        let Self { runtime, stop, config, login, session, plan, .. } = self;
        let Some(runtime) = runtime else { return Err(Failure::broken("no runtime")) };
        let asked = runtime.block_on(async {
            tokio::select! {
                result = values(config, login, session, plan) => result,
                () = stop.cancelled() => Err(Failure::broken("jouled ends")),
            }
        });
        let answer = asked.and_then(|(power, energy)| self.answer(power, energy));
        answer.map_err(|failure| {
            if failure.kind == super::FailureKind::Broken {
                self.session = None;
            }
            Failure { why: format!("{}: {}", self.config.address, failure.why), ..failure }
        })
    }

    fn counts(&self) -> bool {
        presets::plans(&self.config).iter().any(|plan| plan.energy.is_some())
    }

    fn describe(&self) -> String {
        let what = self.plan.as_ref().map_or("not asked yet", |plan| plan.what);
        let login = match &self.login {
            Login::Community(_) => "SNMP 2c, not encrypted",
            Login::User(user) if user.privacy.is_some() => "SNMP 3, encrypted",
            Login::User(_) => "SNMP 3, not encrypted",
        };
        format!("{what} at {}, {login}", self.config.address)
    }

    fn has_new_secret(&mut self) -> bool {
        let Ok(login) = self.config.read_login() else { return false };
        let is_same = match (&login, &self.login) {
            (Login::Community(new), Login::Community(old)) => new == old,
            (Login::User(new), Login::User(old)) => (&new.password, &new.privacy) == (&old.password, &old.privacy),
            _ => false,
        };
        if !is_same {
            (self.login, self.session) = (login, None);
        }
        !is_same
    }
}

impl SnmpProbe {
    fn answer(&mut self, power: Option<Count>, energy: Option<Count>) -> Result<Answer, Failure> {
        let (config, factor) = (&self.config, self.config.keys().factor());
        let power = power.map(|count| {
            let unit = if config.preset == Preset::Oids { config.power_unit } else { PowerUnit::Watts };
            let text = count.shown();
            let number = Number::read(&text, &count.place)?;
            let value = number.power(&count.place, unit, None, factor * config.power_scale)?;
            Ok::<_, Failure>(Said { value, time: count.time })
        });
        let unit = if config.preset == Preset::Oids { config.energy_unit } else { EnergyUnit::WattHours };
        let energy = energy.map(|mut count| {
            let scale = factor * config.energy_scale;
            if count.counter32
                && let Ok(one) = count.one()?.energy(&count.place, unit, None, scale)
            {
                count.add(self.wraps.take(count.text.parse().unwrap_or_default(), one, Instant::now()));
            }
            let text = count.shown();
            let value = Number::read(&text, &count.place)?.energy(&count.place, unit, None, scale)?;
            Ok::<_, Failure>(Said { value: Total { energy: value, since: count.since }, time: count.time })
        });
        Ok(Answer { power: power.transpose()?, energy: energy.transpose()?, date: None })
    }
}

/// The power and the energy that the agent has. Finds out at first which of the plans it knows.
async fn values(
    config: &SnmpMeter,
    login: &Login,
    session: &mut Option<Session>,
    plan: &mut Option<Plan>,
) -> Result<(Option<Count>, Option<Count>), Failure> {
    let session = match session {
        Some(session) => session,
        None => {
            let (host, port) = endpoint(&config.address, PORT).ok_or_else(|| Failure::broken("address: no host"))?;
            let limit = Duration::from_nanos(config.timeout.0.0);
            session.insert(Session::open(&host, port, login.clone(), limit).await?)
        }
    };
    if let Some(plan) = plan {
        let (power, energy) = read(session, plan).await?;
        if power.is_none() && energy.is_none() {
            return Err(Failure::absent("the agent has no such object any more (noSuchObject)"));
        }
        return Ok((power, energy));
    }
    let all = presets::plans(config);
    let first = all.iter().find_map(|plan| plan.power.as_ref().or(plan.energy.as_ref()));
    let first = first.map_or("", |field| field.oid.text()).to_owned();
    for tried in all {
        let (power, energy) = read(session, &tried).await?;
        if power.is_some() || energy.is_some() {
            *plan = Some(tried);
            return Ok((power, energy));
        }
    }
    Err(Failure::unusable(format!(
        "the agent has no such object ({first}): are preset, pdu, inlet and outlet right, and may this login read it?"
    )))
}

async fn read(session: &mut Session, plan: &Plan) -> Result<(Option<Count>, Option<Count>), Failure> {
    let oids = |field: &Option<Field>| field.as_ref().map(Field::oids).unwrap_or_default();
    let (power, energy) = (oids(&plan.power), oids(&plan.energy));
    let mut values = session.get(&[power.clone(), energy].concat()).await?;
    let of_energy = values.split_off(power.len());
    let count = |field: &Option<Field>, values| field.as_ref().map_or(Ok(None), |field| Count::of(field, values));
    Ok((count(&plan.power, values)?, count(&plan.energy, of_energy)?))
}

/// A number as the agent says it.
#[derive(Clone, Debug)]
struct Count {
    place: String,
    text: String,
    exponent: i32,
    counter32: bool,
    time: Option<i128>,
    since: u64,
}

impl Count {
    /// From the values of [`Field::oids`]. `None`: the agent has no such object.
    fn of(field: &Field, values: Vec<Value>) -> Result<Option<Self>, Failure> {
        let mut values = values.into_iter();
        let place = field.oid.text().to_owned();
        let main = values.next().unwrap_or(Value::None);
        let mut next = |is_there: bool| if is_there { values.next().unwrap_or(Value::None) } else { Value::None };
        let decimals = next(field.decimals.is_some());
        let scale = next(field.scale.is_some());
        let unit = next(field.unit.is_some());
        let state = next(field.state.is_some());
        let time = next(field.time.is_some());
        let since = next(field.since.is_some());
        let (text, counter32) = match main {
            Value::None => return Ok(None),
            Value::Number { value: -1, .. } => {
                return Err(Failure::absent(format!("{place} has no value now (-1)")));
            }
            Value::Number { value, counter32 } => (value.to_string(), counter32),
            Value::Text(bytes) => (String::from_utf8_lossy(&bytes).trim().to_owned(), false),
            Value::Other => return Err(Failure::unusable(format!("{place} is no number that a meter gives"))),
        };
        if let (Some((oid, wanted, name)), Value::Number { value, .. }) = (&field.unit, &unit)
            && value != wanted
        {
            let oid = oid.text();
            return Err(Failure::unusable(format!("{place} is not in {name}: {oid} is {value}, and not {wanted}")));
        }
        if let (Some((oid, is_valid)), Value::Number { value, .. }) = (&field.state, &state)
            && !is_valid(*value)
        {
            let oid = oid.text();
            return Err(Failure::absent(format!("{place} has no value now: its state {oid} is {value}")));
        }
        let small = |value: &Value, usual: i128| match value {
            Value::Number { value, .. } => *value,
            _ => usual,
        };
        let (decimals, scale) = (small(&decimals, 0), small(&scale, 9));
        if !(-9..=15).contains(&decimals) || !(1..=17).contains(&scale) {
            return Err(Failure::unusable(format!("{place} has a scale that no meter has")));
        }
        let exponent = field.exponent + (3 * (scale - 9) - decimals) as i32;
        let time = match time {
            Value::Number { value, .. } if value > 0 => Some(value * i128::from(Nanos::SECOND.0)),
            _ => None,
        };
        Ok(Some(Self { place, text, exponent, counter32, time, since: beginning(&since) }))
    }

    /// The number in the unit of the field.
    fn shown(&self) -> String {
        if self.exponent == 0 { self.text.clone() } else { format!("{}e{}", self.text, self.exponent) }
    }

    /// What one count is.
    fn one(&self) -> Result<Number<'static>, Failure> {
        const POWERS: [&str; 7] = ["1e-3", "1e-2", "1e-1", "1", "1e1", "1e2", "1e3"];
        let power = usize::try_from(self.exponent + 3).ok().and_then(|at| POWERS.get(at)).copied().unwrap_or("1");
        Number::read(power, &self.place)
    }

    /// Adds what was counted before the counter began again.
    fn add(&mut self, before: i128) {
        if let Ok(value) = self.text.parse::<i128>() {
            self.text = (value + before).to_string();
        }
    }
}

/// The name of a counter's beginning; 0 where the agent gives none.
fn beginning(value: &Value) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    match value {
        Value::Text(bytes) => hasher.write(bytes),
        Value::Number { value, .. } => hasher.write(&value.to_be_bytes()),
        Value::None | Value::Other => return 0,
    }
    hasher.finish()
}

/// How often a Counter32 began again at 2³². One that falls by more than the meter can have measured was reset.
#[derive(Clone, Copy, Debug, Default)]
struct Wraps {
    last: Option<(i128, Instant)>,
    before: i128,
}

impl Wraps {
    /// What has to be added to a counter that shows `shown`. `one`: the energy of one count.
    fn take(&mut self, shown: i128, one: Microjoules, now: Instant) -> i128 {
        if let Some((last, at)) = self.last
            && shown < last
        {
            let time = Nanos(u64::try_from((now - at + BEHIND).as_nanos()).unwrap_or(u64::MAX));
            let most = MAX_POWER.for_time(time).0 / one.0.max(1);
            let rise = COUNTER + shown - last;
            self.before = if rise <= i128::from(most) { self.before + COUNTER } else { 0 };
        }
        self.last = Some((shown, now));
        self.before
    }
}
