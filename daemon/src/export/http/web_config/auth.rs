//! Passwords: HTTP Basic authentication against bcrypt hashes. bcrypt is slow on purpose, so it runs on blocking
//! threads, and a correct password is remembered.

use crate::export::http::peer::Peer;
use crate::sys::mutex::lock;
use axum::http::HeaderValue;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// Most hashes that are computed at a time; further requests wait.
const CONCURRENT: usize = 2;
/// Most hashes of one peer that are computed or wait: a peer that guesses passwords must not keep others waiting.
const EACH: usize = 4;
/// Most correct passwords that are remembered.
const REMEMBERED: usize = 64;

/// User → bcrypt hash.
#[derive(Clone, Default)]
pub(super) struct Users(BTreeMap<String, String>);

impl Users {
    /// Rejects values that are no bcrypt hash.
    pub fn new(users: BTreeMap<String, String>) -> Result<Self, String> {
        for (user, hash) in &users {
            // The parser's error would show the value, which may be a password.
            hash.parse::<bcrypt::HashParts>().map_err(|_| {
                format!("basic_auth_users: {user} has no bcrypt hash; htpasswd -nBC 10 {user} makes one")
            })?;
        }
        Ok(Self(users))
    }

    /// Whether no password is required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks passwords.
pub(super) struct Checker {
    /// Random key of the HMACs that are remembered instead of passwords: a reader of the memory learns no password and
    /// no plain digest of one.
    key: hmac::Key,
    right: Mutex<VecDeque<[u8; 32]>>,
    running: Arc<Semaphore>,
    /// Hashes of each peer that are computed or wait.
    of_peers: Arc<Mutex<FxHashMap<Peer, usize>>>,
}

/// Whether a request is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Allowed,
    Refused,
    /// Too many passwords of this peer are being checked.
    Busy,
}

/// One hash of a peer, until this is dropped.
struct Check(Arc<Mutex<FxHashMap<Peer, usize>>>, Peer);

impl Drop for Check {
    fn drop(&mut self) {
        let mut of_peers = lock(&self.0);
        match of_peers.get_mut(&self.1) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(of_peers.remove(&self.1)),
        }
    }
}

impl Checker {
    pub fn new() -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| "the system gives no random numbers".to_owned())?;
        Ok(Self {
            key,
            right: Mutex::default(),
            running: Arc::new(Semaphore::new(CONCURRENT)),
            of_peers: Arc::default(),
        })
    }

    /// Whether a request of `peer` with this `Authorization` header is allowed.
    pub async fn admits(&self, users: &Users, authorization: Option<&HeaderValue>, peer: Peer) -> Admission {
        let Some(any_hash) = users.0.values().next() else { return Admission::Allowed };
        let Some((user, password)) = authorization.and_then(credentials) else { return Admission::Refused };
        // An unknown user must take as long as a wrong password: the comparison is made, and its result ignored.
        let known = users.0.get(&user);
        let hash = known.unwrap_or(any_hash).clone();

        let tag = self.tag(&user, &hash, &password);
        if known.is_some() && self.remembered(&tag) {
            return Admission::Allowed;
        }
        let Some(check) = self.check_of(peer) else { return Admission::Busy };
        let Ok(permit) = Arc::clone(&self.running).acquire_owned().await else { return Admission::Refused };
        // Another request with the same password may have been checked meanwhile.
        if known.is_some() && self.remembered(&tag) {
            return Admission::Allowed;
        }
        // The permit moves to the thread: a client that hangs up frees no permit while its hash is still computed.
        let comparison = tokio::task::spawn_blocking(move || {
            let _until_done = (permit, check);
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        let right = comparison.await.unwrap_or(false) && known.is_some();
        if right {
            self.remember(tag);
        }
        if right { Admission::Allowed } else { Admission::Refused }
    }

    fn check_of(&self, peer: Peer) -> Option<Check> {
        let mut of_peers = lock(&self.of_peers);
        let count = of_peers.entry(peer).or_default();
        if *count >= EACH {
            return None;
        }
        *count += 1;
        Some(Check(Arc::clone(&self.of_peers), peer))
    }

    /// The HMAC of user, hash and password. It includes the hash, so that a changed hash invalidates it.
    fn tag(&self, user: &str, hash: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn remembered(&self, tag: &[u8; 32]) -> bool {
        lock(&self.right).contains(tag)
    }

    fn remember(&self, tag: [u8; 32]) {
        let mut right = lock(&self.right);
        if !right.contains(&tag) {
            right.truncate(REMEMBERED - 1);
            right.push_front(tag);
        }
    }
}

/// User and password of a `Basic` authorization header.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some((String::from_utf8(decoded[..colon].to_vec()).ok()?, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Peer = Peer::User(1);

    async fn admits(checker: &Checker, users: &Users, authorization: Option<&HeaderValue>) -> bool {
        checker.admits(users, authorization, PEER).await == Admission::Allowed
    }

    fn basic(credentials: &str) -> HeaderValue {
        HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(credentials))).unwrap()
    }

    fn users(cost: u32) -> Users {
        Users::new(BTreeMap::from([("alice".to_owned(), bcrypt::hash("se:cret", cost).unwrap())])).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_passes() {
        let (checker, users) = (Checker::new().unwrap(), users(4));
        assert!(admits(&checker, &Users::default(), None).await);
        assert!(!admits(&checker, &users, None).await);
        for wrong in ["alice:", "alice:secret", "bob:se:cret", ":se:cret", "alice"] {
            assert!(!admits(&checker, &users, Some(&basic(wrong))).await, "{wrong}");
        }
        assert!(!admits(&checker, &users, Some(&HeaderValue::from_static("Bearer x"))).await);
        assert!(!admits(&checker, &users, Some(&HeaderValue::from_static("Basic !"))).await);
        for _ in 0..2 {
            assert!(admits(&checker, &users, Some(&basic("alice:se:cret"))).await);
        }
        assert_eq!(checker.right.lock().unwrap().len(), 1);
        // A new hash invalidates remembered passwords.
        let changed = Users::new(BTreeMap::from([("alice".to_owned(), bcrypt::hash("other", 4).unwrap())])).unwrap();
        assert!(!admits(&checker, &changed, Some(&basic("alice:se:cret"))).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_user_costs_a_hash_and_a_known_password_none() {
        let (checker, users) = (Checker::new().unwrap(), users(4));
        assert!(admits(&checker, &users, Some(&basic("alice:se:cret"))).await);
        // While no permit is free, a request that needs a hash waits.
        let _all = checker.running.acquire_many(CONCURRENT as u32).await.unwrap();
        assert!(admits(&checker, &users, Some(&basic("alice:se:cret"))).await);
        for other in ["bob:se:cret", "alice:wrong"] {
            let waiting =
                tokio::time::timeout(std::time::Duration::from_secs(1), admits(&checker, &users, Some(&basic(other))))
                    .await;
            assert!(waiting.is_err(), "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_guesses_keeps_no_other_waiting() {
        let (checker, users) = (Checker::new().unwrap(), users(4));
        let all = checker.running.acquire_many(CONCURRENT as u32).await.unwrap();
        let wrong = basic("alice:wrong");
        let mut guesses: Vec<_> = (0..20).map(|_| Box::pin(checker.admits(&users, Some(&wrong), PEER))).collect();
        let mut refused = 0;
        for guess in &mut guesses {
            let second = std::time::Duration::from_secs(1);
            refused += u32::from(tokio::time::timeout(second, guess).await == Ok(Admission::Busy));
        }
        assert_eq!(refused, 16);
        assert_eq!(lock(&checker.of_peers).get(&PEER), Some(&EACH));
        drop((guesses, all));
        assert!(lock(&checker.of_peers).is_empty());
        let right = basic("alice:se:cret");
        assert_eq!(checker.admits(&users, Some(&right), Peer::User(2)).await, Admission::Allowed);
    }

    #[test]
    fn memory_is_bounded() {
        let checker = Checker::new().unwrap();
        for number in 0..200_u8 {
            checker.remember([number; 32]);
        }
        assert_eq!(checker.right.lock().unwrap().len(), REMEMBERED);
        assert!(checker.remembered(&[199; 32]) && !checker.remembered(&[0; 32]));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let problem = Users::new(BTreeMap::from([("eve".to_owned(), "plain".to_owned())])).err().unwrap();
        assert!(problem.contains("eve") && !problem.contains("plain"), "{problem}");
    }
}
