//! `nasbn analyze operator-bias`: which operators indicators of gamma prefer.

mod report;

use std::{
    fs,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use indicatif::ProgressBar;
use nasbn_export::bundle::Bundle;
use nasbn_models::Path;

use super::{names, placement_name, write};
use crate::{
    adapt::{self, StepReport, Trainer, run::RunError},
    analyze::{
        Trait, differences,
        operators::{BnIndicator, Choosing, Ranked, distinct, rank},
    },
    checkpoint::STATE_FILE,
    cli::{
        Exit, Failure,
        args::{DataArgs, OutputArgs},
        output, outputs,
        running::RunArgs,
        setup,
        training::{self, TrainingArgs},
        units,
    },
    data::Dataset,
    indicators::bn::BnTable,
    network::Network,
    parameters::BnParameters,
    search::SearchError,
};

use report::Side;

/// Directory of the checkpoints in --out.
const CHECKPOINTS: &str = "checkpoints";

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn-export build --space nas-bench-macro --width 0.25 --bn every-operator --out fair
  nasbn-export build --space nas-bench-macro --width 0.25 --bn convolution --out biased
  nasbn analyze operator-bias --bundle fair --bundle biased --data digits --out bias
  nasbn analyze operator-bias --bundle fair --bundle biased --data digits --seeds 5 --out bias

Supernets that are trained are checkpoints of `nasbn adapt` in OUT/checkpoints/PLACEMENT-seedN: the
same command uses them again, goes on with one that was stopped, and adds those of further seeds.
docs/analyze.md says what the figures mean.")]
pub struct OperatorBiasArgs {
    /// Bundle that `nasbn-export build` wrote; given twice, once with each BN placement, all else equal
    #[arg(long, value_name = "DIR", required = true)]
    bundle: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Directory for operator-bias.csv, operator-bias.svg, result.json and the checkpoints
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Supernets to train for each placement
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    seeds: u16,
    /// Seed of the first one: of its training, its random paths and its search; the others count on from there
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Random paths to rank, all of different networks
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    random: u32,
    /// Share of the random paths that is the top
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    top: f64,
    /// Best networks of a search that count as found
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    found: u32,
    /// Most multiply-accumulates for one image of what a search finds (12000000, 12M, 1.2G)
    #[arg(long, value_name = "N", value_parser = units::count)]
    max_macs: Option<u64>,
    /// Most networks that a search looks at; a space of no more is looked at as a whole
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    evaluations: u32,
    #[command(flatten)]
    training: TrainingArgs,
    /// Train again whatever checkpoints are in --out
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: OperatorBiasArgs) -> Result<Exit, Failure> {
    args.training.check()?;
    if !(args.top > 0.0 && args.top <= 1.0) {
        return Err(Failure::usage(format!("--top must be above 0 and at most 1, not {}", args.top))
            .hint("0.1 is the best tenth of the random paths"));
    }
    if args.top * f64::from(args.random) < 1.0 {
        return Err(Failure::usage(format!(
            "--top {} of {} random paths is less than one path",
            args.top, args.random
        ))
        .hint("raise one of the two"));
    }
    args.bundle.iter().try_for_each(|bundle| outputs::outside(bundle, "--out", &args.out))?;
    outputs::directory(&args.out)?;
    let quiet = args.output.quiet;
    let mut sides = open(&args)?;
    let data = setup::dataset_within(&args.data.data, &args.data.reading, sides[0].session.network.supernet(), None)?;
    for side in &sides {
        feasible(&args, side)?;
    }
    let seeds: Vec<u64> = (0..u64::from(args.seeds)).map(|k| args.seed.wrapping_add(k)).collect();
    if !quiet {
        output::words(format_args!("data: {}", data.description()));
    }
    let per_epoch = args.training.loader(&data, args.seed)?.steps_per_epoch();
    let runs = sides.len() as u64 * u64::from(args.seeds);
    let bar = output::bar(runs * u64::from(args.training.epochs) * per_epoch, quiet);
    let interrupted = setup::interrupted();
    let fingerprint = data.fingerprint();
    if args.force {
        forget(&args, &sides, &seeds)?;
    }
    let trained: Result<(), Failure> = seeds.iter().try_for_each(|&seed| {
        for side in &mut sides {
            let parameters = trained(&args, side, (&data, &fingerprint), seed, &bar, &interrupted)?;
            let ranked = ranked(&args, side, &parameters, seed)?;
            side.ranked.push(ranked);
        }
        Ok(())
    });
    bar.finish_and_clear();
    trained?;
    let report = report::report(&args, &sides, seeds);
    if report.found < args.found {
        let text = format!("--found {}: a search has only {} different networks", args.found, report.found);
        output::say(&bar, quiet, &text);
    }
    write(&args.out, &report::files(&report, &sides)?)?;
    if args.output.json {
        output::json(&report)?;
    } else if !quiet {
        report::print(&report)?;
    }
    Ok(Exit::Done)
}

/// Opens both bundles, `convolution` first.
fn open(args: &OperatorBiasArgs) -> Result<Vec<Side>, Failure> {
    let [first, second] = args.bundle.as_slice() else {
        let given = args.bundle.len();
        return Err(Failure::usage(format!("two bundles are compared, not {given}"))
            .hint("give --bundle twice: one built with --bn every-operator, one with --bn convolution"));
    };
    let (a, b) = (Bundle::open(first)?, Bundle::open(second)?);
    let (a, b) = (a.manifest(), b.manifest());
    let pair = || format!("{} and {}", first.display(), second.display());
    let mut wrong = differences(&a.supernet, &b.supernet);
    let placement = wrong.iter().position(|&t| t == Trait::Placement).map(|i| wrong.remove(i));
    if !wrong.is_empty() {
        return Err(Failure::usage(format!("{} differ in more than BatchNorm placement: {}", pair(), names(&wrong)))
            .hint("build both with the same options of nasbn-export but for --bn"));
    }
    if (a.seed, &a.weights) != (b.seed, &b.weights) {
        return Err(Failure::usage(format!("{} have different weights", pair()))
            .hint("build both with the same --seed (and --weights)"));
    }
    if placement.is_none() {
        let both = placement_name(a.supernet.placement);
        return Err(Failure::usage(format!("{} have the same BatchNorm placement, {both}", pair()))
            .hint("build one with --bn every-operator, the other with --bn convolution"));
    }
    let mut sides = Vec::new();
    for bundle in [first, second] {
        let (memory, graphs) = (args.training.memory(), args.training.graphs);
        let session = setup::open_in(bundle, &args.run, memory, graphs)?;
        let placement = placement_name(session.network.supernet().placement);
        let (checkpoints, ranked) = (Vec::new(), Vec::new());
        sides.push(Side { placement, bundle: bundle.clone(), session, checkpoints, ranked });
    }
    sides.sort_by_key(|side| side.placement);
    Ok(sides)
}

/// Takes away where the runs that are asked for stand, all before the first is trained again: a command that is stopped
/// then goes on without --force, and meets no supernet of other options.
fn forget(args: &OperatorBiasArgs, sides: &[Side], seeds: &[u64]) -> Result<(), Failure> {
    for (side, &seed) in sides.iter().flat_map(|side| seeds.iter().map(move |seed| (side, seed))) {
        let directory = args.checkpoint(side, seed);
        let state = directory.join(STATE_FILE);
        if state.exists() {
            let _lock = training::lock(&directory)?;
            fs::remove_file(&state).map_err(|e| Failure::file(&state, &e))?;
        }
    }
    Ok(())
}

impl Side {
    /// Name of the supernet that is trained with a seed.
    fn run(&self, seed: u64) -> String {
        format!("{}-seed{seed}", self.placement)
    }
}

impl OperatorBiasArgs {
    /// Where the supernet that is trained with a seed stands.
    fn checkpoint(&self, side: &Side, seed: u64) -> PathBuf {
        self.out.join(CHECKPOINTS).join(side.run(seed))
    }

    fn choosing(&self, seed: u64) -> Choosing {
        Choosing {
            top: self.top,
            found: self.found as usize,
            max_macs: self.max_macs,
            evaluations: self.evaluations as usize,
            seed,
        }
    }
}

/// Whether a search can find anything, before anything is trained.
fn feasible(args: &OperatorBiasArgs, side: &Side) -> Result<(), Failure> {
    let parameters = setup::parameters(&side.session, None)?;
    ranked_by(args, &side.session.network, &parameters, &[], args.seed).map(|_| ())
}

fn ranked_by(
    args: &OperatorBiasArgs,
    network: &Network,
    parameters: &BnParameters,
    paths: &[Path],
    seed: u64,
) -> Result<Vec<Ranked>, Failure> {
    let supernet = network.supernet();
    let table = BnTable::new(supernet, network.layout(), parameters);
    let by = |indicator| {
        rank(supernet, &table, indicator, paths, &args.choosing(seed)).map_err(|error| match error {
            SearchError::Infeasible { nearest, cost, excess } => Failure::usage(format!(
                "no network is within --max-macs; the nearest found, {}, exceeds it by {:.1} % ({} MACs)",
                supernet.format_path(&nearest),
                100.0 * excess,
                cost.macs
            ))
            .with_exit(Exit::Infeasible)
            .hint("raise the limit by that much, or leave it out"),
            SearchError::NoScore { evaluated } => {
                Failure::usage(format!("not one of {evaluated} networks has a score that is a number"))
                    .hint("train again with --force and a lower --rate")
            }
            SearchError::Evaluation(never) => match never {},
        })
    };
    BnIndicator::ALL.into_iter().map(by).collect()
}

fn ranked(args: &OperatorBiasArgs, side: &Side, parameters: &BnParameters, seed: u64) -> Result<Vec<Ranked>, Failure> {
    let supernet = side.session.network.supernet();
    let paths = distinct(supernet, &setup::random_paths(supernet, args.random as usize, seed)?);
    ranked_by(args, &side.session.network, parameters, &paths, seed)
}

/// Gamma and beta of the supernet trained with a seed: from its checkpoint, or trained now.
fn trained(
    args: &OperatorBiasArgs,
    side: &mut Side,
    (data, fingerprint): (&Arc<Dataset>, &str),
    seed: u64,
    bar: &ProgressBar,
    interrupted: &AtomicBool,
) -> Result<BnParameters, Failure> {
    let quiet = args.output.quiet;
    let name = side.run(seed);
    let directory = args.checkpoint(side, seed);
    let session = &mut side.session;
    let loader = args.training.loader(data, seed)?;
    let options = args.training.options(&session.network, &loader, None, fingerprint.to_owned());
    let (total, per_epoch) = (options.schedule.total, loader.steps_per_epoch());
    let _out = outputs::Directory::make(&directory)?;
    let _lock = training::lock(&directory)?;
    let mut trainer = match directory.join(STATE_FILE).exists() {
        true => training::resume(session, &directory, &options, "train all supernets again with --force")?,
        false => Trainer::new(&session.network, options, setup::parameters(session, None)?),
    };
    side.checkpoints.push(directory.clone());
    bar.inc(trainer.steps());
    if trainer.steps() == total {
        output::say(bar, quiet, &format!("{name}: trained before"));
        return Ok(trainer.parameters);
    }
    let digest = session.bundle.digest();
    let (mut sum, mut count) = (0.0, 0u32);
    let mut last = 0.0;
    let after = |network: &mut Network, trainer: &Trainer, report: &StepReport, _: f64| {
        (sum, count) = (sum + f64::from(report.loss), count + 1);
        last = sum / f64::from(count);
        bar.inc(1);
        bar.set_message(format!("{name}  loss {last:.3}"));
        let (epoch_ends, stop) = (report.step.is_multiple_of(per_epoch), interrupted.load(Ordering::SeqCst));
        if epoch_ends || stop {
            trainer.checkpoint().write(&directory, digest, network.layout())?;
        }
        if epoch_ends {
            (sum, count) = (0.0, 0);
        }
        Ok::<_, Failure>(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    adapt::run::run(&mut session.network, &mut trainer, loader, after).map_err(|error| {
        let kept = format!("in the training of {name}; what was trained before is kept");
        match error {
            RunError::Caller(unwritten) => {
                let hint = "make room, then go on with the same command (without --force)";
                unwritten.and(kept).with_exit(Exit::Stopped).hint(hint)
            }
            error => Failure::from(error).and(kept),
        }
    })?;
    // After the last step of all, there may be more supernets to train.
    if interrupted.load(Ordering::SeqCst) {
        let step = trainer.steps();
        return Err(Failure::usage(format!("stopped after step {step} of {total} of {name}"))
            .with_exit(Exit::Stopped)
            .hint("go on with the same command (without --force)"));
    }
    output::say(bar, quiet, &format!("{name}: loss {last:.4} in the last epoch"));
    Ok(trainer.parameters)
}
