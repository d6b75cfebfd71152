//! Binds, starts and stops services, and notices when one ends by itself. Knows none of them: that is
//! [`super::services`].

use super::services::{Serve, Service, Shared};
use crate::config::Config;
use anyhow::Result;
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// A service that holds its sockets and is not serving yet.
pub(super) struct Bound {
    name: &'static str,
    serve: Option<Serve>,
}

struct Running {
    task: AbortHandle,
    stop: CancellationToken,
}

/// The services that run, by name.
type AllRunning = HashMap<&'static str, Running>;

pub(super) struct Supervisor {
    shared: Shared,
    tasks: JoinSet<()>,
    running: AllRunning,
    /// Why a service ended by itself while others were being stopped.
    failure: Option<String>,
}

impl Supervisor {
    /// A supervisor without running services.
    pub fn new(shared: Shared) -> Self {
        Self { shared, tasks: JoinSet::new(), running: HashMap::new(), failure: None }
    }

    /// Checks what a reload fails at most often, before anything is stopped for it.
    ///
    /// # Errors
    /// As [`Shared::prepare`].
    pub fn prepare(&mut self, config: &Config) -> Result<()> {
        self.shared.prepare(config)
    }

    /// Reads the files of models again, where they are in use.
    pub fn read_models_again(&mut self, config: &Config) {
        self.shared.read_models_again(config);
    }

    /// Opens what services serve on.
    ///
    /// # Errors
    /// Where one of them cannot be bound; then none is kept.
    pub async fn bind(&mut self, services: &[&Service], config: &Config) -> Result<Vec<Bound>> {
        let mut bound = Vec::new();
        for service in services {
            bound.push(Bound { name: service.name, serve: service.bind(config, &mut self.shared).await? });
        }
        Ok(bound)
    }

    /// Lets bound services serve.
    pub fn start(&mut self, bound: Vec<Bound>) {
        for Bound { name, serve } in bound {
            let Some(serve) = serve else { continue };
            let stop = CancellationToken::new();
            let task = self.tasks.spawn(serve(stop.clone()));
            self.running.insert(name, Running { task, stop });
        }
    }

    /// Stops services and closes what they hold. One that has not ended after `grace` is aborted, with a line in the
    /// log.
    pub async fn stop(&mut self, services: &[&Service], grace: Duration) {
        let mut stopping: HashMap<Id, (&str, AbortHandle)> = HashMap::new();
        for service in services {
            if let Some(Running { task, stop }) = self.running.remove(service.name) {
                stop.cancel();
                stopping.insert(task.id(), (service.name, task));
            }
        }
        let all_ended = async {
            while !stopping.is_empty() {
                let Some(ended) = self.tasks.join_next_with_id().await else { break };
                if stopping.remove(&id_of(&ended)).is_none() {
                    self.failure = self.failure.take().or(failure(&self.running, ended));
                }
            }
        };
        if tokio::time::timeout(grace, all_ended).await.is_err() {
            for (name, task) in stopping.values() {
                tracing::warn!("{name} did not end in {grace:?} and is aborted");
                task.abort();
            }
        }
    }

    /// Waits until a service ends by itself, which none should; says which, and why.
    pub async fn failed(&mut self) -> String {
        if let Some(failure) = self.failure.take() {
            return failure;
        }
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else { std::future::pending().await };
            if let Some(failure) = failure(&self.running, ended) {
                return failure;
            }
        }
    }
}

/// The running service that ended, and how. `None`: a stopped service ended after its grace.
fn failure(running: &AllRunning, ended: Result<(Id, ()), JoinError>) -> Option<String> {
    let id = id_of(&ended);
    let name = running.iter().find(|(_, running)| running.task.id() == id).map(|(name, _)| name)?;
    Some(match ended {
        Ok(_) => format!("{name}: ended by itself"),
        Err(error) => format!("{name}: {error}"),
    })
}

fn id_of(ended: &Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    }
}
