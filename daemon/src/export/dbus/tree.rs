//! Object paths of names, escaped as systemd escapes them. Pure text; knows no object.

use std::fmt::Write;

/// The manager's object.
pub(super) const ROOT: &str = "/org/jouled1";
/// Nodes below the manager that always exist.
pub(super) const FOLDERS: [&str; 6] = ["container", "job", "machine", "tenant", "unit", "user"];

/// A name as one element of an object path, as systemd's bus_label_escape does it: `_` and two hex digits for every
/// byte that is no ASCII letter or digit, and for a leading digit; `_` alone for the empty name. Different names give
/// different elements.
pub(super) fn escape(name: &str) -> String {
    if name.is_empty() {
        return "_".into();
    }
    let mut label = String::with_capacity(name.len() + 8);
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            label.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(label, "_{byte:02x}");
        }
    }
    label
}

/// A unit or slice of the system's service manager.
pub(super) fn unit(name: &str) -> String {
    format!("{ROOT}/unit/{}", escape(name))
}

/// A unit of a user's service manager.
pub(super) fn user_unit(user: &str, name: &str) -> String {
    format!("{ROOT}/user/{}/unit/{}", escape(user), escape(name))
}

/// A virtual machine, by its name where no other machine has a claim to it, else by its id.
pub(super) fn machine(name_or_id: &str) -> String {
    format!("{ROOT}/machine/{}", escape(name_or_id))
}

/// A container.
pub(super) fn container(id: &str) -> String {
    format!("{ROOT}/container/{}", escape(id))
}

/// A job, by its manager and its id there. Of several with one id, one after the other, it is the last.
pub(super) fn job(manager: &str, id: &str) -> String {
    format!("{ROOT}/job/{}/{}", escape(manager), escape(id))
}

/// A tenant.
pub(super) fn tenant(name: &str) -> String {
    format!("{ROOT}/tenant/{}", escape(name))
}

/// The name of the next path element where `path` is below `parent`.
pub(super) fn child<'a>(path: &'a str, parent: &str) -> Option<&'a str> {
    let below = match parent {
        "/" => path.strip_prefix('/')?,
        parent => path.strip_prefix(parent)?.strip_prefix('/')?,
    };
    below.split('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_escaped_as_systemd_escapes_them() {
        // From `busctl call org.freedesktop.systemd1 … GetUnit` and systemd's own test of bus_label_escape.
        for (name, label) in [
            ("ssh.service", "ssh_2eservice"),
            ("", "_"),
            ("1000", "_31000"),
            ("_", "_5f"),
            ("-.slice", "_2d_2eslice"),
            ("foo123bar", "foo123bar"),
            ("123", "_3123"),
            ("a/b", "a_2fb"),
            (r"dev-disk-by\x2duuid", "dev_2ddisk_2dby_5cx2duuid"),
            ("ü", "_c3_bc"),
            ("\n", "_0a"),
        ] {
            assert_eq!(escape(name), label, "{name:?}");
        }
        assert_eq!(user_unit("1000", "foo.service"), "/org/jouled1/user/_31000/unit/foo_2eservice");
    }

    #[test]
    fn children_of_paths() {
        assert_eq!(child("/org/jouled1/unit/a", "/org/jouled1"), Some("unit"));
        assert_eq!(child("/org/jouled1", "/"), Some("org"));
        assert_eq!(child("/org/jouled1", "/org/jouled1"), None);
        assert_eq!(child("/org/jouled12", "/org/jouled1"), None);
    }

    proptest! {
        #[test]
        fn every_name_is_a_valid_path_and_no_two_are_one(one in ".{0,40}", other in ".{0,40}") {
            prop_assert!(zbus::ObjectPath::try_from(machine(&one)).is_ok());
            prop_assert_eq!(one == other, escape(&one) == escape(&other));
        }
    }
}
