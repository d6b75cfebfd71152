//! The man pages compared with the binaries: they have every option, key, field, property and method, and nothing else.
//! Not the prose. Examples are run by examples.rs.

use crate::common::known::known_run;
use crate::common::{bare_jouled, joulectl, output, refused, said};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("man").join(name)).unwrap()
}

/// Section → key → default, where the page has one as a value. Sections are as in TOML, without brackets; `*` stands
/// for a name that the operator chooses.
type Keys = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// `value` in a form that is the same for TOML and mdoc.
fn bare(value: &str) -> String {
    value.replace("Qq", "").replace("Bq", "").chars().filter(|c| !c.is_whitespace() && !"\"[]".contains(*c)).collect()
}

/// Keys and defaults in jouled.toml(5).
fn keys_of_the_page() -> Keys {
    let (mut keys, mut section) = (Keys::new(), None);
    for line in page("jouled.toml.5").lines() {
        if let Some(title) = line.strip_prefix(".Ss ") {
            section = match title.trim_start_matches("Bq ") {
                "Top level" => Some(String::new()),
                _ if title.starts_with("Bq ") => Some(title.trim_start_matches("Bq ").replace("NAME", "*")),
                _ => None,
            };
            if let Some(section) = &section {
                keys.entry(section.clone()).or_default();
            }
        } else if let (Some(section), Some(item)) = (&section, line.strip_prefix(".It Ic ")) {
            let (key, rest) = item.split_once(" Pq ").unwrap_or_else(|| panic!("{item}: its type in Pq"));
            let default = rest.split_once(", default ").map(|(_, value)| bare(value));
            let known =
                [", default ", ", default: ", ", no default", ", required"].iter().any(|words| rest.contains(words));
            assert!(known, "{section} {key}: says nothing of its default: {rest}");
            let key = if key == "DOMAIN" { "*" } else { key };
            assert!(keys.get_mut(section).unwrap().insert(key.into(), default).is_none(), "{section} {key} twice");
        }
    }
    keys
}

/// Keys and values in etc/jouled.toml. The value of a key that is commented out is its default or, where it has none,
/// an example.
fn keys_of_the_file() -> Keys {
    let (mut keys, mut section) = (Keys::new(), String::new());
    keys.insert(String::new(), BTreeMap::new());
    for line in fs::read_to_string(root().join("etc/jouled.toml")).unwrap().lines() {
        // Keys of an entry of a list are indented in some places.
        let (line, on) = match line.strip_prefix('#') {
            Some(line) => (line.trim_start(), false),
            None => (line, true),
        };
        if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).to_owned();
            if let Some((before, _)) = section.split_once(".\"") {
                section = format!("{before}.*");
            }
            keys.entry(section.clone()).or_default();
        } else if let Some((key, value)) = line.split_once(" = ") {
            let plain =
                !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let key = if key.starts_with('"') { "*" } else { key };
            if plain || key == "*" {
                keys.get_mut(&section).unwrap().insert(key.into(), Some(bare(value)).filter(|_| !on));
            }
        }
    }
    keys
}

/// The keys of a section that the binary accepts.
fn keys_of_the_binary(section: &str, is_list: bool) -> BTreeSet<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jouled.toml");
    let section = section.replace('*', "some");
    let header = match (section.as_str(), is_list) {
        ("", _) => String::new(),
        (section, true) => format!("[[{section}]]\n"),
        (section, false) => format!("[{section}]\n"),
    };
    fs::write(&path, header + "no_such_key_at_all = 1\n").unwrap();
    let message = refused(bare_jouled().arg("--check-config").arg("--config").arg(&path));
    let known = message.split("there are ").nth(1).unwrap_or_else(|| panic!("[{section}]: {message}"));
    known.trim().split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_that_jouled_takes_is_in_jouled_toml_5_and_nothing_else() {
    let page = keys_of_the_page();
    assert!(page.len() > 15, "{page:?}");
    let text = self::page("jouled.toml.5");
    for (section, keys) in &page {
        if keys.contains_key("*") {
            continue;
        }
        let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
        let below = page.keys().filter_map(|other| other.strip_prefix(&prefix)).filter(|rest| !rest.is_empty());
        let below = below.map(|rest| rest.split('.').next().unwrap().to_owned());
        let described: BTreeSet<String> = keys.keys().cloned().chain(below).collect();
        let is_list = text.contains(&format!(".Ss Bq Bq {section}\n"));
        assert_eq!(described, keys_of_the_binary(section, is_list), "[{section}]: the page, and what jouled takes");
    }
    // [meter] has sections only.
    let meters: BTreeSet<String> =
        page.keys().filter_map(|key| key.strip_prefix("meter.")?.split('.').next().map(str::to_owned)).collect();
    assert_eq!(meters, keys_of_the_binary("meter", false), "[meter]");
}

#[test]
fn every_key_of_etc_jouled_toml_is_in_jouled_toml_5_with_the_same_default_and_the_reverse() {
    let (page, mut file) = (keys_of_the_page(), keys_of_the_file());
    // Sections that only contain sections.
    file.retain(|section, keys| !keys.is_empty() || page.contains_key(section));
    let names = |keys: &Keys| -> Vec<String> {
        keys.iter().flat_map(|(section, keys)| keys.keys().map(move |key| format!("[{section}] {key}"))).collect()
    };
    assert_eq!(names(&page), names(&file), "jouled.toml(5), and etc/jouled.toml");
    let mut compared = 0;
    for (section, keys) in &page {
        for (key, default) in keys {
            // A value that the file sets is not the default.
            if let (Some(default), Some(value)) = (default, &file[section][key]) {
                compared += 1;
                // An empty list is shown by an example.
                let example =
                    default.is_empty() && !value.is_empty() || section == "meter.rapl" && key == "dram_billed";
                assert!(example || default == value, "[{section}] {key}: {default} in the page, {value} in the file");
            }
        }
    }
    assert!(compared > 30, "only {compared} defaults were compared");
}

/// The options of a help text: `--long` and `-s`.
fn options(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split("  ").next().unwrap().split(|c: char| c == ',' || c.is_whitespace()));
    words.filter(|word| word.len() > 1 && word.starts_with('-')).map(str::to_owned).collect()
}

/// The options of a page, in its items and its synopsis: the words after `Fl` up to the next macro.
fn options_of(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with('.') && !line.starts_with(".\\\"")) {
        let mut in_flags = false;
        for word in line.trim_start_matches('.').split_whitespace() {
            match (word, word.strip_prefix("\\-")) {
                ("Fl", _) => in_flags = true,
                (_, Some(long)) if in_flags => drop(found.insert(format!("--{long}"))),
                ("," | "|" | ")", _) => {}
                (short, _) if in_flags && short.len() == 1 => drop(found.insert(format!("-{short}"))),
                _ => in_flags = false,
            }
        }
    }
    found
}

#[test]
fn every_option_of_jouled_is_in_jouled_8_and_nothing_else() {
    let help = options(&said(output(bare_jouled().arg("--help"))));
    assert!(help.contains("--replay") && help.contains("-h"), "{help:?}");
    assert_eq!(options_of(&page("jouled.8")), help);
}

#[test]
fn every_option_of_jouled_libvirt_is_in_jouled_libvirt_8_and_nothing_else() {
    // It links libvirt's library, so it may not be built here.
    let source = fs::read_to_string(root().join("daemon/libvirt/src/main.rs")).unwrap();
    let after = source.split("#[arg(long").skip(1).map(|rest| rest.split_once(")]\n").unwrap().1);
    let names = after.map(|field| format!("--{}", field.trim_start().split(':').next().unwrap().replace('_', "-")));
    let names: BTreeSet<String> = names.chain(["-h", "--help", "-V", "--version"].map(str::to_owned)).collect();
    assert!(names.contains("--uri"), "{names:?}");
    assert_eq!(options_of(&page("jouled-libvirt.8")), names);
}

#[test]
fn every_option_of_jouled_containers_is_in_jouled_containers_8_and_nothing_else() {
    let source = fs::read_to_string(root().join("daemon/containers/src/main.rs")).unwrap();
    let after = source.split("#[arg(long").skip(1).map(|rest| rest.split_once(")]\n").unwrap().1);
    let names = after.map(|field| format!("--{}", field.trim_start().split(':').next().unwrap().replace('_', "-")));
    let names: BTreeSet<String> = names.chain(["-h", "--help", "-V", "--version"].map(str::to_owned)).collect();
    assert!(names.contains("--label"), "{names:?}");
    assert_eq!(options_of(&page("jouled-containers.8")), names);
}

#[test]
fn every_command_option_and_kind_of_joulectl_is_in_joulectl_1_and_nothing_else() {
    let (page, nowhere) = (page("joulectl.1"), Path::new("/nonexistent"));
    let help = |arguments: &[&str]| said(joulectl(nowhere, arguments));
    let commands_in = |text: &str| -> BTreeSet<String> {
        let commands = text.split("Commands:\n").nth(1).map(|rest| rest.split("\n\n").next().unwrap().to_owned());
        let names = commands.iter().flat_map(|list| list.lines()).filter(|line| !line.starts_with("   "));
        names.filter_map(|line| Some(line.strip_prefix("  ")?.split_whitespace().next()?.to_owned())).collect()
    };
    let main = help(&["--help"]);
    let names = commands_in(&main);
    let sections = page.lines().filter_map(|line| line.strip_prefix(".Ss ")).filter(|title| *title != "Options");
    let sections: BTreeSet<String> = sections.map(str::to_owned).collect();
    assert_eq!(names, sections, "joulectl --help, and the sections of the page");
    let mut all = options(&main);
    for name in names.iter().filter(|name| *name != "help") {
        let text = help(&[name.as_str(), "--help"]);
        all.extend(options(&text));
        // Commands of a command, as of `joulectl model`: each is an item of its section.
        for below in commands_in(&text).iter().filter(|below| *below != "help") {
            assert!(page.contains(&format!(".It Cm {name} {below}")), "{name} {below} is not in the page");
            all.extend(options(&help(&[name.as_str(), below.as_str(), "--help"])));
        }
    }
    assert_eq!(options_of(&page), all);
    let list = help(&["list", "--help"]);
    let kinds = list.split("[possible values: ").nth(1).unwrap().split(']').next().unwrap().replace('\n', " ");
    for kind in kinds.split(',').map(str::trim) {
        assert!(
            page.contains(&format!(".Cm {kind}\n")) || page.contains(&format!(".Cm {kind} ")),
            "{kind} is not in the page"
        );
    }
}

/// Names of fields at any depth, without the keys of maps from labels or zones.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| fields(item, into)),
        Value::Object(map) => {
            for (name, value) in map {
                into.insert(name.clone());
                if !matches!(name.as_str(), "labels" | "microjoules_total" | "channel") {
                    fields(value, into);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn every_field_that_joulectl_prints_as_json_is_in_joulectl_1() {
    let (_world, daemon, _) = known_run();
    let page = page("joulectl.1");
    // In running text a field is `.Ql NAME`, in a list `.It Cm NAME , NAME`.
    let lines = page.lines().filter_map(|line| line.strip_prefix(".Ql ").or_else(|| line.strip_prefix(".It Cm ")));
    let described: BTreeSet<&str> = lines.flat_map(str::split_whitespace).collect();
    for arguments in
        [&["status", "--json"][..], &["meters", "--json"], &["list", "vm", "--json"], &["top", "--json", "-n", "1"]]
    {
        let mut names = BTreeSet::new();
        fields(&serde_json::from_str(&said(joulectl(&daemon.state, arguments))).unwrap(), &mut names);
        assert!(names.len() > 8, "{arguments:?}: {names:?}");
        for name in names {
            assert!(described.contains(name.as_str()), "{arguments:?}: {name} is not in the page");
        }
    }
    daemon.stop();
}

/// `name` of each entry of a table in a source, and, where it has one, `signature`.
fn entries(source: &str) -> BTreeSet<String> {
    let value =
        |text: &str, key: &str| Some(text.split_once(&format!("{key}: \""))?.1.split('"').next().unwrap().to_owned());
    let of = |entry: &str| {
        let name = value(entry.lines().take(3).collect::<Vec<_>>().join("\n").as_str(), "name")?;
        Some(value(entry, "signature").map_or(name.clone(), |signature| format!("{name} {signature}")))
    };
    let entries = source.split("\n    Property {").skip(1).chain(source.split("\n    Method {").skip(1));
    entries.filter_map(of).collect()
}

#[test]
fn every_property_and_method_on_the_bus_is_in_org_jouled1_5_and_nothing_else() {
    let table = |file: &str| entries(&fs::read_to_string(root().join("daemon/src/export/dbus").join(file)).unwrap());
    let page = page("org.jouled1.5");
    let (interfaces, _) = page.split_once(".Sh SIGNALS").unwrap();
    // A process has no object: the page lists its fields at GetProcess.
    let described =
        interfaces.lines().filter_map(|line| line.strip_prefix(".It Va ").or_else(|| line.strip_prefix(".Va ")));
    let described = described
        .filter_map(|item| item.split_once(" Pq "))
        .map(|(name, of)| format!("{name} {}", of.trim_end_matches([' ', ','])));
    let (properties, described) = (table("properties.rs"), described.collect::<BTreeSet<_>>());
    assert!(properties.len() > 15, "{properties:?}");
    assert_eq!(properties, described, "the table of properties, and the page");
    let methods = interfaces
        .lines()
        .filter_map(|line| line.strip_prefix(".It Fn "))
        .map(|item| item.split(' ').next().unwrap().to_owned());
    assert_eq!(table("methods.rs"), methods.collect(), "the table of methods, and the page");
}
