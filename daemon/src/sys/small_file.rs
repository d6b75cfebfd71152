//! Reads files that an operator names: configurations, certificates, passwords. Never waits for one and never reads
//! without end, so a FIFO, a device or a file of gigabytes is refused.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The bytes of the file at `path`.
///
/// # Errors
/// Where it cannot be read, is no regular file, or has more than `most` bytes.
pub fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    read_with(path, most, OFlags::empty())
}

/// The same of a file that is no symbolic link: for folders from which whatever lies there is read.
///
/// # Errors
/// As [`read`], and where it is a symbolic link.
pub fn read_no_link(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    read_with(path, most, OFlags::NOFOLLOW).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => {
            let why = "it is a symbolic link, which is not followed here: put the file itself there";
            io::Error::new(io::ErrorKind::InvalidInput, why)
        }
        _ => error,
    })
}

fn read_with(path: &Path, most: usize, more: OFlags) -> io::Result<Vec<u8>> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    // Opening a FIFO would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(wrong("it is no regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(wrong(format!("it has more than {most} bytes: is this the right file?")));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As [`read`], and where it is not UTF-8.
pub fn read_text(path: &Path, most: usize) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
    String::from_utf8(read(path, most)?).map_err(not_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert!(read(&path, 4).unwrap_err().to_string().contains("more than 4 bytes"));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path, 5).unwrap_err().to_string().contains("UTF-8"));
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.is_ok_and(|made| made.success()));
        for other in [&fifo, Path::new("/dev/zero"), dir.path()] {
            assert!(read(other, 5).unwrap_err().to_string().contains("regular"), "{}", other.display());
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 5).unwrap(), b"\xff");
        assert!(read_no_link(&link, 5).unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(read_no_link(&path, 5).unwrap(), b"\xff");
        assert_eq!(read(&dir.path().join("none"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
