//! Introspection: the XML of every interface, made from the tables in `methods` and `properties`. The same text is
//! installed in /usr/share/dbus-1/interfaces.

use super::methods::METHODS;
use super::properties;
use super::view::Iface;
use std::fmt::Write;

const DOCTYPE: &str = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
                       \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n";

/// XML of the interfaces that every object has, and of ObjectManager.
const STANDARD: &str = include_str!("standard.xml");
const OBJECT_MANAGER: &str = include_str!("object-manager.xml");

/// The XML of an interface of jouled, with documentation.
pub(super) fn interface(iface: Iface) -> String {
    let mut xml = format!("  <interface name=\"{}\">\n", iface.name());
    doc(&mut xml, 4, about(iface));
    for method in METHODS.iter().filter(|method| method.of == iface) {
        let _ = writeln!(xml, "    <method name=\"{}\">", method.name);
        doc(&mut xml, 6, method.doc);
        for (direction, arguments) in [("in", method.takes), ("out", method.gives)] {
            for (name, signature) in arguments {
                let _ = writeln!(xml, "      <arg name=\"{name}\" type=\"{signature}\" direction=\"{direction}\"/>");
            }
        }
        xml.push_str("    </method>\n");
    }
    for property in properties::of(iface) {
        let _ =
            writeln!(xml, "    <property name=\"{}\" type=\"{}\" access=\"read\">", property.name, property.signature);
        doc(&mut xml, 6, property.doc);
        let emits = property.emits.as_str();
        let _ = writeln!(
            xml,
            "      <annotation name=\"org.freedesktop.DBus.Property.EmitsChangedSignal\" value=\"{emits}\"/>"
        );
        xml.push_str("    </property>\n");
    }
    xml.push_str("  </interface>\n");
    xml
}

/// The XML of a node with these interfaces and children.
pub(super) fn node(ours: Option<&str>, manages: bool, children: impl Iterator<Item = impl AsRef<str>>) -> String {
    let mut xml = format!("{DOCTYPE}<node>\n{STANDARD}");
    if manages {
        xml.push_str(OBJECT_MANAGER);
    }
    xml.push_str(ours.unwrap_or_default());
    for child in children {
        // Path elements have only letters, digits and underscores, so nothing needs escaping.
        let _ = writeln!(xml, "  <node name=\"{}\"/>", child.as_ref());
    }
    xml.push_str("</node>\n");
    xml
}

/// A file for /usr/share/dbus-1/interfaces.
#[cfg(test)]
pub(super) fn file(iface: Iface) -> String {
    format!("{DOCTYPE}<node>\n{}</node>\n", interface(iface))
}

fn about(iface: Iface) -> &'static str {
    match iface {
        Iface::Manager => {
            "The energy of this machine, and who used it. Anyone may ask, and is told every 10 s, to 1 J; root and the group jouled at \
             every tick, to 1 microjoule. Signals carry what anyone may know. Reading starts no measurement. More is only ever added."
        }
        Iface::Unit => "A unit or slice of the system's service manager, or a unit of a user's.",
        Iface::Machine => "A virtual machine.",
        Iface::Container => "A container.",
        Iface::Job => "A job of a batch system or scheduler.",
        Iface::Tenant => "A tenant: whose energy it is, as the rules in jouled.toml say.",
        Iface::Process => "A process.",
    }
}

/// Adds documentation in GDBus' form. The text is escaped for an XML attribute.
fn doc(xml: &mut String, indent: usize, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let _ = writeln!(xml, "{:indent$}<annotation name=\"org.gtk.GDBus.DocString\" value=\"{text}\"/>", "");
}
