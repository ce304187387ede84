//! Reading small files of unknown content below a root: bounded, and never a reason to stop.

use std::{
    cell::RefCell,
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// Bytes of a file that are looked at; what comes after is not read.
const MOST_BYTES: u64 = 64 * 1024;
/// Characters that a name or a number may have.
const MOST_CHARACTERS: usize = 256;
/// Entries of a directory that are looked at.
const MOST_ENTRIES: usize = 4096;
/// Notes that are kept.
const MOST_NOTES: usize = 64;

/// Why a file gave nothing.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not there, which is no fault.
    Missing,
    /// It is there, but cannot be read or holds something else.
    Bad(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Bad(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Bad(format!("cannot be read: {error}")),
        }
    }
}

/// The first 64 KiB of a file.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Unread> {
    // Opening a pipe would wait for somebody to write.
    if !fs::metadata(path)?.is_file() {
        return Err(Unread::Bad("is not a file".into()));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first line of a file, without the NUL or line end after it.
pub(super) fn line(path: &Path) -> Result<String, Unread> {
    let bytes = bytes(path)?;
    let text = str::from_utf8(&bytes).map_err(|_| Unread::Bad("is not text".into()))?;
    let end = |c: char| c == '\0' || c.is_whitespace();
    let line = text.trim_matches(end).lines().next().unwrap_or("").trim_end_matches(end);
    if line.is_empty() {
        return Err(Unread::Bad("is empty".into()));
    }
    if line.chars().any(char::is_control) || line.chars().count() > MOST_CHARACTERS {
        return Err(Unread::Bad("holds no readable line".into()));
    }
    Ok(line.to_owned())
}

/// The whole number that is a file's first line.
pub(super) fn number(path: &Path) -> Result<i64, Unread> {
    let line = line(path)?;
    line.parse().map_err(|_| {
        let start: String = line.chars().take(32).collect();
        Unread::Bad(format!("holds `{start}`, not a whole number"))
    })
}

/// Files below a root, and notes on those that are there but give nothing.
pub(super) struct Files<'a> {
    root: &'a Path,
    notes: RefCell<Vec<String>>,
}

impl<'a> Files<'a> {
    /// Files below `root`.
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root, notes: RefCell::default() }
    }

    /// The root.
    pub(super) fn root(&self) -> &'a Path {
        self.root
    }

    /// What was noted, in order.
    pub(super) fn into_notes(self) -> Vec<String> {
        self.notes.into_inner()
    }

    /// Notes something about `path`.
    pub(super) fn note(&self, path: &str, what: impl fmt::Display) {
        let mut notes = self.notes.borrow_mut();
        if notes.len() < MOST_NOTES {
            notes.push(format!("{path} {what}"));
        }
    }

    fn noted<T>(&self, path: &str, result: Result<T, Unread>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Unread::Missing) => None,
            Err(unread) => {
                self.note(path, unread);
                None
            }
        }
    }

    /// The start of a text file; what is not UTF-8 in it is replaced.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let bytes = self.noted(path, bytes(&self.root.join(path)))?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file's first line.
    pub(super) fn line(&self, path: &str) -> Option<String> {
        self.noted(path, line(&self.root.join(path)))
    }

    /// A whole number.
    pub(super) fn number(&self, path: &str) -> Option<i64> {
        self.noted(path, number(&self.root.join(path)))
    }

    /// A whole number that is not negative.
    pub(super) fn count(&self, path: &str) -> Option<u64> {
        let number = self.number(path)?;
        let count = u64::try_from(number).ok();
        if count.is_none() {
            self.note(path, format_args!("holds {number}, which cannot be"));
        }
        count
    }

    /// Whether there is something at `path`.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Names in a directory that begin with `prefix`, those with numbers in the numbers' order; none if there is none.
    pub(super) fn names(&self, directory: &str, prefix: &str) -> Vec<String> {
        let found = fs::read_dir(self.root.join(directory)).map_err(Unread::from);
        let Some(entries) = self.noted(directory, found) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .take(MOST_ENTRIES)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        names
    }
}
