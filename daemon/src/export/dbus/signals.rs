//! Signals: once an epoch, PropertiesChanged, InterfacesAdded and InterfacesRemoved of what changed in the coarse view,
//! spread over the epoch. Sends nothing itself.

use super::properties::{self, Emits, Subject, interfaces};
use super::tree::ROOT;
use super::view::{Iface, Object, View};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use zbus::{Message, ObjectPath, Variant};

/// Time between two portions.
pub(super) const PACE: Duration = Duration::from_millis(100);
/// Part of an epoch over which its signals are spread.
const WITHIN: (u32, u32) = (4, 5);
/// Least number of signals in a portion.
const LEAST: usize = 16;

/// A signal that is still to be sent.
enum News {
    Manager,
    Added(String),
    Changed(String),
    Removed(String, Iface),
}

/// The signals of the last epoch that are still to be sent.
#[derive(Default)]
pub(super) struct Signals {
    news: VecDeque<News>,
    before: Option<View>,
    portion: usize,
}

impl Signals {
    /// Takes in an epoch that started with `before` and ended with `now`. Signals of the last epoch that were not sent
    /// are sent with this one.
    pub fn epoch(&mut self, before: View, now: &View, period: Duration) {
        // Where signals of the last epoch were not sent, its start is still here: the new ones cover both epochs.
        let before = self.before.take().unwrap_or(before);
        self.news = news(&before, now).collect();
        let portions = period.as_millis() * u128::from(WITHIN.0) / u128::from(WITHIN.1) / PACE.as_millis().max(1);
        self.portion = self.news.len().div_ceil(usize::try_from(portions.max(1)).unwrap_or(1)).max(LEAST);
        self.before = Some(before);
    }

    /// Whether every signal was sent.
    pub fn is_empty(&self) -> bool {
        self.news.is_empty()
    }

    /// The next portion of signals.
    ///
    /// # Errors
    /// Where a signal cannot be put into a message.
    pub fn portion(&mut self, now: &View) -> zbus::Result<Vec<Message>> {
        let Some(before) = &self.before else { return Ok(Vec::new()) };
        let mut messages = Vec::new();
        for news in self.news.drain(..self.portion.min(self.news.len())) {
            messages.extend(message(&news, before, now).transpose()?);
        }
        if self.news.is_empty() {
            self.before = None;
        }
        Ok(messages)
    }
}

/// The changes from `before` to `now`. Both views are sorted by path.
fn news<'a>(before: &'a View, now: &'a View) -> impl Iterator<Item = News> + 'a {
    let same = |one: &Object, other: &Object| {
        let same_pod = match (&one.pod, &other.pod) {
            (Some(one), Some(other)) => one.same_values(other),
            (None, None) => true,
            _ => false,
        };
        same_pod && one.since == other.since && one.labels.same_values(&other.labels) && one.iface == other.iface
    };
    // Signals of the manager object.
    let other_words = before.estimated != now.estimated || before.zones != now.zones;
    let of_now = now.objects.iter().flat_map(move |object| {
        let path = || object.path.clone();
        match before.object(&object.path) {
            None => vec![News::Added(path())],
            // Another entity under the same name: its constant properties have changed.
            Some(earlier) if !same(earlier, object) => vec![News::Removed(path(), earlier.iface), News::Added(path())],
            Some(earlier) => {
                let changed = other_words || earlier.numbers != object.numbers || earlier.state != object.state;
                if changed { vec![News::Changed(path())] } else { Vec::new() }
            }
        }
    });
    let gone = before.objects.iter().filter(|object| now.object(&object.path).is_none());
    [News::Manager].into_iter().chain(gone.map(|object| News::Removed(object.path.clone(), object.iface))).chain(of_now)
}

fn message(news: &News, before: &View, now: &View) -> Option<zbus::Result<Message>> {
    const MANAGER: &str = "org.freedesktop.DBus.ObjectManager";
    match news {
        News::Manager => {
            changed(ROOT, Iface::Manager, Subject { view: before, object: None }, Subject { view: now, object: None })
        }
        News::Changed(path) => {
            let (earlier, object) = (before.object(path)?, now.object(path)?);
            let earlier = Subject { view: before, object: Some(earlier) };
            changed(path, object.iface, earlier, Subject { view: now, object: Some(object) })
        }
        News::Added(path_of) => {
            let object = now.object(path_of)?;
            Some(
                Message::signal(ROOT, MANAGER, "InterfacesAdded")
                    .build(&(object.object_path(), interfaces(now, object))),
            )
        }
        News::Removed(path, iface) => {
            let path = ObjectPath::from_str_unchecked(path);
            Some(Message::signal(ROOT, MANAGER, "InterfacesRemoved").build(&(path, vec![iface.name()])))
        }
    }
}

/// PropertiesChanged with the changed properties; `None` where no property with a signal changed.
fn changed(path: &str, iface: Iface, before: Subject<'_>, now: Subject<'_>) -> Option<zbus::Result<Message>> {
    let told = properties::of(iface).filter(|property| property.emits == Emits::True);
    let values = told.filter_map(|property| {
        let value = (property.get)(now);
        (value != (property.get)(before)).then_some((property.name, value))
    });
    let values: BTreeMap<&str, Variant<'_>> = values.collect();
    let none: Vec<&str> = Vec::new();
    let build = || {
        Message::signal(path, "org.freedesktop.DBus.Properties", "PropertiesChanged").build(&(
            iface.name(),
            &values,
            none,
        ))
    };
    (!values.is_empty()).then(build)
}
