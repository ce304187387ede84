//! A path in float64, one sample after another, with given statistics: the slow twin of the batched Jacobian pass.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;

use nasbn_export::{
    bundle::Bundle,
    ir::{Graph, Op, Value},
    reference::{Feeds, evaluate},
    roles,
    tensors::TensorFile,
};
use nasbn_models::{Combine, Path, Primitive, Program, Shape, Supernet, manifest::Port};
use nasbn_runtime::parameters::{BnParameters, Layout, Statistics};
use ndarray::{ArrayD, Axis, IxDyn, concatenate};

/// What one sample gives.
pub struct Sample {
    /// Gradients with respect to gamma and beta of every slot of the path, by slot; one list a seed.
    pub jacobians: Vec<HashMap<usize, [Vec<f64>; 2]>>,
    /// Every value after a BatchNorm.
    pub normalised: Vec<f64>,
}

/// The network that is gone through.
pub struct Twin<'a> {
    pub bundle: &'a Bundle,
    pub layout: &'a Layout,
    pub parameters: &'a BnParameters,
    pub statistics: &'a Statistics,
}

impl Twin<'_> {
    /// One image `[1, C, H, W]`; every seed is the gradient of its logits, `[1, classes]`.
    pub fn sample(&self, path: &Path, image: &ArrayD<f64>, seeds: &[ArrayD<f64>]) -> Sample {
        let supernet = &self.bundle.manifest().supernet;
        let mut held: Vec<Option<ArrayD<f64>>> = vec![None; supernet.nodes.len()];
        held[0] = Some(image.clone());
        let (mut kept, mut normalised) = (HashMap::new(), Vec::new());
        for node in 1..supernet.nodes.len() {
            let mut parts = Vec::new();
            for (e, edge) in supernet.edges.iter().enumerate().filter(|(_, edge)| usize::from(edge.to) == node) {
                let program = program(supernet, e, path);
                let from = usize::from(edge.from);
                let x = held[from].clone().unwrap_or_else(|| zeros(supernet.nodes[from].shape));
                parts.push(if program.is_absent() {
                    None
                } else if passes_on(&program) {
                    Some(x)
                } else {
                    let mut feeds = self.feeds(e, supernet.operator_on(edge, path));
                    feeds.ports.insert(Port::X, x);
                    let graph = opened(&program);
                    let outputs: HashMap<Port, ArrayD<f64>> = evaluate(&graph, &feeds).unwrap().into_iter().collect();
                    let norms = program.batch_norms().count() as u16;
                    normalised.extend((0..norms).flat_map(|i| outputs[&Port::Part(i)].iter().copied()));
                    let y = outputs[&Port::Y].clone();
                    feeds.ports.extend(outputs);
                    kept.insert(e, feeds);
                    Some(y)
                });
            }
            held[node] = self.join(node, parts);
        }
        let jacobians = seeds.iter().map(|seed| self.back(path, seed, &kept)).collect();
        Sample { jacobians, normalised }
    }

    fn join(&self, node: usize, parts: Vec<Option<ArrayD<f64>>>) -> Option<ArrayD<f64>> {
        let supernet = &self.bundle.manifest().supernet;
        if supernet.nodes[node].combine == Combine::Concat {
            let edges = supernet.edges.iter().filter(|edge| usize::from(edge.to) == node);
            let whole: Vec<ArrayD<f64>> = parts
                .into_iter()
                .zip(edges)
                .map(|(part, edge)| part.unwrap_or_else(|| zeros(supernet.edge_shape(edge))))
                .collect();
            let views: Vec<_> = whole.iter().map(|part| part.view()).collect();
            return Some(concatenate(Axis(1), &views).unwrap());
        }
        parts.into_iter().flatten().reduce(|a, b| a + b)
    }

    fn back(&self, path: &Path, seed: &ArrayD<f64>, kept: &HashMap<usize, Feeds>) -> HashMap<usize, [Vec<f64>; 2]> {
        let supernet = &self.bundle.manifest().supernet;
        let mut rows = HashMap::new();
        let mut held: Vec<Option<ArrayD<f64>>> = vec![None; supernet.nodes.len()];
        *held.last_mut().unwrap() = Some(seed.clone());
        for node in (1..supernet.nodes.len()).rev() {
            let mut first_channel = 0;
            let whole = held[node].take();
            for (e, edge) in supernet.edges.iter().enumerate().filter(|(_, edge)| usize::from(edge.to) == node) {
                let channels = edge.channels as usize;
                let dy = whole.as_ref().map(|whole| match supernet.nodes[node].combine {
                    Combine::Concat => {
                        let part = first_channel..first_channel + channels;
                        whole.slice_axis(Axis(1), part.into()).to_owned()
                    }
                    Combine::Sum => whole.clone(),
                });
                first_channel += channels;
                let program = program(supernet, e, path);
                if program.is_absent() {
                    continue;
                }
                let dx = if passes_on(&program) {
                    dy
                } else {
                    self.back_edge(e, supernet.operator_on(edge, path), &program, dy, &kept[&e], &mut rows)
                };
                let to = &mut held[usize::from(edge.from)];
                if let Some(dx) = dx {
                    *to = Some(to.take().map_or(dx.clone(), |present| present + &dx));
                }
            }
        }
        rows
    }

    fn back_edge(
        &self,
        edge: usize,
        operator: u8,
        program: &Program,
        dy: Option<ArrayD<f64>>,
        kept: &Feeds,
        rows: &mut HashMap<usize, [Vec<f64>; 2]>,
    ) -> Option<ArrayD<f64>> {
        let slots = self.layout.operator(edge, operator);
        for slot in slots.clone() {
            let zeros = vec![0.0; self.layout.slots()[slot].range.len()];
            rows.insert(slot, [zeros.clone(), zeros]);
        }
        let mut feeds = kept.clone();
        feeds.ports.insert(Port::Dy, dy?);
        let graph = roles::jacobian(program, false).unwrap();
        let mut dx = None;
        for (port, value) in evaluate(&graph, &feeds).unwrap() {
            let (i, part) = match port {
                Port::SampleDGamma(i) => (i, 0),
                Port::SampleDBeta(i) => (i, 1),
                _ => {
                    dx = Some(value);
                    continue;
                }
            };
            rows.get_mut(&(slots.start + usize::from(i))).unwrap()[part] = value.iter().copied().collect();
        }
        dx
    }

    /// Weights, parameters and statistics of an operator.
    fn feeds(&self, edge: usize, operator: u8) -> Feeds {
        let manifest = self.bundle.manifest();
        let mut feeds = Feeds { epsilon: f64::from(manifest.epsilon()), ..Feeds::default() };
        for (i, slot) in (0..).zip(self.layout.operator(edge, operator)) {
            let range = self.layout.slots()[slot].range.clone();
            let wide = |v: &[f32]| ArrayD::from_shape_fn(IxDyn(&[range.len()]), |at| f64::from(v[range.start + at[0]]));
            feeds.ports.insert(Port::Gamma(i), wide(&self.parameters.gamma));
            feeds.ports.insert(Port::Beta(i), wide(&self.parameters.beta));
            feeds.ports.insert(Port::Mean(i), wide(&self.statistics.mean));
            feeds.ports.insert(Port::Var(i), wide(&self.statistics.var));
        }
        let file = TensorFile::open(&self.bundle.weights_path()).unwrap();
        let key = format!("{}.", manifest.supernet.key(edge, operator));
        for (name, place) in file.tensors() {
            let Some(own) = name.strip_prefix(&key) else { continue };
            let dims: Vec<usize> = place.dims.iter().map(|&d| d as usize).collect();
            let values = file.read(name).unwrap().into_iter().map(f64::from).collect();
            feeds.weights.insert(own.to_owned(), ArrayD::from_shape_vec(dims, values).unwrap());
        }
        feeds
    }
}

/// The evaluation graph with the input and the output of every BatchNorm as further outputs.
fn opened(program: &Program) -> Graph {
    let mut graph = roles::evaluation(program).unwrap();
    let is_norm = |node: &usize| matches!(graph.nodes()[*node].op, Op::BatchNormApply { .. });
    let norms: Vec<usize> = (0..graph.nodes().len()).filter(is_norm).collect();
    for (i, node) in (0..).zip(norms) {
        let x = graph.nodes()[node].inputs[0];
        graph.output(Port::Saved(i), x);
        graph.output(Port::Part(i), Value { node, output: 0 });
    }
    graph
}

fn program(supernet: &Supernet, edge: usize, path: &Path) -> Program {
    supernet.program(edge, supernet.operator_on(&supernet.edges[edge], path)).unwrap()
}

fn passes_on(program: &Program) -> bool {
    program.steps.iter().all(|step| step.primitive == Primitive::Input)
}

fn zeros(shape: Shape) -> ArrayD<f64> {
    let [c, h, w] = [shape.channels, shape.height, shape.width].map(|d| d as usize);
    ArrayD::zeros(IxDyn(&[1, c, h, w]))
}
