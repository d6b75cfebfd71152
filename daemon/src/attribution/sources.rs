//! The states of sources, as reported by the last tick, and the time of each source's last data. Decides no health.

use super::window::DomainState;
use crate::model::platform::PlatformKind;
use crate::model::snapshot::SourceView;
use crate::model::source::{Health, SourceRole, SourceState};
use crate::model::units::Nanos;

/// All sources, in the order of the last tick that listed them.
#[derive(Default)]
pub(super) struct Sources(Vec<Source>);

struct Source {
    state: SourceState,
    /// Time of its last data, CLOCK_MONOTONIC.
    read_at: Option<Nanos>,
}

impl Sources {
    /// Replaces the states if the tick lists any: an empty list means that nothing changed. Name and role together
    /// identify a source, because a meter and a usage source may share a name (`nvml`).
    pub fn update(&mut self, states: &[SourceState]) {
        if states.is_empty() {
            return;
        }
        let earlier = std::mem::take(&mut self.0);
        let read_at = |state: &SourceState| {
            let same = |one: &&Source| one.state.source == state.source && one.state.role == state.role;
            earlier.iter().find(same)?.read_at
        };
        self.0 = states.iter().map(|state| Source { read_at: read_at(state), state: state.clone() }).collect();
    }

    /// Updates the time of each source's last data: for a usage source this tick if it answers, for a meter the last
    /// reading of any of its domains.
    pub fn mark_read(&mut self, domains: &[DomainState], now: Nanos) {
        for Source { state, read_at } in &mut self.0 {
            match state.role {
                SourceRole::Usage | SourceRole::GpuUsage if state.health.answers() => *read_at = Some(now),
                SourceRole::Meter => {
                    let own = domains.iter().filter(|domain| domain.shared.source == state.source);
                    *read_at = own.filter_map(|domain| Some(domain.record.last?.at)).max().or(*read_at);
                }
                _ => {}
            }
        }
    }

    /// Kinds with a configured platform meter that has no domain yet, such as a BMC that has not answered.
    pub fn lacking(&self, domains: &[DomainState]) -> impl Iterator<Item = &PlatformKind> {
        self.0.iter().map(|source| &source.state).filter_map(|state| {
            let kind = state.expected.as_ref().filter(|_| !matches!(state.health, Health::Unsupported(_)))?;
            domains.iter().all(|domain| domain.shared.source != state.source).then_some(kind)
        })
    }

    /// As the snapshot shows them.
    pub fn view(&self) -> Vec<SourceView> {
        let view = |Source { state, read_at }: &Source| SourceView {
            source: state.source.clone(),
            role: state.role,
            health: state.health.shown(),
            detail: state.detail.clone(),
            read_at: *read_at,
        };
        self.0.iter().map(view).collect()
    }
}
