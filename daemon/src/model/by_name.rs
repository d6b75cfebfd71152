//! Arrays by zone and by kind, and labels, as JSON objects with names; zeros and empty labels left out. What reads them
//! depends neither on the order nor on the number of zones and kinds in its own code. For `#[serde(with = "…")]`. A
//! name that is not known is passed over.
//!
//! Release 0.1.0 wrote arrays, in an order that is frozen here; they are read, too.

use super::domain::Zone;
use super::entity::{Details, Kind, Labels};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

const OLD_ZONES: [Zone; 8] =
    [Zone::Package, Zone::Core, Zone::Uncore, Zone::Dram, Zone::Psys, Zone::Platform, Zone::Gpu, Zone::Other];
const OLD_KINDS: [Kind; 9] = [
    Kind::Process,
    Kind::Unit,
    Kind::UserUnit,
    Kind::Slice,
    Kind::Session,
    Kind::User,
    Kind::Container,
    Kind::Pod,
    Kind::Vm,
];

/// Arrays in the order of [`Zone::ALL`].
pub mod zones {
    use super::{Deserialize, Deserializer, OLD_ZONES, Serialize, Serializer, Zone, read};

    /// Writes an object.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S, T>(values: &[T; Zone::COUNT], serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        T: Serialize + Default + PartialEq,
    {
        let named = Zone::ALL.into_iter().map(|zone| (zone.as_str(), &values[zone.index()]));
        serializer.collect_map(named.filter(|(_, value)| **value != T::default()))
    }

    /// Reads an object, or an array of release 0.1.0.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<[T; Zone::COUNT], D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de> + Copy + Default,
    {
        let mut values = [T::default(); Zone::COUNT];
        let index = |name: &str| Zone::ALL.into_iter().find(|zone| zone.as_str() == name).map(Zone::index);
        read(deserializer, &OLD_ZONES.map(Zone::index), index, &mut values)?;
        Ok(values)
    }
}

/// Arrays in the order of [`Kind::ALL`].
pub mod kinds {
    use super::{Deserialize, Deserializer, Kind, OLD_KINDS, Serialize, Serializer, read};

    /// Writes an object.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S, T>(values: &[T; Kind::ALL.len()], serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        T: Serialize + Default + PartialEq,
    {
        let named = Kind::ALL.into_iter().map(|kind| (kind.as_str(), &values[kind.index()]));
        serializer.collect_map(named.filter(|(_, value)| **value != T::default()))
    }

    /// Reads an object, or an array of release 0.1.0.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<[T; Kind::ALL.len()], D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de> + Copy + Default,
    {
        let mut values = [T::default(); Kind::ALL.len()];
        let index = |name: &str| Kind::ALL.into_iter().find(|kind| kind.as_str() == name).map(Kind::index);
        read(deserializer, &OLD_KINDS.map(Kind::index), index, &mut values)?;
        Ok(values)
    }
}

/// The kind of a name.
pub fn kind(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
}

/// Labels with their kind, each value under the label's name.
#[derive(Deserialize, Serialize)]
pub struct NamedLabels {
    kind: Kind,
    labels: BTreeMap<String, String>,
}

impl From<Labels> for NamedLabels {
    fn from(labels: Labels) -> Self {
        let named = named(&labels);
        Self { kind: labels.kind(), labels: named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }
}

impl TryFrom<NamedLabels> for Labels {
    type Error = String;
    fn try_from(NamedLabels { kind, labels }: NamedLabels) -> Result<Self, String> {
        let known = kind.label_names();
        match labels.keys().find(|name| !known.contains(&name.as_str()) && !kind.has_detail(name)) {
            Some(name) => Err(format!("label {name:?} of a {} is not known", kind.as_str())),
            None => Values::Named(labels).of(kind),
        }
    }
}

/// Labels and details that are not empty.
fn named(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels.all_pairs().filter(|(_, value)| !value.is_empty())
}

/// Writes labels and details as an object of names and values, without their kind. Empty ones are left out.
///
/// # Errors
/// Those of the serializer.
pub fn label_values<S: Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(named(labels))
}

/// As [`label_values`], without details.
///
/// # Errors
/// Those of the serializer.
pub fn labels_alone<S: Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.pairs().filter(|(_, value)| !value.is_empty()))
}

/// Labels and details as they are read without their kind: by name, or in the order of release 0.1.0.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// By name. Labels that are not there are empty.
    Named(BTreeMap<String, String>),
    /// As release 0.1.0 wrote them.
    InOrder(Vec<String>),
}

impl Values {
    /// The labels of an entity of `kind`. A name that is not known is passed over.
    ///
    /// # Errors
    /// Where there are more or fewer values than names in the order of release 0.1.0.
    pub fn of(self, kind: Kind) -> Result<Labels, String> {
        let mut named: BTreeMap<String, String> = match self {
            Self::Named(named) => named,
            Self::InOrder(values) => {
                let names = old_label_names(kind);
                if values.len() != names.len() {
                    return Err(format!(
                        "{} label values for a {}, which has {}",
                        values.len(),
                        kind.as_str(),
                        names.len()
                    ));
                }
                names.iter().map(|name| (*name).to_owned()).zip(values).collect()
            }
        };
        let values: Vec<String> =
            kind.label_names().iter().map(|name| named.remove(*name).unwrap_or_default()).collect();
        let labels = Labels::new(kind, values).map_err(|error| error.to_string())?;
        named.retain(|name, _| kind.has_detail(name));
        if named.is_empty() {
            return Ok(labels);
        }
        Ok(labels.with_details(&Details::of(named.iter().map(|(name, value)| (name.as_str(), value.as_str())))))
    }
}

/// The labels of release 0.1.0, in its order.
const fn old_label_names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Process => &["pid", "comm", "exe", "type", "container_id", "vm_id"],
        Kind::Unit => &["unit", "slice"],
        Kind::UserUnit => &["unit", "slice", "user"],
        Kind::Slice => &["slice"],
        Kind::Session => &["session", "user"],
        Kind::User => &["user"],
        Kind::Container => &["container_id", "container_name", "runtime", "pod_id"],
        Kind::Pod => &["pod_id", "pod_name", "pod_namespace"],
        Kind::Vm => &["vm_id", "vm_name", "hypervisor"],
        // It had no jobs and no tenants.
        Kind::Job | Kind::JobStep | Kind::Tenant => kind.label_names(),
    }
}

/// Fills `values` from an object, or from an array whose places are `old`.
fn read<'de, D, T>(
    deserializer: D,
    old: &[usize],
    index: impl Fn(&str) -> Option<usize>,
    values: &mut [T],
) -> Result<(), D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Values<'a, T, F>(&'a [usize], F, &'a mut [T], PhantomData<T>);
    impl<'de, T: Deserialize<'de>, F: Fn(&str) -> Option<usize>> Visitor<'de> for Values<'_, T, F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of names and values")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<String>()? {
                match (self.1)(&name).and_then(|at| self.2.get_mut(at)) {
                    Some(value) => *value = map.next_value()?,
                    None => map.next_value::<IgnoredAny>().map(drop)?,
                }
            }
            Ok(())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
            for at in self.0 {
                let Some(item) = items.next_element()? else { break };
                if let Some(value) = self.2.get_mut(*at) {
                    *value = item;
                }
            }
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(())
        }
    }
    deserializer.deserialize_any(Values(old, index, values, PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::Energy;
    use crate::model::units::Microjoules;

    #[test]
    fn zones_have_names_and_an_array_of_the_first_release_is_read() {
        let mut energy = Energy::default();
        energy.dynamic[Zone::Package.index()] = Microjoules(5);
        energy.dynamic[Zone::Other.index()] = Microjoules(u64::MAX);
        let json = serde_json::to_string(&energy).unwrap();
        assert_eq!(json, r#"{"dynamic":{"package":5,"other":18446744073709551615},"idle":{}}"#);
        assert_eq!(serde_json::from_str::<Energy>(&json).unwrap(), energy);
        let old = r#"{"dynamic":[5,0,0,0,0,0,0,18446744073709551615],"idle":[0,0,0,0,0,0,0,0]}"#;
        assert_eq!(serde_json::from_str::<Energy>(old).unwrap(), energy);
        let newer = r#"{"dynamic":{"hologram":{"x":[1]},"other":18446744073709551615,"package":5},"idle":{}}"#;
        assert_eq!(serde_json::from_str::<Energy>(newer).unwrap(), energy);
        for bad in [r#"{"dynamic":{"package":-1},"idle":{}}"#, r#"{"dynamic":5,"idle":{}}"#] {
            assert!(serde_json::from_str::<Energy>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_have_names_and_an_array_of_the_first_release_is_read() {
        let labels = Labels::new(Kind::Unit, ["a.service".to_owned(), String::new()]).unwrap();
        let json = serde_json::to_string(&labels).unwrap();
        assert_eq!(json, r#"{"kind":"unit","labels":{"unit":"a.service"}}"#);
        assert_eq!(serde_json::from_str::<Labels>(&json).unwrap(), labels);
        let error = serde_json::from_str::<Labels>(r#"{"kind":"unit","labels":{"uid":"0"}}"#).unwrap_err();
        assert!(error.to_string().contains("label \"uid\" of a unit is not known"), "{error}");
        let values = |json: &str| serde_json::from_str::<Values>(json).unwrap().of(Kind::Unit);
        assert_eq!(values(r#"["a.service",""]"#), Ok(labels.clone()));
        assert_eq!(values(r#"{"unit":"a.service","uid":"0"}"#), Ok(labels));
        assert!(values(r#"["a.service"]"#).unwrap_err().contains("1 label values for a unit, which has 2"));
    }
}
