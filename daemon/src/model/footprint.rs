//! Carbon and price: factors by the kilowatt hour, and amounts, which are energy times the factor of the time at which
//! it was drawn. This file has the only multiplication of both ([`Factor::product`]). Amounts are integers, so parts
//! add up to the whole. Which factor is valid is decided in `crate::footprint`.

use crate::model::units::Microjoules;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

/// Products (µJ times millionths of a unit by kWh) of a billionth of a unit: 3.6·10¹² µJ are a kWh.
const NANO: u128 = 3_600_000_000;
/// Millionths of a unit.
pub const MICRO: f64 = 1e6;

/// What is measured with a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// CO2-equivalents by the mix of the grid at this place: location-based.
    Co2eLocation,
    /// CO2-equivalents by the contract for the electricity: market-based.
    Co2eMarket,
    /// Money.
    Cost,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Co2eLocation, Self::Co2eMarket, Self::Cost];

    /// The word in files, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Co2eLocation => "co2e_location",
            Self::Co2eMarket => "co2e_market",
            Self::Cost => "cost",
        }
    }

    /// By its word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

/// The unit of amounts of CO2-equivalents.
pub const GRAMS: &str = "gCO2e";

/// A factor as it is at a time, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factor {
    /// What amounts it gives.
    pub measure: Measure,
    /// What amounts are in: [`GRAMS`], or a currency such as `EUR`.
    pub unit: Arc<str>,
    /// Millionths of the unit by kWh; `None`: no source has a value for this time.
    pub per_kwh: Option<i64>,
    /// Where the value comes from, by name: `country DEU 2024 (Ember, Our World in Data)`. Empty without a value.
    pub source: Arc<str>,
    /// Whether the value stands in for the source that is configured before it.
    #[serde(default)]
    pub fallback: bool,
    /// Begin of its validity, in seconds since 1970; `None`: not bounded.
    #[serde(default)]
    pub from: Option<i64>,
    /// End of its validity, in seconds since 1970; `None`: not bounded.
    #[serde(default)]
    pub until: Option<i64>,
    /// Why it is a fallback, or why there is no value; else empty.
    #[serde(default)]
    pub why: Arc<str>,
}

impl Factor {
    /// Energy times the factor, exactly, in [`Amount`]'s products; `None` without a value.
    pub fn product(&self, energy: Microjoules) -> Option<i128> {
        Some(product(i64::try_from(energy.0).unwrap_or(i64::MAX), self.per_kwh?))
    }

    /// The value in whole units by kWh.
    pub fn value(&self) -> Option<f64> {
        Some(self.per_kwh? as f64 / MICRO)
    }
}

/// Energy in µJ times a factor in millionths of a unit by kWh.
fn product(energy: i64, per_kwh: i64) -> i128 {
    i128::from(energy) * i128::from(per_kwh)
}

/// Energy in µJ times a factor in millionths of a unit by kWh, in billionths of the unit, to the nearest.
pub fn nano(energy: i64, per_kwh: i64) -> i64 {
    rounded(product(energy, per_kwh))
}

/// The factor by which `nano` billionths of a unit are of `energy` µJ, in millionths of a unit by kWh; 0 of nothing.
pub fn mean(nano: i64, energy: i64) -> i64 {
    if energy == 0 {
        return 0;
    }
    let products = i128::from(nano) * NANO.cast_signed();
    i64::try_from(products / i128::from(energy)).unwrap_or_default()
}

fn rounded(product: i128) -> i64 {
    let (size, half) = (product.unsigned_abs(), NANO / 2);
    let nano = i64::try_from((size + half) / NANO).unwrap_or(i64::MAX);
    if product < 0 { -nano } else { nano }
}

/// What was added up of products: what was to pay, and what was to get where a price was negative. Both only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Sum of products above 0.
    pub charge: u128,
    /// Sum of products below 0, without their sign.
    pub credit: u128,
}

impl Amount {
    /// Adds a product.
    pub fn add(&mut self, product: i128) {
        let to = if product < 0 { &mut self.credit } else { &mut self.charge };
        *to = to.saturating_add(product.unsigned_abs());
    }

    /// The larger of both in each direction: of two states of one amount, the later one.
    pub fn later_of(self, other: Self) -> Self {
        Self { charge: self.charge.max(other.charge), credit: self.credit.max(other.credit) }
    }

    /// Products in units.
    pub fn units(products: u128) -> f64 {
        products as f64 / (NANO as f64 * 1e9)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.charge = self.charge.saturating_add(other.charge);
        self.credit = self.credit.saturating_add(other.credit);
    }
}

/// As billionths of a unit and products beyond these, for charge and, where there is any, for credit: JSON has no
/// integers of 128 bits that every reader knows.
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let split = |products: u128| {
            let nano = u64::try_from(products / NANO).unwrap_or(u64::MAX);
            [nano, u64::try_from(products % NANO).unwrap_or_default()]
        };
        let mut numbers = split(self.charge).to_vec();
        if self.credit > 0 {
            numbers.extend(split(self.credit));
        }
        numbers.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let numbers = Vec::<u64>::deserialize(deserializer)?;
        let join = |at: usize| {
            let number = |at: usize| u128::from(numbers.get(at).copied().unwrap_or_default());
            number(at) * NANO + number(at + 1)
        };
        Ok(Self { charge: join(0), credit: join(2) })
    }
}

/// What an amount is of. All parts are added up to the node's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Idle energy that no tenant was charged.
    Idle,
    /// Work of unknown processes.
    Unattributed,
    /// Processes of no tenant: all, where no tenants are configured.
    Outside,
    /// Tenants while they had no series of their own.
    OtherTenants,
    /// A tenant, by name.
    Tenant(Arc<str>),
}

const TENANT: &str = "tenant:";

impl Part {
    /// The word in metrics: of a tenant `tenant`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Unattributed => "unattributed",
            Self::Outside => "outside",
            Self::OtherTenants => "other_tenants",
            Self::Tenant(_) => "tenant",
        }
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Tenant(name) => serializer.collect_str(&format_args!("{TENANT}{name}")),
            other => serializer.serialize_str(other.word()),
        }
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Some(name) = text.strip_prefix(TENANT) {
            return Ok(Self::Tenant(name.into()));
        }
        let known = [Self::Idle, Self::Unattributed, Self::Outside, Self::OtherTenants];
        let part = known.into_iter().find(|part| part.word() == text);
        part.ok_or_else(|| serde::de::Error::custom(format_args!("{text:?} is no part of an amount")))
    }
}

/// Amounts of one measure since they were first counted, over restarts. They only rise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// What is measured.
    pub measure: Measure,
    /// What it is in.
    pub unit: Arc<str>,
    /// Whether the factors were those of a fallback.
    pub fallback: bool,
    /// By part.
    pub parts: BTreeMap<Part, Amount>,
}

/// Everything that was added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmountTotals {
    /// By measure, unit and whether it is of a fallback.
    pub amounts: Vec<Amounts>,
    /// The node's energy for which a measure had no factor, in µJ.
    #[serde(default)]
    pub uncounted: BTreeMap<Measure, Microjoules>,
}

impl AmountTotals {
    /// Whether nothing was ever counted.
    pub fn is_empty(&self) -> bool {
        self.amounts.is_empty() && self.uncounted.is_empty()
    }

    /// Takes in a later or earlier state of the same totals: of each number the larger one.
    pub fn merge(&mut self, other: Self) {
        for Amounts { measure, unit, fallback, parts } in other.amounts {
            let is_it = |one: &&mut Amounts| (one.measure, &one.unit, one.fallback) == (measure, &unit, fallback);
            match self.amounts.iter_mut().find(is_it) {
                None => self.amounts.push(Amounts { measure, unit, fallback, parts }),
                Some(known) => parts.into_iter().for_each(|(part, amount)| {
                    let known = known.parts.entry(part).or_default();
                    *known = known.later_of(amount);
                }),
            }
        }
        for (measure, energy) in other.uncounted {
            let known = self.uncounted.entry(measure).or_default();
            *known = (*known).max(energy);
        }
    }
}

/// What the snapshot has of carbon and cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// The factors at this tick.
    pub factors: Vec<Factor>,
    /// What was added up.
    pub totals: AmountTotals,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_kwh_costs_its_price() {
        assert_eq!(nano(3_600_000_000_000, 342_000_000), 342_000_000_000, "342 g in billionths of a gram");
        assert_eq!(nano(3_600_000, -50_000), -50, "a mWh at -0.05 EUR");
        assert_eq!((nano(1, 1), nano(0, 5), nano(7, 0)), (0, 0, 0));
        assert_eq!(mean(342_000_000_000, 3_600_000_000_000), 342_000_000);
        assert_eq!(mean(5, 0), 0);
    }

    proptest! {
        #[test]
        fn amounts_come_back_as_they_were(charge in any::<u64>(), rest in 0..3_600_000_000_u64, credit in any::<u64>()) {
            let products = |nano: u64| u128::from(nano) * NANO + u128::from(rest);
            let amount = Amount { charge: products(charge), credit: products(credit) };
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount);
        }
    }

    #[test]
    fn parts_have_names() {
        for part in [Part::Idle, Part::Unattributed, Part::Outside, Part::OtherTenants, Part::Tenant("idle".into())] {
            let json = serde_json::to_string(&part).unwrap();
            assert_eq!(serde_json::from_str::<Part>(&json).unwrap(), part, "{json}");
        }
        assert!(serde_json::from_str::<Part>("\"planet\"").is_err());
    }
}
