//! The table "Unsafe code" of ARCHITECTURE.md against the sources: every file with `unsafe` code is in it, and no
//! other. Not whether the code is sound: each block has a `// SAFETY:` comment, which clippy demands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 4] = ["daemon/src", "daemon/libvirt/src", "daemon/containers/src", "daemon-bpf/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Adds the files below `folder` that have the keyword `unsafe` outside of comments, as paths from the root.
fn search(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            search(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && is_unsafe(&root().join(&path)) {
            found.insert(path.to_str().unwrap().to_owned());
        }
    }
}

fn is_unsafe(file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).any(|word| word == "unsafe")
}

#[test]
fn architecture_lists_the_files_with_unsafe_code() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = page.split_once("\n## Unsafe code\n").expect("ARCHITECTURE.md has the section \"Unsafe code\"");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<String> = rows.filter_map(|row| row.split('`').next()).map(str::to_owned).collect();
    let mut found = BTreeSet::new();
    SOURCES.iter().for_each(|folder| search(Path::new(folder), &mut found));
    assert!(!found.is_empty());
    assert_eq!(listed, found, "the table of ARCHITECTURE.md is on the left, the sources are on the right");
}
