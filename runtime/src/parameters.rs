//! BatchNorm parameters and statistics of a whole supernet, in flat vectors.

use std::{collections::HashMap, ops::Range};

use nasbn_export::{
    bundle::{Bundle, BundleError},
    tensors::TensorFile,
};
use nasbn_models::{Path, Supernet};

/// One BatchNorm of one operator on one edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index of the edge.
    pub edge: u16,
    /// Index of the operator.
    pub operator: u8,
    /// Which of the operator's BatchNorms.
    pub bn: u16,
    /// Where its channels are in the flat vectors.
    pub range: Range<usize>,
}

/// Where every BatchNorm of a supernet is in the flat vectors of [`BnParameters`] and [`Statistics`].
#[derive(Clone, Debug)]
pub struct Layout {
    slots: Vec<Slot>,
    of_operator: HashMap<(u16, u8), Range<usize>>,
    names: Vec<String>,
    channels: usize,
}

impl Layout {
    /// Layout of all candidates of all edges of a validated supernet, in order.
    pub fn new(supernet: &Supernet) -> Self {
        let mut layout = Self { slots: Vec::new(), of_operator: HashMap::new(), names: Vec::new(), channels: 0 };
        for (e, edge) in supernet.edges.iter().enumerate() {
            for &operator in supernet.candidates(edge) {
                let first = layout.slots.len();
                let program = supernet.program(e, operator).unwrap_or_default();
                for (bn, channels) in program.batch_norms().enumerate() {
                    let range = layout.channels..layout.channels + channels as usize;
                    layout.channels = range.end;
                    layout.slots.push(Slot { edge: e as u16, operator, bn: bn as u16, range });
                    layout.names.push(format!("{}.bn{bn}", supernet.key(e, operator)));
                }
                layout.of_operator.insert((e as u16, operator), first..layout.slots.len());
            }
        }
        layout
    }

    /// Every BatchNorm.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Key of a BatchNorm: `e03.mb6k5.bn1`.
    pub fn name(&self, slot: usize) -> &str {
        &self.names[slot]
    }

    /// Channels of all BatchNorms together.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Indices of the BatchNorms of an operator on an edge; none for an unknown one.
    pub fn operator(&self, edge: usize, operator: u8) -> Range<usize> {
        self.of_operator.get(&(edge as u16, operator)).cloned().unwrap_or(0..0)
    }

    /// Indices of the BatchNorms of a path, in order of execution.
    pub fn path<'a>(&'a self, supernet: &'a Supernet, path: &'a Path) -> impl Iterator<Item = usize> + 'a {
        let edges = supernet.edges.iter().enumerate();
        edges.flat_map(move |(e, edge)| self.operator(e, supernet.operator_on(edge, path)))
    }
}

/// Gamma and beta of every BatchNorm of a supernet.
#[derive(Clone, Debug, PartialEq)]
pub struct BnParameters {
    /// Scales.
    pub gamma: Vec<f32>,
    /// Shifts.
    pub beta: Vec<f32>,
}

impl BnParameters {
    /// The initial parameters of a verified bundle.
    ///
    /// # Errors
    /// If its file cannot be read, or a tensor is missing, has another shape or holds what is not finite.
    pub fn of_bundle(bundle: &Bundle, layout: &Layout) -> Result<Self, BundleError> {
        let path = bundle.initial_path();
        let file = TensorFile::open(&path)?;
        let mut parameters = Self::zeros(layout);
        for (i, slot) in layout.slots().iter().enumerate() {
            for (part, values) in [("gamma", &mut parameters.gamma), ("beta", &mut parameters.beta)] {
                let name = format!("{}.{part}", layout.name(i));
                let read = file.read(&name)?;
                let problem = match read.len() == slot.range.len() {
                    false => format!("has {} values instead of {}", read.len(), slot.range.len()),
                    true if read.iter().all(|v| v.is_finite()) => {
                        values[slot.range.clone()].copy_from_slice(&read);
                        continue;
                    }
                    true => "holds a value that is not finite".to_owned(),
                };
                return Err(BundleError::Tensor { path, name, problem });
            }
        }
        Ok(parameters)
    }

    /// Gamma 1, beta 0: what bundles start from, unless they say otherwise.
    pub fn initial(layout: &Layout) -> Self {
        Self { gamma: vec![1.0; layout.channels()], beta: vec![0.0; layout.channels()] }
    }

    /// All zero: the shape of gradients and optimiser state.
    pub fn zeros(layout: &Layout) -> Self {
        Self { gamma: vec![0.0; layout.channels()], beta: vec![0.0; layout.channels()] }
    }
}

/// Mean and biased variance of the input of every BatchNorm. Only the slots of the paths that
/// they were measured on mean anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Means.
    pub mean: Vec<f32>,
    /// Biased variances.
    pub var: Vec<f32>,
}

impl Statistics {
    /// Mean 0, variance 1.
    pub fn standard(layout: &Layout) -> Self {
        Self { mean: vec![0.0; layout.channels()], var: vec![1.0; layout.channels()] }
    }
}
