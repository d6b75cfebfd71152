//! jouled-libvirt, the program: arguments → threads → watch over them. The only place where the process ends.

use anyhow::bail;
use clap::{Parser, ValueEnum};
use jouled_libvirt::{board::Board, events, follow::follow, send::send};
use sd_notify::NotifyState;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A libvirt that leaves a call without an answer so long is left: the process ends, to be started anew. No call to libvirt can be ended
/// otherwise.
const HUNG: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// jouled takes no more.
const MOST_URIS: usize = 16;

/// Tells jouled which virtual machines libvirt knows: names, titles, virtual CPUs, vsock context ids, the guest channel's profile.
///
/// It connects to libvirt read-only, needs no privileges, and is never needed: without it, jouled knows VMs by what the kernel shows.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// A libvirt to follow, by its connection URI; may be repeated
    #[arg(long, value_name = "URI", default_value = "qemu:///system")]
    uri: Vec<String>,
    /// jouled's inventory socket
    #[arg(long, value_name = "PATH", default_value = "/run/jouled/inventory.sock")]
    socket: PathBuf,
    /// How much is logged
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::Info)]
    log_level: Level,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log(arguments.log_level);
    match run(&arguments) {
        Ok(never) => never,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "jouled-libvirt: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut uris = arguments.uri.clone();
    uris.sort();
    uris.dedup();
    if uris.len() > MOST_URIS {
        bail!("--uri: {} of them, at most {MOST_URIS} can be followed", uris.len());
    }
    if let Some(uri) = uris.iter().find(|uri| uri.is_empty() || uri.len() > 256 || uri.chars().any(char::is_control)) {
        bail!("--uri {uri:?}: not a connection URI, such as qemu:///system");
    }
    events::run_loop()?;
    let board = Arc::new(Board::new(&uris));
    let mut threads = Vec::new();
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    for (which, uri) in uris.into_iter().enumerate() {
        let board = Arc::clone(&board);
        threads.push(thread("follow").spawn(move || follow(&uri, which, &board))?);
    }
    let (socket, told) = (arguments.socket.clone(), Arc::clone(&board));
    threads.push(thread("send").spawn(move || send(&socket, &told))?);
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let mut status = String::new();
    while !threads.iter().any(JoinHandle::is_finished) {
        if let Some(uri) = board.hung(HUNG) {
            bail!("{uri} has not answered for {HUNG:?}: ending, to be started anew");
        }
        let now = board.status();
        if now != status {
            let _ = sd_notify::notify(&[NotifyState::Status(&now)]);
            status = now;
        }
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        std::thread::sleep(LOOK_EVERY);
    }
    bail!("a thread ended that should not")
}

/// To standard error: systemd takes it from there, with its own time stamps.
fn log(level: Level) {
    let by_manager = std::env::var_os("JOURNAL_STREAM").is_some();
    let level = level.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string());
    let filter = tracing_subscriber::EnvFilter::new(format!("jouled_libvirt={level}"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match by_manager {
        true => log.with_ansi(false).without_time().init(),
        false => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
