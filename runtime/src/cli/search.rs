//! `nasbn search`: the best path within limits.

mod limits;
mod on_device;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use nasbn_models::{Path, Supernet};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Exit, Failure,
    args::{BundleArgs, DataArgs, McArgs, OutputArgs, ReferenceArgs, ValidationArgs},
    budget::{Left, Planned, Scoring},
    fingerprint, note, outputs,
    reference::{Watched, needed_composite},
    setup, units,
};
use crate::{
    composite::Composite,
    data::{Batch, BatchList, Dataset},
    engine::EngineError,
    indicators::{
        catalogue::{self, Indicator, Measurement, Selection},
        ntk::Outputs,
    },
    journal,
    network::Network,
    parameters::BnParameters,
    score::ScoreOptions,
    search::{Limits, record::Record},
    validation::{Validation, recalibrate, validate},
};

/// What is maximised: an indicator of the catalogue, turned so that larger is better.
#[derive(Clone, Serialize)]
#[serde(transparent)]
struct Objective {
    name: String,
    #[serde(skip)]
    indicator: &'static Indicator,
}

/// An objective from its name: `loss` and `accuracy` are those of validation, `-` stands for `_`.
fn objective(text: &str) -> Result<Objective, String> {
    let name = match text {
        "loss" => "validation_loss".to_owned(),
        "accuracy" => "validation_accuracy".to_owned(),
        other => other.replace('-', "_"),
    };
    let Some(indicator) = catalogue::find(&name) else {
        let nearest = catalogue::nearest(&name).replace('_', "-");
        return Err(format!("there is no such indicator; the nearest is `{nearest}` (see `nasbn score --help`)"));
    };
    if indicator.measurement == Measurement::Adaptation {
        return Err("a search does not adapt its candidates; `nasbn score --adapt-steps` does".into());
    }
    Ok(Objective { name: text.to_owned(), indicator })
}

impl Objective {
    /// Whether it is read from a table, without running anything.
    fn is_cheap(&self) -> bool {
        use Measurement::{Composite, Cost, Gamma, Units};
        matches!(self.indicator.measurement, Gamma | Cost | Units | Composite)
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn search --bundle bundle --checkpoint checkpoint --data digits --max-macs 2M --out found
  nasbn search --bundle bundle --checkpoint checkpoint --data digits --objective bn-all --max-params 300k --out found
  nasbn search --bundle bundle --checkpoint checkpoint --data digits --max-macs 2M --out found --resume
  nasbn search --bundle bundle --data cifar10:DIR --latency board.latency --budget 8ms --out found")]
pub struct SearchArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Checkpoint of `nasbn adapt` [default with --latency: the initial BatchNorm parameters]
    #[arg(long, value_name = "DIR", required_unless_present = "latency")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Directory for winner.onnx, winner.safetensors, winner.json and result.json, with --latency for pareto.csv and
    /// report.html, too; scores stand in search.jsonl.partial until the search is done
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on from search.jsonl.partial, which a search that was stopped has left in --out
    #[arg(long)]
    resume: bool,
    /// Latency table of `nasbn latency`: search for the front of objective and latency, and measure finalists
    #[arg(long, value_name = "FILE", requires = "budget")]
    latency: Option<PathBuf>,
    /// Most latency of one run, as measured on this machine (8ms, 750us)
    #[arg(long, value_name = "TIME", value_parser = units::milliseconds, requires = "latency")]
    budget: Option<f64>,
    /// Search only among these networks: a CSV file with a column `path` or `arch`, or a path a line
    #[arg(long, value_name = "FILE", requires = "latency")]
    paths: Option<PathBuf>,
    /// Most energy of one run (25mJ): as predicted by a table that has energies, and as measured on finalists
    #[arg(long, value_name = "ENERGY", value_parser = units::millijoules, requires = "latency")]
    energy_budget: Option<f64>,
    /// Networks whose objective and latency are measured, and as many for random search
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096), requires = "latency")]
    finalists: u32,
    /// Least time that each finalist is measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration, requires = "latency")]
    min_time: Duration,
    /// Use a latency table though it was measured under other conditions
    #[arg(long, requires = "latency")]
    force: bool,
    /// Say what the search would look at and measure, and do nothing
    #[arg(long, requires = "latency")]
    dry_run: bool,
    /// Read the board's state below this directory instead of /
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true, requires = "latency")]
    root: PathBuf,
    /// Most multiply-accumulates for one image (12000000, 12M, 1.2G)
    #[arg(long, value_name = "N", value_parser = units::count)]
    max_macs: Option<u64>,
    /// Most parameters (300000, 300k, 1.5M)
    #[arg(long, value_name = "N", value_parser = units::count)]
    max_params: Option<u64>,
    /// Most peak activation memory for one image (500000, 512KiB, 2MiB)
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    max_memory: Option<u64>,
    /// What is searched for: least `loss` or highest `accuracy` on one half of the validation images, `bn-all`,
    /// `bn-last`, `composite`, or another indicator of `nasbn score --help` [default: loss; composite with --latency]
    #[arg(long, value_name = "INDICATOR", value_parser = objective)]
    objective: Option<Objective>,
    /// Most networks to evaluate, and as many again for random search [default: 300; 20000 with bn-all, bn-last,
    /// composite and costs, which run nothing]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    evaluations: Option<u32>,
    /// Networks in a generation of the evolution
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..))]
    population: u32,
    /// Networks that survive and breed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..), conflicts_with = "latency")]
    parents: u32,
    /// Probability that a choice mutates
    #[arg(long, default_value_t = 0.1)]
    mutation: f64,
    /// Random networks with as many MACs as the winner to show beside it
    #[arg(long, value_name = "N", default_value_t = 16, conflicts_with = "latency")]
    peers: usize,
    #[command(flatten)]
    validation: ValidationArgs,
    /// Most memory that this process may take, images and library included, but not that of an accelerator (1GiB, 800MiB; K,
    /// M and G are KiB, MiB and GiB); not --max-memory, which is a limit on the network that is found
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    memory_budget: Option<u64>,
    #[command(flatten)]
    mc: McArgs,
    #[command(flatten)]
    reference: ReferenceArgs,
    /// Seed of the search, the halves of the validation images and the mini-batches for recalibration
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

impl SearchArgs {
    /// The objective: the one asked for, or what is usual.
    fn objective(&self) -> Result<Objective, Failure> {
        let usual = if self.latency.is_some() { "composite" } else { "loss" };
        self.objective.clone().map_or_else(|| objective(usual).map_err(Failure::usage), Ok)
    }

    /// Evaluations: as many as asked for, or as are usual for an objective.
    fn evaluations(&self, objective: &Objective) -> usize {
        self.evaluations.unwrap_or(if objective.is_cheap() { 20_000 } else { 300 }) as usize
    }

    /// How the objective is measured.
    fn scoring(&self, objective: &Objective) -> ScoreOptions {
        let indicator = objective.indicator;
        ScoreOptions {
            selection: Selection::of(|i| i.name == indicator.name),
            recalibrate: self.validation.recalibrate as usize,
            mc_batches: self.mc.mc_batches as usize,
            ntk_outputs: Outputs::Sum,
            adapt: None,
            noise_images: self.validation.batch as usize,
            seed: self.seed,
        }
    }

    fn limits(&self) -> Limits {
        Limits { macs: self.max_macs, params: self.max_params, memory_bytes: self.max_memory }
    }
}

pub fn run(args: SearchArgs) -> Result<Exit, Failure> {
    if !(args.mutation > 0.0 && args.mutation <= 1.0) {
        return Err(Failure::usage(format!("--mutation must be above 0 and at most 1, not {}", args.mutation))
            .hint("it is the probability that a choice is drawn anew; 0.1 is usual"));
    }
    outputs::outside(&args.bundle.bundle, "--out", &args.out)?;
    let objective = args.objective()?;
    match (&args.latency, args.budget) {
        (Some(table), Some(budget)) => on_device::run(&args, &objective, table, budget),
        _ => limits::run(&args, &objective),
    }
}

/// A plan for a search within --memory-budget; `batch` is the latency table's.
fn planned(
    args: &SearchArgs,
    session: &mut setup::Session,
    data: &Arc<Dataset>,
    parameters: &BnParameters,
    (objective, scoring): (&Objective, &ScoreOptions),
    latency: Option<u32>,
) -> Result<Option<Planned>, Failure> {
    let Some(budget) = args.memory_budget else { return Ok(None) };
    let scoring = Scoring {
        budget,
        data: Some(data),
        parameters,
        options: Some(scoring),
        validation: &args.validation,
        reference: (objective.indicator.measurement == Measurement::Composite).then(|| args.reference.options()),
        paths: &[],
        writes: true,
        latency,
        left: Left::Resumable,
        quiet: args.output.quiet,
    };
    scoring.plan(session).map(Some)
}

/// What to do about a search that was stopped.
const GO_ON: &str = "go on with the same command and --resume";

/// Ends the program between two networks if it was asked to.
fn check_interrupted(interrupted: &AtomicBool) -> Result<(), Failure> {
    match interrupted.load(Ordering::SeqCst) {
        true => Err(Failure::usage("stopped; what was evaluated so far is kept").with_exit(Exit::Stopped).hint(GO_ON)),
        false => Ok(()),
    }
}

/// What decides the scores of this search, by name.
fn described(
    args: &SearchArgs,
    (objective, options): (&Objective, serde_json::Value),
    session: &setup::Session,
    parameters: &BnParameters,
    data: &Dataset,
) -> Map<String, Value> {
    let more = serde_json::json!({
        "objective": objective,
        "search": options,
        "mc_batches": args.mc.mc_batches,
        "mc_images": args.mc.mc_images,
        "reference": args.reference.options(),
    });
    fingerprint::of(session, parameters, Some(data), &args.validation, more)
}

/// The composite that the search goes by: as an earlier run has noted it, or measured now, and noted.
fn reference(
    args: &SearchArgs,
    session: &mut setup::Session,
    data: &Dataset,
    record: &mut Record,
    watched: Watched<'_>,
) -> Result<Composite, Failure> {
    if let Some(composite) = record.note(note::COMPOSITE).and_then(note::decode) {
        return Ok(composite);
    }
    let measured = needed_composite(session, data, args.reference, watched, args.output.quiet);
    let stopped =
        |failure: Failure| if watched.interrupted.load(Ordering::SeqCst) { failure.hint(GO_ON) } else { failure };
    let composite = measured.map_err(stopped)?;
    // A disk that is full now is told when a score cannot be recorded, with the records left as they are.
    if let Err(error) = record.set_note(note::COMPOSITE, &note::encode(&composite)) {
        log::warn!("the composite is not on file, so --resume measures it anew: {error}");
    }
    Ok(composite)
}

/// The scores of this search: none yet, or those that an earlier run has left in --out.
fn record(args: &SearchArgs, run: &Map<String, Value>, supernet: &Supernet) -> Result<Record, Failure> {
    let file = journal::beside(&args.out.join("search.jsonl"));
    if args.resume {
        return Ok(Record::resume(&file, run, supernet)?);
    }
    Ok(Record::create(&file, run)?)
}

/// Images that results are reported on: training images for statistics, and validation images that the search did
/// not see.
struct ReportImages<'a> {
    training: &'a [Batch],
    validation: BatchList,
}

fn measure(
    network: &mut Network,
    path: &Path,
    parameters: &BnParameters,
    images: &ReportImages,
) -> Result<Validation, EngineError> {
    let statistics = recalibrate(network, path, parameters, images.training)?;
    validate(network, path, parameters, &statistics, images.validation.iter())
}
