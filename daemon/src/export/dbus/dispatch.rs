//! From a call to its method or property: object path, interface and member, the standard interfaces, and the errors
//! for what does not exist.

use super::call::{Call, CallError, said};
use super::introspect;
use super::methods::METHODS;
use super::properties::{self, Interfaces, Subject, all, interfaces};
use super::tree::{self, FOLDERS, ROOT};
use super::view::{Iface, Object, View};
use std::borrow::Cow;
use std::collections::BTreeMap;
use zbus::{Message, ObjectPath, Variant};

const PEER: &str = "org.freedesktop.DBus.Peer";
const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";

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
enum Node<'a> {
    Manager,
    Object(&'a Object),
    /// A node that only has children.
    Folder,
}

impl Node<'_> {
    fn iface(&self) -> Option<Iface> {
        match self {
            Self::Manager => Some(Iface::Manager),
            Self::Object(object) => Some(object.iface),
            Self::Folder => None,
        }
    }
}

/// Answers a call; with an error reply where it cannot be answered. `caller` has decided which view the caller gets.
pub(super) fn answer(call: &Call<'_>, xml: &Xml) -> zbus::Result<Message> {
    Dispatch { call, xml }.result().or_else(|error| error.reply(call.header))
}

/// A call on its way to its method.
struct Dispatch<'a> {
    call: &'a Call<'a>,
    xml: &'a Xml,
}

impl<'a> Dispatch<'a> {
    fn result(&self) -> Result<Message, CallError> {
        let path = self.call.header.path().map_or("", |path| path.as_str());
        let member = self.call.header.member().map_or("", |member| member.as_str());
        let interface = self.call.header.interface().map(|interface| interface.as_str());
        if interface == Some(PEER) {
            // Peer belongs to the connection: it is answered at every path.
            return self.peer(member);
        }
        let node = self.node(path)?;
        // A call without an interface means any interface that has the method.
        match interface {
            Some(interface) => self.method(path, node, interface, member),
            None => {
                let ours = node.iface().map(Iface::name);
                let all = [Some(INTROSPECTABLE), Some(PROPERTIES), Some(PEER), Some(OBJECT_MANAGER), ours];
                let results = all.into_iter().flatten().map(|interface| self.method(path, node, interface, member));
                let unknown = |error: &CallError| matches!(error.name, UNKNOWN_METHOD | UNKNOWN_INTERFACE);
                let mut known = results.filter(|result| !result.as_ref().is_err_and(unknown));
                known.next().unwrap_or_else(|| Err(unknown_method(member, "any interface")))
            }
        }
    }

    fn node(&self, path: &str) -> Result<Node<'a>, CallError> {
        if path == ROOT {
            return Ok(Node::Manager);
        }
        if let Some(object) = self.call.view.object(path) {
            return Ok(Node::Object(object));
        }
        let fixed = FOLDERS
            .iter()
            .any(|folder| path.strip_prefix(ROOT).and_then(|path| path.strip_prefix('/')) == Some(folder));
        let above = path == "/" || path == "/org";
        if fixed || above || !self.call.view.below(path).is_empty() {
            return Ok(Node::Folder);
        }
        let why = format!("there is no object {}: it may have ended, or has drawn nothing yet", said(path));
        Err(CallError::new("org.freedesktop.DBus.Error.UnknownObject", why))
    }

    fn method(&self, path: &str, node: Node<'a>, interface: &str, member: &str) -> Result<Message, CallError> {
        let unknown = || unknown_method(member, interface);
        match (interface, member) {
            (PEER, _) => self.peer(member),
            (INTROSPECTABLE, "Introspect") => {
                self.call.takes_nothing().and_then(|()| self.call.reply(&self.introspect(path, node)))
            }
            (PROPERTIES, "Get") => {
                let body = self.call.message.body();
                let (interface, name): (&str, &str) = self.call.arguments(&body, "ss", "interface, property")?;
                let (iface, subject) = self.subject(node, interface, path)?;
                match iface.and_then(|iface| properties::find(iface, name)) {
                    Some(property) => self.call.reply(&(property.get)(subject)),
                    None => Err(unknown_property(name, interface)),
                }
            }
            (PROPERTIES, "GetAll") => {
                let body = self.call.message.body();
                let interface: &str = self.call.arguments(&body, "s", "interface")?;
                let (iface, subject) = self.subject(node, interface, path)?;
                self.call.reply(&iface.map(|iface| all(iface, subject)).unwrap_or_default())
            }
            (PROPERTIES, "Set") => {
                let body = self.call.message.body();
                let (interface, name, _): (&str, &str, Variant<'_>) =
                    self.call.arguments(&body, "ssv", "interface, property, value")?;
                let (iface, _) = self.subject(node, interface, path)?;
                match iface.and_then(|iface| properties::find(iface, name)) {
                    Some(_) => Err(CallError::new(
                        "org.freedesktop.DBus.Error.PropertyReadOnly",
                        format!("{name} can only be read: jouled changes nothing for anybody"),
                    )),
                    None => Err(unknown_property(name, interface)),
                }
            }
            (OBJECT_MANAGER, "GetManagedObjects") if matches!(node, Node::Manager) => {
                self.call.takes_nothing()?;
                self.call.reply(&managed(self.call.view))
            }
            (INTROSPECTABLE | PROPERTIES, _) => Err(unknown()),
            (OBJECT_MANAGER, _) if matches!(node, Node::Manager) => Err(unknown()),
            _ if node.iface().is_some_and(|iface| iface.name() == interface) => {
                let method = METHODS.iter().find(|method| method.of.name() == interface && method.name == member);
                (method.ok_or_else(unknown)?.call)(self.call)
            }
            _ => Err(unknown_interface(interface, path)),
        }
    }

    fn peer(&self, member: &str) -> Result<Message, CallError> {
        match member {
            "Ping" => self.call.takes_nothing().and_then(|()| self.call.reply(&())),
            "GetMachineId" => self.call.takes_nothing().and_then(|()| self.call.reply(&self.call.facts.machine_id)),
            _ => Err(unknown_method(member, PEER)),
        }
    }

    /// The subject of the properties of `interface` (any interface where it is empty); `None` for a standard interface,
    /// which has no properties.
    fn subject(&self, node: Node<'a>, interface: &str, path: &str) -> Result<(Option<Iface>, Subject<'a>), CallError> {
        let object = if let Node::Object(object) = node { Some(object) } else { None };
        let subject = Subject { view: self.call.view, object };
        match node.iface().filter(|iface| interface.is_empty() || iface.name() == interface) {
            Some(iface) => Ok((Some(iface), subject)),
            None if matches!(interface, "" | PEER | INTROSPECTABLE | PROPERTIES) => Ok((None, subject)),
            None if interface == OBJECT_MANAGER && matches!(node, Node::Manager) => Ok((None, subject)),
            None => Err(unknown_interface(interface, path)),
        }
    }

    fn introspect(&self, path: &str, node: Node<'_>) -> String {
        let below = self.call.view.below(path);
        let mut children: Vec<Cow<'_, str>> = Vec::new();
        if let Node::Manager = node {
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
        let ours = node.iface().and_then(|iface| self.xml.0.get(&iface));
        introspect::node(ours.map(String::as_str), matches!(node, Node::Manager), children.iter())
    }
}

fn managed(view: &View) -> BTreeMap<ObjectPath<'_>, Interfaces> {
    view.objects.iter().map(|object| (object.object_path(), interfaces(view, object))).collect()
}

const UNKNOWN_METHOD: &str = "org.freedesktop.DBus.Error.UnknownMethod";
const UNKNOWN_INTERFACE: &str = "org.freedesktop.DBus.Error.UnknownInterface";

fn unknown_method(member: &str, interface: &str) -> CallError {
    CallError::new(UNKNOWN_METHOD, format!("{} has no method {}", said(interface), said(member)))
}

fn unknown_interface(interface: &str, path: &str) -> CallError {
    CallError::new(UNKNOWN_INTERFACE, format!("the object {} has no interface {}", said(path), said(interface)))
}

fn unknown_property(name: &str, interface: &str) -> CallError {
    let why = format!("{} has no property {}", said(interface), said(name));
    CallError::new("org.freedesktop.DBus.Error.UnknownProperty", why)
}
