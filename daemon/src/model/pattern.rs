//! Patterns for names, as shells and systemd write them (glob(7), fnmatch(3)): `*` is any text, `?` one character,
//! `[a-c]` and `[!a-c]` one of a set or none of it, and `\` takes the meaning from the character after it. A pattern is
//! compared with the whole text, and case counts.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

/// Longest pattern, in bytes: names have at most 512.
pub const LONGEST: usize = 512;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    /// `None`: it has no special character, and is the text itself.
    parts: Option<Box<[Part]>>,
}

/// What matches one character; or, of [`Part::Any`], any number of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Literal(char),
    Set { not: bool, ranges: Box<[(char, char)]> },
}

impl Part {
    fn is(&self, c: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Literal(literal) => *literal == c,
            Self::Set { not, ranges } => ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *not,
        }
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("a pattern is empty: it would match nothing; \"?*\" matches every name");
        }
        if text.len() > LONGEST {
            return Err("a pattern has more than 512 bytes");
        }
        let is_special = text.contains(['*', '?', '[', '\\']);
        let parts = if is_special { Some(parts(text)?.into()) } else { None };
        Ok(Self { text: text.into(), parts })
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is a text without special characters, which only matches itself.
    pub fn is_literal(&self) -> bool {
        self.parts.is_none()
    }

    /// Whether it matches the whole of `name`. The time is at most in proportion to the product of both lengths.
    pub fn matches(&self, name: &str) -> bool {
        let Some(parts) = &self.parts else { return *self.text == *name };
        let (mut part, mut rest) = (0, name);
        // Where the last `*` is, and the text that it has not taken yet.
        let mut back: Option<(usize, &str)> = None;
        loop {
            match (parts.get(part), rest.chars().next()) {
                (None, None) => return true,
                (Some(Part::Any), _) => {
                    part += 1;
                    back = Some((part, rest));
                }
                (Some(one), Some(c)) if one.is(c) => {
                    part += 1;
                    rest = &rest[c.len_utf8()..];
                }
                _ => {
                    // The last `*` takes one character more.
                    let Some((after, from)) = back else { return false };
                    let Some(c) = from.chars().next() else { return false };
                    (part, rest) = (after, &from[c.len_utf8()..]);
                    back = Some((after, rest));
                }
            }
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            // Two in a row are one.
            '*' if parts.last() == Some(&Part::Any) => {}
            '*' => parts.push(Part::Any),
            '?' => parts.push(Part::One),
            '\\' => parts.push(Part::Literal(characters.next().ok_or("a pattern ends in \"\\\"")?)),
            '[' => {
                let not = characters.next_if(|c| matches!(c, '!' | '^')).is_some();
                parts.push(Part::Set { not, ranges: set(&mut characters)?.into() });
            }
            c => parts.push(Part::Literal(c)),
        }
    }
    Ok(parts)
}

/// The ranges of a set up to its `]`, which is a character of the set where it is the first.
fn set(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Vec<(char, char)>, &'static str> {
    const OPEN: &str = "a pattern has \"[\" without \"]\": write \"\\\\[\" for the character";
    let mut ranges = Vec::new();
    loop {
        let first = match characters.next().ok_or(OPEN)? {
            ']' if !ranges.is_empty() => return Ok(ranges),
            '\\' => characters.next().ok_or(OPEN)?,
            c => c,
        };
        let mut ahead = characters.clone();
        let last = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) if last != ']' => {
                *characters = ahead;
                if last == '\\' { characters.next().ok_or(OPEN)? } else { last }
            }
            _ => first,
        };
        if last < first {
            return Err("a pattern has a range whose end is before its beginning");
        }
        ranges.push((first, last));
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Pattern;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or pattern")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pattern, E> {
                Pattern::new(text).map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Pattern, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Pattern, E> {
                let number = u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
                self.visit_u64(number)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// Patterns of which one has to match. Written as one pattern or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnyOf(pub Vec<Pattern>);

impl Serialize for AnyOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AnyOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = AnyOf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or pattern, or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AnyOf, E> {
                Ok(AnyOf(vec![Pattern::new(text).map_err(E::custom)?]))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<AnyOf, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<AnyOf, E> {
                let number = u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
                self.visit_u64(number)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<AnyOf, A::Error> {
                let mut patterns = Vec::new();
                while let Some(pattern) = items.next_element()? {
                    patterns.push(pattern);
                }
                match patterns.is_empty() {
                    true => {
                        Err(A::Error::custom("an empty list matches nothing: leave the key out, or name something"))
                    }
                    false => Ok(AnyOf(patterns)),
                }
            }
        }
        deserializer.deserialize_any(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_are_those_of_shells_and_systemd() {
        let cases = [
            ("nginx.service", "nginx.service", true),
            ("nginx.service", "Nginx.service", false),
            ("nginx*", "nginx.service", true),
            ("*.slice", "user-1000.slice", true),
            ("*.slice", "user.slices", false),
            ("?", "é", true),
            ("?", "", false),
            ("*", "", true),
            ("?*", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-cd", false),
            ("user-[0-9]*.slice", "user-7.slice", true),
            ("user-[!0-9]*.slice", "user-7.slice", false),
            ("[^a]", "b", true),
            ("[]a]", "]", true),
            ("[a-]", "-", true),
            (r"[\]]x", "]x", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("shop**", "shop", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Pattern::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = "a".repeat(LONGEST + 1);
        for text in ["", "[", "[]", "[!]", "a[b", "[b-a]", "a\\", "[a\\", "[a-", "[a-\\", &long] {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_pattern_is_a_list_of_one_and_numbers_are_texts() {
        let read = |json: &str| serde_json::from_str::<AnyOf>(json).map(|any| serde_json::to_string(&any).unwrap());
        assert_eq!(read(r#""a*""#).unwrap(), r#"["a*"]"#);
        assert_eq!(read(r#"[1000,"b"]"#).unwrap(), r#"["1000","b"]"#);
        assert!(
            read("[-1]").is_err()
                && read("-1").is_err()
                && read("[]").is_err()
                && read("true").is_err()
                && read(r#"["["]"#).is_err()
        );
    }

    /// The same by trying everything, for short texts.
    fn slow(parts: &[Part], name: &[char]) -> bool {
        match (parts.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((Part::Any, rest)), _) => (0..=name.len()).any(|taken| slow(rest, &name[taken..])),
            (Some((one, rest)), Some((c, name))) => one.is(*c) && slow(rest, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_trying_everything_says(pattern in "[ab*?\\[\\]!\\\\-]{1,8}", name in "[ab-]{0,8}") {
            if let Ok(pattern) = Pattern::new(&pattern) {
                let name_characters: Vec<char> = name.chars().collect();
                let expected = match &pattern.parts {
                    Some(parts) => slow(parts, &name_characters),
                    None => pattern.text() == name,
                };
                prop_assert_eq!(pattern.matches(&name), expected);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(pattern: String, name: String) {
            if let Ok(pattern) = Pattern::new(&pattern) {
                pattern.matches(&name);
            }
        }
    }
}
