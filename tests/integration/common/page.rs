//! A metrics page, parsed for tests. Energies are whole microjoules, without rounding.

#[path = "../../../daemon/src/export/prometheus/tests/parse.rs"]
#[allow(dead_code, reason = "shared with the unit tests of the export")]
mod parse;

use std::collections::BTreeMap;

/// A series: its name and labels.
pub type Series = (String, BTreeMap<String, String>);

/// A parsed page.
#[derive(Debug, Default)]
pub struct Page {
    /// Name of a family → `counter` or `gauge`.
    pub types: BTreeMap<String, String>,
    /// Every sample: series → value as printed.
    pub samples: BTreeMap<Series, String>,
}

impl Page {
    /// Parses the text format 0.0.4; panics on a format error.
    pub fn parse(text: &str) -> Self {
        let page = parse::parse(text, false);
        Self { types: page.families, samples: page.samples }
    }

    /// Parses an OpenMetrics page; panics on a format error.
    pub fn parse_open_metrics(text: &str) -> Self {
        let page = parse::parse(text, true);
        Self { types: page.families, samples: page.samples }
    }

    /// Values of the series `name` that have all of `labels`.
    pub fn values<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = f64> + 'a {
        let of = move |((own, has), _): &(&Series, &String)| {
            own == name && labels.iter().all(|(name, value)| has.get(*name).is_some_and(|has| has == value))
        };
        self.samples.iter().filter(of).map(|(_, value)| value.parse().unwrap())
    }

    /// The sum of a joules family in microjoules. Exact: below 2^53 a printed double stands for a single integer.
    pub fn microjoules(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.values(name, labels).map(|joules| (joules * 1e6).round() as u64).sum()
    }

    /// Counters of energy and use, which outlive the daemon, summed over the states of an entity.
    pub fn lasting(&self) -> BTreeMap<Series, f64> {
        let mut sums = BTreeMap::new();
        for ((name, labels), value) in &self.samples {
            let own = ["jouled_ticks", "jouled_cpu_", "jouled_usage_"].iter().any(|own| name.starts_with(own));
            if self.types[name] == "counter" && !own {
                let mut labels = labels.clone();
                labels.remove("state");
                *sums.entry((name.clone(), labels)).or_insert(0.0) += value.parse::<f64>().unwrap();
            }
        }
        sums
    }

    /// Fails where a lasting counter of `earlier` is lower here. Returns the number of series that ended.
    pub fn only_rose(&self, earlier: &Self) -> usize {
        let now = self.lasting();
        let mut gone = 0;
        for (series, before) in earlier.lasting() {
            match now.get(&series) {
                Some(after) => assert!(*after >= before, "{series:?} fell from {before} to {after}"),
                None => gone += 1,
            }
        }
        gone
    }

    /// Fails unless, to the microjoule, the energy of every zone is what was charged, unattributed and idle.
    pub fn adds_up(&self) {
        for zone in ["package", "core", "uncore", "dram", "psys"] {
            let here = [("zone", zone)];
            let node = |mode: &str| self.microjoules(&format!("kepler_node_cpu{mode}_joules_total"), &here);
            assert_eq!(node(""), node("_active") + node("_idle"), "{zone}");
            let charged = self.microjoules("kepler_process_cpu_joules_total", &here)
                + self.microjoules("jouled_process_rest_joules_total", &here)
                + self.microjoules("jouled_process_ended_joules_total", &here)
                + self.microjoules("jouled_process_parked_joules", &here);
            let unattributed = self.microjoules("jouled_unattributed_joules_total", &here);
            assert_eq!(charged + unattributed, node("_active"), "{zone}");
        }
    }
}
