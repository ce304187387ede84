//! Costs of a path: multiply-accumulates, parameters, depth and peak activation memory.
//!
//! They are those of the deployed network, so a fairness BatchNorm of an operator that has none of
//! its own is not counted. Every edge of the path counts, also one whose node nothing reads.

use alloc::{vec, vec::Vec};
use core::ops::Range;
use serde::{Deserialize, Serialize};

use crate::{Combine, Path, Primitive, Program, Selection, Supernet, memory};

/// What a network costs for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Multiply-accumulates of convolutions and linear layers.
    pub macs: u64,
    /// Weights, biases, gammas and betas.
    pub params: u64,
    /// Largest sum of activations that are alive at once, bytes (f32). The rule:
    ///
    /// * Primitives run one after another, edges in order; a part is added to its node's sum at once.
    /// * A value lives from the primitive that computes it until its last use. An edge without
    ///   primitives hands its input on; a value that several nodes hold lives until all are done.
    /// * BatchNorm, activations, residual additions and gates write over their first input if it was
    ///   computed inside the operator and is not used again; so do sums of a node over either part.
    ///   An operator never writes over its own input.
    /// * A concatenation of several edges is one more value, made when all parts are there. Absent
    ///   parts, and sums without parts, are zeros that count like any other value.
    pub peak_activation_bytes: u64,
    /// Searchable layers that are neither identities nor absent.
    pub depth: u32,
}

/// What an operator does with its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing; the edge is not there.
    #[default]
    Absent,
    /// Hands it on.
    Pass,
    /// Computes a value of its own.
    Compute,
}

/// Cost of one operator on one edge.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    macs: u64,
    params: u64,
    depth: u32,
    pub action: Action,
    /// Elements alive at the worst moment inside the operator, its input and output included,
    /// where the input is kept to the end.
    pub peak_kept: u64,
    /// The same where the input goes with its last use inside the operator.
    pub peak_freed: u64,
}

/// An edge, as far as costs go.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub from: usize,
    choice: Option<usize>,
    /// Its operators' entries.
    entries: Range<usize>,
}

/// A node, as far as costs go.
#[derive(Clone, Debug)]
pub(crate) struct Joint {
    /// Its incoming edges.
    pub edges: Range<usize>,
    /// Whether it concatenates several.
    pub concat: bool,
}

/// Costs of every operator on every edge, to be looked up along paths: millions a second.
#[derive(Clone, Debug)]
pub struct CostTable {
    pub(crate) links: Vec<Link>,
    entries: Vec<Entry>,
    pub(crate) joints: Vec<Joint>,
    /// Elements of every value that may exist between operators: edges, then nodes.
    pub(crate) sizes: Vec<u64>,
}

impl CostTable {
    /// The table of a validated supernet.
    pub fn new(supernet: &Supernet) -> Self {
        let mut table = Self { links: Vec::new(), entries: Vec::new(), joints: Vec::new(), sizes: Vec::new() };
        for (e, edge) in supernet.edges.iter().enumerate() {
            let start = table.entries.len();
            for &operator in supernet.candidates(edge) {
                let program = supernet.deployed_program(e, operator).unwrap_or_default();
                let mixed = matches!(edge.selection, Selection::Mixed(_));
                let depth = u32::from(mixed && supernet.operators[usize::from(operator)].has_depth());
                table.entries.push(entry(&program, depth));
            }
            let choice = match edge.selection {
                Selection::Fixed(_) => None,
                Selection::Mixed(choice) => Some(usize::from(choice)),
            };
            table.links.push(Link { from: usize::from(edge.from), choice, entries: start..table.entries.len() });
            table.sizes.push(supernet.edge_shape(edge).elements());
        }
        let mut start = 0;
        for (n, node) in supernet.nodes.iter().enumerate() {
            let count = supernet.edges[start..].iter().take_while(|e| usize::from(e.to) == n).count();
            table
                .joints
                .push(Joint { edges: start..start + count, concat: node.combine == Combine::Concat && count > 1 });
            table.sizes.push(node.shape.elements());
            start += count;
        }
        table
    }

    /// The entry of the operator that a path puts on an edge; an absent one if the path has none.
    pub(crate) fn entry(&self, link: &Link, path: &Path) -> Entry {
        let candidate = link.choice.map_or(Some(0), |choice| path.choices().get(choice).map(|&c| usize::from(c)));
        let entries = self.entries.get(link.entries.clone()).unwrap_or_default();
        candidate.and_then(|c| entries.get(c)).copied().unwrap_or_default()
    }

    /// Multiply-accumulates of candidate number `candidate` on an edge; 0 for one that the supernet does not have.
    pub fn macs_of(&self, edge: usize, candidate: usize) -> u64 {
        let entries = self.links.get(edge).and_then(|link| self.entries.get(link.entries.clone()));
        entries.and_then(|entries| entries.get(candidate)).map_or(0, |entry| entry.macs)
    }

    /// Costs of a path of the supernet. Allocates nothing unless the supernet has thousands of edges.
    pub fn cost(&self, path: &Path) -> Cost {
        let mut cost = Cost::default();
        for link in &self.links {
            let entry = self.entry(link, path);
            cost.macs = cost.macs.saturating_add(entry.macs);
            cost.params = cost.params.saturating_add(entry.params);
            cost.depth += entry.depth;
        }
        cost.peak_activation_bytes = 4 * memory::peak(self, path);
        cost
    }
}

fn entry(program: &Program, depth: u32) -> Entry {
    let action = match program.steps.len() {
        0 => Action::Absent,
        1 => Action::Pass,
        _ => Action::Compute,
    };
    let mut entry = Entry { depth, action, ..Entry::default() };
    let steps = &program.steps;
    for step in steps {
        let input = step.inputs.first().map(|&i| steps[usize::from(i)].shape);
        let channels = u64::from(step.shape.channels);
        let from = input.map_or(0, |shape| u64::from(shape.channels));
        let (macs, params) = match step.primitive {
            Primitive::Conv { kernel, groups, bias, .. } => {
                let weights = channels * (from / u64::from(groups.max(1))) * u64::from(kernel) * u64::from(kernel);
                (weights.saturating_mul(step.shape.pixels()), weights + if bias { channels } else { 0 })
            }
            Primitive::Linear => (channels * from, channels * from + channels),
            Primitive::BatchNorm => (0, 2 * channels),
            _ => (0, 0),
        };
        entry.macs = entry.macs.saturating_add(macs);
        entry.params = entry.params.saturating_add(params);
    }
    entry.peak_kept = inner_peak(program, true);
    entry.peak_freed = inner_peak(program, false);
    entry
}

/// Elements alive at the worst moment of a program, by the rule of [`Cost::peak_activation_bytes`].
fn inner_peak(program: &Program, keep_input: bool) -> u64 {
    let steps = &program.steps;
    let mut last_use: Vec<usize> = (0..steps.len()).collect();
    for (i, step) in steps.iter().enumerate() {
        for &input in &step.inputs {
            last_use[usize::from(input)] = i;
        }
    }
    if let Some(output) = last_use.last_mut() {
        *output = usize::MAX;
    }
    if let (Some(input), true) = (last_use.first_mut(), keep_input) {
        *input = usize::MAX;
    }
    let mut held = vec![0u64; steps.len()];
    let (mut alive, mut peak) = (0u64, 0u64);
    for (i, step) in steps.iter().enumerate() {
        let elementwise = matches!(
            step.primitive,
            Primitive::BatchNorm | Primitive::Relu | Primitive::Sigmoid | Primitive::Add | Primitive::Mul
        );
        let first = step.inputs.first().map(|&x| usize::from(x));
        if let Some(x) = first.filter(|&x| elementwise && x != 0 && last_use[x] == i) {
            alive -= held[x];
            held[x] = 0;
        }
        held[i] = step.shape.elements();
        alive += held[i];
        peak = peak.max(alive);
        for &input in &step.inputs {
            let input = usize::from(input);
            if last_use[input] <= i {
                alive -= held[input];
                held[input] = 0;
            }
        }
    }
    peak
}
