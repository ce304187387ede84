//! `nasbn adapt`: BN-only training of the supernet.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path as FsPath, PathBuf},
    sync::atomic::Ordering,
    time::Instant,
};

use clap::{Args, ValueEnum};
use nasbn_models::manifest::{Lowering, MemoryMode};
use serde::Serialize;

use super::{
    Exit, Failure,
    args::{BundleArgs, DataArgs, OutputArgs},
    output, setup,
};
use crate::{
    adapt::{
        AdaptOptions, Sampling, StepReport, Trainer,
        optimizer::{Rule, Schedule},
        rate::find_rate,
    },
    atomic,
    checkpoint::{Checkpoint, CheckpointError, STATE_FILE},
    data::{LoaderOptions, Part, Prefetcher, TrainLoader},
};

/// Name of the file of metrics in the checkpoint's directory.
const METRICS_FILE: &str = "metrics.jsonl";
/// Name of the file that a running adaptation holds locked.
const LOCK_FILE: &str = ".lock";
/// No rate is larger: at the usual ones parameters move by less than one a step.
const LARGEST_RATE: f32 = 1e7;
/// Batches that are made ahead of their use.
const PREFETCH: usize = 4;

#[derive(Clone, Copy, ValueEnum)]
enum Optimizer {
    Sgd,
    Adam,
}

#[derive(Clone, Copy, ValueEnum)]
enum SamplingArg {
    /// Every candidate equally likely
    Uniform,
    /// Every candidate once per round (strict fairness)
    Fair,
}

#[derive(Clone, Copy, ValueEnum)]
enum Memory {
    /// Keep the inputs of BatchNorms
    Fast,
    /// Keep only operators' inputs, compute the rest again
    Lean,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Graphs {
    /// Fused operators on the CPU
    Fused,
    /// Standard ONNX operators only
    Portable,
}

impl From<Graphs> for Lowering {
    fn from(graphs: Graphs) -> Self {
        match graphs {
            Graphs::Fused => Self::Fused,
            Graphs::Portable => Self::Portable,
        }
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn adapt --bundle bundle --data digits --epochs 20 --out checkpoint
  nasbn adapt --bundle bundle --data cifar10:data/cifar10 --find-rate
  nasbn adapt --bundle bundle --data cifar10:data/cifar10 --epochs 20 --out checkpoint --resume")]
pub struct AdaptArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Directory of the checkpoint and metrics.jsonl; --find-rate writes nothing and needs none
    #[arg(long, value_name = "DIR", required_unless_present = "find_rate")]
    out: Option<PathBuf>,
    /// Passes over the training images
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Images in a mini-batch
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=65536))]
    batch: u32,
    /// Optimiser
    #[arg(long, value_enum, default_value_t = Optimizer::Sgd)]
    optimizer: Optimizer,
    /// Peak learning rate [default: 1 for sgd, 0.02 for adam]
    #[arg(long)]
    rate: Option<f32>,
    /// Momentum of sgd [default: 0.9]
    #[arg(long)]
    momentum: Option<f32>,
    /// Epochs over which the rate rises to its peak [default: 1, or a fifth of a run of less than five]
    #[arg(long)]
    warmup_epochs: Option<f32>,
    /// Keep the rate at its peak instead of letting it fall along a cosine
    #[arg(long)]
    constant_rate: bool,
    /// Shorten gradients to this norm; 0 for never
    #[arg(long, default_value_t = 5.0)]
    clip_norm: f32,
    /// How paths are drawn
    #[arg(long, value_enum, default_value_t = SamplingArg::Uniform)]
    sampling: SamplingArg,
    /// Train only this path
    #[arg(long, value_name = "PATH", conflicts_with = "sampling")]
    path: Option<String>,
    /// Seed of paths, order of images and augmentation
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// No random crops and flips
    #[arg(long)]
    no_augment: bool,
    /// What is kept between forward and backward passes
    #[arg(long, value_enum, default_value_t = Memory::Fast)]
    memory: Memory,
    /// Which graphs are trained with
    #[arg(long, value_enum, default_value_t = Graphs::Fused)]
    graphs: Graphs,
    /// Go on from the checkpoint in --out
    #[arg(long)]
    resume: bool,
    /// Replace a checkpoint in --out
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Steps between checkpoints, besides one per epoch [default: none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_steps: Option<u64>,
    /// Only look for a learning rate: a short run with a growing rate
    #[arg(long, conflicts_with = "resume")]
    find_rate: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// A line of metrics.jsonl.
#[derive(Serialize)]
struct Metric<'a> {
    step: u64,
    epoch: f64,
    path: &'a str,
    loss: f32,
    rate: f32,
    gradient_norm: f64,
    images_per_s: f64,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    checkpoint: PathBuf,
    steps: u64,
    epochs: u32,
    /// Mean loss of every epoch that this run did.
    epoch_losses: Vec<f32>,
    seconds: f64,
    images_per_s: f64,
    sessions: usize,
}

pub fn run(args: AdaptArgs) -> Result<Exit, Failure> {
    check(&args)?;
    let quiet = args.output.quiet;
    // Only --find-rate, which does not write, may go without.
    let out = args.out.clone().unwrap_or_default();
    let state = out.join(STATE_FILE);
    if !args.resume && !args.find_rate && !args.force && state.exists() {
        return Err(Failure::usage(format!("{} holds a checkpoint already", out.display()))
            .hint("go on from it with --resume, replace it with --force, or name another --out"));
    }
    let memory = match args.memory {
        Memory::Fast => MemoryMode::Fast,
        Memory::Lean => MemoryMode::Lean,
    };
    let mut session = setup::open(&args.bundle, memory, args.graphs.into())?;
    let data = setup::dataset(&args.data, session.network.supernet())?;
    let augment = !args.no_augment;
    let loader_options = LoaderOptions { batch: args.batch as usize, seed: args.seed, augment };
    let loader = TrainLoader::new(std::sync::Arc::clone(&data), loader_options)?;
    let per_epoch = loader.steps_per_epoch();
    let options = options(&args, &session, per_epoch, data.fingerprint())?;
    if !quiet {
        output::words(format_args!("data: {}", data.description()));
    }
    if args.find_rate {
        let batches = data.fixed_batches(Part::Train, args.batch as usize, 16.min(per_epoch as usize), args.seed)?;
        return search_rate(&mut session, options, &batches, &args.output);
    }
    let total = options.schedule.total;
    if args.resume && !state.exists() {
        return Err(CheckpointError::Missing(out.clone()).into());
    }
    fs::create_dir_all(&out).map_err(|e| Failure::file(&out, &e))?;
    let _lock = lock(&out)?;
    atomic::remove_leftovers(&out, &[STATE_FILE, METRICS_FILE, "parameters-"]);
    let mut trainer = match args.resume {
        false => {
            let initial = setup::parameters(&session, None)?;
            Trainer::new(&session.network, options, initial)
        }
        true => resume(&session, &out, &options)?,
    };
    let (mut metrics, losses) = Metrics::open(&out.join(METRICS_FILE), trainer.steps(), per_epoch)?;
    let interrupted = setup::interrupted();
    let bar = output::bar(total, quiet);
    bar.set_position(trainer.steps());
    let digest = session.bundle.digest();
    let started = Instant::now();
    let first_step = trainer.steps();
    let mut epoch_losses = Vec::new();
    // An epoch that was begun before counts as a whole.
    let (mut sum, mut count) = (losses.iter().map(|&loss| f64::from(loss)).sum::<f64>(), losses.len() as u32);
    let mut prefetcher = Prefetcher::start(loader, first_step..total, PREFETCH)?;
    while let Some(batch) = prefetcher.next() {
        let batch = batch?;
        let clock = Instant::now();
        let result = trainer.step(&mut session.network, batch.images.view(), &batch.labels);
        let images_per_s = batch.len() as f64 / clock.elapsed().as_secs_f64().max(1e-9);
        prefetcher.recycle(batch);
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                bar.finish_and_clear();
                metrics.flush_if_begun()?;
                let failure = Failure::from(error);
                return Err(match state.exists() {
                    true => failure.and(format!("the last checkpoint in {} is kept", out.display())),
                    false => failure.and("no checkpoint was written yet"),
                });
            }
        };
        metrics.write(&report, session.network.supernet(), per_epoch, images_per_s)?;
        sum += f64::from(report.loss);
        count += 1;
        bar.inc(1);
        bar.set_message(format!("loss {:.3}  {images_per_s:.0} images/s", sum / f64::from(count)));
        let epoch_ends = report.step.is_multiple_of(per_epoch);
        let stop = interrupted.load(Ordering::SeqCst);
        if epoch_ends {
            let mean = (sum / f64::from(count)) as f32;
            epoch_losses.push(mean);
            let text =
                format!("epoch {}/{}  loss {mean:.4}  rate {:.4}", report.step / per_epoch, args.epochs, report.rate);
            output::say(&bar, quiet, &text);
            (sum, count) = (0.0, 0);
        }
        if epoch_ends || stop || args.checkpoint_steps.is_some_and(|n| report.step.is_multiple_of(n)) {
            metrics.flush()?;
            trainer.checkpoint().write(&out, digest, session.network.layout())?;
        }
        if stop && report.step < total {
            bar.finish_and_clear();
            return Err(Failure::usage(format!("stopped after step {} of {total}", report.step))
                .with_exit(Exit::Stopped)
                .hint("go on with the same command and --resume"));
        }
    }
    bar.finish_and_clear();
    metrics.flush()?;
    trainer.checkpoint().write(&out, digest, session.network.layout())?;
    let seconds = started.elapsed().as_secs_f64();
    let steps = trainer.steps() - first_step;
    let summary = Summary {
        checkpoint: out.clone(),
        steps: trainer.steps(),
        epochs: args.epochs,
        epoch_losses,
        seconds,
        images_per_s: (steps * u64::from(args.batch)) as f64 / seconds.max(1e-9),
        sessions: session.network.sessions(),
    };
    if args.output.json {
        output::json(&summary)?;
    } else if !quiet {
        let last = summary.epoch_losses.last().map_or(String::new(), |l| format!(", loss {l:.4} in the last epoch"));
        output::line(format!(
            "{}: {} steps{last}, {:.1} s, {:.0} images/s",
            out.display(),
            summary.steps,
            summary.seconds,
            summary.images_per_s
        ))?;
    }
    Ok(Exit::Done)
}

/// Holds the checkpoint's directory for one process: two would remove each other's files.
fn lock(directory: &FsPath) -> Result<File, Failure> {
    let path = directory.join(LOCK_FILE);
    let file = File::create(&path).map_err(|e| Failure::file(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::usage(format!("another `nasbn adapt` writes to {}", directory.display()))
                .hint("wait for it, or name another --out"))
        }
        Err(TryLockError::Error(e)) => Err(Failure::file(&path, &e)),
    }
}

/// What clap cannot check by itself.
fn check(args: &AdaptArgs) -> Result<(), Failure> {
    let positive = |name: &str, value: f32| match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(Failure::usage(format!("{name} must be a number above 0, not {value}"))
            .hint("`nasbn adapt --find-rate` looks for one")),
    };
    if let Some(rate) = args.rate {
        positive("--rate", rate)?;
    }
    if args.rate.is_some_and(|rate| rate > LARGEST_RATE) {
        return Err(Failure::usage(format!("--rate must be at most {LARGEST_RATE:e}"))
            .hint("`nasbn adapt --find-rate` looks for one"));
    }
    match (args.optimizer, args.momentum) {
        (Optimizer::Adam, Some(_)) => {
            return Err(Failure::usage("--momentum is for sgd; adam has its own").hint("leave one of them out"));
        }
        (_, Some(momentum)) if !(0.0..1.0).contains(&momentum) => {
            return Err(Failure::usage(format!("--momentum must be 0 or more and below 1, not {momentum}"))
                .hint("0.9 is usual"));
        }
        _ => {}
    }
    let warmup = warmup_epochs(args);
    if !(warmup >= 0.0 && warmup <= args.epochs as f32) {
        return Err(Failure::usage(format!(
            "--warmup-epochs must be from 0 to {} (--epochs), not {warmup}",
            args.epochs
        ))
        .hint("1 is usual: the rate then rises over the first epoch"));
    }
    if !(args.clip_norm.is_finite() && args.clip_norm >= 0.0) {
        return Err(
            Failure::usage(format!("--clip-norm must be 0 or more, not {}", args.clip_norm)).hint("0 is for never")
        );
    }
    Ok(())
}

/// Epochs of the warm-up: short runs must get to their peak rate, too.
fn warmup_epochs(args: &AdaptArgs) -> f32 {
    args.warmup_epochs.unwrap_or((args.epochs as f32 / 5.0).min(1.0))
}

fn options(
    args: &AdaptArgs,
    session: &setup::Session,
    per_epoch: u64,
    fingerprint: String,
) -> Result<AdaptOptions, Failure> {
    let (rule, usual) = match args.optimizer {
        Optimizer::Sgd => (Rule::Sgd { momentum: args.momentum.unwrap_or(0.9) }, 1.0),
        Optimizer::Adam => (Rule::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }, 0.02),
    };
    let supernet = session.network.supernet();
    // Equal networks are one: what is trained are the BatchNorms that scores and searches look at.
    let path = args.path.as_deref().map(|text| Ok::<_, Failure>(supernet.canonical(&setup::path(supernet, text)?)));
    let path = path.transpose()?;
    Ok(AdaptOptions {
        epochs: args.epochs,
        batch: args.batch,
        rule,
        schedule: Schedule {
            peak: args.rate.unwrap_or(usual),
            warmup: (f64::from(warmup_epochs(args)) * per_epoch as f64) as u64,
            total: u64::from(args.epochs) * per_epoch,
            cosine: !args.constant_rate,
        },
        clip_norm: (args.clip_norm > 0.0).then_some(args.clip_norm),
        sampling: match args.sampling {
            SamplingArg::Uniform => Sampling::Uniform,
            SamplingArg::Fair => Sampling::Fair,
        },
        path,
        seed: args.seed,
        data: fingerprint,
        augment: !args.no_augment,
        lean: matches!(args.memory, Memory::Lean),
        fused: session.network.options().lowering == Lowering::Fused,
    })
}

/// The run in `directory`, if it was made with the same options.
fn resume(session: &setup::Session, directory: &FsPath, options: &AdaptOptions) -> Result<Trainer, Failure> {
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
        .hint("repeat the options of the first run, or start anew in another --out"));
    }
    let before = checkpoint.environment.clone();
    let trainer = Trainer::resume(&session.network, checkpoint);
    let now = trainer.checkpoint().environment;
    if before != now {
        log::warn!("begun with {before}, goes on with {now}: the last bits may differ from an uninterrupted run");
    }
    Ok(trainer)
}

fn search_rate(
    session: &mut setup::Session,
    options: AdaptOptions,
    batches: &[crate::data::Batch],
    output: &OutputArgs,
) -> Result<Exit, Failure> {
    /// Steps and ends of the search.
    const STEPS: u32 = 100;
    const LOW: f32 = 1e-3;
    const HIGH: f32 = 10.0;
    let initial = setup::parameters(session, None)?;
    let mut trainer = Trainer::new(&session.network, options, initial);
    let curve = find_rate(&mut session.network, &mut trainer, batches, STEPS, LOW, HIGH)?;
    if output.json {
        output::json(&curve)?;
        return Ok(Exit::Done);
    }
    output::line("rate       loss")?;
    for point in curve.points.iter().step_by(5) {
        output::line(format!("{:<9.5}  {:.4}", point.rate, point.loss))?;
    }
    match curve.suggested {
        Some(rate) => output::line(format!("suggested: --rate {rate:.3}"))?,
        None => output::line("the loss never fell: look at the data and the bundle")?,
    }
    Ok(Exit::Done)
}

/// metrics.jsonl, cut back to the step that is resumed from. A new run replaces an older run's file only
/// when it has its first checkpoint to write.
struct Metrics {
    path: PathBuf,
    file: Option<File>,
    pending: String,
}

impl Metrics {
    /// The file at `path`, and the losses so far of an epoch that is begun after `steps` steps.
    fn open(path: &FsPath, steps: u64, per_epoch: u64) -> Result<(Self, Vec<f32>), Failure> {
        let failed = |e: io::Error| Failure::file(path, &e);
        let text = match fs::read_to_string(path) {
            _ if steps == 0 => String::new(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(failed)?,
        };
        let (mut pending, mut losses) = (String::new(), Vec::new());
        for line in text.lines() {
            let Ok(metric) = serde_json::from_str::<serde_json::Value>(line) else { break };
            let Some(step) = metric["step"].as_u64().filter(|&step| step <= steps) else { break };
            if step > steps - steps % per_epoch.max(1) {
                losses.extend(metric["loss"].as_f64().map(|loss| loss as f32));
            }
            pending += line;
            pending.push('\n');
        }
        Ok((Self { path: path.to_owned(), file: None, pending }, losses))
    }

    /// What training that failed had to tell, unless the file is still an older run's.
    fn flush_if_begun(&mut self) -> Result<(), Failure> {
        if self.file.is_some() { self.flush() } else { Ok(()) }
    }

    fn write(
        &mut self,
        report: &StepReport,
        supernet: &nasbn_models::Supernet,
        per_epoch: u64,
        images_per_s: f64,
    ) -> Result<(), Failure> {
        let metric = Metric {
            step: report.step,
            epoch: report.step as f64 / per_epoch as f64,
            path: &supernet.format_path(&report.path),
            loss: report.loss,
            rate: report.rate,
            gradient_norm: report.gradient_norm,
            images_per_s: (images_per_s * 10.0).round() / 10.0,
        };
        self.pending += &serde_json::to_string(&metric).map_err(|e| Failure::usage(e.to_string()))?;
        self.pending.push('\n');
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::file(&self.path, &e);
        match &mut self.file {
            Some(file) => file.write_all(self.pending.as_bytes()).map_err(failed)?,
            None => {
                atomic::write(&self.path, self.pending.as_bytes()).map_err(failed)?;
                self.file = Some(File::options().append(true).open(&self.path).map_err(failed)?);
            }
        }
        self.pending.clear();
        Ok(())
    }
}
