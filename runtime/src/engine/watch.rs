//! Where nodes run, seen while they do: the first run of each graph is profiled.

use std::{
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::provider::{Placement, PlacementError, read_profile};

/// Profiles of first runs.
#[derive(Debug)]
pub(super) struct Watch {
    /// Where they are written; each is gone once it is read.
    directory: TempDir,
    seen: Result<Placement, PlacementError>,
}

impl Watch {
    /// Nothing was seen yet.
    pub(super) fn begin() -> io::Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, seen: Ok(Placement::default()) })
    }

    /// What the name of a graph's profile begins with; none if no more are wanted, since one could not be read.
    pub(super) fn profile(&self, graph: usize) -> Option<PathBuf> {
        self.seen.is_ok().then(|| self.directory.path().join(format!("graph{graph}")))
    }

    /// Reads a profile that was ended.
    pub(super) fn ended(&mut self, file: ort::Result<String>) {
        let placed = file.map_err(|error| PlacementError::Format(error.to_string())).and_then(|file| {
            let placed = read_profile(Path::new(&file));
            let _ = std::fs::remove_file(file);
            placed
        });
        match placed {
            Ok(placed) => {
                self.seen = std::mem::replace(&mut self.seen, Ok(Placement::default())).map(|s| s.with(placed))
            }
            // Nothing is left of the graph that could run anywhere.
            Err(PlacementError::Empty) => {}
            Err(error) => self.seen = Err(error),
        }
    }

    /// Where nodes ran so far, or why that is not known.
    pub(super) fn seen(&self) -> Result<&Placement, &PlacementError> {
        self.seen.as_ref()
    }
}
