//! Runs a path of the supernet: its operators one after another, forwards and backwards.

use std::{collections::HashMap, ops::Range, path::Path as FsPath, rc::Rc};

use nasbn_models::{
    Combine, Manifest, Path, Primitive, Program, Supernet,
    manifest::{Lowering, MemoryMode, Owner, Port, Role},
};
use ndarray::ArrayView4;
use ort::{
    environment::Environment,
    session::SessionInputValue,
    value::{DynValue, Tensor, TensorRef},
};

use crate::{
    engine::{Engine, EngineError},
    parameters::{BnParameters, Layout, Statistics},
};

/// How a network is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// What backward passes keep of forward passes.
    pub memory: MemoryMode,
    /// Which graphs training uses; falls back to portable ones where a bundle has no others.
    pub lowering: Lowering,
}

/// What an edge leaves for the backward pass.
struct Tape {
    edge: usize,
    operator: u8,
    x: Option<Rc<DynValue>>,
    saved: Vec<(Port, DynValue)>,
}

/// A forward pass with batch statistics.
pub struct Pass {
    /// Logits `[N, classes]`.
    pub logits: Rc<DynValue>,
    tapes: Vec<Tape>,
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
}

/// Runs an operator on an edge: network, edge, operator and input give the output.
type RunEdge<'a> = dyn FnMut(&mut Network, usize, u8, &Rc<DynValue>) -> Result<Rc<DynValue>, EngineError> + 'a;

/// A value that stands on a node while a pass runs.
type Held = Option<Rc<DynValue>>;

impl Network {
    /// A network of the verified bundle in `directory`.
    ///
    /// # Errors
    /// If the engine cannot be made.
    pub fn new(
        environment: Environment,
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
        let engine = Engine::new(environment, directory, manifest)?;
        let mut network = Self { layout: Layout::new(&supernet), supernet, engine, programs, options };
        if !network.has_fused() {
            network.options.lowering = Lowering::Portable;
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

    /// Number of sessions made so far.
    pub fn sessions(&self) -> usize {
        self.engine.sessions()
    }

    /// Whether every operator has fused training graphs, and none passes the image on unchanged
    /// (which is laid out otherwise).
    fn has_fused(&self) -> bool {
        self.programs.iter().filter(|(_, program)| !program.is_absent()).all(|(&(edge, operator), program)| {
            let owner = Owner::Operator { edge: edge as u16, operator };
            let role = Role::Backward(self.options.memory);
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
        let mut tapes = Vec::new();
        let memory = if keep { self.options.memory } else { MemoryMode::Lean };
        let mut run = |network: &mut Self, edge: usize, operator: u8, x: &Rc<DynValue>| {
            let lowering = network.options.lowering;
            let graph = network.engine.find(Self::owner(edge, operator), Role::Forward(memory), lowering)?;
            let layout = &network.layout;
            let bn = |i: u16| slot(layout, edge, operator, i);
            let outputs = network.engine.run(graph, |port| match port {
                Port::X => Ok(SessionInputValue::from(&**x)),
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
            if keep {
                let backward = network.engine.find(Self::owner(edge, operator), Role::Backward(memory), lowering)?;
                let x = network.engine.inputs(backward).any(|port| port == Port::X).then(|| Rc::clone(x));
                tapes.push(Tape { edge, operator, x, saved });
            }
            y.ok_or_else(|| unexpected(Port::Y))
        };
        let logits = self.walk(path, images, self.options.lowering, &mut run)?;
        Ok(Pass { logits, tapes })
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
        let mut run = |network: &mut Self, edge: usize, operator: u8, x: &Rc<DynValue>| {
            let graph = network.engine.find(Self::owner(edge, operator), Role::Evaluate, Lowering::Portable)?;
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
        self.walk(path, images, Lowering::Portable, &mut run)
    }

    /// Walks the edges of a path in order and joins them at nodes. Every tensor is dropped after
    /// its last use.
    fn walk(
        &mut self,
        path: &Path,
        images: ArrayView4<'_, f32>,
        lowering: Lowering,
        run: &mut RunEdge<'_>,
    ) -> Result<Rc<DynValue>, EngineError> {
        let batch = images.shape()[0];
        let mut held: Vec<Held> = vec![None; self.supernet.nodes.len()];
        // The copy keeps the image alive as a value of its own for the whole pass.
        held[0] = Some(Rc::new(Tensor::from_array(images.to_owned())?.into_dyn()));
        let edges = self.supernet.edges.clone();
        let mut parts: Vec<Held> = Vec::new();
        for (e, edge) in edges.iter().enumerate() {
            let from = usize::from(edge.from);
            let to = usize::from(edge.to);
            let operator = self.supernet.operator_on(edge, path);
            let program = self.programs.get(&(e, operator)).cloned().unwrap_or_default();
            let value = if program.is_absent() {
                None
            } else {
                let x = match &held[from] {
                    Some(x) => Rc::clone(x),
                    None => self.zeros(batch, self.supernet.nodes[from].shape, lowering)?,
                };
                Some(if passes_on(&program) { x } else { run(self, e, operator, &x)? })
            };
            parts.push(value);
            if edges.get(e + 1).is_none_or(|next| next.to != edge.to) {
                let joined = self.join(to, e + 1 - parts.len(), &parts, batch, lowering)?;
                held[to] = joined;
                parts.clear();
            }
            if !edges[e + 1..].iter().any(|later| later.from == edge.from) {
                held[from] = None;
            }
        }
        held.pop().flatten().ok_or_else(|| EngineError::Tensor("the path does not lead to the logits".into()))
    }

    /// Joins the parts (one per incoming edge from `first` on) at a node.
    fn join(
        &mut self,
        node: usize,
        first: usize,
        parts: &[Held],
        batch: usize,
        lowering: Lowering,
    ) -> Result<Held, EngineError> {
        if self.supernet.nodes[node].combine == Combine::Concat && parts.len() > 1 {
            let mut whole = Vec::with_capacity(parts.len());
            for (i, part) in parts.iter().enumerate() {
                let shape = self.supernet.edge_shape(&self.supernet.edges[first + i]);
                whole.push(match part {
                    Some(part) => Rc::clone(part),
                    None => self.zeros(batch, shape, lowering)?,
                });
            }
            let graph = self.engine.find(Owner::Node(node as u16), Role::Concat, lowering)?;
            let outputs = self.engine.run(graph, |port| match port {
                Port::Part(i) => match whole.get(usize::from(i)) {
                    Some(part) => Ok(SessionInputValue::from(&**part)),
                    None => Err(unexpected(Port::Part(i))),
                },
                other => Err(unexpected(other)),
            })?;
            return take(outputs, Port::Y).map(|y| Some(Rc::new(y)));
        }
        let mut sum: Held = None;
        for part in parts.iter().flatten() {
            sum = Some(match sum {
                None => Rc::clone(part),
                Some(sum) => Rc::new(self.add(&sum, part)?),
            });
        }
        Ok(sum)
    }

    fn add(&mut self, a: &DynValue, b: &DynValue) -> Result<DynValue, EngineError> {
        let graph = self.engine.find(Owner::Network, Role::Sum, Lowering::Portable)?;
        let outputs = self.engine.run(graph, |port| match port {
            Port::Part(0) => Ok(SessionInputValue::from(a)),
            Port::Part(1) => Ok(SessionInputValue::from(b)),
            other => Err(unexpected(other)),
        })?;
        take(outputs, Port::Y)
    }

    fn zeros(&self, batch: usize, shape: nasbn_models::Shape, lowering: Lowering) -> Result<Rc<DynValue>, EngineError> {
        let (c, h, w) = (shape.channels as usize, shape.height as usize, shape.width as usize);
        let dims = if lowering == Lowering::Fused { [batch, h, w, c] } else { [batch, c, h, w] };
        Ok(Rc::new(Tensor::from_array((dims, vec![0.0f32; batch * c * h * w]))?.into_dyn()))
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
        let Pass { logits, mut tapes } = pass;
        drop(logits);
        let mut held: Vec<Option<Rc<DynValue>>> = vec![None; self.supernet.nodes.len()];
        if let Some(last) = held.last_mut() {
            *last = Some(Rc::new(loss.dlogits));
        }
        let edges = self.supernet.edges.clone();
        let mut split: Vec<Option<Rc<DynValue>>> = Vec::new();
        for (e, edge) in edges.iter().enumerate().rev() {
            let to = usize::from(edge.to);
            let first = edges.iter().position(|other| other.to == edge.to).unwrap_or(e);
            let last_of_node = edges.get(e + 1).is_none_or(|next| next.to != edge.to);
            if last_of_node {
                split = self.split(to, e + 1 - first, held[to].take())?;
            }
            let operator = self.supernet.operator_on(edge, path);
            let program = self.programs.get(&(e, operator)).cloned().unwrap_or_default();
            let dy = split[e - first].take();
            let dx = if program.is_absent() {
                None
            } else if passes_on(&program) {
                dy
            } else {
                let tape = tapes.pop().filter(|t| t.edge == e && t.operator == operator);
                let tape = tape.ok_or_else(|| EngineError::Tensor("the pass was not kept for its gradients".into()))?;
                match dy {
                    Some(dy) => self.backward_edge(tape, &dy, parameters, statistics, gradients)?.map(Rc::new),
                    None => {
                        for slot in self.layout.operator(e, operator) {
                            let range = self.layout.slots()[slot].range.clone();
                            gradients.gamma[range.clone()].fill(0.0);
                            gradients.beta[range].fill(0.0);
                        }
                        None
                    }
                }
            };
            let from = usize::from(edge.from);
            if let (Some(dx), true) = (dx, from != 0) {
                held[from] = Some(match held[from].take() {
                    None => dx,
                    Some(present) => Rc::new(self.add(&present, &dx)?),
                });
            }
        }
        Ok(())
    }

    /// Gradient of a node for each of its `count` incoming edges.
    fn split(&mut self, node: usize, count: usize, dy: Held) -> Result<Vec<Held>, EngineError> {
        let Some(dy) = dy else { return Ok(vec![None; count]) };
        if self.supernet.nodes[node].combine == Combine::Sum || count == 1 {
            return Ok(vec![Some(dy); count]);
        }
        let graph = self.engine.find(Owner::Node(node as u16), Role::Split, self.options.lowering)?;
        let outputs = self.engine.run(graph, |port| match port {
            Port::Dy => Ok(SessionInputValue::from(&*dy)),
            other => Err(unexpected(other)),
        })?;
        let mut parts = vec![None; count];
        for (port, value) in outputs {
            match port {
                Port::Part(i) if usize::from(i) < count => parts[usize::from(i)] = Some(Rc::new(value)),
                other => return Err(unexpected(other)),
            }
        }
        Ok(parts)
    }

    fn backward_edge(
        &mut self,
        tape: Tape,
        dy: &DynValue,
        parameters: &BnParameters,
        statistics: &Statistics,
        gradients: &mut BnParameters,
    ) -> Result<Option<DynValue>, EngineError> {
        let Tape { edge, operator, x, saved } = tape;
        let role = Role::Backward(self.options.memory);
        let graph = self.engine.find(Self::owner(edge, operator), role, self.options.lowering)?;
        let layout = &self.layout;
        let bn = |i: u16| slot(layout, edge, operator, i);
        let outputs = self.engine.run(graph, |port| match port {
            Port::X => x.as_deref().map(SessionInputValue::from).ok_or_else(|| unexpected(port)),
            Port::Dy => Ok(SessionInputValue::from(dy)),
            Port::Gamma(i) => view(&parameters.gamma[bn(i)?]),
            Port::Beta(i) => view(&parameters.beta[bn(i)?]),
            Port::Mean(i) => view(&statistics.mean[bn(i)?]),
            Port::Var(i) => view(&statistics.var[bn(i)?]),
            other => saved
                .iter()
                .find(|(port, _)| *port == other)
                .map(|(_, value)| SessionInputValue::from(value))
                .ok_or_else(|| unexpected(other)),
        })?;
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
