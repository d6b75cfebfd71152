//! A login at a BMC (Redfish session, or HTTP Basic) and requests with it: logs in, keeps the session while it is
//! valid, logs in again when it ended, logs out. The meaning of the resources is in `doc` and `reading`.

use super::config::{Auth, BmcConfig};
use super::doc::Doc;
use super::{BmcError, cut};
use crate::sys::https_client::{Client, Response};
use crate::sys::secret::Secret;
use base64::Engine;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The service root of every Redfish service (DSP0266).
pub(super) const ROOT: &str = "/redfish/v1/";
/// Most redirects that are followed for one resource.
const HOPS: usize = 3;
/// Pause after a refused login for lack of sessions: they are few, and each login may make one.
const AFTER_LOST_LOGIN: Duration = Duration::from_secs(60);

/// A BMC, and the login of jouled's user.
pub(super) struct Bmc {
    client: Client,
    auth: Auth,
    username: String,
    secret: Secret,
    session: Option<Session>,
    /// URI of the collection of sessions, once it is known.
    sessions: Option<String>,
    /// Set while a login is in progress, which must not be aborted: its session would stay with the BMC.
    logging_in: Arc<AtomicBool>,
}

struct Session {
    token: Secret,
    /// The session's URI, to delete it when logging out.
    uri: Option<String>,
    /// A request with it has succeeded.
    proven: bool,
}

/// A resource, and the BMC's clock.
pub(super) struct Got {
    pub(super) doc: Doc,
    /// The response's `Date`, seconds since 1970 by the BMC's clock.
    pub(super) date: Option<u64>,
}

impl Bmc {
    pub(super) fn new(client: Client, config: &BmcConfig, secret: Secret) -> Self {
        Self {
            client,
            auth: config.auth,
            username: config.username.clone(),
            secret,
            session: None,
            sessions: None,
            logging_in: Arc::default(),
        }
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// A flag that is set while a login is in progress.
    pub(super) fn logging_in(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.logging_in)
    }

    /// After a request was aborted: closes the connection, as the response may still arrive on it.
    pub(super) fn request_aborted(&mut self) {
        self.client.close();
        self.logging_in.store(false, Ordering::Release);
    }

    /// Replaces the password. Returns whether it differs.
    pub(super) fn replace_secret(&mut self, secret: Secret) -> bool {
        let other = secret != self.secret;
        self.secret = secret;
        other
    }

    /// Fetches a resource, following redirects on the same BMC.
    pub(super) async fn get(&mut self, uri: &str) -> Result<Got, BmcError> {
        let mut at = uri.to_owned();
        for _ in 0..=HOPS {
            let answer = self.authorised(&at).await?;
            if answer.status.is_redirection() {
                at = self.redirect(&at, &answer)?;
                continue;
            }
            if answer.status == StatusCode::NOT_FOUND && uri == ROOT {
                return Err(no_service());
            }
            if answer.status != StatusCode::OK {
                return Err(refusal(&format!("GET {}", cut(&at)), &answer));
            }
            let date = answer.header(header::DATE).and_then(|text| httpdate::parse_http_date(text).ok());
            let date = date.and_then(|date| Some(date.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()));
            return Ok(Got { doc: Doc::parse(uri, &answer.body?)?, date });
        }
        Err(BmcError::unusable(format!("GET {}: more than {HOPS} redirects", cut(uri))))
    }

    async fn authorised(&mut self, uri: &str) -> Result<Response, BmcError> {
        if uri == ROOT {
            // The service root needs no login (DSP0266), so a wrong password is not tried on it.
            let answer = self.client.request(&Method::GET, uri, None, None).await?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
        }
        if self.auth == Auth::Basic {
            let answer = self.client.request(&Method::GET, uri, Some(self.basic()?), None).await?;
            return if answer.status == StatusCode::UNAUTHORIZED {
                Err(self.wrong_password(&answer))
            } else {
                Ok(answer)
            };
        }
        if self.session.is_none() {
            self.login().await?;
        }
        let answer = self.with_token(&Method::GET, uri).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        if self.session.as_ref().is_some_and(|session| session.proven) {
            // The session ended, by its timeout or because the BMC restarted. If the BMC still has it, it must not
            // stay.
            self.logout().await;
            self.login().await?;
            let answer = self.with_token(&Method::GET, uri).await?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
        }
        self.logout().await;
        Err(BmcError::login(format!(
            "GET {}: not allowed (401) right after a login: does the user have the role ReadOnly?",
            cut(uri)
        )))
    }

    async fn with_token(&mut self, method: &Method, uri: &str) -> Result<Response, BmcError> {
        let Some(session) = &self.session else { return Err(BmcError::login("not logged in".into())) };
        let mut token = HeaderValue::from_str(session.token.reveal())
            .map_err(|_| BmcError::unusable("the session's token is no text".into()))?;
        token.set_sensitive(true);
        let answer =
            self.client.request(method, uri, Some((HeaderName::from_static("x-auth-token"), token)), None).await?;
        if answer.status != StatusCode::UNAUTHORIZED
            && let Some(session) = &mut self.session
        {
            session.proven = true;
        }
        Ok(answer)
    }

    fn basic(&self) -> Result<(HeaderName, HeaderValue), BmcError> {
        let text = format!("{}:{}", self.username, self.secret.reveal());
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| BmcError::unusable("the password cannot be sent".into()))?;
        value.set_sensitive(true);
        Ok((header::AUTHORIZATION, value))
    }

    fn wrong_password(&self, answer: &Response) -> BmcError {
        let said = said(answer);
        BmcError::login(format!(
            "wrong user or password for user {:?} ({}{said})",
            cut(&self.username),
            answer.status.as_u16()
        ))
    }

    async fn login(&mut self) -> Result<(), BmcError> {
        let sessions = match &self.sessions {
            Some(uri) => uri.clone(),
            None => self.find_sessions().await?,
        };
        let body = serde_json::json!({ "UserName": self.username, "Password": self.secret.reveal() }).to_string();
        self.logging_in.store(true, Ordering::Release);
        let answer = self.client.request(&Method::POST, &sessions, None, Some(&body)).await;
        let measurement =
            answer.map_err(|error| BmcError::from(error).of_login()).and_then(|answer| self.opened(&sessions, &answer));
        self.logging_in.store(false, Ordering::Release);
        self.sessions = Some(sessions);
        self.session = Some(measurement?);
        Ok(())
    }

    fn opened(&self, sessions: &str, answer: &Response) -> Result<Session, BmcError> {
        let status = answer.status;
        if !status.is_success() {
            let full = has_no_session_left(answer);
            return Err(match status.as_u16() {
                _ if full => BmcError::busy(
                    format!("the BMC has no session free: log others out there{}", said(answer)),
                    Some(AFTER_LOST_LOGIN),
                ),
                // iLO answers a wrong password with 400.
                400 | 401 | 403 => self.wrong_password(answer),
                404 | 405 | 501 => BmcError::unusable(format!(
                    "POST {}: this BMC has no sessions ({status}): set auth = \"basic\"",
                    cut(sessions),
                    status = status.as_u16()
                )),
                300..=399 => BmcError::unusable(format!(
                    "POST {}: redirected: not followed, as the password would go there",
                    cut(sessions)
                )),
                _ => refusal(&format!("POST {}", cut(sessions)), answer),
            });
        }
        let token = answer.header("x-auth-token").filter(|token| !token.is_empty() && token.len() <= 4096);
        // The BMC may have made a session that cannot be used or deleted, so logins must be rare: a login error.
        let token = token.ok_or_else(|| {
            BmcError::login(format!("POST {}: the BMC gave no X-Auth-Token: set auth = \"basic\"", cut(sessions)))
        })?;
        // Only where it is complete: the token is in the head.
        let named = || Doc::parse(sessions, answer.body.as_ref().ok()?).ok()?.root().target().ok()?;
        // BMCs send either the whole URL or its path.
        let located =
            answer.header(header::LOCATION).and_then(|text| text.parse::<Uri>().ok()).map(|uri| uri.path().to_owned());
        let uri = located.filter(|path| path.starts_with('/') && path != "/").or_else(named);
        Ok(Session { token: Secret::new(token.to_owned()), uri, proven: false })
    }

    /// Finds the collection of sessions in the service root, which needs no login.
    async fn find_sessions(&mut self) -> Result<String, BmcError> {
        let mut at = ROOT.to_owned();
        for _ in 0..=HOPS {
            let answer = self.client.request(&Method::GET, &at, None, None).await?;
            match answer.status.as_u16() {
                200 => {
                    let sessions = Doc::parse(ROOT, &answer.body?)?.root().at("Links")?.link("Sessions")?;
                    return sessions.ok_or_else(|| {
                        BmcError::unusable(format!("{ROOT}#/Links has no Sessions: set auth = \"basic\""))
                    });
                }
                300..=399 => at = self.redirect(&at, &answer)?,
                401 | 403 => {
                    return Err(BmcError::unusable(format!(
                        "GET {ROOT}: refused before any login ({}): set auth = \"basic\"",
                        answer.status.as_u16()
                    )));
                }
                404 => return Err(no_service()),
                _ => return Err(refusal(&format!("GET {ROOT}"), &answer)),
            }
        }
        Err(BmcError::unusable(format!("GET {ROOT}: more than {HOPS} redirects")))
    }

    /// The target of a redirect, which must be on this BMC.
    fn redirect(&self, uri: &str, answer: &Response) -> Result<String, BmcError> {
        let to = answer.header(header::LOCATION).unwrap_or_default();
        let target: Option<Uri> = to.parse().ok();
        let endpoint = self.client.endpoint();
        let here = target.as_ref().is_some_and(|target| match target.host() {
            None => target.path().starts_with('/') && !to.starts_with("//"),
            Some(host) => {
                let https = target.scheme_str() == Some("https");
                let port = target.port_u16().unwrap_or(if https { 443 } else { 80 });
                https == endpoint.https
                    && host.trim_matches(['[', ']']).eq_ignore_ascii_case(&endpoint.host)
                    && port == endpoint.port
            }
        });
        match target.as_ref().and_then(Uri::path_and_query) {
            Some(path) if here => Ok(path.to_string()),
            _ => Err(BmcError::unusable(format!(
                "GET {}: redirected to \"{}\": not followed, as the login would go to another host; set url to it if that is the BMC",
                cut(uri),
                cut(to)
            ))),
        }
    }

    /// Deletes the session at the BMC. Whatever the BMC answers, the session is no longer used.
    pub(super) async fn logout(&mut self) {
        if let Some(Session { uri: Some(uri), .. }) = &self.session {
            let uri = uri.clone();
            let _ = self.with_token(&Method::DELETE, &uri).await;
        }
        self.session = None;
    }
}

fn no_service() -> BmcError {
    BmcError::unusable(format!("GET {ROOT}: what answers is no Redfish service (404): is url a BMC's?"))
}

/// The error for a response that is not a resource.
fn refusal(what: &str, answer: &Response) -> BmcError {
    let said = said(answer);
    match answer.status.as_u16() {
        403 => BmcError::refused(403, format!("{what}: not allowed (403{said}): the user needs the role ReadOnly")),
        code @ (404 | 410) => BmcError::missing(format!("{what}: not there ({code}{said})")),
        code @ (429 | 503) => {
            let after =
                answer.header(header::RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            BmcError::busy(format!("{what}: the BMC is busy ({code}{said})"), after)
        }
        code => BmcError::refused(code, format!("{what}: the BMC answers {code}{said}")),
    }
}

/// The message id of an error response, for a message: `, Base.1.8.SessionLimitExceeded` (DSP0266, "Error responses").
fn said(answer: &Response) -> String {
    let messages = messages(answer);
    let id = messages.iter().find_map(|message| message.get("MessageId")?.as_str());
    id.map(|id| format!(", {}", cut(id))).unwrap_or_default()
}

/// The messages of an error response. Some BMCs send one object in place of a list.
fn messages(answer: &Response) -> Vec<serde_json::Value> {
    let info = || {
        let mut value: serde_json::Value = serde_json::from_slice(answer.body.as_ref().ok()?).ok()?;
        Some(value.get_mut("error")?.get_mut("@Message.ExtendedInfo")?.take())
    };
    match info() {
        Some(serde_json::Value::Array(messages)) => messages,
        Some(message @ serde_json::Value::Object(_)) => vec![message],
        _ => Vec::new(),
    }
}

/// Whether a login was refused because the BMC has as many sessions as it can have: by the registry Base
/// (`SessionLimitExceeded`, and `CreateLimitReachedForResource` for any resource), by Dell's (`IDRAC.2.8.RAC0218`), or
/// by its text.
fn has_no_session_left(answer: &Response) -> bool {
    messages(answer).iter().any(|message| {
        let text = |key: &str| message.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
        let (id, text) = (text("MessageId"), text("Message").to_lowercase());
        ["SessionLimit", "CreateLimitReached", "RAC0218"].iter().any(|one| id.contains(one))
            || (text.contains("maximum number of") && text.contains("session"))
    })
}
