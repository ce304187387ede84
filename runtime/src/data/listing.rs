//! Folder listings that are the same on every machine and end on every file system.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::DataError;

/// Deepest folder below a class folder that is looked into.
const DEEPEST: usize = 16;

/// One entry of a folder.
pub(crate) struct Entry {
    /// Path as given, entry name appended.
    pub path: PathBuf,
    /// Name, with anything that is not Unicode replaced.
    pub name: String,
    /// What a symbolic link leads to counts, not the link. Links that lead nowhere are files here,
    /// so that reading them reports them.
    pub is_dir: bool,
}

/// Entries of `dir` sorted by name, hidden ones (leading dot) left out.
pub(crate) fn entries(dir: &Path) -> Result<Vec<Entry>, DataError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(DataError::io("read the folder", dir))? {
        let entry = entry.map_err(DataError::io("read the folder", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            let path = entry.path();
            let is_dir = fs::metadata(&path).is_ok_and(|meta| meta.is_dir());
            found.push(Entry { path, name, is_dir });
        }
    }
    found.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    Ok(found)
}

/// What [`images`] found below a class folder.
#[derive(Default)]
pub(crate) struct Images {
    /// PNG and JPEG files by extension, in order of their paths.
    pub files: Vec<PathBuf>,
    /// Number of files of other kinds.
    pub others: usize,
}

/// All image files below `dir`, folders inside it included; each real folder is entered once, so a
/// symbolic link to a parent ends the walk instead of turning it round.
pub(crate) fn images(dir: &Path) -> Result<Images, DataError> {
    let mut found = Images::default();
    walk(dir, 0, &mut BTreeSet::new(), &mut found)?;
    Ok(found)
}

fn walk(dir: &Path, depth: usize, seen: &mut BTreeSet<PathBuf>, found: &mut Images) -> Result<(), DataError> {
    let real = fs::canonicalize(dir).map_err(DataError::io("find the folder", dir))?;
    if depth > DEEPEST || !seen.insert(real) {
        log::warn!("not entering {}: already seen, or too deep", dir.display());
        return Ok(());
    }
    for entry in entries(dir)? {
        if entry.is_dir {
            walk(&entry.path, depth + 1, seen, found)?;
        } else if is_image(&entry.path) {
            found.files.push(entry.path);
        } else {
            found.others += 1;
        }
    }
    Ok(())
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// A few names of a folder's content for a message.
pub(crate) fn summary(entries: &[Entry]) -> String {
    let mut names: Vec<String> =
        entries.iter().take(6).map(|e| if e.is_dir { format!("{}/", e.name) } else { e.name.clone() }).collect();
    if entries.len() > names.len() {
        names.push("...".into());
    }
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn listings_are_sorted_and_leave_out_hidden_and_foreign_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.PNG", "a.jpeg", ".c.png", "notes.txt", "d.jpg"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        fs::create_dir(dir.path().join("c")).unwrap();
        fs::write(dir.path().join("c/x.png"), b"").unwrap();
        let found = images(dir.path()).unwrap();
        let names: Vec<_> = found.files.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_owned()).collect();
        assert_eq!(names, ["a.jpeg", "b.PNG", "c/x.png", "d.jpg"].map(PathBuf::from));
        assert_eq!(found.others, 1);
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_link_loops_end() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("x.png"), b"").unwrap();
        std::os::unix::fs::symlink(dir.path(), inner.join("up")).unwrap();
        std::os::unix::fs::symlink("self.png", dir.path().join("self.png")).unwrap();
        let found = images(dir.path()).unwrap();
        // The link to itself stays in the list, where decoding will name it.
        assert_eq!(found.files, [inner.join("x.png"), dir.path().join("self.png")]);
    }

    #[test]
    fn missing_folders_are_named() {
        let error = entries(Path::new("/no/such/folder")).err().unwrap();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
        assert!(error.hint().contains("--data"));
    }
}
