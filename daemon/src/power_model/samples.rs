//! Samples for training and evaluation, from CSV. One line is one window of a machine: what ran, and the power that
//! meters saw. The columns, in any order:
//!
//! ```text
//! regime,seconds,busy,cycles,instructions,llc_misses,package_watts,dram_watts,platform_watts
//! ```
//!
//! `busy` is CPU-seconds per second of all threads together; counters are per second. A field that is not known is
//! empty. Two more columns are read where they are there: `time` (seconds since any moment, must not go back) and `ghz`
//! (mean frequency of busy CPUs, from APERF/MPERF or cycles per reference cycle). All others are left alone.

use super::{Features, csv};
use std::borrow::Cow;
use std::fmt;

/// Columns that every file has.
pub const COLUMNS: [&str; 9] = [
    "regime",
    "seconds",
    "busy",
    "cycles",
    "instructions",
    "llc_misses",
    "package_watts",
    "dram_watts",
    "platform_watts",
];
const OPTIONAL: [&str; 2] = ["time", "ghz"];
/// More power than any one machine has: a unit is wrong.
const MOST_WATTS: f64 = 1e6;
/// The longest window in seconds, some 12 days: what ran in a longer one is not known. Milliseconds are found by it.
const LONGEST: f64 = 1e6;
/// More threads than any one machine has.
const MOST_THREADS: f64 = 65_536.0;
/// More events per second than all of these could count: 16 each of 10 GHz.
const MOST_EVENTS: f64 = MOST_THREADS * 1.6e11;

/// The domain of which a model says the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// All processor packages together.
    Package,
    /// All memory that is metered apart.
    Dram,
    /// The whole machine.
    Platform,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Package, Self::Dram, Self::Platform];

    /// Its name in arguments and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Dram => "dram",
            Self::Platform => "platform",
        }
    }

    /// The target of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.as_str() == name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.as_str())
    }
}

/// One window of a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// What ran: `stress@2000` (with the frequency in MHz), an application, `idle`.
    pub regime: String,
    /// Length of the window in seconds.
    pub seconds: f64,
    /// CPU-seconds per second, of all threads together; `None`: not known.
    pub busy: Option<f64>,
    /// Cycles per second.
    pub cycles: Option<f64>,
    /// Instructions per second.
    pub instructions: Option<f64>,
    /// Misses of the last-level cache per second.
    pub cache_misses: Option<f64>,
    /// Mean frequency of busy CPUs in GHz.
    pub ghz: Option<f64>,
    /// Power of the packages in watts.
    pub package: Option<f64>,
    /// Power of the memory in watts.
    pub dram: Option<f64>,
    /// Power of the machine in watts.
    pub platform: Option<f64>,
}

impl Sample {
    /// The power of `target` in watts; `None`: not measured.
    pub const fn watts(&self, target: Target) -> Option<f64> {
        match target {
            Target::Package => self.package,
            Target::Dram => self.dram,
            Target::Platform => self.platform,
        }
    }

    /// Its features on a machine of `threads` hardware threads; `None` where the busy time is not known.
    pub fn features(&self, threads: f64) -> Option<Features> {
        Some(Features {
            // More busy time than threads is a sample whose parts are not of one time; it is full load at most.
            busy: (self.busy? / threads).clamp(0.0, 1.0),
            cycles: self.cycles,
            instructions: self.instructions,
            cache_misses: self.cache_misses,
            ghz: self.ghz,
        })
    }

    /// What ran, without the frequency.
    pub fn workload(&self) -> &str {
        workload(&self.regime)
    }

    /// Whether nothing in particular ran.
    pub fn is_idle(&self) -> bool {
        self.workload() == "idle"
    }
}

/// The part of a regime's name before its frequency.
pub fn workload(regime: &str) -> &str {
    match regime.rsplit_once('@') {
        Some((workload, _)) if megahertz(regime).is_some() => workload,
        _ => regime,
    }
}

/// The frequency in a regime's name, `stress@2000`, in MHz.
pub fn megahertz(regime: &str) -> Option<f64> {
    let number: f64 = regime.rsplit_once('@')?.1.parse().ok()?;
    (100.0..=10_000.0).contains(&number).then_some(number)
}

/// Why samples cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// Not a table with these columns.
    #[error("line 1: {0}")]
    Head(String),
    /// One field is wrong.
    #[error("line {line}, column {column} ({name}): {why}")]
    Field {
        /// Number of the line, from 1.
        line: usize,
        /// Number of the column, from 1.
        column: usize,
        /// Name of the column.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// One line is wrong.
    #[error("line {line}: {why}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// No sample.
    #[error("no sample follows the line of column names")]
    Empty,
}

/// Reads samples from the text of a CSV file.
///
/// # Errors
/// Names line and column. One wrong field is an error: a file that is wrong in one place may be wrong in many.
pub fn read(text: &str) -> Result<Vec<Sample>, SampleError> {
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let head = lines.next().map(|(_, line)| line.trim()).unwrap_or_default();
    let names = csv::fields(head).map_err(SampleError::Head)?;
    if let Some(other) = [';', '\t'].into_iter().find(|other| names.len() == 1 && head.contains(*other)) {
        return Err(SampleError::Head(format!("its fields are separated by {other:?}: separate them by commas")));
    }
    let position = |name: &str| names.iter().position(|one| *one == name);
    let missing: Vec<&str> = COLUMNS.into_iter().filter(|name| position(name).is_none()).collect();
    if !missing.is_empty() {
        return Err(SampleError::Head(format!(
            "the column {} is missing: the first line has to name the columns {}; leave the fields of a column empty \
             where they are not known",
            missing.join(", "),
            COLUMNS.join(",")
        )));
    }
    if let Some(twice) =
        COLUMNS.iter().chain(&OPTIONAL).find(|name| names.iter().filter(|one| one == *name).count() > 1)
    {
        return Err(SampleError::Head(format!("the column {twice} is there twice: leave one of them")));
    }
    let mut samples = Vec::new();
    let mut before: Option<f64> = None;
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let (line, text) = (number + 1, line);
        let fields = csv::fields(text).map_err(|why| SampleError::Line { line, why })?;
        if fields.len() != names.len() {
            let hint = match fields.len() < names.len() {
                true => "is the line cut short?",
                false => "a field with a comma in it has to be in quotes, and numbers have a point, not a comma",
            };
            let why = format!("{} fields, but {} columns: {hint}", fields.len(), names.len());
            return Err(SampleError::Line { line, why });
        }
        let row = Row { line, names: &names, fields: &fields };
        samples.push(row.sample()?);
        let time = if position("time").is_some() { row.number("time")? } else { None };
        if let (Some(before), Some(time)) = (before, time)
            && time < before
        {
            return Err(row.wrong("time", format!("the time goes back, from {before} to {time}: sort the samples")));
        }
        before = time.or(before);
    }
    if samples.is_empty() { Err(SampleError::Empty) } else { Ok(samples) }
}

struct Row<'a> {
    line: usize,
    names: &'a [Cow<'a, str>],
    fields: &'a [Cow<'a, str>],
}

impl Row<'_> {
    fn wrong(&self, name: &str, why: String) -> SampleError {
        let column = self.names.iter().position(|one| *one == name).map_or(0, |position| position + 1);
        SampleError::Field { line: self.line, column, name: name.to_owned(), why }
    }

    fn text(&self, name: &str) -> &str {
        self.names.iter().position(|one| *one == name).map_or("", |position| &self.fields[position])
    }

    /// A finite number; `None`: the field is empty.
    fn number(&self, name: &str) -> Result<Option<f64>, SampleError> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        let shown: String = text.chars().filter(|one| !one.is_control()).take(40).collect();
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            Ok(_) => {
                Err(self
                    .wrong(name, format!("{shown} is no finite number: leave the field empty where it is not known")))
            }
            Err(_) => {
                Err(self.wrong(name, format!("\"{shown}\" is no number: leave the field empty where it is not known")))
            }
        }
    }

    /// A number that is not negative.
    fn amount(&self, name: &str) -> Result<Option<f64>, SampleError> {
        match self.number(name)? {
            Some(number) if number < 0.0 => Err(self.wrong(name, format!("{number} is negative"))),
            number => Ok(number),
        }
    }

    fn power(&self, name: &str) -> Result<Option<f64>, SampleError> {
        match self.amount(name)? {
            Some(watts) if watts > MOST_WATTS => {
                Err(self.wrong(name, format!("{watts} W is more than any machine draws: the unit is watts")))
            }
            watts => Ok(watts),
        }
    }

    fn events(&self, name: &str) -> Result<Option<f64>, SampleError> {
        match self.amount(name)? {
            Some(number) if number > MOST_EVENTS => {
                Err(self.wrong(name, format!("{number:e} a second is more than any machine counts")))
            }
            number => Ok(number),
        }
    }

    fn sample(&self) -> Result<Sample, SampleError> {
        let regime = self.text("regime");
        if regime.is_empty() {
            return Err(self.wrong("regime", "it is empty: name what ran, or write idle".to_owned()));
        }
        let seconds = match self.number("seconds")? {
            Some(seconds) if seconds > LONGEST => {
                let why = format!("a window of {seconds:e} s is too long (at most {LONGEST:e} s): the unit is seconds");
                return Err(self.wrong("seconds", why));
            }
            Some(seconds) if seconds > 0.0 => seconds,
            Some(seconds) => {
                let why = format!("a window of {seconds} s: the time must not stand still or go back");
                return Err(self.wrong("seconds", why));
            }
            None => return Err(self.wrong("seconds", "it is empty: the length of the window is needed".to_owned())),
        };
        let ghz = match self.amount("ghz")? {
            Some(ghz) if !(0.05..=20.0).contains(&ghz) => {
                return Err(self.wrong("ghz", format!("{ghz} is no frequency of a CPU: the unit is GHz")));
            }
            Some(ghz) => Some(ghz),
            None => megahertz(regime).map(|megahertz| megahertz / 1000.0),
        };
        Ok(Sample {
            regime: regime.to_owned(),
            seconds,
            busy: match self.amount("busy")? {
                Some(busy) if busy > MOST_THREADS => {
                    let why = format!("{busy:e} CPU-seconds a second are more than any machine has threads");
                    return Err(self.wrong("busy", why));
                }
                busy => busy,
            },
            cycles: self.events("cycles")?,
            instructions: self.events("instructions")?,
            cache_misses: self.events("llc_misses")?,
            ghz,
            package: self.power("package_watts")?,
            dram: self.power("dram_watts")?,
            platform: self.power("platform_watts")?,
        })
    }
}

/// The number of hardware threads that the samples show, rounded up: the most busy time that more than single samples
/// have. Busy time of single samples can be of a longer time than their length, and so be more than all threads.
pub fn threads<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<f64> {
    let mut busy: Vec<f64> = samples.filter_map(|sample| sample.busy).filter(|busy| *busy > 0.0).collect();
    busy.sort_by(|one, other| other.total_cmp(one));
    let support = (busy.len() / 200).max(2);
    let most = busy
        .iter()
        .enumerate()
        .find(|(position, most)| busy.get(position + support).is_some_and(|later| *later >= 0.8 * **most));
    // A thread is not busy for longer than the time, except for rounding.
    most.map(|(_, most)| *most).or(busy.first().copied()).map(|most| (most - 0.02).ceil().max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "regime,seconds,busy,cycles,instructions,llc_misses,package_watts,dram_watts,platform_watts\n";

    fn wrong(rows: &str) -> String {
        read(&format!("{HEAD}{rows}")).unwrap_err().to_string()
    }

    #[test]
    fn samples_are_read_with_what_is_not_known() {
        let samples = read(&format!("{HEAD}cpu@2800,3,12.5,1e10,2e10,,60.5,,\nidle,3,0.5,,,,30,8,190\n\n")).unwrap();
        assert_eq!(samples.len(), 2);
        let first = &samples[0];
        assert_eq!((first.ghz, first.workload(), first.cache_misses), (Some(2.8), "cpu", None));
        assert_eq!((first.watts(Target::Package), first.watts(Target::Dram)), (Some(60.5), None));
        assert_eq!(first.features(25.0).unwrap().busy, 0.5);
        assert_eq!(first.features(10.0).unwrap().busy, 1.0, "more than all threads is full load");
        assert!(samples[1].is_idle() && samples[1].ghz.is_none());
        let quoted = read(&format!("\u{feff}{HEAD}\"a, \"\"b\"\"@2000\",\"3\",1,,,,60,,\n")).unwrap();
        assert_eq!((quoted[0].workload(), quoted[0].seconds), ("a, \"b\"", 3.0));
        let reordered = "platform_watts,time,regime,seconds,busy,cycles,instructions,llc_misses,package_watts,\
                         dram_watts\r\n150,5,a@b,2,1,,,,,\r\n";
        let samples = read(reordered).unwrap();
        assert_eq!((samples[0].platform, samples[0].workload()), (Some(150.0), "a@b"));
    }

    #[test]
    fn what_is_wrong_is_named_with_line_and_column() {
        assert!(wrong("a,3,x,,,,1,,\n").starts_with("line 2, column 3 (busy): \"x\" is no number"));
        assert!(wrong("a,3,1,,,,1,,\na,3,1,nan,,,1,,\n").starts_with("line 3, column 4 (cycles): nan is no finite"));
        assert_eq!(wrong("a,3,1,,,,-4,,\n"), "line 2, column 7 (package_watts): -4 is negative");
        assert!(wrong("a,3,1,,,,3e7,,\n").contains("column 7 (package_watts): 30000000 W is more"));
        assert!(wrong("a,-3,1,,,,4,,\n").contains("column 2 (seconds): a window of -3 s"));
        assert!(wrong("a,,1,,,,4,,\n").contains("column 2 (seconds): it is empty"));
        assert!(wrong(",3,1,,,,4,,\n").contains("column 1 (regime)"));
        assert!(wrong("a,3,1,,\n").starts_with("line 2: 5 fields, but 9 columns: is the line cut short?"));
        assert!(wrong("a,3,1,5,,,,4,,\n").starts_with("line 2: 10 fields, but 9 columns: a field with a comma"));
        assert!(wrong("\"a,3,1,,,,4,,\n").starts_with("line 2: a quote is not closed"));
        assert!(wrong("a,1e300,1,,,,4,,\n").contains("column 2 (seconds): a window of 1e300 s is too long"));
        assert!(wrong("a,3,1e300,,,,4,,\n").contains("column 3 (busy): 1e300 CPU-seconds"));
        assert!(wrong("a,3,1,1e300,,,4,,\n").contains("column 4 (cycles): 1e300 a second"));
        let other = read(&HEAD.replace(',', ";")).unwrap_err().to_string();
        assert_eq!(other, "line 1: its fields are separated by ';': separate them by commas");
        assert_eq!(wrong(""), "no sample follows the line of column names");
        let missing = read("regime,seconds,busy\n").unwrap_err().to_string();
        assert!(missing.starts_with("line 1: the column cycles, instructions, llc_misses, package_watts"), "{missing}");
        assert!(read("").unwrap_err().to_string().contains("the column regime"));
        let twice = read(&HEAD.replace("dram_watts", "busy,dram_watts")).unwrap_err().to_string();
        assert_eq!(twice, "line 1: the column busy is there twice: leave one of them");
    }

    #[test]
    fn time_does_not_go_back() {
        let head = HEAD.replace("regime", "time,regime");
        assert!(read(&format!("{head}5,a,3,1,,,,1,,\n5,a,3,1,,,,1,,\n8,a,3,1,,,,1,,\n")).is_ok());
        let wrong = read(&format!("{head}5,a,3,1,,,,1,,\n4.5,a,3,1,,,,1,,\n")).unwrap_err().to_string();
        assert_eq!(wrong, "line 3, column 1 (time): the time goes back, from 5 to 4.5: sort the samples");
    }

    #[test]
    fn the_number_of_threads_is_not_that_of_one_bad_sample() {
        let of = |busy: &[f64]| {
            let samples: Vec<Sample> =
                busy.iter().map(|busy| Sample { busy: Some(*busy), ..Sample::default() }).collect();
            threads(samples.iter())
        };
        assert_eq!(of(&[0.5, 23.4, 23.99, 24.0, 112.0]), Some(24.0));
        assert_eq!(of(&[29.2, 28.1, 27.0, 3.0]), Some(30.0));
        assert_eq!(of(&[0.1]), Some(1.0));
        assert_eq!(of(&[]), None);
    }
}
