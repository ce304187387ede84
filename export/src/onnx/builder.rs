//! Builds one ONNX model, node by node.

use super::{
    FUSED_DOMAIN, FUSED_OPSET, IR_VERSION, OPSET, PRODUCER,
    external::placeholder,
    proto::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
        TensorShapeProto, TypeProto, ValueInfoProto,
        attribute_proto::AttributeType,
        tensor_proto::DataType,
        tensor_shape_proto::{Dimension, dimension},
        type_proto,
    },
};

/// Element type of a graph's input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElemType {
    /// 32-bit float.
    F32,
    /// 64-bit integer.
    I64,
}

impl ElemType {
    /// ONNX's number for it.
    pub fn onnx(self) -> i32 {
        match self {
            Self::F32 => DataType::Float as i32,
            Self::I64 => DataType::Int64 as i32,
        }
    }
}

/// One dimension of a graph's input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim<'a> {
    /// The batch, written `N`; known when the graph runs.
    Batch,
    /// Another dimension known only when the graph runs.
    Symbol(&'a str),
    /// A fixed extent.
    Fixed(i64),
}

/// Value of a node's attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A float.
    Float(f32),
    /// A list of floats.
    Floats(Vec<f32>),
    /// A string.
    String(String),
    /// A tensor ([`tensor_f32`], [`tensor_i64`]).
    Tensor(TensorProto),
}

impl From<i64> for Attr {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f32> for Attr {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl From<&[i64]> for Attr {
    fn from(value: &[i64]) -> Self {
        Self::Ints(value.to_vec())
    }
}

impl<const N: usize> From<[i64; N]> for Attr {
    fn from(value: [i64; N]) -> Self {
        Self::Ints(value.to_vec())
    }
}

impl From<&str> for Attr {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<TensorProto> for Attr {
    fn from(value: TensorProto) -> Self {
        Self::Tensor(value)
    }
}

fn attribute(name: &str, value: Attr) -> AttributeProto {
    let mut a = AttributeProto { name: Some(name.to_owned()), ..Default::default() };
    let kind = match value {
        Attr::Int(v) => {
            a.i = Some(v);
            AttributeType::Int
        }
        Attr::Ints(v) => {
            a.ints = v;
            AttributeType::Ints
        }
        Attr::Float(v) => {
            a.f = Some(v);
            AttributeType::Float
        }
        Attr::Floats(v) => {
            a.floats = v;
            AttributeType::Floats
        }
        Attr::String(v) => {
            a.s = Some(v.into_bytes());
            AttributeType::String
        }
        Attr::Tensor(v) => {
            a.t = Some(v);
            AttributeType::Tensor
        }
    };
    a.r#type = Some(kind as i32);
    a
}

/// A float tensor with its data inside, row-major.
pub fn tensor_f32(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        name: Some(name.to_owned()),
        raw_data: Some(data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ..Default::default()
    }
}

/// An integer tensor with its data inside, row-major. `dims` empty is a scalar.
pub fn tensor_i64(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::Int64 as i32),
        name: Some(name.to_owned()),
        raw_data: Some(data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ..Default::default()
    }
}

/// Builds a model with one graph. Nodes must be added in an order in which they can run.
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    graph: GraphProto,
    metadata: Vec<StringStringEntryProto>,
    fused: bool,
    fresh: usize,
}

impl GraphBuilder {
    /// An empty graph called `name`.
    pub fn new(name: &str) -> Self {
        Self { graph: GraphProto { name: Some(name.to_owned()), ..Default::default() }, ..Default::default() }
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, elem: ElemType, dims: &[Dim<'_>]) -> &mut Self {
        self.graph.input.push(value_info(name, elem, dims));
        self
    }

    /// Adds an output; a node must produce a value of this name.
    pub fn output(&mut self, name: &str, elem: ElemType, dims: &[Dim<'_>]) -> &mut Self {
        self.graph.output.push(value_info(name, elem, dims));
        self
    }

    /// Adds a node of a standard operator. An empty input name leaves an optional input out.
    pub fn node(&mut self, op_type: &str, inputs: &[&str], outputs: &[&str], attrs: &[(&str, Attr)]) -> &mut Self {
        self.domain_node("", op_type, inputs, outputs, attrs)
    }

    /// Adds a node of an operator of `domain` (the empty one, or [`FUSED_DOMAIN`]).
    pub fn domain_node(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[&str],
        outputs: &[&str],
        attrs: &[(&str, Attr)],
    ) -> &mut Self {
        self.fused |= domain == FUSED_DOMAIN;
        let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        self.graph.node.push(NodeProto {
            input: owned(inputs),
            output: owned(outputs),
            name: Some(format!("{}{}", op_type, self.graph.node.len())),
            op_type: Some(op_type.to_owned()),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            attribute: attrs.iter().map(|(name, value)| attribute(name, value.clone())).collect(),
        });
        self
    }

    /// Adds a float constant. Its data is row-major; `dims` empty is a scalar.
    pub fn initializer_f32(&mut self, name: &str, dims: &[i64], data: &[f32]) -> &mut Self {
        self.graph.initializer.push(tensor_f32(name, dims, data));
        self
    }

    /// Adds an integer constant.
    pub fn initializer_i64(&mut self, name: &str, dims: &[i64], data: &[i64]) -> &mut Self {
        self.graph.initializer.push(tensor_i64(name, dims, data));
        self
    }

    /// Adds a float constant whose data is the weight `weight_key` of the bundle's weights file.
    /// `dims` may be any shape with as many elements. [`resolve_external`](super::resolve_external)
    /// fills in where the data is before the model is written.
    pub fn external_f32(&mut self, name: &str, dims: &[i64], weight_key: &str) -> &mut Self {
        self.graph.initializer.push(placeholder(name, dims, weight_key));
        self
    }

    /// Whether a constant of this name was added already.
    pub fn has_initializer(&self, name: &str) -> bool {
        self.graph.initializer.iter().any(|t| t.name() == name)
    }

    /// A value name that no other call returned: `{stem}_{n}`.
    pub fn fresh(&mut self, stem: &str) -> String {
        self.fresh += 1;
        format!("{stem}_{}", self.fresh)
    }

    /// Adds an entry to the model's metadata.
    pub fn metadata(&mut self, key: &str, value: &str) -> &mut Self {
        self.metadata.push(StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) });
        self
    }

    /// [`finish`](Self::finish) as the bytes of an ONNX file.
    pub fn encode(self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.finish())
    }

    /// The model: IR version, operator sets (the fused one only where it is used) and producer set.
    pub fn finish(self) -> ModelProto {
        let import = |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
        let mut opset_import = vec![import("", OPSET)];
        if self.fused {
            opset_import.push(import(FUSED_DOMAIN, FUSED_OPSET));
        }
        ModelProto {
            ir_version: Some(IR_VERSION),
            opset_import,
            producer_name: Some(PRODUCER.to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(self.graph),
            metadata_props: self.metadata,
        }
    }
}

fn value_info(name: &str, elem: ElemType, dims: &[Dim<'_>]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|d| Dimension {
            value: Some(match *d {
                Dim::Batch => dimension::Value::DimParam("N".to_owned()),
                Dim::Symbol(symbol) => dimension::Value::DimParam(symbol.to_owned()),
                Dim::Fixed(extent) => dimension::Value::DimValue(extent),
            }),
        })
        .collect();
    let tensor = type_proto::Tensor { elem_type: Some(elem.onnx()), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_model_survives_its_encoding_and_imports_only_what_it_uses() {
        let mut b = GraphBuilder::new("g");
        b.input("x", ElemType::F32, &[Dim::Batch, Dim::Fixed(3)]);
        b.initializer_f32("c", &[], &[2.0]);
        b.node("Mul", &["x", "c"], &["y"], &[]);
        b.output("y", ElemType::F32, &[Dim::Batch, Dim::Fixed(3)]);
        let model = b.clone().finish();
        assert_eq!(model.opset_import.len(), 1);
        assert_eq!(ModelProto::decode(model.encode_to_vec().as_slice()).as_ref(), Ok(&model));

        b.domain_node(FUSED_DOMAIN, "Other", &["y"], &["z"], &[("axis", 1_i64.into())]);
        let model = b.finish();
        assert_eq!(model.opset_import[1].domain(), FUSED_DOMAIN);
        let attribute = &model.graph.as_ref().map(|g| &g.node[1].attribute[0]);
        assert_eq!(attribute.map(|a| (a.name(), a.i(), a.r#type())), Some(("axis", 1, AttributeType::Int)));
    }

    #[test]
    fn fresh_names_differ() {
        let mut b = GraphBuilder::new("g");
        assert_ne!(b.fresh("v"), b.fresh("v"));
    }
}
