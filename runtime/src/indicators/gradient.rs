//! The norm of the loss gradient over gamma and beta (Abdelfattah et al. 2021, "Zero-Cost Proxies for
//! Lightweight NAS", section 3.2: `grad_norm`, there over all weights).

use nasbn_models::Path;

use crate::{
    adapt::optimizer::gradient_norm,
    engine::EngineError,
    network::{Network, Pass},
    parameters::{BnParameters, Statistics},
};

/// Euclidean norm of the gradient of the mean loss with respect to gamma and beta of the path, from a pass
/// with batch statistics that was kept for its gradients. `labels` are those of the pass's images, `[N]`.
///
/// # Errors
/// If a graph fails, or the pass was not kept.
pub fn norm(
    network: &mut Network,
    path: &Path,
    parameters: &BnParameters,
    statistics: &Statistics,
    pass: Pass,
    labels: &[i64],
) -> Result<f64, EngineError> {
    let loss = network.loss(&pass.logits, labels)?;
    let mut gradients = BnParameters::zeros(network.layout());
    network.backward(parameters, statistics, pass, loss, &mut gradients, path)?;
    let slots: Vec<usize> = network.layout().path(network.supernet(), path).collect();
    Ok(gradient_norm(network.layout(), &slots, &gradients))
}
