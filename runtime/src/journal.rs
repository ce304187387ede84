//! Rows of a long run, kept while it goes: `FILE.partial` beside the file that is to be written.
//!
//! It is JSON lines: the first an object that says what the run computes, each other a row, an array of texts. A row is
//! on file before the next one is begun, so a kill costs one row at most; a last line that was cut off is
//! dropped, and a row that does not fit on a full disk leaves nothing. Only a run that computes the same may go on from it.

mod differences;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

/// What to do where a run that can be gone on with could not write a file.
pub const MAKE_ROOM: &str = "make room, or see that it can be written, then go on with the same command and --resume";

/// Why a journal cannot be written or gone on from.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// One is there already.
    #[error("{} is there: an earlier run was stopped", .0.display())]
    Present(PathBuf),
    /// There is none.
    #[error("{} is not there, so there is nothing to go on from", .0.display())]
    Missing(PathBuf),
    /// Another process writes to it.
    #[error("another process is writing to {}", .0.display())]
    InUse(PathBuf),
    /// It was written by a run that computes something else.
    #[error("{} was made with other options: {differences}", path.display())]
    Other {
        /// The journal.
        path: PathBuf,
        /// What differs, by name.
        differences: String,
    },
    /// A line is not what a run writes.
    #[error("{}, line {line}: {problem}", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A row cannot be written; those before it are on file.
    #[error("{}: {source}", path.display())]
    Row {
        /// The journal.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be read, begun or removed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl JournalError {
    /// What a user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Present(_) => "go on from it with --resume, or remove it to start anew",
            Self::Missing(_) => "leave out --resume",
            Self::InUse(_) => "wait for it, or name another --out",
            Self::Other { .. } => {
                "go on with the options of the first run, or remove the file to start anew with these"
            }
            Self::Damaged { .. } => "remove the file to start anew",
            Self::Row { .. } => MAKE_ROOM,
            Self::Io { .. } => "check that the directory exists, is writable and has room",
        }
    }
}

/// The journal of a run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of its whole lines; what stands behind them is a line that was not written whole and could not be taken away.
    whole: u64,
}

/// Where the journal of a file is.
pub fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

impl Journal {
    /// A new journal at `path`, held for this process.
    ///
    /// # Errors
    /// If there is one already, of a run that was stopped or of one that is still going, or it cannot be written: then
    /// nothing is left of it.
    pub fn create(path: &Path, run: &Map<String, Value>) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let file = match File::options().read(true).append(true).create_new(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(present(path)),
            other => other.map_err(io)?,
        };
        let mut journal = Self { path: path.to_owned(), file, whole: 0 };
        let begun = journal.lock().and_then(|()| journal.line(&Value::Object(run.clone()).to_string()));
        if let Err(JournalError::Io { .. }) = begun {
            // Nothing can be gone on from, and it would be in the way of the next start.
            let _ = fs::remove_file(path);
        }
        begun.map(|()| journal)
    }

    /// The journal at `path`, held for this process, and the cells of its whole rows.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn resume(path: &Path, run: &Map<String, Value>) -> Result<(Self, Vec<Vec<String>>), JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let file = match File::options().read(true).append(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(JournalError::Missing(path.to_owned())),
            other => other.map_err(io)?,
        };
        let mut journal = Self { path: path.to_owned(), file, whole: 0 };
        journal.lock()?;
        let bytes = fs::read(path).map_err(io)?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        let damaged =
            |line: usize, problem: &str| JournalError::Damaged { path: path.to_owned(), line, problem: problem.into() };
        let text = std::str::from_utf8(&bytes[..whole]).map_err(|_| damaged(1, "it is no text"))?;
        let now = Value::Object(run.clone()).to_string();
        let Some((first, rows)) = text.split_once('\n') else {
            // Stopped before its first line was whole.
            if !now.as_bytes().starts_with(&bytes) {
                return Err(damaged(1, "it is no journal of this run"));
            }
            journal.line(&now)?;
            return Ok((journal, Vec::new()));
        };
        // As text: a number with many digits may be read as its neighbour.
        if first != now {
            let differences = differences::between(first, &now).ok_or_else(|| damaged(1, "it is no journal"))?;
            return Err(JournalError::Other { path: path.to_owned(), differences });
        }
        let row =
            |(number, row): (usize, &str)| serde_json::from_str(row).map_err(|e| damaged(number + 2, &e.to_string()));
        let found = rows.lines().enumerate().map(row).collect::<Result<_, _>>()?;
        // Now that it is known to be this run's.
        journal.whole = whole as u64;
        journal.file.set_len(journal.whole).map_err(io)?;
        Ok((journal, found))
    }

    /// Says that a row is not one of this run.
    pub fn damaged(&self, row: usize, problem: impl Into<String>) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), line: row + 2, problem: problem.into() }
    }

    /// Writes a row.
    ///
    /// # Errors
    /// [`JournalError::Row`] if it cannot be written.
    pub fn row(&mut self, cells: &[String]) -> Result<(), JournalError> {
        self.line(&Value::from(cells).to_string()).map_err(|error| match error {
            JournalError::Io { path, source } => JournalError::Row { path, source },
            other => other,
        })
    }

    /// Removes the journal: the run is done.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> Result<(), JournalError> {
        fs::remove_file(&self.path).map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }

    /// Adds a line behind the whole ones, or nothing.
    fn line(&mut self, text: &str) -> Result<(), JournalError> {
        let line = format!("{text}\n");
        let written = self.cut().and_then(|()| self.file.write_all(line.as_bytes()));
        written.map(|()| self.whole += line.len() as u64).map_err(|source| {
            // Part of it may stand there. If that cannot be taken away now, the next line tries again.
            let _ = self.cut();
            JournalError::Io { path: self.path.clone(), source }
        })
    }

    /// Takes away what is no whole line.
    fn cut(&self) -> io::Result<()> {
        if self.file.metadata()?.len() == self.whole { Ok(()) } else { self.file.set_len(self.whole) }
    }

    fn lock(&self) -> Result<(), JournalError> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse(self.path.clone())),
            Err(TryLockError::Error(source)) => Err(JournalError::Io { path: self.path.clone(), source }),
        }
    }
}

/// Why no journal can begin where there is one: a run is writing to it, or none is any more.
fn present(path: &Path) -> JournalError {
    // A journal that cannot be opened tells nothing about who holds it.
    let held = File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
    if held { JournalError::InUse(path.to_owned()) } else { JournalError::Present(path.to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(seed: u64) -> Map<String, Value> {
        [("bundle".to_owned(), "ab".into()), ("seed".to_owned(), seed.into())].into_iter().collect()
    }

    fn cells(row: &[&str]) -> Vec<String> {
        row.iter().map(|&cell| cell.to_owned()).collect()
    }

    #[test]
    fn a_journal_cut_at_any_byte_gives_its_whole_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = beside(&dir.path().join("scores.csv"));
        assert!(path.ends_with("scores.csv.partial"));
        let rows = [cells(&["01", "1.5"]), cells(&["a,b", "NaN"]), cells(&["10", "-inf"])];
        let mut journal = Journal::create(&path, &run(3)).unwrap();
        rows.iter().for_each(|row| journal.row(row).unwrap());
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for end in 0..=whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let (mut journal, found) = Journal::resume(&path, &run(3)).unwrap();
            assert_eq!(found, rows[..found.len()]);
            rows[found.len()..].iter().for_each(|row| journal.row(row).unwrap());
            drop(journal);
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {end}");
        }
        // Each line is JSON.
        let text = String::from_utf8(whole).unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
        Journal::resume(&path, &run(3)).unwrap().0.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn numbers_with_many_digits_are_the_same_again_and_their_neighbours_are_not() {
        let with = |rate: f64| -> Map<String, Value> { [("rate".to_owned(), rate.into())].into_iter().collect() };
        let dir = tempfile::tempdir().unwrap();
        for percent in 1..100_u8 {
            // As single precision has it, and in full.
            let short = f32::from(percent) / 100.0;
            for rate in [f64::from(short), f64::from(percent) / 37.1] {
                let path = dir.path().join(format!("{rate:?}"));
                drop(Journal::create(&path, &with(rate)).unwrap());
                assert!(Journal::resume(&path, &with(rate)).is_ok(), "{rate:?}");
                for other in [rate.next_up(), f64::from(short.next_up())] {
                    let error = Journal::resume(&path, &with(other)).unwrap_err();
                    assert!(matches!(error, JournalError::Other { .. }), "{rate:?} {other:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn other_runs_and_wrong_places_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        assert!(matches!(Journal::resume(&path, &run(3)), Err(JournalError::Missing(_))));
        let held = Journal::create(&path, &run(3)).unwrap();
        assert!(matches!(Journal::create(&path, &run(3)), Err(JournalError::InUse(_))));
        assert!(matches!(Journal::resume(&path, &run(3)), Err(JournalError::InUse(_))));
        drop(held);
        assert!(matches!(Journal::create(&path, &run(3)), Err(JournalError::Present(_))));
        let error = Journal::resume(&path, &run(4)).unwrap_err();
        assert!(error.to_string().contains("seed was 3, is 4"), "{error}");
        let with = |paths: char| -> Map<String, Value> {
            [("paths (--random)".to_owned(), paths.to_string().repeat(64).into())].into_iter().collect()
        };
        let digests = dir.path().join("digests");
        drop(Journal::create(&digests, &with('a')).unwrap());
        let error = Journal::resume(&digests, &with('b')).unwrap_err().to_string();
        assert!(error.ends_with("made with other options: not the same paths (--random)"), "{error}");
        // Nor are they changed.
        for foreign in ["hello\n", "hello", "{}\n[\"01\"]\n[\"cut"] {
            fs::write(&path, foreign).unwrap();
            assert!(Journal::resume(&path, &run(3)).is_err(), "{foreign}");
            assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
        }
        fs::write(&path, "hello\n").unwrap();
        assert!(matches!(Journal::resume(&path, &run(3)), Err(JournalError::Damaged { line: 1, .. })));
    }

    #[test]
    fn a_line_that_was_not_written_whole_is_taken_away_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::create(&path, &run(3)).unwrap();
        journal.row(&cells(&["01", "1.5"])).unwrap();
        let whole = fs::read(&path).unwrap();
        // As a full disk leaves it that even refuses to be cut.
        fs::write(&path, [&whole[..], b"[\"10"].concat()).unwrap();
        journal.row(&cells(&["10", "2.5"])).unwrap();
        drop(journal);
        let (_, found) = Journal::resume(&path, &run(3)).unwrap();
        assert_eq!(found, [cells(&["01", "1.5"]), cells(&["10", "2.5"])]);
    }
}
