//! joulectl's arguments and its help. Not what the commands do.

use super::guest::GuestCommand;
use super::key::KeyCommand;
use super::list::Sort;
use super::model::ModelCommand;
use super::report::Format;
use super::report::command::{ReportCommand, ToFile};
use crate::history::report::{By, ReportStep};
use crate::model::entity::Kind;
use crate::model::values::{Span, SpanText};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  joulectl status                       what is measured, how well, and what is missing
  joulectl meters                       every meter of this machine, and what it is used for
  joulectl meters compare --against plug
                                        a smart plug beside jouled: ratio, offset, lag
  joulectl top                          live view; Ctrl-C ends it
  joulectl top -n 3 | cat               three plain blocks, one per tick
  joulectl list                         systemd units, the most power first
  joulectl list container --limit 5     the five containers with the most power
  joulectl list process --sort energy   processes, the most energy first
  joulectl list job --ended             jobs that have ended, with their last numbers
  joulectl report --from yesterday      energy of units since yesterday, 00:00
  joulectl report statement job/4711    what a job used, also after its end
  joulectl history ssh.service          its energy in the last 24 hours, as a plot
  joulectl list vm --json | jq -r '.[] | [.labels.vm_name, .watts] | @tsv'

Exit codes: 0 done, 1 jouled cannot be reached, 2 wrong usage.";

/// Shows the power and energy that jouled measures, and the entities that are charged for it.
///
/// Power (W) and energy (J) of an entity are those of its billing base: processor packages, memory where it is metered
/// separately, GPUs, and its share of what a platform meter sees beyond them. Numbers from a model instead of a meter
/// are marked (est.).
#[derive(Debug, Parser)]
#[command(name = "joulectl", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// jouled's socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else
    /// $XDG_RUNTIME_DIR/jouled/jouled.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What to show.
    #[command(subcommand)]
    pub command: Command,
}

/// What joulectl can show.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What is measured: sources and their state, domains, idle floor, losses, jouled's own cost.
    Status {
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Every meter of this machine: what it covers and contains, what it is used for, or why it is not used.
    #[command(args_conflicts_with_subcommands = true)]
    Meters {
        /// Another view.
        #[command(subcommand)]
        command: Option<MetersCommand>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// A live view: meters and their health, then units, containers, VMs and processes.
    Top {
        /// End after this many refreshes.
        #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// One JSON object per tick and line, with every entity.
        #[arg(long)]
        json: bool,
    },
    /// A table of all entities of one kind, with sums that add up to the node's energy.
    #[command(long_about = "\
A table of all entities of one kind, with sums that add up to the node's energy.

POWER is the mean over the last tick, ENERGY is since the start of the series, SHARE is of the
node's power. `rest` is the energy of entities without a line of their own, `ended` that of entities
that are no longer shown.

--json prints an array of objects, one per entity, then one for each sum without an entity:
  row                 entity | more (cut off by --limit) | rest | ended | parked
  kind, labels        labels by name, as in the Prometheus metrics
  name                as in the table: NAMESPACE/POD/CONTAINER of a container of Kubernetes; null
                      for a sum
  state, since        running | terminated; start of the series, RFC 3339
  settled             of a terminated entity: whether its numbers are final
  quality             measured | derived | estimated
  watts               number; null where there is none
  microjoules         integer: energy of the billing base, dynamic and idle
  microjoules_total   integers by zone and mode: {\"package\": {\"dynamic\": 5, \"idle\": 0}}; zones overlap,
                      never add them up
  cpu_seconds, cycles, instructions, cache_misses   null where not counted
  channel             of a VM that is running: how it reads its energy (channel, peer, profile,
                      epoch, served_seconds_ago, …)")]
    List {
        /// Kind of entity.
        #[arg(default_value = "unit", value_parser = PossibleValuesParser::new(Kind::ALL.map(Kind::as_str)).map(|word| kind(&word)))]
        kind: Kind,
        /// Show only the first N; the others are summed up in one line.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Order of the entities.
        #[arg(long, value_enum, default_value_t = Sort::Power)]
        sort: Sort,
        /// Only entities that have ended, with their last numbers, and no sums.
        #[arg(long)]
        ended: bool,
        /// A JSON array (see `joulectl help list`).
        #[arg(long)]
        json: bool,
    },
    /// What was drawn between two times, by entity, in sums that add up to the node's energy.
    #[command(
        long_about = "\
What was drawn between two times, by entity, in sums that add up to the node's energy. jouled
keeps minutes for two days, hours for 14 months and days for ever; the current minute is not in it
yet.

Times: now, today, yesterday, this-month, last-month, this-year, last-year, a date (2026-01-31, or
a month 2026-01), a date and time (2026-01-31T14:00, with Z or an offset where it is not local),
or an age (90m, 24h, 7d). --from takes the begin, and --to the end, of a day, month or year.

Lines that are no entity: `other`, entities without a line of their own; `outside`, processes in
no entity of this kind; `idle`, idle energy that no entity was charged; `unattributed`, work of
unknown processes. Entities that contain each other (slices) do not add up.

--format csv has a line, and --format json an object, for each of these:
  from, until         of the part, RFC 3339
  row                 entity | rest | outside | idle | unattributed | node
  name, labels        the entity
  kwh, microjoules    energy of the billing base, dynamic and idle; microjoules_dynamic,
                      microjoules_idle
  share               of the node's energy
  quality             measured | derived | estimated: the worst that is in the node's energy
  observed_seconds    how long jouled ran; missing_seconds: how long of that a meter gave nothing
  amounts             carbon and cost, where configured: measure, unit, nano (billionths of the
                      unit, which add up), value, and factors: valid, fallback (some by a source
                      that stood in), incomplete (some energy had none) or none (then nano and
                      value are null). In CSV two columns each
  pue, embodied_grams, sci   of the node; sci in JSON alone

--format focus is CSV with the columns of FOCUS 1.2, by month where no --step is given. What is
not known is empty.",
        args_conflicts_with_subcommands = true
    )]
    Report {
        /// Another report.
        #[command(subcommand)]
        command: Option<ReportCommand>,
        /// What the lines are [default: tenant where tenants are configured, else unit].
        #[arg(long, value_name = "WHAT", value_parser = by)]
        by: Option<By>,
        /// Begin [default: this-month].
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// End, included [default: now].
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// A part for each of these.
        #[arg(long, value_enum)]
        step: Option<ReportStep>,
        /// Show only the first N of each part; the others are added to `other`.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
        /// How it is written.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Where it is written to.
        #[command(flatten)]
        file: ToFile,
        /// Multiply carbon and cost by this PUE (the site's energy by its machines') [default: of the configuration].
        #[arg(long, value_name = "NUMBER", value_parser = super::report::pue)]
        pue: Option<f64>,
        /// Software carbon intensity (ISO/IEC 21031) of the machine, by so many functional units where they are known.
        #[arg(long, value_name = "COUNT[:NAME]", num_args = 0..=1, value_parser = super::report::functional_units)]
        #[allow(clippy::option_option, reason = "not asked for, asked for, asked for by units")]
        sci: Option<Option<(f64, String)>>,
    },
    /// The energy of one entity over time, as a plot.
    History {
        /// Name or id of the entity, as `joulectl report` shows it; `node` for the whole machine.
        #[arg(default_value = "node")]
        name: String,
        /// What kind of entity it is.
        #[arg(long, default_value = "unit", value_name = "WHAT", value_parser = by)]
        by: By,
        /// Begin, as of `joulectl report` [default: 24h].
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// End, included [default: now].
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// A bar for each of these.
        #[arg(long, value_enum, default_value_t = ReportStep::Hour)]
        step: ReportStep,
    },
    /// Gets carbon intensities or prices from a service, into a file that jouled watches.
    Fetch(super::fetch::Arguments),
    /// Power models: what a machine without a meter draws, and how well that is known.
    Model {
        /// What to do.
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Power meters in guests that need no agent.
    Guest {
        /// What to do.
        #[command(subcommand)]
        command: GuestCommand,
    },
    /// Keys that sign files.
    Key {
        /// What to do.
        #[command(subcommand)]
        command: KeyCommand,
    },
}

/// What `joulectl meters` can show besides the meters.
#[derive(Debug, Subcommand)]
pub enum MetersCommand {
    /// A meter of the whole machine (a smart plug, a PDU, a BMC) beside what jouled measures, as a line and a plot.
    ///
    /// The ratio of both, what the meter has where jouled measures nothing (offset), what the power supply loses of
    /// each watt more, by how much the meter is behind (lag), and how well both go together (correlation). What the
    /// readings cannot tell is not told. Ctrl-C ends it early.
    Compare {
        /// The meter: its source (`http:plug`), its name (`plug`), or a kind of meter (`wall`).
        #[arg(long, value_name = "NAME")]
        against: String,
        /// For so long: 20s to 24h.
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = length)]
        length: Duration,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// A time of a comparison.
fn length(word: &str) -> Result<Duration, String> {
    let span = Span::try_from(SpanText::Text(word.to_owned()))?;
    let length = Duration::from_nanos(span.0.0);
    let fits = (Duration::from_secs(20)..=Duration::from_secs(86_400)).contains(&length);
    if fits { Ok(length) } else { Err("20s to 24h".to_owned()) }
}

fn by(word: &str) -> Result<By, String> {
    word.parse()
}

fn kind(word: &str) -> Kind {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or(Kind::Unit)
}

impl Args {
    /// The socket of jouled: the option, the environment, or the first default that exists.
    pub fn socket(&self) -> PathBuf {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = self.socket.clone().or_else(|| set("JOULED_SOCKET"));
        named.unwrap_or_else(|| first_there(Path::new("/run"), set("XDG_RUNTIME_DIR").as_deref()))
    }
}

/// The system's socket, or the user's where only that exists. A path that may not be looked at counts as existing, as
/// the error of opening it says more than a missing file.
fn first_there(system: &Path, user: Option<&Path>) -> PathBuf {
    let there = |path: &PathBuf| match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    let socket = |dir: &Path| dir.join("jouled/jouled.sock");
    let system = socket(system);
    if there(&system) {
        return system;
    }
    user.map(socket).filter(there).unwrap_or(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_named() {
        for kind in Kind::ALL {
            let args = Args::try_parse_from(["joulectl", "list", kind.as_str()]).unwrap();
            assert!(matches!(args.command, Command::List { kind: parsed, .. } if parsed == kind));
        }
    }

    #[test]
    fn wrong_usage_is_code_2_and_help_is_not() {
        for wrong in [&["joulectl"][..], &["joulectl", "list", "planet"], &["joulectl", "top", "-n", "0"]] {
            assert_eq!(Args::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        for asked in ["--help", "--version"] {
            assert_eq!(Args::try_parse_from(["joulectl", asked]).unwrap_err().exit_code(), 0);
        }
    }

    #[test]
    fn the_users_socket_is_second() {
        let dir = tempfile::tempdir().unwrap();
        let (system, user) = (dir.path().join("system"), dir.path().join("user"));
        let socket = |root: &Path| root.join("jouled/jouled.sock");
        assert_eq!(first_there(&system, Some(&user)), socket(&system), "neither: the error names the system's");
        std::fs::create_dir_all(user.join("jouled")).unwrap();
        std::fs::write(socket(&user), "").unwrap();
        assert_eq!(first_there(&system, Some(&user)), socket(&user));
        assert_eq!(first_there(&system, None), socket(&system));
        std::fs::create_dir_all(system.join("jouled")).unwrap();
        std::fs::write(socket(&system), "").unwrap();
        assert_eq!(first_there(&system, Some(&user)), socket(&system));
    }
}
