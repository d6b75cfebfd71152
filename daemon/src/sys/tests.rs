//! For tests as root: a thread of user nobody with some capabilities, as the packaged unit gives them.

use caps::{CapSet, Capability};
use std::collections::HashSet;

/// Runs `test` on a thread of user nobody with these capabilities, ambient as systemd sets them. The bare system
/// calls change this thread alone; libc's wrappers would change all threads.
pub fn as_nobody_with(capabilities: &[Capability], test: impl FnOnce() + Send) {
    let set: HashSet<Capability> = capabilities.iter().copied().collect();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            rustix::thread::set_keep_capabilities(true).unwrap();
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            for which in [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient] {
                caps::set(None, which, &set).unwrap();
            }
            test();
        });
        thread.join().unwrap();
    });
}
