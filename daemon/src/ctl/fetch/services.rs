//! What each service is asked, and what its answer means. Pure: JSON in, values out. The shapes are those that the
//! services document.

use super::{Arguments, Service, unit};
use crate::footprint::file::{Time, Written, WrittenValue, seconds};
use crate::model::footprint::Measure;
use jiff::Timestamp;
use serde_json::Value;

/// How long the last value of a service that publishes no future is taken to hold, in seconds: these publish late.
const HOLD: i64 = 2 * 3600;
/// Pounds by MWh in grams by kWh.
const POUNDS_BY_MWH: f64 = 0.453_592;

/// A question to a service.
pub struct Asked {
    service: Service,
    base: String,
    path: String,
    currency: Option<String>,
    add: f64,
    now: i64,
}

/// Text in a path or query of a URL.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl Asked {
    /// The question of the arguments. `now`: seconds since 1970.
    pub fn of(arguments: &Arguments, now: i64) -> Result<Self, String> {
        let service = arguments.service;
        let needs_zone = !matches!(service, Service::Uk | Service::France | Service::Prometheus);
        let zone = match arguments.zone.as_deref() {
            None if needs_zone => return Err("this service needs a --zone".into()),
            Some(_) if matches!(service, Service::France | Service::Prometheus) => {
                return Err("this service has no zones: leave --zone out".into());
            }
            zone => zone.map(encoded),
        };
        let of_prometheus = arguments.query.is_some() || arguments.currency.is_some();
        if (service == Service::Prometheus) != arguments.query.is_some()
            || (service != Service::Prometheus && of_prometheus)
        {
            return Err("--query and --currency belong to prometheus, which needs --url and --query".into());
        }
        let default = match service {
            Service::Uk => "https://api.carbonintensity.org.uk",
            Service::France => "https://reseaux-energies-rte.opendatasoft.com",
            Service::EnergyChartsCarbon | Service::EnergyChartsPrice => "https://api.energy-charts.info",
            Service::ElectricityMaps => "https://api.electricitymap.org",
            Service::Watttime => "https://api.watttime.org",
            Service::Prometheus => "",
        };
        let base = arguments.url.clone().unwrap_or_else(|| default.to_owned());
        if base.is_empty() {
            return Err("prometheus needs --url and --query".into());
        }
        let currency = match service {
            Service::EnergyChartsPrice => Some("EUR".to_owned()),
            _ => arguments.currency.clone(),
        };
        if arguments.add.is_some() && currency.is_none() {
            return Err("--add belongs to prices".into());
        }
        let minute = |at: i64| {
            let at = Timestamp::from_second(at.div_euclid(1800) * 1800).unwrap_or_default();
            at.strftime("%Y-%m-%dT%H:%MZ").to_string()
        };
        let zone_or_none = zone.clone().unwrap_or_default();
        let path = match service {
            Service::Uk => match &zone {
                Some(postcode) => format!("/regional/intensity/{}/fw48h/postcode/{postcode}", minute(now)),
                None => format!("/intensity/{}/fw48h", minute(now)),
            },
            Service::France => {
                "/api/explore/v2.1/catalog/datasets/eco2mix-national-tr/records?select=taux_co2,date_heure&\
                                order_by=date_heure%20desc&limit=100"
                    .to_owned()
            }
            Service::EnergyChartsCarbon => format!("/co2eq?country={zone_or_none}"),
            Service::EnergyChartsPrice => format!("/price?bzn={zone_or_none}"),
            Service::ElectricityMaps => format!("/v3/carbon-intensity/latest?zone={zone_or_none}"),
            Service::Watttime => {
                let (from, until) = (encoded(&minute(now - HOLD)), encoded(&minute(now + 1800)));
                format!("/v3/historical?signal_type=co2_moer&region={zone_or_none}&start={from}&end={until}")
            }
            Service::Prometheus => {
                format!("/api/v1/query?query={}", encoded(arguments.query.as_deref().unwrap_or_default()))
            }
        };
        Ok(Self { service, base, path, currency, add: arguments.add.unwrap_or_default(), now })
    }

    /// Whether it does not answer without a key.
    pub fn wants_key(&self) -> bool {
        matches!(self.service, Service::ElectricityMaps | Service::Watttime)
    }

    /// The address of the service.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The path of the question.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The service, for messages and reports.
    pub fn name(&self) -> &'static str {
        match self.service {
            Service::Uk => "Carbon Intensity API (Great Britain)",
            Service::France => "éco2mix (RTE, France)",
            Service::EnergyChartsCarbon => "energy-charts.info (Fraunhofer ISE)",
            Service::EnergyChartsPrice => "energy-charts.info (day-ahead price)",
            Service::ElectricityMaps => "Electricity Maps",
            Service::Watttime => "WattTime (marginal)",
            Service::Prometheus => "Prometheus",
        }
    }

    /// What its numbers are.
    pub fn measure(&self) -> (Measure, &str) {
        unit(self.currency.as_deref())
    }

    /// The values of an answer.
    pub fn read(&self, answer: &Value) -> Result<Written, String> {
        let mut values = match self.service {
            Service::Uk => slots(answer)?,
            Service::France => points(array(answer, "results")?, "date_heure", "taux_co2", 900)?,
            Service::EnergyChartsCarbon => columns(answer, &["co2eq", "co2eq_forecast"], 1.0)?,
            Service::EnergyChartsPrice => columns(answer, &["price"], 1e-3)?,
            Service::ElectricityMaps => points(std::slice::from_ref(answer), "datetime", "carbonIntensity", HOLD)?,
            Service::Watttime => watttime(answer)?,
            Service::Prometheus => vec![self.number(answer)?],
        };
        values.retain(|value| value.2.is_finite());
        if values.is_empty() {
            return Err("its answer has no value".into());
        }
        values.sort_by_key(|value| value.0);
        values.dedup_by_key(|value| value.0);
        // A value ends where the next one begins, at the latest.
        for at in 1..values.len() {
            let next = values[at].0;
            values[at - 1].1 = values[at - 1].1.min(next);
        }
        let holds = matches!(self.service, Service::France | Service::ElectricityMaps | Service::Watttime);
        if let Some(last) = values.last_mut().filter(|_| holds) {
            last.1 = last.1.max(last.0.saturating_add(HOLD));
        }
        let text = |at: i64| Time::Text(crate::footprint::time(at));
        let value = |(from, until, value): (i64, i64, f64)| WrittenValue {
            from: text(from),
            until: text(until),
            value: value + self.add,
        };
        let unit = format!("{}/kWh", self.measure().1);
        Ok(Written { unit, source: self.name().to_owned(), values: values.into_iter().map(value).collect() })
    }

    /// The one number of a query, which holds from now on.
    fn number(&self, answer: &Value) -> Result<Slot, String> {
        let result = &answer["data"]["result"];
        let value = match answer["data"]["resultType"].as_str() {
            Some("scalar") => &result[1],
            Some("vector") => match result.as_array().map(Vec::as_slice) {
                Some([one]) => &one["value"][1],
                Some(many) => return Err(format!("the query gives {} series, where one is wanted", many.len())),
                None => return Err("its answer has no result".into()),
            },
            _ => return Err("its answer has no vector and no scalar".into()),
        };
        let value = value.as_str().and_then(|text| text.parse().ok()).ok_or("its result is no number")?;
        Ok((self.now, self.now + HOLD, value))
    }
}

/// Begin, end, value.
type Slot = (i64, i64, f64);

fn array<'a>(answer: &'a Value, name: &str) -> Result<&'a [Value], String> {
    answer[name].as_array().map(Vec::as_slice).ok_or_else(|| format!("its answer has no list {name:?}"))
}

fn at(value: &Value, name: &str) -> Result<i64, String> {
    let time = value[name].as_str().and_then(seconds);
    time.ok_or_else(|| format!("its answer has no time {name:?} with an offset"))
}

/// `from`, `to`, and `intensity` with `actual` or `forecast`, in `data` or, of a region, in `data.data`.
fn slots(answer: &Value) -> Result<Vec<Slot>, String> {
    let data = if answer["data"].is_object() { &answer["data"] } else { answer };
    let slot = |one: &Value| {
        let intensity = &one["intensity"];
        let value = intensity["actual"].as_f64().or_else(|| intensity["forecast"].as_f64());
        Ok((at(one, "from")?, at(one, "to")?, value.unwrap_or(f64::NAN)))
    };
    array(data, "data")?.iter().map(slot).collect()
}

/// Values at times; those that are `null` are left out. `period`: how long each holds, in seconds.
fn points(list: &[Value], time: &str, value: &str, period: i64) -> Result<Vec<Slot>, String> {
    let point = |one: &Value| {
        let from = at(one, time)?;
        Ok((from, from.saturating_add(period), one[value].as_f64().unwrap_or(f64::NAN)))
    };
    list.iter().map(point).collect()
}

/// `unix_seconds` and a list of values beside it: the first of `names` that has one.
fn columns(answer: &Value, names: &[&str], scale: f64) -> Result<Vec<Slot>, String> {
    let times: Option<Vec<i64>> = array(answer, "unix_seconds")?.iter().map(Value::as_i64).collect();
    let times = times.ok_or("its times are no numbers")?;
    let value = |at: usize| names.iter().find_map(|name| answer[*name].get(at)?.as_f64());
    let step =
        times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).filter(|step| *step > 0).min().unwrap_or(3600);
    let slot = |(at, from): (usize, &i64)| {
        (*from, from.saturating_add(step), value(at).map_or(f64::NAN, |value| value * scale))
    };
    Ok(times.iter().enumerate().map(slot).collect())
}

fn watttime(answer: &Value) -> Result<Vec<Slot>, String> {
    match answer["meta"]["units"].as_str() {
        Some("lbs_co2_per_mwh") => {}
        other => return Err(format!("its unit is {other:?}, where \"lbs_co2_per_mwh\" is documented")),
    }
    let period = answer["meta"]["data_point_period_seconds"].as_i64().unwrap_or(300);
    let points = points(array(answer, "data")?, "point_time", "value", period)?;
    Ok(points.into_iter().map(|(from, until, value)| (from, until, value * POUNDS_BY_MWH)).collect())
}

/// WattTime's token of a login.
pub fn token(answer: &Value) -> Result<String, String> {
    answer["token"].as_str().map(str::to_owned).ok_or_else(|| "its answer to the login has no token".to_owned())
}
