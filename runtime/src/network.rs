//! Runs a path of the supernet: its operators one after another, forwards and backwards.

mod held;
mod jacobian;
mod linear;
mod trail;
mod walk;

use trail::Steps;

pub use jacobian::{Jacobian, SignAgreement, SlotJacobian};

use std::{collections::HashMap, num::NonZeroUsize, ops::Range, path::Path as FsPath, rc::Rc};

use nasbn_models::{
    Manifest, Path, Primitive, Program, Supernet,
    manifest::{Lowering, MemoryMode, Owner, Port, Role},
};
use ndarray::ArrayView4;
use ort::{
    session::SessionInputValue,
    value::{DynValue, TensorRef},
};

use crate::{
    engine::{Engine, EngineError, Opener},
    ort_library,
    parameters::{BnParameters, Layout, Statistics},
    provider::{Backend, Provider},
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

/// What a forward graph keeps for others.
type Saved = Vec<(Port, DynValue)>;

/// What an edge leaves for the backward pass.
struct Tape {
    edge: usize,
    operator: u8,
    x: Option<Rc<DynValue>>,
    saved: Saved,
}

/// A forward pass with batch statistics.
pub struct Pass {
    /// Logits `[N, classes]`.
    pub logits: Rc<DynValue>,
    path: Path,
    tapes: Vec<Rc<Tape>>,
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
    /// Loss of every sample, nats.
    pub sample_loss: Vec<f32>,
    dlogits: DynValue,
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
        let mut network = Self { layout, supernet, engine, programs, options, evaluation, epsilon };
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

    /// Number of sessions made so far.
    pub fn sessions(&self) -> usize {
        self.engine.sessions()
    }

    /// Keeps at most `limit` sessions from now on; the least recently used is closed when one more is opened. Results are
    /// the same bits.
    pub fn keep_sessions(&mut self, limit: NonZeroUsize) {
        self.engine.keep_sessions(limit);
    }

    /// Number of graphs run so far.
    pub fn runs(&self) -> u64 {
        self.engine.runs()
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
    /// statistics, which are written to `statistics`. Its layout is that of the graphs in use.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn features(
        &mut self,
        path: &Path,
        parameters: &BnParameters,
        images: ArrayView4<'_, f32>,
        statistics: &mut Statistics,
    ) -> Result<Rc<DynValue>, EngineError> {
        let node = self.supernet.edges.last().map_or(0, |edge| usize::from(edge.from));
        let keeping = (MemoryMode::Lean, false);
        self.forward_in(node, path, parameters, images, statistics, keeping, None).map(|pass| pass.logits)
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
        let mut tapes = steps.as_deref().map_or_else(Vec::new, |steps| steps.tapes.clone());
        let mut run = |network: &mut Self, edge: usize, operator: u8, x: &Rc<DynValue>| {
            let (y, saved) = network.forward_edge(memory, (edge, operator), x, parameters, statistics)?;
            if keep {
                tapes.push(network.tape(memory, (edge, operator), x, saved)?);
            }
            Ok(y)
        };
        let logits = self.walk(node, path, images, self.options.lowering, steps.as_deref_mut(), &mut run)?;
        if let Some(steps) = steps {
            steps.tapes = tapes.iter().filter(|tape| tape.edge < steps.upto).cloned().collect();
        }
        Ok(Pass { logits, path: path.clone(), tapes, memory })
    }

    /// Output of an operator on an edge with batch statistics, which are written to `statistics`, and what its graph saves.
    fn forward_edge(
        &mut self,
        memory: MemoryMode,
        (edge, operator): (usize, u8),
        x: &DynValue,
        parameters: &BnParameters,
        statistics: &mut Statistics,
    ) -> Result<(Rc<DynValue>, Saved), EngineError> {
        let graph = self.engine.find(Self::owner(edge, operator), Role::Forward(memory), self.options.lowering)?;
        let layout = &self.layout;
        let bn = |i: u16| slot(layout, edge, operator, i);
        let outputs = self.engine.run(graph, |port| match port {
            Port::X => Ok(SessionInputValue::from(x)),
            Port::Gamma(i) => view(&parameters.gamma[bn(i)?]),
            Port::Beta(i) => view(&parameters.beta[bn(i)?]),
            other => Err(unexpected(other)),
        })?;
        let mut y = None;
        let mut saved = Vec::new();
        for (port, value) in outputs {
            match port {
                Port::Y => y = Some(Rc::new(value)),
                Port::Mean(i) => copy(&value, &mut statistics.mean[bn(i)?])?,
                Port::Var(i) => copy(&value, &mut statistics.var[bn(i)?])?,
                port => saved.push((port, value)),
            }
        }
        Ok((y.ok_or_else(|| unexpected(Port::Y))?, saved))
    }

    /// What an edge leaves for graphs that go back through it.
    fn tape(
        &self,
        memory: MemoryMode,
        (edge, operator): (usize, u8),
        x: &Rc<DynValue>,
        saved: Saved,
    ) -> Result<Rc<Tape>, EngineError> {
        let owner = Self::owner(edge, operator);
        let backward = self.engine.find(owner, Role::Backward(memory), self.options.lowering)?;
        let x = self.engine.inputs(backward).any(|port| port == Port::X).then(|| Rc::clone(x));
        Ok(Rc::new(Tape { edge, operator, x, saved }))
    }

    /// Inference with the given statistics: logits `[N, classes]` for `images` `[N, C, H, W]`.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn evaluate(
        &mut self,
        path: &Path,
        parameters: &BnParameters,
        statistics: &Statistics,
        images: ArrayView4<'_, f32>,
    ) -> Result<Rc<DynValue>, EngineError> {
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
    ) -> Result<Rc<DynValue>, EngineError> {
        let mut run = |network: &mut Self, edge: usize, operator: u8, x: &Rc<DynValue>| {
            let graph = network.engine.find(Self::owner(edge, operator), Role::Evaluate, network.evaluation)?;
            let layout = &network.layout;
            let bn = |i: u16| slot(layout, edge, operator, i);
            let outputs = network.engine.run(graph, |port| match port {
                Port::X => Ok(SessionInputValue::from(&**x)),
                Port::Gamma(i) => view(&parameters.gamma[bn(i)?]),
                Port::Beta(i) => view(&parameters.beta[bn(i)?]),
                Port::Mean(i) => view(&statistics.mean[bn(i)?]),
                Port::Var(i) => view(&statistics.var[bn(i)?]),
                other => Err(unexpected(other)),
            })?;
            take(outputs, Port::Y).map(Rc::new)
        };
        self.walk(self.logits_node(), path, images, self.evaluation, steps, &mut run)
    }

    /// Mean softmax cross-entropy of logits `[N, classes]` against class indices `[N]`.
    ///
    /// # Errors
    /// If the graph fails (a label that is no class, a wrong number of labels).
    pub fn loss(&mut self, logits: &DynValue, labels: &[i64]) -> Result<LossOutput, EngineError> {
        let classes = i64::from(self.supernet.classes());
        if labels.iter().any(|&label| !(0..classes).contains(&label)) {
            return Err(EngineError::Tensor(format!("labels must be 0 to {}", classes - 1)));
        }
        let graph = self.engine.find(Owner::Network, Role::Loss, Lowering::Portable)?;
        let outputs = self.engine.run(graph, |port| match port {
            Port::Logits => Ok(SessionInputValue::from(logits)),
            Port::Labels => Ok(TensorRef::from_array_view(([labels.len()], labels))?.into_dyn().into()),
            other => Err(unexpected(other)),
        })?;
        let (mut loss, mut sample_loss, mut dlogits) = (f32::NAN, Vec::new(), None);
        for (port, value) in outputs {
            match port {
                Port::Loss => loss = value.try_extract_tensor::<f32>()?.1.first().copied().unwrap_or(f32::NAN),
                Port::SampleLoss => sample_loss = value.try_extract_tensor::<f32>()?.1.to_vec(),
                Port::DLogits => dlogits = Some(value),
                other => return Err(unexpected(other)),
            }
        }
        let dlogits = dlogits.ok_or_else(|| unexpected(Port::DLogits))?;
        Ok(LossOutput { loss, sample_loss, dlogits })
    }

    /// Gradients of the mean loss with respect to gamma and beta of the path's BatchNorms, written to
    /// `gradients`; other slots are left as they are.
    ///
    /// # Errors
    /// If a graph fails.
    pub fn backward(
        &mut self,
        parameters: &BnParameters,
        statistics: &Statistics,
        pass: Pass,
        loss: LossOutput,
        gradients: &mut BnParameters,
        path: &Path,
    ) -> Result<(), EngineError> {
        let Pass { logits, mut tapes, memory, .. } = pass;
        drop(logits);
        let mut run = |network: &mut Self, edge: usize, operator: u8, dy: Option<&DynValue>| {
            // Popped, so that what an edge kept is gone when its gradient is there.
            let tape = tapes.pop().filter(|t| t.edge == edge && t.operator == operator).ok_or_else(not_kept)?;
            if let Some(dy) = dy {
                return network.backward_edge(&tape, memory, dy, parameters, statistics, gradients);
            }
            network.no_gradient(edge, operator, gradients);
            Ok(None)
        };
        self.walk_back(path, Rc::new(loss.dlogits), &mut run)
    }

    /// Zeroes for the BatchNorms of an operator whose output leads nowhere.
    fn no_gradient(&self, edge: usize, operator: u8, gradients: &mut BnParameters) {
        for slot in self.layout.operator(edge, operator) {
            let range = self.layout.slots()[slot].range.clone();
            gradients.gamma[range.clone()].fill(0.0);
            gradients.beta[range].fill(0.0);
        }
    }

    fn backward_edge(
        &mut self,
        tape: &Tape,
        memory: MemoryMode,
        dy: &DynValue,
        parameters: &BnParameters,
        statistics: &Statistics,
        gradients: &mut BnParameters,
    ) -> Result<Option<DynValue>, EngineError> {
        let outputs = self.run_back(Role::Backward(memory), tape, Some(dy), parameters, statistics)?;
        let bn = |i: u16| slot(&self.layout, tape.edge, tape.operator, i);
        let mut dx = None;
        for (port, value) in outputs {
            match port {
                Port::Dx => dx = Some(value),
                Port::DGamma(i) => copy(&value, &mut gradients.gamma[bn(i)?])?,
                Port::DBeta(i) => copy(&value, &mut gradients.beta[bn(i)?])?,
                other => return Err(unexpected(other)),
            }
        }
        Ok(dx)
    }

    /// Runs a graph that takes what a forward pass has kept.
    fn run_back(
        &mut self,
        role: Role,
        tape: &Tape,
        dy: Option<&DynValue>,
        parameters: &BnParameters,
        statistics: &Statistics,
    ) -> Result<Vec<(Port, DynValue)>, EngineError> {
        let graph = self.engine.find(Self::owner(tape.edge, tape.operator), role, self.options.lowering)?;
        let layout = &self.layout;
        let bn = |i: u16| slot(layout, tape.edge, tape.operator, i);
        self.engine.run(graph, |port| match port {
            Port::X => tape.x.as_deref().map(SessionInputValue::from).ok_or_else(|| unexpected(port)),
            Port::Dy => dy.map(SessionInputValue::from).ok_or_else(|| unexpected(port)),
            Port::Gamma(i) => view(&parameters.gamma[bn(i)?]),
            Port::Beta(i) => view(&parameters.beta[bn(i)?]),
            Port::Mean(i) => view(&statistics.mean[bn(i)?]),
            Port::Var(i) => view(&statistics.var[bn(i)?]),
            other => tape
                .saved
                .iter()
                .find(|(port, _)| *port == other)
                .map(|(_, value)| SessionInputValue::from(value))
                .ok_or_else(|| unexpected(other)),
        })
    }
}

/// Whether a program is nothing but its input.
fn passes_on(program: &Program) -> bool {
    program.steps.len() == 1 && program.steps[0].primitive == Primitive::Input
}

fn not_kept() -> EngineError {
    EngineError::Tensor("the pass was not kept for its gradients".into())
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

fn view(values: &[f32]) -> Result<SessionInputValue<'_>, EngineError> {
    Ok(TensorRef::from_array_view(([values.len()], values))?.into_dyn().into())
}

fn copy(value: &DynValue, to: &mut [f32]) -> Result<(), EngineError> {
    let (_, from) = value.try_extract_tensor::<f32>()?;
    if from.len() != to.len() {
        return Err(EngineError::Tensor(format!("a graph gave {} numbers where {} were due", from.len(), to.len())));
    }
    to.copy_from_slice(from);
    Ok(())
}

fn take(outputs: Vec<(Port, DynValue)>, wanted: Port) -> Result<DynValue, EngineError> {
    outputs.into_iter().find(|(port, _)| *port == wanted).map(|(_, value)| value).ok_or_else(|| unexpected(wanted))
}
