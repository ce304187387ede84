//! `nasbn adapt`: BN-only training of the supernet.

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::ControlFlow,
    path::{Path as FsPath, PathBuf},
    sync::atomic::Ordering,
    time::Instant,
};

use clap::Args;
use serde::Serialize;

use super::{
    Exit, Failure,
    args::{BundleArgs, DataArgs, OutputArgs},
    budget::{self, BudgetArgs, Left, Planned, Training},
    output, outputs, setup,
    training::{self, TrainingArgs},
};
use crate::{
    adapt::{self, AdaptOptions, StepReport, Trainer, metrics, rate::find_rate, run::RunError},
    atomic,
    checkpoint::{Checkpoint, CheckpointError, STATE_FILE},
    data::Part,
    network::Network,
    provider::Placement,
};

/// Name of the file of metrics in the checkpoint's directory.
const METRICS_FILE: &str = "metrics.jsonl";

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn adapt --bundle bundle --data digits --epochs 20 --out checkpoint
  nasbn adapt --bundle bundle --data cifar10:data/cifar10 --find-rate
  nasbn adapt --bundle bundle --data cifar10:data/cifar10 --epochs 20 --out checkpoint --resume
  nasbn adapt --bundle bundle --data cifar10:data/cifar10 --max-memory 1GiB --out checkpoint")]
pub struct AdaptArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Directory of the checkpoint and metrics.jsonl; --find-rate writes nothing and needs none
    #[arg(long, value_name = "DIR", required_unless_present = "find_rate")]
    out: Option<PathBuf>,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    budget: BudgetArgs,
    /// Train only this path
    #[arg(long, value_name = "PATH", conflicts_with = "sampling")]
    path: Option<String>,
    /// Seed of paths, order of images and augmentation
    #[arg(long, default_value_t = 0)]
    seed: u64,
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
    /// Where nodes ran; null on the CPU.
    placement: Option<Placement>,
    /// What became of the memory budget; null without one.
    memory: Option<budget::Report>,
}

/// Lines of metrics that there is room for from the beginning.
const LINES: usize = 4096;
/// Mini-batches that a rate is looked for on.
const RATE_BATCHES: usize = 16;

pub fn run(mut args: AdaptArgs) -> Result<Exit, Failure> {
    args.training.check()?;
    let quiet = args.output.quiet;
    // Only --find-rate, which does not write, may go without.
    let out = args.out.clone().unwrap_or_default();
    if args.out.is_some() {
        outputs::outside(&args.bundle.bundle, "--out", &out)?;
    }
    let state = out.join(STATE_FILE);
    if !args.resume && !args.find_rate && !args.force && state.exists() {
        return Err(Failure::usage(format!("{} holds a checkpoint already", out.display()))
            .hint("go on from it with --resume, replace it with --force, or name another --out"));
    }
    if args.resume && !state.exists() {
        return Err(CheckpointError::Missing(out.clone()).into());
    }
    let mut session = setup::open(&args.bundle, args.training.memory(), args.training.graphs)?;
    if args.resume {
        let begun = Checkpoint::read(&out, session.bundle.digest(), session.network.layout())?.options;
        args.training.adopt(&begun);
        if args.training.memory() != session.network.options().memory {
            session.network = session.network_in(args.training.memory())?;
        }
    }
    let budget = args.budget.memory_budget;
    let data = setup::dataset_within(&args.data.data, &args.data.reading, session.network.supernet(), budget)?;
    // Equal networks are one: what is trained are the BatchNorms that scores and searches look at.
    let supernet = session.network.supernet();
    let path = args.path.as_deref().map(|text| Ok::<_, Failure>(supernet.canonical(&setup::path(supernet, text)?)));
    let path = path.transpose()?;
    if !quiet {
        output::words(format_args!("data: {}", data.description()));
    }
    let held = args.find_rate.then_some(RATE_BATCHES);
    let left = if args.find_rate { Left::Nothing } else { Left::Resumable };
    let what = Training { path: path.as_ref(), held, resumed: args.resume, left };
    let planned = budget.map(|b| budget::training(b, &mut session, &data, &mut args.training, what, quiet));
    let mut planned = planned.transpose()?;
    let loader = args.training.loader(&data, args.seed)?;
    let per_epoch = loader.steps_per_epoch();
    let options = args.training.options(&session.network, &loader, path, data.fingerprint());
    if args.find_rate {
        let (batch, count) = (args.training.batch() as usize, RATE_BATCHES.min(per_epoch as usize));
        let batches = data.fixed_batches(Part::Train, batch, count, args.seed)?;
        return search_rate(&mut session, options, &batches, planned, &args.output);
    }
    let total = options.schedule.total;
    let _out = outputs::Directory::make(&out)?;
    let _lock = training::lock(&out)?;
    atomic::remove_leftovers(&out, &[STATE_FILE, METRICS_FILE, "parameters-"]);
    let mut trainer = match args.resume {
        false => {
            let initial = setup::parameters(&session, None)?;
            Trainer::new(&session.network, options, initial)
        }
        true => training::resume(&session, &out, &options, "start anew in another --out")?,
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
    let batch = u64::from(args.training.batch());
    let mut exceeded = None;
    // Whether there is a checkpoint of this run.
    let mut resumable = args.resume;
    let after = |network: &mut Network, trainer: &Trainer, report: &StepReport, seconds: f64| {
        let images_per_s = batch as f64 / seconds.max(1e-9);
        metrics::line(&mut metrics.pending, report, network.supernet(), per_epoch, images_per_s)
            .map_err(Failure::usage)?;
        sum += f64::from(report.loss);
        count += 1;
        bar.inc(1);
        if !bar.is_hidden() {
            bar.set_message(format!("loss {:.3}  {images_per_s:.0} images/s", sum / f64::from(count)));
        }
        let epoch_ends = report.step.is_multiple_of(per_epoch);
        exceeded = planned.as_mut().and_then(|planned| planned.look(network).err());
        let stop = interrupted.load(Ordering::SeqCst) || exceeded.is_some();
        if epoch_ends {
            let mean = (sum / f64::from(count)) as f32;
            epoch_losses.push(mean);
            let (epoch, epochs) = (report.step / per_epoch, args.training.epochs);
            output::say(&bar, quiet, &format!("epoch {epoch}/{epochs}  loss {mean:.4}  rate {:.4}", report.rate));
            (sum, count) = (0.0, 0);
        }
        if epoch_ends || stop || args.checkpoint_steps.is_some_and(|n| report.step.is_multiple_of(n)) {
            let checkpoint = trainer.checkpoint();
            let written = metrics.flush(|| Ok(checkpoint.write(&out, digest, network.layout())?));
            written.map_err(|failure| if resumable { failure.resumable() } else { failure })?;
            resumable = true;
        }
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let result: Result<(), RunError<Failure>> = adapt::run::run(&mut session.network, &mut trainer, loader, after);
    bar.finish_and_clear();
    if let Err(error) = result {
        if !matches!(error, RunError::Caller(_)) {
            metrics.flush_if_begun()?;
        }
        let failure = Failure::from(error);
        return Err(match state.exists() {
            true => failure.and(format!("the last checkpoint in {} is kept", out.display())),
            false => failure.and("no checkpoint was written yet"),
        });
    }
    if trainer.steps() < total {
        let stopped = format!("stopped after step {} of {total}", trainer.steps());
        if let Some(exceeded) = exceeded {
            return Err(exceeded.and(stopped));
        }
        return Err(Failure::usage(stopped).with_exit(Exit::Stopped).hint("go on with the same command and --resume"));
    }
    let seconds = started.elapsed().as_secs_f64();
    let steps = trainer.steps() - first_step;
    let summary = Summary {
        checkpoint: out.clone(),
        steps: trainer.steps(),
        epochs: args.training.epochs,
        epoch_losses,
        seconds,
        images_per_s: (steps * batch) as f64 / seconds.max(1e-9),
        sessions: session.network.sessions(),
        placement: session.running.told_placement(&session.network, quiet),
        memory: planned.as_ref().map(Planned::end),
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

fn search_rate(
    session: &mut setup::Session,
    options: AdaptOptions,
    batches: &[crate::data::Batch],
    mut planned: Option<Planned>,
    output: &OutputArgs,
) -> Result<Exit, Failure> {
    /// Steps and ends of the search.
    const STEPS: u32 = 100;
    const LOW: f32 = 1e-3;
    const HIGH: f32 = 10.0;
    let initial = setup::parameters(session, None)?;
    let mut trainer = Trainer::new(&session.network, options, initial);
    let look = |network: &mut Network| planned.as_mut().map_or(Ok(()), |planned| planned.look(network));
    let curve = find_rate(&mut session.network, &mut trainer, batches, STEPS, LOW, HIGH, look)?;
    let memory = planned.as_ref().map(Planned::end);
    if output.json {
        budget::say_json(&curve, memory)?;
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
    /// Once the file is this run's.
    file: Option<File>,
    /// Whether the run has begun anew: a file that is there is an older run's.
    anew: bool,
    pending: Vec<u8>,
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
        // Lines of an epoch, unless that is very long.
        let room = usize::try_from(per_epoch).unwrap_or(LINES).min(LINES) * metrics::LINE;
        let (mut pending, mut losses) = (Vec::with_capacity(room), Vec::new());
        for line in text.lines() {
            let Ok(metric) = serde_json::from_str::<serde_json::Value>(line) else { break };
            let Some(step) = metric["step"].as_u64().filter(|&step| step <= steps) else { break };
            if step > steps - steps % per_epoch.max(1) {
                losses.extend(metric["loss"].as_f64().map(|loss| loss as f32));
            }
            pending.extend(line.as_bytes());
            pending.push(b'\n');
        }
        Ok((Self { path: path.to_owned(), file: None, anew: steps == 0, pending }, losses))
    }

    /// What training that failed had to tell, unless the file is still an older run's.
    fn flush_if_begun(&mut self) -> Result<(), Failure> {
        if self.file.is_some() { self.flush(|| Ok(())) } else { Ok(()) }
    }

    /// Writes what is pending and the checkpoint that it leads to. An older run's file is replaced after the older run's
    /// checkpoint.
    fn flush(&mut self, checkpoint: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::file(&self.path, &e);
        if let Some(file) = &mut self.file {
            file.write_all(&self.pending).map_err(failed)?;
            checkpoint()?;
        } else {
            if self.anew && self.path.exists() {
                let staged = atomic::Staged::new(&self.path, &self.pending).map_err(failed)?;
                checkpoint()?;
                staged.commit().map_err(failed)?;
            } else {
                // First, so that a kill loses no line of what a checkpoint holds; lines that go beyond it are cut later.
                atomic::write(&self.path, &self.pending).map_err(failed)?;
                if let Err(failure) = checkpoint() {
                    if self.anew {
                        let _ = fs::remove_file(&self.path);
                    }
                    return Err(failure);
                }
            }
            self.file = Some(File::options().append(true).open(&self.path).map_err(failed)?);
        }
        self.pending.clear();
        Ok(())
    }
}
