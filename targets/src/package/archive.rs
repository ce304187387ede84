//! `.tar` and `.tar.gz` whose bytes depend on the files alone.

use std::{
    fs::File,
    io::{self, Write},
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
/// If one cannot be read, is not what it was said to be, or `out` cannot be written.
pub fn tar<W: Write>(directory: &Path, members: &[Member], top: &str, out: W) -> io::Result<W> {
    let mut builder = tar::Builder::new(out);
    for member in members {
        let file = File::open(directory.join(&member.path))?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(file.metadata()?.len());
        header.set_mode(if member.executable { PROGRAM_MODE } else { FILE_MODE });
        header.set_mtime(TIME);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, format!("{top}/{}", member.path), file)?;
    }
    builder.into_inner()
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
