//! Where makers put power and energy: Shelly, Tasmota, ESPHome, HomeWizard, Home Assistant; and any JSON by pointers.
//! Each preset's pages are those of its maker's documentation.

use super::super::document::Document;
use super::super::net::Link;
use super::super::quantity::{EnergyUnit, PowerUnit};
use super::super::{Answer, Failure, Said, total};
use super::{HttpMeter, Preset};
use crate::meter::wall::follow::Total;
use crate::sys::safe_text::excerpt;
use serde_json::Value;
use std::hash::Hasher as _;

/// Longest excerpt of a name, in characters.
const EXCERPT: usize = 80;

/// What is asked for, found at the first question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// A page, by pointers.
    Json,
    /// Shelly's first generation.
    Shelly1,
    /// Later generations of Shelly: the component with the values, such as `switch:0`, and the one with the counter.
    Shelly2 { power: String, energy: String },
    /// `Status 8` of Tasmota.
    Tasmota,
    /// Sensors of ESPHome.
    Esphome,
    /// HomeWizard.
    Homewizard,
    /// Entities of Home Assistant.
    HomeAssistant,
}

async fn page(link: &mut Link, path: &str) -> Result<Document, Failure> {
    let got = link.get(path).await?;
    Document::of_page(path, &got.body, got.date)
}

impl Plan {
    /// Finds out what there is to ask for.
    pub(super) async fn find(link: &mut Link, config: &HttpMeter) -> Result<Self, Failure> {
        Ok(match config.preset {
            Preset::Json => Self::Json,
            Preset::Tasmota => Self::Tasmota,
            Preset::Esphome => Self::Esphome,
            Preset::Homewizard => Self::Homewizard,
            Preset::HomeAssistant => Self::HomeAssistant,
            Preset::Shelly => {
                let about = page(link, "/shelly").await?;
                match about.at("/gen").as_u64() {
                    Some(_) => shelly2(&page(link, "/rpc/Shelly.GetStatus").await?, config.channel)?,
                    None if about.at("/type").is_string() => Self::Shelly1,
                    None => return Err(Failure::unusable("/shelly: what answers is no Shelly")),
                }
            }
        })
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Json => "JSON by pointers".into(),
            Self::Shelly1 => "Shelly of the first generation".into(),
            Self::Shelly2 { power, energy } if power == energy => format!("Shelly, {power}"),
            Self::Shelly2 { power, energy } => format!("Shelly, {power} and {energy}"),
            Self::Tasmota => "Tasmota".into(),
            Self::Esphome => "ESPHome".into(),
            Self::Homewizard => "HomeWizard".into(),
            Self::HomeAssistant => "Home Assistant".into(),
        }
    }

    /// Asks for the values. `factor`: what they are multiplied by.
    pub(super) async fn ask(&self, link: &mut Link, config: &HttpMeter, factor: f64) -> Result<Answer, Failure> {
        match self {
            Self::Json => json(&page(link, &link.path()).await?, config, factor),
            Self::Shelly1 => shelly1(&page(link, "/status").await?, config.channel, factor),
            Self::Shelly2 { power, energy } => {
                shelly2_values(&page(link, "/rpc/Shelly.GetStatus").await?, power, energy, factor)
            }
            Self::Tasmota => tasmota(&page(link, "/cm?cmnd=Status%208").await?, config.channel, factor),
            Self::Homewizard => {
                let page = page(link, "/api/v1/data").await?;
                let (power, energy) = ("/active_power_w", "/total_power_import_kwh");
                values(
                    &page,
                    (page.at(power), power, PowerUnit::Watts),
                    (page.at(energy), energy, EnergyUnit::KilowattHours),
                    factor,
                )
            }
            Self::Esphome => {
                let mut answer = Answer::default();
                if let Some(sensor) = &config.power {
                    let page = page(link, &format!("/sensor/{sensor}")).await?;
                    answer.power = Some(said(esphome(&page, |page, value, at, unit| {
                        page.power(value, at, config.power_unit, unit, factor)
                    })?));
                }
                if let Some(sensor) = &config.energy {
                    let page = page(link, &format!("/sensor/{sensor}")).await?;
                    answer.energy = Some(said(total(esphome(&page, |page, value, at, unit| {
                        page.energy(value, at, config.energy_unit, unit, factor)
                    })?)));
                }
                Ok(answer)
            }
            Self::HomeAssistant => {
                let mut answer = Answer::default();
                if let Some(entity) = &config.power {
                    let page = page(link, &format!("/api/states/{entity}")).await?;
                    let value = page.power(page.at("/state"), "/state", config.power_unit, unit_of(&page), factor)?;
                    (answer.power, answer.date) = (Some(Said { value, time: updated(&page)? }), page.date);
                }
                if let Some(entity) = &config.energy {
                    let page = page(link, &format!("/api/states/{entity}")).await?;
                    let value = page.energy(page.at("/state"), "/state", config.energy_unit, unit_of(&page), factor)?;
                    let value = Total { energy: value, since: beginning(page.at("/attributes/last_reset")) };
                    (answer.energy, answer.date) = (Some(Said { value, time: updated(&page)? }), page.date);
                }
                Ok(answer)
            }
        }
    }
}

const fn said<T>(value: T) -> Said<T> {
    Said { value, time: None }
}

/// The name of a counter's beginning, from the text that the meter gives for it; 0 where it gives none.
fn beginning(value: &Value) -> u64 {
    let Some(text) = value.as_str() else { return 0 };
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Power and energy of a page. One of both may have no value now.
fn values(
    page: &Document,
    (power, power_at, power_unit): (&Value, &str, PowerUnit),
    (energy, energy_at, energy_unit): (&Value, &str, EnergyUnit),
    factor: f64,
) -> Result<Answer, Failure> {
    let power = (!power.is_null()).then(|| page.power(power, power_at, power_unit, None, factor)).transpose()?;
    let energy = (!energy.is_null()).then(|| page.energy(energy, energy_at, energy_unit, None, factor)).transpose()?;
    if power.is_none() && energy.is_none() {
        return Err(Failure::absent(format!(
            "{} and {} have no value now (null or absent)",
            page.place(power_at),
            page.place(energy_at)
        )));
    }
    Ok(Answer { power: power.map(said), energy: energy.map(|energy| said(total(energy))), date: None })
}

fn json(page: &Document, config: &HttpMeter, factor: f64) -> Result<Answer, Failure> {
    let time = config.time.as_deref().map(|pointer| page.time(pointer)).transpose()?;
    let mut answer = Answer { date: page.date, ..Answer::default() };
    if let Some(pointer) = &config.power {
        let value = page.power(page.at(pointer), pointer, config.power_unit, None, factor)?;
        answer.power = Some(Said { value, time });
    }
    if let Some(pointer) = &config.energy {
        let value = total(page.energy(page.at(pointer), pointer, config.energy_unit, None, factor)?);
        answer.energy = Some(Said { value, time });
    }
    Ok(answer)
}

/// Shelly's first generation: plugs and relays count watt-minutes in `meters`, energy meters Wh in `emeters`.
fn shelly1(page: &Document, channel: u8, factor: f64) -> Result<Answer, Failure> {
    for (list, unit) in [("emeters", EnergyUnit::WattHours), ("meters", EnergyUnit::WattMinutes)] {
        if page.at(&format!("/{list}/{channel}")).is_null() {
            continue;
        }
        if page.at(&format!("/{list}/{channel}/is_valid")) == &Value::Bool(false) {
            return Err(Failure::absent(format!("{list} {channel}: the meter says that its values are not valid")));
        }
        let (power, energy) = (format!("/{list}/{channel}/power"), format!("/{list}/{channel}/total"));
        return values(page, (page.at(&power), &power, PowerUnit::Watts), (page.at(&energy), &energy, unit), factor);
    }
    Err(Failure::unusable(format!(
        "/status has no meter of number {channel}: is channel right, and can this device measure power?"
    )))
}

/// The component of a Shelly of a later generation that measures: a switch with a meter, a meter of one or of three
/// phases.
fn shelly2(page: &Document, channel: u8) -> Result<Plan, Failure> {
    for (power, energy) in [
        ("switch", "switch"),
        ("pm1", "pm1"),
        ("em1", "em1data"),
        ("em", "emdata"),
        ("cover", "cover"),
        ("light", "light"),
    ] {
        let (power, energy) = (format!("{power}:{channel}"), format!("{energy}:{channel}"));
        let component = page.value.get(&power).unwrap_or(&Value::Null);
        if ["apower", "act_power", "total_act_power"].iter().any(|key| component.get(key).is_some()) {
            return Ok(Plan::Shelly2 { power, energy });
        }
    }
    Err(Failure::unusable(format!(
        "Shelly.GetStatus has no component of number {channel} with a power: is channel right, and can this device measure power?"
    )))
}

fn shelly2_values(page: &Document, power: &str, energy: &str, factor: f64) -> Result<Answer, Failure> {
    let first = |component: &str, keys: [&str; 3]| {
        let pointers = keys.map(|key| format!("/{component}/{key}"));
        pointers.iter().find(|pointer| !page.at(pointer).is_null()).cloned().unwrap_or_else(|| pointers[0].clone())
    };
    let power = first(power, ["apower", "act_power", "total_act_power"]);
    let counted = first(energy, ["aenergy/total", "total_act_energy", "total_act"]);
    // Energy that was returned is counted in the total, too: what was drawn is the difference.
    let returned = format!("/{energy}/ret_aenergy/total");
    let mut answer = values(
        page,
        (page.at(&power), &power, PowerUnit::Watts),
        (page.at(&counted), &counted, EnergyUnit::WattHours),
        factor,
    )?;
    if let Some(counted) = &mut answer.energy
        && !page.at(&returned).is_null()
    {
        let returned = page.energy(page.at(&returned), &returned, EnergyUnit::WattHours, None, factor)?;
        counted.value.energy = counted.value.energy.saturating_sub(returned);
    }
    Ok(answer)
}

fn tasmota(page: &Document, channel: u8, factor: f64) -> Result<Answer, Failure> {
    if let Some(warning) = page.at("/WARNING").as_str() {
        return Err(Failure::login(format!(
            "Tasmota says \"{}\": set auth = \"basic\", username and password_file",
            excerpt(warning, EXCERPT)
        )));
    }
    let (power, energy) = ("/StatusSNS/ENERGY/Power", "/StatusSNS/ENERGY/Total");
    if page.at("/StatusSNS/ENERGY").is_null() {
        return Err(Failure::unusable(
            "Status 8 has no ENERGY: can this device measure power, and is its template right?",
        ));
    }
    let power = (page.of_channel(power, channel), power, PowerUnit::Watts);
    let energy = (page.of_channel(energy, channel), energy, EnergyUnit::KilowattHours);
    let mut answer = values(page, power, energy, factor)?;
    if let Some(energy) = &mut answer.energy {
        energy.value.since = beginning(page.at("/StatusSNS/ENERGY/TotalStartTime"));
    }
    Ok(answer)
}

/// A sensor of ESPHome: `value` is the number, `state` the same with its unit.
fn esphome<T>(
    page: &Document,
    read: impl Fn(&Document, &Value, &str, Option<&str>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let unit = page.at("/state").as_str().and_then(|state| state.trim().split_once(' ')).map(|(_, unit)| unit.trim());
    match page.at("/value") {
        Value::Null => read(page, page.at("/state"), "/state", None),
        value => read(page, value, "/value", unit),
    }
}

fn unit_of(page: &Document) -> Option<&str> {
    page.at("/attributes/unit_of_measurement").as_str()
}

/// When Home Assistant last heard of a value. `last_reported` moves also where the value stays.
fn updated(page: &Document) -> Result<Option<i128>, Failure> {
    let pointer = if page.at("/last_reported").is_null() { "/last_updated" } else { "/last_reported" };
    if page.at(pointer).is_null() { Ok(None) } else { page.time(pointer).map(Some) }
}
