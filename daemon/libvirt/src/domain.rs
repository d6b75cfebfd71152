//! Reads from a domain's XML what is sent to jouled. Pure: makes no calls.

use roxmltree::{Document, Node, ParsingOptions};
use serde::Serialize;
use std::collections::BTreeMap;

/// Namespace of jouled's element in a domain's `<metadata>`.
pub const NAMESPACE: &str = "https://jouled.org/xmlns/guest/1";

/// Namespaces of OpenStack Nova's element, the newer one first (nova/virt/libvirt/config.py of Nova).
const NOVA: [&str; 2] = ["http://openstack.org/xmlns/libvirt/nova/1.1", "http://openstack.org/xmlns/libvirt/nova/1.0"];
/// Namespace of OpenNebula's element (src/vmm/LibVirtDriverKVM.cc of OpenNebula).
const OPENNEBULA: &str = "http://opennebula.org/xmlns/libvirt/1.0";

/// Longest name, title and label in bytes; the rest is cut off.
const TEXT_LIMIT: usize = 256;
/// Longest profile name in bytes; a longer one is ignored.
const PROFILE_LIMIT: usize = 32;
/// Longest XML in bytes; libvirt's own has some kilobytes.
const XML_LIMIT: usize = 1 << 20;
const NODE_LIMIT: u32 = 100_000;

/// One machine, as it is sent to jouled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Name, at most 256 bytes.
    pub name: String,
    /// UUID, as libvirt writes it.
    pub uuid: String,
    /// `running`, `paused`, …
    pub state: String,
    /// Title, at most 256 bytes; empty where there is none.
    pub title: String,
    /// Number of virtual CPUs now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Vsock context id now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cid: Option<u32>,
    /// Attribute `profile` of jouled's metadata element.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Whose it is: `project`, `project_id`, `user`, `user_id`, `flavor`, `description`, at most 256 bytes each. What
    /// is not known is left out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<&'static str, String>,
}

/// Reads a domain's live XML, which any user who may define domains has written.
///
/// # Errors
/// It is not a domain's XML, or unreasonably large.
pub fn parse(xml: &str, state: &str) -> Result<Machine, String> {
    if xml.len() > XML_LIMIT {
        return Err(format!("its XML has {} bytes, at most {XML_LIMIT} are read", xml.len()));
    }
    let options = ParsingOptions { nodes_limit: NODE_LIMIT, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(xml, options).map_err(|error| format!("its XML cannot be read: {error}"))?;
    let domain = document.root_element();
    if domain.tag_name().name() != "domain" {
        return Err("its XML is not a domain's".into());
    }
    let text = |name: &str| child(domain, name).and_then(|node| node.text()).unwrap_or_default().trim();
    let metadata = child(domain, "metadata");
    let (called, mut labels) = metadata.map(owner).unwrap_or_default();
    labels.insert("description", cut(text("description")));
    labels.retain(|_, value| !value.is_empty());
    let vcpu = child(domain, "vcpu");
    let vcpus = vcpu.and_then(|node| node.attribute("current").or(node.text()));
    Ok(Machine {
        name: cut(text("name")),
        uuid: text("uuid").to_string(),
        state: state.to_string(),
        title: Some(cut(text("title"))).filter(|title| !title.is_empty()).unwrap_or(called),
        vcpus: vcpus.and_then(|count| count.trim().parse().ok()),
        cid: child(domain, "devices").and_then(cid),
        profile: metadata.and_then(profile),
        labels,
    })
}

/// The assigned context id. With `auto` it has an address only while the domain runs.
fn cid(devices: Node) -> Option<u32> {
    child(child(devices, "vsock")?, "cid")?.attribute("address")?.parse().ok()
}

fn profile(metadata: Node) -> Option<String> {
    let guest = metadata.children().find(|node| node.has_tag_name((NAMESPACE, "guest")))?;
    guest.attribute("profile").filter(|profile| profile.len() <= PROFILE_LIMIT).map(String::from)
}

/// What the machine is called where it was ordered, and whose it is, by the metadata of OpenStack or OpenNebula.
/// oVirt's (`http://ovirt.org/vm/1.0`) has neither an owner nor a project.
fn owner(metadata: Node) -> (String, BTreeMap<&'static str, String>) {
    let named = |parent: Node, namespace: &str, name: &str| {
        let found = parent.children().find(|node| node.has_tag_name((namespace, name)));
        found.map(|node| {
            (
                cut(node.text().unwrap_or_default().trim()),
                node.attribute("uuid").map(cut),
                node.attribute("name").map(cut),
            )
        })
    };
    let text = |parent: Node, namespace: &str, name: &str| {
        named(parent, namespace, name).map(|(text, ..)| text).unwrap_or_default()
    };
    let element = |namespace: &str, name: &str| metadata.children().find(|node| node.has_tag_name((namespace, name)));
    if let Some((namespace, instance)) = NOVA.iter().find_map(|nova| Some((*nova, element(nova, "instance")?))) {
        let owner = instance.children().find(|node| node.has_tag_name((namespace, "owner")));
        let of_owner = |name: &str| {
            let (text, uuid, _) = owner.and_then(|owner| named(owner, namespace, name)).unwrap_or_default();
            (text, uuid.unwrap_or_default())
        };
        let ((project, project_id), (user, user_id)) = (of_owner("project"), of_owner("user"));
        let flavor = named(instance, namespace, "flavor").and_then(|(.., name)| name).unwrap_or_default();
        let labels = [
            ("project", project),
            ("project_id", project_id),
            ("user", user),
            ("user_id", user_id),
            ("flavor", flavor),
        ];
        return (text(instance, namespace, "name"), labels.into());
    }
    let Some(vm) = element(OPENNEBULA, "vm") else { return Default::default() };
    let names = [("project", "gname"), ("project_id", "gid"), ("user", "uname"), ("user_id", "uid")];
    let labels = names.map(|(label, name)| (label, text(vm, OPENNEBULA, name)));
    (text(vm, OPENNEBULA, "name"), labels.into())
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children()
        .find(|child| child.is_element() && child.tag_name().name() == name && child.tag_name().namespace().is_none())
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = r#"<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <name>web</name><uuid>8c0dd3f4-6a4b-4c5e-9a0e-1f6f3c1f2a11</uuid><title>The shop &amp; its &lt;cart&gt;</title>
      <metadata>
        <other:thing xmlns:other="https://example.org/" profile="off"/>
        <jouled:guest xmlns:jouled="https://jouled.org/xmlns/guest/1" profile="trusted"/>
      </metadata>
      <vcpu placement='static' current='2'>4</vcpu>
      <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><vsock model='virtio'><cid auto='yes' address='3'/><alias name='vsock0'/></vsock></devices>
      <qemu:commandline/></domain>"#;

    #[test]
    fn a_live_domain() {
        let machine = parse(LIVE, "running").unwrap();
        assert_eq!(
            machine,
            Machine {
                name: "web".into(),
                uuid: "8c0dd3f4-6a4b-4c5e-9a0e-1f6f3c1f2a11".into(),
                state: "running".into(),
                title: "The shop & its <cart>".into(),
                vcpus: Some(2),
                cid: Some(3),
                profile: Some("trusted".into()),
                labels: BTreeMap::new(),
            }
        );
    }

    fn labels(xml: &str) -> Vec<(&'static str, String)> {
        parse(xml, "running").unwrap().labels.into_iter().collect()
    }

    /// As Nova writes it; prefixes are what the writer of the XML chose.
    const NOVA_INSTANCE: &str = r#"<N:instance xmlns:N="http://openstack.org/xmlns/libvirt/nova/1.1">
        <N:package version="25.1.0"/><N:name>shop-db</N:name><N:creationTime>2023-03-14 10:09:13</N:creationTime>
        <N:flavor name="m1.large"><N:memory>8192</N:memory><N:vcpus>8</N:vcpus></N:flavor>
        <N:owner><N:user uuid="0a1b">demo-user</N:user><N:project uuid="f47ac10b">demo</N:project></N:owner>
        <N:root type="image" uuid="cafe"/></N:instance>"#;

    #[test]
    fn whose_a_machine_of_openstack_is() {
        let expected = [
            ("flavor", "m1.large".to_owned()),
            ("project", "demo".to_owned()),
            ("project_id", "f47ac10b".to_owned()),
            ("user", "demo-user".to_owned()),
            ("user_id", "0a1b".to_owned()),
        ];
        for prefix in ["nova", "ns0", "x-y"] {
            let instance =
                NOVA_INSTANCE.replace("N:", &format!("{prefix}:")).replace("xmlns:N", &format!("xmlns:{prefix}"));
            for instance in [instance.replace("nova/1.1", "nova/1.0"), instance] {
                let xml = format!("<domain><name>instance-00000001</name><metadata>{instance}</metadata></domain>");
                assert_eq!(labels(&xml), expected, "{xml}");
                assert_eq!(parse(&xml, "").unwrap().title, "shop-db");
                let titled = xml.replace("<metadata>", "<title>A title</title><metadata>");
                assert_eq!(parse(&titled, "").unwrap().title, "A title");
            }
        }
        // The default namespace, and the same words in another one.
        let instance = NOVA_INSTANCE.replace("N:", "").replace("xmlns:N", "xmlns");
        assert_eq!(labels(&format!("<domain><metadata>{instance}</metadata></domain>")), expected, "{instance}");
        let foreign = NOVA_INSTANCE.replace("openstack.org", "example.org");
        assert_eq!(labels(&format!("<domain><metadata>{foreign}</metadata></domain>")), []);
    }

    #[test]
    fn whose_a_machine_of_opennebula_is() {
        let xml = r#"<domain><name>one-7</name><description>the
            second line</description><metadata><one:vm xmlns:one="http://opennebula.org/xmlns/libvirt/1.0">
            <one:system_datastore>/var/lib/one/datastores/0/7</one:system_datastore><one:name>shop</one:name>
            <one:uname>alice</one:uname><one:uid>4</one:uid><one:gname>users</one:gname><one:gid>1</one:gid>
            </one:vm></metadata></domain>"#;
        let expected = [("project", "users"), ("project_id", "1"), ("user", "alice"), ("user_id", "4")];
        let found = labels(xml);
        assert!(found[0].0 == "description" && found[0].1.starts_with("the\n"), "{found:?}");
        assert_eq!(found[1..].iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), expected);
        assert_eq!(parse(xml, "").unwrap().title, "shop");
    }

    #[test]
    fn an_owner_is_foreign_text_and_is_cut() {
        let long = "\u{202e}".repeat(4_000);
        let of = |text: &str| format!("<domain><metadata>{}</metadata></domain>", NOVA_INSTANCE.replace("demo<", text));
        let machine = parse(&of(&format!("{long}<")), "").unwrap();
        assert!(machine.labels["project"].len() <= 256 && machine.labels.len() == 5, "{machine:?}");
        // Elements that are missing, empty, repeated, or stand elsewhere.
        let nova = r#"xmlns:n="http://openstack.org/xmlns/libvirt/nova/1.1""#;
        for (inside, expected) in [
            ("", 0),
            ("<n:owner/>", 0),
            ("<n:owner><n:project/></n:owner>", 0),
            ("<n:owner><n:project uuid='1'/></n:owner>", 1),
            ("<n:project uuid='1'>a</n:project><n:flavor>a</n:flavor>", 0),
            ("<n:owner><n:project>a</n:project></n:owner><n:owner><n:project>b</n:project></n:owner>", 1),
        ] {
            let xml = format!("<domain><metadata><n:instance {nova}>{inside}</n:instance></metadata></domain>");
            assert_eq!(labels(&xml).len(), expected, "{inside}");
        }
    }

    #[test]
    fn absent_elements_are_absent_fields() {
        let machine = parse(
            "<domain type='test'><name>a</name><vcpu>8</vcpu><devices><vsock><cid auto='yes'/></vsock></devices></domain>",
            "",
        )
        .unwrap();
        assert_eq!((machine.vcpus, machine.cid, machine.profile, machine.title.as_str()), (Some(8), None, None, ""));
        let foreign = "<domain><name>a</name><metadata><guest profile='off'/><j:guest xmlns:j='https://jouled.org/xmlns/guest/2' profile='off'/></metadata></domain>";
        assert_eq!(parse(foreign, "").unwrap().profile, None);
        assert_eq!(
            parse("<domain><devices><vsock><cid address='-1'/></vsock></devices></domain>", "").unwrap().cid,
            None
        );
    }

    #[test]
    fn names_are_cut_but_not_changed() {
        let long = "ü".repeat(5_000);
        let machine = parse(&format!("<domain><name>{long}</name><title>{long}</title></domain>"), "running").unwrap();
        assert_eq!((machine.name.len(), machine.title.len()), (256, 256));
        let odd = parse("<domain><name>../../etc/passwd\n\"x\"</name></domain>", "running").unwrap();
        assert_eq!(odd.name, "../../etc/passwd\n\"x\"");
        let profile =
            format!("<domain><metadata><j:guest xmlns:j='{NAMESPACE}' profile='{long}'/></metadata></domain>");
        assert_eq!(parse(&profile, "").unwrap().profile, None);
    }

    #[test]
    fn xml_of_something_else_is_refused() {
        for bad in [
            "",
            "<domain>",
            "<network/>",
            "<!DOCTYPE d [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><domain><name>&b;</name></domain>",
            &format!("<domain><name>{}</name></domain>", "x".repeat(XML_LIMIT)),
            &format!("<domain>{}</domain>", "<a/>".repeat(NODE_LIMIT as usize)),
        ] {
            assert!(parse(bad, "").is_err(), "{}", &bad[..bad.len().min(80)]);
        }
        let deep = format!("{}{}", "<domain>".repeat(20_000), "</domain>".repeat(20_000));
        let _ = parse(&deep, "");
    }
}
