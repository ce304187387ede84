//! Adaptation of one candidate: its own BatchNorms, started from the supernet's, trained alone for a few
//! steps before it is scored.

use nasbn_models::{Path, manifest::Lowering};
use serde::Serialize;

use super::{
    AdaptError, AdaptOptions, Sampling, Trainer,
    optimizer::{Rule, Schedule},
};
use crate::{data::Batch, network::Network, parameters::BnParameters};

/// How a candidate is adapted: SGD along a cosine from `rate` to 0, without warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CandidateOptions {
    /// Steps; step number i takes mini-batch i, from the first again once they are used up.
    pub steps: u32,
    /// Peak learning rate.
    pub rate: f32,
}

/// Momentum of SGD.
const MOMENTUM: f32 = 0.9;
/// Longer gradients are shortened to this norm.
const CLIP_NORM: f32 = 5.0;

/// A candidate after its adaptation.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// Gamma and beta, changed on the candidate's BatchNorms only.
    pub parameters: BnParameters,
    /// Loss of every step's mini-batch before the step, nats.
    pub losses: Vec<f32>,
}

impl Adapted {
    /// Mean loss of the last quarter of the steps (at least one), nats.
    pub fn last_loss(&self) -> f64 {
        let last = self.losses.len().div_ceil(4);
        let losses = &self.losses[self.losses.len() - last..];
        losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / last as f64
    }
}

/// Trains the BatchNorms of `path` alone. A function of its arguments: nothing is drawn.
///
/// # Errors
/// If a graph fails, or loss or gradients stop being finite.
pub fn adapt(
    network: &mut Network,
    path: &Path,
    start: &BnParameters,
    batches: &[Batch],
    options: CandidateOptions,
) -> Result<Adapted, AdaptError> {
    let total = u64::from(options.steps);
    let training = AdaptOptions {
        epochs: 1,
        batch: batches.first().map_or(0, |batch| batch.len() as u32),
        rule: Rule::Sgd { momentum: MOMENTUM },
        schedule: Schedule { peak: options.rate, warmup: 0, total, cosine: true },
        clip_norm: Some(CLIP_NORM),
        sampling: Sampling::Uniform,
        path: Some(path.clone()),
        seed: 0,
        data: String::new(),
        augment: false,
        lean: false,
        fused: network.options().lowering == Lowering::Fused,
    };
    let mut trainer = Trainer::new(network, training, start.clone());
    let mut losses = Vec::with_capacity(options.steps as usize);
    for batch in batches.iter().cycle().take(options.steps as usize) {
        losses.push(trainer.step(network, batch.images.view(), &batch.labels)?.loss);
    }
    Ok(Adapted { parameters: trainer.parameters, losses })
}
