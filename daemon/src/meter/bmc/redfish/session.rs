//! One login at a BMC, kept while it is good, made anew where it ended, given back. Resources come from here; their meaning does not.

use super::config::{Auth, BmcConfig};
use super::doc::Doc;
use super::{Problem, cut};
use crate::sys::https_client::{Client, Response};
use crate::sys::secret::Secret;
use base64::Engine;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where every Redfish service begins: DSP0266, "Service root".
pub(super) const ROOT: &str = "/redfish/v1/";
/// Redirects that are followed for one resource.
const HOPS: usize = 3;
/// A login without an answer may have made a session: no other one is made for so long.
const AFTER_LOST_LOGIN: Duration = Duration::from_secs(60);

/// A BMC as jouled's user sees it.
pub(super) struct Bmc {
    client: Client,
    auth: Auth,
    username: String,
    secret: Secret,
    session: Option<Session>,
    /// Where sessions are made, once it is known.
    sessions: Option<String>,
    /// Set while a login is under way: it is not to be broken off.
    logging_in: Arc<AtomicBool>,
}

struct Session {
    token: Secret,
    /// What to delete at the end.
    uri: Option<String>,
    /// It has worked once.
    proven: bool,
}

/// A resource and what its answer says of the BMC's clock.
pub(super) struct Got {
    pub(super) doc: Doc,
    /// The answer's `Date`, seconds since 1970.
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

    /// Tells whether a login is under way.
    pub(super) fn logging_in(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.logging_in)
    }

    /// After a request was broken off: its answer may still come on that connection.
    pub(super) fn broken_off(&mut self) {
        self.client.close();
        self.logging_in.store(false, Ordering::Release);
    }

    /// Takes another password; whether it is another one.
    pub(super) fn take(&mut self, secret: Secret) -> bool {
        let other = secret != self.secret;
        self.secret = secret;
        other
    }

    /// A resource.
    pub(super) async fn get(&mut self, uri: &str) -> Result<Got, Problem> {
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
            return Ok(Got { doc: Doc::parse(uri, &answer.body)?, date });
        }
        Err(Problem::odd(format!("GET {}: more than {HOPS} redirects", cut(uri))))
    }

    async fn authorised(&mut self, uri: &str) -> Result<Response, Problem> {
        if uri == ROOT {
            // Open to everybody (DSP0266): a wrong password need not be tried twice.
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
            // It has ended: of age, or with a restart of the BMC. If the BMC has it still, it must not stay.
            self.logout().await;
            self.login().await?;
            let answer = self.with_token(&Method::GET, uri).await?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
        }
        self.logout().await;
        Err(Problem::login(format!(
            "GET {}: not allowed (401) right after a login: does the user have the role ReadOnly?",
            cut(uri)
        )))
    }

    async fn with_token(&mut self, method: &Method, uri: &str) -> Result<Response, Problem> {
        let Some(session) = &self.session else { return Err(Problem::login("not logged in".into())) };
        let mut token = HeaderValue::from_str(session.token.reveal())
            .map_err(|_| Problem::odd("the session's token is no text".into()))?;
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

    fn basic(&self) -> Result<(HeaderName, HeaderValue), Problem> {
        let text = format!("{}:{}", self.username, self.secret.reveal());
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
        let mut value = HeaderValue::from_str(&text).map_err(|_| Problem::odd("the password cannot be sent".into()))?;
        value.set_sensitive(true);
        Ok((header::AUTHORIZATION, value))
    }

    fn wrong_password(&self, answer: &Response) -> Problem {
        let said = said(answer);
        Problem::login(format!(
            "wrong user or password for user {:?} ({}{said})",
            cut(&self.username),
            answer.status.as_u16()
        ))
    }

    async fn login(&mut self) -> Result<(), Problem> {
        let sessions = match &self.sessions {
            Some(uri) => uri.clone(),
            None => self.find_sessions().await?,
        };
        let body = serde_json::json!({ "UserName": self.username, "Password": self.secret.reveal() }).to_string();
        self.logging_in.store(true, Ordering::Release);
        let answer = self.client.request(&Method::POST, &sessions, None, Some(&body)).await;
        let taken = answer
            .map_err(|error| Problem::from(error).lost_login())
            .and_then(|answer| self.opened(&sessions, &answer));
        self.logging_in.store(false, Ordering::Release);
        self.sessions = Some(sessions);
        self.session = Some(taken?);
        Ok(())
    }

    fn opened(&self, sessions: &str, answer: &Response) -> Result<Session, Problem> {
        let status = answer.status;
        if !status.is_success() {
            let full = said(answer).contains("SessionLimit");
            return Err(match status.as_u16() {
                _ if full => Problem::busy(
                    format!("the BMC has no session free: log others out there{}", said(answer)),
                    Some(AFTER_LOST_LOGIN),
                ),
                // iLO answers 400 to a wrong password.
                400 | 401 | 403 => self.wrong_password(answer),
                404 | 405 | 501 => Problem::odd(format!(
                    "POST {}: this BMC has no sessions ({status}): set auth = \"basic\"",
                    cut(sessions),
                    status = status.as_u16()
                )),
                300..=399 => Problem::odd(format!(
                    "POST {}: redirected: not followed, as the password would go there",
                    cut(sessions)
                )),
                _ => refusal(&format!("POST {}", cut(sessions)), answer),
            });
        }
        let token = answer.header("x-auth-token").filter(|token| !token.is_empty() && token.len() <= 4096);
        // It may have made a session that nobody can use or end: not often, then.
        let token = token.ok_or_else(|| {
            Problem::login(format!("POST {}: the BMC gave no X-Auth-Token: set auth = \"basic\"", cut(sessions)))
        })?;
        let named = Doc::parse(sessions, &answer.body).ok().and_then(|doc| doc.root().target().ok().flatten());
        // The whole URL, or its path: both are in use.
        let located =
            answer.header(header::LOCATION).and_then(|text| text.parse::<Uri>().ok()).map(|uri| uri.path().to_owned());
        let uri = located.filter(|path| path.starts_with('/') && path != "/").or(named);
        Ok(Session { token: Secret::new(token.to_owned()), uri, proven: false })
    }

    /// The service root says where sessions are made, and says it to everybody.
    async fn find_sessions(&mut self) -> Result<String, Problem> {
        let mut at = ROOT.to_owned();
        for _ in 0..=HOPS {
            let answer = self.client.request(&Method::GET, &at, None, None).await?;
            match answer.status.as_u16() {
                200 => {
                    let sessions = Doc::parse(ROOT, &answer.body)?.root().at("Links")?.link("Sessions")?;
                    return sessions
                        .ok_or_else(|| Problem::odd(format!("{ROOT}#/Links has no Sessions: set auth = \"basic\"")));
                }
                300..=399 => at = self.redirect(&at, &answer)?,
                401 | 403 => {
                    return Err(Problem::odd(format!(
                        "GET {ROOT}: refused before any login ({}): set auth = \"basic\"",
                        answer.status.as_u16()
                    )));
                }
                404 => return Err(no_service()),
                _ => return Err(refusal(&format!("GET {ROOT}"), &answer)),
            }
        }
        Err(Problem::odd(format!("GET {ROOT}: more than {HOPS} redirects")))
    }

    /// Where a redirect leads, on this BMC.
    fn redirect(&self, uri: &str, answer: &Response) -> Result<String, Problem> {
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
            _ => Err(Problem::odd(format!(
                "GET {}: redirected to \"{}\": not followed, as the login would go to another host; set url to it if that is the BMC",
                cut(uri),
                cut(to)
            ))),
        }
    }

    /// Gives the session back. One that the BMC does not know any more is gone too.
    pub(super) async fn logout(&mut self) {
        if let Some(Session { uri: Some(uri), .. }) = &self.session {
            let uri = uri.clone();
            let _ = self.with_token(&Method::DELETE, &uri).await;
        }
        self.session = None;
    }
}

fn no_service() -> Problem {
    Problem::odd(format!("GET {ROOT}: what answers is no Redfish service (404): is url a BMC's?"))
}

/// An answer that is no resource, in words.
fn refusal(what: &str, answer: &Response) -> Problem {
    let said = said(answer);
    match answer.status.as_u16() {
        403 => Problem::odd(format!("{what}: not allowed (403{said}): the user needs the role ReadOnly")),
        404 => Problem::odd(format!("{what}: not there (404{said})")),
        code @ (429 | 503) => {
            let after =
                answer.header(header::RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            Problem::busy(format!("{what}: the BMC is busy ({code}{said})"), after)
        }
        code => Problem::odd(format!("{what}: the BMC answers {code}{said}")),
    }
}

/// The message id of an error: `, Base.1.8.SessionLimitExceeded`. DSP0266, "Error responses".
fn said(answer: &Response) -> String {
    let id = || {
        let value: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        let id = value.get("error")?.get("@Message.ExtendedInfo")?.get(0)?.get("MessageId")?.as_str()?;
        Some(format!(", {}", cut(id)))
    };
    id().unwrap_or_default()
}
