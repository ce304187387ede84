//! A directory that appears whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

/// A new directory beside its final place; gone again if it is not published.
#[derive(Debug)]
pub struct Staging {
    directory: TempDir,
    target: PathBuf,
    parent: PathBuf,
    /// The directory, locked while it is being filled, so that others know it is not left over.
    lock: File,
}

impl Staging {
    /// A staging directory for `target`. Those that killed programs left for the same target are removed.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new(target: &Path) -> io::Result<Self> {
        let parent = parent_of(target);
        fs::create_dir_all(&parent)?;
        let prefix = hidden(target, PARTIAL)?;
        remove_leftovers(&parent, &prefix);
        // As readable as any new directory, within the user's umask.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).permissions(mode);
        loop {
            let directory = builder.tempdir_in(&parent).map_err(unnamed)?;
            let lock = File::open(directory.path())?;
            // Some file systems have no locks; leftovers then stay.
            let _ = lock.lock();
            // Another program may have taken the new directory for a leftover before it was locked.
            if directory.path().exists() {
                return Ok(Self { directory, target: target.to_owned(), parent, lock });
            }
        }
    }

    /// The directory to fill.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Syncs `files` (relative) and the directory and moves it to its target: in one step onto
    /// nothing or an empty directory, and with `replace` exchanged with what is there, which is then removed.
    ///
    /// # Errors
    /// If a step fails; the target is then as it was and the staging directory is gone.
    pub fn publish(self, files: &[PathBuf], replace: bool) -> io::Result<()> {
        let staged = self.directory.path();
        sync(staged, files)?;
        self.lock.sync_all()?;
        let there = self.target.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if replace && there {
            self.exchange()?;
        } else {
            fs::rename(staged, &self.target)?;
            // It is no longer at its temporary name, so that nothing is left to remove.
            let _ = self.directory.keep();
        }
        drop(self.lock);
        // The rename is durable once the directory is; some file systems cannot sync one.
        if let Ok(parent) = File::open(&self.parent) {
            let _ = parent.sync_all();
        }
        Ok(())
    }

    /// Swaps staged and present directory, in one step where the file system can.
    fn exchange(&self) -> io::Result<()> {
        let staged = self.directory.path();
        match renameat_with(CWD, staged, CWD, &self.target, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => self.exchange_in_steps(),
            Err(error) => Err(error.into()),
        }
    }

    /// The same in three steps. After a kill between the first two, [`restore`] brings back what was there.
    fn exchange_in_steps(&self) -> io::Result<()> {
        let staged = self.directory.path();
        // Locked until it is at its last place.
        let (aside, _lock) = self.set_aside()?;
        if let Err(error) = fs::rename(staged, &self.target) {
            fs::rename(&aside, &self.target)?;
            return Err(error);
        }
        fs::rename(&aside, staged)
    }

    /// Renames what is at the target, locked, so that no other program takes it for what a killed one left.
    fn set_aside(&self) -> io::Result<(PathBuf, File)> {
        let mut name = hidden(&self.target, ASIDE)?;
        name.push(std::process::id().to_string());
        let aside = self.parent.join(name);
        let lock = File::open(&self.target)?;
        let _ = lock.lock();
        fs::rename(&self.target, &aside)?;
        Ok((aside, lock))
    }
}

/// Whether a directory of the bundle is one of the runtime's caches.
pub fn is_cache(directory: &Path) -> bool {
    let name = directory.file_name().map(|name| name.to_string_lossy());
    directory.parent() == Some(Path::new(super::CACHE_DIR)) && name.is_some_and(|name| name.starts_with("tensorrt-"))
}

/// The error without the name of the temporary file, which `tempfile` adds and which nobody has asked for.
fn unnamed(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((what, _)) => io::Error::new(error.kind(), what.to_owned()),
        None => error,
    }
}

/// What marks a directory that is being filled.
const PARTIAL: &str = ".partial-";
/// What marks a directory that is being replaced. It is only ever restored, never taken for a leftover.
const ASIDE: &str = ".replaced-";

/// A hidden name beside the target.
fn hidden(target: &Path, mark: &str) -> io::Result<OsString> {
    let mut name = OsString::from(".");
    name.push(target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?);
    name.push(mark);
    Ok(name)
}

fn parent_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Brings back what a program that was killed while replacing `target` had set aside, if nothing is there.
///
/// # Errors
/// If it cannot be renamed.
pub fn restore(target: &Path) -> io::Result<()> {
    let parent = parent_of(target);
    let prefix = hidden(target, ASIDE)?;
    for entry in parent.read_dir().into_iter().flatten().flatten() {
        let ours = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
        if ours && !target.exists() && File::open(entry.path()).is_ok_and(|lock| lock.try_lock().is_ok()) {
            fs::rename(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Removes staging directories whose program is gone. What cannot be removed stays: it is in nobody's way.
fn remove_leftovers(parent: &Path, prefix: &std::ffi::OsStr) {
    for entry in parent.read_dir().into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            continue;
        }
        let Ok(lock) = File::open(entry.path()) else { continue };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Syncs many files at once: file systems write the waiting ones together.
fn sync(directory: &Path, files: &[PathBuf]) -> io::Result<()> {
    const THREADS: usize = 16;
    let share = files.len().div_ceil(THREADS).max(1);
    thread::scope(|scope| {
        let start = |files: &[PathBuf]| {
            let paths: Vec<PathBuf> = files.iter().map(|f| directory.join(f)).collect();
            scope.spawn(move || paths.iter().try_for_each(|path| File::open(path)?.sync_all()))
        };
        let threads: Vec<_> = files.chunks(share).map(start).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| io::Error::other("syncing was cut short"))?)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            directory.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn unpublished_directories_vanish_and_published_ones_replace_the_old() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("b");
        for content in ["old", "new"] {
            let staging = Staging::new(&target).unwrap();
            fs::write(staging.path().join("f"), content).unwrap();
            staging.publish(&["f".into()], true).unwrap();
            assert_eq!(fs::read_to_string(target.join("f")).unwrap(), content);
            assert_eq!(names(&target), ["f"]);
            assert_eq!(names(root.path()), ["b"]);
        }
        let staging = Staging::new(&target).unwrap();
        fs::write(staging.path().join("f"), "never").unwrap();
        drop(staging);
        assert_eq!(
            (names(root.path()), fs::read_to_string(target.join("f")).unwrap()),
            (vec!["b".into()], "new".into())
        );
    }

    #[test]
    fn a_full_directory_is_not_replaced_unasked() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("b");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("mine"), "").unwrap();
        assert!(Staging::new(&target).unwrap().publish(&[], false).is_err());
        assert_eq!(names(&target), ["mine"]);
    }

    /// File systems that cannot exchange two directories do it in three steps; a kill after the first leaves no
    /// target, only what was set aside.
    #[test]
    fn what_was_set_aside_is_restored_and_never_a_leftover() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("b");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("f"), "old").unwrap();
        let content = || fs::read_to_string(target.join("f")).unwrap();
        let staging = Staging::new(&target).unwrap();
        fs::write(staging.path().join("f"), "new").unwrap();
        staging.exchange_in_steps().unwrap();
        drop(staging);
        assert_eq!((content().as_str(), names(root.path())), ("new", vec!["b".into()]));

        // As a killed process leaves it: set aside, without a lock, its staging directory still there.
        fs::rename(&target, root.path().join(".b.replaced-4711")).unwrap();
        fs::create_dir(root.path().join(".b.partial-dead")).unwrap();
        drop(Staging::new(&target).unwrap());
        assert_eq!(names(root.path()), [".b.replaced-4711"], "only the leftover is removed");
        restore(&target).unwrap();
        assert_eq!((content().as_str(), names(root.path())), ("new", vec!["b".into()]));

        // Of a live one it is left alone.
        let staging = Staging::new(&target).unwrap();
        let (aside, _lock) = staging.set_aside().unwrap();
        restore(&target).unwrap();
        assert!(aside.exists() && !target.exists());
    }

    #[test]
    fn leftovers_of_killed_programs_go_and_those_of_live_ones_stay() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("b");
        let dead = root.path().join(".b.partial-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("f"), "").unwrap();
        let live = Staging::new(&target).unwrap();
        let other = Staging::new(&target).unwrap();
        assert!(!dead.exists());
        assert!(live.path().exists() && other.path().exists());
    }
}
