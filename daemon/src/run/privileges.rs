//! Capabilities: drops those that the configuration does not need, and logs missing ones with the consequence. Gains
//! none. Sources report their own failures.

use crate::config::{Config, UsageSource};
use crate::meter::rapl::RaplVia;
use caps::{CapSet, Capability};
use thiserror::Error;

/// Dropping privileges failed.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The kernel refused to drop a capability.
    #[error("capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The kernel refused no_new_privs.
    #[error("PR_SET_NO_NEW_PRIVS: {0}")]
    NoNewPrivileges(std::io::Error),
}

/// The dropped capabilities.
#[derive(Debug)]
pub struct LetGo(Vec<Capability>);

/// Drops the capabilities that this configuration does not need, and logs what is missing. Applies to this thread and
/// the threads that it starts, so it is called before there is another thread.
///
/// # Errors
/// Where the kernel refuses.
pub fn settle(config: &Config) -> Result<LetGo, PrivilegeError> {
    // A program that this process might execute must get no capability.
    rustix::thread::set_no_new_privs(true).map_err(|error| PrivilegeError::NoNewPrivileges(error.into()))?;
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let mut gone = Vec::new();
    // Root without these capabilities cannot do what an ordinary user can do with his own files.
    if !rustix::process::geteuid().is_root() {
        let held = caps::read(None, CapSet::Permitted)?;
        for capability in needless(config).into_iter().filter(|capability| held.contains(capability)) {
            caps::drop(None, CapSet::Effective, capability)?;
            caps::drop(None, CapSet::Permitted, capability)?;
            gone.push(capability);
        }
    }
    let held = caps::read(None, CapSet::Effective)?;
    for (capability, cost) in wanted(config).into_iter().filter(|(capability, _)| !held.contains(capability)) {
        tracing::warn!("without {capability}: {cost}");
    }
    Ok(LetGo(gone))
}

impl LetGo {
    /// Logs capabilities that a reloaded configuration needs and that were dropped: only a restart brings them back.
    pub fn warn_of(&self, config: &Config) {
        for capability in self.missed(config) {
            tracing::warn!(
                "{capability} was let go of at the start, as the configuration did not need it then: restart jouled"
            );
        }
    }

    fn missed(&self, config: &Config) -> Vec<Capability> {
        let needless = needless(config);
        self.0.iter().copied().filter(|capability| !needless.contains(capability)).collect()
    }
}

/// Capabilities of jouled's unit and its drop-ins that this configuration has no use for. Other capabilities that an
/// operator grants are kept.
fn needless(config: &Config) -> Vec<Capability> {
    let bpf = config.usage.source != UsageSource::Procfs;
    let perf = bpf || matches!(config.meter.rapl.via, RaplVia::Auto | RaplVia::Perf);
    let hybrid = !config.export.guest.hybrid.is_empty();
    let uses = [(Capability::CAP_BPF, bpf), (Capability::CAP_PERFMON, perf), (Capability::CAP_CHOWN, hybrid)];
    uses.into_iter().filter(|(_, used)| !used).map(|(capability, _)| capability).collect()
}

/// Capabilities whose absence no source reports, with the consequence to log.
fn wanted(config: &Config) -> Vec<(Capability, &'static str)> {
    let programs = "the programs of other users' processes are not known (exe=\"\"), VMs are known by their command lines alone, and use of GPUs of \
                    AMD and Intel is not seen";
    let mut wanted = vec![(Capability::CAP_SYS_PTRACE, programs)];
    if !config.export.guest.hybrid.is_empty() {
        wanted.push((
            Capability::CAP_CHOWN,
            "hybrid sockets of VMs that run as another user are not served ([export.guest] hybrid)",
        ));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tests::as_nobody_with;
    use std::collections::HashSet;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn what_is_needed_goes_by_the_configuration() {
        use Capability::{CAP_BPF, CAP_CHOWN, CAP_PERFMON};
        let needless = |change: fn(&mut Config)| needless(&config(change));
        assert_eq!(needless(|_| {}), [CAP_CHOWN]);
        assert_eq!(needless(|config| config.export.guest.hybrid.push("/run/firecracker".into())), []);
        assert_eq!(
            needless(|config| config.usage.source = UsageSource::Procfs),
            [CAP_BPF, CAP_CHOWN],
            "RAPL goes by perf"
        );
        let neither = |config: &mut Config| {
            config.usage.source = UsageSource::Procfs;
            config.meter.rapl.via = RaplVia::Powercap;
        };
        assert_eq!(needless(neither), [CAP_BPF, CAP_PERFMON, CAP_CHOWN]);
    }

    #[test]
    fn what_is_missing_goes_by_the_configuration_too() {
        let names = |config: &Config| wanted(config).iter().map(|(capability, _)| *capability).collect::<Vec<_>>();
        assert_eq!(names(&Config::default()), [Capability::CAP_SYS_PTRACE]);
        let hybrid = config(|config| config.export.guest.hybrid.push("/run/firecracker".into()));
        assert_eq!(names(&hybrid), [Capability::CAP_SYS_PTRACE, Capability::CAP_CHOWN]);
    }

    #[test]
    fn root_what_the_unit_gives_is_kept_where_needed_and_is_nobodys_inheritance() {
        use Capability::{CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE};
        let given = [CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE];
        as_nobody_with(&given, move || {
            let held = |which| caps::read(None, which).unwrap();
            let gone = settle(&Config::default()).unwrap();
            assert_eq!(gone.0, [], "it had no CAP_CHOWN");
            assert_eq!(held(CapSet::Effective), given.into_iter().collect());
            assert_eq!(held(CapSet::Permitted), given.into_iter().collect());
            assert_eq!((held(CapSet::Ambient), held(CapSet::Inheritable)), (HashSet::new(), HashSet::new()));
            // A shell started now has no capability.
            let shell = std::process::Command::new("/bin/sh")
                .args(["-c", "grep -E '^(CapPrm|CapEff|NoNewPrivs)' /proc/self/status"])
                .output();
            let said = String::from_utf8(shell.unwrap().stdout).unwrap();
            let words: Vec<&str> = said.split_whitespace().collect();
            assert_eq!(words, ["CapPrm:", "0000000000000000", "CapEff:", "0000000000000000", "NoNewPrivs:", "1"]);
        });
    }

    #[test]
    fn root_what_the_configuration_does_not_need_is_gone_and_other_gifts_stay() {
        use Capability::{CAP_BPF, CAP_DAC_READ_SEARCH, CAP_PERFMON};
        let config = config(|config| config.usage.source = UsageSource::Procfs);
        as_nobody_with(&[CAP_BPF, CAP_PERFMON, CAP_DAC_READ_SEARCH], || {
            let gone = settle(&config).unwrap();
            assert_eq!((gone.missed(&config), gone.missed(&Config::default())), (vec![], vec![CAP_BPF]));
            for which in [CapSet::Effective, CapSet::Permitted] {
                assert_eq!(caps::read(None, which).unwrap(), [CAP_PERFMON, CAP_DAC_READ_SEARCH].into_iter().collect());
            }
            // The drop cannot be undone.
            assert!(caps::raise(None, CapSet::Effective, CAP_BPF).is_err());
        });
    }
}
