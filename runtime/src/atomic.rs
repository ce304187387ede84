//! Files that are either as they were or whole and new, never in between.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

/// What a temporary file's name ends in before its random letters.
const SUFFIX: &str = ".nasbn-";
/// How many random letters and digits follow.
const RANDOM: usize = 6;
/// Times that a temporary file is made anew if another process took it for one that was left.
const ATTEMPTS: usize = 16;

/// Writes `contents` to a temporary file beside `path`, syncs it and renames it over `path`. The file is locked as long as
/// it is temporary; those that killed processes have left in the same directory, which nobody holds locked, are removed.
///
/// A symbolic link is followed, an existing file keeps its permissions. A device or a pipe (`/dev/null`,
/// `/dev/stdout`) cannot be replaced: it is written to.
///
/// # Errors
/// Any of the steps; the file at `path` is then as it was, and the temporary file is gone.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    Staged::new(path, contents)?.commit()
}

/// Writes several files, each as [`write()`] does: none is replaced before all of them are on the disk.
///
/// # Errors
/// The path and what went wrong. All files are then as they were, unless one could not be renamed, or be written to
/// as it is a device: those before it are new then.
pub fn write_all(files: &[(&Path, &[u8])]) -> Result<(), (PathBuf, io::Error)> {
    let named = |path: &Path, error| (path.to_owned(), error);
    let stage = |&(path, contents)| Ok((path, Staged::new(path, contents).map_err(|error| named(path, error))?));
    let staged = files.iter().map(stage).collect::<Result<Vec<_>, _>>()?;
    staged.into_iter().try_for_each(|(path, staged)| staged.commit().map_err(|error| named(path, error)))
}

/// Whether [`write()`] could write to `path` as things are now; changes nothing.
///
/// # Errors
/// If `path` is a directory, or its directory is missing or takes no new files.
pub fn check(path: &Path) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&target) {
        Ok(present) if present.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(present) if is_stream(present.file_type()) => return Ok(()),
        _ => {}
    }
    tempfile::Builder::new().prefix(&prefix(&target)).tempfile_in(directory_of(&target)).map(drop).map_err(unnamed)
}

/// A file that is on the disk under another name, and is to take its place.
pub struct Staged<'a>(Place<'a>);

enum Place<'a> {
    File { temporary: NamedTempFile, target: PathBuf },
    Stream { target: PathBuf, contents: &'a [u8] },
}

impl<'a> Staged<'a> {
    /// As [`write()`], up to the rename: the contents are on the disk, and what is at `path` is as it was until
    /// [`Staged::commit`]. Without that nothing is left of them.
    ///
    /// # Errors
    /// Any of the steps.
    pub fn new(path: &Path, contents: &'a [u8]) -> io::Result<Self> {
        // A link that leads nowhere yet is replaced like a file.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let present = fs::metadata(&target).ok();
        if present.as_ref().is_some_and(|m| is_stream(m.file_type())) {
            return Ok(Self(Place::Stream { target, contents }));
        }
        // As readable as the old file, or as any new one within the user's umask.
        let mode = present.map_or_else(|| Permissions::from_mode(0o666), |m| m.permissions());
        let directory = directory_of(&target);
        remove_abandoned(directory);
        let temporary = held(directory, &prefix(&target), &mode).map_err(unnamed)?;
        temporary.as_file().write_all(contents)?;
        if target.exists() {
            temporary.as_file().set_permissions(mode)?;
        }
        temporary.as_file().sync_all()?;
        Ok(Self(Place::File { temporary, target }))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// If it cannot be renamed, or, a device, written to.
    pub fn commit(self) -> io::Result<()> {
        let (temporary, target) = match self.0 {
            Place::File { temporary, target } => (temporary, target),
            Place::Stream { target, contents } => {
                return OpenOptions::new().write(true).open(target)?.write_all(contents);
            }
        };
        temporary.persist(&target).map_err(|e| e.error)?;
        // The rename itself is durable once the directory is; some file systems cannot sync one.
        if let Ok(directory) = File::open(directory_of(&target)) {
            let _ = directory.sync_all();
        }
        Ok(())
    }
}

/// A new temporary file that is locked. Where files cannot be locked, it is not, and none is ever taken for abandoned.
fn held(directory: &Path, prefix: &str, mode: &Permissions) -> io::Result<NamedTempFile> {
    for _ in 0..ATTEMPTS {
        let temporary = tempfile::Builder::new()
            .prefix(prefix)
            .rand_bytes(RANDOM)
            .permissions(mode.clone())
            .tempfile_in(directory)?;
        let locked = temporary.as_file().try_lock();
        // Before it was locked, somebody else may have looked at it and removed it.
        let taken = matches!(locked, Err(fs::TryLockError::WouldBlock)) || temporary.as_file().metadata()?.nlink() == 0;
        if !taken {
            return Ok(temporary);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "temporary files are removed while they are written"))
}

/// Age of a temporary file before it is taken for abandoned. Locks do not always reach from one machine to another on a file system that
/// they share; a file is being written for seconds.
const ABANDONED: Duration = Duration::from_hours(1);

/// Removes the temporary files in `directory` that no process holds, and that were last written an hour ago: those of processes that
/// were killed. What cannot be opened or locked is left, and so is everything whose name or kind is not that of a temporary file of [`write()`].
fn remove_abandoned(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !is_temporary(&entry.file_name().to_string_lossy()) || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        // Whatever takes that name in the meantime is neither followed nor waited for.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(&path) else { continue };
        let old = |m: &fs::Metadata| m.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED));
        if !file.metadata().is_ok_and(|m| m.is_file() && old(&m)) || file.try_lock().is_err() {
            continue;
        }
        // Its holder may have renamed it in the meantime: then the name is nobody's, or another file's.
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        if file.metadata().ok().zip(fs::symlink_metadata(&path).ok()).is_some_and(|(a, b)| same(a, b)) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether a file's name is one that [`held`] gives: `.NAME.nasbn-` and the random letters.
fn is_temporary(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|rest| rest.rsplit_once(SUFFIX));
    parts.is_some_and(|(name, random)| {
        !name.is_empty() && random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// The error without the name of the temporary file, which `tempfile` adds and which nobody has asked for.
fn unnamed(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((what, _)) => io::Error::new(error.kind(), what.to_owned()),
        None => error,
    }
}

/// Removes what killed processes left of files named `name`... in `directory`. Only for one who holds the
/// directory for itself. What cannot be removed only takes room.
pub fn remove_leftovers(directory: &Path, names: &[&str]) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        if names.iter().any(|name| found.starts_with(&format!(".{name}"))) && found.contains(SUFFIX) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_stream(kind: fs::FileType) -> bool {
    kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `.scores.csv.nasbn-`, short enough for any file system.
fn prefix(path: &Path) -> String {
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    let name: String = name.to_string_lossy().chars().take(40).collect();
    format!(".{name}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn devices_are_written_to_and_links_followed() {
        write(Path::new("/dev/null"), b"gone").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn of_several_files_none_is_replaced_unless_all_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("a"), "old").unwrap();
        let nowhere = file("none/b");
        let (at, error) = write_all(&[(&file("a"), b"new"), (&nowhere, b"new")]).unwrap_err();
        assert_eq!((at, error.kind()), (nowhere, io::ErrorKind::NotFound));
        assert_eq!(fs::read(file("a")).unwrap(), b"old");
        write_all(&[(&file("a"), b"new"), (&file("b"), b"too")]).unwrap();
        assert_eq!((fs::read(file("a")).unwrap(), fs::read(file("b")).unwrap()), (b"new".into(), b"too".into()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "a temporary file is left");
    }

    #[test]
    fn whether_a_file_can_be_written_is_known_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        check(&file).unwrap();
        assert!(!file.exists());
        fs::write(&file, "old").unwrap();
        check(&file).unwrap();
        check(Path::new("/dev/null")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"old");
        let kind = |path: &Path| check(path).unwrap_err().kind();
        assert_eq!(kind(dir.path()), io::ErrorKind::IsADirectory);
        assert_eq!(kind(&dir.path().join("none/file")), io::ErrorKind::NotFound);
        assert_eq!(kind(&file.join("below")), io::ErrorKind::NotADirectory);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_do_not_name_the_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(&dir.path().join("none/scores.csv"), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("No such file") && !error.to_string().contains(".nasbn-"), "{error}");
    }

    #[test]
    fn only_named_leftovers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".state.nasbn-a1", ".other.nasbn-a1", "state", ".state"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        remove_leftovers(dir.path(), &["state"]);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".other.nasbn-a1", ".state", "state"]);
        write(&dir.path().join("x".repeat(250)), b"long").unwrap();
    }

    #[test]
    fn what_killed_processes_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let abandoned = [".scores.csv.nasbn-aB3dEf", ".other.json.nasbn-000000"];
        let others = [
            ".nasbn-aB3dEf",
            "..nasbn-aB3dE",
            ".scores.csv.nasbn-aB3dE",
            ".scores.csv.nasbn-aB3dEfg",
            ".scores.csv.nasbn-aB3d.f",
            "scores.csv.nasbn-aB3dEf",
            ".scores.csv",
        ];
        let write_old = |name: &str| {
            let path = file(name);
            fs::write(&path, "left").unwrap();
            let two_hours_ago = SystemTime::now() - 2 * ABANDONED;
            File::options().write(true).open(path).unwrap().set_modified(two_hours_ago).unwrap();
        };
        abandoned.iter().chain(&others).for_each(|name| write_old(name));
        // Another machine may be writing it, whose lock is not seen here.
        fs::write(file(".young.nasbn-aB3dEf"), "young").unwrap();
        fs::create_dir(file(".a.nasbn-folder")).unwrap();
        std::os::unix::fs::symlink(file(".scores.csv"), file(".a.nasbn-linked")).unwrap();
        // Somebody is writing this one.
        write_old(".winner.onnx.nasbn-living");
        let living = File::open(file(".winner.onnx.nasbn-living")).unwrap();
        living.try_lock().unwrap();
        let staged = Staged::new(&file("mine"), b"new").unwrap();
        write(&file("result.json"), b"{}").unwrap();
        assert!(abandoned.iter().all(|name| !file(name).exists()));
        assert!(others.iter().all(|name| file(name).exists()));
        for name in [".a.nasbn-folder", ".a.nasbn-linked", ".winner.onnx.nasbn-living", ".young.nasbn-aB3dEf"] {
            assert!(fs::symlink_metadata(file(name)).is_ok(), "{name}");
        }
        staged.commit().unwrap();
        assert_eq!(fs::read(file("mine")).unwrap(), b"new");
        drop(living);
        write(&file("result.json"), b"{}").unwrap();
        assert!(!file(".winner.onnx.nasbn-living").exists());
    }

    #[test]
    fn writers_of_one_directory_do_not_take_each_others_files() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let file = dir.path().join(format!("file{writer}"));
                scope.spawn(move || (0..50).for_each(|i| write(&file, format!("{i}").as_bytes()).unwrap()));
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }
}
