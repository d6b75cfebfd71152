//! Reads small text files of sysfs and procfs, with a size limit. Errors name the file. Each read opens the file, so
//! this is not for files that are read at every tick.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest content of a sysfs attribute, in bytes: one page.
pub(super) const PAGE: usize = 4096;

/// The whole file as text, without surrounding white space; bytes that are not UTF-8 are replaced.
///
/// # Errors
/// One line that names the file: not there, not readable, longer than `limit` bytes.
pub(super) fn read_text(path: &Path, limit: usize) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    if bytes.len() > limit {
        return Err(format!("{}: longer than {limit} bytes", path.display()));
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The number that a file holds; `None`: no file, no permission, or no number.
pub(super) fn read_number(path: &Path) -> Option<u64> {
    parse_number(read_text(path, PAGE).ok()?.as_bytes())
}

/// The decimal number in `text`, which may have white space around it and nothing else.
pub(super) fn parse_number(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_and_nothing_else() {
        assert_eq!(parse_number(b" 18446744073709551615\n"), Some(u64::MAX));
        for bad in [&b""[..], b"\n", b"18446744073709551616", b"-1", b"+1", b"1 2", b"0x10", b"1\0", b"\xff"] {
            assert_eq!(parse_number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("name");
        assert!(read_text(&path, 10).unwrap_err().contains("name: No such file"));
        std::fs::write(&path, b"0123456789\xff").unwrap();
        assert!(read_text(&path, 10).unwrap_err().ends_with("longer than 10 bytes"));
        assert_eq!(read_text(&path, 11).unwrap(), "0123456789\u{fffd}");
        assert!(read_text(dir.path(), 10).unwrap_err().contains("Is a directory"));
    }

    proptest! {
        #[test]
        fn any_number_comes_back(value: u64) {
            prop_assert_eq!(parse_number(format!("{value:<20}\n").as_bytes()), Some(value));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = parse_number(&bytes);
        }
    }
}
