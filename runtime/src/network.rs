//! Runs a path of the supernet: its operators one after another, forwards and backwards.

mod backward;
mod held;
mod jacobian;
mod linear;
mod spare;
mod tape;
mod trail;
mod walk;

use spare::Spare;
use tape::{Tape, Tapes};
use trail::Steps;

pub use jacobian::{Jacobian, SignAgreement, SlotJacobian};

use std::{collections::HashMap, io, mem, num::NonZeroUsize, ops::Range, path::Path as FsPath};

use nasbn_models::{
    Manifest, Path, Primitive, Program, Supernet,
    manifest::{Lowering, MemoryMode, Owner, Port, Role},
};
use ndarray::ArrayView4;

use crate::{
    engine::{Engine, EngineError, Feed, Opener, SharedTensor},
    ort_library,
    parameters::{BnParameters, Layout, Statistics},
    provider::{Backend, Placement, Provider},
};

pub use linear::Linear;
pub use trail::{Trail, Transfer, operators};

/// How a network is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// What backward passes keep of forward passes.
    pub memory: MemoryMode,
    /// Which graphs are run; falls back to portable ones where a bundle has no others.
    pub lowering: Lowering,
}

/// A forward pass with batch statistics.
pub struct Pass {
    /// Logits `[N, classes]`, where graphs leave them: in the provider's memory, if it has one. [`Network::loss`] takes them
    /// from there; [`Network::logits`] gives them to the host.
    pub logits: SharedTensor,
    path: Path,
    tapes: Tapes,
    /// Which graphs the tapes are for.
    memory: MemoryMode,
}

impl Pass {
    /// The path that was run.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Loss of a batch and its gradient.
pub struct LossOutput {
    /// Mean softmax cross-entropy, nats.
    pub loss: f32,
    sample_loss: SharedTensor,
    dlogits: SharedTensor,
}

impl LossOutput {
    /// Loss of every sample, nats.
    ///
    /// # Errors
    /// If the graph gave no float32 numbers.
    pub fn sample_loss(&self) -> Result<&[f32], EngineError> {
        self.sample_loss.read().map(|(_, numbers)| numbers)
    }
}

/// A supernet with its sessions.
pub struct Network {
    supernet: Supernet,
    layout: Layout,
    engine: Engine,
    programs: HashMap<(usize, u8), Program>,
    options: NetworkOptions,
    /// Which graphs inference with given statistics uses.
    evaluation: Lowering,
    /// Epsilon of every BatchNorm.
    epsilon: f32,
    spare: Spare,
}

impl Network {
    /// A network of the verified bundle in `directory`. The fused lowering is for the CPU only: with another provider
    /// `options` must ask for the portable one.
    ///
    /// # Errors
    /// If the engine cannot be made.
    pub fn new(
        backend: impl Into<Backend>,
        directory: &FsPath,
        manifest: &Manifest,
        options: NetworkOptions,
    ) -> Result<Self, EngineError> {
        let supernet = manifest.supernet.clone();
        let mut programs = HashMap::new();
        for (e, edge) in supernet.edges.iter().enumerate() {
            for &operator in supernet.candidates(edge) {
                programs.insert((e, operator), supernet.program(e, operator).unwrap_or_default());
            }
        }
        let engine = Engine::new(backend, directory, manifest)?;
        let evaluation = options.lowering;
        let (layout, epsilon) = (Layout::new(&supernet), manifest.epsilon());
        let spare = Spare::default();
        let mut network = Self { layout, supernet, engine, programs, options, evaluation, epsilon, spare };
        if !network.has_fused(Role::Backward(options.memory)) {
            network.options.lowering = Lowering::Portable;
        }
        if !network.has_fused(Role::Evaluate) {
            network.evaluation = Lowering::Portable;
        }
        Ok(network)
    }

    /// The supernet.
    pub fn supernet(&self) -> &Supernet {
        &self.supernet
    }

    /// Layout of its BatchNorms.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Options in force.
    pub fn options(&self) -> NetworkOptions {
        self.options
    }

    /// Library, threads and provider in words; none if nothing was loaded. Two that differ may round otherwise.
    pub fn runs_on(&self) -> Option<String> {
        let Backend { provider, precision, .. } = self.engine.backend();
        let library = ort_library::in_use()?;
        Some(if *provider == Provider::Cpu { library } else { format!("{library} ({provider}, {precision})") })
    }

    /// An opener of more sessions in the network's environment.
    ///
    /// # Errors
    /// If the fused operators cannot be registered again.
    pub fn opener(&self) -> Result<Opener, EngineError> {
        self.engine.opener()
    }

    /// Number of sessions made so far, those that were closed since among them.
    pub fn sessions(&self) -> usize {
        self.engine.sessions()
    }

    /// Number of sessions that are open.
    pub fn kept_sessions(&self) -> usize {
        self.engine.kept_sessions()
    }

    /// Keeps at most `limit` sessions open from now on, the last used ones; see [`Engine::keep_sessions`]. Without this call
    /// every session that was made is kept.
    pub fn keep_sessions(&mut self, limit: NonZeroUsize) {
        self.engine.keep_sessions(limit);
    }

    /// From now on it is seen where nodes run; see [`Engine::watch_placement`].
    ///
    /// # Errors
    /// If there is no place for profiles.
    pub fn watch_placement(&mut self) -> io::Result<()> {
        self.engine.watch_placement()
    }

    /// Where the nodes of the graphs that ran so far ran, if that is watched; see [`Engine::placement`].
    pub fn placement(&self) -> Option<&Placement> {
        self.engine.placement()
    }

    /// Stops before the process takes so many bytes; see [`Engine::stop_at`].
    pub fn stop_at(&mut self, limit: Option<u64>) {
        self.engine.stop_at(limit);
    }

    /// Number of graphs run so far.
    pub fn runs(&self) -> u64 {
        self.engine.runs()
    }

    /// Number of tensors copied from the provider's memory for the host so far; see [`Engine::fetches`].
    pub fn fetches(&self) -> u64 {
        self.engine.fetches()
    }

    /// Logits of a pass, `[N, classes]`, which the host can read: the pass's own, or a copy of what is in the provider's memory.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn logits(&mut self, pass: &Pass) -> Result<SharedTensor, EngineError> {
        self.engine.on_host(pass.logits.clone())
    }

    /// Whether every operator has a fused graph of `role`, and none passes the image on unchanged
    /// (which is laid out otherwise).
    fn has_fused(&self, role: Role) -> bool {
        self.programs.iter().filter(|(_, program)| !program.is_absent()).all(|(&(edge, operator), program)| {
            let owner = Owner::Operator { edge: edge as u16, operator };
            match passes_on(program) {
                true => self.supernet.edges[edge].from != 0,
                false => self.engine.get(owner, role, Lowering::Fused).is_some(),
            }
        })
    }

    fn owner(edge: usize, operator: u8) -> Owner {
        Owner::Operator { edge: edge as u16, operator }
    }

    /// Forward pass with batch statistics, which are written to `statistics`.
    /// `images` is `[N, C, H, W]`. With `keep`, the pass holds what [`Network::backward`] needs.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn forward(
        &mut self,
        path: &Path,
        parameters: &BnParameters,
        images: ArrayView4<'_, f32>,
        statistics: &mut Statistics,
        keep: bool,
    ) -> Result<Pass, EngineError> {
        let memory = if keep { self.options.memory } else { MemoryMode::Lean };
        self.forward_in(self.logits_node(), path, parameters, images, statistics, (memory, keep), None)
    }

    /// The value of the node that the last edge (the head) starts from, by a forward pass with batch
    /// statistics, which are written to `statistics`; the host can read it. Its layout is that of the graphs in use.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn features(
        &mut self,
        path: &Path,
        parameters: &BnParameters,
        images: ArrayView4<'_, f32>,
        statistics: &mut Statistics,
    ) -> Result<SharedTensor, EngineError> {
        let node = self.supernet.edges.last().map_or(0, |edge| usize::from(edge.from));
        let keeping = (MemoryMode::Lean, false);
        let pass = self.forward_in(node, path, parameters, images, statistics, keeping, None)?;
        self.engine.on_host(pass.logits)
    }

    /// As [`Network::forward`], but the pass holds what [`Network::jacobian`] and [`Network::sign_agreement`] need
    /// (and [`Network::backward`] too), whatever memory mode the network trains in.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn forward_for_indicators(
        &mut self,
        path: &Path,
        parameters: &BnParameters,
        images: ArrayView4<'_, f32>,
        statistics: &mut Statistics,
    ) -> Result<Pass, EngineError> {
        self.forward_in(self.logits_node(), path, parameters, images, statistics, (MemoryMode::Fast, true), None)
    }

    /// The last node.
    fn logits_node(&self) -> usize {
        self.supernet.nodes.len().saturating_sub(1)
    }

    /// Forward pass as far as a node, whose value takes the place of the logits. With `steps`, it begins at their end.
    #[allow(clippy::too_many_arguments)]
    fn forward_in(
        &mut self,
        node: usize,
        path: &Path,
        parameters: &BnParameters,
        images: ArrayView4<'_, f32>,
        statistics: &mut Statistics,
        (memory, keep): (MemoryMode, bool),
        mut steps: Option<&mut Steps>,
    ) -> Result<Pass, EngineError> {
        let mut tapes = mem::take(&mut self.spare.tapes);
        tapes.clear();
        if let Some(steps) = steps.as_deref() {
            tapes.take_before(usize::MAX, &steps.tapes);
        }
        let mut run = |network: &mut Self, edge: usize, operator: u8, x: &SharedTensor| {
            let tapes = keep.then_some(&mut tapes);
            network.forward_edge(memory, (edge, operator), x, parameters, statistics, tapes)
        };
        let logits = self.walk(node, path, images, self.options.lowering, steps.as_deref_mut(), &mut run)?;
        if let Some(steps) = steps {
            steps.tapes.take_before(steps.upto, &tapes);
        }
        if !keep {
            self.spare.tapes = mem::take(&mut tapes);
        }
        Ok(Pass { logits, path: path.clone(), tapes, memory })
    }

    /// Output of an operator on an edge with batch statistics, which are written to `statistics`; what graphs that go back
    /// through it take is kept in `tapes`.
    fn forward_edge(
        &mut self,
        memory: MemoryMode,
        (edge, operator): (usize, u8),
        x: &SharedTensor,
        parameters: &BnParameters,
        statistics: &mut Statistics,
        mut tapes: Option<&mut Tapes>,
    ) -> Result<SharedTensor, EngineError> {
        let owner = Self::owner(edge, operator);
        let graph = self.engine.find(owner, Role::Forward(memory), self.options.lowering)?;
        if let Some(tapes) = tapes.as_deref_mut() {
            let backward = self.engine.find(owner, Role::Backward(memory), self.options.lowering)?;
            let takes_x = self.engine.inputs(backward).any(|port| port == Port::X);
            tapes.begin(edge, operator, takes_x.then(|| x.clone()));
        }
        let layout = &self.layout;
        let bn = |i: u16| slot(layout, edge, operator, i);
        let input = |port| match port {
            Port::X => Ok(Feed::Tensor(x)),
            Port::Gamma(i) => Ok(Feed::Numbers(&parameters.gamma[bn(i)?])),
            Port::Beta(i) => Ok(Feed::Numbers(&parameters.beta[bn(i)?])),
            other => Err(unexpected(other)),
        };
        let mut y = None;
        self.engine.run(graph, input, |port, value| {
            match port {
                Port::Y => y = Some(value),
                Port::Mean(i) => copy(&value, &mut statistics.mean[bn(i)?])?,
                Port::Var(i) => copy(&value, &mut statistics.var[bn(i)?])?,
                port => {
                    if let Some(tapes) = tapes.as_deref_mut() {
                        tapes.save(port, value);
                    }
                }
            }
            Ok(())
        })?;
        y.ok_or_else(|| unexpected(Port::Y))
    }

    /// Inference with the given statistics: logits `[N, classes]` for `images` `[N, C, H, W]`, which the host can read.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn evaluate(
        &mut self,
        path: &Path,
        parameters: &BnParameters,
        statistics: &Statistics,
        images: ArrayView4<'_, f32>,
    ) -> Result<SharedTensor, EngineError> {
        self.evaluate_in(path, parameters, statistics, images, None)
    }

    /// As [`Network::evaluate`]; with `steps`, from their end.
    fn evaluate_in(
        &mut self,
        path: &Path,
        parameters: &BnParameters,
        statistics: &Statistics,
        images: ArrayView4<'_, f32>,
        steps: Option<&mut Steps>,
    ) -> Result<SharedTensor, EngineError> {
        let mut run = |network: &mut Self, edge: usize, operator: u8, x: &SharedTensor| {
            let graph = network.engine.find(Self::owner(edge, operator), Role::Evaluate, network.evaluation)?;
            let layout = &network.layout;
            let bn = |i: u16| slot(layout, edge, operator, i);
            let input = |port| match port {
                Port::X => Ok(Feed::Tensor(x)),
                Port::Gamma(i) => Ok(Feed::Numbers(&parameters.gamma[bn(i)?])),
                Port::Beta(i) => Ok(Feed::Numbers(&parameters.beta[bn(i)?])),
                Port::Mean(i) => Ok(Feed::Numbers(&statistics.mean[bn(i)?])),
                Port::Var(i) => Ok(Feed::Numbers(&statistics.var[bn(i)?])),
                other => Err(unexpected(other)),
            };
            let mut y = None;
            network.engine.run(graph, input, |port, value| take(port, value, Port::Y, &mut y))?;
            y.ok_or_else(|| unexpected(Port::Y))
        };
        let logits = self.walk(self.logits_node(), path, images, self.evaluation, steps, &mut run)?;
        self.engine.on_host(logits)
    }

    /// Mean softmax cross-entropy of logits `[N, classes]`, wherever they are, against class indices `[N]`.
    ///
    /// # Errors
    /// If the graph fails (a label that is no class, a wrong number of labels).
    pub fn loss(&mut self, logits: &SharedTensor, labels: &[i64]) -> Result<LossOutput, EngineError> {
        let classes = i64::from(self.supernet.classes());
        if labels.iter().any(|&label| !(0..classes).contains(&label)) {
            return Err(EngineError::Tensor(format!("labels must be 0 to {}", classes - 1)));
        }
        let graph = self.engine.find(Owner::Network, Role::Loss, Lowering::Portable)?;
        let input = |port| match port {
            Port::Logits => Ok(Feed::Tensor(logits)),
            Port::Labels => Ok(Feed::Labels(labels)),
            other => Err(unexpected(other)),
        };
        let (mut loss, mut sample_loss, mut dlogits) = (f32::NAN, None, None);
        self.engine.run(graph, input, |port, value| {
            match port {
                Port::Loss => loss = value.read()?.1.first().copied().unwrap_or(f32::NAN),
                Port::SampleLoss => sample_loss = Some(value),
                Port::DLogits => dlogits = Some(value),
                other => return Err(unexpected(other)),
            }
            Ok(())
        })?;
        let sample_loss = sample_loss.ok_or_else(|| unexpected(Port::SampleLoss))?;
        let dlogits = dlogits.ok_or_else(|| unexpected(Port::DLogits))?;
        Ok(LossOutput { loss, sample_loss, dlogits })
    }
}

/// Whether a program is nothing but its input.
fn passes_on(program: &Program) -> bool {
    program.steps.len() == 1 && program.steps[0].primitive == Primitive::Input
}

/// Channels of an operator's n-th BatchNorm in the flat vectors.
fn slot(layout: &Layout, edge: usize, operator: u8, bn: u16) -> Result<Range<usize>, EngineError> {
    let slot = layout.operator(edge, operator).nth(usize::from(bn)).and_then(|slot| layout.slots().get(slot));
    let missing = || EngineError::Contents(format!("operator {operator} on edge {edge} has no BatchNorm {bn}"));
    slot.map(|slot| slot.range.clone()).ok_or_else(missing)
}

fn unexpected(port: Port) -> EngineError {
    EngineError::Contents(format!("a graph has or lacks the port {port:?} against its role"))
}

fn copy(value: &SharedTensor, to: &mut [f32]) -> Result<(), EngineError> {
    let (_, from) = value.read()?;
    if from.len() != to.len() {
        return Err(EngineError::Tensor(format!("a graph gave {} numbers where {} were due", from.len(), to.len())));
    }
    to.copy_from_slice(from);
    Ok(())
}

/// Takes the value of the port that is wanted, and leaves others.
fn take(port: Port, value: SharedTensor, wanted: Port, to: &mut Option<SharedTensor>) -> Result<(), EngineError> {
    if port == wanted {
        *to = Some(value);
    }
    Ok(())
}
