//! Users and groups by name, as the system's name service (NSS) knows them. May be slow: names may come from a server.

use nix::unistd::{Group, User};

/// The id of a user, given as a name or a number. `None`: there is no such user, or the name service does not answer.
pub fn uid_of(user: &str) -> Option<u32> {
    user.parse().ok().or_else(|| Some(User::from_name(user).ok()??.uid.as_raw()))
}

/// The name of a user. `None`: there is no user with this number, or the name service does not answer.
pub fn name_of(uid: u32) -> Option<String> {
    Some(User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??.name)
}

/// The id of a group, given as a name or a number. `None`: there is no such group, or the name service does not answer.
pub fn gid_of(group: &str) -> Option<u32> {
    group.parse().ok().or_else(|| Some(Group::from_name(group).ok()??.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_by_name_and_number() {
        assert_eq!(
            (uid_of("root"), uid_of("4711"), uid_of("no such user"), uid_of("a\0b")),
            (Some(0), Some(4711), None, None)
        );
        assert_eq!((name_of(0).as_deref(), name_of(4_294_967_000)), (Some("root"), None));
        assert_eq!(
            (gid_of("root"), gid_of("4711"), gid_of("no such group"), gid_of("")),
            (Some(0), Some(4711), None, None)
        );
    }
}
