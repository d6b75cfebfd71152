//! What is asked of processes that may run a VM: the requests of [`crate::entity::reader`]'s thread. Does not interpret
//! the results.

use super::inspect::{self, Evidence, VmProcess};
use crate::entity::reader;
use crate::model::usage::ProcessKey;
use std::path::Path;
use std::time::Duration;

/// A reader of processes that may run a VM.
pub type Reader = reader::Reader<Request>;

/// A request to the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Inspect this process: does it run a VM?
    Inspect(u32),
    /// Read the evidence of this VMM process again.
    Evidence(ProcessKey),
}

/// The reply to one request.
#[derive(Debug)]
pub enum Reply {
    /// The process runs a VM.
    VmProcess(Box<VmProcess>),
    /// The evidence of a VMM process.
    Evidence(ProcessKey, Evidence),
    /// The process runs no VM, or ended.
    NotVm,
}

impl reader::Request for Request {
    type Reply = Reply;
    const THREAD: &'static str = "jouled-vms";

    fn read(&self, procfs: &Path) -> Reply {
        match *self {
            Self::Inspect(pid) => {
                inspect::inspect(procfs, pid).map_or(Reply::NotVm, |vm_process| Reply::VmProcess(Box::new(vm_process)))
            }
            Self::Evidence(process) => Reply::Evidence(process, inspect::evidence(procfs, process.pid)),
        }
    }

    fn unanswered(&self, after: Duration) -> String {
        let (Self::Inspect(pid) | Self::Evidence(ProcessKey { pid, .. })) = self;
        format!("/proc/{pid} cannot be read in {after:?}: what runs there is taken for no VM")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const HANG_AFTER: Duration = Reader::HANG_AFTER;

    #[test]
    fn a_command_line_that_blocks_does_not_delay_others() {
        let root = tempfile::tempdir().unwrap();
        let fake = |pid: u32| {
            let dir = root.path().join(pid.to_string());
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(
                dir.join("stat"),
                format!("{pid} (kvm) S 1 1 1 0 -1 4194560 1 1 1 1 1 0 0 0 20 0 1 0 {pid} 1 1"),
            )
            .unwrap();
            std::os::unix::fs::symlink("/usr/bin/kvm", dir.join("exe")).unwrap();
            dir
        };
        std::fs::write(fake(8).join("cmdline"), "kvm\0-name\0good\0").unwrap();
        let pipe = fake(7).join("cmdline");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();

        let mut reader = Reader::new(root.path());
        reader.request(Request::Inspect(7));
        reader.request(Request::Inspect(8));
        let from = Instant::now();
        assert!(reader.replies(Duration::from_millis(20)).is_empty());
        assert!(from.elapsed() < HANG_AFTER, "{:?}", from.elapsed());
        std::thread::sleep(HANG_AFTER);
        let replies = reader.replies(Duration::from_secs(5));
        assert!(
            matches!(&replies[..], [Reply::VmProcess(vm_process)] if vm_process.claims.name.as_deref() == Some("good")),
            "{replies:?}"
        );
        assert_eq!(reader.abandoned().len(), 1);
        // Lets the thread end.
        std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        while !reader.abandoned()[0].is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
