//! Whether a provider works: a convolution and its activation, run on it.

use nasbn_export::onnx::{Dim, ElemType, GraphBuilder};
use ort::environment::Environment;

use super::{Backend, Placement, PlacementError, Provider, ProviderError, measure};
use crate::{
    engine::{Model, Opener},
    latency::SubjectError,
};

/// Channels of the probe's input and output.
const CHANNELS: i64 = 4;
/// Side of its images, pixels.
const SIDE: i64 = 8;

/// The probe, an ONNX model: x `[1, 4, 8, 8]`, a 1x1 convolution to 4 channels and Relu. What every provider knows.
pub fn model() -> Vec<u8> {
    let image = [Dim::Fixed(1), Dim::Fixed(CHANNELS), Dim::Fixed(SIDE), Dim::Fixed(SIDE)];
    let mut graph = GraphBuilder::new("probe");
    graph.input("x", ElemType::F32, &image);
    graph.initializer_f32("w", &[CHANNELS, CHANNELS, 1, 1], &[0.25; (CHANNELS * CHANNELS) as usize]);
    graph.node("Conv", &["x", "w"], &["h"], &[("kernel_shape", [1, 1].into())]);
    graph.node("Relu", &["h"], &["y"], &[]);
    graph.output("y", ElemType::F32, &image);
    graph.encode()
}

/// Runs the probe on `provider` and says where its nodes ran.
///
/// # Errors
/// If the provider is not built into the loaded library, does not start, does not run the probe, or leaves it to another.
pub fn probe(environment: &Environment, provider: Provider) -> Result<Placement, ProviderError> {
    if !provider.is_built_in() {
        return Err(ProviderError::NotBuiltIn { provider });
    }
    let refused = |error: &dyn std::error::Error| ProviderError::said(provider, &error.to_string());
    let backend = Backend { provider, ..environment.clone().into() };
    let opener = Opener::new(backend).map_err(|error| refused(&error))?;
    let model = model();
    // A profiled session that fails has more to say on standard error than is asked for.
    drop(opener.model(&model).map_err(|error| refused(&error))?);
    let placement = measure(&opener, Model::Bytes(&model), 1, &[]).map_err(|error| match error {
        PlacementError::Subject(SubjectError::Run(error)) => refused(&error),
        source => ProviderError::Untold { provider, source },
    })?;
    placement.check(provider, "the probe")?;
    Ok(placement)
}
