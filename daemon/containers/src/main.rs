//! jouled-containers, the program: parses arguments, looks for sockets of runtimes, and starts a task for each. The
//! only place where the process ends.

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use jouled_containers::board::Board;
use jouled_containers::follow::{Runtime, uri};
use jouled_containers::kubelet::Source;
use jouled_containers::send::send;
use jouled_containers::sockets::{self, Protocol};
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Time between two looks for sockets.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Labels at most, and their longest name in bytes, as jouled accepts them.
const LABELS_MAX: usize = 16;
const LABEL_NAME_MAX: usize = 128;

/// Tells jouled which containers Docker, Podman, containerd (nerdctl) and CRI-O run: names, images, compose projects
/// and services, chosen labels.
///
/// It is optional: without it, jouled finds containers by what the kernel shows, and Docker's have no names. Write
/// access to a runtime's socket is root on the machine, so jouled has no such socket.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The socket of a runtime with Docker's API (Docker, Podman) to follow, by its path; may be repeated. Default: the
    /// sockets of Docker, Podman, containerd and CRI-O, also those of users. Where one is named, no other
    /// is asked
    #[arg(long, value_name = "PATH")]
    runtime: Vec<PathBuf>,
    /// The socket of a containerd to follow, by its path; may be repeated
    #[arg(long, value_name = "PATH")]
    containerd: Vec<PathBuf>,
    /// The socket of a runtime with Kubernetes' CRI (CRI-O) to follow, by its path; may be repeated
    #[arg(long, value_name = "PATH")]
    cri: Vec<PathBuf>,
    /// Ask the kubelet for its pods, at this address (127.0.0.1:10250), and no runtime that is not named
    #[arg(long, value_name = "HOST:PORT", requires_all = ["kubelet_token", "kubelet_ca"])]
    kubelet: Option<String>,
    /// The file with the token for the kubelet. It is read for each request
    #[arg(long, value_name = "FILE", requires = "kubelet")]
    kubelet_token: Option<PathBuf>,
    /// The file with the certificates, in PEM, by which the kubelet is known
    #[arg(long, value_name = "FILE", requires = "kubelet")]
    kubelet_ca: Option<PathBuf>,
    /// The name that the kubelet's certificate has to have. Default: HOST
    #[arg(long, value_name = "NAME", requires = "kubelet")]
    kubelet_name: Option<String>,
    /// Seconds between two questions to the kubelet
    #[arg(long, value_name = "SECONDS", requires = "kubelet", default_value_t = 2,
        value_parser = clap::value_parser!(u64).range(1..=300))]
    kubelet_interval: u64,
    /// A label of containers to report, by its name; may be repeated
    #[arg(long, value_name = "NAME")]
    label: Vec<String>,
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
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "jouled-containers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let kubelet = kubelet(&arguments)?;
    let Arguments { runtime, containerd, cri, label, socket, .. } = arguments;
    if label.len() > LABELS_MAX {
        bail!("--label: {} of them, at most {LABELS_MAX} can be reported", label.len());
    }
    if let Some(wrong) = label.iter().find(|name| name.is_empty() || name.len() > LABEL_NAME_MAX) {
        bail!("--label {wrong:?}: a name has 1 to {LABEL_NAME_MAX} bytes");
    }
    let mut named = Vec::new();
    let options = [
        ("runtime", runtime, Protocol::Docker),
        ("containerd", containerd, Protocol::Containerd),
        ("cri", cri, Protocol::Cri),
    ];
    for (option, paths, protocol) in options {
        if let Some(wrong) = paths.iter().find(|path| !path.is_absolute() || path.as_os_str().len() > 200) {
            bail!("--{option} {}: an absolute path of at most 200 bytes", wrong.display());
        }
        named.extend(paths.into_iter().map(|path| (path, protocol)));
    }
    if named.len() > sockets::RUNTIMES_MAX {
        bail!("{} sockets of runtimes are named, at most {} can be followed", named.len(), sockets::RUNTIMES_MAX);
    }
    let tasks = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    tasks.block_on(serve(named, kubelet, label.into(), socket))
}

/// The kubelet that is to be asked.
fn kubelet(arguments: &Arguments) -> anyhow::Result<Option<Source>> {
    let Arguments { kubelet: Some(address), kubelet_token: Some(token), kubelet_ca: Some(ca), .. } = arguments else {
        return Ok(None);
    };
    let every = Duration::from_secs(arguments.kubelet_interval);
    let source = Source::new(address, arguments.kubelet_name.as_deref(), token, ca, every);
    source.map(Some).map_err(|why| anyhow::anyhow!("--kubelet {address}: {why}"))
}

/// Follows the runtimes that there are, until a signal ends the process.
async fn serve(
    named: Vec<(PathBuf, Protocol)>,
    kubelet: Option<Source>,
    labels: Arc<[String]>,
    socket: PathBuf,
) -> anyhow::Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let board = Arc::<Board>::default();
    let for_sender = Arc::clone(&board);
    tokio::spawn(async move { send(&socket, &for_sender).await });
    let looks = kubelet.is_none() || !named.is_empty();
    let none = if looks { "no container runtime has a socket here" } else { "the kubelet has not answered yet" };
    if let Some(source) = kubelet {
        let (labels, board) = (Arc::clone(&labels), Arc::clone(&board));
        tokio::spawn(async move { source.follow(&labels, &board).await });
    }
    let mut followed: BTreeMap<PathBuf, JoinHandle<_>> = BTreeMap::new();
    let (mut status, mut is_ready) = (String::new(), false);
    loop {
        let found = if looks { sockets::find(Path::new("/"), &named) } else { BTreeMap::new() };
        followed.retain(|path, task| {
            let is_there = found.contains_key(path);
            if !is_there {
                tracing::info!("{}: its socket is gone", uri(path));
                task.abort();
                board.forget(&uri(path));
            }
            is_there
        });
        for (path, (owner, protocol)) in found {
            followed.entry(path.clone()).or_insert_with(|| {
                let (labels, board) = (Arc::clone(&labels), Arc::clone(&board));
                tokio::spawn(Runtime { path, protocol, owner, labels, board }.follow())
            });
        }
        if !std::mem::replace(&mut is_ready, true) {
            let _ = sd_notify::notify(&[NotifyState::Ready]);
        }
        let now = board.status(none);
        if now != status {
            let _ = sd_notify::notify(&[NotifyState::Status(&now)]);
            status = now;
        }
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Logs to standard error; under systemd without time stamps, as the journal has its own.
fn log(level: Level) {
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let level = level.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string());
    let filter = tracing_subscriber::EnvFilter::new(format!("jouled_containers={level}"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match to_journal {
        true => log.with_ansi(false).without_time().init(),
        false => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
