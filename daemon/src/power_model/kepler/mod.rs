//! Power models of Kepler (CNCF): its exported weights are read and written, and requests of its exporters (0.6 to 0.9)
//! are answered as its model server and its estimator do. Pure: texts in, texts out.
//!
//! Kepler's other export, an archive with a pickle of Python, is never read: loading a pickle runs code.
//!
//! - `weights`: the JSON of exported weights; `machine`: `machine_spec` in it
//! - `request` and `answer`: one exchange with the estimator
//! - `models`: all models of this machine, and which one answers; `served`: answers of the model server
//!
//! Features are per second. Shapes and known faults: docs/power-models.md, "Kepler's clients".

pub mod answer;
pub mod machine;
pub mod models;
pub mod own;
pub mod request;
pub mod served;
pub mod weights;

/// Whose power a model says, by the names that Kepler gives its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Package and DRAM, as RAPL measures them: `rapl-sysfs`, `intel_rapl` and all others with `rapl` in them.
    Rapl,
    /// The whole machine: `acpi`.
    Platform,
}

impl Source {
    /// The name in answers and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rapl => "rapl-sysfs",
            Self::Platform => "acpi",
        }
    }

    /// The source that a client names. Clients that name none mean RAPL.
    pub fn named(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "" | "none" => Some(Self::Rapl),
            rapl if rapl.contains("rapl") => Some(Self::Rapl),
            "acpi" | "platform" | "redfish" => Some(Self::Platform),
            _ => None,
        }
    }
}

/// What a model is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A node, with its power at rest: one row.
    Absolute,
    /// Processes, without the power at rest: one row each.
    Dynamic,
}

impl Output {
    /// The word in requests and paths.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absolute => "AbsPower",
            Self::Dynamic => "DynPower",
        }
    }

    /// The output type of a word.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "AbsPower" => Some(Self::Absolute),
            "DynPower" => Some(Self::Dynamic),
            _ => None,
        }
    }
}

/// A part of a machine that has power of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// Processor packages.
    Package,
    /// Their cores.
    Core,
    /// The rest of them.
    Uncore,
    /// Memory.
    Dram,
    /// The whole machine.
    Platform,
}

impl Component {
    /// All, in the order of answers.
    pub const ALL: [Self; 5] = [Self::Package, Self::Core, Self::Uncore, Self::Dram, Self::Platform];

    /// The word in files and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Core => "core",
            Self::Uncore => "uncore",
            Self::Dram => "dram",
            Self::Platform => "platform",
        }
    }
}

/// CPU time in milliseconds per second.
pub const CPU_TIME: &str = "bpf_cpu_time_ms";
/// Hits of the page cache per second.
const PAGE_CACHE: &str = "bpf_page_cache_hit";
/// Last-level cache misses per second.
const CACHE_MISS: &str = "cache_miss";
/// Retired instructions per second.
const INSTRUCTIONS: &str = "cpu_instructions";

/// Today's name of a feature, and the factor from the old one's unit.
fn feature(name: &str) -> (&str, f64) {
    match name {
        "bpf_cpu_time_us" => (CPU_TIME, 1e-3),
        "irq_net_tx" => ("bpf_net_tx_irq", 1.0),
        "irq_net_rx" => ("bpf_net_rx_irq", 1.0),
        "irq_block" => ("bpf_block_irq", 1.0),
        other => (other, 1.0),
    }
}

/// Kepler's groups of features, each sorted by name.
const GROUPS: [(&str, &[&str]); 5] = [
    ("BPFOnly", &[CPU_TIME, PAGE_CACHE]),
    ("BPFIRQ", &["bpf_block_irq", CPU_TIME, "bpf_net_rx_irq", "bpf_net_tx_irq", PAGE_CACHE]),
    ("CounterOnly", &[CACHE_MISS, "cpu_cycles", INSTRUCTIONS]),
    ("Basic", &[CPU_TIME, PAGE_CACHE, CACHE_MISS, "cpu_cycles", INSTRUCTIONS]),
    (
        "CounterIRQCombined",
        &["bpf_block_irq", "bpf_net_rx_irq", "bpf_net_tx_irq", CACHE_MISS, "cpu_cycles", INSTRUCTIONS],
    ),
];

/// The group of these features, in any order; `Other` where Kepler has none.
fn group<'a>(features: impl Iterator<Item = &'a str>) -> &'static str {
    let mut features: Vec<&str> = features.collect();
    features.sort_unstable();
    GROUPS.iter().find(|(_, group)| *group == features).map_or("Other", |(name, _)| name)
}

#[cfg(test)]
mod tests;
