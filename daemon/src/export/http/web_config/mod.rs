//! TLS, passwords and headers of the HTTP server, from `web_config_file`: a file in the format of the
//! exporter-toolkit's `web.config.file`, as node_exporter uses it. Not the server.

mod auth;
mod file;
mod tls;

use super::peer::Peer;
use crate::sys::small_file;
use auth::Admission;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two checks of the files for changes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Longest file that is read, in bytes.
const LONGEST: usize = 1 << 20;

/// An unusable web configuration. Its text names the file, the place and the key, and never shows a value: the file has
/// hashes of passwords, and may be the wrong one, such as a private key.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct WebConfigError {
    /// The file at fault.
    pub path: PathBuf,
    reason: String,
}

impl WebConfigError {
    fn new(path: &Path, reason: impl ToString) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// The web configuration in use. Shared by all connections; it changes when its files change.
pub struct WebConfig {
    path: PathBuf,
    current: RwLock<Arc<Loaded>>,
    checker: auth::Checker,
}

/// One state of the files.
struct Loaded {
    users: auth::Users,
    headers: HeaderMap,
    tls: Option<Arc<rustls::ServerConfig>>,
    seen: Vec<(PathBuf, Option<Seen>)>,
}

/// Identifies a version of a file: inode, size, and modification time in s and ns.
type Seen = (u64, u64, i64, i64);

fn seen(path: &Path) -> Option<Seen> {
    std::fs::metadata(path).ok().map(|of| (of.ino(), of.size(), of.mtime(), of.mtime_nsec()))
}

impl Loaded {
    fn load(path: &Path) -> Result<Self, WebConfigError> {
        // Taken before the file is read: a change in between is then seen at the next check.
        let mut files = vec![(path.to_owned(), seen(path))];
        let text = small_file::read_text(path, LONGEST).map_err(|error| WebConfigError::new(path, error))?;
        let config = file::File::parse(&text).map_err(|reason| WebConfigError::new(path, reason))?;
        let base = path.parent().unwrap_or(Path::new("/"));
        let tls = match &config.tls_server_config {
            Some(tls) => {
                files.extend(tls.files(base).map(|file| (file.clone(), seen(&file))));
                Some(Arc::new(tls::server_config(path, base, tls, config.http_server_config.http2)?))
            }
            None => None,
        };
        let headers = config.http_server_config.headers().map_err(|reason| WebConfigError::new(path, reason))?;
        let users = auth::Users::new(config.basic_auth_users).map_err(|reason| WebConfigError::new(path, reason))?;
        Ok(Self { users, headers, tls, seen: files })
    }

    fn changed(&self) -> bool {
        self.seen.iter().any(|(path, was)| seen(path) != *was)
    }
}

impl WebConfig {
    /// Reads the file at `path` and all files that it names.
    ///
    /// # Errors
    /// Where a file cannot be read or understood; names the file.
    pub fn load(path: &Path) -> Result<Self, WebConfigError> {
        let loaded = Loaded::load(path)?;
        let checker = auth::Checker::new().map_err(|reason| WebConfigError::new(path, reason))?;
        Ok(Self { path: path.to_owned(), current: RwLock::new(Arc::new(loaded)), checker })
    }

    /// The TLS configuration in use; `None`: plain HTTP.
    pub fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.current().tls.clone()
    }

    fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads all files again if one of them changed. An unusable one is logged, and the old state stays in use.
    pub fn reload(&self) {
        let current = self.current();
        if !current.changed() {
            return;
        }
        let outcome = Loaded::load(&self.path).and_then(|new| {
            // A half-written file must not turn off encryption or passwords.
            if new.tls.is_some() != current.tls.is_some() || new.users.is_empty() != current.users.is_empty() {
                let reason = "TLS and passwords are switched on and off by a restart only";
                return Err(WebConfigError::new(&self.path, reason));
            }
            Ok(new)
        });
        let next = match outcome {
            Ok(new) => {
                tracing::info!("{}: web configuration read again", self.path.display());
                new
            }
            Err(error) => {
                tracing::warn!("changed web configuration is not used, the old one stays: {error}");
                // Noted as seen, so that it is logged once.
                let seen = current.seen.iter().map(|(path, _)| (path.clone(), seen(path))).collect();
                Loaded {
                    users: current.users.clone(),
                    headers: current.headers.clone(),
                    tls: current.tls.clone(),
                    seen,
                }
            }
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }

    /// Calls [`WebConfig::reload`] again and again until `stop`.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let web = Arc::clone(&self);
            // On a blocking thread: file systems can be slow.
            let _ = tokio::task::spawn_blocking(move || web.reload()).await;
        }
    }

    /// `router` behind the password check, with the configured headers on every answer.
    pub(super) fn guard(self: &Arc<Self>, router: Router) -> Router {
        router.layer(from_fn_with_state(Arc::clone(self), guard))
    }
}

async fn guard(State(web): State<Arc<WebConfig>>, request: Request, next: Next) -> Response {
    let loaded = web.current();
    let peer = request.extensions().get().copied().unwrap_or(Peer::Other);
    let authorization = request.headers().get(header::AUTHORIZATION);
    let mut response = match web.checker.admits(&loaded.users, authorization, peer).await {
        Admission::Allowed => next.run(request).await,
        Admission::Refused => {
            let realm = [(header::WWW_AUTHENTICATE, "Basic realm=\"jouled\", charset=\"UTF-8\"")];
            (StatusCode::UNAUTHORIZED, realm, "unauthorized\n").into_response()
        }
        Admission::Busy => {
            let retry = [(header::RETRY_AFTER, "1")];
            (StatusCode::TOO_MANY_REQUESTS, retry, "too many passwords at a time\n").into_response()
        }
    };
    response.headers_mut().extend(loaded.headers.clone());
    response
}

#[cfg(test)]
mod tests;
