//! Checks the graphs of a bundle against its manifest: what digests cannot say.

use std::{fs, path::PathBuf};

use nasbn_models::{
    Shape, Supernet,
    manifest::{Graph, Lowering, NamedPort, Owner, Port},
};
use prost::Message;

use super::{Bundle, BundleError};
use crate::onnx::proto::{ModelProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};

/// Why a graph is not what the manifest says.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The bundle itself is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A graph.
    #[error("{}: {problem}", path.display())]
    Graph {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl CheckError {
    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Bundle(error) => error.hint(),
            Self::Graph { .. } => "build the bundle again with `nasbn-export build`",
        }
    }
}

/// Verifies a bundle's files (and so that every graph takes its weights from inside the weights' file), then
/// that every graph has the inputs and outputs of the manifest with the supernet's shapes.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(bundle: &Bundle) -> Result<(), CheckError> {
    bundle.verify()?;
    let manifest = bundle.manifest();
    for graph in &manifest.graphs {
        let path = bundle.file_path(graph.file);
        let wrong = |problem: String| CheckError::Graph { path: path.clone(), problem };
        let data = fs::read(&path).map_err(|source| BundleError::Io { path: path.clone(), source })?;
        let model = ModelProto::decode(data.as_slice()).map_err(|e| wrong(format!("it is not an ONNX model: {e}")))?;
        let Some(onnx) = &model.graph else { return Err(wrong("it holds no graph".into())) };
        ports(&manifest.supernet, graph, &graph.inputs, &onnx.input).map_err(|p| wrong(format!("inputs: {p}")))?;
        ports(&manifest.supernet, graph, &graph.outputs, &onnx.output).map_err(|p| wrong(format!("outputs: {p}")))?;
    }
    Ok(())
}

/// Names, order and extents of inputs or outputs.
fn ports(supernet: &Supernet, graph: &Graph, named: &[NamedPort], infos: &[ValueInfoProto]) -> Result<(), String> {
    let found: Vec<&str> = infos.iter().map(ValueInfoProto::name).collect();
    let expected: Vec<&str> = named.iter().map(|p| p.name.as_str()).collect();
    if found != expected {
        return Err(format!("the graph has {found:?}, the manifest {expected:?}"));
    }
    for (port, info) in named.iter().zip(infos) {
        let found = extents(info).ok_or_else(|| format!("`{}` has no shape", port.name))?;
        if let Some(expected) = shape_of(supernet, graph, port.port)
            && !expected.contains(&found)
        {
            return Err(format!("`{}` has shape {found:?} instead of {:?}", port.name, expected[0]));
        }
    }
    Ok(())
}

/// Extents of a value; symbolic ones are `None`.
fn extents(info: &ValueInfoProto) -> Option<Vec<Option<i64>>> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()?;
    let fixed = |value: &Option<dimension::Value>| match value {
        Some(dimension::Value::DimValue(v)) => Some(*v),
        _ => None,
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(|d| fixed(&d.value)).collect())
}

/// Shapes that a port of an operator's graph may have, the usual one first; `None` for ports whose shape
/// follows from the inside of the operator.
fn shape_of(supernet: &Supernet, graph: &Graph, port: Port) -> Option<Vec<Vec<Option<i64>>>> {
    let Owner::Operator { edge, operator } = graph.owner else { return None };
    let e = supernet.edges.get(usize::from(edge))?;
    let image = |shape: Shape, from_image: bool| {
        let [c, h, w] = [shape.channels, shape.height, shape.width].map(|d| Some(i64::from(d)));
        let whole = match graph.lowering {
            Lowering::Fused if !from_image => vec![None, h, w, c],
            _ => vec![None, c, h, w],
        };
        if shape.pixels() == 1 { vec![whole, vec![None, c]] } else { vec![whole] }
    };
    match port {
        Port::X | Port::Dx => Some(image(supernet.nodes.get(usize::from(e.from))?.shape, e.from == 0)),
        Port::Y | Port::Dy => Some(image(supernet.edge_shape(e), false)),
        Port::Gamma(i) | Port::Beta(i) | Port::Mean(i) | Port::Var(i) | Port::DGamma(i) | Port::DBeta(i) => {
            let program = supernet.program(usize::from(edge), operator).ok()?;
            let channels = program.batch_norms().nth(usize::from(i)).map_or(-1, i64::from);
            Some(vec![vec![Some(channels)]])
        }
        Port::SampleDGamma(i) | Port::SampleDBeta(i) => {
            let program = supernet.program(usize::from(edge), operator).ok()?;
            let channels = program.batch_norms().nth(usize::from(i)).map_or(-1, i64::from);
            Some(vec![vec![None, Some(channels)]])
        }
        Port::Agreement => Some(vec![vec![None, None]]),
        _ => None,
    }
}
