//! Run times, kept while they are measured, so that a measurement that was stopped goes on where it was.

use std::{collections::BTreeMap, path::Path as FsPath};

use serde_json::{Map, Value};

use crate::journal::{Journal, JournalError};

/// Times of named things, nanoseconds, in a journal: a row for each visit.
#[derive(Debug)]
pub struct Times {
    journal: Journal,
    known: BTreeMap<String, Vec<u64>>,
}

impl Times {
    /// A new record at `file`; `run` is what decides the times, by name.
    ///
    /// # Errors
    /// See [`Journal::create`].
    pub fn create(file: &FsPath, run: &Map<String, Value>) -> Result<Self, JournalError> {
        Ok(Self { journal: Journal::create(file, run)?, known: BTreeMap::new() })
    }

    /// The record at `file` with the times that an earlier run has left in it.
    ///
    /// # Errors
    /// See [`Journal::resume`]; and if a row is no name and times.
    pub fn resume(file: &FsPath, run: &Map<String, Value>) -> Result<Self, JournalError> {
        let (journal, rows) = Journal::resume(file, run)?;
        let mut known: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (i, cells) in rows.iter().enumerate() {
            let found = match cells.as_slice() {
                [name, times] => {
                    times.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>().ok().map(|t| (name, t))
                }
                _ => None,
            };
            let (name, times) = found.ok_or_else(|| journal.damaged(i, "it is not a name and times in nanoseconds"))?;
            known.entry(name.clone()).or_default().extend(times);
        }
        Ok(Self { journal, known })
    }

    /// The times of `name`; empty if there are none yet.
    pub fn of(&self, name: &str) -> &[u64] {
        self.known.get(name).map_or(&[], Vec::as_slice)
    }

    /// All times by name.
    pub fn all(&self) -> &BTreeMap<String, Vec<u64>> {
        &self.known
    }

    /// Records more times of `name`.
    ///
    /// # Errors
    /// If they cannot be recorded.
    pub fn add(&mut self, name: &str, times: &[u64]) -> Result<(), JournalError> {
        let text: Vec<String> = times.iter().map(u64::to_string).collect();
        self.journal.row(&[name.to_owned(), text.join(" ")])?;
        self.known.entry(name.to_owned()).or_default().extend(times);
        Ok(())
    }

    /// Removes the record: the measurement is done.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> Result<(), JournalError> {
        self.journal.remove()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn times_are_there_again_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r");
        let mut times = Times::create(&file, &Map::new()).unwrap();
        times.add("a", &[3, 1]).unwrap();
        times.add("b", &[7]).unwrap();
        times.add("a", &[u64::MAX]).unwrap();
        drop(times);
        let torn = [fs::read(&file).unwrap(), b"[\"b\",\"8 9".to_vec()].concat();
        fs::write(&file, torn).unwrap();
        let times = Times::resume(&file, &Map::new()).unwrap();
        assert_eq!((times.of("a"), times.of("b"), times.of("c")), (&[3, 1, u64::MAX][..], &[7][..], &[][..]));
        assert_eq!(times.all().len(), 2);
        times.remove().unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn rows_that_are_no_times_are_told_by_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r");
        let rows =
            [r#"["a"]"#, r#"["a","1 x"]"#, r#"["a","-1"]"#, r#"["a",""]"#, r#"["a","1","2"]"#, r#"["a",1]"#, "a,1"];
        for row in rows {
            fs::write(&file, format!("{{}}\n[\"a\",\"1\"]\n{row}\n")).unwrap();
            let error = Times::resume(&file, &Map::new()).unwrap_err().to_string();
            assert!(error.contains("line 3"), "{row}: {error}");
        }
    }
}
