//! Names and order of a graph's inputs and outputs.

use nasbn_models::manifest::{NamedPort, Port};

/// Name of a port in ONNX graphs: `x`, `gamma0`, `saved1`, ...
pub fn name(port: Port) -> String {
    match port {
        Port::X => "x".into(),
        Port::Y => "y".into(),
        Port::Dy => "dy".into(),
        Port::Dx => "dx".into(),
        Port::Saved(i) => format!("saved{i}"),
        Port::Gamma(i) => format!("gamma{i}"),
        Port::Beta(i) => format!("beta{i}"),
        Port::Mean(i) => format!("mean{i}"),
        Port::Var(i) => format!("var{i}"),
        Port::DGamma(i) => format!("dgamma{i}"),
        Port::DBeta(i) => format!("dbeta{i}"),
        Port::Logits => "logits".into(),
        Port::Labels => "labels".into(),
        Port::Loss => "loss".into(),
        Port::SampleLoss => "sample_loss".into(),
        Port::DLogits => "dlogits".into(),
        Port::Part(i) => format!("part{i}"),
        Port::SampleDGamma(i) => format!("sample_dgamma{i}"),
        Port::SampleDBeta(i) => format!("sample_dbeta{i}"),
        Port::Agreement => "agreement".into(),
        Port::Flow(i) => format!("flow{i}"),
    }
}

/// A port with its [`name`].
pub fn named(port: Port) -> NamedPort {
    NamedPort { port, name: name(port) }
}

/// Sort key: tensors of the batch first, then the parameters of one BatchNorm after another.
pub fn rank(port: Port) -> (u8, u16, u8) {
    match port {
        Port::X | Port::Logits => (0, 0, 0),
        Port::Y | Port::Agreement => (0, 0, 1),
        Port::Dy | Port::Labels | Port::Loss => (0, 0, 2),
        Port::Dx | Port::SampleLoss => (0, 0, 3),
        Port::DLogits => (0, 0, 4),
        Port::Part(i) => (0, i, 5),
        Port::Saved(i) => (1, i, 0),
        Port::Flow(i) => (1, i, 1),
        Port::Gamma(i) | Port::DGamma(i) | Port::SampleDGamma(i) => (2, i, 0),
        Port::Beta(i) | Port::DBeta(i) | Port::SampleDBeta(i) => (2, i, 1),
        Port::Mean(i) => (2, i, 2),
        Port::Var(i) => (2, i, 3),
    }
}
