//! After a log-in that the BMC refused: when the next one may be tried, as BMCs lock users. Not the log-in itself.

use super::lan::Password;
use crate::sys::backoff::Backoff;
use std::time::{Duration, Instant};

/// Before the second try; twice as long before each further one.
const FIRST: Duration = Duration::from_secs(60);
/// At most.
const LONGEST: Duration = Duration::from_secs(1800);

/// What was refused, if anything.
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
    /// Why `password` is not tried now. Another one than was refused may be.
    pub fn stands(&self, password: &Password, now: Instant) -> Option<&str> {
        let refused = self.0.as_ref()?;
        (refused.password == *password && now < refused.until).then_some(&refused.why)
    }

    /// The BMC refused `password`; what to say of it.
    pub fn refused(&mut self, password: Password, why: &str, now: Instant) -> String {
        let before = self.0.as_ref().filter(|refused| refused.password == password).map(|refused| refused.backoff);
        let mut backoff = before.unwrap_or_else(|| Backoff::new(FIRST, LONGEST));
        let why = format!("{why}; tried again ever more rarely, as BMCs lock users, and at once with another password");
        self.0 = Some(Refused { password, why: why.clone(), until: now + backoff.pause(), backoff });
        why
    }

    /// It let jouled in.
    pub fn let_in(&mut self) {
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
        assert_eq!(lockout.stands(&wrong(), now), None);
        for minutes in [1, 2, 4, 8, 16, 30, 30] {
            let why = lockout.refused(wrong(), "bmc: wrong password", now);
            assert!(why.starts_with("bmc: wrong password; tried again ever more rarely"), "{why}");
            assert_eq!(lockout.stands(&right, now), None);
            now += Duration::from_secs(minutes * 60 - 1);
            assert_eq!(lockout.stands(&wrong(), now), Some(why.as_str()), "{minutes}");
            now += Duration::from_secs(1);
            assert_eq!(lockout.stands(&wrong(), now), None, "{minutes}");
        }
        lockout.refused(right, "bmc: wrong password", now);
        assert_eq!(lockout.stands(&Password::of("right"), now + FIRST), None, "a new password is counted anew");
        lockout.let_in();
        assert_eq!(lockout.stands(&wrong(), now), None);
        lockout.refused(wrong(), "no", now);
        assert!(!format!("{lockout:?}").contains("wrong"), "{lockout:?}");
    }
}
