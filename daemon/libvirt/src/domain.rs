//! Reads from a domain's XML what is sent to jouled. Pure: makes no calls.

use roxmltree::{Document, Node, ParsingOptions};
use serde::Serialize;

/// Namespace of jouled's element in a domain's `<metadata>`.
pub const NAMESPACE: &str = "https://jouled.org/xmlns/guest/1";

/// Longest name and title in bytes; the rest is cut off.
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
    let vcpu = child(domain, "vcpu");
    let vcpus = vcpu.and_then(|node| node.attribute("current").or(node.text()));
    Ok(Machine {
        name: cut(text("name")),
        uuid: text("uuid").to_string(),
        state: state.to_string(),
        title: cut(text("title")),
        vcpus: vcpus.and_then(|count| count.trim().parse().ok()),
        cid: child(domain, "devices").and_then(cid),
        profile: child(domain, "metadata").and_then(profile),
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
            }
        );
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
