//! A method call as the methods see it: arguments in, a reply or an error out. Sends nothing and never waits.
//! `dispatch` finds the method.

use super::view::{Object, View};
use super::{Caller, Facts};
use crate::sys::safe_text::safe;
use std::fmt;
use zbus::message::Header;
use zbus::{DynamicType, Message};

/// Longest text of a caller that an error message quotes, in characters.
const SAID: usize = 100;

/// A refused call: the name of the D-Bus error, and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallError {
    pub name: &'static str,
    pub why: String,
}

impl CallError {
    pub fn new(name: &'static str, why: impl fmt::Display) -> Self {
        Self { name, why: why.to_string() }
    }

    pub fn invalid(why: impl fmt::Display) -> Self {
        Self::new("org.freedesktop.DBus.Error.InvalidArgs", why)
    }

    pub fn limits(why: impl fmt::Display) -> Self {
        Self::new("org.freedesktop.DBus.Error.LimitsExceeded", why)
    }

    /// The error reply to the call `to`.
    pub fn reply(&self, to: &Header<'_>) -> zbus::Result<Message> {
        Message::error(to, self.name).build(&self.why)
    }
}

/// A method call, and what its answer is made of.
pub(super) struct Call<'a> {
    pub message: &'a Message,
    pub header: &'a Header<'a>,
    pub view: &'a View,
    pub caller: Caller,
    pub facts: &'a Facts,
}

impl Call<'_> {
    /// The arguments of the call, which must have this `signature`; `names` is for the error message.
    pub fn arguments<'b, T>(&self, body: &'b zbus::message::Body, signature: &str, names: &str) -> Result<T, CallError>
    where
        T: zbus::wire::DynamicDeserialize<'b>,
    {
        let found = body.signature().to_string_no_parens();
        if found != signature {
            let found = said(&found);
            return Err(CallError::invalid(format!(
                "wanted are arguments of signature {signature:?} ({names}), not {found}"
            )));
        }
        body.deserialize().map_err(|error| CallError::invalid(format!("arguments: {}", said(&error.to_string()))))
    }

    /// Checks that the call has no arguments.
    pub fn takes_nothing(&self) -> Result<(), CallError> {
        match self.message.body().is_empty() {
            true => Ok(()),
            false => Err(CallError::invalid("this method takes no arguments")),
        }
    }

    /// A reply with this body.
    pub fn reply<B: serde::Serialize + DynamicType>(&self, body: &B) -> Result<Message, CallError> {
        let built = Message::method_return(self.header).build(body);
        built.map_err(|error| CallError::limits(format!("the answer does not fit into a message: {error}")))
    }

    /// A reply with an object's path.
    pub fn reply_path(&self, object: &Object) -> Result<Message, CallError> {
        self.reply(&object.object_path())
    }
}

/// Text from a caller, made safe for an error message: quoted, escaped and cut to [`SAID`] characters.
pub(super) fn said(text: &str) -> String {
    let cut: String = text.chars().take(SAID).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", safe(&cut))
}
