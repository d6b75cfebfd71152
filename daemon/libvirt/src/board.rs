//! What is known now, of all libvirts that are followed: written by those that follow, read by those that tell. Calls nobody.

use crate::domain::Machine;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A call to libvirt that takes longer is told to jouled.
const SLOW: Duration = Duration::from_secs(15);
/// jouled takes lines up to 4 MiB; the frame around the machines needs some of it.
const MACHINES_BYTES: usize = (4 << 20) - 4096;
/// jouled takes so many machines of one libvirt.
const MACHINES: usize = 10_000;

/// Machines by UUID.
pub type Machines = BTreeMap<String, Machine>;

/// What is known now.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Goes up with each change.
    generation: u64,
    /// In the order of the command line.
    libvirts: Vec<Libvirt>,
}

#[derive(Debug)]
struct Libvirt {
    uri: String,
    machines: Machines,
    /// Whether it ever answered, or failed to.
    known: bool,
    /// Why it cannot be asked; empty where it can.
    why: String,
    /// Since when a call to it has been under way.
    calling: Option<Instant>,
}

/// One line to jouled. docs/vms.md describes it.
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
    /// A board for these libvirts, of which nothing is known yet.
    pub fn new(uris: &[String]) -> Self {
        let new = |uri: &String| Libvirt {
            uri: uri.clone(),
            machines: Machines::new(),
            known: false,
            why: "not connected yet".into(),
            calling: None,
        };
        let state = State { generation: 1, libvirts: uris.iter().map(new).collect() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// libvirt number `which` answers, and knows these machines.
    pub fn know(&self, which: usize, machines: &Machines) {
        self.change(which, |libvirt| {
            let same = libvirt.why.is_empty() && libvirt.machines == *machines;
            libvirt.why.clear();
            libvirt.machines.clone_from(machines);
            !same
        });
    }

    /// libvirt number `which` cannot be asked. What it said last stays, as its machines go on running; but not their context ids, which may be
    /// given to others meanwhile. True where that is news.
    pub fn gone(&self, which: usize, why: &str) -> bool {
        self.change(which, |libvirt| {
            let news = libvirt.why != why;
            libvirt.why = why.to_string();
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

    /// Makes a call to libvirt number `which`; how long it takes can be seen meanwhile.
    pub fn call<T>(&self, which: usize, call: impl FnOnce() -> T) -> T {
        self.lock().libvirts[which].calling = Some(Instant::now());
        let result = call();
        self.lock().libvirts[which].calling = None;
        result
    }

    /// A libvirt that has left a call without an answer for `limit`.
    pub fn hung(&self, limit: Duration) -> Option<String> {
        self.lock().libvirts.iter().find(|libvirt| libvirt.slow(limit)).map(|libvirt| libvirt.uri.clone())
    }

    /// Returns when there is something newer than `generation`, when [`Board::wake`] is called, or after `limit`.
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

    /// The lines for jouled, one per libvirt of which there is something to say, and their generation: with all machines, or without where
    /// jouled has those of `told`.
    pub fn lines(&self, told: u64) -> (u64, String) {
        let state = self.lock();
        let full = state.generation != told;
        let news = state.libvirts.iter().filter(|libvirt| libvirt.known || libvirt.slow(SLOW));
        let lines = news.map(|libvirt| libvirt.line(full || !libvirt.known)).collect();
        (state.generation, lines)
    }

    /// One line for people.
    pub fn status(&self) -> String {
        let state = self.lock();
        let lines = state.libvirts.iter().map(|libvirt| match libvirt.health() {
            "ok" => format!("{}: {} running", libvirt.uri, libvirt.machines.len()),
            why => format!("{}: {why}", libvirt.uri),
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole when the lock is given back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Libvirt {
    fn slow(&self, limit: Duration) -> bool {
        self.calling.is_some_and(|since| since.elapsed() > limit)
    }

    fn health(&self) -> &str {
        match self.why.as_str() {
            _ if self.slow(SLOW) => "does not answer",
            "" => "ok",
            why => why,
        }
    }

    fn line(&self, full: bool) -> String {
        let mut health = self.health();
        let fitting = full.then(|| fitting(self.machines.values()));
        if fitting.as_ref().is_some_and(|fitting| fitting.len() < self.machines.len()) {
            health = "has more machines than can be told: the last ones, by UUID, are left out";
        }
        let line = Line { v: 1, source: "libvirt", uri: &self.uri, health, machines: fitting };
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// As many of them as jouled takes.
fn fitting<'a>(machines: impl Iterator<Item = &'a Machine>) -> Vec<&'a Machine> {
    let mut bytes = 0;
    let fits = |machine: &&Machine| {
        bytes += serde_json::to_string(machine).map_or(0, |text| text.len() + 1);
        bytes <= MACHINES_BYTES
    };
    machines.take(MACHINES).take_while(fits).collect()
}

/// Text of others for a line of a log: no control characters, not too long.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(count: usize, name: &str) -> Machines {
        let machine = |number| Machine { name: name.into(), uuid: format!("{number:05}"), cid: Some(3), ..Machine::default() };
        (0..count).map(|number| (format!("{number:05}"), machine(number))).collect()
    }

    fn parsed(line: &str) -> serde_json::Value {
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1 && line.len() <= 4 << 20);
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_change_is_told_whole_and_a_heartbeat_is_short() {
        let board = Board::new(&["test:///a".into()]);
        let (none, line) = board.lines(0);
        assert_eq!(line, "", "there is nothing to say yet");
        board.know(0, &machines(2, "a\nb"));
        let (some, line) = board.lines(none);
        assert_ne!(some, none);
        assert_eq!(parsed(&line)["machines"][1]["name"], "a\nb");
        board.know(0, &machines(2, "a\nb"));
        let (same, line) = board.lines(some);
        assert_eq!((same, parsed(&line).get("machines"), &parsed(&line)["health"]), (some, None, &"ok".into()));
    }

    #[test]
    fn what_is_gone_keeps_its_machines_but_not_their_context_ids() {
        let board = Board::new(&["test:///a".into()]);
        board.know(0, &machines(1, "a"));
        assert!(board.gone(0, "closed"));
        assert!(!board.gone(0, "closed"));
        let line = parsed(&board.lines(0).1);
        assert_eq!(
            (line["health"].as_str(), line["machines"][0]["name"].as_str(), line["machines"][0].get("cid")),
            (Some("closed"), Some("a"), None)
        );
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let board = Board::new(&["test:///a".into()]);
        board.know(0, &machines(MACHINES + 1, "a"));
        let line = parsed(&board.lines(0).1);
        assert_eq!(line["machines"].as_array().unwrap().len(), MACHINES);
        assert!(line["health"].as_str().unwrap().contains("left out"));
        // The longest that JSON makes of 256 bytes.
        board.know(0, &machines(MACHINES, &"\u{1}".repeat(256)));
        let line = parsed(&board.lines(0).1);
        assert!((2_000..MACHINES).contains(&line["machines"].as_array().unwrap().len()));
    }

    #[test]
    fn a_call_without_an_answer_is_seen() {
        let board = Board::new(&["test:///a".into()]);
        board.call(0, || {
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(board.hung(Duration::from_millis(10)).as_deref(), Some("test:///a"));
        });
        assert_eq!(board.hung(Duration::ZERO), None);
    }
}
