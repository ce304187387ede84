//! Writing a package: beside its place, whole, and then renamed.

use std::{
    fs::{self, File, FileTimes, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    PackageError, Part, SUMS,
    archive::{self, FILE_MODE, Member, PROGRAM_MODE, TIME},
    parts::Contents,
    replace,
    work::{self, Work, unnamed},
};

/// Where a package goes.
#[derive(Debug)]
pub struct Outputs {
    directory: PathBuf,
    archive: PathBuf,
    parent: PathBuf,
    /// Whether a package that is there is replaced.
    force: bool,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The archive.
    pub archive: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// Its size.
    pub archive_bytes: u64,
    /// Number of files.
    pub files: usize,
    /// Their size together.
    pub bytes: u64,
}

impl Outputs {
    /// `out` and `out.tar.gz`, if they are free, or hold a package that is to be replaced.
    ///
    /// # Errors
    /// If they are neither, or hold anything that is not the package's, or `out` names no directory or one in `bundle`.
    pub fn new(out: &Path, bundle: &Path, force: bool) -> Result<Self, PackageError> {
        let refused = |reason| PackageError::Place { path: out.to_owned(), reason };
        let name = out.file_name().ok_or_else(|| refused("it does not end in a name"))?;
        let mut archive_name = name.to_owned();
        archive_name.push(".tar.gz");
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let within = |whole: &Path| fs::canonicalize(whole).ok();
        if let (Some(place), Some(bundle)) = (within(&parent), within(bundle))
            && place.starts_with(bundle)
        {
            return Err(refused("it is in the bundle"));
        }
        let outputs = Self { directory: out.to_owned(), archive: out.with_file_name(archive_name), parent, force };
        work::remove_abandoned(&outputs.directory, &outputs.parent);
        outputs.check()?;
        Ok(outputs)
    }

    /// Checks that the places are free, or hold what may be replaced.
    fn check(&self) -> Result<(), PackageError> {
        if self.force {
            replace::directory(&self.directory)?;
            return replace::archive(&self.archive);
        }
        match [&self.directory, &self.archive].into_iter().find(|path| fs::symlink_metadata(path).is_ok()) {
            Some(path) => Err(PackageError::Exists { path: path.clone() }),
            None => Ok(()),
        }
    }

    /// Writes the package, whose files are below `top` in the archive.
    ///
    /// # Errors
    /// Any of the steps; what was there before is then as it was.
    pub fn write(&self, mut parts: Vec<Part>, top: &str) -> Result<Written, PackageError> {
        parts.sort_by(|a, b| a.path.cmp(&b.path));
        let work = Work::new(&self.directory, &self.parent)
            .map_err(|source| PackageError::Io { path: self.parent.clone(), source })?;
        let new = work.path().join("new");
        let (mut sums, mut members, mut bytes) = (String::new(), Vec::new(), 0);
        for part in &parts {
            let (digest, size) = self.put(&new, part)?;
            sums += &format!("{digest}  {}\n", part.path);
            bytes += size;
            members.push(Member { path: part.path.clone(), executable: part.executable });
        }
        bytes += self.put(&new, &Part::text(SUMS, sums))?.1;
        members.push(Member { path: SUMS.to_owned(), executable: false });
        members.sort();
        let packed = work.path().join("packed");
        let (sha256, archive_bytes) = self.pack(&new, &members, top, &packed)?;
        self.commit(work, &new, &packed)?;
        Ok(Written { archive: self.archive.clone(), sha256, archive_bytes, files: members.len(), bytes })
    }

    /// An error of the files that are made, told of the place that they are for.
    fn error(&self, source: io::Error) -> PackageError {
        PackageError::Io { path: self.directory.clone(), source: unnamed(source) }
    }

    /// Writes a file; its SHA-256 and size.
    fn put(&self, new: &Path, part: &Part) -> Result<(String, u64), PackageError> {
        let path = new.join(&part.path);
        let directory = path.parent().unwrap_or(new);
        fs::create_dir_all(directory).map_err(|e| self.error(e))?;
        // As all of it: the same whatever the user's umask is.
        for directory in directory.ancestors().take_while(|directory| directory.starts_with(new)) {
            fs::set_permissions(directory, Permissions::from_mode(PROGRAM_MODE)).map_err(|e| self.error(e))?;
        }
        let mut file = File::create(&path).map_err(|e| self.error(e))?;
        let measured = match &part.contents {
            Contents::Text(text) => copy(&mut text.as_bytes(), &mut file).map_err(Fault::of_both),
            Contents::File(from) => {
                File::open(from).map_err(Fault::Reading).and_then(|mut from| copy(&mut from, &mut file))
            }
        };
        let measured = measured.map_err(|fault| match (fault, &part.contents) {
            (Fault::Reading(source), Contents::File(from)) => PackageError::Io { path: from.clone(), source },
            (Fault::Reading(source) | Fault::Writing(source), _) => self.error(source),
        })?;
        let mode = if part.executable { PROGRAM_MODE } else { FILE_MODE };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(TIME);
        file.set_permissions(Permissions::from_mode(mode))
            .and_then(|()| file.set_times(FileTimes::new().set_modified(time)))
            .and_then(|()| file.sync_all())
            .map_err(|e| self.error(e))?;
        Ok(measured)
    }

    fn pack(&self, new: &Path, members: &[Member], top: &str, packed: &Path) -> Result<(String, u64), PackageError> {
        let file = File::create(packed).map_err(|e| self.error(e))?;
        let out = Hashing { inner: io::BufWriter::new(file), hash: Sha256::new(), bytes: 0 };
        let out = archive::tar_gz(new, members, top, out).map_err(|e| self.error(e))?;
        let (digest, bytes) = (hexadecimal(&out.hash.finalize()), out.bytes);
        let file = out.inner.into_inner().map_err(|e| self.error(e.into_error()))?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))
            .and_then(|()| file.sync_all())
            .map_err(|e| self.error(e))?;
        Ok((digest, bytes))
    }

    /// Puts the new package in its place; the old one, if there is one, goes with the directory of work.
    fn commit(&self, work: Work, new: &Path, packed: &Path) -> Result<(), PackageError> {
        // Much may have come to the place while the package was made.
        self.check()?;
        let old = work.old();
        let replaced = fs::symlink_metadata(&self.directory).is_ok();
        if replaced {
            fs::rename(&self.directory, &old).map_err(|e| self.error(e))?;
        }
        let done = fs::rename(new, &self.directory).map_err(|e| self.error(e)).and_then(|()| {
            // Until the archive is in place, too, the old directory can be put back.
            self.put_archive(packed).inspect_err(|_| {
                let _ = fs::rename(&self.directory, new);
            })
        });
        if let Err(error) = done {
            if replaced && fs::rename(&old, &self.directory).is_err() {
                work.keep();
            }
            return Err(error);
        }
        if let Ok(parent) = File::open(&self.parent) {
            let _ = parent.sync_all();
        }
        Ok(())
    }

    /// Puts the archive in its place, which is free unless it may be replaced.
    fn put_archive(&self, packed: &Path) -> Result<(), PackageError> {
        if !self.force {
            // Unlike a rename, a link replaces nothing; some file systems have none.
            match fs::hard_link(packed, &self.archive) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(PackageError::Exists { path: self.archive.clone() });
                }
                Err(_) => {}
            }
        }
        fs::rename(packed, &self.archive).map_err(|e| self.error(e))
    }
}

/// What went wrong in copying.
enum Fault {
    Reading(io::Error),
    Writing(io::Error),
}

impl Fault {
    /// Reading a text cannot fail.
    fn of_both(self) -> Self {
        match self {
            Self::Reading(e) | Self::Writing(e) => Self::Writing(e),
        }
    }
}

/// Copies; SHA-256 and size of what was copied.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(String, u64), Fault> {
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((hexadecimal(&hash.finalize()), bytes)),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Fault::Reading(e)),
        };
        hash.update(&buffer[..count]);
        bytes += count as u64;
        to.write_all(&buffer[..count]).map_err(Fault::Writing)?;
    }
}

/// SHA-256 and size of a file.
///
/// # Errors
/// If it cannot be read.
pub fn measure(path: &Path) -> io::Result<(String, u64)> {
    copy(&mut File::open(path)?, &mut io::sink()).map_err(|fault| match fault {
        Fault::Reading(e) | Fault::Writing(e) => e,
    })
}

/// A writer that keeps the SHA-256 of what goes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as JSON that people can read, with a line's end.
pub fn json(value: &impl Serialize) -> String {
    // Texts and numbers in a struct: there is nothing that cannot be written.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
