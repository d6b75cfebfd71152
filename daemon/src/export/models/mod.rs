//! Power models for others (`[export.models]`): on the metrics page's listener in jouled's own form and as Kepler's
//! model server serves them (`http`), and on a Unix socket as Kepler's estimator answers (`estimator`). Reads no files:
//! `run` fills the models.

pub mod estimator;
pub mod http;

use crate::model::values::Mode;
use crate::power_model::kepler::models::Models;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// The models of this machine; others after each reload.
pub type SharedModels = watch::Receiver<Arc<Models>>;

/// `[export.models]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsConfig {
    /// Folders with files of models, the preferred ones first.
    pub folders: Vec<PathBuf>,
    /// The folder with the public keys of those whose signatures of models count.
    pub trusted_keys: PathBuf,
    /// Whether files without a right signature are refused.
    pub require_signatures: bool,
    /// Whether models are served on the metrics page's listener.
    pub serve: bool,
    /// Path of the estimator's socket. `None`: there is none.
    pub estimator: Option<PathBuf>,
    /// Permissions of that socket.
    pub mode: Mode,
}

impl Default for ModelsConfig {
    fn default() -> Self {
        let folders = ["/etc/jouled/models.d", "/var/lib/jouled-models", "/usr/share/jouled/models"];
        Self {
            folders: folders.map(PathBuf::from).to_vec(),
            trusted_keys: PathBuf::from("/etc/jouled/trusted-keys"),
            require_signatures: false,
            serve: false,
            estimator: None,
            mode: Mode(0o660),
        }
    }
}

impl ModelsConfig {
    /// Whether anything needs the models.
    pub fn any(&self) -> bool {
        self.serve || self.estimator.is_some()
    }

    /// Keys with unusable values, each with the rule for its value.
    pub fn wrong(&self) -> Vec<(&'static str, &'static str)> {
        let mut wrong = Vec::new();
        if !self.folders.iter().all(|folder| folder.is_absolute()) {
            wrong.push(("folders", "absolute paths of folders"));
        }
        if !self.trusted_keys.is_absolute() {
            wrong.push(("trusted_keys", "an absolute path of a folder"));
        }
        if self.estimator.as_ref().is_some_and(|path| !path.is_absolute()) {
            wrong.push(("estimator", "an absolute path"));
        }
        wrong
    }
}
