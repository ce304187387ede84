//! Options of training that several commands share, and what follows from them.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
};

use clap::{Args, ValueEnum};
use nasbn_models::{
    Path,
    manifest::{Lowering, MemoryMode},
};

use super::{Failure, setup};
use crate::{
    adapt::{
        AdaptOptions, Sampling, Trainer,
        optimizer::{Rule, Schedule},
    },
    checkpoint::Checkpoint,
    data::{Dataset, LoaderOptions, TrainLoader},
    network::Network,
};

/// Name of the file that a running adaptation holds locked.
const LOCK_FILE: &str = ".lock";
/// No rate is larger: at the usual ones parameters move by less than one a step.
const LARGEST_RATE: f32 = 1e7;
/// Usual images in a mini-batch.
const BATCH: u32 = 64;
/// Usual largest norm of gradients.
const CLIP_NORM: f32 = 5.0;

#[derive(Clone, Copy, ValueEnum)]
pub enum Optimizer {
    Sgd,
    Adam,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum SamplingArg {
    /// Every candidate equally likely
    Uniform,
    /// Every candidate once per round (strict fairness)
    Fair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Memory {
    /// Keep the inputs of BatchNorms
    Fast,
    /// Keep only operators' inputs, compute the rest again
    Lean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Graphs {
    /// Fused operators on the CPU
    Fused,
    /// Standard ONNX operators only
    Portable,
}

/// How BatchNorm parameters are trained.
#[derive(Args)]
pub struct TrainingArgs {
    /// Passes over the training images
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: u32,
    /// Images in a mini-batch [default: 64, or as many as fit --memory-budget]
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub batch: Option<u32>,
    /// Optimiser
    #[arg(long, value_enum, default_value_t = Optimizer::Sgd)]
    pub optimizer: Optimizer,
    /// Peak learning rate [default: 1 for sgd, 0.02 for adam]
    #[arg(long)]
    pub rate: Option<f32>,
    /// Momentum of sgd [default: 0.9]
    #[arg(long)]
    pub momentum: Option<f32>,
    /// Epochs over which the rate rises to its peak [default: 1, or a fifth of a run of less than five]
    #[arg(long)]
    pub warmup_epochs: Option<f32>,
    /// Keep the rate at its peak instead of letting it fall along a cosine
    #[arg(long)]
    pub constant_rate: bool,
    /// Shorten gradients to this norm; 0 for never
    #[arg(long, default_value_t = CLIP_NORM)]
    pub clip_norm: f32,
    /// How paths are drawn
    #[arg(long, value_enum, default_value_t = SamplingArg::Uniform)]
    pub sampling: SamplingArg,
    /// No random crops and flips
    #[arg(long)]
    pub no_augment: bool,
    /// What is kept between forward and backward passes [default: fast, or what fits --memory-budget]
    #[arg(long, value_enum)]
    pub memory: Option<Memory>,
    /// Which graphs are trained with [default: fused on the CPU, portable elsewhere]
    #[arg(long, value_enum)]
    pub graphs: Option<Graphs>,
}

impl TrainingArgs {
    /// The usual training, plain but for its length, mini-batches and peak rate.
    pub fn usual(epochs: u32, batch: u32, rate: Option<f32>) -> Self {
        Self {
            epochs,
            batch: Some(batch),
            optimizer: Optimizer::Sgd,
            rate,
            momentum: None,
            warmup_epochs: None,
            constant_rate: false,
            clip_norm: CLIP_NORM,
            sampling: SamplingArg::Uniform,
            no_augment: false,
            memory: None,
            graphs: None,
        }
    }

    /// What clap cannot check by itself.
    pub fn check(&self) -> Result<(), Failure> {
        let positive = |name: &str, value: f32| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(Failure::usage(format!("{name} must be a finite number above 0, not {value}"))
                .hint("`nasbn adapt --find-rate` looks for one")),
        };
        if let Some(rate) = self.rate {
            positive("--rate", rate)?;
        }
        if self.rate.is_some_and(|rate| rate > LARGEST_RATE) {
            return Err(Failure::usage(format!("--rate must be at most {LARGEST_RATE:e}"))
                .hint("`nasbn adapt --find-rate` looks for one"));
        }
        match (self.optimizer, self.momentum) {
            (Optimizer::Adam, Some(_)) => {
                return Err(Failure::usage("--momentum is for sgd; adam has its own").hint("leave one of them out"));
            }
            (_, Some(momentum)) if !(0.0..1.0).contains(&momentum) => {
                return Err(Failure::usage(format!("--momentum must be 0 or more and below 1, not {momentum}"))
                    .hint("0.9 is usual"));
            }
            _ => {}
        }
        let (warmup, epochs) = (self.warmup(), self.epochs);
        if !(warmup >= 0.0 && warmup <= epochs as f32) {
            return Err(Failure::usage(format!("--warmup-epochs must be from 0 to {epochs} (--epochs), not {warmup}"))
                .hint("1 is usual: the rate then rises over the first epoch"));
        }
        if !(self.clip_norm.is_finite() && self.clip_norm >= 0.0) {
            return Err(
                Failure::usage(format!("--clip-norm must be 0 or more, not {}", self.clip_norm)).hint("0 is for never")
            );
        }
        Ok(())
    }

    /// Epochs of the warm-up: short runs must get to their peak rate, too.
    fn warmup(&self) -> f32 {
        self.warmup_epochs.unwrap_or((self.epochs as f32 / 5.0).min(1.0))
    }

    /// What backward passes keep.
    pub fn memory(&self) -> MemoryMode {
        match self.memory {
            None | Some(Memory::Fast) => MemoryMode::Fast,
            Some(Memory::Lean) => MemoryMode::Lean,
        }
    }

    /// Images in a mini-batch.
    pub fn batch(&self) -> u32 {
        self.batch.unwrap_or(BATCH)
    }

    /// Takes mini-batch and mode of a run that is gone on with, where none was named: they may have been chosen to fit a
    /// memory budget.
    pub fn adopt(&mut self, options: &AdaptOptions) {
        self.batch.get_or_insert(options.batch);
        self.memory.get_or_insert(if options.lean { Memory::Lean } else { Memory::Fast });
    }

    /// The training batches of a seed.
    pub fn loader(&self, data: &Arc<Dataset>, seed: u64) -> Result<TrainLoader, Failure> {
        let options = LoaderOptions { batch: self.batch() as usize, seed, augment: !self.no_augment };
        Ok(TrainLoader::new(Arc::clone(data), options)?)
    }

    /// Options of a run over the batches of `loader`; `fingerprint` is the data's ([`Dataset::fingerprint`]).
    pub fn options(
        &self,
        network: &Network,
        loader: &TrainLoader,
        path: Option<Path>,
        fingerprint: String,
    ) -> AdaptOptions {
        let (rule, usual) = match self.optimizer {
            Optimizer::Sgd => (Rule::Sgd { momentum: self.momentum.unwrap_or(0.9) }, 1.0),
            Optimizer::Adam => (Rule::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }, 0.02),
        };
        let per_epoch = loader.steps_per_epoch();
        AdaptOptions {
            epochs: self.epochs,
            batch: self.batch(),
            rule,
            schedule: Schedule {
                peak: self.rate.unwrap_or(usual),
                warmup: (f64::from(self.warmup()) * per_epoch as f64) as u64,
                total: u64::from(self.epochs) * per_epoch,
                cosine: !self.constant_rate,
            },
            clip_norm: (self.clip_norm > 0.0).then_some(self.clip_norm),
            sampling: match self.sampling {
                SamplingArg::Uniform => Sampling::Uniform,
                SamplingArg::Fair => Sampling::Fair,
            },
            path,
            seed: loader.options().seed,
            data: fingerprint,
            augment: !self.no_augment,
            lean: self.memory() == MemoryMode::Lean,
            fused: network.options().lowering == Lowering::Fused,
        }
    }
}

/// The lock of a checkpoint's directory, which goes with it.
#[must_use]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Holds the checkpoint's directory for one process: two would remove each other's files.
pub fn lock(directory: &FsPath) -> Result<Lock, Failure> {
    let path = directory.join(LOCK_FILE);
    let failed = |error: io::Error| Failure::file(&path, &error);
    let file = File::create(&path).map_err(failed)?;
    let taken = match file.try_lock() {
        // Before it was locked, who held it may have come to its end and removed it.
        Ok(()) => file.metadata().map_err(failed)?.nlink() == 0,
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    };
    match taken {
        false => Ok(Lock { path, _file: file }),
        true => Err(Failure::usage(format!("another `nasbn` writes to {}", directory.display()))
            .hint("wait for it, or name another --out")),
    }
}

/// The run in `directory`, if it was made with the same options; `anew` says how to begin another one.
pub fn resume(
    session: &setup::Session,
    directory: &FsPath,
    options: &AdaptOptions,
    anew: &str,
) -> Result<Trainer, Failure> {
    let checkpoint = Checkpoint::read(directory, session.bundle.digest(), session.network.layout())?;
    if checkpoint.options != *options {
        let show = |o: &AdaptOptions| serde_json::to_value(o).unwrap_or_default();
        let (then, now) = (show(&checkpoint.options), show(options));
        let differing: Vec<String> = then
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, value)| now.get(name.as_str()) != Some(value))
            .map(|(name, value)| format!("{name} was {value}, is {}", now[name.as_str()]))
            .collect();
        return Err(Failure::usage(format!(
            "{} was made with other options: {}",
            directory.display(),
            differing.join("; ")
        ))
        .hint(format!("repeat the options of the first run, or {anew}")));
    }
    let before = checkpoint.environment.clone();
    let trainer = Trainer::resume(&session.network, checkpoint);
    let now = trainer.checkpoint().environment;
    if before != now {
        log::warn!("begun with {before}, goes on with {now}: the last bits may differ from an uninterrupted run");
    }
    Ok(trainer)
}
