//! `[names]`: names of containers and pods.

use crate::model::units::Nanos;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The word with which a folder is not read.
const OFF: &str = "off";

/// `[names]`: where names of containers and pods are read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamesConfig {
    /// The folder in which the kubelet keeps the folders `pods` and `containers`; `off`: names of pods are not read.
    pub kubernetes: PathBuf,
    /// The folder in which Proxmox VE keeps the configurations of its containers; `off`: their names are not read.
    pub proxmox: PathBuf,
}

impl Default for NamesConfig {
    fn default() -> Self {
        Self { kubernetes: "/var/log".into(), proxmox: OFF.into() }
    }
}

impl NamesConfig {
    /// Time for which the counters of a pod or its container stay off the metrics page while its name is not known. The
    /// kubelet makes the link of a container when it has started; a tick later it is found.
    const WAIT: Nanos = Nanos(2 * Nanos::SECOND.0);

    /// The kubelet's folder; `None`: it is not read.
    pub fn kubernetes(&self) -> Option<&Path> {
        Some(&*self.kubernetes).filter(|folder| *folder != Path::new(OFF))
    }

    /// The folder of Proxmox's containers; `None`: it is not read.
    pub fn proxmox(&self) -> Option<&Path> {
        Some(&*self.proxmox).filter(|folder| *folder != Path::new(OFF))
    }

    /// See [`crate::model::entity::Limits::name_wait`].
    pub fn wait(&self) -> Nanos {
        if self.kubernetes().is_some() { Self::WAIT } else { Nanos::ZERO }
    }

    /// The key whose folder breaks the rule, and the rule.
    pub(super) fn wrong(&self) -> Option<(&'static str, &'static str)> {
        let folders = [("names.kubernetes", self.kubernetes()), ("names.proxmox", self.proxmox())];
        let wrong = folders.iter().find(|(_, folder)| folder.is_some_and(|folder| !folder.is_absolute()));
        wrong.map(|(key, _)| (*key, "an absolute path, or \"off\""))
    }
}
