//! Busy time of every CPU from /proc/stat. File and buffer are reused at every read. Knows no packages.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Largest buffer in bytes: enough for 8192 CPUs.
const BUFFER_MAX: usize = 4 << 20;

/// /proc/stat, kept open.
pub(super) struct Stat {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Stat {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, buffer: vec![0; 16 << 10] }
    }

    /// Calls `each` with every online CPU and its busy time since boot in clock ticks.
    ///
    /// # Errors
    /// One line that names the file.
    pub(super) fn read(&mut self, each: impl FnMut(u32, u64)) -> Result<(), String> {
        let length = self.fill().inspect_err(|_| self.file = None)?;
        match parse(&self.buffer[..length], each) {
            0 => Err(format!("{}: no line for any CPU", self.path.display())),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> Result<usize, String> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?,
        };
        let file = self.file.insert(file);
        loop {
            let length =
                file.read_at(&mut self.buffer, 0).map_err(|error| format!("{}: {error}", self.path.display()))?;
            // The lines after those of the CPUs (a counter for each interrupt) are not needed, and may be cut off.
            let complete = length < self.buffer.len() || self.buffer.windows(5).any(|text| text == b"\nintr");
            if complete || self.buffer.len() >= BUFFER_MAX {
                return Ok(length);
            }
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
    }
}

/// Passes the CPU of each line `cpuN …` to `each`, and returns the number of lines. Busy time is user, nice, system,
/// irq and softirq. The CPU rests in idle and iowait, and the host runs other work in steal: these are left out. Guest
/// time is part of user and nice already (proc_stat(5)).
fn parse(text: &[u8], mut each: impl FnMut(u32, u64)) -> usize {
    let mut lines = 0;
    for line in text.split(|byte| *byte == b'\n') {
        let Some(rest) = line.strip_prefix(b"cpu") else {
            break;
        };
        let mut fields = rest.split(|byte| *byte == b' ').map(super::super::file::parse_number);
        // The first line, the sum of all CPUs, has no number.
        let Some(cpu) = fields.next().flatten().and_then(|cpu| u32::try_from(cpu).ok()) else {
            continue;
        };
        let mut busy = 0u64;
        let complete =
            [true, true, true, false, false, true, true].iter().all(|counts| match fields.next().flatten() {
                Some(ticks) => {
                    busy = busy.saturating_add(if *counts { ticks } else { 0 });
                    true
                }
                None => false,
            });
        if complete {
            lines += 1;
            each(cpu, busy);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn collect(text: &[u8]) -> Vec<(u32, u64)> {
        let mut cpus = Vec::new();
        parse(text, |cpu, busy| cpus.push((cpu, busy)));
        cpus
    }

    #[test]
    fn busy_is_what_this_machine_worked() {
        let text =
            b"cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 4 800 1600 8 16 3200 6400 0\ncpu7 1 0 0 0 0 0 0\nintr 5\ncpu9 1 1 1 1 1 1 1\n";
        assert_eq!(collect(text), [(0, 31), (7, 1)]);
    }

    #[test]
    fn incomplete_lines_are_skipped() {
        assert_eq!(
            collect(b"cpu0 1 2 3\ncpu1 x 0 0 0 0 0 0\ncpu99999999999 1 1 1 1 1 1 1\ncpu2 1 1 1 1 1 1 1"),
            [(2, 5)]
        );
        assert_eq!(collect(b""), []);
    }

    #[test]
    fn the_buffer_grows_and_the_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        assert!(Stat::new(path.clone()).read(|_, _| {}).unwrap_err().contains("stat: No such file"));
        std::fs::write(&path, "garbage\n").unwrap();
        assert!(Stat::new(path.clone()).read(|_, _| {}).unwrap_err().ends_with("stat: no line for any CPU"));
        let text: String = (0..2000).map(|cpu| format!("cpu{cpu} 1 1 1 1 1 1 1 0 0 0\n")).collect();
        std::fs::write(&path, text).unwrap();
        let mut cpus = 0;
        Stat::new(path).read(|_, _| cpus += 1).unwrap();
        assert_eq!(cpus, 2000);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_a_panic(tail: Vec<u8>) {
            collect(&[b"cpu0 ", &tail[..]].concat());
            collect(&tail);
        }
    }
}
