//! The supernet: a directed acyclic graph of tensors with fixed and mixed edges.

use alloc::{format, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use crate::{
    Operator, Path, Program, Shape,
    path::MAX_CHOICES,
    program::{self, ProgramError},
};

/// Which operators of a mixed edge carry a BatchNorm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BnPlacement {
    /// Every candidate: identity, pooling and other operators without parameters too
    /// (the fair space of arXiv 2112.00265).
    EveryOperator,
    /// Only convolutions (the usual space, biased against operators without a BN).
    Convolution,
}

/// How a node joins its incoming edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Combine {
    /// Elementwise sum; a single edge is passed on as it is.
    Sum,
    /// Concatenation along channels, in the order of the edges.
    Concat,
}

/// A tensor of the supernet. Node 0 is the image, the last node the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Shape of one sample.
    pub shape: Shape,
    /// How incoming edges are joined.
    pub combine: Combine,
}

/// What stands on an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// Always this operator (index into [`Supernet::operators`]).
    Fixed(u8),
    /// One of the candidates of this choice (index into [`Supernet::choices`]). Several edges may
    /// share a choice, as the repeated cells of a cell space do.
    Mixed(u8),
}

/// An edge of the supernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Node it starts from.
    pub from: u16,
    /// Node it leads to; larger than `from`.
    pub to: u16,
    /// Stride of its strided layers.
    pub stride: u8,
    /// Output channels (those of `to`, except where `to` concatenates).
    pub channels: u32,
    /// What stands on it.
    pub selection: Selection,
}

/// A decision to take: the candidates, as indices into [`Supernet::operators`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Name for tables and messages (`layer 3`, `normal 0->2`).
    pub name: String,
    /// Operators to choose from.
    pub candidates: Vec<u8>,
}

/// How paths of a space are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextForm {
    /// One digit a choice: the operator's index among the space's searchable operators (`22212220`).
    Digits,
    /// The same numbers joined by `-` (`5-3-11-0`), for more than ten operators.
    Dashed,
}

/// A supernet. Deserialised ones are not to be trusted before [`Supernet::validate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supernet {
    /// Name of the space.
    pub name: String,
    /// BatchNorm placement.
    pub placement: BnPlacement,
    /// Width multiplier that channels were scaled by, in thousandths (1000 = as in the space file).
    pub width_permille: u32,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Edges in the order of execution: sorted by `to`, then as declared.
    pub edges: Vec<Edge>,
    /// Choices, in the order of a path.
    pub choices: Vec<Choice>,
    /// All operators, fixed and searchable.
    pub operators: Vec<Operator>,
    /// Operators that the text form counts (`0`, `1`, ...), as indices into `operators`.
    pub alphabet: Vec<u8>,
    /// How paths are written.
    pub text_form: TextForm,
}

/// What is wrong with a supernet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SupernetError {
    /// A structural rule is broken.
    #[error("{place}: {problem}")]
    Structure {
        /// Where (`edge 3`, `choice 1`).
        place: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// An operator does not fit an edge.
    #[error("edge {edge}, operator `{operator}`: {source}")]
    Operator {
        /// Index of the edge.
        edge: usize,
        /// Name of the operator.
        operator: String,
        /// Why.
        source: ProgramError,
    },
}

fn broken(place: String, problem: impl Into<String>) -> SupernetError {
    SupernetError::Structure { place, problem: problem.into() }
}

/// Colour planes that an image may have: grey, or red, green and blue.
pub const IMAGE_CHANNELS: [u32; 2] = [1, 3];
/// Largest side of an image, pixels.
pub const MAX_IMAGE_SIDE: u32 = 4096;
/// Fewest classes: with one, every network has a loss of 0.
pub const MIN_CLASSES: u32 = 2;
/// Most classes.
pub const MAX_CLASSES: u32 = 65535;
/// Most nodes, and most edges, of a supernet.
pub(crate) const MAX_PARTS: usize = 4096;
/// Most pairs of an edge and an operator that may stand on it; bounds the work that a hostile bundle asks for.
const MAX_PAIRS: usize = 1 << 16;

impl Supernet {
    /// Checks everything that the rest of the program relies on: sizes, indices, topological
    /// order, shapes, and that every candidate fits its edge.
    pub fn validate(&self) -> Result<(), SupernetError> {
        let whole = || format!("space `{}`", self.name);
        if self.nodes.len() < 2 || self.nodes.len() > MAX_PARTS || self.edges.len() > MAX_PARTS {
            return Err(broken(whole(), "needs 2 to 4096 nodes and at most 4096 edges"));
        }
        if self.choices.len() > MAX_CHOICES || self.operators.len() > 255 || self.operators.is_empty() {
            return Err(broken(whole(), "needs at most 64 choices and 1 to 255 operators"));
        }
        for (i, operator) in self.operators.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if operator.name.is_empty() || operator.name.len() > 64 || !operator.name.chars().all(plain) {
                return Err(broken(format!("operator {i}"), "its name must be 1 to 64 letters, digits, `_` or `-`"));
            }
            if self.operators[..i].iter().any(|o| o.name == operator.name) {
                return Err(broken(format!("operator {i}"), format!("the name `{}` is taken", operator.name)));
            }
        }
        for (i, choice) in self.choices.iter().enumerate() {
            let known = |&o: &u8| usize::from(o) < self.operators.len() && self.alphabet.contains(&o);
            if choice.candidates.is_empty() || !choice.candidates.iter().all(known) {
                return Err(broken(
                    format!("choice {i}"),
                    "needs candidates that are searchable operators of the space",
                ));
            }
            let repeated = |(n, o): (usize, &u8)| choice.candidates[..n].contains(o);
            if choice.candidates.iter().enumerate().any(repeated) {
                return Err(broken(format!("choice {i}"), "has the same candidate twice"));
            }
            if !self.edges.iter().any(|e| e.selection == Selection::Mixed(i as u8)) {
                return Err(broken(format!("choice {i}"), "stands on no edge"));
            }
        }
        if self.text_form == TextForm::Digits && self.alphabet.len() > 10 {
            return Err(broken(whole(), "more than ten searchable operators need the dashed text form"));
        }
        self.validate_edges()
    }

    fn validate_edges(&self) -> Result<(), SupernetError> {
        let mut previous_to = 0;
        let mut pairs = 0;
        for (i, edge) in self.edges.iter().enumerate() {
            let place = || format!("edge {i}");
            if edge.from >= edge.to || usize::from(edge.to) >= self.nodes.len() || edge.to < previous_to {
                return Err(broken(place(), "edges must lead to later nodes, in topological order"));
            }
            if !(1..=8).contains(&edge.stride) {
                return Err(broken(place(), format!("a stride of {} is not possible; 1 to 8 is", edge.stride)));
            }
            previous_to = edge.to;
            let candidates: &[u8] = match &edge.selection {
                Selection::Fixed(operator) => core::slice::from_ref(operator),
                Selection::Mixed(choice) => match self.choices.get(usize::from(*choice)) {
                    Some(choice) => &choice.candidates,
                    None => return Err(broken(place(), format!("there is no choice {choice}"))),
                },
            };
            pairs += candidates.len();
            if pairs > MAX_PAIRS {
                return Err(broken(place(), format!("more than {MAX_PAIRS} operators on edges up to here")));
            }
            for &candidate in candidates {
                let Some(operator) = self.operators.get(usize::from(candidate)) else {
                    return Err(broken(place(), format!("there is no operator {candidate}")));
                };
                self.program(i, candidate).map_err(|source| SupernetError::Operator {
                    edge: i,
                    operator: operator.name.clone(),
                    source,
                })?;
            }
        }
        for (i, node) in self.nodes.iter().enumerate().skip(1) {
            let incoming: Vec<&Edge> = self.edges.iter().filter(|e| usize::from(e.to) == i).collect();
            let channels = match node.combine {
                Combine::Sum => incoming.iter().all(|e| e.channels == node.shape.channels),
                Combine::Concat => {
                    incoming.iter().map(|e| u64::from(e.channels)).sum::<u64>() == u64::from(node.shape.channels)
                }
            };
            if node.shape.channels > program::MAX_EXTENT {
                return Err(broken(format!("node {i}"), "has more than 65536 channels"));
            }
            if incoming.is_empty() || !channels {
                return Err(broken(format!("node {i}"), "needs incoming edges whose channels fit its own"));
            }
        }
        match self.nodes.last() {
            Some(logits) if logits.shape.pixels() == 1 => Ok(()),
            _ => Err(broken("the last node".into(), "holds the logits, so it must have 1x1 pixels")),
        }
    }

    /// Shape of an edge's output, per sample.
    pub fn edge_shape(&self, edge: &Edge) -> Shape {
        let node = self.nodes[usize::from(edge.to)].shape;
        Shape::new(edge.channels, node.height, node.width)
    }

    /// Program of `operator` on edge number `edge`.
    ///
    /// # Errors
    /// If the operator does not fit; never for a candidate of a validated supernet.
    pub fn program(&self, edge: usize, operator: u8) -> Result<Program, ProgramError> {
        let e = &self.edges[edge];
        let mixed = matches!(e.selection, Selection::Mixed(_));
        let input = self.nodes[usize::from(e.from)].shape;
        let fair = program::fair(self.placement, mixed);
        Program::build(&self.operators[usize::from(operator)], input, self.edge_shape(e), e.stride, fair)
    }

    /// Program of `operator` on edge number `edge` in the network as it is deployed: without the
    /// fairness BatchNorm of operators that have none of their own.
    ///
    /// # Errors
    /// As [`Supernet::program`].
    pub fn deployed_program(&self, edge: usize, operator: u8) -> Result<Program, ProgramError> {
        let e = &self.edges[edge];
        let input = self.nodes[usize::from(e.from)].shape;
        Program::build(&self.operators[usize::from(operator)], input, self.edge_shape(e), e.stride, false)
    }

    /// Operators that may stand on an edge.
    pub fn candidates<'a>(&'a self, edge: &'a Edge) -> &'a [u8] {
        match &edge.selection {
            Selection::Fixed(operator) => core::slice::from_ref(operator),
            Selection::Mixed(choice) => &self.choices[usize::from(*choice)].candidates,
        }
    }

    /// The operator that `path` puts on an edge.
    pub fn operator_on(&self, edge: &Edge, path: &Path) -> u8 {
        match edge.selection {
            Selection::Fixed(operator) => operator,
            Selection::Mixed(choice) => {
                let choice = usize::from(choice);
                self.choices[choice].candidates[usize::from(path.choices()[choice])]
            }
        }
    }

    /// Whether `path` has one valid candidate for every choice.
    pub fn contains(&self, path: &Path) -> bool {
        path.choices().len() == self.choices.len()
            && path.choices().iter().zip(&self.choices).all(|(&c, choice)| usize::from(c) < choice.candidates.len())
    }

    /// Shape of the image, per sample.
    pub fn image(&self) -> Shape {
        self.nodes[0].shape
    }

    /// Number of classes: the channels of the last node.
    pub fn classes(&self) -> u32 {
        self.nodes.last().map_or(0, |n| n.shape.channels)
    }

    /// Key of an operator on an edge, the prefix of its weights and BN parameters: `e03.mb6k5`.
    /// Parameters are `{key}.conv{i}.weight|bias`, `{key}.linear{i}.weight|bias` and
    /// `{key}.bn{i}.gamma|beta|running_mean|running_var`, `i` counting from 0 in program order.
    pub fn key(&self, edge: usize, operator: u8) -> String {
        format!("e{edge:02}.{}", self.operators[usize::from(operator)].name)
    }
}
