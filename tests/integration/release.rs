//! packaging/release.sh: each condition under which it refuses to build a release. Builds nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Files that release.sh reads, as they are in this tree.
const FILES: [&str; 7] = [
    "packaging/release.sh",
    "packaging/common.sh",
    "Cargo.toml",
    "daemon/libvirt/Cargo.toml",
    "daemon/containers/Cargo.toml",
    "packaging/deb/changelog",
    "packaging/rpm/jouled.spec",
];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A repository with these files and a changelog, committed and tagged: a release that can be built. `None`: there is
/// no git here.
struct Tree(TempDir);

impl Tree {
    fn ready() -> Option<Self> {
        Command::new("git").arg("--version").output().ok()?;
        let tree = Self(tempfile::tempdir().unwrap());
        for file in FILES {
            let path = tree.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file), path).unwrap();
        }
        tree.write("CHANGELOG.md", &format!("# Changelog\n\n## [{VERSION}] - 2026-11-28\n\n### Added\n\n- All.\n"));
        tree.git(&["init", "--quiet"]);
        tree.commit();
        tree.tag();
        Some(tree)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    /// Replaces a text that the file has to contain.
    fn edit(&self, file: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(old), "{file} has no {old:?}");
        self.write(file, &text.replacen(old, new, 1));
    }

    fn git(&self, arguments: &[&str]) {
        let mut git = Command::new("git");
        // Nothing of this machine's or this user's configuration.
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").current_dir(self.0.path());
        git.args(["-c", "user.name=Test", "-c", "user.email=test@example.invalid", "-c", "tag.gpgSign=false"]);
        let output = git.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "A change"]);
    }

    fn tag(&self) {
        self.git(&["tag", "--force", "--annotate", "--message", "A release", &format!("v{VERSION}")]);
    }

    /// Commits what was edited, and moves the tag there.
    fn release(&self) {
        self.commit();
        self.tag();
    }

    /// Exit status and output of `release.sh --check`.
    fn check(&self) -> (bool, String) {
        let mut script = Command::new(self.path("packaging/release.sh"));
        let output = script.arg("--check").current_dir(self.0.path()).output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    fn is_refused(&self, why: &str) {
        let (ready, said) = self.check();
        assert!(!ready && said.contains(why), "it should refuse with {why:?}, and said: {said}");
    }
}

#[test]
fn a_clean_tagged_commit_with_one_version_is_ready() {
    let Some(tree) = Tree::ready() else { return };
    let (ready, said) = tree.check();
    assert!(ready && said.contains(&format!("v{VERSION} is ready")), "{said}");
    assert!(!tree.path("target").exists(), "a check builds nothing");
}

#[test]
fn a_dirty_tree_is_refused() {
    let Some(tree) = Tree::ready() else { return };
    tree.write("new.txt", "a file that git does not know");
    tree.is_refused("changes that are not committed:\n?? new.txt");
    tree.release();
    tree.edit("Cargo.toml", "[workspace]", "[workspace] # edited");
    tree.is_refused("changes that are not committed:\n M Cargo.toml");
}

#[test]
fn a_version_that_differs_is_refused() {
    let cases = [
        ("daemon/containers/Cargo.toml", format!("version = \"{VERSION}\""), "version = \"9.9.9\""),
        ("daemon/libvirt/Cargo.toml", format!("version = \"{VERSION}\""), "version = \"9.9.9\""),
        ("packaging/deb/changelog", format!("jouled ({VERSION})"), "jouled (9.9.9)"),
        ("packaging/rpm/jouled.spec", format!("Version:        {VERSION}"), "Version:        9.9.9"),
        ("packaging/rpm/jouled.spec", format!("- {VERSION}-1"), "- 9.9.9-1"),
    ];
    for (file, old, new) in cases {
        let Some(tree) = Tree::ready() else { return };
        tree.edit(file, &old, new);
        tree.release();
        tree.is_refused(file);
        tree.is_refused("9.9.9");
    }
}

#[test]
fn a_version_without_a_changelog_entry_is_refused() {
    let Some(tree) = Tree::ready() else { return };
    let heading = format!("## [{VERSION}] - 2026-11-28");
    tree.edit("CHANGELOG.md", &heading, "## [Unreleased]");
    tree.release();
    tree.is_refused("CHANGELOG.md has no heading");
    tree.write("CHANGELOG.md", &format!("# Changelog\n\n{heading}\n\n## [0.0.1] - 2026-01-01\n\n- Something.\n"));
    tree.release();
    tree.is_refused("is empty");
    fs::remove_file(tree.path("CHANGELOG.md")).unwrap();
    tree.release();
    tree.is_refused("there is no CHANGELOG.md");
}

#[test]
fn a_missing_or_wrong_tag_is_refused() {
    let Some(tree) = Tree::ready() else { return };
    let tag = format!("v{VERSION}");
    tree.git(&["tag", "--delete", &tag]);
    tree.is_refused("there is no tag");
    tree.git(&["tag", &tag]);
    tree.is_refused("no author, date and signature");
    tree.tag();
    tree.write("more.txt", "a later commit");
    tree.commit();
    tree.is_refused("and this commit is");
}
