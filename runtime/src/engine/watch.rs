//! Where nodes run, seen while they do: the first run of each graph is profiled.

use std::{
    fs, io, mem,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::provider::{Placement, PlacementError, Provider, read_profile};

use super::EngineError;

/// Graphs after which the provider must have run a node: a network has more, and of one or two it may know no operator.
const GRAPHS: u32 = 4;

/// Profiles of first runs.
#[derive(Debug)]
pub(super) struct Watch {
    /// Where they are written; each is gone once it is read.
    directory: TempDir,
    seen: Placement,
    graphs: u32,
}

impl Watch {
    /// Nothing was seen yet.
    pub(super) fn begin() -> io::Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, seen: Placement::default(), graphs: 0 })
    }

    /// What the name of a graph's profile begins with.
    pub(super) fn profile(&self, graph: usize) -> PathBuf {
        self.directory.path().join(format!("graph{graph}"))
    }

    /// Reads a profile that was ended, and judges what was seen so far.
    ///
    /// # Errors
    /// If it cannot be read, or if after some graphs `provider` has run nothing.
    pub(super) fn ended(&mut self, file: ort::Result<String>, provider: Provider) -> Result<(), EngineError> {
        let file = file.map_err(|error| PlacementError::Format(error.to_string()))?;
        let placed = read_profile(Path::new(&file));
        let _ = fs::remove_file(file);
        match placed {
            // Nothing is left of the graph that could run anywhere.
            Err(PlacementError::Empty) => return Ok(()),
            placed => self.seen = mem::take(&mut self.seen).with(placed?),
        }
        self.graphs += 1;
        if self.graphs >= GRAPHS {
            self.seen.check(provider, "the first graphs")?;
        }
        Ok(())
    }

    /// Where nodes ran so far.
    pub(super) fn seen(&self) -> &Placement {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A profile of one node.
    fn ended(watch: &mut Watch, graph: usize, provider: &str) -> Result<(), EngineError> {
        let file = watch.profile(graph);
        let node = format!(
            r#"[{{"cat":"Node","name":"a{graph}","args":{{"op_name":"Conv","provider":"{provider}ExecutionProvider"}}}}]"#
        );
        fs::write(&file, node).unwrap();
        let ended = watch.ended(Ok(file.to_str().unwrap().to_owned()), Provider::Cuda);
        assert!(!file.exists());
        ended
    }

    #[test]
    fn a_provider_that_runs_nothing_is_an_error_before_much_is_done() {
        let mut watch = Watch::begin().unwrap();
        (1..4).for_each(|graph| ended(&mut watch, graph, "CPU").unwrap());
        let error = ended(&mut watch, 4, "CPU").unwrap_err();
        assert!(error.to_string().contains("cuda ran no node of the first graphs"), "{error}");
        // One node there is enough, wherever the others run.
        let mut watch = Watch::begin().unwrap();
        (1..4).for_each(|graph| ended(&mut watch, graph, "CPU").unwrap());
        (4..9).for_each(|graph| ended(&mut watch, graph, if graph == 4 { "CUDA" } else { "CPU" }).unwrap());
        assert_eq!(watch.seen().nodes().into_iter().collect::<Vec<_>>(), [("cpu", 7), ("cuda", 1)]);
    }

    #[test]
    fn a_profile_that_cannot_be_read_is_an_error_and_one_of_no_node_is_not() {
        let mut watch = Watch::begin().unwrap();
        let file = watch.profile(1).to_str().unwrap().to_owned();
        let ended = |watch: &mut Watch| watch.ended(Ok(file.clone()), Provider::Cuda);
        assert!(matches!(ended(&mut watch), Err(EngineError::Placement(PlacementError::Io(_)))));
        fs::write(&file, "[]").unwrap();
        ended(&mut watch).unwrap();
        fs::write(&file, "no profile").unwrap();
        assert!(matches!(ended(&mut watch), Err(EngineError::Placement(PlacementError::Format(_)))));
        assert_eq!(watch.seen(), &Placement::default());
    }
}
