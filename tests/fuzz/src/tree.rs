//! A folder of files that the input describes, for what reads whole trees of sysfs and procfs.

use std::fs;
use std::path::{Path, PathBuf};

/// Most files of one input.
const FILES: usize = 40;

/// A folder in memory, which ends with it.
pub struct Tree(PathBuf);

impl Tree {
    /// An empty folder.
    pub fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let path = base.join(format!("jouled-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and the folders around it.
    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.0.join(name);
        let _ = fs::create_dir_all(path.parent().unwrap());
        let _ = fs::write(path, content);
    }

    /// Writes the files that `input` lists: a line `@PATH`, then the content up to the next such line. Paths that leave
    /// the folder or are deep are left out.
    pub fn fill(&self, input: &[u8]) {
        let mut current: Option<(String, Vec<u8>)> = None;
        let mut files = 0;
        for line in input.split_inclusive(|byte| *byte == b'\n').chain([&b"@"[..]]) {
            let Some(name) = line.strip_prefix(b"@") else {
                if let Some((_, content)) = &mut current {
                    content.extend_from_slice(line);
                }
                continue;
            };
            if let Some((name, content)) = current.take() {
                self.write(&name, &content);
                files += 1;
            }
            let name = String::from_utf8_lossy(name).trim_end_matches('\n').to_owned();
            let parts: Vec<_> = name.split('/').collect();
            let is_plain = |part: &&str| !part.is_empty() && part.len() < 64 && !matches!(*part, "." | "..");
            if files < FILES && parts.len() < 9 && parts.iter().all(is_plain) && !name.contains('\0') {
                current = Some((name, Vec::new()));
            }
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
