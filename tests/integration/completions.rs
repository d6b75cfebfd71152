//! The installed shell completions are those that clap generates from the programs' arguments. UPDATE_GOLDEN=1 rewrites
//! them.

use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

fn check(name: &str, mut command: clap::Command) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/completions");
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, name, &mut text);
        let file = match shell {
            Shell::Zsh => format!("_{name}"),
            Shell::Fish => format!("{name}.fish"),
            _ => format!("{name}.bash"),
        };
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(&file), &text).unwrap();
        }
        let committed = std::fs::read(folder.join(&file)).unwrap();
        assert!(
            committed == text,
            "packaging/completions/{file} is not what the arguments say; UPDATE_GOLDEN=1 accepts the change"
        );
    }
}

#[test]
fn completions_of_jouled_are_current() {
    check("jouled", jouled::run::args::Arguments::command());
}

#[test]
fn completions_of_joulectl_are_current() {
    check("joulectl", jouled::ctl::args::Args::command());
}
