//! The state of every libvirt that is followed: written by the follower threads, read by the sender and the main
//! thread. Calls neither libvirt nor jouled.

use crate::domain::Machine;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A call to libvirt that takes longer is reported to jouled.
const SLOW: Duration = Duration::from_secs(15);
/// Bytes of machines per line at most: jouled accepts lines up to 4 MiB, of which the other fields need some.
const MACHINES_BYTES: usize = (4 << 20) - 4096;
/// Machines of one libvirt at most, as jouled accepts them.
const MACHINES: usize = 10_000;

/// The version of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Without labels of machines: for a jouled that does not know them.
    First = 1,
    /// With labels of machines.
    Labels = 2,
}

/// Machines by UUID.
pub type Machines = BTreeMap<String, Machine>;

/// The shared state of every libvirt that is followed.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Increases with each change.
    generation: u64,
    /// In the order of the command line.
    libvirts: Vec<Libvirt>,
}

#[derive(Debug)]
struct Libvirt {
    uri: String,
    machines: Machines,
    /// Whether its state is known: it has answered or failed at least once.
    known: bool,
    /// Why it cannot be asked; empty where it can.
    error: String,
    /// When the call under way began; `None`: none is.
    calling: Option<Instant>,
}

/// One line to jouled, as docs/vms.md describes it.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    source: &'a str,
    uri: &'a str,
    health: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    machines: Option<Vec<&'a Machine>>,
}

impl Board {
    /// A board for these connection URIs, with nothing known yet.
    pub fn new(uris: &[String]) -> Self {
        let new = |uri: &String| Libvirt {
            uri: uri.clone(),
            machines: Machines::new(),
            known: false,
            error: "not connected yet".into(),
            calling: None,
        };
        let state = State { generation: 1, libvirts: uris.iter().map(new).collect() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// libvirt number `which` answers, and runs these machines.
    pub fn set_machines(&self, which: usize, machines: &Machines) {
        self.change(which, |libvirt| {
            let same = libvirt.error.is_empty() && libvirt.machines == *machines;
            libvirt.error.clear();
            libvirt.machines.clone_from(machines);
            !same
        });
    }

    /// libvirt number `which` cannot be asked. Its machines stay, as they go on running, but without their context ids,
    /// which may be given to others meanwhile. Returns whether that is a change.
    pub fn set_unreachable(&self, which: usize, error: &str) -> bool {
        self.change(which, |libvirt| {
            let news = libvirt.error != error;
            libvirt.error = error.to_string();
            for machine in libvirt.machines.values_mut() {
                machine.cid = None;
            }
            news
        })
    }

    fn change(&self, which: usize, change: impl FnOnce(&mut Libvirt) -> bool) -> bool {
        let mut state = self.lock();
        let changed = change(&mut state.libvirts[which]);
        state.libvirts[which].known = true;
        if changed {
            state.generation += 1;
            self.changed.notify_all();
        }
        changed
    }

    /// Makes a call to libvirt number `which`, timed so that other threads see how long it takes.
    pub fn timed_call<T>(&self, which: usize, call: impl FnOnce() -> T) -> T {
        self.lock().libvirts[which].calling = Some(Instant::now());
        let result = call();
        self.lock().libvirts[which].calling = None;
        result
    }

    /// The URI of a libvirt that has not answered a call within `limit`.
    pub fn hung_uri(&self, limit: Duration) -> Option<String> {
        self.lock().libvirts.iter().find(|libvirt| libvirt.slow(limit)).map(|libvirt| libvirt.uri.clone())
    }

    /// Returns when the state is newer than `generation`, when [`Board::wake`] is called, or after `limit`.
    pub fn wait(&self, generation: u64, limit: Duration) {
        let state = self.lock();
        if state.generation == generation {
            drop(self.changed.wait_timeout(state, limit));
        }
    }

    /// Ends every [`Board::wait`].
    pub fn wake(&self) {
        let _state = self.lock();
        self.changed.notify_all();
    }

    /// The lines for jouled, one for each libvirt whose state is known, and their generation. Without machines where
    /// jouled has those of generation `sent` (a heartbeat).
    pub fn lines(&self, sent: u64, version: Version) -> (u64, String) {
        let state = self.lock();
        let full = state.generation != sent;
        let news = state.libvirts.iter().filter(|libvirt| libvirt.known || libvirt.slow(SLOW));
        let lines = news.map(|libvirt| libvirt.line(full || !libvirt.known, version)).collect();
        (state.generation, lines)
    }

    /// The state of every libvirt in one line, for the service manager.
    pub fn status(&self) -> String {
        let state = self.lock();
        let lines = state.libvirts.iter().map(|libvirt| match libvirt.health() {
            "ok" => format!("{}: {} running", libvirt.uri, libvirt.machines.len()),
            error => format!("{}: {error}", libvirt.uri),
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is released.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Libvirt {
    fn slow(&self, limit: Duration) -> bool {
        self.calling.is_some_and(|since| since.elapsed() > limit)
    }

    fn health(&self) -> &str {
        match self.error.as_str() {
            _ if self.slow(SLOW) => "does not answer",
            "" => "ok",
            error => error,
        }
    }

    fn line(&self, full: bool, version: Version) -> String {
        let mut health = self.health();
        let machines = || match version {
            Version::Labels => self.machines.clone(),
            Version::First => {
                let mut machines = self.machines.clone();
                machines.values_mut().for_each(|machine| machine.labels.clear());
                machines
            }
        };
        let machines = full.then(machines);
        let fitting = machines.as_ref().map(|machines| fitting(machines.values()));
        if fitting.as_ref().is_some_and(|fitting| fitting.len() < self.machines.len()) {
            health = "has more machines than fit into a line: the last ones, by UUID, are left out";
        }
        let line = Line { v: version as u32, source: "libvirt", uri: &self.uri, health, machines: fitting };
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// As many machines as jouled accepts in one line.
fn fitting<'a>(machines: impl Iterator<Item = &'a Machine>) -> Vec<&'a Machine> {
    let mut bytes = 0;
    let fits = |machine: &&Machine| {
        bytes += serde_json::to_string(machine).map_or(0, |text| text.len() + 1);
        bytes <= MACHINES_BYTES
    };
    machines.take(MACHINES).take_while(fits).collect()
}

/// Foreign text for a log line: control characters become blanks, at most 300 characters.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(count: usize, name: &str) -> Machines {
        let machine =
            |number| Machine { name: name.into(), uuid: format!("{number:05}"), cid: Some(3), ..Machine::default() };
        (0..count).map(|number| (format!("{number:05}"), machine(number))).collect()
    }

    fn parsed(line: &str) -> serde_json::Value {
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1 && line.len() <= 4 << 20);
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_change_sends_every_machine_and_a_heartbeat_none() {
        let board = Board::new(&["test:///a".into()]);
        let (none, line) = board.lines(0, Version::Labels);
        assert_eq!(line, "", "there is nothing to say yet");
        board.set_machines(0, &machines(2, "a\nb"));
        let (some, line) = board.lines(none, Version::Labels);
        assert_ne!(some, none);
        assert_eq!(parsed(&line)["machines"][1]["name"], "a\nb");
        board.set_machines(0, &machines(2, "a\nb"));
        let (same, line) = board.lines(some, Version::Labels);
        assert_eq!((same, parsed(&line).get("machines"), &parsed(&line)["health"]), (some, None, &"ok".into()));
    }

    #[test]
    fn a_jouled_without_labels_gets_lines_of_its_version() {
        let board = Board::new(&["test:///a".into()]);
        let mut machines = machines(1, "a");
        machines.values_mut().for_each(|machine| machine.labels = [("project", "shop".to_owned())].into());
        board.set_machines(0, &machines);
        let new = parsed(&board.lines(0, Version::Labels).1);
        assert_eq!((&new["v"], &new["machines"][0]["labels"]["project"]), (&2.into(), &"shop".into()));
        let old = parsed(&board.lines(0, Version::First).1);
        assert_eq!((&old["v"], old["machines"][0].get("labels")), (&1.into(), None));
    }

    #[test]
    fn an_unreachable_libvirt_keeps_its_machines_but_not_their_context_ids() {
        let board = Board::new(&["test:///a".into()]);
        board.set_machines(0, &machines(1, "a"));
        assert!(board.set_unreachable(0, "closed"));
        assert!(!board.set_unreachable(0, "closed"));
        let line = parsed(&board.lines(0, Version::Labels).1);
        assert_eq!(
            (line["health"].as_str(), line["machines"][0]["name"].as_str(), line["machines"][0].get("cid")),
            (Some("closed"), Some("a"), None)
        );
    }

    #[test]
    fn machines_that_do_not_fit_are_reported() {
        let board = Board::new(&["test:///a".into()]);
        board.set_machines(0, &machines(MACHINES + 1, "a"));
        let line = parsed(&board.lines(0, Version::Labels).1);
        assert_eq!(line["machines"].as_array().unwrap().len(), MACHINES);
        assert!(line["health"].as_str().unwrap().contains("left out"));
        // The longest JSON of a name of 256 bytes.
        board.set_machines(0, &machines(MACHINES, &"\u{1}".repeat(256)));
        let line = parsed(&board.lines(0, Version::Labels).1);
        assert!((2_000..MACHINES).contains(&line["machines"].as_array().unwrap().len()));
    }

    #[test]
    fn a_call_without_an_answer_is_detected() {
        let board = Board::new(&["test:///a".into()]);
        board.timed_call(0, || {
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(board.hung_uri(Duration::from_millis(10)).as_deref(), Some("test:///a"));
        });
        assert_eq!(board.hung_uri(Duration::ZERO), None);
    }
}
