//! Directories in which packages are made, beside their places.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// What the name of a directory ends in, before its random letters, while a package is made in it.
const WORK: &str = ".nasbn-";
/// How many random letters and digits follow.
const RANDOM: usize = 6;
/// File in it that is locked as long as its process lives.
const LOCK: &str = "lock";
/// Where the old package is there while the new one takes its place.
const OLD: &str = "old";
/// Times that a directory is made anew if another process took it for one that was left.
const ATTEMPTS: usize = 16;

/// A directory of work, which goes when this is dropped. Its process holds a file in it locked.
#[derive(Debug)]
pub struct Work {
    directory: TempDir,
    _lock: File,
}

impl Work {
    /// One beside `place`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(place: &Path, parent: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let directory = tempfile::Builder::new()
                .prefix(&prefix(place))
                .rand_bytes(RANDOM)
                .tempdir_in(parent)
                .map_err(unnamed)?;
            let lock = File::create(directory.path().join(LOCK)).map_err(unnamed)?;
            let locked = lock.try_lock();
            // Before it was locked, somebody else may have looked at it and removed it.
            let taken = matches!(locked, Err(fs::TryLockError::WouldBlock)) || lock.metadata()?.nlink() == 0;
            if !taken {
                return Ok(Self { directory, _lock: lock });
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "directories are removed while packages are made in them"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the old package goes meanwhile.
    pub fn old(&self) -> PathBuf {
        self.path().join(OLD)
    }

    /// Leaves it where it is: it holds what could not be put back. [`remove_abandoned`] tries that again.
    pub fn keep(mut self) {
        self.directory.disable_cleanup(true);
    }
}

/// Removes what killed processes left, which nobody holds locked, but for an old package that has no other place: that is
/// put back. What cannot be opened or locked is left, and so is what has no file to be locked.
pub fn remove_abandoned(place: &Path, parent: &Path) {
    let prefix = prefix(place);
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let random = name.strip_prefix(&prefix).unwrap_or_default();
        let is_work = random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_work || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        let old = entry.path().join(OLD);
        let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
        if is_there(&old) && !is_there(place) {
            let _ = fs::rename(&old, place);
        }
        // An old package that was replaced is of no use; one that could not be put back is kept.
        if is_there(place) || !is_there(&old) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// What the names of directories of work begin with; random letters come next.
fn prefix(place: &Path) -> String {
    format!(".{}{WORK}", place.file_name().unwrap_or_default().to_string_lossy())
}

/// The error without the name of the temporary directory, which `tempfile` adds and which nobody has asked for.
pub fn unnamed(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((what, _)) => io::Error::new(error.kind(), what.to_owned()),
        None => error,
    }
}
