//! Files that are either as they were or whole and new, never in between.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What a temporary file's name ends in before its random letters.
const SUFFIX: &str = ".nasbn-";

/// Writes `contents` to a temporary file beside `path`, syncs it and renames it over `path`.
///
/// A symbolic link is followed, an existing file keeps its permissions. A device or a pipe (`/dev/null`,
/// `/dev/stdout`) cannot be replaced: it is written to.
///
/// # Errors
/// Any of the steps; the file at `path` is then as it was, and the temporary file is gone.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    // A link that leads nowhere yet is replaced like a file.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let present = fs::metadata(&target).ok();
    if present.as_ref().is_some_and(|m| is_stream(m.file_type())) {
        return OpenOptions::new().write(true).open(&target)?.write_all(contents);
    }
    // As readable as the old file, or as any new one within the user's umask.
    let mode = present.map_or_else(|| Permissions::from_mode(0o666), |m| m.permissions());
    let directory = directory_of(&target);
    let temporary = tempfile::Builder::new().prefix(&prefix(&target)).permissions(mode.clone()).tempfile_in(directory);
    let temporary = temporary.map_err(unnamed)?;
    temporary.as_file().write_all(contents)?;
    if target.exists() {
        temporary.as_file().set_permissions(mode)?;
    }
    temporary.as_file().sync_all()?;
    temporary.persist(&target).map_err(|e| e.error)?;
    // The rename itself is durable once the directory is; some file systems cannot sync one.
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
    Ok(())
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
}
