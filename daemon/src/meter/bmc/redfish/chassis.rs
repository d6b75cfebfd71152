//! Decides which system and chassis of a BMC are this machine's, by SMBIOS UUID and links. Pure: sends no request,
//! reads no power.

use super::BmcError;
use super::cut;
use super::doc::Doc;
use std::collections::BTreeSet;

/// A ComputerSystem resource: UUID, and URIs of the chassis that it links to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct System {
    pub(super) uri: String,
    pub(super) uuid: Option<[u8; 16]>,
    pub(super) chassis: Vec<String>,
}

/// A Chassis resource: id, and URIs of what it links to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chassis {
    pub(super) uri: String,
    pub(super) id: String,
    pub(super) systems: Vec<String>,
    /// Whether `systems` are all: the list is what it should be.
    pub(super) knows_systems: bool,
    /// `ContainedBy`.
    pub(super) contained_by: Option<String>,
    pub(super) contains: Vec<String>,
}

impl System {
    /// Reads it. Links that cannot be used go into `left_out`.
    ///
    /// # Errors
    /// Its UUID cannot be used: it may be this machine's.
    pub(super) fn read(doc: &Doc, left_out: &mut Vec<BmcError>) -> Result<Self, BmcError> {
        let root = doc.root();
        let uuid = root.text("UUID")?.and_then(uuid);
        let chassis = root.at("Links").map(|links| links.links("Chassis", left_out));
        Ok(Self { uri: doc.uri.clone(), uuid, chassis: or_none(chassis, left_out) })
    }
}

impl Chassis {
    /// Reads it. What cannot be used goes into `left_out`.
    pub(super) fn read(doc: &Doc, left_out: &mut Vec<BmcError>) -> Self {
        let root = doc.root();
        let id = or_none(root.text("Id"), left_out).unwrap_or(last_segment(&doc.uri)).to_owned();
        let mut chassis = Self { uri: doc.uri.clone(), id, knows_systems: true, ..Self::default() };
        match root.at("Links") {
            Ok(links) => {
                let before = left_out.len();
                chassis.systems = links.links("ComputerSystems", left_out);
                chassis.knows_systems = left_out.len() == before;
                chassis.contained_by = or_none(links.link("ContainedBy"), left_out);
                chassis.contains = links.links("Contains", left_out);
            }
            Err(error) => {
                chassis.knows_systems = false;
                left_out.push(error);
            }
        }
        chassis
    }
}

fn or_none<T: Default>(result: Result<T, BmcError>, left_out: &mut Vec<BmcError>) -> T {
    result.unwrap_or_else(|error| {
        left_out.push(error);
        T::default()
    })
}

/// A resource's id, which is the last segment of its URI (DSP0266).
pub(super) fn last_segment(uri: &str) -> &str {
    uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Whether two URIs name the same resource: some BMCs write them with and without a trailing slash.
pub(super) fn same_uri(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

fn lists(uris: &[String], uri: &str) -> bool {
    uris.iter().any(|one| same_uri(one, uri))
}

/// Reads a UUID. `None` also for all zeros and all ones, which mean that there is none.
pub(super) fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes: Option<Vec<u8>> =
        digits.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect();
    let bytes: [u8; 16] = bytes?.try_into().ok()?;
    (bytes != [0; 16] && bytes != [0xff; 16]).then_some(bytes)
}

/// Whether two UUIDs are the same machine's. Since SMBIOS 2.6 the first three fields are little-endian, which some
/// firmware ignores (DSP0134, 7.2.1).
fn same_uuid(one: &[u8; 16], other: &[u8; 16]) -> bool {
    let o = other;
    let swapped =
        [o[3], o[2], o[1], o[0], o[5], o[4], o[7], o[6], o[8], o[9], o[10], o[11], o[12], o[13], o[14], o[15]];
    one == other || *one == swapped
}

/// How a system is known to be this machine's, where that is certain.
pub(super) const BY_UUID: &str = "its UUID is this machine's";

/// The system that is this machine, whose UUID is `ours`, and for the operator, how that is known. `Ok(None)`: the
/// BMC has no systems.
///
/// # Errors
/// The systems are ambiguous, or the BMC is another machine's. Says what to configure.
pub(super) fn system<'a>(
    systems: &'a [System],
    ours: Option<&[u8; 16]>,
) -> Result<Option<(&'a System, &'static str)>, String> {
    let matching: Vec<&System> =
        systems.iter().filter(|one| matches!((&one.uuid, ours), (Some(a), Some(b)) if same_uuid(a, b))).collect();
    match (matching.as_slice(), systems) {
        ([one], _) => Ok(Some((one, BY_UUID))),
        ([_, _, ..], _) => Err(format!("several systems of the BMC have this machine's UUID ({})", uris(systems))),
        ([], []) => Ok(None),
        ([], [one]) if one.uuid.is_none() => Ok(Some((one, "the only system of the BMC, which has no UUID"))),
        ([], [one]) if ours.is_none() => Ok(Some((one, "the only system of the BMC; this machine's own UUID is not known"))),
        ([], [_]) => Err(
            "the BMC's system has another UUID than this machine: is it another machine's BMC? If it is this one's, set chassis"
                .into(),
        ),
        ([], _) if ours.is_none() => {
            Err(format!("the BMC has several systems ({}), and this machine's UUID is not known", uris(systems)))
        }
        ([], _) => Err(format!(
            "no system of the BMC has this machine's UUID: is it another machine's BMC? its systems are {}",
            uris(systems)
        )),
    }
}

fn uris(systems: &[System]) -> String {
    systems.iter().take(8).map(|system| cut(&system.uri)).collect::<Vec<_>>().join(", ")
}

/// The outermost chassis that belong to the system alone: at least one. The chassis inside them are metered with them;
/// the chassis around them contain other machines too. Without a system there is one chassis.
///
/// # Errors
/// There is none, or without a system several. Says what to configure.
pub(super) fn outermost<'a>(all: &'a [Chassis], system: Option<&System>) -> Result<Vec<&'a Chassis>, String> {
    let names = |some: &[&Chassis]| {
        some.iter().take(16).map(|one| format!("\"{}\"", cut(&one.id))).collect::<Vec<_>>().join(", ")
    };
    let every: Vec<&Chassis> = all.iter().collect();
    let candidates: Vec<&Chassis> = match system {
        None => every.clone(),
        Some(system) => {
            let linked = |one: &Chassis| lists(&one.systems, &system.uri) || lists(&system.chassis, &one.uri);
            let alone = |one: &Chassis| one.systems.iter().all(|other| same_uri(other, &system.uri));
            let own: Vec<&Chassis> = every.iter().copied().filter(|one| linked(one) && alone(one)).collect();
            // One whose list of systems cannot be used may contain other machines: only where there is no other.
            let certain: Vec<&Chassis> = own.iter().copied().filter(|one| one.knows_systems).collect();
            if certain.is_empty() { own } else { certain }
        }
    };
    let roots: Vec<&Chassis> = candidates.iter().copied().filter(|one| !is_nested(one, &candidates, all)).collect();
    match (roots.as_slice(), all) {
        ([one], _) => Ok(vec![*one]),
        ([], [only]) if only.systems.is_empty() => Ok(vec![only]),
        ([], []) => Err("the BMC has no chassis".into()),
        ([], _) => Err(format!(
            "no chassis of the BMC is linked to this machine's system alone: set chassis to one or more of {}",
            names(&every)
        )),
        _ if system.is_some() => Ok(roots),
        (several, _) => Err(several_are_ours(several.iter().map(|one| one.id.as_str()))),
    }
}

/// The error where several chassis may be this machine's.
pub(super) fn several_are_ours<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let ids: Vec<String> = ids.take(16).map(|id| format!("\"{}\"", cut(id))).collect();
    format!(
        "several chassis of the BMC are this machine's: set chassis to that whose power is this machine's, of {}",
        ids.join(", ")
    )
}

/// Whether a candidate is inside another candidate, at any depth.
fn is_nested(one: &Chassis, candidates: &[&Chassis], all: &[Chassis]) -> bool {
    let mut seen = BTreeSet::from([one.uri.as_str()]);
    let mut at = one;
    loop {
        let holds = |outer: &&Chassis| {
            at.contained_by.as_ref().is_some_and(|container| same_uri(container, &outer.uri))
                || lists(&outer.contains, &at.uri)
        };
        let outer = all.iter().find(holds);
        match outer {
            // A chassis that contains itself is an error of the BMC.
            Some(outer) if !seen.insert(&outer.uri) => return false,
            Some(outer) if candidates.iter().any(|candidate| candidate.uri == outer.uri) => return true,
            Some(outer) => at = outer,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "4c4c4544-0042-3510-8052-b4c04f4e3132";
    const SWAPPED: &str = "44454c4c-4200-1035-8052-B4C04F4E3132";

    #[test]
    fn a_slash_at_the_end_makes_no_difference() {
        let host = System { chassis: vec!["/a/".into()], ..sys("/s/", None) };
        assert_eq!(
            outermost(&[one("/a", &["/s"], None), one("/b", &["/s"], Some("/a/"))], Some(&host)).unwrap()[0].uri,
            "/a"
        );
    }

    fn one(uri: &str, systems: &[&str], inside: Option<&str>) -> Chassis {
        Chassis {
            uri: uri.into(),
            id: uri.trim_start_matches('/').into(),
            systems: systems.iter().map(|uri| (*uri).into()).collect(),
            knows_systems: true,
            contained_by: inside.map(str::to_owned),
            contains: Vec::new(),
        }
    }

    fn sys(uri: &str, id: Option<&str>) -> System {
        System { uri: uri.into(), uuid: id.and_then(uuid), chassis: Vec::new() }
    }

    #[test]
    fn a_system_is_recognised_by_its_uuid_in_either_byte_order() {
        let ours = uuid(UUID);
        let systems = [
            sys("/hgx", None),
            sys("/host", Some(SWAPPED)),
            sys("/other", Some("00000000-0000-0000-0000-000000000001")),
        ];
        assert_eq!(system(&systems, ours.as_ref()).unwrap().unwrap().0.uri, "/host");
        assert_eq!(system(&[sys("/host", Some(UUID))], ours.as_ref()).unwrap().unwrap().0.uri, "/host");
        assert!(system(&systems[2..], ours.as_ref()).unwrap_err().contains("another machine's BMC"));
        assert!(system(&systems, None).unwrap_err().contains("several systems"));
        assert!(system(&systems[2..], None).unwrap().unwrap().1.contains("not known"));
        assert_eq!(system(&[], ours.as_ref()), Ok(None));
        assert!(
            system(&[sys("/a", Some(UUID)), sys("/b", Some(UUID))], ours.as_ref()).unwrap_err().contains("several")
        );
        for none in ["", "00000000-0000-0000-0000-000000000000", "ffffffffffffffffffffffffffffffff", "12", "é", "zz"] {
            assert_eq!(uuid(none), None, "{none}");
        }
    }

    #[test]
    fn the_outermost_chassis_is_taken_and_never_one_with_other_systems() {
        let host = sys("/s", None);
        let all =
            [one("/tray", &["/s"], Some("/board")), one("/board", &["/s"], None), one("/disks", &[], Some("/board"))];
        assert_eq!(outermost(&all, Some(&host)).unwrap()[0].uri, "/board");
        // A chassis with other systems in it is not this machine's.
        let blades = [
            one("/rack", &["/s", "/t"], None),
            one("/blade", &["/s"], Some("/rack")),
            one("/blade2", &["/t"], Some("/rack")),
        ];
        assert_eq!(outermost(&blades, Some(&host)).unwrap()[0].uri, "/blade");
        assert!(outermost(&blades[..1], Some(&host)).unwrap_err().contains("set chassis to one or more of \"rack\""));
        let two = [one("/a", &["/s"], None), one("/b", &["/s"], None)];
        assert!(outermost(&two, Some(&host)).unwrap().len() == 2);
        assert!(outermost(&two, None).unwrap_err().contains("\"a\", \"b\""));
        // What may contain other machines is taken only where there is nothing else.
        let mut rack = one("/rack", &[], None);
        rack.knows_systems = false;
        let of_rack = System { chassis: vec!["/rack".into(), "/blade".into()], ..host.clone() };
        let both = [rack, one("/blade", &["/s"], Some("/rack"))];
        assert_eq!(outermost(&both, Some(&of_rack)).unwrap()[0].uri, "/blade");
        assert_eq!(outermost(&both[..1], Some(&of_rack)).unwrap()[0].uri, "/rack");
        // Only the outer chassis has the link.
        let mut outer = one("/a", &["/s"], None);
        outer.contains = vec!["/b".into()];
        assert_eq!(outermost(&[two[1].clone(), outer], Some(&host)).unwrap()[0].uri, "/a");
        // Only the system has the link.
        let linked = System { chassis: vec!["/c".into()], ..host.clone() };
        assert_eq!(outermost(&[one("/c", &[], None), one("/d", &[], None)], Some(&linked)).unwrap()[0].uri, "/c");
        assert_eq!(outermost(&[one("/c", &[], None)], Some(&host)).unwrap()[0].uri, "/c");
        assert_eq!(outermost(&[one("/c", &[], None)], None).unwrap()[0].uri, "/c");
        assert!(outermost(&[], None).is_err());
    }

    #[test]
    fn chassis_that_contain_each_other_do_not_loop() {
        let host = sys("/s", None);
        let all = [one("/a", &["/s"], Some("/b")), one("/b", &[], Some("/a"))];
        assert_eq!(outermost(&all, Some(&host)).unwrap()[0].uri, "/a");
        assert!(outermost(&[one("/a", &["/s"], Some("/a"))], Some(&host)).is_ok());
    }
}
