//! The examples in the documentation, as tests/integration/man/examples.sh extracts them. Does not run them.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Each example of a kind: where it is, and its text.
pub fn examples(kind: &str) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/integration/man/examples.sh");
    assert!(Command::new(script).arg(kind).arg(folder.path()).status().unwrap().success());
    let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}
