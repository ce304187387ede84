//! What may be replaced: packages and their archives, and nothing that somebody else made.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use flate2::read::GzDecoder;

use super::{DESCRIPTION, PROGRAM_PATH, PackageError, RUN, SUMS, opened::names};

/// Largest `SHA256SUMS` of an archive that is read.
const MOST_BYTES: u64 = 16 << 20;

/// Checks that there is nothing at `directory`, or a package and nothing else.
///
/// # Errors
/// [`PackageError::Foreign`] if it is none; [`PackageError::Holds`] if it holds files that are not the package's.
pub fn directory(directory: &Path) -> Result<(), PackageError> {
    let io = |source| PackageError::Io { path: directory.to_owned(), source };
    let foreign = || PackageError::Foreign { path: directory.to_owned() };
    match fs::symlink_metadata(directory) {
        Ok(present) if present.is_dir() => {}
        Ok(_) => return Err(foreign()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    }
    let sums = fs::read_to_string(directory.join(SUMS)).map_err(|_| foreign())?;
    let named = of_package(&sums).ok_or_else(foreign)?;
    let mut others = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).map_err(io)? {
            let entry = entry.map_err(io)?;
            let path = entry.path();
            let kind = entry.file_type().map_err(io)?;
            let name = path.strip_prefix(directory).unwrap_or(&path).to_string_lossy().into_owned();
            if kind.is_dir() && named.iter().any(|file| file.starts_with(&format!("{name}/"))) {
                left.push(path);
            } else if !(kind.is_file() && named.contains(&name)) {
                others.push(name);
            }
        }
    }
    others.sort();
    if others.is_empty() { Ok(()) } else { Err(PackageError::Holds { path: directory.to_owned(), others }) }
}

/// Checks that there is nothing at `archive`, or the archive of a package and nothing else.
///
/// # Errors
/// [`PackageError::Foreign`].
pub fn archive(archive: &Path) -> Result<(), PackageError> {
    let foreign = || PackageError::Foreign { path: archive.to_owned() };
    match fs::symlink_metadata(archive) {
        Ok(present) if present.is_file() => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => return Err(foreign()),
    }
    let file = File::open(archive).map_err(|source| PackageError::Io { path: archive.to_owned(), source })?;
    match is_of_package(file) {
        Ok(true) => Ok(()),
        _ => Err(foreign()),
    }
}

/// Whether a compressed tar archive holds what its `SHA256SUMS` names, below one directory, and nothing else.
fn is_of_package(file: impl Read) -> io::Result<bool> {
    let mut tar = tar::Archive::new(GzDecoder::new(io::BufReader::new(file)));
    let (mut found, mut tops, mut sums) = (BTreeSet::new(), BTreeSet::new(), String::new());
    for entry in tar.entries()? {
        let entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let Some((top, name)) = path.split_once('/') else { return Ok(false) };
        if entry.header().entry_type() != tar::EntryType::Regular || !top.starts_with("nasbn-") {
            return Ok(false);
        }
        tops.insert(top.to_owned());
        found.insert(name.to_owned());
        if name == SUMS {
            entry.take(MOST_BYTES).read_to_string(&mut sums)?;
        }
    }
    Ok(tops.len() == 1 && of_package(&sums).is_some_and(|named| named == found))
}

/// The files of a package, with its `SHA256SUMS` of these contents; none if it is not one's.
fn of_package(sums: &str) -> Option<BTreeSet<String>> {
    let mut named: BTreeSet<String> =
        names(sums, Path::new("")).ok()?.into_iter().map(|(_, name)| name.to_owned()).collect();
    let whole = [PROGRAM_PATH, RUN, DESCRIPTION].iter().all(|name| named.contains(*name));
    named.insert(SUMS.to_owned());
    whole.then_some(named)
}
