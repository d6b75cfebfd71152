//! A Redfish resource as JSON. Null and absent members are `None`; a member of the wrong type is an error with its
//! path. Knows no schema.

use super::{BmcError, cut};
pub(super) use crate::meter::decimal::Decimal;
use serde_json::Value;
use std::fmt::Display;

/// Most entries of one list that are read; the others are ignored.
const MOST: usize = 256;

/// A resource.
#[derive(Clone, Debug)]
pub(super) struct Doc {
    /// Its URI.
    pub(super) uri: String,
    value: Value,
}

impl Doc {
    /// # Errors
    /// The body is not a JSON object.
    pub(super) fn parse(uri: &str, body: &[u8]) -> Result<Self, BmcError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|_| BmcError::unusable(format!("{}: the answer is no JSON", cut(uri))))?;
        let doc = Self { uri: uri.to_owned(), value };
        if doc.value.is_object() { Ok(doc) } else { Err(doc.root().wrong("an object")) }
    }

    pub(super) fn root(&self) -> Node<'_> {
        Node { uri: &self.uri, path: String::new(), value: &self.value }
    }
}

/// A value in a resource, with its place.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    uri: &'a str,
    path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// URI and path: `/redfish/v1/Chassis/1/EnvironmentMetrics#/PowerWatts/Reading`.
    pub(super) fn place(&self) -> String {
        if self.path.is_empty() { cut(self.uri) } else { format!("{}#{}", cut(self.uri), cut(&self.path)) }
    }

    fn wrong(&self, wanted: &str) -> BmcError {
        // Without the value: one that changes would make a new message of the same fault at each reading.
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        BmcError::unusable(format!("{} is {found}, not {wanted}", self.place()))
    }

    fn child(&self, key: impl Display, value: &'a Value) -> Self {
        Node { uri: self.uri, path: format!("{}/{key}", self.path), value }
    }

    /// Whether the value is null or absent.
    pub(super) const fn is_none(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// A member of an object; null where the object is null or absent.
    pub(super) fn at(&self, key: &str) -> Result<Self, BmcError> {
        match self.value {
            Value::Null => Ok(self.child(key, &Value::Null)),
            Value::Object(members) => Ok(self.child(key, members.get(key).unwrap_or(&Value::Null))),
            _ => Err(self.wrong("an object")),
        }
    }

    /// The text at `key`.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, BmcError> {
        let node = self.at(key)?;
        match node.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(node.wrong("a text")),
        }
    }

    /// This value as a number.
    pub(super) fn number(&self) -> Result<Option<Decimal>, BmcError> {
        match self.value {
            Value::Null => Ok(None),
            Value::Number(number) => Decimal::parse(&number.to_string())
                .map(Some)
                .ok_or_else(|| self.wrong("one of a size that a meter gives")),
            _ => Err(self.wrong("a number")),
        }
    }

    /// The list at `key`; empty where it is null or absent. Some BMCs put a single link where a list of one belongs.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Self>, BmcError> {
        let node = self.at(key)?;
        match node.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(entries) => {
                Ok(entries.iter().take(MOST).enumerate().map(|(index, entry)| node.child(index, entry)).collect())
            }
            Value::Object(members) if members.contains_key("@odata.id") => Ok(vec![node]),
            _ => Err(node.wrong("a list")),
        }
    }

    /// The target of this link, `{"@odata.id": …}`, without its fragment. Some BMCs put a list of one in its place.
    pub(super) fn target(&self) -> Result<Option<String>, BmcError> {
        match self.value {
            Value::Array(entries) if entries.is_empty() => Ok(None),
            Value::Array(entries) if entries.len() == 1 => self.child(0, &entries[0]).target(),
            _ => self.text("@odata.id")?.map(|uri| self.path_of(uri)).transpose(),
        }
    }

    /// The target of the link at `key`.
    pub(super) fn link(&self, key: &str) -> Result<Option<String>, BmcError> {
        self.at(key)?.target()
    }

    /// The targets of the links in the list at `key`. What is no link is left out, and `left_out` gets the reason.
    pub(super) fn links(&self, key: &str, left_out: &mut Vec<BmcError>) -> Vec<String> {
        let entries = self.list(key).unwrap_or_else(|error| {
            left_out.push(error);
            Vec::new()
        });
        let target = |entry: &Self| {
            entry.target().unwrap_or_else(|error| {
                left_out.push(error);
                None
            })
        };
        entries.iter().filter_map(target).collect()
    }

    /// Checks a URI that the BMC sent: it must be a path on the BMC itself.
    pub(super) fn path_of(&self, uri: &str) -> Result<String, BmcError> {
        let path = uri.split('#').next().unwrap_or_default();
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        if path.starts_with('/') && !path.starts_with("//") && plain && path.len() <= 1024 {
            return Ok(path.to_owned());
        }
        Err(BmcError::unusable(format!(
            "{} has the link \"{}\", which is no path on the BMC: not followed",
            self.place(),
            cut(uri)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_types_are_named_with_their_place() {
        let doc = Doc::parse(
            "/x",
            br#"{"A": {"B": "3", "C": null, "L": [{"@odata.id": "/y#/z"}, {"@odata.id": "https://evil/"}]}, "D": 5}"#,
        )
        .unwrap();
        let a = doc.root().at("A").unwrap();
        let why = a.at("B").unwrap().number().unwrap_err().why;
        assert_eq!(why, "/x#/A/B is a text, not a number");
        assert_eq!(a.at("C").unwrap().number().unwrap(), None);
        assert_eq!(a.at("C").unwrap().at("E").unwrap().text("F").unwrap(), None);
        assert!(doc.root().at("D").unwrap().at("E").unwrap_err().why.contains("/x#/D is a number, not an object"));
        assert_eq!(a.list("L").unwrap()[0].target().unwrap(), Some("/y".into()));
        let mut left_out = Vec::new();
        assert_eq!(a.links("L", &mut left_out), ["/y"]);
        assert!(left_out.len() == 1 && left_out[0].why.contains("not followed"));
        assert!(Doc::parse("/x", b"[]").unwrap_err().why.contains("a list, not an object"));
        assert!(Doc::parse("/x", b"<html>").unwrap_err().why.contains("no JSON"));
    }

    #[test]
    fn a_bmcs_text_is_escaped_and_cut() {
        let text = format!("{{\"@odata.id\": \"\\u001b[2J\\n{}\"}}", "x".repeat(5000));
        let doc = Doc::parse("/x", text.as_bytes()).unwrap();
        let why = doc.root().target().unwrap_err().why;
        assert!(why.len() < 300 && !why.contains('\u{1b}') && !why.contains('\n'), "{why}");
    }
}
