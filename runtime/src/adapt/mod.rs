//! Adaptation: training gamma and beta of the supernet along sampled paths, all else frozen.
//!
//! Single-path-one-shot (Guo et al. 2020): every step samples a path, and only its BatchNorms
//! learn (BN-NAS, Chen et al. 2021; arXiv 2112.00265).

pub mod candidate;
pub mod metrics;
pub mod optimizer;
pub mod rate;
pub mod run;

use nasbn_models::{
    Path,
    sample::{self, FairSampler},
};
use ndarray::ArrayView4;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Checkpoint,
    engine::EngineError,
    network::Network,
    parameters::{BnParameters, Statistics},
};
use optimizer::{Optimizer, Rule, Schedule, gradient_norm};

/// How the paths of a run are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sampling {
    /// Every candidate of every choice equally likely, independently (SPOS).
    Uniform,
    /// Every candidate of every choice once per round (strict fairness, FairNAS, Chu et al. 2021).
    Fair,
}

/// Options of a run that decide its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdaptOptions {
    /// Passes over the training images.
    pub epochs: u32,
    /// Images in a mini-batch.
    pub batch: u32,
    /// Optimiser.
    pub rule: Rule,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Largest gradient norm; longer gradients are shortened to it.
    pub clip_norm: Option<f32>,
    /// How paths are drawn.
    pub sampling: Sampling,
    /// Train only this path.
    pub path: Option<Path>,
    /// Seed of paths, order of images and augmentation.
    pub seed: u64,
    /// Fingerprint of the images.
    pub data: String,
    /// Random crops and flips.
    pub augment: bool,
    /// Whether activations are recomputed (which may change the last bits).
    pub lean: bool,
    /// Whether the CPU's fused operators are trained with (which may change the last bits).
    pub fused: bool,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Position of the path sampler's random stream, in words.
    pub stream: u128,
    /// Decks of the fair sampler.
    pub fair: Option<FairSampler>,
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: u64,
    /// Path that was trained.
    pub path: Path,
    /// Mean cross-entropy of the mini-batch before the step, nats.
    pub loss: f32,
    /// Learning rate of the step.
    pub rate: f32,
    /// Norm of the gradients before clipping.
    pub gradient_norm: f64,
}

/// Why adaptation stops.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// A graph failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A number that is infinite or not a number, or a parameter larger than any network has. After a step
    /// with such a parameter, the trainer must not be used any more; otherwise the step was not taken.
    #[error("{what} became {value:e} at step {step} (learning rate {rate})")]
    NonFinite {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: f64,
        /// Number of the step, from 1.
        step: u64,
        /// Learning rate of the step.
        rate: f32,
        /// A rate to try instead.
        suggested_rate: f32,
    },
    /// No valid path was found.
    #[error("no connected path was found in {0} draws")]
    NoPath(u32),
}

/// The generator of sampled paths for a seed.
pub fn path_rng(seed: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(PATH_STREAM);
    rng
}

/// Gamma and beta beyond this have diverged: after a BatchNorm activations are of order one, and trained
/// ones stay within tens.
pub const LARGEST_PARAMETER: f32 = 1e4;

/// Stream of the path sampler; data and weights use others.
const PATH_STREAM: u64 = 0x7061_7468;

/// A run of adaptation.
pub struct Trainer {
    options: AdaptOptions,
    rng: ChaCha8Rng,
    fair: Option<FairSampler>,
    step: u64,
    /// Gamma and beta as they stand.
    pub parameters: BnParameters,
    optimizer: Optimizer,
    gradients: BnParameters,
    statistics: Statistics,
    slots: Vec<usize>,
    environment: String,
}

impl Trainer {
    /// A run from the beginning.
    pub fn new(network: &Network, options: AdaptOptions, parameters: BnParameters) -> Self {
        let optimizer = Optimizer::new(options.rule, network.layout());
        let fair = (options.sampling == Sampling::Fair && options.path.is_none())
            .then(|| FairSampler::new(network.supernet()));
        let progress = Progress { step: 0, stream: 0, fair };
        Self::resume(network, Checkpoint { options, progress, environment: String::new(), parameters, optimizer })
    }

    /// A run from where a checkpoint stands.
    pub fn resume(network: &Network, checkpoint: Checkpoint) -> Self {
        let Checkpoint { options, progress, parameters, optimizer, .. } = checkpoint;
        let mut rng = path_rng(options.seed);
        rng.set_word_pos(progress.stream);
        Self {
            rng,
            fair: progress.fair,
            step: progress.step,
            parameters,
            optimizer,
            gradients: BnParameters::zeros(network.layout()),
            statistics: Statistics::standard(network.layout()),
            slots: Vec::new(),
            environment: network.runs_on().unwrap_or_default(),
            options,
        }
    }

    /// Options of the run.
    pub fn options(&self) -> &AdaptOptions {
        &self.options
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The run as it stands.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            options: self.options.clone(),
            progress: Progress { step: self.step, stream: self.rng.get_word_pos(), fair: self.fair.clone() },
            environment: self.environment.clone(),
            parameters: self.parameters.clone(),
            optimizer: self.optimizer.clone(),
        }
    }

    fn sample(&mut self, network: &Network) -> Result<Path, AdaptError> {
        const TRIES: u32 = 10_000;
        if let Some(path) = &self.options.path {
            return Ok(path.clone());
        }
        for _ in 0..TRIES {
            let path = match &mut self.fair {
                Some(fair) => fair.next(network.supernet(), &mut self.rng),
                None => sample::uniform(network.supernet(), &mut self.rng),
            };
            if network.supernet().is_connected(&path) {
                return Ok(path);
            }
        }
        Err(AdaptError::NoPath(TRIES))
    }

    /// Takes one step on a mini-batch: images `[N, C, H, W]`, class indices `[N]`.
    ///
    /// # Errors
    /// If a graph fails, or loss or gradients are not finite; parameters are then as before. If parameters
    /// outgrow [`LARGEST_PARAMETER`], the trainer must not be used any more.
    pub fn step(
        &mut self,
        network: &mut Network,
        images: ArrayView4<'_, f32>,
        labels: &[i64],
    ) -> Result<StepReport, AdaptError> {
        let rate = self.options.schedule.rate(self.step);
        self.step_at(network, images, labels, rate)
    }

    /// [`Trainer::step`] with a given learning rate.
    ///
    /// # Errors
    /// See [`Trainer::step`].
    pub fn step_at(
        &mut self,
        network: &mut Network,
        images: ArrayView4<'_, f32>,
        labels: &[i64],
        rate: f32,
    ) -> Result<StepReport, AdaptError> {
        let path = self.sample(network)?;
        let pass = network.forward(&path, &self.parameters, images, &mut self.statistics, true)?;
        let output = network.loss(&pass.logits, labels)?;
        let loss = output.loss;
        network.backward(&self.parameters, &self.statistics, pass, output, &mut self.gradients, &path)?;
        self.slots.clear();
        self.slots.extend(network.layout().path(network.supernet(), &path));
        let norm = gradient_norm(network.layout(), &self.slots, &self.gradients);
        // Beyond a rate of 1 training leaves the road even where it begins well.
        let suggested_rate = (self.options.schedule.peak / 10.0).min(1.0);
        for (what, value) in [("the loss", f64::from(loss)), ("the norm of the gradients", norm)] {
            if !value.is_finite() {
                return Err(AdaptError::NonFinite { what, value, step: self.step + 1, rate, suggested_rate });
            }
        }
        let scale = match self.options.clip_norm {
            Some(limit) if norm > f64::from(limit) => (f64::from(limit) / norm) as f32,
            _ => 1.0,
        };
        self.optimizer.step(network.layout(), &self.slots, &mut self.parameters, &self.gradients, rate, scale);
        self.step += 1;
        if let Some(value) = self.diverged(network) {
            let (what, value) = ("a BatchNorm parameter", f64::from(value));
            return Err(AdaptError::NonFinite { what, value, step: self.step, rate, suggested_rate });
        }
        Ok(StepReport { step: self.step, path, loss, rate, gradient_norm: norm })
    }

    /// A parameter of the last step's path that no network has.
    fn diverged(&self, network: &Network) -> Option<f32> {
        let wild = |values: &[f32]| values.iter().copied().find(|v| v.is_nan() || v.abs() > LARGEST_PARAMETER);
        self.slots.iter().find_map(|&slot| {
            let range = network.layout().slots()[slot].range.clone();
            wild(&self.parameters.gamma[range.clone()]).or_else(|| wild(&self.parameters.beta[range]))
        })
    }
}
