//! A small graph of primitive operations, in static single assignment form.
//!
//! Every primitive has, in one file of [`ops`], its shape rule, its vector-Jacobian rule and its
//! f64 reference evaluation in plain loops. What ONNX nodes a primitive becomes is decided
//! elsewhere and last: see [`crate::lower`].

mod evaluate;
mod forward;
pub mod op;
pub mod ops;
mod transform;

pub use evaluate::{Feeds, evaluate};
pub use forward::{BnValues, Forward};
pub use op::{BnPart, Constant, Op, Window};
pub use transform::Rewriter;

use nasbn_models::{Shape, manifest::Port};

/// Extents of a value. `N` is the batch size.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dims {
    /// Activations `[N, C, H, W]`.
    Image(Shape),
    /// Vectors, one a sample: `[N, F]`.
    Features(u32),
    /// One number a sample: `[N]`.
    Samples,
    /// One number for every two samples: `[N, N]`.
    Pairs,
    /// Independent of the batch: weights, `[C]` vectors, and scalars (no extents).
    Fixed(Vec<u32>),
}

impl Dims {
    /// A vector `[channels]`.
    pub fn vector(channels: u32) -> Self {
        Self::Fixed(vec![channels])
    }

    /// A scalar.
    pub fn scalar() -> Self {
        Self::Fixed(Vec::new())
    }

    /// Extents for a batch of `batch`.
    pub fn sizes(&self, batch: usize) -> Vec<usize> {
        match self {
            Self::Image(s) => vec![batch, s.channels as usize, s.height as usize, s.width as usize],
            Self::Features(features) => vec![batch, *features as usize],
            Self::Samples => vec![batch],
            Self::Pairs => vec![batch, batch],
            Self::Fixed(dims) => dims.iter().map(|&d| d as usize).collect(),
        }
    }
}

/// One output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// Index of the node.
    pub node: usize,
    /// Which of its outputs.
    pub output: usize,
}

impl Value {
    /// Another output of the same node.
    pub fn sibling(self, output: usize) -> Self {
        Self { node: self.node, output }
    }
}

/// A primitive applied to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The primitive.
    pub op: Op,
    /// What it is applied to; all from earlier nodes.
    pub inputs: Vec<Value>,
    /// Extents of its outputs.
    pub outputs: Vec<Dims>,
}

/// What is wrong with a graph or with what it is fed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A primitive got values that it cannot work on.
    #[error("{op} cannot be applied: {problem}")]
    Shape {
        /// Name of the primitive.
        op: &'static str,
        /// What it got, and what would be right.
        problem: String,
    },
    /// A value that does not exist.
    #[error("node {0} is used before it exists")]
    Unknown(usize),
    /// A derivative that the exporter has no rule for.
    #[error("{op} has no gradient here: {problem}")]
    NotDifferentiable {
        /// Name of the primitive.
        op: &'static str,
        /// Why.
        problem: &'static str,
    },
    /// A graph was evaluated without one of its inputs.
    #[error("the graph was not fed {0}")]
    Unfed(String),
    /// A graph was fed a tensor of the wrong shape.
    #[error("{name} must have the shape {expected:?}, not {found:?}")]
    Fed {
        /// Name of the input.
        name: String,
        /// What the graph says.
        expected: Vec<usize>,
        /// What it was fed.
        found: Vec<usize>,
    },
    /// A lowering met a primitive that it has no nodes for.
    #[error("{op} has no ONNX nodes in this lowering")]
    NotLowered {
        /// Name of the primitive.
        op: &'static str,
    },
}

impl GraphError {
    /// What can be done about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotDifferentiable { .. } => Some("differentiate a forward graph by its input, gammas and betas"),
            Self::NotLowered { .. } => Some("lower it as a portable graph that was not fused"),
            Self::Unfed(_) | Self::Fed { .. } => Some("names and shapes are those of the operator's program"),
            Self::Shape { .. } | Self::Unknown(_) => None,
        }
    }
}

/// Nodes in the order of execution, and what the graph gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    outputs: Vec<(Port, Value)>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> &[(Port, Value)] {
        &self.outputs
    }

    /// Makes `value` an output.
    pub fn output(&mut self, port: Port, value: Value) {
        self.outputs.push((port, value));
    }

    /// Takes all outputs away, to make others.
    pub fn clear_outputs(&mut self) {
        self.outputs.clear();
    }

    /// Ports of the graph's inputs, in the order of [`crate::ports`].
    pub fn inputs(&self) -> Vec<(Port, Value)> {
        let input = |(node, n): (usize, &Node)| match n.op {
            Op::Input(port) => Some((port, Value { node, output: 0 })),
            _ => None,
        };
        let mut inputs: Vec<_> = self.nodes.iter().enumerate().filter_map(input).collect();
        inputs.sort_by_key(|(port, _)| crate::ports::rank(*port));
        inputs
    }

    /// Extents of a value.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn dims(&self, value: Value) -> Result<&Dims, GraphError> {
        let node = self.nodes.get(value.node).ok_or(GraphError::Unknown(value.node))?;
        node.outputs.get(value.output).ok_or(GraphError::Unknown(value.node))
    }

    /// Adds an input or a frozen weight.
    pub fn leaf(&mut self, op: Op, dims: Dims) -> Value {
        self.nodes.push(Node { op, inputs: Vec::new(), outputs: vec![dims] });
        Value { node: self.nodes.len() - 1, output: 0 }
    }

    /// Applies a primitive; gives its first output (others are its [`Value::sibling`]s).
    ///
    /// # Errors
    /// If the primitive cannot be applied to these values.
    pub fn apply(&mut self, op: Op, inputs: &[Value]) -> Result<Value, GraphError> {
        let dims = inputs.iter().map(|&v| self.dims(v)).collect::<Result<Vec<_>, _>>()?;
        let outputs = op.dims(&dims)?;
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs });
        Ok(Value { node: self.nodes.len() - 1, output: 0 })
    }

    /// How often every value is used, by nodes and as an output.
    pub fn uses(&self) -> std::collections::HashMap<Value, usize> {
        let mut uses = std::collections::HashMap::new();
        let outputs = self.outputs.iter().map(|(_, v)| v);
        for &value in self.nodes.iter().flat_map(|n| &n.inputs).chain(outputs) {
            *uses.entry(value).or_insert(0) += 1;
        }
        uses
    }
}
