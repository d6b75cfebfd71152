//! Prices by the time of day, of the local clock. In the night in which clocks are set back, an hour comes twice and
//! has its price twice; in the night in which clocks are set forward, an hour never comes.

use super::micro;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use std::sync::Arc;

const DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// One of `[[price.tariff]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tariff {
    /// Its name in reports.
    pub name: String,
    /// Price of a kWh. May be negative.
    pub price: f64,
    /// Begin, as `22:00`. Default: the begin of the day.
    #[serde(default)]
    pub from: Option<String>,
    /// End, as `06:00`: of the next day where it is not after the begin. Default: the end of the day.
    #[serde(default)]
    pub until: Option<String>,
    /// Days on which it begins: `mon-fri`, `sat,sun`. Default: all.
    #[serde(default)]
    pub days: Option<String>,
    /// Months in which it begins: `nov-mar`. Default: all.
    #[serde(default)]
    pub months: Option<String>,
}

/// A checked tariff.
#[derive(Clone, Debug)]
struct Window {
    per_kwh: i64,
    name: Arc<str>,
    /// Minutes of the day.
    from: u16,
    until: u16,
    days: [bool; 7],
    months: [bool; 12],
}

impl Window {
    /// Whether it has a minute of a day; `eve` is the day before: weekday and month, from 0.
    fn has(&self, minute: u16, day: (usize, usize), eve: (usize, usize)) -> bool {
        let begins_on = |(weekday, month): (usize, usize)| self.days[weekday] && self.months[month];
        if self.from < self.until {
            return (self.from..self.until).contains(&minute) && begins_on(day);
        }
        (minute >= self.from && begins_on(day)) || (minute < self.until && begins_on(eve))
    }
}

/// All tariffs of a price.
#[derive(Clone, Debug)]
pub struct Tariffs {
    windows: Vec<Window>,
    zone: TimeZone,
}

/// `22:00` as minutes; `24:00` is the end of the day.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if plain { text.parse::<u16>().ok() } else { None }
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
}

/// `mon-fri,sun` as one flag for each word of `words`. A range may go over the end: `nov-mar`.
fn flags<const N: usize>(text: Option<&str>, words: &[&str; N]) -> Option<[bool; N]> {
    let Some(text) = text else { return Some([true; N]) };
    let mut flags = [false; N];
    let number = |word: &str| words.iter().position(|known| known.eq_ignore_ascii_case(word.trim()));
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (number(first)?, number(last)?);
        flags[at] = true;
        while at != last {
            at = (at + 1) % N;
            flags[at] = true;
        }
    }
    Some(flags)
}

impl Tariffs {
    /// Checks tariffs.
    ///
    /// # Errors
    /// The key in `[price]` that cannot be used, and why: a text that cannot be read, a zone that is not known, or two
    /// tariffs of the same time.
    pub fn new(tariffs: &[Tariff], zone: Option<&str>) -> Result<Self, (String, String)> {
        let zone = match zone {
            None => TimeZone::system(),
            Some(name) => TimeZone::get(name).map_err(|_| {
                let why = format!("no time zone {name:?} is known here: wanted is one such as \"Europe/Berlin\"");
                ("time_zone".to_owned(), why)
            })?,
        };
        let mut windows = Vec::new();
        for (at, tariff) in tariffs.iter().enumerate() {
            let named = |key: &str, wanted: &str| {
                (format!("tariff.{at}.{key}"), format!("tariff {:?}: wanted: {wanted}", tariff.name))
            };
            let time = |key: &str, text: Option<&str>, default: u16| {
                let wanted = || named(key, "a time of day from \"00:00\" to \"24:00\"");
                text.map_or(Some(default), minutes).ok_or_else(wanted)
            };
            let (from, until) =
                (time("from", tariff.from.as_deref(), 0)?, time("until", tariff.until.as_deref(), DAY)?);
            if from == DAY || from == until {
                return Err(named("from", "a begin that is not the end"));
            }
            let days = flags(tariff.days.as_deref(), &DAYS);
            let months = flags(tariff.months.as_deref(), &MONTHS);
            windows.push(Window {
                per_kwh: micro(tariff.price),
                name: format!("tariff {}", tariff.name).into(),
                from,
                until,
                days: days.ok_or_else(|| named("days", "days such as \"mon-fri,sun\""))?,
                months: months.ok_or_else(|| named("months", "months such as \"nov-mar\""))?,
            });
        }
        let all = Self { windows, zone };
        let mut overlap = None;
        all.every_minute(|at, found| match found {
            [one, other, ..] => {
                overlap = Some((one.name.to_string(), other.name.to_string(), at.to_owned()));
                true
            }
            _ => false,
        });
        match overlap {
            None => Ok(all),
            Some((one, other, at)) => {
                let why = format!("{one} and {other} both have a price for {at}: times of tariffs must not overlap");
                Err(("tariff".to_owned(), why))
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The first time of the week, in words, that no tariff has.
    pub fn gap(&self) -> Option<String> {
        let mut gap = None;
        self.every_minute(|at, found| {
            if found.is_empty() {
                gap = Some(at.to_owned());
            }
            found.is_empty()
        });
        gap
    }

    /// Calls `each` with every minute at which a tariff may begin or end, on every day of every month, until it returns
    /// true.
    fn every_minute(&self, mut each: impl FnMut(&str, &[&Window]) -> bool) {
        let mut edges: Vec<u16> = self.windows.iter().flat_map(|one| [one.from, one.until]).chain([0]).collect();
        edges.retain(|edge| *edge < DAY);
        edges.sort_unstable();
        edges.dedup();
        for (month, month_name) in MONTHS.iter().enumerate() {
            for (weekday, day_name) in DAYS.iter().enumerate() {
                for before in [month, (month + 11) % 12] {
                    for minute in &edges {
                        let eve = ((weekday + 6) % 7, before);
                        let has = |one: &&Window| one.has(*minute, (weekday, month), eve);
                        let found: Vec<&Window> = self.windows.iter().filter(has).collect();
                        let at = || {
                            let (hour, minute) = (minute / 60, minute % 60);
                            format!("{hour:02}:{minute:02} on {day_name} in {month_name}")
                        };
                        // The text is made only for a time that the message names.
                        let text = if found.len() == 1 { String::new() } else { at() };
                        if each(&text, &found) {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// The price of a time in seconds since 1970, in millionths of the currency by kWh, and the tariff's name.
    pub fn at(&self, seconds: i64) -> Option<(i64, Arc<str>)> {
        let zoned = Timestamp::from_second(seconds).ok()?.to_zoned_datetime(self.zone.clone());
        let numbers = |date: jiff::civil::Date| {
            (
                usize::from(date.weekday().to_monday_zero_offset().unsigned_abs()),
                usize::from(date.month().unsigned_abs()) - 1,
            )
        };
        let (date, minute) =
            (zoned.date(), u16::from(zoned.hour().unsigned_abs()) * 60 + u16::from(zoned.minute().unsigned_abs()));
        let (day, eve) = (numbers(date), numbers(date.yesterday().ok()?));
        self.windows.iter().find(|one| one.has(minute, day, eve)).map(|one| (one.per_kwh, Arc::clone(&one.name)))
    }
}
