//! Scores of a search, kept while it goes, so that one that was stopped goes on where it was.
//!
//! A search is a function of its options and of its scores: replayed, it takes the same way again.

use std::{collections::HashMap, path::Path as FsPath};

use nasbn_models::{Path, Supernet};
use serde_json::{Map, Value};

use crate::journal::{Journal, JournalError};

/// Scores of canonical paths in a journal: rows of a path and its score.
#[derive(Debug)]
pub struct Record {
    journal: Journal,
    known: HashMap<Path, f64>,
    notes: HashMap<String, String>,
}

/// What a row begins with that is a note.
const NOTE: &str = "@";

impl Record {
    /// A new record at `file`; `run` is what decides the scores, by name.
    ///
    /// # Errors
    /// See [`Journal::create`].
    pub fn create(file: &FsPath, run: &Map<String, Value>) -> Result<Self, JournalError> {
        Ok(Self { journal: Journal::create(file, run)?, known: HashMap::new(), notes: HashMap::new() })
    }

    /// The record at `file` with the scores that an earlier run has left in it.
    ///
    /// # Errors
    /// See [`Journal::resume`]; and if a row is no path of `supernet` and a number.
    pub fn resume(file: &FsPath, run: &Map<String, Value>, supernet: &Supernet) -> Result<Self, JournalError> {
        let (journal, rows) = Journal::resume(file, run)?;
        let (mut known, mut notes) = (HashMap::new(), HashMap::new());
        for (i, cells) in rows.iter().enumerate() {
            if let [name, value] = cells.as_slice()
                && let Some(name) = name.strip_prefix(NOTE)
            {
                notes.insert(name.to_owned(), value.clone());
                continue;
            }
            let found = match cells.as_slice() {
                [path, score] => supernet.parse_path(path).ok().zip(score.parse().ok()),
                _ => None,
            };
            let (path, score) = found.ok_or_else(|| journal.damaged(i, "it is not a path and its score"))?;
            known.insert(path, score);
        }
        Ok(Self { journal, known, notes })
    }

    /// What was noted under a name.
    pub fn note(&self, name: &str) -> Option<&str> {
        self.notes.get(name).map(String::as_str)
    }

    /// Notes a text under a name: what a search was told besides scores.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub fn set_note(&mut self, name: &str, value: &str) -> Result<(), JournalError> {
        self.journal.row(&[format!("{NOTE}{name}"), value.to_owned()])?;
        self.notes.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// The score of a path, if it is recorded.
    pub fn known(&self, path: &Path) -> Option<f64> {
        self.known.get(path).copied()
    }

    /// The score of a path: as recorded, or from `evaluate`, and then recorded.
    ///
    /// # Errors
    /// If `evaluate` fails, or the score cannot be recorded.
    pub fn score<E: From<JournalError>>(
        &mut self,
        supernet: &Supernet,
        path: &Path,
        evaluate: impl FnOnce() -> Result<f64, E>,
    ) -> Result<f64, E> {
        if let Some(&score) = self.known.get(path) {
            return Ok(score);
        }
        let score = evaluate()?;
        // As many digits as tell it from every other number.
        self.journal.row(&[supernet.format_path(path), format!("{score:?}")])?;
        self.known.insert(path.clone(), score);
        Ok(score)
    }

    /// Scores on file.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Removes the record: the run is done.
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
    use std::{collections::HashSet, fs};

    use nasbn_models::cost::CostTable;

    use super::{
        super::{Limits, Outcome, SearchOptions, search},
        *,
    };
    use crate::testing::chain;

    /// Not a number, infinite, or with many digits.
    fn worth(path: &Path) -> f64 {
        match path.choices() {
            [0, 0, ..] => f64::NAN,
            [1, 1, ..] => f64::NEG_INFINITY,
            choices => choices.iter().fold(0.1, |sum, &c| sum * 1.7 + f64::from(c) / 3.0),
        }
    }

    /// A search that stops for want of evaluations after `evaluations` of its own; and how many it made.
    fn run(record: &mut Record, supernet: &Supernet, evaluations: usize) -> (Option<Outcome>, usize) {
        let options = SearchOptions {
            limits: Limits::default(),
            evaluations: 40,
            seed: 3,
            parents: 4,
            population: 8,
            mutation: 0.2,
        };
        let mut made = HashSet::new();
        let evaluate = |path: &Path| {
            record.score(supernet, path, || {
                if made.len() == evaluations {
                    return Err(JournalError::Missing("stopped".into()));
                }
                assert!(made.insert(path.clone()));
                Ok(worth(path))
            })
        };
        let outcome = search(supernet, &CostTable::new(supernet), &options, evaluate, |_, _| {}).ok();
        (outcome, made.len())
    }

    /// An outcome in which numbers that are none are equal, too.
    fn bits(outcome: &Outcome) -> Vec<(Path, u64)> {
        let all = [&outcome.best].into_iter().chain(&outcome.evolution_best).chain(&outcome.random_best);
        all.chain(&outcome.evaluated).chain(&outcome.random).map(|c| (c.path.clone(), c.score.to_bits())).collect()
    }

    #[test]
    fn a_search_that_is_stopped_anywhere_goes_on_to_the_same_end() {
        let dir = tempfile::tempdir().unwrap();
        let supernet = chain(8);
        let options: Map<String, Value> = [("seed".to_owned(), 3.into())].into_iter().collect();
        let whole = dir.path().join("whole");
        let mut record = Record::create(&whole, &options).unwrap();
        let (outcome, all) = run(&mut record, &supernet, usize::MAX);
        let outcome = outcome.unwrap();
        assert!(all > 40 && all == record.len(), "{all}");
        for stop in [0, 1, 7, 39, 41, all - 1, all] {
            let file = dir.path().join(stop.to_string());
            let (stopped, made) = run(&mut Record::create(&file, &options).unwrap(), &supernet, stop);
            assert_eq!((stopped.is_some(), made), (stop == all, stop));
            let mut record = Record::resume(&file, &options, &supernet).unwrap();
            assert_eq!((record.len(), record.is_empty()), (stop, stop == 0));
            let (resumed, made) = run(&mut record, &supernet, usize::MAX);
            assert_eq!(made, all - stop);
            assert_eq!(bits(&resumed.unwrap()), bits(&outcome));
            assert_eq!(fs::read(&file).unwrap(), fs::read(&whole).unwrap());
            record.remove().unwrap();
            assert!(!file.exists());
        }
    }

    #[test]
    fn notes_stand_between_scores() {
        let dir = tempfile::tempdir().unwrap();
        let (file, supernet) = (dir.path().join("r"), chain(3));
        let path = supernet.parse_path("012").unwrap();
        let mut record = Record::create(&file, &Map::new()).unwrap();
        record.set_note("composite", "00,ff").unwrap();
        record.score(&supernet, &path, || Ok::<_, JournalError>(2.5)).unwrap();
        drop(record);
        let record = Record::resume(&file, &Map::new(), &supernet).unwrap();
        assert_eq!((record.note("composite"), record.note("other")), (Some("00,ff"), None));
        assert_eq!((record.known(&path), record.len()), (Some(2.5), 1));
    }

    #[test]
    fn rows_that_are_no_scores_are_told_by_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let supernet = chain(3);
        let file = dir.path().join("r");
        let rows = [
            (r#"["012","0.5"]"#, true),
            (r#"["012","half"]"#, false),
            (r#"["0123","0.5"]"#, false),
            (r#"["012"]"#, false),
            ("012,0.5", false),
        ];
        for (row, fits) in rows {
            fs::write(&file, format!("{{}}\n[\"021\",\"1.0\"]\n{row}\n")).unwrap();
            match Record::resume(&file, &Map::new(), &supernet) {
                Ok(record) => assert!(fits && record.len() == 2, "{row}"),
                Err(error) => assert!(!fits && error.to_string().contains("line 3"), "{row}: {error}"),
            }
        }
    }
}
