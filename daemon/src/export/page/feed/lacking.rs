//! Domains of the machine's sum that cannot be read. For a while the curve of the machine is a gap then. Where they
//! stay unread, it goes on as the sum of the others, which is said beside it.

use crate::model::units::Nanos;
use std::collections::BTreeMap;

/// How long a domain is waited for.
const PATIENCE: Nanos = Nanos(30 * Nanos::SECOND.0);

/// The domains that have no power now.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    /// Since when each has none, CLOCK_BOOTTIME, by the words for it.
    since: BTreeMap<String, Nanos>,
    /// Those that the curve goes on without.
    without: Vec<String>,
}

impl Lacking {
    /// Takes in the domains without a power at `now`. Whether the curve is another sum from here on.
    pub fn step(&mut self, missing: impl Iterator<Item = String>, now: Nanos) -> bool {
        let mut earlier = std::mem::take(&mut self.since);
        for words in missing {
            let since = earlier.remove(&words).unwrap_or(now);
            self.since.insert(words, since);
        }
        let given_up = self.since.iter().filter(|(_, since)| now - **since >= PATIENCE);
        let without: Vec<String> = given_up.map(|(words, _)| words.clone()).collect();
        let is_other = without != self.without;
        self.without = without;
        is_other
    }

    /// Whether a domain is waited for.
    pub fn waits(&self) -> bool {
        self.since.len() > self.without.len()
    }

    /// The domains that the curve goes on without.
    pub fn without(&self) -> &[String] {
        &self.without
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_waited_for_and_then_left_out() {
        let mut lacking = Lacking::default();
        let mut step = |names: &[&str], second: u64| {
            let is_other = lacking.step(names.iter().map(|name| (*name).to_owned()), Nanos(second * Nanos::SECOND.0));
            (is_other, lacking.waits(), lacking.without().to_vec())
        };
        assert_eq!(step(&[], 1), (false, false, vec![]));
        assert_eq!(step(&["dram"], 10), (false, true, vec![]));
        assert_eq!(step(&["dram"], 39), (false, true, vec![]));
        assert_eq!(step(&["dram"], 40), (true, false, vec!["dram".into()]));
        assert_eq!(step(&["dram", "gpu"], 50), (false, true, vec!["dram".into()]));
        assert_eq!(step(&["dram"], 51), (false, false, vec!["dram".into()]));
        // One that returned is waited for again.
        assert_eq!(step(&[], 60), (true, false, vec![]));
        assert_eq!(step(&["dram"], 61), (false, true, vec![]));
    }
}
