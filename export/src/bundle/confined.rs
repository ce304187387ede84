//! Whether a graph keeps to the bundle: what ONNX Runtime is told to read lies inside the weights' file.

use prost::Message;

use crate::onnx::proto::{ModelProto, TensorProto};

/// Largest graph file that is read; weights are outside of them.
pub const MAX_GRAPH_BYTES: u64 = 64 << 20;

/// Checks the bytes of an ONNX file of a bundle, whose external constants may only lie in the file called
/// `weights` beside it, of `weights_bytes` bytes.
///
/// What this program does not know of ONNX (functions, subgraphs, sparse tensors, training graphs, ...) could
/// hide constants, so a file is only taken if it is, byte for byte, what this program would write for it.
///
/// # Errors
/// What is wrong.
pub fn confined(data: &[u8], weights: &str, weights_bytes: u64) -> Result<(), String> {
    let model = ModelProto::decode(data).map_err(|e| format!("is not an ONNX model: {e}"))?;
    if model.encode_to_vec() != data {
        return Err("has parts that no graph of a bundle has".into());
    }
    let Some(graph) = &model.graph else { return Err("holds no graph".into()) };
    let attributes = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|a| a.t.as_ref());
    let outside = |tensor: &&TensorProto| !is_inside(tensor, weights, weights_bytes);
    match graph.initializer.iter().chain(attributes).find(outside) {
        Some(tensor) => Err(format!("takes constant `{}` from outside the weights' file", tensor.name())),
        None => Ok(()),
    }
}

/// Whether a constant is in the graph itself or inside the weights' file, with every entry once.
fn is_inside(tensor: &TensorProto, weights: &str, weights_bytes: u64) -> bool {
    if tensor.external_data.is_empty() {
        return true;
    }
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key() == key).map(|e| e.value());
    let number = |key: &str| entry(key).and_then(|v| v.parse::<u64>().ok());
    let end = number("offset").zip(number("length")).and_then(|(offset, length)| offset.checked_add(length));
    tensor.external_data.len() == 3 && entry("location") == Some(weights) && end.is_some_and(|end| end <= weights_bytes)
}
