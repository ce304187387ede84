//! What a run of `nasbn score` keeps beside its table while it goes.

use nasbn_models::{Path, Supernet};
use serde_json::{Map, Value, json};

use super::ScoreArgs;
use crate::{
    cli::{Failure, fingerprint, note, setup::Session},
    composite::Composite,
    data::Dataset,
    indicators::catalogue::Selection,
    journal::{self, Journal, JournalError},
    parameters::BnParameters,
    score::{Row, ScoreOptions, header},
};

/// What a row of the journal begins with that is a note.
const NOTE: &str = "@composite";

/// The journal beside the table: the composite, once it is measured, and rows.
pub struct Kept {
    journal: Journal,
    composite: Option<Composite>,
}

impl Kept {
    /// A new journal, or that of an earlier run with the rows that it has left.
    pub fn open(
        args: &ScoreArgs,
        run: &Map<String, Value>,
        selection: &Selection,
        supernet: &Supernet,
        paths: &[Path],
    ) -> Result<(Self, Vec<Row>), Failure> {
        let file = journal::beside(&args.out);
        if !args.resume {
            return Ok((Self { journal: Journal::create(&file, run)?, composite: None }, Vec::new()));
        }
        let (journal, found) = Journal::resume(&file, run)?;
        let (mut rows, mut composite) = (Vec::with_capacity(found.len()), None);
        for (i, cells) in found.iter().enumerate() {
            if let [NOTE, text] = cells.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                let decoded = note::decode(text).ok_or_else(|| journal.damaged(i, "it is no composite"))?;
                composite = Some(decoded);
                continue;
            }
            let of_run = paths.get(rows.len()).map(|path| supernet.format_path(path));
            let row = Row::from_cells(cells).filter(|row| Some(&row.path) == of_run.as_ref());
            let row = row.filter(|_| cells.len() == header(selection).len());
            rows.push(row.ok_or_else(|| journal.damaged(i, "it is not the row of this path"))?);
        }
        Ok((Self { journal, composite }, rows))
    }

    /// The composite that is on file.
    pub fn composite(&self) -> Option<&Composite> {
        self.composite.as_ref()
    }

    /// Keeps the composite.
    pub fn note(&mut self, composite: &Composite) -> Result<(), JournalError> {
        self.journal.row(&[NOTE.to_owned(), note::encode(composite)])?;
        self.composite = Some(composite.clone());
        Ok(())
    }

    /// Keeps a row.
    pub fn row(&mut self, row: &Row) -> Result<(), JournalError> {
        self.journal.row(&row.cells())
    }

    /// The run is done, or has nothing to keep.
    pub fn remove(self) -> Result<(), JournalError> {
        self.journal.remove()
    }
}

/// What decides the bytes of the table, by name.
pub fn described(
    args: &ScoreArgs,
    options: &ScoreOptions,
    session: &Session,
    parameters: &BnParameters,
    data: Option<&Dataset>,
    paths: &[Path],
) -> Map<String, Value> {
    let more = json!({
        "paths (--random, --paths)": fingerprint::networks(session.network.supernet(), paths),
        "indicators": options.selection.to_string(),
        "mc_batches": args.mc.mc_batches,
        "mc_images": args.mc.mc_images,
        "ntk_outputs": args.ntk_outputs,
        "adapt": options.adapt,
        "reference": args.reference.options(),
        "seed": args.seed,
    });
    fingerprint::of(session, parameters, data, &args.validation, more)
}
