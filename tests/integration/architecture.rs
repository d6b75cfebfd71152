//! The direction of flow between the rooms of daemon/src, and the style of its modules, as ARCHITECTURE.md names them:
//! every path that starts with `crate::` or climbs to the root by `super::` is checked against the rooms that its room
//! may import. Unit tests are left out: they may use everything. A broken rule is printed with file, line and the rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, with the other rooms that it may import. A room that is not listed is a broken rule, too.
const ROOMS: [(&str, &[&str]); 15] = [
    ("model", &[]),
    ("sys", &["model"]),
    ("power_model", &["model"]),
    ("attribution", &["model", "power_model"]),
    ("meter", &["model", "sys", "power_model"]),
    ("usage", &["model", "sys"]),
    ("entity", &["model", "sys"]),
    ("footprint", &["model", "sys"]),
    ("history", &["model", "sys"]),
    ("words", &["model", "sys"]),
    ("export", &["model", "sys", "power_model", "history", "words"]),
    ("ctl", &["model", "sys", "power_model", "history", "footprint", "words"]),
    ("config", &["model", "sys"]),
    (
        "run",
        &[
            "model",
            "sys",
            "power_model",
            "attribution",
            "meter",
            "usage",
            "entity",
            "export",
            "config",
            "history",
            "footprint",
        ],
    ),
    ("bin", &["run", "ctl", "config"]),
];

/// Imports beyond [`ROOMS`]: file or folder below daemon/src, the path that it may import, and the reason.
const EXCEPTIONS: [(&str, &str, &str); 14] = [
    ("ctl/model/files.rs", "run::record", "samples of a recording, which is replayed as the daemon replays it"),
    ("ctl/model/prior.rs", "meter", "the description of this machine, read as the daemon reads it"),
    ("config/mod.rs", "meter::MeterConfig", "the section [meter]"),
    ("config/mod.rs", "usage::bpf", "options of the section [usage]"),
    ("config/mod.rs", "export::dbus::DbusConfig", "the section [export.dbus]"),
    ("config/mod.rs", "export::guest::GuestConfig", "the section [export.guest]"),
    ("config/mod.rs", "export::job_log::JobsConfig", "the section [export.jobs]"),
    ("config/mod.rs", "export::models::ModelsConfig", "the section [export.models]"),
    ("config/mod.rs", "export::page::PageConfig", "the section [export.page]"),
    ("config/mod.rs", "export::powercap::PowercapOptions", "the section [export.powercap]"),
    ("config/mod.rs", "export::prometheus::PrometheusOptions", "the section [export.prometheus]"),
    ("config/mod.rs", "export::push", "the section [[export.push]]"),
    ("config/mod.rs", "footprint", "the sections [carbon], [price] and [report]"),
    ("config/mod.rs", "history", "the section [history]"),
];

/// Longest line of a comment, in characters. rustfmt holds code to the same and leaves comments and strings alone.
const COLUMNS: usize = 120;

/// One Rust file below daemon/src, without its unit tests.
struct Source {
    /// Path below daemon/src: `meter/rapl/mod.rs`.
    path: String,
    /// Line numbers and code, without comments and the contents of strings.
    code: Vec<(usize, String)>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below a folder, in the order of paths.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The file of module `name`, declared by `mod name;` in `file`.
fn module_file(file: &Path, name: &str) -> Option<PathBuf> {
    let stem = file.file_stem().unwrap().to_str().unwrap();
    let dir = file.parent().unwrap();
    let dir = if matches!(stem, "mod" | "lib" | "main") { dir.to_path_buf() } else { dir.join(stem) };
    [dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs")].into_iter().find(|path| path.exists())
}

/// `mod name;` or `mod name {` in a line, with whether it is inline.
fn declared(line: &str) -> Option<(&str, bool)> {
    let line = line.trim();
    let line =
        line.strip_prefix("pub ").or_else(|| Some(line.strip_prefix("pub(")?.split_once(") ")?.1)).unwrap_or(line);
    let rest = line.strip_prefix("mod ")?;
    match rest.strip_suffix(';') {
        Some(name) => Some((name, false)),
        None => Some((rest.strip_suffix(" {")?, true)),
    }
}

/// Modules that exist in tests only: `#[cfg(test)]` is before their declaration. As (file, line, name, inline).
fn test_modules(files: &[PathBuf]) -> Vec<(PathBuf, usize, String, bool)> {
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let mut in_test = false;
        for (number, line) in text.lines().enumerate() {
            match declared(line) {
                Some((name, inline)) if in_test => found.push((file.clone(), number + 1, name.to_owned(), inline)),
                _ => {}
            }
            let attribute = line.trim_start().starts_with("#[");
            in_test = line.trim() == "#[cfg(test)]" || (in_test && attribute);
        }
    }
    found
}

/// Whether a file is a module of unit tests, or below one.
fn is_test(file: &Path, tests: &BTreeSet<PathBuf>) -> bool {
    tests.contains(file)
        || file
            .ancestors()
            .skip(1)
            .any(|dir| tests.contains(&dir.join("mod.rs")) || tests.contains(&dir.with_extension("rs")))
}

/// The code of a line: what is before a comment, without the contents of strings that begin and end in it.
fn without_comment(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && characters.peek() == Some(&'/') => break,
            _ if in_string => {}
            _ => code.push(character),
        }
    }
    code
}

fn sources() -> Vec<Source> {
    let root = root();
    let files = rust_files(&root);
    let modules = test_modules(&files);
    let test_files: BTreeSet<PathBuf> = modules
        .iter()
        .filter(|(.., inline)| !inline)
        .filter_map(|(file, _, name, _)| module_file(file, name))
        .collect();
    let source = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        // An inline module of tests is the last thing in its file; `style` holds that.
        let end =
            modules.iter().find(|(own, _, _, inline)| own == file && *inline).map_or(usize::MAX, |(_, line, ..)| *line);
        let lines = text.lines().enumerate().map(|(number, line)| (number + 1, without_comment(line)));
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        Source { path, code: lines.take_while(|(number, _)| *number < end).collect() }
    };
    files.iter().filter(|file| !is_test(file, &test_files)).map(source).collect()
}

/// Paths below the crate's root that a line of code names: `model::units::Nanos`. `depth` is the number of modules that
/// the file is in.
fn named_paths(line: &str, depth: usize) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = line;
    while let Some(at) = ["crate::", "super::"].iter().filter_map(|start| rest.find(start)).min() {
        let before = rest[..at].chars().next_back();
        let mut path = &rest[at..];
        let mut climbed = 0;
        while let Some(tail) = path.strip_prefix("super::") {
            path = tail;
            climbed += 1;
        }
        let from_root = climbed == depth && climbed > 0;
        let path = path.strip_prefix("crate::").or(from_root.then_some(path));
        let is_start = before.is_none_or(|before| !before.is_alphanumeric() && before != '_' && before != ':');
        if let Some(path) = path.filter(|_| is_start) {
            let end =
                path.find(|character: char| !(character.is_alphanumeric() || character == '_' || character == ':'));
            paths.push(path[..end.unwrap_or(path.len())].trim_end_matches(':').to_owned());
        }
        rest = rest[at..].split_once("::").map_or("", |(_, tail)| tail);
        while let Some(tail) = rest.strip_prefix("super::") {
            rest = tail;
        }
    }
    paths
}

/// Modules that a file is in, itself included: 0 for lib.rs, 2 for meter/rapl/mod.rs.
fn depth(path: &str) -> usize {
    let parts = path.trim_end_matches(".rs").split('/').count();
    if path.ends_with("mod.rs") || path == "lib.rs" { parts - 1 } else { parts }
}

/// Imports between rooms: room, file, line, path.
fn imports(sources: &[Source]) -> Vec<(String, String, usize, String)> {
    let mut imports = Vec::new();
    for Source { path, code } in sources.iter().filter(|source| source.path != "lib.rs") {
        let room = path.split('/').next().unwrap();
        for (number, line) in code {
            // The programs are crates of their own.
            let line = if room == "bin" { line.replace("jouled::", "crate::") } else { line.clone() };
            for named in named_paths(&line, depth(path)) {
                imports.push((room.to_owned(), path.clone(), *number, named));
            }
        }
    }
    imports
}

fn exception(file: &str, named: &str) -> Option<usize> {
    EXCEPTIONS.iter().position(|(from, to, _)| {
        (file == *from || file.starts_with(&format!("{from}/")))
            && (named == *to || named.starts_with(&format!("{to}::")))
    })
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut broken = Vec::new();
    let mut used = BTreeSet::new();
    for (room, file, line, named) in imports(&sources()) {
        let to = named.split("::").next().unwrap_or_default();
        let at = format!("daemon/src/{file}:{line}: {room} imports {named}");
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            broken.push(format!("{at}: {room} is no room that this test knows"));
            continue;
        };
        if to == room || allowed.contains(&to) {
            continue;
        }
        match exception(&file, &named) {
            Some(position) => drop(used.insert(position)),
            None if to.is_empty() => broken.push(format!("{at}: write one path for each room")),
            None => {
                broken.push(format!("{at}: it may import only {}", [&[room.as_str()], *allowed].concat().join(", ")))
            }
        }
    }
    let idle = EXCEPTIONS.iter().enumerate().filter(|(position, _)| !used.contains(position));
    broken.extend(
        idle.map(|(_, (from, to, _))| format!("the exception for {from} to import {to} is not needed any more")),
    );
    assert!(broken.is_empty(), "the direction of flow:\n{}", broken.join("\n"));
}

#[test]
fn modules_have_one_style() {
    let root = root();
    let files = rust_files(&root);
    let mut broken = Vec::new();
    for file in &files {
        if file.with_extension("").is_dir() && file.file_name().is_some_and(|name| name != "lib.rs") {
            broken.push(format!("{}: a module with children is x/mod.rs, not x.rs beside x/", file.display()));
        }
        for (number, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            let at = format!("{}:{}", file.display(), number + 1);
            // What the integration tests have as well is theirs.
            if line.trim_start().starts_with("#[path") && !line.contains("/tests/integration/") {
                broken.push(format!("{at}: modules are where their names say, without #[path]"));
            }
        }
    }
    let mut by_file = files.iter().map(|file| (file, fs::read_to_string(file).unwrap())).collect::<Vec<_>>();
    for (file, line, name, inline) in test_modules(&files) {
        let at = format!("{}:{line}", file.display());
        if name != "tests" && !SHARED_FIXTURES.contains(&name.as_str()) {
            broken.push(format!("{at}: unit tests are in a module named tests, not {name}"));
        }
        let Some((_, text)) = by_file.iter_mut().find(|(own, _)| **own == file) else { continue };
        // rustfmt puts the end of a module at the start of a line.
        if inline && text.lines().skip(line).position(|line| line == "}") != Some(text.lines().count() - line - 1) {
            broken.push(format!("{at}: an inline module of tests is the last thing in its file"));
        }
    }
    for source in sources() {
        let outside = source.code.iter().filter(|(_, line)| matches!(line.trim(), "#[test]" | "#[tokio::test]"));
        broken.extend(
            outside.map(|(number, _)| {
                format!("daemon/src/{}:{number}: unit tests are in a module named tests", source.path)
            }),
        );
    }
    assert!(broken.is_empty(), "the style of modules:\n{}", broken.join("\n"));
}

/// Modules of test data that unit tests of several modules share.
const SHARED_FIXTURES: [&str; 6] =
    ["fixture", "fake_plug", "fake_redfish", "fake_redfish_trees", "fake_sysfs", "real_programs"];

#[test]
fn comments_fit_the_columns() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut broken = Vec::new();
    for dir in ["daemon/src", "daemon/libvirt/src", "daemon/containers/src", "daemon-bpf/src", "tests/integration"] {
        for file in rust_files(&repository.join(dir)) {
            // A listing in a comment (```) keeps its lines.
            let mut in_listing = false;
            for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
                let columns = line.chars().count();
                let comment = line.trim_start().starts_with("//");
                in_listing ^= comment && line.contains("```");
                if comment && columns > COLUMNS && !in_listing {
                    broken.push(format!("{}:{}: {columns} columns", file.display(), number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "comments have at most {COLUMNS} columns:\n{}", broken.join("\n"));
}

#[test]
fn paths_are_found_in_code_and_not_in_comments() {
    let paths = |line: &str, depth| named_paths(&without_comment(line), depth);
    assert_eq!(paths("use crate::model::units::{Nanos};", 2), ["model::units"]);
    assert_eq!(paths("let a: crate::sys::A = super::super::meter::B; // crate::run", 2), ["sys::A", "meter::B"]);
    assert_eq!(paths("use super::meter;", 2), Vec::<String>::new());
    assert_eq!(paths("println!(\"crate::run\"); my_crate::x()", 1), Vec::<String>::new());
    assert_eq!(paths("use crate::{model, sys};", 1), [""]);
    assert_eq!(["lib.rs", "a.rs", "a/mod.rs", "a/b.rs", "a/b/mod.rs"].map(depth), [0, 1, 1, 2, 2]);
}
