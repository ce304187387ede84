//! Putting a pinned library in its place, checked and whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{self, Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Fetcher, LIBRARY_FILE, Library, NOTICES_FILE, PROVISIONED_DIR, PinnedFile, ProvisionError};

/// Names of directories that hold a package while it is fetched begin with this.
const WORK: &str = ".fetch-";
/// File that is locked while a library is fetched.
const LOCK: &str = ".lock";

/// A library in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provisioned {
    /// The library.
    pub path: PathBuf,
    /// Its version.
    pub version: String,
    /// The machine it is for.
    pub triple: String,
    /// Whether it was fetched now, or there already.
    pub fetched: bool,
}

/// Puts `library` at `<target_dir>/onnxruntime/<triple>/<version>/libonnxruntime.so`, unless it is there.
/// Of several processes that do so at once, one fetches and the others wait for it. It has [`NOTICES_FILE`]
/// beside it, for whoever passes it on, if its archive holds that.
///
/// # Errors
/// See [`ProvisionError`]; what was there before is as it was then.
pub fn provision(library: &Library, target_dir: &Path, fetcher: &dyn Fetcher) -> Result<Provisioned, ProvisionError> {
    put(library, false, target_dir, fetcher)
}

/// As [`provision`], but notices that are missing are fetched, too.
///
/// # Errors
/// See [`ProvisionError`]; what was there before is as it was then.
pub fn provision_with_notices(
    library: &Library,
    target_dir: &Path,
    fetcher: &dyn Fetcher,
) -> Result<Provisioned, ProvisionError> {
    put(library, true, target_dir, fetcher)
}

/// Puts the members of the archive of `library` in their places, unless the library is there, and, if they are needed, the
/// notices.
fn put(
    library: &Library,
    with_notices: bool,
    target_dir: &Path,
    fetcher: &dyn Fetcher,
) -> Result<Provisioned, ProvisionError> {
    let (own, notices) = ((&library.member, LIBRARY_FILE), (&library.notices, NOTICES_FILE));
    // Each package with what is taken out of it.
    let sources = match library.of_notices() {
        None => vec![(library.clone(), vec![own, notices])],
        Some(_) if !with_notices => vec![(library.clone(), vec![own])],
        Some(holder) => vec![(library.clone(), vec![own]), (holder, vec![notices])],
    };
    let needed = if with_notices { &[own, notices][..] } else { &[own] };
    let parent = target_dir.join(PROVISIONED_DIR).join(&library.triple);
    let place = parent.join(&library.version);
    let done = |fetched| Provisioned {
        path: place.join(LIBRARY_FILE),
        version: library.version.clone(),
        triple: library.triple.clone(),
        fetched,
    };
    let in_place =
        |(pinned, name): &(&PinnedFile, &str)| measure(&place.join(name)).is_ok_and(|f| f == expected(pinned));
    let present = || needed.iter().all(in_place);
    if present() {
        return Ok(done(false));
    }
    fs::create_dir_all(&parent).map_err(io_error(&parent))?;
    let lock_path = parent.join(LOCK);
    let lock = File::create(&lock_path).map_err(io_error(&lock_path))?;
    // Held until `lock` is dropped, or the process dies.
    lock.lock().map_err(io_error(&lock_path))?;
    if present() {
        return Ok(done(false));
    }
    remove_leftovers(&parent)?;
    // Package managers run in a directory of their own: relative paths would mean another place there.
    let absolute = path::absolute(&parent).map_err(io_error(&parent))?;
    let work = tempfile::Builder::new().prefix(WORK).tempdir_in(absolute).map_err(io_error(&parent))?;
    let mut fetched = Vec::new();
    for (source, members) in &sources {
        if members.iter().all(in_place) {
            continue;
        }
        let download = work.path().join(&source.package.name);
        fs::create_dir(&download).map_err(io_error(&download))?;
        let archive = fetcher.fetch(source, &download)?;
        check(&archive, &source.archive)?;
        for (pinned, name) in members {
            let file = work.path().join(name);
            fetcher.extract(&archive, source, pinned, &file)?;
            check(&file, pinned)?;
            File::open(&file).and_then(|f| f.sync_all()).map_err(io_error(&file))?;
            fetched.push((file, name));
        }
    }
    fs::create_dir_all(&place).map_err(io_error(&place))?;
    for (file, name) in fetched {
        let path = place.join(name);
        fs::rename(file, &path).map_err(io_error(&path))?;
    }
    Ok(done(true))
}

/// Removes what killed processes left; those that live hold the lock.
fn remove_leftovers(parent: &Path) -> Result<(), ProvisionError> {
    for entry in fs::read_dir(parent).map_err(io_error(parent))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(WORK) {
            fs::remove_dir_all(entry.path()).map_err(io_error(&entry.path()))?;
        }
    }
    Ok(())
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ProvisionError + use<> {
    let path = path.to_owned();
    move |source| ProvisionError::Io { path, source }
}

fn check(file: &Path, pinned: &PinnedFile) -> Result<(), ProvisionError> {
    let found = measure(file).map_err(io_error(file))?;
    let expected = expected(pinned);
    if found == expected {
        return Ok(());
    }
    let words = |(bytes, sha256): (u64, String)| format!("{bytes} bytes with SHA-256 {sha256}");
    Err(ProvisionError::Digest { what: pinned.name.clone(), found: words(found), expected: words(expected) })
}

fn expected(pinned: &PinnedFile) -> (u64, String) {
    (pinned.bytes, pinned.sha256.clone())
}

/// Size and SHA-256 of a file.
fn measure(file: &Path) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut file = File::open(file)?;
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()));
        }
        bytes += count as u64;
        hash.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests;
