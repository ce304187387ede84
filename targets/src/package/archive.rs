//! `.tar` and `.tar.gz` whose bytes depend on the files alone.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use flate2::{Compression, GzBuilder};

/// Time of every file in an archive, seconds since 1970: the first of 1980, before which `tar` warns of implausible times.
pub const TIME: u64 = 315_532_800;
/// Mode of a file.
pub const FILE_MODE: u32 = 0o644;
/// Mode of a program.
pub const PROGRAM_MODE: u32 = 0o755;

/// A file of an archive: its path in the package, and whether it is a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// With `/`.
    pub path: String,
    /// Whether it is a program.
    pub executable: bool,
}

/// Writes the files of `directory` as a tar archive in which they are below `top`, in the order given.
///
/// # Errors
/// If one cannot be read or has another length at its end than at its beginning, or `out` cannot be written.
pub fn tar<W: Write>(directory: &Path, members: &[Member], top: &str, out: W) -> io::Result<W> {
    let mut builder = tar::Builder::new(out);
    for member in members {
        let file = File::open(directory.join(&member.path))?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        let length = file.metadata()?.len();
        header.set_size(length);
        header.set_mode(if member.executable { PROGRAM_MODE } else { FILE_MODE });
        header.set_mtime(TIME);
        header.set_uid(0);
        header.set_gid(0);
        let mut counted = Counted { inner: file, bytes: 0 };
        builder.append_data(&mut header, format!("{top}/{}", member.path), &mut counted)?;
        if counted.bytes != length {
            let what = format!("{} had {length} bytes, and then {}", member.path, counted.bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    }
    builder.into_inner()
}

/// A reader that counts.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// The same, compressed; without the time, name and system that gzip's header has room for.
///
/// # Errors
/// As [`tar`].
pub fn tar_gz<W: Write>(directory: &Path, members: &[Member], top: &str, out: W) -> io::Result<W> {
    /// "Unknown" in the field for the operating system.
    const NO_SYSTEM: u8 = 255;
    let gz = GzBuilder::new().mtime(0).operating_system(NO_SYSTEM).write(out, Compression::default());
    tar(directory, members, top, gz)?.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_has_another_length_than_it_says_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("still"), "four").unwrap();
        // Says that it has no bytes, and has some.
        std::os::unix::fs::symlink("/proc/self/status", dir.path().join("moving")).unwrap();
        let of = |name: &str| {
            let member = Member { path: name.into(), executable: false };
            tar(dir.path(), &[member], "top", Vec::new())
        };
        assert!(of("still").unwrap().windows(4).any(|bytes| bytes == b"four"));
        let error = of("moving").unwrap_err();
        assert!(error.to_string().starts_with("moving had 0 bytes, and then "), "{error}");
    }
}
