//! `nasbn analyze ntk-drift`: how far the tangent kernel moves in BatchNorm-only training.

mod report;

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use nasbn_export::bundle::Bundle;
use nasbn_models::{Path, manifest::MemoryMode};
use ndarray::Array2;

use super::{names, width, write};
use crate::{
    adapt::{self, StepReport, Trainer},
    analyze::{
        Trait, differences,
        drift::{DriftError, DriftOptions, MOST_LOGITS, Moment, StatisticsUse, as_it_stands, moments, of_path},
        linear::{cosine, norm, relative_distance},
        operators::distinct,
    },
    cli::{
        Exit, Failure,
        args::{DataArgs, OutputArgs},
        output, outputs,
        running::RunArgs,
        setup,
        training::TrainingArgs,
    },
    data::{Batch, Dataset, Part},
    network::Network,
    parameters::BnParameters,
};

use report::{Run, Training};

#[derive(Clone, Copy, ValueEnum)]
enum StatisticsArg {
    /// Those of the batch as it stands, as in training; derivatives go through them
    Batch,
    /// Those of the batch at the start of a path's training, or of the moment in the supernet's, as constants (the
    /// kernel of `nasbn score`; the quicker of the two)
    Held,
}

impl From<StatisticsArg> for StatisticsUse {
    fn from(argument: StatisticsArg) -> Self {
        match argument {
            StatisticsArg::Batch => Self::Batch,
            StatisticsArg::Held => Self::Held,
        }
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn analyze ntk-drift --bundle w025 --bundle w05 --data cifar10:data/cifar10 --out drift
  nasbn analyze ntk-drift --bundle w025 --data digits --path 22212220 --points 20 --out drift
  nasbn analyze ntk-drift --bundle w025 --data digits --supernet --epochs 3 --out drift

Each bundle is one width of a space (nasbn-export build --width); several bundles of one width,
of other --seed, are averaged. docs/analyze.md says what the figures mean.")]
pub struct NtkDriftArgs {
    /// Bundle that `nasbn-export build` wrote; may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    bundle: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Directory for ntk-drift.csv, result.json and the charts
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Images of the fixed batch that kernels are of and paths are trained on, and of the supernet's mini-batches
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=65536))]
    batch: u32,
    /// Steps of gradient descent of every path alone
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Times that kernels are compared with those of the start, evenly apart; no more than steps [default: 10, or all
    /// steps of fewer]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    points: Option<u32>,
    /// Learning rate of paths alone [default: the batch's size over the norm of the path's kernel]
    #[arg(long)]
    rate: Option<f64>,
    /// Which statistics BatchNorms use, and derivatives with them
    #[arg(long, value_enum, default_value_t = StatisticsArg::Batch)]
    statistics: StatisticsArg,
    /// A path to train; may be given several times
    #[arg(long, value_name = "PATH", conflicts_with = "random")]
    path: Vec<String>,
    /// Random paths to train, all of different networks
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    random: u32,
    /// Train the supernet, too, as `nasbn adapt` does, and follow the kernels of the paths in it
    #[arg(long)]
    supernet: bool,
    /// Passes of the supernet's training over the training images [default: 3]
    #[arg(long, value_name = "N", requires = "supernet", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Peak learning rate of the supernet's training [default: 1]
    #[arg(long, value_name = "RATE", requires = "supernet")]
    supernet_rate: Option<f32>,
    /// Seed of the fixed batch, of random paths and of the supernet's training
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

impl NtkDriftArgs {
    /// Times that kernels are compared; [`moments`] takes no more than there are steps.
    fn points(&self) -> u64 {
        self.points.unwrap_or(10).into()
    }
}

pub fn run(args: NtkDriftArgs) -> Result<Exit, Failure> {
    if let Some(rate) = args.rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
        return Err(Failure::usage(format!("--rate must be a finite number above 0, not {rate}"))
            .hint("leave it out to derive one from the kernel"));
    }
    if let Some(points) = args.points.filter(|&points| points > args.steps) {
        return Err(Failure::usage(format!("--points {points} is more than --steps {}", args.steps))
            .hint("kernels are compared after steps: lower --points, or raise --steps"));
    }
    args.bundle.iter().try_for_each(|bundle| outputs::outside(bundle, "--out", &args.out))?;
    outputs::directory(&args.out)?;
    let training = TrainingArgs::usual(args.epochs.unwrap_or(3), args.batch, args.supernet_rate);
    training.check()?;
    let bundles = check_bundles(&args)?;
    let supernet = &bundles[0].manifest().supernet;
    let logits = u64::from(args.batch) * u64::from(supernet.classes());
    if logits > MOST_LOGITS as u64 {
        let classes = supernet.classes();
        return Err(Failure::usage(format!(
            "--batch {} gives {logits} logits of {classes} classes; kernels of at most {MOST_LOGITS} are compared",
            args.batch
        ))
        .hint(format!("--batch {} is the most", MOST_LOGITS / classes.max(1) as usize)));
    }
    let paths = match args.path.as_slice() {
        [] => setup::random_paths(supernet, args.random as usize, args.seed)?,
        texts => texts.iter().map(|text| setup::path(supernet, text)).collect::<Result<_, _>>()?,
    };
    let paths = distinct(supernet, &paths);
    let data = setup::dataset_within(&args.data.data, &args.data.reading, supernet, None)?;
    let batch = data.fixed_batches(Part::Train, args.batch as usize, 1, args.seed)?.remove(0);
    let interrupted = setup::interrupted();
    if !args.output.quiet {
        output::words(format_args!("data: {}", data.description()));
    }
    let mut work = bundles.len() as u64 * paths.len() as u64 * u64::from(args.steps);
    if args.supernet {
        let per_epoch = training.loader(&data, args.seed)?.steps_per_epoch();
        work += bundles.len() as u64 * u64::from(training.epochs) * per_epoch;
    }
    let bar = output::bar(work, args.output.quiet);
    let mut runs = Vec::new();
    let done = bundles.iter().try_for_each(|bundle| {
        let mut session = setup::open_in(bundle.dir(), &args.run, MemoryMode::Fast, None)?;
        let session = &mut session;
        runs.extend(alone(&args, session, &paths, &batch, &bar, &interrupted)?);
        if args.supernet {
            runs.extend(in_supernet(&args, &training, session, &paths, (&data, &batch), &bar, &interrupted)?);
        }
        Ok::<_, Failure>(())
    });
    bar.finish_and_clear();
    done?;
    let report = report::report(&args, &training, supernet, runs);
    write(&args.out, &report::files(&report)?)?;
    if args.output.json {
        output::json(&report)?;
    } else if !args.output.quiet {
        report::print(&report)?;
    }
    Ok(Exit::Done)
}

/// The bundles' manifests, by width: one space, no bundle twice.
fn check_bundles(args: &NtkDriftArgs) -> Result<Vec<Bundle>, Failure> {
    let mut bundles = args.bundle.iter().map(|dir| Bundle::open(dir)).collect::<Result<Vec<_>, _>>()?;
    for (i, bundle) in bundles.iter().enumerate() {
        let mut wrong = differences(&bundles[0].manifest().supernet, &bundle.manifest().supernet);
        wrong.retain(|&t| t != Trait::Width);
        let pair = |other: &Bundle| format!("{} and {}", other.dir().display(), bundle.dir().display());
        if !wrong.is_empty() {
            let differ = format!("{} differ in more than width: {}", pair(&bundles[0]), names(&wrong));
            return Err(Failure::usage(differ)
                .hint("build them with the same options of nasbn-export but for --width and --seed"));
        }
        if let Some(same) = bundles[..i].iter().find(|other| other.digest() == bundle.digest()) {
            return Err(Failure::usage(format!("{} are the same bundle", pair(same)))
                .hint("give each bundle once; several of one width need different --seed"));
        }
    }
    bundles.sort_by_key(|bundle| bundle.manifest().supernet.width_permille);
    Ok(bundles)
}

fn stopped() -> Failure {
    Failure::usage("stopped; nothing was written").with_exit(Exit::Stopped).hint("begin again with the same command")
}

fn failure(error: DriftError, path: &str) -> Failure {
    match error {
        DriftError::Engine(error) => error.into(),
        DriftError::Stopped => stopped(),
        error @ DriftError::NonFinite { .. } => {
            Failure::usage(format!("path {path}: {error}")).hint("name a lower --rate, or leave it out")
        }
        error @ DriftError::NoKernel => {
            Failure::usage(format!("path {path}: {error}")).hint("name another path with --path")
        }
    }
}

fn described(session: &setup::Session, training: Training, path: &Path, rate: f64, moments: Vec<Moment>) -> Run {
    let (supernet, layout) = (session.network.supernet(), session.network.layout());
    Run {
        training,
        width: f64::from(supernet.width_permille) / 1000.0,
        permille: supernet.width_permille,
        bundle: session.bundle.dir().to_owned(),
        path: supernet.format_path(path),
        bn_parameters: layout.path(supernet, path).map(|slot| 2 * layout.slots()[slot].range.len()).sum(),
        rate,
        moments,
    }
}

/// Every path trained alone.
fn alone(
    args: &NtkDriftArgs,
    session: &mut setup::Session,
    paths: &[Path],
    batch: &Batch,
    bar: &ProgressBar,
    interrupted: &AtomicBool,
) -> Result<Vec<Run>, Failure> {
    let start = setup::parameters(session, None)?;
    let options = DriftOptions {
        steps: args.steps.into(),
        points: args.points(),
        rate: args.rate,
        statistics: args.statistics.into(),
    };
    let multiplier = width(session.network.supernet().width_permille);
    let mut runs = Vec::new();
    for path in paths {
        let text = session.network.supernet().format_path(path);
        bar.set_message(format!("width {multiplier}, {text}"));
        let drift = of_path(&mut session.network, path, &start, batch, options, |_| {
            bar.inc(1);
            !interrupted.load(Ordering::SeqCst)
        });
        let drift = drift.map_err(|error| failure(error, &text))?;
        runs.push(described(session, Training::Path, path, drift.rate, drift.moments));
    }
    Ok(runs)
}

/// The paths in the supernet, while that is trained.
fn in_supernet(
    args: &NtkDriftArgs,
    training: &TrainingArgs,
    session: &mut setup::Session,
    paths: &[Path],
    (data, batch): (&std::sync::Arc<Dataset>, &Batch),
    bar: &ProgressBar,
    interrupted: &AtomicBool,
) -> Result<Vec<Run>, Failure> {
    let start = setup::parameters(session, None)?;
    let loader = training.loader(data, args.seed)?;
    let options = training.options(&session.network, &loader, None, String::new());
    let (due, rate) = (moments(options.schedule.total, args.points()), f64::from(options.schedule.peak));
    let stands = |network: &mut Network, path: &Path, parameters: &BnParameters| {
        as_it_stands(network, path, parameters, batch.images.view(), &batch.labels, args.statistics.into())
    };
    let mut kernels = Vec::new();
    let mut found: Vec<Vec<Moment>> = Vec::new();
    let moment = |step, loss, now: &Array2<f64>, first: &Array2<f64>| Moment {
        step,
        loss,
        linearised_loss: None,
        kernel_distance: relative_distance(now.view(), first.view()),
        kernel_norm: norm(now.view()) / norm(first.view()),
        kernel_cosine: cosine(now.view(), first.view()),
        logit_distance: None,
    };
    for path in paths {
        let (theta, loss) = stands(&mut session.network, path, &start)?;
        found.push(vec![moment(0, loss, &theta, &theta)]);
        kernels.push(theta);
    }
    let multiplier = width(session.network.supernet().width_permille);
    bar.set_message(format!("width {multiplier}, supernet"));
    let mut trainer = Trainer::new(&session.network, options, start);
    let after = |network: &mut Network, trainer: &Trainer, report: &StepReport, _: f64| {
        bar.inc(1);
        if due.contains(&report.step) {
            for ((path, first), found) in paths.iter().zip(&kernels).zip(&mut found) {
                let (theta, loss) = stands(network, path, &trainer.parameters)?;
                found.push(moment(report.step, loss, &theta, first));
            }
        }
        match interrupted.load(Ordering::SeqCst) {
            true => Err(stopped()),
            false => Ok(ControlFlow::Continue(())),
        }
    };
    adapt::run::run(&mut session.network, &mut trainer, loader, after)?;
    let run = |(path, moments): (&Path, Vec<Moment>)| described(session, Training::Supernet, path, rate, moments);
    Ok(paths.iter().zip(found).map(run).collect())
}
