//! Loads and attaches the eBPF object `daemon-bpf/jouled.bpf.o`, and explains a refusal for the operator. Takes no
//! samples.

use super::{BpfError, BpfOptions, BpfPath, counters, offsets, sys};
use aya::maps::{Map, MapData, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint, SocketFilter};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, Endianness};
use jouled_bpf::{Cpu, Settings};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::os::fd::{AsFd, BorrowedFd};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../daemon-bpf/jouled.bpf.o");

/// Raw tracepoint programs as (program, tracepoint): those of both paths, and those of the path without BTF.
const COMMON: [(&str, &str); 1] = [("cgroup_born", "cgroup_mkdir")];
const HELPERS: [(&str, &str); 5] = [
    ("task_changed", "sched_process_free"),
    ("task_changed", "sched_process_exec"),
    ("task_moved", "cgroup_attach_task"),
    ("task_exit", "sched_process_exit"),
    ("switch_helpers", "sched_switch"),
];

/// The loaded and attached programs, with their maps.
pub struct Programs {
    ebpf: Ebpf,
    /// The path in use: `Btf` or `Helpers`.
    pub path: BpfPath,
    /// Bit n: counter n is open on every CPU and counted.
    pub counting: u32,
    /// Number of possible CPUs: the length of per-CPU values.
    pub cpus: usize,
    cpu: MapData,
    active: MapData,
    totals: [MapData; 2],
    counters: [MapData; jouled_bpf::COUNTERS],
    /// Events for new cgroups.
    pub born: RingBuf<MapData>,
}

/// The type of the tracepoint that `switch_btf` is attached to: the kernel prefixes its name.
const SWITCH_TYPE: &str = "btf_trace_sched_switch";

impl Programs {
    /// Loads the object by the path of `options`, and attaches its programs.
    ///
    /// # Errors
    /// Why the kernel refuses, for the operator.
    pub fn load(options: &BpfOptions) -> Result<Self, BpfError> {
        raise_memlock();
        let btf = match options.path {
            BpfPath::Helpers => None,
            BpfPath::Btf => Some(std::fs::read(offsets::VMLINUX).map_err(|error| BpfError::NoBtf(error.to_string()))?),
            BpfPath::Auto => std::fs::read(offsets::VMLINUX).ok(),
        };
        let known = btf.as_deref().map(|btf| Ok((offsets::settings(btf)?, offsets::typedef(btf, SWITCH_TYPE)?)));
        // It takes 5 to 10 MB.
        drop(btf);
        match (known.transpose(), options.path) {
            (Ok(Some((settings, switch))), path) => match Self::load_path(options, settings, Some(switch)) {
                // The verifier or a tracepoint of this kernel differs from those that jouled knows: the helpers need
                // less of it.
                Err(BpfError::Refused(_)) if path == BpfPath::Auto => {
                    Self::load_path(options, Settings::default(), None)
                }
                result => result,
            },
            (Err::<_, String>(missing), BpfPath::Btf) => Err(BpfError::NoBtf(format!("it lacks {missing}"))),
            _ => Self::load_path(options, Settings::default(), None),
        }
    }

    /// `switch`: the id of [`SWITCH_TYPE`] in the kernel's BTF; `None`: the programs that need no BTF.
    fn load_path(options: &BpfOptions, mut settings: Settings, switch: Option<u32>) -> Result<Self, BpfError> {
        let events = counters::open(options.counters, &counters::online());
        for (counter, events) in events.iter().enumerate() {
            settings.counters |= u32::from(events.is_some()) << counter;
        }
        let plain = PlainSettings(settings);
        let entries = options.max_entries.max(1);
        let mut ebpf = EbpfLoader::new()
            // The object has no CO-RE relocations: offsets are passed in SETTINGS.
            .btf(None)
            .override_global("SETTINGS", &plain, true)
            .map_max_entries("TOTALS_0", entries)
            .map_max_entries("TOTALS_1", entries)
            .load(OBJECT)
            .map_err(|error| explain(&error))?;
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| BpfError::Refused(format!("{path}: {error}")))?;
        let mut programs = Self {
            path: if switch.is_some() { BpfPath::Btf } else { BpfPath::Helpers },
            counting: settings.counters,
            cpus,
            cpu: take_map(&mut ebpf, "CPU")?,
            active: take_map(&mut ebpf, "ACTIVE")?,
            totals: [take_map(&mut ebpf, "TOTALS_0")?, take_map(&mut ebpf, "TOTALS_1")?],
            counters: [
                take_map(&mut ebpf, counters::MAPS[0])?,
                take_map(&mut ebpf, counters::MAPS[1])?,
                take_map(&mut ebpf, counters::MAPS[2])?,
            ],
            born: RingBuf::try_from(ebpf.take_map("BORN").ok_or_else(|| missing_map("BORN"))?)
                .map_err(|error| explain(&EbpfError::MapError(error)))?,
            ebpf,
        };
        programs.install(&events).map_err(|error| io_refusal("perf counters", &error))?;
        programs.write_packages(options).map_err(|error| io_refusal("map CPU", &error))?;
        programs.attach(switch)?;
        Ok(programs)
    }

    fn write_packages(&self, options: &BpfOptions) -> std::io::Result<()> {
        let package = |cpu: usize| options.packages.get(cpu).map_or(0, |package| u32::from(package.0));
        let cpus: Vec<Cpu> = (0..self.cpus).map(|cpu| Cpu { package: package(cpu), ..Cpu::default() }).collect();
        sys::write_cpus(self.cpu(), &cpus)
    }

    fn attach(&mut self, switch: Option<u32>) -> Result<(), BpfError> {
        let helpers: &[_] = if switch.is_some() { &[] } else { &HELPERS };
        for (program, tracepoint) in COMMON.iter().chain(helpers) {
            self.attach_raw(program, tracepoint).map_err(|error| explain(&error.into()))?;
        }
        if let Some(switch) = switch {
            // aya only looks up the id of this type. The whole BTF of a kernel would take 20 MB while it does.
            let btf = offsets::btf_with_one_type(switch, SWITCH_TYPE);
            let btf = Btf::parse(&btf, Endianness::default()).map_err(|error| BpfError::NoBtf(error.to_string()))?;
            self.attach_btf(&btf).map_err(|error| explain(&error.into()))?;
        }
        let tick = self.tick_program();
        self.raw(tick).and_then(RawTracePoint::load).map_err(|error| explain(&error.into()))
    }

    fn attach_raw(&mut self, name: &str, tracepoint: &str) -> Result<(), ProgramError> {
        let program = self.raw(name)?;
        match program.load() {
            // One program may be attached to several tracepoints.
            Ok(()) | Err(ProgramError::AlreadyLoaded) => program.attach(tracepoint).map(|_| ()),
            Err(error) => Err(error),
        }
    }

    fn attach_btf(&mut self, btf: &Btf) -> Result<(), ProgramError> {
        let program = self.ebpf.program_mut("switch_btf").ok_or(ProgramError::UnexpectedProgramType)?;
        let program: &mut BtfTracePoint = program.try_into()?;
        program.load("sched_switch", btf)?;
        program.attach().map(|_| ())
    }

    fn raw(&mut self, name: &str) -> Result<&mut RawTracePoint, ProgramError> {
        self.ebpf.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()
    }

    fn tick_program(&self) -> &'static str {
        if self.path == BpfPath::Btf { "tick_btf" } else { "tick_helpers" }
    }

    /// The program that flushes a CPU at a tick, by BPF_PROG_TEST_RUN on that CPU.
    pub fn tick(&mut self) -> Result<&mut RawTracePoint, ProgramError> {
        let name = self.tick_program();
        self.raw(name)
    }

    /// The program for kernels that cannot run a tracepoint program on a chosen CPU (before Linux 5.10). Loaded at
    /// first use.
    pub fn flush(&mut self) -> Result<&mut SocketFilter, ProgramError> {
        let program: &mut SocketFilter =
            self.ebpf.program_mut("flush").ok_or(ProgramError::UnexpectedProgramType)?.try_into()?;
        match program.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
            Err(error) => Err(error),
        }
    }

    /// Puts opened counters into their maps.
    pub fn install(&self, events: &[Option<counters::Events>; jouled_bpf::COUNTERS]) -> std::io::Result<()> {
        let mut pairs = self.counters.iter().zip(events);
        pairs.try_for_each(|(map, events)| {
            events.as_ref().map_or(Ok(()), |events| counters::install(map.fd().as_fd(), events))
        })
    }

    /// The per-CPU map `CPU`: [`Cpu`].
    pub fn cpu(&self) -> BorrowedFd<'_> {
        self.cpu.fd().as_fd()
    }

    /// The map `ACTIVE`: which map of totals is added to.
    pub fn active(&self) -> BorrowedFd<'_> {
        self.active.fd().as_fd()
    }

    /// One of the two maps of totals, `which` 0 or 1.
    pub fn totals(&self, which: u32) -> BorrowedFd<'_> {
        self.totals[which as usize & 1].fd().as_fd()
    }
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct PlainSettings(Settings);
// SAFETY: `repr(C)`, 32-bit numbers only.
unsafe impl aya::Pod for PlainSettings {}

fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, BpfError> {
    match ebpf.take_map(name) {
        Some(Map::Array(map) | Map::PerCpuArray(map) | Map::HashMap(map) | Map::PerfEventArray(map)) => Ok(map),
        _ => Err(missing_map(name)),
    }
}

fn missing_map(name: &str) -> BpfError {
    BpfError::Refused(format!("the eBPF object has no map {name}"))
}

/// Raises RLIMIT_MEMLOCK, which is small for services: before Linux 5.11 eBPF maps count against it.
fn raise_memlock() {
    // Where raising it is not permitted, loading fails and says so.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

fn explain(error: &EbpfError) -> BpfError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut errno = None;
    let mut text = String::new();
    while let Some(error) = source {
        errno = errno.or_else(|| error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error));
        if text.is_empty() || !text.contains(&error.to_string()) {
            text = [text.as_str(), &error.to_string()].join(if text.is_empty() { "" } else { ": " });
        }
        source = error.source();
    }
    // A verifier log is long; its end has the reason.
    let start = text.char_indices().rev().nth(600).map_or(0, |(at, _)| at);
    classify(errno, text[start..].trim())
}

fn io_refusal(what: &str, error: &std::io::Error) -> BpfError {
    classify(error.raw_os_error(), &format!("{what}: {error}"))
}

fn classify(errno: Option<i32>, text: &str) -> BpfError {
    if let Some(release) = too_old() {
        return BpfError::TooOld(release);
    }
    // A program that the verifier rejects gives EACCES too, but with a log.
    if !matches!(errno, Some(libc::EPERM | libc::EACCES))
        || text.contains("verification time")
        || text.contains("processed ")
    {
        return BpfError::Refused(text.to_owned());
    }
    let missing = missing_capabilities();
    if !missing.is_empty() {
        return BpfError::Missing(missing);
    }
    let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return BpfError::Lockdown;
    }
    BpfError::Denied(text.to_owned())
}

fn missing_capabilities() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|held| u64::from_str_radix(held.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    let has = |bit: u32| held >> bit & 1 != 0;
    // CAP_SYS_ADMIN (bit 21) includes both.
    let wanted = [("CAP_BPF", 39), ("CAP_PERFMON", 38)];
    let missing: Vec<_> = wanted.into_iter().filter(|&(_, bit)| !has(bit) && !has(21)).map(|(name, _)| name).collect();
    missing.join(" and ")
}

/// The kernel's release where it is older than 5.8, which brought the ring buffer, CAP_BPF and CAP_PERFMON.
fn too_old() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    (version < (5, 8)).then(|| release.trim().to_owned())
}
