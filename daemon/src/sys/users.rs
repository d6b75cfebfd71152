//! Users and groups by name, as the system's libraries know them. May be slow: names may come from a server.

use std::ffi::CString;
use std::mem::MaybeUninit;

/// Room for the texts of an entry: a group's members, say.
const BUFFER: usize = 256 << 10;

/// The id of a user, given as a name or a number.
pub fn uid_of(user: &str) -> Option<u32> {
    if let Ok(uid) = user.parse() {
        return Some(uid);
    }
    let name = CString::new(user).ok()?;
    let mut entry = MaybeUninit::<libc::passwd>::zeroed();
    let mut found = std::ptr::null_mut();
    let mut buffer = vec![0; BUFFER];
    // SAFETY: all pointers are to places that outlive the call, and the buffer's length is its own.
    let code =
        unsafe { libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found) };
    if code != 0 || found.is_null() {
        return None;
    }
    // SAFETY: getpwnam_r filled `entry`, as `found` is not null.
    Some(unsafe { entry.assume_init() }.pw_uid)
}

/// The id of a group, given as a name or a number.
pub fn gid_of(group: &str) -> Option<u32> {
    if let Ok(gid) = group.parse() {
        return Some(gid);
    }
    let name = CString::new(group).ok()?;
    let mut entry = MaybeUninit::<libc::group>::zeroed();
    let mut found = std::ptr::null_mut();
    let mut buffer = vec![0; BUFFER];
    // SAFETY: all pointers are to places that outlive the call, and the buffer's length is its own.
    let code =
        unsafe { libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found) };
    if code != 0 || found.is_null() {
        return None;
    }
    // SAFETY: getgrnam_r filled `entry`, as `found` is not null.
    Some(unsafe { entry.assume_init() }.gr_gid)
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
        assert_eq!(
            (gid_of("root"), gid_of("4711"), gid_of("no such group"), gid_of("")),
            (Some(0), Some(4711), None, None)
        );
    }
}
