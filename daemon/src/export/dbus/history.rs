//! Methods that read the history: `GetReport` ([`report`]) and `GetStatement` ([`statement`]). Reading the history
//! takes milliseconds and more, so the session lets another thread make the answer and sends it later.
//!
//! Root and the group jouled get everything, to the microjoule, with carbon and cost. Others get entities that have an
//! object on the bus, and whole joules: a minute is longer than the 10 s for which they see all other numbers. Carbon
//! and cost would tell them the microjoules.

use super::call::{Call, CallError};
use super::grain::coarse_grain;
use super::view::Iface;
use super::{Caller, report, statement, tree};
use crate::export::history::{Refusal, Reports};
use crate::history::report::{By, Query};
use crate::history::statement::StatementQuery;
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::Snapshot;
use crate::sys::safe_text::safe;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use zbus::{DynamicType, Message, Variant};

/// What a call asks the history for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Report(Query),
    Statement(StatementQuery),
}

/// What a call asks for; `None` where it calls another method.
pub(super) fn asked(call: &Call<'_>) -> Option<Result<Question, CallError>> {
    let header = call.header;
    let is_ours = header.interface().is_none_or(|interface| interface.as_str() == Iface::Manager.name())
        && header.path().is_some_and(|path| path.as_str() == tree::ROOT);
    match header.member().filter(|_| is_ours)?.as_str() {
        "GetReport" => Some(report::query(call).map(Question::Report)),
        "GetStatement" => Some(statement::query(call).map(Question::Statement)),
        _ => None,
    }
}

/// Makes the answer to a call.
///
/// # Errors
/// Where no message can be made of it.
pub(super) async fn answer(
    question: Question,
    reports: &Reports,
    snapshot: Arc<Snapshot>,
    to: &Message,
    caller: Caller,
) -> zbus::Result<Message> {
    let why = match question {
        Question::Report(query) => match reports.report(query, snapshot.host.node_name.clone()).await {
            Ok(report) => return report::reply(to, caller, &report),
            Err(why) => why,
        },
        Question::Statement(query) => match reports.statements(query, snapshot).await {
            Ok(made) => return statement::reply(to, caller, &made),
            Err(why) => why,
        },
    };
    refused(&why).reply(&to.header())
}

/// The error of a call that the history does not answer.
fn refused(why: &Refusal) -> CallError {
    match why {
        Refusal::NoHistory(why) => CallError::new("org.jouled1.NoHistory", why),
        Refusal::Asked(why) => CallError::invalid(why),
        Refusal::Failed(why) => CallError::new("org.freedesktop.DBus.Error.Failed", why),
    }
}

/// Checks that a caller may have numbers of these of the past: everybody where they have an object on the bus, which
/// everybody may read.
pub(super) fn check(caller: Caller, by: By) -> Result<(), CallError> {
    let is_public = match by {
        By::Zone => true,
        By::Namespace => false,
        By::Kind(kind) => match kind {
            Kind::Unit | Kind::UserUnit | Kind::Slice | Kind::Container | Kind::Vm | Kind::Job | Kind::Tenant => true,
            Kind::Process | Kind::Session | Kind::User | Kind::Pod | Kind::JobStep => false,
        },
    };
    if caller.fine || is_public {
        return Ok(());
    }
    let why = format!("only root and the group jouled may have reports by {} and their statements", by.as_str());
    Err(CallError::new("org.freedesktop.DBus.Error.AccessDenied", why))
}

/// Entries of a dictionary.
pub(super) type Numbers = BTreeMap<&'static str, Variant<'static>>;

/// Microjoules in the smallest unit of energy that the caller gets.
pub(super) fn grain(caller: Caller) -> u64 {
    if caller.fine { 1 } else { coarse_grain().quantum.0.max(1) }
}

/// Energy of an entity in the caller's resolution, rounded down.
pub(super) fn told(energy: i64, grain: u64) -> i64 {
    let grain = i64::try_from(grain).unwrap_or(i64::MAX);
    energy.div_euclid(grain).saturating_mul(grain)
}

/// A time as the arguments have it, in seconds.
pub(super) fn seconds(micros: u64) -> i64 {
    i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX)
}

/// A time as answers have it, in microseconds.
pub(super) fn micros(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000_000)
}

/// A length of time as answers have it, in microseconds.
pub(super) fn span(seconds: u64) -> Variant<'static> {
    Variant::from(seconds.saturating_mul(1_000_000))
}

/// The labels of an entity that it has.
pub(super) fn labels<'a>(of: impl IntoIterator<Item = &'a Labels>) -> BTreeMap<String, String> {
    let pairs = of.into_iter().flat_map(Labels::pairs).filter(|(_, value)| !value.is_empty());
    pairs.map(|(name, value)| (name.to_owned(), safe(value))).collect()
}

/// A reply with this body, or why it cannot be one.
pub(super) fn reply<B: Serialize + DynamicType>(to: &Message, body: &B) -> zbus::Result<Message> {
    let header = to.header();
    let built = Message::method_return(&header).build(body);
    built.or_else(|error| CallError::limits(format!("the answer does not fit into a message: {error}")).reply(&header))
}
