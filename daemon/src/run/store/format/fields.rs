//! JSON objects of which only a part is known: their fields by name, and those that are left. Not the meaning of any
//! field.

use serde::de::value::Error as DeError;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A JSON object as pairs in the order of the file. Of a name that comes twice the last one counts.
pub struct Named<'a, T>(pub Vec<(Cow<'a, str>, T)>);

/// A JSON object, each value as the text that it is.
pub type Fields<'a> = Named<'a, &'a RawValue>;

impl<T> Default for Named<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// What is left of an object: names and values that this version does not know, to be written again as they are.
#[derive(Debug, Default)]
pub struct Rest(pub Vec<(String, Box<RawValue>)>);

/// A string that borrows from the file where it has no escapes.
pub struct Text<'a>(pub Cow<'a, str>);

/// A part of a record that may be of another version: one that is not understood must not cost the rest of the record.
pub enum Maybe<T> {
    Known(T),
    Unknown(Box<RawValue>),
}

/// A float that comes back bit for bit. JSON has no word for what is not finite: `"inf"`, `"-inf"`, `"nan:"` and the
/// bits in hex.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Float(pub f64);

impl<'a> Fields<'a> {
    /// The fields of the object `json`; `None`: it is no object.
    pub fn parse(json: &'a RawValue) -> Option<Self> {
        serde_json::from_str(json.get()).ok()
    }

    /// The one field of an object that has exactly one: a tag and its value.
    pub fn tagged(json: &'a RawValue) -> Option<(Cow<'a, str>, &'a RawValue)> {
        let mut fields = Self::parse(json)?.0;
        if fields.len() == 1 { fields.pop() } else { None }
    }

    /// Fields whose names `T` does not have.
    pub fn left_by<T: Deserialize<'static>>(self) -> Rest {
        let known = names_of::<T>();
        let left = self.0.into_iter().filter(|(name, _)| !known.contains(&&**name));
        Rest(left.map(|(name, value)| (name.into_owned(), value.to_owned())).collect())
    }
}

impl Rest {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left, in words.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(name, _)| format!("field {name:?}"))
    }
}

impl Serialize for Rest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Named<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Vec<(Cow<'de, str>, T)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs: Self::Value = Vec::new();
                while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
                    let value = map.next_value()?;
                    match pairs.iter_mut().find(|(known, _)| *known == name) {
                        Some(pair) => pair.1 = value,
                        None => pairs.push((name, value)),
                    }
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData)).map(Self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Str;
        impl<'de> Visitor<'de> for Str {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Str)
    }
}

impl<T: Serialize> Serialize for Maybe<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(value) => value.serialize(serializer),
            Self::Unknown(raw) => raw.serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(serde_json::from_str(raw.get()).map_or_else(|_| Self::Unknown(raw.to_owned()), Self::Known))
    }
}

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_finite() => serializer.serialize_f64(value),
            f64::INFINITY => serializer.serialize_str("inf"),
            f64::NEG_INFINITY => serializer.serialize_str("-inf"),
            nan => serializer.collect_str(&format_args!("nan:{:016x}", nan.to_bits())),
        }
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Float;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"inf\", \"-inf\" or \"nan:BITS\"")
            }

            fn visit_f64<E>(self, value: f64) -> Result<Float, E> {
                Ok(Float(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Float, E> {
                Ok(Float(value as f64))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Float, E> {
                Ok(Float(value as f64))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Float, E> {
                let nan = || {
                    let bits = u64::from_str_radix(text.strip_prefix("nan:")?, 16).ok()?;
                    Some(f64::from_bits(bits)).filter(|value| value.is_nan())
                };
                match text {
                    "inf" => Ok(Float(f64::INFINITY)),
                    "-inf" => Ok(Float(f64::NEG_INFINITY)),
                    _ => nan().map(Float).ok_or_else(|| E::custom(format_args!("{text:?} is no number"))),
                }
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// The names of the fields of a struct, as its `Deserialize` asks for them.
fn names_of<T: Deserialize<'static>>() -> &'static [&'static str] {
    struct Asked<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Asked<'_> {
        type Error = DeError;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DeError> {
            Err(DeError::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, DeError> {
            *self.0 = fields;
            Err(DeError::custom("only the names were asked for"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Asked(&mut names));
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn back(value: f64) -> f64 {
        serde_json::from_str::<Float>(&serde_json::to_string(&Float(value)).unwrap()).unwrap().0
    }

    #[test]
    fn what_is_not_finite_has_a_word() {
        assert_eq!(serde_json::to_string(&Float(f64::NEG_INFINITY)).unwrap(), "\"-inf\"");
        for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, -0.0, 0.1 + 0.2, 5e-324, f64::MAX] {
            assert_eq!(back(value).to_bits(), value.to_bits(), "{value}");
        }
        for bad in ["\"nan:0\"", "\"one\"", "null", "\"nan:xyz\""] {
            assert!(serde_json::from_str::<Float>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_a_name_that_comes_twice_the_last_one_counts() {
        let raw: &RawValue = serde_json::from_str(r#"{"a":1,"b\n":2,"a":3}"#).unwrap();
        let fields = Fields::parse(raw).unwrap().0;
        let pairs: Vec<_> = fields.iter().map(|(name, value)| (&**name, value.get())).collect();
        assert_eq!(pairs, [("a", "3"), ("b\n", "2")]);
    }

    proptest! {
        #[test]
        fn floats_come_back_bit_for_bit(bits: u64) {
            prop_assert_eq!(back(f64::from_bits(bits)).to_bits(), bits);
        }
    }
}
