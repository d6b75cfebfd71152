//! The health of exports as a board with one slot for each: what `joulectl status`, `jouled_source_info` and D-Bus
//! `Sources` show of them. The sampler reads the board at each tick.

use crate::model::source::{Health, SourceRole, SourceState};
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::watch;

/// The board. Clones are the same board.
#[derive(Clone)]
pub struct HealthBoard(Arc<watch::Sender<Arc<[SourceState]>>>);

impl Default for HealthBoard {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new([].into())))
    }
}

impl HealthBoard {
    /// The slot of one export, by the name of its source. It stays empty, and the source unlisted, until a health is
    /// set.
    pub fn slot(&self, source: impl Into<Cow<'static, str>>) -> HealthSlot {
        HealthSlot { board: self.clone(), source: source.into() }
    }

    /// All slots in which a health was set, in the order in which that happened first.
    pub fn subscribe(&self) -> watch::Receiver<Arc<[SourceState]>> {
        self.0.subscribe()
    }
}

/// The slot of one export on the board.
#[derive(Clone)]
pub struct HealthSlot {
    board: HealthBoard,
    source: Cow<'static, str>,
}

impl HealthSlot {
    /// Takes this export off the board: it is not configured any more.
    pub fn clear(&self) {
        self.board.0.send_if_modified(|states| {
            let all: Vec<SourceState> = states.iter().filter(|state| state.source != *self.source).cloned().collect();
            let is_new = all.len() != states.len();
            *states = all.into();
            is_new
        });
    }

    /// Sets the health of this export; that of others stays. Readers are notified only of a change.
    pub fn set(&self, health: Health) {
        self.board.0.send_if_modified(|states| {
            let known = states.iter().position(|state| state.source == *self.source);
            if known.is_some_and(|at| states[at].health == health) {
                return false;
            }
            let new = SourceState::new(&*self.source, SourceRole::Export, health);
            let mut all = states.to_vec();
            match known {
                Some(at) => all[at] = new,
                None => all.push(new),
            }
            *states = all.into();
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_export_has_a_slot_of_its_own() {
        let board = HealthBoard::default();
        let mut readers = board.subscribe();
        assert!(readers.borrow_and_update().is_empty());
        let (dbus, mirror) = (board.slot("dbus"), board.slot("powercap"));
        dbus.set(Health::Healthy);
        mirror.set(Health::Failed("no space".into()));
        let names = |states: &[SourceState]| -> Vec<(String, &str)> {
            states.iter().map(|state| (state.source.clone(), state.health.as_str())).collect()
        };
        assert_eq!(names(&readers.borrow_and_update()), [("dbus".into(), "healthy"), ("powercap".into(), "failed")]);
        dbus.set(Health::Unsupported("no system bus".into()));
        assert_eq!(
            names(&readers.borrow_and_update()),
            [("dbus".into(), "unsupported"), ("powercap".into(), "failed")]
        );
        // A second slot of one name is the same: a service that is restarted takes its slot again.
        board.slot("powercap").set(Health::Healthy);
        assert_eq!(
            names(&readers.borrow_and_update()),
            [("dbus".into(), "unsupported"), ("powercap".into(), "healthy")]
        );
        mirror.set(Health::Healthy);
        assert!(!readers.has_changed().unwrap(), "the same health is no news");
    }
}
