//! The messages of Prometheus remote write 1.0 (`prometheus.WriteRequest`) and 2.0 (`io.prometheus.write.v2.Request`),
//! written by hand: nothing needs protoc. A [`Frame`] is a request of version 2.0; the log keeps it as it is sent.

use super::series::{About, Series};
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;

/// The value of the last sample of a series that has ended: a NaN with these bits.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

const COUNTER: i32 = 1;
const GAUGE: i32 = 2;

/// Version 1.0.
pub mod v1 {
    /// A request.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WriteRequest {
        /// Series with their samples.
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
        /// What the families are.
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<MetricMetadata>,
    }

    /// One series.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        /// Its labels, in the order of their names.
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        /// Its samples, in the order of time.
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
    }

    /// A label.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Label {
        /// Its name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its value.
        #[prost(string, tag = "2")]
        pub value: String,
    }

    /// A sample.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Sample {
        /// Its value.
        #[prost(double, tag = "1")]
        pub value: f64,
        /// Milliseconds since 1970.
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }

    /// What a family is.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricMetadata {
        /// 1: counter, 2: gauge.
        #[prost(int32, tag = "1")]
        pub kind: i32,
        /// The family's name.
        #[prost(string, tag = "2")]
        pub metric_family_name: String,
        /// What it means.
        #[prost(string, tag = "4")]
        pub help: String,
        /// Its unit.
        #[prost(string, tag = "5")]
        pub unit: String,
    }
}

/// Version 2.0.
pub mod v2 {
    /// A request. Texts are numbers of `symbols`, of which the first is empty.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        /// Every text of the request once.
        #[prost(string, repeated, tag = "4")]
        pub symbols: Vec<String>,
        /// Series with their samples.
        #[prost(message, repeated, tag = "5")]
        pub timeseries: Vec<TimeSeries>,
    }

    /// One series.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        /// Names and values of its labels in turn, in the order of their names.
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        /// Its samples, in the order of time.
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        /// What it is.
        #[prost(message, optional, tag = "5")]
        pub metadata: Option<Metadata>,
    }

    /// A sample.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Sample {
        /// Its value.
        #[prost(double, tag = "1")]
        pub value: f64,
        /// Milliseconds since 1970.
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
        /// When its counter began at zero; 0: not known, or it is no counter.
        #[prost(int64, tag = "3")]
        pub start_timestamp: i64,
    }

    /// What a series is.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Metadata {
        /// 1: counter, 2: gauge.
        #[prost(int32, tag = "1")]
        pub kind: i32,
        /// What it means.
        #[prost(uint32, tag = "3")]
        pub help_ref: u32,
        /// Its unit.
        #[prost(uint32, tag = "4")]
        pub unit_ref: u32,
    }
}

/// Samples of one time, as a request of version 2.0.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Time of all samples, milliseconds since 1970.
    pub at: i64,
    /// The samples, one of each series.
    pub request: v2::Request,
}

impl Frame {
    /// A frame of series at one time.
    pub fn new<'a>(at: i64, series: impl IntoIterator<Item = &'a Series>) -> Self {
        let mut symbols = Symbols::default();
        let timeseries = series.into_iter().map(|one| one.encode(at, &mut symbols)).collect();
        Self { at, request: v2::Request { symbols: symbols.texts, timeseries } }
    }

    /// From the bytes of a request; `None`: it is none, or refers to texts that it does not have.
    pub fn decode(at: i64, bytes: &[u8]) -> Option<Self> {
        let request = v2::Request::decode(bytes).ok()?;
        let count = request.symbols.len();
        let is_whole = |series: &v2::TimeSeries| {
            let metadata = series.metadata.unwrap_or_default();
            let refs = series.labels_refs.iter().chain([&metadata.help_ref, &metadata.unit_ref]);
            series.labels_refs.len().is_multiple_of(2) && refs.into_iter().all(|at| (*at as usize) < count)
        };
        request.timeseries.iter().all(is_whole).then_some(Self { at, request })
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.request.timeseries.len()
    }

    /// The frame with these series alone. Texts that no series of it has any more stay.
    pub fn part(&self, from: usize, to: usize) -> Self {
        let timeseries = self.request.timeseries.get(from..to).unwrap_or_default().to_vec();
        Self { at: self.at, request: v2::Request { symbols: self.request.symbols.clone(), timeseries } }
    }

    /// Removes series that are not wanted. Returns how many there were.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&[(&str, &str)]) -> bool) -> usize {
        let before = self.samples();
        let v2::Request { symbols, timeseries } = &mut self.request;
        timeseries.retain(|series| is_wanted(&labels(symbols, series)));
        before - timeseries.len()
    }

    /// The labels of a series, in the order of their names.
    pub fn labels(&self, number: usize) -> Vec<(&str, &str)> {
        self.request.timeseries.get(number).map(|series| labels(&self.request.symbols, series)).unwrap_or_default()
    }

    /// The same in version 1.0. `with_metadata`: with what the families are.
    pub fn version_1(&self, with_metadata: bool) -> v1::WriteRequest {
        let symbol = |at: u32| self.request.symbols.get(at as usize).cloned().unwrap_or_default();
        let mut families: HashMap<String, v1::MetricMetadata> = HashMap::new();
        let mut timeseries = Vec::with_capacity(self.samples());
        for (number, series) in self.request.timeseries.iter().enumerate() {
            let labels = self.labels(number);
            if let Some(metadata) = series.metadata.filter(|_| with_metadata) {
                let name = labels.iter().find(|(name, _)| *name == "__name__").map_or("", |(_, value)| value);
                families.entry(name.to_owned()).or_insert_with(|| v1::MetricMetadata {
                    kind: metadata.kind,
                    metric_family_name: name.to_owned(),
                    help: symbol(metadata.help_ref),
                    unit: symbol(metadata.unit_ref),
                });
            }
            let label = |(name, value): (&str, &str)| v1::Label { name: name.to_owned(), value: value.to_owned() };
            let sample = |sample: &v2::Sample| v1::Sample { value: sample.value, timestamp: sample.timestamp };
            timeseries.push(v1::TimeSeries {
                labels: labels.into_iter().map(label).collect(),
                samples: series.samples.iter().map(sample).collect(),
            });
        }
        let mut metadata: Vec<_> = families.into_values().collect();
        metadata.sort_by(|one, other| one.metric_family_name.cmp(&other.metric_family_name));
        v1::WriteRequest { timeseries, metadata }
    }
}

fn labels<'a>(symbols: &'a [String], series: &v2::TimeSeries) -> Vec<(&'a str, &'a str)> {
    let symbol = |at: u32| symbols.get(at as usize).map_or("", String::as_str);
    series.labels_refs.chunks_exact(2).map(|pair| (symbol(pair[0]), symbol(pair[1]))).collect()
}

/// The texts of a request.
struct Symbols {
    texts: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { texts: vec![String::new()], numbers: HashMap::from([(String::new(), 0)]) }
    }
}

impl Symbols {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

impl Series {
    fn encode(&self, at: i64, symbols: &mut Symbols) -> v2::TimeSeries {
        let About { is_counter, unit, help } = &*self.about;
        let labels_refs = self.labels.iter().flat_map(|(name, value)| [symbols.number(name), symbols.number(value)]);
        v2::TimeSeries {
            labels_refs: labels_refs.collect(),
            samples: vec![v2::Sample { value: self.value, timestamp: at, start_timestamp: self.since }],
            metadata: Some(v2::Metadata {
                kind: if *is_counter { COUNTER } else { GAUGE },
                help_ref: symbols.number(help),
                unit_ref: symbols.number(unit),
            }),
        }
    }

    /// The marker of its end.
    pub fn ended(labels: Arc<super::series::Labels>, about: Arc<About>) -> Self {
        Self { labels, about, since: 0, value: f64::from_bits(STALE) }
    }
}
