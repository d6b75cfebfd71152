//! Sums of energy, carbon and cost over intervals, each of which has its own measures and currencies.

use super::part::Sum;
use crate::history::encoding::Header;
use crate::history::slot::{AmountPart, ZonePart};

/// Energy; and carbon and cost in the order of [`NodeAmounts::parts`], as many as the intervals so far had.
#[derive(Clone, Debug, Default)]
pub(in crate::history) struct Sums(pub Sum, pub Vec<Sum>);

impl Sums {
    /// Adds an amount.
    fn add_at(&mut self, at: usize, sum: Sum) {
        if self.1.len() <= at {
            self.1.resize(at + 1, Sum::default());
        }
        self.1[at].add(sum);
    }

    /// Adds those of one line of an interval, whose amounts are pairs (of work, of idle energy) with these places.
    pub fn add_line(&mut self, energy: Sum, amounts: &[i64], places: &[usize]) {
        self.0.add(energy);
        for (pair, at) in amounts.as_chunks::<2>().0.iter().zip(places) {
            self.add_at(*at, Sum { dynamic: pair[0], idle: pair[1] });
        }
    }

    /// Adds those of another line.
    pub fn add(&mut self, other: &Self) {
        self.0.add(other.0);
        other.1.iter().enumerate().for_each(|(at, sum)| self.add_at(at, *sum));
    }
}

/// The node's carbon and cost, added up over intervals.
#[derive(Clone, Debug, Default)]
pub(in crate::history) struct NodeAmounts {
    /// A part for each measure and unit.
    pub parts: Vec<AmountPart>,
    /// The node's energy in all intervals so far, in µJ.
    energy: u64,
}

impl NodeAmounts {
    /// Adds an interval. Returns the places of its amounts in `parts`.
    pub fn add(&mut self, header: &Header) -> Vec<usize> {
        let energy = ZonePart::billed_total(&header.zones);
        let mut absent: Vec<usize> = (0..self.parts.len()).collect();
        let mut places = Vec::new();
        for part in &header.amounts {
            let at = self.parts.iter().position(|one| one.is_of(part)).unwrap_or_else(|| {
                let (measure, unit) = (part.measure.clone(), part.unit.clone());
                // Energy of intervals without this measure has no amount.
                self.parts.push(AmountPart { measure, unit, uncounted: self.energy, ..AmountPart::default() });
                self.parts.len() - 1
            });
            self.parts[at].add(part);
            absent.retain(|one| *one != at);
            places.push(at);
        }
        for at in absent {
            self.parts[at].uncounted = self.parts[at].uncounted.saturating_add(energy);
        }
        self.energy = self.energy.saturating_add(energy);
        places
    }
}
