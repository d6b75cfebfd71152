//! Cgroups with names of systemd units, and the kernel's account of their CPU time.

use crate::Failure;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A cgroup of the v2 hierarchy, removed with all its processes when dropped.
pub struct Unit {
    /// Name of its unit.
    pub name: String,
    dir: PathBuf,
}

impl Unit {
    /// Makes it in the slice of this process.
    pub fn new(name: &str) -> Result<Self, Failure> {
        let dir = slice(std::process::id()).ok_or("no cgroup v2")?.join(name);
        fs::create_dir_all(&dir)?;
        Ok(Self { name: name.to_owned(), dir })
    }

    /// `cgroup.procs`: a process that writes `0` to it moves here.
    pub fn procs_file(&self) -> Result<File, Failure> {
        Ok(OpenOptions::new().write(true).open(self.dir.join("cgroup.procs"))?)
    }

    /// CPU time used in it.
    pub fn used(&self) -> Result<Duration, Failure> {
        let stat = fs::read_to_string(self.dir.join("cpu.stat"))?;
        let used = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).ok_or("no usage_usec in cpu.stat")?;
        Ok(Duration::from_micros(used.parse()?))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        remove(&self.dir);
        // The slice goes with its last unit.
        let _ = self.dir.parent().map(fs::remove_dir);
    }
}

/// Removes every unit of a process.
pub fn remove_all(pid: i32) {
    let Some(slice) = slice(pid as u32) else { return };
    for entry in fs::read_dir(&slice).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(slice);
}

/// Kills the processes of a cgroup and removes it.
fn remove(dir: &Path) {
    for _ in 0..200 {
        for pid in
            fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines().filter_map(|pid| pid.parse().ok())
        {
            // SAFETY: no memory is involved; the process is in a cgroup that this benchmark made.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(10))
            }
            _ => return,
        }
    }
}

fn slice(pid: u32) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    Some(Path::new(line.split(' ').nth(4)?).join(format!("jouledbench{pid}.slice")))
}
