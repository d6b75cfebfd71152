//! Configuration: as written (defaults, file, drop-ins, environment, command line) → merged → checked. Opens nothing
//! else.

mod environment;
mod explain;
mod names;
mod strings;

use crate::export::dbus::DbusConfig;
use crate::export::guest::GuestConfig;
use crate::export::job_log::JobsConfig;
use crate::export::models::ModelsConfig;
use crate::export::page::PageConfig;
use crate::export::powercap::PowercapOptions;
use crate::export::prometheus::PrometheusOptions;
use crate::export::push;
use crate::footprint::{CarbonConfig, PriceConfig, ReportConfig};
use crate::history::{HistoryConfig, SIZE_LEAST};
use crate::meter::MeterConfig;
use crate::model::billing::{IdlePolicy, Weights};
use crate::model::entity::{Kind, Limits};
use crate::model::platform::PlatformChoice;
use crate::model::tenant::{self, TenantRule};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::values::broken;
pub use crate::model::values::{LogLevel, Mode, Span};
use crate::sys::unix_socket;
use crate::usage::bpf::{BpfPath, Counters};
use figment::Figment;
use figment::providers::{Env, Format, Toml};
use figment::value::UncasedStr;
pub use names::NamesConfig;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The default path of the configuration. The file need not exist.
pub const DEFAULT_PATH: &str = "/etc/jouled/jouled.toml";
/// Largest configuration file, in bytes (1 MiB).
const FILE_LIMIT: u64 = 1 << 20;

/// Why a configuration is rejected. Each line names where the value is from, its key, and the reason.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file that cannot be used.
    #[error("{path}: {why}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The reason, and what to do.
        why: String,
    },
    /// Keys or values that cannot be used.
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

/// `jouled.toml`. An empty one is complete.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `interval`: time between ticks, 100 ms to 60 s.
    pub interval: Span,
    /// `node_name`: the name of this machine in metrics. Default: the host name.
    pub node_name: Option<String>,
    /// `listen`: addresses of the metrics page. Local by default: power data can reveal secrets that the host computes
    /// with.
    pub listen: Vec<SocketAddr>,
    /// `state_dir`: folder of the totals that outlive a reboot.
    pub state_dir: Option<PathBuf>,
    /// `runtime_dir`: folder of the totals that outlive a restart or a crash; a file system in memory.
    pub runtime_dir: Option<PathBuf>,
    /// `sysfs`: root of sysfs, for meters and topology. Cgroup mounts always come from the kernel (mountinfo).
    pub sysfs: PathBuf,
    /// `procfs`: root of procfs.
    pub procfs: PathBuf,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: LogLevel,
    /// `[meter]`
    pub meter: MeterConfig,
    /// `[usage]`
    pub usage: UsageConfig,
    /// `[attribution]`
    pub attribution: AttributionConfig,
    /// `[learn]`
    pub learn: LearnConfig,
    /// `[series]`
    pub series: SeriesConfig,
    /// `[export]`
    pub export: ExportConfig,
    /// `[control]`
    pub control: ControlConfig,
    /// `[inventory]`
    pub inventory: InventoryConfig,
    /// `[names]`
    pub names: NamesConfig,
    /// `[[tenant]]`
    pub tenant: Vec<TenantRule>,
    /// `[history]`
    pub history: HistoryConfig,
    /// `[carbon]`
    pub carbon: CarbonConfig,
    /// `[price]`
    pub price: PriceConfig,
    /// `[report]`
    pub report: ReportConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Span(Nanos::SECOND),
            node_name: None,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 28282))],
            state_dir: None,
            runtime_dir: None,
            sysfs: "/sys".into(),
            procfs: "/proc".into(),
            log_level: LogLevel::Info,
            meter: MeterConfig::default(),
            usage: UsageConfig::default(),
            attribution: AttributionConfig::default(),
            learn: LearnConfig::default(),
            series: SeriesConfig::default(),
            export: ExportConfig::default(),
            control: ControlConfig::default(),
            inventory: InventoryConfig::default(),
            names: NamesConfig::default(),
            tenant: Vec::new(),
            history: HistoryConfig::default(),
            carbon: CarbonConfig::default(),
            price: PriceConfig::default(),
            report: ReportConfig::default(),
        }
    }
}

/// The source of CPU use: `source` in `[usage]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageSource {
    /// eBPF where the kernel allows it, else /proc.
    #[default]
    Auto,
    /// eBPF; jouled does not start without it.
    Bpf,
    /// /proc.
    Procfs,
}

/// `[usage]`: how CPU and GPU use is measured.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UsageConfig {
    /// The source of CPU use.
    pub source: UsageSource,
    /// How the eBPF program reads the kernel.
    pub path: BpfPath,
    /// Which hardware counters are counted.
    pub counters: Counters,
    /// Most (process, cgroup, package) entries that can have run between two ticks, 64 to 1048576.
    pub max_entries: u32,
    /// Whether GPU use by process is measured.
    pub gpus: bool,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self {
            source: UsageSource::Auto,
            path: BpfPath::Auto,
            counters: Counters::Auto,
            max_entries: 16_384,
            gpus: true,
        }
    }
}

/// `[attribution]`: how energy is shared.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttributionConfig {
    /// Policy for idle energy.
    pub idle: IdlePolicy,
    /// What dynamic energy is shared by.
    pub weights: Weights,
    /// Which platform meter is the authority.
    pub platform: PlatformChoice,
    /// Idle power in watts by domain id (`"rapl/package-0" = 21.5`), instead of learning it.
    pub idle_watts: BTreeMap<String, f64>,
}

/// `[learn]`: power models that meters of this machine teach.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnConfig {
    /// Whether meters teach power models.
    pub enabled: bool,
}

impl Default for LearnConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// VMs that have a series of their own where the guest channel is configured. Any user can start processes that look
/// like VMs, of which 4,096 are taken for some: as many others have room beside them.
pub const VMS_WITH_CHANNEL: u32 = 8_192;

/// `[series]`: how many series there are.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SeriesConfig {
    /// Most processes with a series of their own, the busiest ones. The others share one series.
    pub processes: u32,
    /// The same for every other kind of entity. With the guest channel, at least [`VMS_WITH_CHANNEL`] VMs.
    pub others: u32,
    /// How long the series of an ended entity stays.
    pub retention: Span,
    /// Energy in joules from which on a process has a series.
    pub min_joules: f64,
}

impl Default for SeriesConfig {
    fn default() -> Self {
        Self { processes: 500, others: 2_000, retention: Span(Nanos(60 * Nanos::SECOND.0)), min_joules: 1.0 }
    }
}

/// `[export]`: the exports.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportConfig {
    /// The metrics page.
    pub prometheus: PrometheusOptions,
    /// The page to look at.
    pub page: PageConfig,
    /// The powercap mirror.
    pub powercap: PowercapOptions,
    /// TLS and passwords of the metrics page: a file in the exporter-toolkit's `web.config.file` format.
    pub web_config_file: Option<PathBuf>,
    /// The guest channel.
    pub guest: GuestConfig,
    /// org.jouled1 on the system bus.
    pub dbus: DbusConfig,
    /// Power models for others.
    pub models: ModelsConfig,
    /// A line for each job at its end.
    pub jobs: JobsConfig,
    /// Receivers that are sent metrics.
    pub push: Vec<push::Receiver>,
}

/// `[control]`: joulectl's socket.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Path of the socket. Default: `jouled.sock` in the runtime folder.
    pub socket: Option<PathBuf>,
    /// Permissions of the socket, octal.
    pub mode: Mode,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self { socket: None, mode: Mode(0o660) }
    }
}

/// `[inventory]`: what helpers and managers report of VMs and containers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InventoryConfig {
    /// Path of the socket for jouled-libvirt and jouled-containers. Default: `inventory.sock` in the runtime folder.
    pub socket: Option<PathBuf>,
    /// Permissions of that socket, octal.
    pub mode: Mode,
    /// Users who may connect there besides root and jouled's own user, by name or number.
    pub users: Vec<String>,
    /// Whether systemd-machined is asked.
    pub machined: bool,
}

impl Default for InventoryConfig {
    fn default() -> Self {
        Self {
            socket: None,
            mode: Mode(0o660),
            users: vec!["jouled-libvirt".into(), "jouled-containers".into()],
            machined: true,
        }
    }
}

impl Config {
    /// Reads the configuration: built-in defaults, `path` (or the default path, if it exists), its drop-ins
    /// `PATH.d/*.toml` in the order of their names, the environment (`JOULED_METER__RAPL__VIA=perf`), then `overrides`.
    /// Later ones win.
    ///
    /// # Errors
    /// Lists each value that cannot be used, with its origin, key and reason.
    pub fn load(path: Option<&Path>, overrides: impl FnOnce(&mut Self)) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        let main = path.unwrap_or(Path::new(DEFAULT_PATH));
        if path.is_some() || main.exists() {
            figment = figment.merge(toml(main)?);
        }
        for file in drop_ins(main)? {
            figment = figment.merge(toml(&file)?);
        }
        // joulectl's own variable JOULED_SOCKET has the same prefix.
        let theirs = environment::of_services(environment::own());
        let is_own = move |name: &UncasedStr| !theirs.iter().any(|other| name == other.as_str());
        figment = figment.merge(Env::prefixed("JOULED_").ignore(&["socket"]).filter(is_own).split("__"));
        let mut config: Self = figment
            .extract()
            .map_err(|error| ConfigError::Values(error.into_iter().map(|one| explain::explain(&one)).collect()))?;
        let place = |key: &str| explain::place(figment.find_metadata(key), key);
        let nul: Vec<String> = strings::with_nul(&figment)
            .iter()
            .map(|key| format!("{}: {}", place(key), broken("a text without the character NUL (\\u0000)")))
            .collect();
        if !nul.is_empty() {
            return Err(ConfigError::Values(nul));
        }
        overrides(&mut config);
        config.check(place)?;
        Ok(config)
    }

    fn check(&self, place: impl Fn(&str) -> String) -> Result<(), ConfigError> {
        let mut wrong = Vec::new();
        // figment knows the origin of a list only as a whole, not of its entries (`meter.ipmi.lan.0.name`).
        let place = |key: &str| {
            let entry = key.match_indices('.').find(|(at, _)| key[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
            let (list, rest) = key.split_at(entry.map_or(key.len(), |(at, _)| at));
            place(list) + rest
        };
        let mut range = |key: &str, ok: bool, rule: &str| {
            if !ok {
                wrong.push(format!("{}: {}", place(key), broken(rule)));
            }
        };
        range(
            "interval",
            (Nanos(100_000_000)..=Nanos(60 * Nanos::SECOND.0)).contains(&self.interval.0),
            "100ms to 60s",
        );
        range("usage.max_entries", (64..=1 << 20).contains(&self.usage.max_entries), "64 to 1048576");
        range("series.processes", self.series.processes <= 1_000_000, "0 to 1000000");
        range("series.others", (1..=1_000_000).contains(&self.series.others), "1 to 1000000");
        range("series.retention", self.series.retention.0 <= Nanos(86_400 * Nanos::SECOND.0), "0 to 24h");
        range("history.size_mb", (SIZE_LEAST..=1_000_000).contains(&self.history.size_mb), "8 to 1000000");
        range("series.min_joules", (0.0..=1_000_000.0).contains(&self.series.min_joules), "0 to 1000000 joules");
        let watts_ok = |watts: &f64| watts.is_finite() && (0.0..=100_000.0).contains(watts);
        for (domain, watts) in &self.attribution.idle_watts {
            range(&format!("attribution.idle_watts.{domain}"), watts_ok(watts), "0 to 100000 watts");
        }
        for (key, rule) in self.export.guest.wrong() {
            range(&format!("export.guest.{key}"), false, rule);
        }
        for (key, rule) in self.export.models.wrong() {
            range(&format!("export.models.{key}"), false, rule);
        }
        if let Some(rule) = self.export.jobs.wrong_log() {
            range("export.jobs.log", false, rule);
        }
        if let Some(rule) = self.export.powercap.wrong_path() {
            range("export.powercap.path", false, rule);
        }
        let sockets = [
            ("control.socket", self.control.socket.as_deref()),
            ("inventory.socket", self.inventory.socket.as_deref()),
            ("export.models.estimator", self.export.models.estimator.as_deref()),
        ];
        for (key, rule) in sockets.iter().filter_map(|(key, path)| Some((key, unix_socket::rule_for((*path)?)?))) {
            range(key, false, rule);
        }
        let in_folder = [
            (self.control.socket.is_none(), self.socket()),
            (self.inventory.socket.is_none(), self.inventory_socket()),
        ];
        if in_folder.iter().any(|(is_in, path)| *is_in && unix_socket::rule_for(path).is_some()) {
            range(
                "runtime_dir",
                false,
                "a path that leaves room for the names of sockets: these have at most 107 bytes",
            );
        }
        if let Some((key, rule)) = self.names.wrong() {
            range(key, false, rule);
        }
        if self.attribution.weights == Weights::Model && !self.learn.enabled {
            range(
                "attribution.weights",
                false,
                "not \"model\" while enabled in [learn] is false: no model is learned then",
            );
        }
        if self.report.pue.is_some_and(|pue| !ReportConfig::is_pue(pue)) {
            range("report.pue", false, "1 to 10");
        }
        for (key, rule) in push::wrong(&self.export.push) {
            range(&format!("export.push.{key}"), false, &rule);
        }
        for (key, why) in self.carbon.wrong() {
            wrong.push(format!("{}: {why}", place(&format!("carbon.{key}"))));
        }
        for (key, why) in self.price.wrong() {
            wrong.push(format!("{}: {why}", place(&format!("price.{key}"))));
        }
        for (key, why) in tenant::check(&self.tenant) {
            let key = if key.is_empty() { "tenant".to_owned() } else { format!("tenant.{key}") };
            wrong.push(format!("{}: {why}", place(&key)));
        }
        for (key, why) in self.meter.check() {
            wrong.push(format!("{}: {why}", place(&format!("meter.{key}"))));
        }
        if let Err(why) = self.attribution.platform.check(&MeterConfig::platform_kinds()) {
            wrong.push(format!("{}: {why}", place("attribution.platform")));
        }
        if wrong.is_empty() { Ok(()) } else { Err(ConfigError::Values(wrong)) }
    }

    /// The folder for files that last until the next boot.
    pub fn runtime_dir(&self) -> PathBuf {
        let by_manager = || folder("RUNTIME_DIRECTORY");
        let of_user = || folder("XDG_RUNTIME_DIR").filter(|_| !is_root()).map(|dir| dir.join("jouled"));
        self.runtime_dir.clone().or_else(by_manager).or_else(of_user).unwrap_or_else(|| "/run/jouled".into())
    }

    /// The folder for files that outlive a reboot.
    pub fn state_dir(&self) -> PathBuf {
        let by_manager = || folder("STATE_DIRECTORY");
        let xdg = || folder("XDG_STATE_HOME");
        let home = || folder("HOME").map(|home| home.join(".local/state"));
        let of_user = || if is_root() { None } else { xdg().or_else(home).map(|dir| dir.join("jouled")) };
        self.state_dir.clone().or_else(by_manager).or_else(of_user).unwrap_or_else(|| "/var/lib/jouled".into())
    }

    /// Path of joulectl's socket.
    pub fn socket(&self) -> PathBuf {
        self.control.socket.clone().unwrap_or_else(|| self.runtime_dir().join("jouled.sock"))
    }

    /// Path of jouled-libvirt's socket.
    pub fn inventory_socket(&self) -> PathBuf {
        self.inventory.socket.clone().unwrap_or_else(|| self.runtime_dir().join("inventory.sock"))
    }

    /// Limits for the ledger.
    pub fn limits(&self) -> Limits {
        let mut shown = [self.series.others; Kind::ALL.len()];
        shown[Kind::Process.index()] = self.series.processes;
        if self.export.guest.any() {
            // A guest gets its numbers from its VM's series.
            shown[Kind::Vm.index()] = self.series.others.max(VMS_WITH_CHANNEL);
        }
        let least = Microjoules((self.series.min_joules * 1e6).round() as u64);
        Limits { shown, retention: self.series.retention.0, least, name_wait: self.names.wait() }
    }

    /// Configured idle floors.
    pub fn floors(&self) -> BTreeMap<String, Microwatts> {
        self.attribution
            .idle_watts
            .iter()
            .map(|(domain, watts)| (domain.clone(), Microwatts((watts * 1e6) as u64)))
            .collect()
    }
}

/// A folder from an environment variable; `None` where it is empty or a relative path.
fn folder(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn toml(path: &Path) -> Result<impl figment::Provider + use<>, ConfigError> {
    let fail = |why: String| ConfigError::File { path: path.to_path_buf(), why };
    let metadata = fs::metadata(path).map_err(|error| fail(error.to_string()))?;
    if !metadata.is_file() {
        return Err(fail("not a file".into()));
    }
    if metadata.len() > FILE_LIMIT {
        return Err(fail(format!(
            "{} bytes: a configuration has at most {FILE_LIMIT}; is this the right file?",
            metadata.len()
        )));
    }
    fs::read_to_string(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    Ok(Toml::file_exact(path))
}

fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut dir = main.as_os_str().to_owned();
    dir.push(".d");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ConfigError::File { path: dir.into(), why: error.to_string() }),
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
