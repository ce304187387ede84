//! Sessions: one per graph, made when first used and kept.

mod opener;

use std::{collections::HashMap, num::NonZeroUsize, path::PathBuf};

use nasbn_models::manifest::{Graph, Lowering, Manifest, NamedPort, Owner, Port, Role};
use ort::{
    session::{Session, SessionInputValue},
    value::DynValue,
};

use crate::provider::Backend;

pub use opener::{Model, Opener};

/// Index of a graph in the manifest.
pub type GraphId = usize;

/// Why a graph does not run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The bundle has no such graph.
    #[error("the bundle has no {role:?} graph for {owner:?}")]
    MissingGraph {
        /// What was wanted.
        role: Role,
        /// For what.
        owner: Owner,
    },
    /// ONNX Runtime refuses a graph.
    #[error("ONNX Runtime cannot load {}: {reason}", file.display())]
    Load {
        /// Path of the graph.
        file: PathBuf,
        /// What it says.
        reason: String,
    },
    /// A graph fails while running.
    #[error("{} failed: {reason}", file.display())]
    Run {
        /// Path of the graph.
        file: PathBuf,
        /// What ONNX Runtime says.
        reason: String,
    },
    /// A BatchNorm's parameter or statistic is NaN or infinite.
    #[error("{what} of {name} is not finite")]
    NotFinite {
        /// Which of them.
        what: &'static str,
        /// Key of the BatchNorm.
        name: String,
    },
    /// The bundle's graphs are not those of its supernet.
    #[error("the bundle's graphs do not fit its supernet: {0}")]
    Contents(String),
    /// A tensor could not be made or read.
    #[error("a tensor could not be used: {0}")]
    Tensor(String),
}

impl EngineError {
    /// Whether the bundle is to blame, and not the library or the machine: every library that is spoken to loads
    /// the graphs that the exporter writes.
    pub fn is_of_bundle(&self) -> bool {
        matches!(self, Self::MissingGraph { .. } | Self::Load { .. } | Self::Contents(_))
    }
}

impl From<ort::Error> for EngineError {
    fn from(error: ort::Error) -> Self {
        Self::Tensor(error.to_string())
    }
}

struct Entry {
    file: PathBuf,
    inputs: Vec<NamedPort>,
    outputs: Vec<NamedPort>,
    session: Option<Session>,
    /// Number of the run that used it last.
    used: u64,
}

/// Runs the graphs of a bundle.
pub struct Engine {
    opener: Opener,
    entries: Vec<Entry>,
    index: HashMap<(Owner, Role, Lowering), GraphId>,
    sessions: usize,
    runs: u64,
    /// Most sessions that are kept.
    limit: Option<NonZeroUsize>,
}

impl Engine {
    /// An engine for the graphs of `manifest` in `directory`. No session is made yet.
    ///
    /// # Errors
    /// If the fused operators cannot be registered.
    pub fn new(
        backend: impl Into<Backend>,
        directory: &std::path::Path,
        manifest: &Manifest,
    ) -> Result<Self, EngineError> {
        let entry = |graph: &Graph| Entry {
            file: directory.join(&manifest.files[graph.file as usize].name),
            inputs: graph.inputs.clone(),
            outputs: graph.outputs.clone(),
            session: None,
            used: 0,
        };
        let index = manifest.graphs.iter().enumerate().map(|(i, g)| ((g.owner, g.role, g.lowering), i)).collect();
        Ok(Self {
            opener: Opener::new(backend)?,
            entries: manifest.graphs.iter().map(entry).collect(),
            index,
            sessions: 0,
            runs: 0,
            limit: None,
        })
    }

    /// The graph of `role` for `owner` in `lowering`; of the portable lowering if it has no other.
    ///
    /// # Errors
    /// If the bundle has none.
    pub fn find(&self, owner: Owner, role: Role, lowering: Lowering) -> Result<GraphId, EngineError> {
        self.get(owner, role, lowering)
            .or_else(|| self.get(owner, role, Lowering::Portable))
            .ok_or(EngineError::MissingGraph { role, owner })
    }

    /// The graph of `role` for `owner` in exactly `lowering`.
    pub fn get(&self, owner: Owner, role: Role, lowering: Lowering) -> Option<GraphId> {
        self.index.get(&(owner, role, lowering)).copied()
    }

    /// Inputs of a graph, in order.
    pub fn inputs(&self, graph: GraphId) -> impl Iterator<Item = Port> + '_ {
        self.entries[graph].inputs.iter().map(|p| p.port)
    }

    /// An opener of more sessions in the same environment.
    ///
    /// # Errors
    /// If the fused operators cannot be registered again.
    pub fn opener(&self) -> Result<Opener, EngineError> {
        Ok(Opener::new(self.opener.backend().clone())?)
    }

    /// Where its sessions run.
    pub fn backend(&self) -> &Backend {
        self.opener.backend()
    }

    /// Number of sessions made so far.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Keeps at most `limit` sessions from now on: those that were used last.
    pub fn keep_sessions(&mut self, limit: NonZeroUsize) {
        self.limit = Some(limit);
        self.close(limit.get());
    }

    /// Number of sessions that are open.
    pub fn kept(&self) -> usize {
        self.entries.iter().filter(|entry| entry.session.is_some()).count()
    }

    /// Closes sessions, those first that were used least recently, until `most` are left.
    fn close(&mut self, most: usize) {
        for _ in most..self.kept() {
            let open = self.entries.iter_mut().filter(|entry| entry.session.is_some());
            if let Some(oldest) = open.min_by_key(|entry| entry.used) {
                oldest.session = None;
            }
        }
    }

    /// Number of graphs run so far.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// Runs a graph; `input` gives the value of every input port. Returns the outputs in order.
    ///
    /// # Errors
    /// If the session cannot be made or fails, or `input` does.
    pub fn run<'v>(
        &mut self,
        graph: GraphId,
        mut input: impl FnMut(Port) -> Result<SessionInputValue<'v>, EngineError>,
    ) -> Result<Vec<(Port, DynValue)>, EngineError> {
        self.open(graph)?;
        self.runs += 1;
        let entry = &mut self.entries[graph];
        entry.used = self.runs;
        let inputs = entry.inputs.iter().map(|p| input(p.port)).collect::<Result<Vec<_>, _>>()?;
        let failed = |e: ort::Error| EngineError::Run { file: entry.file.clone(), reason: e.to_string() };
        let Some(session) = &mut entry.session else {
            return Err(EngineError::Run { file: entry.file.clone(), reason: "it was not opened".into() });
        };
        let outputs = session.run(inputs.as_slice()).map_err(failed)?;
        Ok(entry.outputs.iter().map(|p| p.port).zip(outputs.into_iter().map(|(_, value)| value)).collect())
    }

    fn open(&mut self, graph: GraphId) -> Result<(), EngineError> {
        if let (Some(limit), None) = (self.limit, &self.entries[graph].session) {
            self.close(limit.get() - 1);
        }
        let entry = &mut self.entries[graph];
        if entry.session.is_none() {
            let file = entry.file.clone();
            let session =
                self.opener.file(&file).map_err(|e| EngineError::Load { file: file.clone(), reason: e.to_string() })?;
            let fits = session.inputs().iter().map(|i| i.name()).eq(entry.inputs.iter().map(|i| i.name.as_str()))
                && session.outputs().iter().map(|o| o.name()).eq(entry.outputs.iter().map(|o| o.name.as_str()));
            if !fits {
                let problem = format!("{} has other inputs or outputs than the manifest", file.display());
                return Err(EngineError::Contents(problem));
            }
            entry.session = Some(session);
            self.sessions += 1;
        }
        Ok(())
    }
}
