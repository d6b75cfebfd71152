//! Passwords: HTTP Basic authentication against bcrypt hashes. bcrypt is slow on purpose, so it runs on blocking
//! threads, and a correct password is remembered.

use crate::sys::mutex::lock;
use axum::http::HeaderValue;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// Most hashes that are computed at a time; further requests wait.
const CONCURRENT: usize = 2;
/// Most correct passwords that are remembered.
const REMEMBERED: usize = 64;

/// User → bcrypt hash.
#[derive(Clone, Default)]
pub(super) struct Users(BTreeMap<String, String>);

impl Users {
    /// Rejects values that are no bcrypt hash.
    pub fn new(users: BTreeMap<String, String>) -> Result<Self, String> {
        for (user, hash) in &users {
            hash.parse::<bcrypt::HashParts>().map_err(|error| {
                format!("basic_auth_users: {user} has no bcrypt hash ({error}); htpasswd -nBC 10 {user} makes one")
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
}

impl Checker {
    pub fn new() -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| "the system gives no random numbers".to_owned())?;
        Ok(Self { key, right: Mutex::default(), running: Arc::new(Semaphore::new(CONCURRENT)) })
    }

    /// Whether a request with this `Authorization` header is allowed.
    pub async fn admits(&self, users: &Users, authorization: Option<&HeaderValue>) -> bool {
        let Some(any_hash) = users.0.values().next() else { return true };
        let Some((user, password)) = authorization.and_then(credentials) else { return false };
        // An unknown user must take as long as a wrong password: the comparison is made, and its result ignored.
        let known = users.0.get(&user);
        let hash = known.unwrap_or(any_hash).clone();

        let tag = self.tag(&user, &hash, &password);
        if known.is_some() && self.remembered(&tag) {
            return true;
        }
        let Ok(permit) = Arc::clone(&self.running).acquire_owned().await else { return false };
        // Another request with the same password may have been checked meanwhile.
        if known.is_some() && self.remembered(&tag) {
            return true;
        }
        // The permit moves to the thread: a client that hangs up frees no permit while its hash is still computed.
        let comparison = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        let right = comparison.await.unwrap_or(false) && known.is_some();
        if right {
            self.remember(tag);
        }
        right
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

    fn basic(credentials: &str) -> HeaderValue {
        HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(credentials))).unwrap()
    }

    fn users(cost: u32) -> Users {
        Users::new(BTreeMap::from([("alice".to_owned(), bcrypt::hash("se:cret", cost).unwrap())])).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_passes() {
        let (checker, users) = (Checker::new().unwrap(), users(4));
        assert!(checker.admits(&Users::default(), None).await);
        assert!(!checker.admits(&users, None).await);
        for wrong in ["alice:", "alice:secret", "bob:se:cret", ":se:cret", "alice"] {
            assert!(!checker.admits(&users, Some(&basic(wrong))).await, "{wrong}");
        }
        assert!(!checker.admits(&users, Some(&HeaderValue::from_static("Bearer x"))).await);
        assert!(!checker.admits(&users, Some(&HeaderValue::from_static("Basic !"))).await);
        for _ in 0..2 {
            assert!(checker.admits(&users, Some(&basic("alice:se:cret"))).await);
        }
        assert_eq!(checker.right.lock().unwrap().len(), 1);
        // A new hash invalidates remembered passwords.
        let changed = Users::new(BTreeMap::from([("alice".to_owned(), bcrypt::hash("other", 4).unwrap())])).unwrap();
        assert!(!checker.admits(&changed, Some(&basic("alice:se:cret"))).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_user_costs_a_hash_and_a_known_password_none() {
        let (checker, users) = (Checker::new().unwrap(), users(4));
        assert!(checker.admits(&users, Some(&basic("alice:se:cret"))).await);
        // While no permit is free, a request that needs a hash waits.
        let _all = checker.running.acquire_many(CONCURRENT as u32).await.unwrap();
        assert!(checker.admits(&users, Some(&basic("alice:se:cret"))).await);
        for other in ["bob:se:cret", "alice:wrong"] {
            let waiting =
                tokio::time::timeout(std::time::Duration::from_secs(1), checker.admits(&users, Some(&basic(other))))
                    .await;
            assert!(waiting.is_err(), "{other}");
        }
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
        assert!(problem.contains("eve"), "{problem}");
    }
}
