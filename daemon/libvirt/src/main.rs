//! jouled-libvirt, the program: parses arguments, starts the threads, and watches over them. The only place where the
//! process ends.

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

/// A libvirt that has not answered a call for so long ends the process, which systemd then restarts. A call to libvirt
/// cannot be cancelled.
const HANG_LIMIT: Duration = Duration::from_secs(60);
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// libvirts at most, as jouled accepts them.
const URIS_MAX: usize = 16;

/// Tells jouled which virtual machines libvirt knows: names, titles, virtual CPUs, vsock context ids, the guest
/// channel's profile.
///
/// It connects to libvirt read-only, needs no privileges, and is optional: without it, jouled finds VMs by what the
/// kernel shows.
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
    if uris.len() > URIS_MAX {
        bail!("--uri: {} of them, at most {URIS_MAX} can be followed", uris.len());
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
    let (socket, for_sender) = (arguments.socket.clone(), Arc::clone(&board));
    threads.push(thread("send").spawn(move || send(&socket, &for_sender))?);
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let mut status = String::new();
    while !threads.iter().any(JoinHandle::is_finished) {
        if let Some(uri) = board.hung_uri(HANG_LIMIT) {
            bail!("{uri} has not answered for {HANG_LIMIT:?}: ending, to be restarted by the service manager");
        }
        let now = board.status();
        if now != status {
            let _ = sd_notify::notify(&[NotifyState::Status(&now)]);
            status = now;
        }
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        std::thread::sleep(CHECK_INTERVAL);
    }
    bail!("a thread ended that should not")
}

/// Logs to standard error; under systemd without time stamps, as the journal has its own.
fn log(level: Level) {
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let level = level.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string());
    let filter = tracing_subscriber::EnvFilter::new(format!("jouled_libvirt={level}"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match to_journal {
        true => log.with_ansi(false).without_time().init(),
        false => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
