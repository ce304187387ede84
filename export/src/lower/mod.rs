//! Lowering: which ONNX nodes a graph of primitives becomes.
//!
//! [`portable`] knows the standard nodes, with activations `[N, C, H, W]`. [`fused`] knows the
//! runtime's own operators, with activations `[N, H, W, C]`, and leaves everything else to the
//! portable nodes. [`inference`] folds BatchNorms away.

pub mod fused;
mod grouped;
pub mod inference;
pub mod portable;

use std::collections::HashMap;

use nasbn_models::manifest::{Lowering, NamedPort, Port};

use crate::{
    ir::{Dims, Graph, GraphError, Op, Value},
    onnx::{Attr, Dim, ElemType, GraphBuilder, proto::ModelProto},
    ports,
};

use inference::Constants;

/// Order of an image's extents in ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layout {
    /// `[N, C, H, W]`; also of values that are no images.
    Nchw,
    /// `[N, H, W, C]`.
    Nhwc,
}

/// How a graph is lowered.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Name of the ONNX graph.
    pub name: &'a str,
    /// Prefix of the frozen weights in the bundle (`e03.mb6k5`).
    pub key: &'a str,
    /// Which nodes.
    pub lowering: Lowering,
    /// Whether x is the image, which every lowering takes as `[N, C, H, W]`.
    pub from_image: bool,
    /// Epsilon of every BatchNorm.
    pub epsilon: f32,
}

/// An ONNX model and the meaning of its inputs and outputs.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The model; its weights refer to the bundle by key until they are resolved.
    pub model: ModelProto,
    /// Inputs in order.
    pub inputs: Vec<NamedPort>,
    /// Outputs in order.
    pub outputs: Vec<NamedPort>,
}

/// Lowers a graph.
///
/// # Errors
/// If a primitive has no nodes in this lowering; never for the graphs of [`crate::roles`].
pub fn lower(graph: &Graph, options: Options<'_>) -> Result<Lowered, GraphError> {
    match options.lowering {
        Lowering::Portable => Lowerer::new(graph, options, GraphBuilder::new(options.name)).run(),
        Lowering::Fused => Lowerer::new(&fused::fuse(graph)?, options, GraphBuilder::new(options.name)).run(),
    }
}

/// Lowers a graph to standard nodes, with the magnitudes of its weights in the place of the weights.
///
/// # Errors
/// See [`lower`].
pub fn lower_magnitudes(graph: &Graph, options: Options<'_>) -> Result<Lowered, GraphError> {
    let options = Options { lowering: Lowering::Portable, ..options };
    let mut lowerer = Lowerer::new(graph, options, GraphBuilder::new(options.name));
    lowerer.magnitudes = true;
    lowerer.run()
}

/// A graph on its way to ONNX.
pub(crate) struct Lowerer<'g> {
    graph: &'g Graph,
    options: Options<'g>,
    constants: Constants<'g>,
    /// Whether weights of the bundle are taken by magnitude.
    magnitudes: bool,
    /// Goes before the names of weights.
    prefix: String,
    pub(crate) builder: GraphBuilder,
    names: HashMap<(Value, Layout), String>,
    /// Names that values must get, because they are outputs.
    wanted: HashMap<(Value, Layout), String>,
    uses: HashMap<Value, usize>,
    /// Names of images of one pixel as `[N, C]`.
    flat: HashMap<Value, String>,
    /// Values that several primitives derive in the same way, by what they are.
    shared: HashMap<String, String>,
}

impl<'g> Lowerer<'g> {
    fn new(graph: &'g Graph, options: Options<'g>, builder: GraphBuilder) -> Self {
        Self {
            graph,
            options,
            constants: Constants::Bundle,
            magnitudes: false,
            prefix: String::new(),
            builder,
            names: HashMap::new(),
            wanted: HashMap::new(),
            uses: graph.uses(),
            flat: HashMap::new(),
            shared: HashMap::new(),
        }
    }

    fn run(mut self) -> Result<Lowered, GraphError> {
        let inputs = self.graph.inputs();
        for &(port, value) in &inputs {
            let name = ports::name(port);
            let layout = self.port_layout(port, value)?;
            let elem = if port == Port::Labels { ElemType::I64 } else { ElemType::F32 };
            let dims = self.onnx_dims(value, layout)?;
            self.builder.input(&name, elem, &dims);
            self.names.insert((value, layout), name);
        }
        for &(port, value) in self.graph.outputs() {
            let layout = self.port_layout(port, value)?;
            self.wanted.entry((value, layout)).or_insert_with(|| ports::name(port));
        }
        self.nodes()?;
        for &(port, value) in self.graph.outputs() {
            let layout = self.port_layout(port, value)?;
            let (found, name) = (self.read(value, layout)?, ports::name(port));
            if found != name {
                self.builder.node("Identity", &[&found], &[&name], &[]);
            }
            let dims = self.onnx_dims(value, layout)?;
            self.builder.output(&name, ElemType::F32, &dims);
        }
        let named = |ports: &[(Port, Value)]| ports.iter().map(|(port, _)| ports::named(*port)).collect();
        let (inputs, outputs) = (named(&inputs), named(self.graph.outputs()));
        Ok(Lowered { model: self.builder.finish(), inputs, outputs })
    }

    fn nodes(&mut self) -> Result<(), GraphError> {
        let graph = self.graph;
        for (index, node) in graph.nodes().iter().enumerate() {
            let value = Value { node: index, output: 0 };
            let done = self.options.lowering == Lowering::Fused && fused::emit(self, node, value)?;
            if !done {
                portable::emit(self, node, value)?;
            }
        }
        Ok(())
    }

    fn port_layout(&self, port: Port, value: Value) -> Result<Layout, GraphError> {
        let image = self.options.from_image && matches!(port, Port::X | Port::Dx);
        let portable = self.options.lowering == Lowering::Portable;
        let is_image = matches!(self.graph.dims(value)?, Dims::Image(_));
        Ok(if portable || image || !is_image { Layout::Nchw } else { Layout::Nhwc })
    }

    fn onnx_dims(&self, value: Value, layout: Layout) -> Result<Vec<Dim<'static>>, GraphError> {
        let fixed = |extent: u32| Dim::Fixed(i64::from(extent));
        Ok(match (self.graph.dims(value)?, layout) {
            (Dims::Image(s), Layout::Nchw) => vec![Dim::Batch, fixed(s.channels), fixed(s.height), fixed(s.width)],
            (Dims::Image(s), Layout::Nhwc) => vec![Dim::Batch, fixed(s.height), fixed(s.width), fixed(s.channels)],
            (Dims::Features(features), _) => vec![Dim::Batch, fixed(*features)],
            (Dims::Samples, _) => vec![Dim::Batch],
            (Dims::Pairs, _) => vec![Dim::Batch, Dim::Batch],
            (Dims::Fixed(dims), _) => dims.iter().map(|&d| fixed(d)).collect(),
        })
    }

    /// Extents of a value of the graph.
    pub(crate) fn dims(&self, value: Value) -> Result<&'g Dims, GraphError> {
        self.graph.dims(value)
    }

    /// Shape of an image value.
    pub(crate) fn shape(&self, value: Value) -> Result<nasbn_models::Shape, GraphError> {
        match self.graph.dims(value)? {
            Dims::Image(shape) => Ok(*shape),
            other => Err(GraphError::Shape { op: "Lowering", problem: format!("{other:?} is no image") }),
        }
    }

    /// Whether a value is an output of the graph, or used by a primitive that `except` does not hold for.
    pub(crate) fn is_used_beside(&self, value: Value, except: fn(&Op) -> bool) -> bool {
        let by_node = self.graph.nodes().iter().any(|n| !except(&n.op) && n.inputs.contains(&value));
        by_node || self.graph.outputs().iter().any(|(_, v)| *v == value)
    }

    /// Whether anything uses a value.
    pub(crate) fn is_used(&self, value: Value) -> bool {
        self.uses.contains_key(&value)
    }

    /// Epsilon of every BatchNorm.
    pub(crate) fn epsilon(&self) -> f32 {
        self.options.epsilon
    }

    /// The ONNX name of a value in a layout; a transposition is added where it is in the other one.
    pub(crate) fn read(&mut self, value: Value, layout: Layout) -> Result<String, GraphError> {
        if matches!(self.graph.nodes()[value.node].op, Op::Weight(_) | Op::Constant(_)) {
            return self.weight(value, self.weight_dims(value)?);
        }
        let layout = if matches!(self.graph.dims(value)?, Dims::Image(_)) { layout } else { Layout::Nchw };
        if let Some(name) = self.names.get(&(value, layout)) {
            return Ok(name.clone());
        }
        let (other, perm) = match layout {
            Layout::Nchw => (Layout::Nhwc, [0_i64, 3, 1, 2]),
            Layout::Nhwc => (Layout::Nchw, [0, 2, 3, 1]),
        };
        let from = self.names.get(&(value, other)).cloned().ok_or(GraphError::Unknown(value.node))?;
        let to = self.define(value, layout, "transposed");
        self.builder.node("Transpose", &[&from], &[&to], &[("perm", perm.into())]);
        Ok(to)
    }

    /// The name that the node about to be added must give to a value.
    pub(crate) fn define(&mut self, value: Value, layout: Layout, stem: &str) -> String {
        let is_image = matches!(self.graph.dims(value), Ok(Dims::Image(_)));
        let layout = if is_image { layout } else { Layout::Nchw };
        let name = match self.wanted.get(&(value, layout)) {
            Some(name) => name.clone(),
            None => self.builder.fresh(stem),
        };
        self.names.insert((value, layout), name.clone());
        name
    }

    /// Adds a node with one output that is no value of the graph; gives its name.
    pub(crate) fn node(&mut self, op_type: &str, inputs: &[&str], attrs: &[(&str, Attr)]) -> String {
        self.node_to(None, op_type, inputs, attrs)
    }

    /// Adds a node whose one output is `target`, if there is one; gives its name.
    pub(crate) fn node_to(
        &mut self,
        target: Option<(Value, Layout)>,
        op_type: &str,
        inputs: &[&str],
        attrs: &[(&str, Attr)],
    ) -> String {
        let stem = op_type.to_lowercase();
        let output = match target {
            Some((value, layout)) => self.define(value, layout, &stem),
            None => self.builder.fresh(&stem),
        };
        self.builder.node(op_type, inputs, &[&output], attrs);
        output
    }

    /// What `make` adds, once for the same `what`.
    pub(crate) fn once(&mut self, what: String, make: impl FnOnce(&mut Self) -> String) -> String {
        if let Some(name) = self.shared.get(&what) {
            return name.clone();
        }
        let name = make(self);
        self.shared.insert(what, name.clone());
        name
    }

    /// Says that a value (no image) has a name already.
    pub(crate) fn is_called(&mut self, value: Value, name: String) {
        self.names.insert((value, Layout::Nchw), name);
    }

    /// A frozen weight or a constant as an initializer of the given extents (as many elements as it has).
    pub(crate) fn weight(&mut self, value: Value, dims: &[u32]) -> Result<String, GraphError> {
        let graph = self.graph;
        match graph.nodes().get(value.node).map(|n| &n.op) {
            Some(Op::Weight(weight)) => match self.constants {
                Constants::Bundle if self.magnitudes => {
                    let name = self.external(weight, dims)?;
                    Ok(self.once(format!("{name} magnitude"), |l| l.node("Abs", &[&name], &[])))
                }
                Constants::Bundle => self.external(weight, dims),
                Constants::Given(find) => self.given(find, weight, dims),
            },
            Some(Op::Constant(constant)) => inference::constant(self, value, constant),
            _ => Err(GraphError::Unknown(value.node)),
        }
    }

    /// A weight of the bundle as an initializer, once for every choice of extents.
    fn external(&mut self, weight: &str, dims: &[u32]) -> Result<String, GraphError> {
        let text: Vec<String> = dims.iter().map(u32::to_string).collect();
        let stored = self.graph.nodes().iter().find_map(|n| match (&n.op, n.outputs.first()) {
            (Op::Weight(name), Some(Dims::Fixed(stored))) if name == weight => Some(stored.as_slice()),
            _ => None,
        });
        let name = match stored.is_none_or(|stored| stored == dims) {
            true => weight.to_owned(),
            false => format!("{weight}.{}", text.join("x")),
        };
        if !self.builder.has_initializer(&name) {
            let dims: Vec<i64> = dims.iter().map(|&d| i64::from(d)).collect();
            self.builder.external_f32(&name, &dims, &format!("{}.{weight}", self.options.key));
        }
        Ok(name)
    }

    /// Extents of a frozen weight.
    pub(crate) fn weight_dims(&self, value: Value) -> Result<&'g [u32], GraphError> {
        match self.graph.dims(value)? {
            Dims::Fixed(dims) => Ok(dims),
            other => Err(GraphError::Shape { op: "Lowering", problem: format!("{other:?} is no weight") }),
        }
    }

    /// A float constant, stored once a name.
    pub(crate) fn constant(&mut self, name: &str, dims: &[i64], data: &[f32]) -> String {
        if !self.builder.has_initializer(name) {
            self.builder.initializer_f32(name, dims, data);
        }
        name.to_owned()
    }

    /// A list of whole numbers as a constant, stored once.
    pub(crate) fn integers(&mut self, data: &[i64]) -> String {
        let text: Vec<String> = data.iter().map(|d| d.to_string().replace('-', "m")).collect();
        let name = format!("ints_{}", text.join("_"));
        if !self.builder.has_initializer(&name) {
            self.builder.initializer_i64(&name, &[data.len() as i64], data);
        }
        name
    }
}
