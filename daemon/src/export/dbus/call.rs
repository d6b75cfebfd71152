//! One call, one answer: from a message and a view to the reply. Sends nothing and never waits. `caller` has decided
//! which view the caller gets.

use super::introspect;
use super::methods::METHODS;
use super::properties::{self, Subject};
use super::tree::{self, FOLDERS, ROOT};
use super::view::{Iface, Object, View};
use super::{Caller, Facts};
use crate::sys::safe_text::safe;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use zbus::message::Header;
use zbus::{DynamicType, Message, ObjectPath, Variant};

const PEER: &str = "org.freedesktop.DBus.Peer";
const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";

/// Longest text of a caller that an error message quotes, in characters.
const SAID: usize = 100;

/// A refused call: the name of the D-Bus error, and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub name: &'static str,
    pub why: String,
}

impl Refused {
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

/// A call and everything that its answer is made of.
pub(super) struct Call<'a> {
    pub message: &'a Message,
    pub header: &'a Header<'a>,
    pub view: &'a View,
    pub caller: Caller,
    pub facts: &'a Facts,
    pub xml: &'a Xml,
}

/// The introspection XML of the interfaces, made once.
pub(super) struct Xml(BTreeMap<Iface, String>);

impl Default for Xml {
    fn default() -> Self {
        let all = Iface::OBJECTS.into_iter().chain([Iface::Manager]);
        Self(all.map(|iface| (iface, introspect::interface(iface))).collect())
    }
}

/// What an object path leads to.
#[derive(Clone, Copy)]
enum Place<'a> {
    Manager,
    Object(&'a Object),
    /// A node that only has children.
    Folder,
}

impl Place<'_> {
    fn iface(&self) -> Option<Iface> {
        match self {
            Self::Manager => Some(Iface::Manager),
            Self::Object(object) => Some(object.iface),
            Self::Folder => None,
        }
    }
}

impl Call<'_> {
    /// The reply; an error reply where the answer cannot be put into a message.
    pub fn answer(&self) -> zbus::Result<Message> {
        match self.result() {
            Ok(message) => Ok(message),
            Err(refused) => refused.reply(self.header),
        }
    }

    fn result(&self) -> Result<Message, Refused> {
        let path = self.header.path().map_or("", |path| path.as_str());
        let member = self.header.member().map_or("", |member| member.as_str());
        let interface = self.header.interface().map(|interface| interface.as_str());
        if interface == Some(PEER) {
            // Peer belongs to the connection: it is answered at every path.
            return self.peer(member);
        }
        let place = self.place(path)?;
        // A call without an interface means any interface that has the method.
        match interface {
            Some(interface) => self.method(path, place, interface, member),
            None => {
                let ours = place.iface().map(Iface::name);
                let all = [Some(INTROSPECTABLE), Some(PROPERTIES), Some(PEER), Some(OBJECT_MANAGER), ours];
                let results = all.into_iter().flatten().map(|interface| self.method(path, place, interface, member));
                let unknown = |refused: &Refused| matches!(refused.name, UNKNOWN_METHOD | UNKNOWN_INTERFACE);
                let mut known = results.filter(|result| !result.as_ref().is_err_and(unknown));
                known.next().unwrap_or_else(|| Err(unknown_method(member, "any interface")))
            }
        }
    }

    fn place(&self, path: &str) -> Result<Place<'_>, Refused> {
        if path == ROOT {
            return Ok(Place::Manager);
        }
        if let Some(object) = self.view.object(path) {
            return Ok(Place::Object(object));
        }
        let fixed = FOLDERS
            .iter()
            .any(|folder| path.strip_prefix(ROOT).and_then(|path| path.strip_prefix('/')) == Some(folder));
        let above = path == "/" || path == "/org";
        if fixed || above || !self.view.below(path).is_empty() {
            return Ok(Place::Folder);
        }
        let why = format!("there is no object {}: it may have ended, or has drawn nothing yet", said(path));
        Err(Refused::new("org.freedesktop.DBus.Error.UnknownObject", why))
    }

    fn method(&self, path: &str, place: Place<'_>, interface: &str, member: &str) -> Result<Message, Refused> {
        let unknown = || unknown_method(member, interface);
        match (interface, member) {
            (PEER, _) => self.peer(member),
            (INTROSPECTABLE, "Introspect") => {
                self.takes_nothing().and_then(|()| self.reply(&self.introspect(path, place)))
            }
            (PROPERTIES, "Get") => {
                let body = self.message.body();
                let (interface, name): (&str, &str) = self.arguments(&body, "ss", "interface, property")?;
                let (iface, subject) = self.subject(place, interface, path)?;
                match iface.and_then(|iface| properties::find(iface, name)) {
                    Some(property) => self.reply(&(property.get)(subject)),
                    None => Err(unknown_property(name, interface)),
                }
            }
            (PROPERTIES, "GetAll") => {
                let body = self.message.body();
                let interface: &str = self.arguments(&body, "s", "interface")?;
                let (iface, subject) = self.subject(place, interface, path)?;
                self.reply(&iface.map(|iface| all(iface, subject)).unwrap_or_default())
            }
            (PROPERTIES, "Set") => {
                let body = self.message.body();
                let (interface, name, _): (&str, &str, Variant<'_>) =
                    self.arguments(&body, "ssv", "interface, property, value")?;
                let (iface, _) = self.subject(place, interface, path)?;
                match iface.and_then(|iface| properties::find(iface, name)) {
                    Some(_) => Err(Refused::new(
                        "org.freedesktop.DBus.Error.PropertyReadOnly",
                        format!("{name} can only be read: jouled changes nothing for anybody"),
                    )),
                    None => Err(unknown_property(name, interface)),
                }
            }
            (OBJECT_MANAGER, "GetManagedObjects") if matches!(place, Place::Manager) => {
                self.takes_nothing()?;
                self.reply(&managed(self.view))
            }
            (INTROSPECTABLE | PROPERTIES, _) => Err(unknown()),
            (OBJECT_MANAGER, _) if matches!(place, Place::Manager) => Err(unknown()),
            _ if place.iface().is_some_and(|iface| iface.name() == interface) => {
                let method = METHODS.iter().find(|method| method.of.name() == interface && method.name == member);
                (method.ok_or_else(unknown)?.call)(self)
            }
            _ => Err(unknown_interface(interface, path)),
        }
    }

    fn peer(&self, member: &str) -> Result<Message, Refused> {
        match member {
            "Ping" => self.takes_nothing().and_then(|()| self.reply(&())),
            "GetMachineId" => self.takes_nothing().and_then(|()| self.reply(&self.facts.machine_id)),
            _ => Err(unknown_method(member, PEER)),
        }
    }

    /// The subject of the properties of `interface` (any interface where it is empty); `None` for a standard interface,
    /// which has no properties.
    fn subject<'s>(
        &'s self,
        place: Place<'s>,
        interface: &str,
        path: &str,
    ) -> Result<(Option<Iface>, Subject<'s>), Refused> {
        let object = if let Place::Object(object) = place { Some(object) } else { None };
        let subject = Subject { view: self.view, object };
        match place.iface().filter(|iface| interface.is_empty() || iface.name() == interface) {
            Some(iface) => Ok((Some(iface), subject)),
            None if matches!(interface, "" | PEER | INTROSPECTABLE | PROPERTIES) => Ok((None, subject)),
            None if interface == OBJECT_MANAGER && matches!(place, Place::Manager) => Ok((None, subject)),
            None => Err(unknown_interface(interface, path)),
        }
    }

    fn introspect(&self, path: &str, place: Place<'_>) -> String {
        let below = self.view.below(path);
        let mut children: Vec<Cow<'_, str>> = Vec::new();
        if let Place::Manager = place {
            children.extend(FOLDERS.map(Cow::Borrowed));
        } else {
            for name in below.iter().filter_map(|object| tree::child(&object.path, path)) {
                if children.last().is_none_or(|last| *last != name) {
                    children.push(name.into());
                }
            }
        }
        // The manager's path exists also while it has no children.
        for above in ["/", "/org"].into_iter().filter(|above| *above == path) {
            children = tree::child(ROOT, above).map(Cow::Borrowed).into_iter().collect();
        }
        let ours = place.iface().and_then(|iface| self.xml.0.get(&iface));
        introspect::node(ours.map(String::as_str), matches!(place, Place::Manager), children.iter())
    }

    /// The arguments of the call, which must have this `signature`; `names` is for the error message.
    pub fn arguments<'b, T>(&self, body: &'b zbus::message::Body, signature: &str, names: &str) -> Result<T, Refused>
    where
        T: zbus::wire::DynamicDeserialize<'b>,
    {
        let found = body.signature().to_string_no_parens();
        if found != signature {
            let found = said(&found);
            return Err(Refused::invalid(format!(
                "wanted are arguments of signature {signature:?} ({names}), not {found}"
            )));
        }
        body.deserialize().map_err(|error| Refused::invalid(format!("arguments: {}", said(&error.to_string()))))
    }

    /// Checks that the call has no arguments.
    pub fn takes_nothing(&self) -> Result<(), Refused> {
        match self.message.body().is_empty() {
            true => Ok(()),
            false => Err(Refused::invalid("this method takes no arguments")),
        }
    }

    /// A reply with this body.
    pub fn reply<B: serde::Serialize + DynamicType>(&self, body: &B) -> Result<Message, Refused> {
        let built = Message::method_return(self.header).build(body);
        built.map_err(|error| Refused::limits(format!("the answer does not fit into a message: {error}")))
    }

    /// A reply with an object's path.
    pub fn reply_path(&self, object: &Object) -> Result<Message, Refused> {
        self.reply(&path(object))
    }
}

/// An object's path.
pub(super) fn path(object: &Object) -> ObjectPath<'_> {
    // `tree` escaped the parts of the path, so it is valid.
    ObjectPath::from_str_unchecked(&object.path)
}

/// All properties of an interface, with their values.
pub(super) fn all(iface: Iface, subject: Subject<'_>) -> BTreeMap<&'static str, Variant<'static>> {
    properties::of(iface).map(|property| (property.name, (property.get)(subject))).collect()
}

type Interfaces = BTreeMap<&'static str, BTreeMap<&'static str, Variant<'static>>>;

/// One object as ObjectManager lists it: its own interface only, as the standard ones have no properties.
pub(super) fn interfaces(view: &View, object: &Object) -> Interfaces {
    [(object.iface.name(), all(object.iface, Subject { view, object: Some(object) }))].into()
}

fn managed(view: &View) -> BTreeMap<ObjectPath<'_>, Interfaces> {
    view.objects.iter().map(|object| (path(object), interfaces(view, object))).collect()
}

/// Text from a caller, made safe for an error message: quoted, escaped and cut to [`SAID`] characters.
pub(super) fn said(text: &str) -> String {
    let cut: String = text.chars().take(SAID).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", safe(&cut))
}

const UNKNOWN_METHOD: &str = "org.freedesktop.DBus.Error.UnknownMethod";
const UNKNOWN_INTERFACE: &str = "org.freedesktop.DBus.Error.UnknownInterface";

fn unknown_method(member: &str, interface: &str) -> Refused {
    Refused::new(UNKNOWN_METHOD, format!("{} has no method {}", said(interface), said(member)))
}

fn unknown_interface(interface: &str, path: &str) -> Refused {
    Refused::new(UNKNOWN_INTERFACE, format!("the object {} has no interface {}", said(path), said(interface)))
}

fn unknown_property(name: &str, interface: &str) -> Refused {
    let why = format!("{} has no property {}", said(interface), said(name));
    Refused::new("org.freedesktop.DBus.Error.UnknownProperty", why)
}
