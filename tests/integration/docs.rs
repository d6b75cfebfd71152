//! docs/ compared with the code: metrics, queries, rules and the dashboard, the messages in troubleshooting.md, and
//! links. Not the man pages: those are in man.rs. Not the prose.

use crate::common::examples::examples;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below a folder whose names end in `.extension`, as paths from the root.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![PathBuf::from(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|found| found == extension) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// All pages that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = files("docs", "md");
    pages.extend(files("tests/integration", "md"));
    let of_the_root = ["README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY", "CHANGELOG"];
    pages.extend(of_the_root.map(|page| format!("{page}.md").into()));
    pages
}

/// Names of metrics in a text, without those of recording rules, which have colons.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !of_name(c)).filter(|word| word.starts_with("jouled_") || word.starts_with("kepler_"));
    words.filter(|word| !word.contains(':') && !word.ends_with('_')).map(str::to_owned).collect()
}

/// Names of metrics on the pages that jouled's own tests compare with what it writes.
fn known_metrics() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for file in files("tests/integration/golden", "txt") {
        let text = read(file);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        known.extend(lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned));
    }
    known
}

#[test]
fn every_metric_in_the_dashboard_the_rules_and_the_page_on_prometheus_exists() {
    let known = known_metrics();
    assert!(known.len() > 100, "{known:?}");
    for file in [
        "docs/grafana/jouled.json",
        "docs/grafana/fleet.json",
        "docs/prometheus/jouled.rules.yml",
        "docs/prometheus.md",
        "README.md",
    ] {
        // A name with KIND stands for those of all kinds of entities.
        let used = metrics_in(&read(file).replace("KIND", "unit"));
        assert!(used.len() > 5 || file == "README.md", "{file}: {used:?}");
        let missing: Vec<_> = used.difference(&known).collect();
        assert!(missing.is_empty(), "{file}: jouled has no {missing:?}");
    }
}

/// The dashboards, with their uids.
const DASHBOARDS: [(&str, &str); 2] =
    [("docs/grafana/jouled.json", "jouled"), ("docs/grafana/fleet.json", "jouled-fleet")];

fn dashboard(file: &str) -> Value {
    serde_json::from_str(&read(file)).unwrap()
}

/// Panels with their places: (title, left, top, width, height).
fn places(dashboard: &Value) -> Vec<(String, u64, u64, u64, u64)> {
    let panels = dashboard["panels"].as_array().unwrap();
    let place = |panel: &Value, side: &str| panel["gridPos"][side].as_u64().unwrap();
    let panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        (title, place(panel, "x"), place(panel, "y"), place(panel, "w"), place(panel, "h"))
    };
    panels.iter().map(panel).collect()
}

#[test]
fn the_dashboards_are_whole() {
    DASHBOARDS.into_iter().for_each(|(file, uid)| is_whole(&dashboard(file), uid));
}

fn is_whole(dashboard: &Value, uid: &str) {
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36 && dashboard["uid"] == uid && dashboard["id"].is_null());
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    let places = places(dashboard);
    for (at, (title, x, y, w, h)) in places.iter().enumerate() {
        assert!(x + w <= 24 && *w > 0 && *h > 0, "{title} is wider than the page");
        for (other, x2, y2, w2, h2) in &places[..at] {
            assert!(x + w <= *x2 || x2 + w2 <= *x || y + h <= *y2 || y2 + h2 <= *y, "{title} lies over {other}");
        }
    }
    // Each variable that is used exists, and each that exists is used. Those of Grafana begin with two underscores.
    let text = dashboard.to_string();
    let variables =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned());
    let variables: BTreeSet<String> = variables.collect();
    let used = text.split('$').skip(1).map(|rest| rest.trim_start_matches('{'));
    let used = used.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned());
    let used: BTreeSet<String> = used.filter(|name| !name.starts_with("__")).collect();
    assert_eq!(variables, used);
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(
            panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()),
            "{} asks nothing",
            panel["title"]
        );
    }
}

/// Every query of the dashboard and of the pages, with where it is.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (file, _) in DASHBOARDS {
        for panel in dashboard(file)["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                queries.push((panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned()));
            }
        }
    }
    queries.extend(examples("promql"));
    // In the table of the README.
    let text = read("README.md");
    let cells = text.lines().filter_map(|line| line.strip_suffix("` |")?.split(" | `").nth(1));
    let cells = cells.map(|cell| cell.replace("\\|", "|")).filter(|cell| cell.contains("joules_total"));
    queries.extend(cells.map(|cell| ("README.md".to_owned(), cell)));
    queries
}

/// A program that is not part of jouled; `None` where it is not installed.
fn program(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).find(|folder| folder.join(name).exists());
    if there.is_none() {
        println!("skipped: there is no {name}");
    }
    there.map(|folder| Command::new(folder.join(name)))
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_takes_every_query_rule_and_configuration() {
    let Some(mut check) = program("promtool") else { return };
    let mut rules = String::from("groups:\n- name: all\n  rules:\n");
    let queries = queries();
    assert!(queries.len() > 20, "{queries:?}");
    for (at, (place, query)) in queries.iter().enumerate() {
        let query = query.replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$top", "10");
        let numbers = ["$coal", "$petroleum", "$gas", "$intensity", "$pue"];
        let query = numbers.iter().fold(query, |query, name| query.replace(name, "2.5"));
        let query = serde_json::to_string(query.trim()).unwrap();
        writeln!(rules, "  # {place}\n  - record: query:number_{at}\n    expr: {query}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    fs::write(&file, rules).unwrap();
    succeeds(check.args(["check", "rules"]).arg(&file).arg(root().join("docs/prometheus/jouled.rules.yml")));
    if let Some(mut check) = program("promtool") {
        succeeds(check.args(["check", "config", "--syntax-only"]).arg(root().join("docs/prometheus/prometheus.yml")));
    }
}

#[test]
fn the_rules_count_nothing_twice_and_alert_on_what_is_wrong() {
    let Some(mut test) = program("promtool") else { return };
    let folder = tempfile::tempdir().unwrap();
    for file in ["docs/prometheus/jouled.rules.yml", "tests/integration/prometheus/rules.test.yml"] {
        fs::copy(root().join(file), folder.path().join(Path::new(file).file_name().unwrap())).unwrap();
    }
    succeeds(test.current_dir(folder.path()).args(["test", "rules", "rules.test.yml"]));
}

/// String literals of a source file, unescaped; without its tests and comments.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let (mut found, mut rest) = (Vec::new(), source);
    while let Some(at) = rest.find(['"', '/', '\'']) {
        rest = &rest[at..];
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("'\"'") {
            rest = &rest[3..];
        } else if let Some(text) = rest.strip_prefix('"') {
            let mut escaped = false;
            let end = text.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let (literal, after) = text.split_at(end.unwrap());
            // A backslash at the end of a line skips the blanks at the start of the next one.
            let mut lines = literal.split("\\\n");
            let first = lines.next().unwrap().to_owned();
            found.push(lines.fold(first, |all, line| all + line.trim_start()).replace("\\\"", "\""));
            rest = &after[1..];
        } else {
            rest = &rest[1..];
        }
    }
    found
}

/// Code spans in first cells and in running text of troubleshooting.md, split at `…`.
fn words_of_the_page() -> BTreeSet<String> {
    let text = read("docs/troubleshooting.md");
    let cells = text.lines().map(|line| if line.starts_with("| ") { line.split(" | ").next().unwrap() } else { line });
    let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let parts = spans.flat_map(|span| span.split('…')).map(str::trim).filter(|part| part.len() >= 7);
    parts.map(str::to_owned).collect()
}

/// Code spans that are no message of jouled: messages of other programs, commands, files and keys.
const OF_OTHERS: [&str; 15] = [
    "No data available",
    "Permission denied",
    "The name org.jouled1 was not provided",
    "modprobe",
    "systemctl",
    "chmod",
    "chgrp",
    "ipmi:NAME",
    "push:NAME",
    "joulectl ",
    "jouled_source_info",
    "Sources",
    "org.jouled1.NoSuch",
    "LimitsExceeded",
    "rapl-",
];

#[test]
fn no_row_of_troubleshooting_has_words_that_jouled_does_not_say() {
    let said: Vec<String> = files("daemon/src", "rs").iter().flat_map(|file| literals(&read(file))).collect();
    let words = words_of_the_page();
    assert!(words.len() > 150, "{words:?}");
    let stale = |word: &&String| {
        !OF_OTHERS.iter().any(|of| word.contains(of)) && !said.iter().any(|said| said.contains(word.as_str()))
    };
    let stale: Vec<_> = words.iter().filter(stale).collect();
    assert!(stale.is_empty(), "nobody says {stale:#?}");
}

/// Literals of three words and more that are in no reason for a degraded or failed source: details of a healthy source,
/// reasons for an unsupported or unused one, and parts of other messages.
fn is_no_reason(literal: &str) -> bool {
    let list = include_str!("no_reasons.txt");
    let beginnings = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    literal.split_whitespace().count() < 3 || beginnings.into_iter().any(|beginning| literal.starts_with(beginning))
}

#[test]
fn every_reason_to_be_degraded_or_failed_has_a_row_in_troubleshooting() {
    let of_sources = |file: &&PathBuf| {
        let path = file.to_str().unwrap();
        let source = ["meter/", "usage/", "entity/managers", "sys/nvml.rs", "sys/https_client", "sys/secret"]
            .iter()
            .any(|part| path.starts_with(&format!("daemon/src/{part}")));
        source && !["tests", "config", "fake"].iter().any(|part| path.contains(part))
    };
    let (words, sources) = (words_of_the_page(), files("daemon/src", "rs"));
    let (mut seen, mut missing) = (0, Vec::new());
    for file in sources.iter().filter(of_sources) {
        for literal in literals(&read(file)).into_iter().filter(|literal| !is_no_reason(literal)) {
            seen += 1;
            if !words.iter().any(|word| literal.contains(word.as_str())) {
                missing.push(format!("{}: {literal}", file.display()));
            }
        }
    }
    assert!(seen > 150, "only {seen} reasons were found");
    assert!(missing.is_empty(), "no row, and not in no_reasons.txt: {missing:#?}");
}

#[test]
fn every_drop_in_of_the_pages_has_keys_that_systemd_knows() {
    let examples = examples("unit");
    assert!(examples.len() > 4, "{examples:?}");
    for (place, text) in examples {
        let Some(mut verify) = program("systemd-analyze") else { return };
        let folder = tempfile::tempdir().unwrap();
        let (unit, whole) = match text.contains("[Socket]") {
            true => ("jouled.socket", "[Socket]\nListenStream=127.0.0.1:28282\n"),
            false => ("jouled.service", "[Service]\nExecStart=/bin/true\n"),
        };
        let drop_ins = folder.path().join(format!("{unit}.d"));
        fs::create_dir(&drop_ins).unwrap();
        fs::write(folder.path().join("jouled.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
        fs::write(folder.path().join(unit), whole).unwrap();
        fs::write(drop_ins.join("example.conf"), &text).unwrap();
        let path = format!("{}:", folder.path().display());
        let output =
            verify.env("SYSTEMD_UNIT_PATH", path).arg("verify").arg(folder.path().join(unit)).output().unwrap();
        // Without a running systemd the command ends with an error in any case.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("example.conf"), "{place}: {said}\n{text}");
    }
}

#[test]
fn no_link_of_the_pages_leads_nowhere() {
    for page in pages() {
        let text = read(&page);
        let folder = page.parent().unwrap().to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = folder.join(link.split('#').next().unwrap());
            assert!(root().join(&file).exists(), "{}: {link} is not there", page.display());
        }
        // Paths of files in running text.
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c)));
        for word in words.filter(|word| FOLDERS.iter().any(|start| word.starts_with(start))) {
            // `NAME` in a path is for the reader to fill in: what is before it has to be there.
            let word = word.split("NAME").next().unwrap().trim_end_matches(['.', '-']);
            assert!(root().join(word).exists(), "{}: {word} is not there", page.display());
        }
    }
}

/// Beginnings of paths in running text: the folders of this tree. (`target/` is built.)
const FOLDERS: [&str; 9] =
    ["docs/", "etc/jouled", "systemd/", "man/", "daemon/", "daemon-bpf/", "tests/", "packaging/", ".github/"];

/// Commands of the pages for contributors: lines of fenced blocks and code spans, without comments.
fn commands() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for page in ["README.md", "CONTRIBUTING.md", "SECURITY.md"] {
        let text = read(page);
        let (mut fenced, mut lines) = (false, Vec::new());
        for line in text.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if fenced {
                lines.push(line.split(" # ").next().unwrap().trim());
            } else {
                lines.extend(line.split('`').skip(1).step_by(2));
            }
        }
        found.extend(lines.into_iter().map(|line| (page.to_owned(), line.to_owned())));
    }
    found
}

#[test]
fn every_command_that_the_pages_for_contributors_name_exists() {
    let (makefile, manifest) = (read("Makefile"), read("daemon/Cargo.toml"));
    let (benches, script) = (read("tests/integration/bench/main.rs"), read("packaging/test.sh"));
    let sources: String =
        files("daemon/src", "rs").iter().map(|file| file.to_str().unwrap().to_owned() + "\n").collect();
    let tests: String = files("tests/integration", "rs").iter().map(read).collect();
    let mut seen = [0; 5];
    for (page, command) in commands() {
        let words: Vec<&str> = command.split_whitespace().filter(|word| *word != "\\").collect();
        let after = |word: &str| words.iter().skip_while(|other| **other != word).nth(1).copied();
        let has = |what: bool| assert!(what, "{page}: {command}: there is no such thing");
        if let Some(target) = after("make").filter(|word| !word.starts_with('#')) {
            seen[0] += 1;
            has(makefile.contains(&format!("\n{target}:")));
        }
        if words.contains(&"cargo") && words.contains(&"test") {
            seen[1] += 1;
            after("--test").into_iter().for_each(|name| has(manifest.contains(&format!("name = \"{name}\""))));
            after("--lib").into_iter().for_each(|name| has(sources.contains(name.trim_end_matches("::"))));
            // Names of modules and tests come last.
            let name = words.last().unwrap().trim_end_matches("::").rsplit("::").next().unwrap();
            let is_test = tests.contains(&format!("fn {name}")) || tests.contains(&format!("mod {name};"));
            has(is_test || sources.contains(name) || manifest.contains(name));
        }
        if words.contains(&"cargo") && words.contains(&"bench") {
            seen[2] += 1;
            let names = words.iter().skip_while(|word| **word != "--").skip(1);
            names.for_each(|name| has(benches.contains(&format!("(\"{name}\", "))));
        }
        if let Some(check) = after("packaging/test.sh") {
            seen[3] += 1;
            has(script.contains(&format!("\n{check}() {{")));
        }
        if words.len() == 1 && benches.contains(&format!("(\"{command}\", ")) {
            seen[4] += 1;
        }
    }
    assert!(seen[..3].iter().all(|seen| *seen > 1) && seen[3] > 0, "{seen:?}");
    assert_eq!(seen[4], benches.matches("    (\"").count(), "CONTRIBUTING.md names every benchmark");
}
