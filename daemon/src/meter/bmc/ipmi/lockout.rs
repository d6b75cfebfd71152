//! After a refused login: when the next one may be tried, as BMCs lock users after several refusals. The login is in
//! `lan`.

use super::lan::Password;
use crate::sys::backoff::Backoff;
use std::time::{Duration, Instant};

/// Pause after the first refused login; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(60);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(1800);

/// The refused login, if any.
#[derive(Debug, Default)]
pub struct Lockout(Option<Refused>);

#[derive(Debug)]
struct Refused {
    password: Password,
    why: String,
    backoff: Backoff,
    until: Instant,
}

impl Lockout {
    /// Why `password` must not be tried now. A password other than the refused one may be.
    pub fn forbids(&self, password: &Password, now: Instant) -> Option<&str> {
        let refused = self.0.as_ref()?;
        (refused.password == *password && now < refused.until).then_some(&refused.why)
    }

    /// Notes that the BMC refused `password`. Returns the message for the operator.
    pub fn login_refused(&mut self, password: Password, why: &str, now: Instant) -> String {
        let before = self.0.as_ref().filter(|refused| refused.password == password).map(|refused| refused.backoff);
        let mut backoff = before.unwrap_or_else(|| Backoff::new(FIRST, LONGEST));
        let why = format!("{why}; tried again ever more rarely, as BMCs lock users, and at once with another password");
        self.0 = Some(Refused { password, why: why.clone(), until: now + backoff.pause(), backoff });
        why
    }

    /// Notes that a login succeeded.
    pub fn login_succeeded(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_password_is_tried_ever_more_rarely_and_another_one_at_once() {
        let (mut lockout, mut now) = (Lockout::default(), Instant::now());
        let (wrong, right) = (|| Password::of("wrong"), Password::of("right"));
        assert_eq!(lockout.forbids(&wrong(), now), None);
        for minutes in [1, 2, 4, 8, 16, 30, 30] {
            let why = lockout.login_refused(wrong(), "bmc: wrong password", now);
            assert!(why.starts_with("bmc: wrong password; tried again ever more rarely"), "{why}");
            assert_eq!(lockout.forbids(&right, now), None);
            now += Duration::from_secs(minutes * 60 - 1);
            assert_eq!(lockout.forbids(&wrong(), now), Some(why.as_str()), "{minutes}");
            now += Duration::from_secs(1);
            assert_eq!(lockout.forbids(&wrong(), now), None, "{minutes}");
        }
        lockout.login_refused(right, "bmc: wrong password", now);
        assert_eq!(
            lockout.forbids(&Password::of("right"), now + FIRST),
            None,
            "a new password begins with the shortest pause"
        );
        lockout.login_succeeded();
        assert_eq!(lockout.forbids(&wrong(), now), None);
        lockout.login_refused(wrong(), "no", now);
        assert!(!format!("{lockout:?}").contains("wrong"), "{lockout:?}");
    }
}
