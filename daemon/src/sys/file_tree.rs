//! Lists the files of folders from which whatever lies there is read. Follows no link, and lists not more than is
//! allowed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The most entries that are looked at, so that a folder with millions of files costs no memory.
const MOST_ENTRIES: usize = 16_384;

/// A file of one of the folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: PathBuf,
    /// Its path below the folder, with `/` between the parts.
    pub below: String,
}

/// The files of `folder` and of those below it down to `deepest`, at most `most`, by path. Names that begin with a dot
/// are left out. Each `Err` is a path and why nothing of it is listed. A folder that does not exist is empty.
pub fn list(folder: &Path, deepest: usize, most: usize) -> (Vec<Listed>, Vec<(PathBuf, String)>) {
    let (mut files, mut not_listed, mut more) = (Vec::new(), Vec::new(), 0);
    walk(folder, deepest, &mut files, &mut not_listed, &mut more);
    files.sort();
    more += files.len().saturating_sub(most);
    files.truncate(most);
    if more > 0 {
        not_listed.push((folder.to_owned(), format!("only {most} files of a folder are read: {more} more are not")));
    }
    let listed = files.into_iter().map(|path| {
        let below = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        Listed { path, below }
    });
    (listed.collect(), not_listed)
}

fn walk(
    folder: &Path,
    deeper: usize,
    files: &mut Vec<PathBuf>,
    not_listed: &mut Vec<(PathBuf, String)>,
    more: &mut usize,
) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => return not_listed.push((folder.to_owned(), format!("cannot be read: {error}"))),
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && deeper > 0 => walk(&entry.path(), deeper - 1, files, not_listed, more),
            Ok(kind) if kind.is_dir() => not_listed.push((entry.path(), "folders so deep are not read".to_owned())),
            _ if files.len() < MOST_ENTRIES => files.push(entry.path()),
            _ => *more += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_listed_by_path_and_what_is_not_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &str| dir.path().join(path);
        fs::create_dir_all(of("b/c/d")).unwrap();
        for file in ["z", "a", "b/y", "b/c/x", "b/c/d/w", ".hidden"] {
            fs::write(of(file), "").unwrap();
        }
        std::os::unix::fs::symlink(of("b"), of("link")).unwrap();
        let below = |most| {
            let (files, not) = list(dir.path(), 2, most);
            (files.into_iter().map(|file| file.below).collect::<Vec<_>>(), not)
        };
        let (files, not) = below(10);
        assert_eq!(files, ["a", "b/c/x", "b/y", "link", "z"], "a link to a folder is no folder");
        assert_eq!(not, [(of("b/c/d"), "folders so deep are not read".to_owned())]);
        let (files, not) = below(2);
        assert_eq!(files, ["a", "b/c/x"]);
        assert!(not[1].0 == dir.path() && not[1].1.ends_with("3 more are not"), "{not:?}");
        assert_eq!(list(&of("none"), 2, 10), (Vec::new(), Vec::new()));
    }
}
