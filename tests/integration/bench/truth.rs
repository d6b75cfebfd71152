//! A machine whose energy is known: power at rest, and a fixed energy per second of CPU time, written to a fake
//! powercap zone.

use crate::Failure;
use crate::clock::monotonic;
use crate::sysfs::FakeHost;
use crate::tick::fake_host;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Power at rest in watts.
pub const IDLE_WATTS: f64 = 20.0;
/// Energy of one second of CPU time in joules.
pub const JOULES_PER_CPU_SECOND: f64 = 30.0;
const STEP: Duration = Duration::from_millis(5);
const ZONE: &str = "intel-rapl:0";

/// The machine; it runs until this is dropped.
pub struct Truth {
    /// The fake host that jouled reads.
    pub host: FakeHost,
    /// Source of the machine's CPU time.
    pub source: &'static str,
    end: Arc<AtomicBool>,
    /// The longest time between two updates, in nanoseconds.
    longest: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Truth {
    /// Starts the thread that updates the counter.
    pub fn start() -> Result<Self, Failure> {
        let host = fake_host()?;
        let meter = OpenOptions::new().write(true).open(host.zone_dir(ZONE).join("energy_uj"))?;
        let clock = CpuClock::open()?;
        let begin = (monotonic(), clock.read().ok_or("the machine's CPU time cannot be read")?);
        let source = clock.source;
        let (end, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, late) = (end.clone(), longest.clone());
        let thread = std::thread::spawn(move || {
            // Runs before the processes whose time it reads.
            let priority = libc::sched_param { sched_priority: 10 };
            // SAFETY: valid arguments; where it is not permitted, the lateness shows it.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority) };
            let mut before = begin.0;
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(STEP);
                let now = monotonic();
                let Some(cpu) = clock.read() else { continue };
                late.fetch_max((now - before).as_nanos() as u64, Ordering::Relaxed);
                before = now;
                let cpu = cpu.saturating_sub(begin.1);
                let joules =
                    1.0 + IDLE_WATTS * (now - begin.0).as_secs_f64() + JOULES_PER_CPU_SECOND * cpu.as_secs_f64();
                // One write of a fixed length, so that a reader never sees a part of it.
                let _ = meter.write_all_at(format!("{:<20}\n", (joules * 1e6) as u64).as_bytes(), 0);
            }
        });
        Ok(Self { host, source, end, longest, thread: Some(thread) })
    }

    /// The longest time between two updates since the last call.
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Truth {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// CPU time of all tasks of the machine.
struct CpuClock {
    file: File,
    source: &'static str,
    cpus: u32,
}

impl CpuClock {
    /// Opens `cpuacct.usage` of the v1 root cgroup, which counts nanoseconds; without it, /proc/uptime, as time minus
    /// idle time.
    fn open() -> Result<Self, Failure> {
        let cpus = u32::try_from(std::thread::available_parallelism()?.get())?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let account = mounts.lines().find(|line| line.contains(" - cgroup ") && line.contains("cpuacct"));
        let account = account.and_then(|line| File::open(format!("{}/cpuacct.usage", line.split(' ').nth(4)?)).ok());
        Ok(match account {
            Some(file) => Self { file, source: "cpuacct.usage", cpus },
            None => Self { file: File::open("/proc/uptime")?, source: "uptime less idle time", cpus },
        })
    }

    fn read(&self) -> Option<Duration> {
        let mut buffer = [0; 64];
        let length = self.file.read_at(&mut buffer, 0).ok()?;
        let mut fields = std::str::from_utf8(&buffer[..length]).ok()?.split_ascii_whitespace();
        let first = fields.next()?;
        match fields.next() {
            None => Some(Duration::from_nanos(first.parse().ok()?)),
            Some(idle) => {
                let (up, idle) = (first.parse::<f64>().ok()?, idle.parse::<f64>().ok()?);
                Some(Duration::from_secs_f64((up * f64::from(self.cpus) - idle).max(0.0)))
            }
        }
    }
}
