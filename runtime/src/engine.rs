//! Sessions: one per graph, made when first used and kept, all of them or the last used ones.
//!
//! What graphs hand to each other stays in the memory of the provider that runs them ([`residence()`]): there a run binds its inputs and
//! outputs. The CPU's memory is the host's, so that nothing needs to be bound.

mod bound;
pub mod boundary;
mod inputs;
mod kept;
mod opener;
mod pool;
mod residence;
mod shared;
mod watch;

use std::{collections::HashMap, io, mem, num::NonZeroUsize, path::PathBuf};

use nasbn_models::manifest::{Graph, Lowering, Manifest, NamedPort, Owner, Port, Role};
use ort::session::Session;

use crate::{
    memory::{Bytes, MARGIN_BYTES, resident},
    provider::{Backend, Placement, PlacementError, Precision, ProviderError},
};
use bound::Memories;
use inputs::Inputs;
use kept::Kept;
use shared::Tensors;
use watch::Watch;

pub use opener::{Model, Opener};
pub use residence::{Residence, residence};
pub use shared::{Feed, SharedTensor};

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
    /// The process comes near to where the system ends it; see [`Engine::stop_at`].
    #[error(
        "what the work takes cannot be found out: it is more than {}, and at {} the system ends this process",
        Bytes(*taken), Bytes(*limit)
    )]
    NoRoom {
        /// What the process takes that the kernel cannot drop, and is about to take, bytes.
        taken: u64,
        /// Where it is ended, bytes.
        limit: u64,
    },
    /// A tensor that only graphs read was to be read here.
    #[error("a tensor is in the provider's memory, where only graphs can read it")]
    NotOnHost,
    /// The provider runs nothing ([`Engine::watch_placement`]).
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// It cannot be seen where nodes run.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// What to do where a graph fails: a board has no `nasbn-export`.
pub const CHECK: &str = "check the library with `nasbn doctor`, and the bundle: on a board with `sha256sum -c SHA256SUMS` in its \
                         package, on a desktop with `nasbn-export check DIR`";

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
    role: Role,
    inputs: Vec<NamedPort>,
    outputs: Vec<NamedPort>,
    session: Option<Session>,
    /// Whether the session keeps a profile, as it does until it has run once.
    profiled: bool,
    /// Whether it was seen where its nodes run.
    seen: bool,
}

/// Runs the graphs of a bundle.
pub struct Engine {
    opener: Opener,
    /// Where values live; none if all of them are the host's.
    memories: Option<Memories>,
    tensors: Tensors,
    entries: Vec<Entry>,
    index: HashMap<(Owner, Role, Lowering), GraphId>,
    kept: Kept,
    watch: Option<Watch>,
    limit: Option<u64>,
    sessions: usize,
    runs: u64,
    fetches: u64,
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
            role: graph.role,
            inputs: graph.inputs.clone(),
            outputs: graph.outputs.clone(),
            session: None,
            profiled: false,
            seen: false,
        };
        let index = manifest.graphs.iter().enumerate().map(|(i, g)| ((g.owner, g.role, g.lowering), i)).collect();
        let opener = Opener::new(backend)?;
        Ok(Self {
            memories: opener.backend().is_bound().then(|| Memories::of(opener.backend())).transpose()?,
            opener,
            tensors: Tensors::new(),
            entries: manifest.graphs.iter().map(entry).collect(),
            index,
            kept: Kept::new(manifest.graphs.len()),
            watch: None,
            limit: None,
            sessions: 0,
            runs: 0,
            fetches: 0,
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

    /// Number of sessions made so far, those that were closed since among them.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Number of sessions that are open.
    pub fn kept_sessions(&self) -> usize {
        self.kept.count()
    }

    /// Keeps at most `limit` sessions open from now on: the least recently used is closed before one more is made, and made
    /// again when its graph is run again. Results are the same with any limit. Without this call there is none. The two graphs at
    /// most that only copy to the host are not counted.
    pub fn keep_sessions(&mut self, limit: NonZeroUsize) {
        self.kept.bound(limit);
        self.close_for(0);
    }

    /// From now on no graph is run once the process takes nearly so many bytes that the kernel cannot drop ([`EngineError::NoRoom`]); none for whatever
    /// it takes. It costs a look at what the kernel tells for every graph.
    pub fn stop_at(&mut self, limit: Option<u64>) {
        self.limit = limit;
    }

    /// Closes what must go before `coming` more sessions are made.
    fn close_for(&mut self, coming: usize) {
        while let Some(graph) = self.kept.excess(coming) {
            self.entries[graph].session = None;
        }
    }

    /// From now on the first run of every graph that has no session yet is profiled, to tell where its nodes run. What is
    /// computed stays the same. If of the first graphs the provider has run no node, or a profile cannot be read, a run fails.
    ///
    /// # Errors
    /// If there is no place for profiles.
    pub fn watch_placement(&mut self) -> io::Result<()> {
        self.watch = Some(Watch::begin()?);
        Ok(())
    }

    /// Where the nodes of the graphs that ran since [`Engine::watch_placement`] ran, each graph counted once; none without
    /// that call.
    pub fn placement(&self) -> Option<&Placement> {
        self.watch.as_ref().map(Watch::seen)
    }

    /// Number of graphs run so far.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// Number of tensors copied from the provider's memory so far, each of which waits for the provider: see
    /// [`Engine::on_host`].
    pub fn fetches(&self) -> u64 {
        self.fetches
    }

    /// A tensor of zeros on the host.
    ///
    /// # Errors
    /// If ONNX Runtime refuses its dimensions.
    pub fn zeros(&self, dims: &[usize]) -> Result<SharedTensor, EngineError> {
        SharedTensor::zeros(&self.tensors, dims)
    }

    /// Runs a graph; `input` gives the value of every input port, and `output` takes that of every output port, in order.
    ///
    /// # Errors
    /// If the session cannot be made or fails, or `input` or `output` does.
    pub fn run<'v>(
        &mut self,
        graph: GraphId,
        mut input: impl FnMut(Port) -> Result<Feed<'v>, EngineError>,
        mut output: impl FnMut(Port, SharedTensor) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        room_for(0, self.limit)?;
        self.open(graph)?;
        self.runs += 1;
        let Entry { file, role, inputs, outputs, session, profiled, seen } = &mut self.entries[graph];
        let failed = |e: ort::Error| EngineError::Run { file: file.clone(), reason: e.to_string() };
        let Some(session) = session else {
            return Err(EngineError::Run { file: file.clone(), reason: "it was not opened".into() });
        };
        let binding;
        let values = match &self.memories {
            Some(memories) => {
                let place = |port| residence(*role, port);
                binding = memories.bind(session, inputs, outputs, &mut input, place, &failed)?;
                boundary::onnx_runtime(|| session.run_binding(&binding))
            }
            None => {
                let mut given = Inputs::new(inputs.len());
                for named in inputs.iter() {
                    given.push(input(named.port)?.view()?);
                }
                boundary::onnx_runtime(|| session.run(given.as_slice()))
            }
        };
        let mut values = values.map_err(failed)?.into_iter();
        let given = outputs.iter().try_for_each(|named| {
            let (_, value) = boundary::onnx_runtime(|| values.next()).ok_or_else(too_few)?;
            let placed = if self.memories.is_some() { residence(*role, named.port) } else { Residence::Host };
            output(named.port, SharedTensor::new(&self.tensors, value, placed))
        });
        drop(values);
        if mem::take(profiled)
            && let Some(watch) = &mut self.watch
        {
            *seen = true;
            watch.ended(session.end_profiling(), self.opener.backend().provider)?;
        }
        given
    }

    /// A tensor that the host can read: itself, or a copy of what is in the provider's memory.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn on_host(&mut self, tensor: SharedTensor) -> Result<SharedTensor, EngineError> {
        match (&mut self.memories, tensor.residence()) {
            (Some(memories), Residence::Device) => {
                self.fetches += 1;
                let copied = memories.fetch(tensor.value()?)?;
                Ok(SharedTensor::new(&self.tensors, copied, Residence::Host))
            }
            _ => Ok(tensor),
        }
    }

    fn open(&mut self, graph: GraphId) -> Result<(), EngineError> {
        if self.entries[graph].session.is_none() {
            self.close_for(1);
            let entry = &mut self.entries[graph];
            let file = &entry.file;
            let precision = match entry.role {
                Role::Evaluate | Role::Inference => self.opener.backend().precision,
                // Gradients lose too much in half precision.
                _ => Precision::Fp32,
            };
            let watch = if entry.seen { None } else { self.watch.as_ref() };
            let profile = watch.map(|watch| watch.profile(graph));
            let session = boundary::onnx_runtime(|| self.opener.open(Model::File(file), profile.as_deref(), precision));
            let session = session.map_err(|e| EngineError::Load { file: file.clone(), reason: e.to_string() })?;
            let fits = session.inputs().iter().map(|i| i.name()).eq(entry.inputs.iter().map(|i| i.name.as_str()))
                && session.outputs().iter().map(|o| o.name()).eq(entry.outputs.iter().map(|o| o.name.as_str()));
            if !fits {
                let problem = format!("{} has other inputs or outputs than the manifest", file.display());
                return Err(EngineError::Contents(problem));
            }
            entry.profiled = profile.is_some();
            entry.session = Some(session);
            self.sessions += 1;
        }
        self.kept.using(graph);
        Ok(())
    }
}

/// Refuses work that would take `coming` bytes more and come near to `limit`, where the system ends the process; nothing where
/// there is none.
///
/// # Errors
/// [`EngineError::NoRoom`].
pub fn room_for(coming: u64, limit: Option<u64>) -> Result<(), EngineError> {
    let Some(limit) = limit else { return Ok(()) };
    let taken = resident().map_or(0, |resident| resident.anonymous).saturating_add(coming);
    if taken.saturating_add(MARGIN_BYTES) > limit { Err(EngineError::NoRoom { taken, limit }) } else { Ok(()) }
}

fn too_few() -> EngineError {
    EngineError::Tensor("a graph gave fewer values than it has outputs".into())
}
