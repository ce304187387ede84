//! `nasbn search`: the best path within limits.

use std::{
    fs,
    path::{Path as FsPath, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use clap::Args;
use nasbn_models::{
    Path, Supernet,
    canonical::CanonicalTable,
    cost::{Cost, CostTable},
    manifest::MemoryMode,
    sample,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::Serialize;

use super::{
    Exit, Failure,
    args::{BundleArgs, DataArgs, McArgs, OutputArgs, ReferenceArgs, ValidationArgs},
    fingerprint, output, setup,
};
use crate::{
    atomic,
    data::{Batch, BatchList, Dataset, Normaliser},
    engine::EngineError,
    indicators::{
        catalogue::{self, Indicator, Measurement, Selection},
        ntk::Outputs,
    },
    journal,
    network::Network,
    parameters::BnParameters,
    score::{ScoreOptions, Scorer},
    search::{Candidate, FoundBy, Limits, Method, Outcome, SearchError, SearchOptions, record::Record, search},
    subnet,
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
  nasbn search --bundle bundle --checkpoint checkpoint --data digits --max-macs 2M --out found --resume")]
pub struct SearchArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Checkpoint of `nasbn adapt`
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Directory for winner.onnx, winner.safetensors, winner.json and result.json; scores stand in
    /// search.jsonl.partial until the search is done
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on from search.jsonl.partial, which a search that was stopped has left in --out
    #[arg(long)]
    resume: bool,
    /// Most multiply-accumulates for one image (12000000, 12M, 1.2G)
    #[arg(long, value_name = "N", value_parser = count)]
    max_macs: Option<u64>,
    /// Most parameters (300000, 300k, 1.5M)
    #[arg(long, value_name = "N", value_parser = count)]
    max_params: Option<u64>,
    /// Most peak activation memory for one image (500000, 512KiB, 2MiB)
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_memory: Option<u64>,
    /// What is searched for: least `loss` or highest `accuracy` on one half of the validation images, `bn-all`,
    /// `bn-last`, or another indicator of `nasbn score --help`
    #[arg(long, value_name = "INDICATOR", default_value = "loss", value_parser = objective)]
    objective: Objective,
    /// Most networks to evaluate, and as many again for random search [default: 300; 20000 with bn-all, bn-last
    /// and costs, which run nothing]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    evaluations: Option<u32>,
    /// Networks in a generation of the evolution
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..))]
    population: u32,
    /// Networks that survive and breed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    parents: u32,
    /// Probability that a choice mutates
    #[arg(long, default_value_t = 0.1)]
    mutation: f64,
    /// Random networks with as many MACs as the winner to show beside it
    #[arg(long, value_name = "N", default_value_t = 16)]
    peers: usize,
    #[command(flatten)]
    validation: ValidationArgs,
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

/// A number with an optional k, M or G.
pub fn count(text: &str) -> Result<u64, String> {
    scaled(text, &[("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9)])
        .ok_or_else(|| format!("`{text}` is not a count above 0 such as 12000000, 12M or 1.2G"))
}

/// A number of bytes with an optional unit.
fn bytes(text: &str) -> Result<u64, String> {
    let units =
        [("KiB", 1024.0), ("MiB", 1048576.0), ("GiB", 1073741824.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("B", 1.0)];
    scaled(text, &units).ok_or_else(|| format!("`{text}` is not a size above 0 such as 500000, 512KiB or 2MiB"))
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let (number, scale) =
        units.iter().find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale))).unwrap_or((text, 1.0));
    let value = number.trim().parse::<f64>().ok()? * scale;
    (value.is_finite() && (1.0..1e18).contains(&value)).then_some(value as u64)
}

/// result.json.
#[derive(Serialize)]
struct Report {
    space: String,
    seed: u64,
    objective: Objective,
    limits: Limits,
    method: Method,
    evaluations: usize,
    /// The best of all networks that were evaluated; the one that is written.
    winner: Found,
    /// Which part of the search met the winner.
    found_by: FoundBy,
    /// Best of evolution by itself; null where every network within the limits was looked at.
    evolution: Option<Found>,
    /// Best of random search with as many evaluations; null where every network within the limits was looked at,
    /// which random search could only repeat.
    random_search: Option<Found>,
    /// Random networks with nearly the winner's MACs.
    peers: Vec<Found>,
    /// Mean validation accuracy of the peers, 0 to 1; null if there are none.
    peers_mean_accuracy: Option<f64>,
    /// Images that accuracies were measured on; none of them took part in the search.
    report_images: usize,
    files: Vec<PathBuf>,
}

#[derive(Clone, Serialize)]
struct Found {
    path: String,
    /// Value of the objective, larger is better; null for peers, which were not searched for.
    score: Option<f64>,
    macs: u64,
    params: u64,
    depth: u32,
    peak_activation_bytes: u64,
    /// With inherited BN and recalibrated statistics, on images that the search did not see.
    validation: Validation,
}

pub fn run(args: SearchArgs) -> Result<Exit, Failure> {
    if !(args.mutation > 0.0 && args.mutation <= 1.0) {
        return Err(Failure::usage(format!("--mutation must be above 0 and at most 1, not {}", args.mutation))
            .hint("it is the probability that a choice is drawn anew; 0.1 is usual"));
    }
    let mut session = setup::open(&args.bundle, MemoryMode::Lean, args.validation.graphs.into())?;
    let parameters = setup::parameters(&session, Some(&args.checkpoint))?;
    let supernet = session.network.supernet().clone();
    let data = setup::dataset(&args.data, &supernet)?;
    let (choose, report) = setup::halves(&data, &args.validation, args.seed)?;
    let indicator = args.objective.indicator;
    let scoring = ScoreOptions {
        selection: Selection::of(|i| i.name == indicator.name),
        recalibrate: args.validation.recalibrate as usize,
        mc_batches: args.mc.mc_batches as usize,
        ntk_outputs: Outputs::Sum,
        adapt: None,
        noise_images: args.validation.batch as usize,
        seed: args.seed,
    };
    let (mc_images, recalibrate) = (args.mc.mc_images, args.validation.recalibrate);
    let choose = setup::score_images(&data, &scoring, &args.validation, mc_images, &choose, recalibrate, args.seed)?;
    let report = ReportImages {
        training: &choose.training[..recalibrate as usize],
        validation: setup::validation(&data, &args.validation, &report)?,
    };
    let costs = CostTable::new(&supernet);
    let evaluations = args.evaluations.unwrap_or(if args.objective.is_cheap() { 20_000 } else { 300 }) as usize;
    let options = SearchOptions {
        limits: Limits { macs: args.max_macs, params: args.max_params, memory_bytes: args.max_memory },
        evaluations,
        seed: args.seed,
        parents: args.parents as usize,
        population: args.population as usize,
        mutation: args.mutation,
    };
    let present = args.out.exists();
    let mut record = record(&args, &options, &session, &parameters, &data)?;
    let interrupted = setup::interrupted();
    let bar = output::bar(0, args.output.quiet);
    let composite = match indicator.measurement {
        Measurement::Composite => {
            let quiet = args.output.quiet;
            match setup::needed_composite(&mut session, &data, args.reference, &interrupted, quiet) {
                Ok(composite) => Some(composite),
                Err(failure) if interrupted.load(Ordering::SeqCst) => return Err(failure.hint(GO_ON)),
                Err(failure) => {
                    end(record, &args.out, present)?;
                    return Err(failure);
                }
            }
        }
        _ => None,
    };
    let mut scorer = Scorer::new(&mut session.network, &parameters, &choose, scoring).with_composite(composite);
    let recorded = record.len();
    if args.resume && !args.output.quiet {
        output::words(format_args!("goes on from {recorded} networks that are evaluated"));
    }
    let evaluate = |path: &Path| {
        record.score(&supernet, path, || {
            check_interrupted(&interrupted)?;
            let value = match catalogue::cost(indicator, &costs.cost(path)) {
                Some(cost) => cost,
                None => scorer.values(path)?.first().copied().unwrap_or(f64::NAN),
            };
            Ok::<_, Failure>(indicator.direction.score(value))
        })
    };
    let outcome = search(&supernet, &costs, &options, evaluate, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(SearchError::Evaluation(failure)) => return Err(failure),
        Err(SearchError::NoScore { evaluated }) => {
            end(record, &args.out, present)?;
            return Err(Failure::usage(format!("not one of {evaluated} networks has a score that is a number"))
                .hint("the checkpoint's BatchNorms do not fit the data: adapt again with a lower --rate"));
        }
        Err(SearchError::Infeasible { nearest, cost, excess }) => {
            end(record, &args.out, present)?;
            return infeasible(&args, &supernet, &nearest, &cost, excess);
        }
    };
    let found = describe(&args, &mut session, &parameters, &outcome, &report, &costs, &interrupted)?;
    write(&args.out, &mut session, &parameters, &outcome, (&report, data.normaliser()), &found)?;
    end(record, &args.out, true)?;
    if args.output.json {
        output::json(&found)?
    } else if !args.output.quiet {
        print(&found)?
    }
    Ok(Exit::Done)
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

/// The scores of this search: none yet, or those that an earlier run has left.
fn record(
    args: &SearchArgs,
    options: &SearchOptions,
    session: &setup::Session,
    parameters: &BnParameters,
    data: &Dataset,
) -> Result<Record, Failure> {
    let more = serde_json::json!({
        "objective": args.objective,
        "search": options,
        "mc_batches": args.mc.mc_batches,
        "mc_images": args.mc.mc_images,
        "reference": args.reference.options(),
    });
    let run = fingerprint::of(session, parameters, Some(data), &args.validation, more);
    let file = journal::beside(&args.out.join("search.jsonl"));
    if args.resume {
        return Ok(Record::resume(&file, &run, session.network.supernet())?);
    }
    fs::create_dir_all(&args.out).map_err(|e| Failure::file(&args.out, &e))?;
    Ok(Record::create(&file, &run)?)
}

/// Removes the record of a search that has come to its end, and the directory unless it is to stay.
fn end(record: Record, out: &FsPath, stays: bool) -> Result<(), Failure> {
    record.remove()?;
    if !stays {
        // It holds what somebody else has put there in the meantime, then.
        let _ = fs::remove_dir(out);
    }
    Ok(())
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

fn infeasible(
    args: &SearchArgs,
    supernet: &Supernet,
    nearest: &Path,
    cost: &Cost,
    excess: f64,
) -> Result<Exit, Failure> {
    let path = supernet.format_path(nearest);
    if args.output.json {
        output::json(&serde_json::json!({
            "feasible": false, "nearest": path, "macs": cost.macs, "params": cost.params,
            "peak_activation_bytes": cost.peak_activation_bytes, "excess": excess,
        }))?;
    }
    Err(Failure::usage(format!(
        "no network is within the limits; the nearest found, {path}, exceeds them by {:.1} % ({} MACs, {} parameters, {} bytes)",
        100.0 * excess,
        cost.macs,
        cost.params,
        cost.peak_activation_bytes
    ))
    .with_exit(Exit::Infeasible)
    .hint("raise the limit by that much, or export a smaller space (--width, --image-size)"))
}

fn describe(
    args: &SearchArgs,
    session: &mut setup::Session,
    parameters: &BnParameters,
    outcome: &Outcome,
    images: &ReportImages,
    costs: &CostTable,
    interrupted: &AtomicBool,
) -> Result<Report, Failure> {
    let supernet = session.network.supernet().clone();
    let mut found = |path: &Path, score: Option<f64>| -> Result<Found, Failure> {
        check_interrupted(interrupted)?;
        let cost = costs.cost(path);
        Ok(Found {
            path: supernet.format_path(path),
            score,
            macs: cost.macs,
            params: cost.params,
            depth: cost.depth,
            peak_activation_bytes: cost.peak_activation_bytes,
            validation: measure(&mut session.network, path, parameters, images)?,
        })
    };
    let winner = found(&outcome.best.path, Some(outcome.best.score))?;
    let mut part = |best: &Option<Candidate>| match best {
        Some(best) if best.path == outcome.best.path => Ok(Some(winner.clone())),
        Some(best) => found(&best.path, Some(best.score)).map(Some),
        None => Ok(None),
    };
    let (evolution, random_search) = (part(&outcome.evolution_best)?, part(&outcome.random_best)?);
    let peers = peers(&supernet, costs, &outcome.best.path, args.peers, args.seed)
        .iter()
        .map(|path| found(path, None))
        .collect::<Result<Vec<_>, _>>()?;
    let mean = |peers: &[Found]| peers.iter().map(|p| p.validation.accuracy).sum::<f64>() / peers.len() as f64;
    let file = |name: &str| args.out.join(name);
    Ok(Report {
        space: supernet.name.clone(),
        seed: args.seed,
        objective: args.objective.clone(),
        limits: Limits { macs: args.max_macs, params: args.max_params, memory_bytes: args.max_memory },
        method: outcome.method,
        evaluations: outcome.evaluated.len(),
        report_images: winner.validation.images,
        winner,
        found_by: outcome.found_by,
        evolution,
        random_search,
        peers_mean_accuracy: (!peers.is_empty()).then(|| mean(&peers)),
        peers,
        files: ["winner.onnx", "winner.safetensors", "winner.json", "result.json"].map(file).into(),
    })
}

/// Random networks whose MACs are within 5 % of the winner's; fewer than asked for if they are rare.
fn peers(supernet: &Supernet, costs: &CostTable, winner: &Path, wanted: usize, seed: u64) -> Vec<Path> {
    const TOLERANCE: f64 = 0.05;
    const TRIES: usize = 100_000;
    let target = costs.cost(winner).macs as f64;
    let canonical = CanonicalTable::new(supernet);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(2);
    let mut peers: Vec<Path> = Vec::new();
    for _ in 0..TRIES {
        if peers.len() >= wanted {
            break;
        }
        let path = canonical.of(&sample::uniform(supernet, &mut rng));
        let near = (costs.cost(&path).macs as f64 - target).abs() <= TOLERANCE * target;
        if near && path != *winner && !peers.contains(&path) && supernet.is_connected(&path) {
            peers.push(path);
        }
    }
    peers
}

fn write(
    out: &FsPath,
    session: &mut setup::Session,
    parameters: &BnParameters,
    outcome: &Outcome,
    (images, normaliser): (&ReportImages, &Normaliser),
    report: &Report,
) -> Result<(), Failure> {
    let path = &outcome.best.path;
    let statistics = recalibrate(&mut session.network, path, parameters, images.training)?;
    let extra = [
        ("score".to_owned(), outcome.best.score.to_string()),
        ("macs".to_owned(), outcome.best.cost.macs.to_string()),
        ("validation_accuracy".to_owned(), report.winner.validation.accuracy.to_string()),
    ];
    let layout = session.network.layout();
    let files = subnet::files(&session.bundle, layout, path, parameters, &statistics, normaliser, &extra)?;
    files.write(out, "winner")?;
    let text = serde_json::to_string_pretty(report).map_err(Failure::usage)?;
    let file = out.join("result.json");
    atomic::write(&file, text.as_bytes()).map_err(|e| Failure::file(&file, &e))
}

fn print(report: &Report) -> Result<(), Failure> {
    let method = match report.method {
        Method::Exhaustive => "every network within the limits",
        Method::Evolution => "evolution",
    };
    output::line(format!("searched      {} networks ({method})", report.evaluations))?;
    let row = |name: &str, found: &Found| {
        format!(
            "{name:<13} {}  {:.2} M MACs  {:.3} M params  accuracy {:.2} %",
            found.path,
            found.macs as f64 / 1e6,
            found.params as f64 / 1e6,
            100.0 * found.validation.accuracy
        )
    };
    output::line(row("winner", &report.winner))?;
    if report.found_by == FoundBy::RandomSearch {
        output::line("              (random search met it; evolution found none as good)")?;
        if let Some(found) = &report.evolution {
            output::line(row("evolution", found))?;
        }
    }
    match &report.random_search {
        Some(found) => output::line(row("random search", found))?,
        None if report.method == Method::Exhaustive => output::line("random search none: every network was looked at")?,
        None => output::line("random search none: it met no network with a score")?,
    }
    if let Some(mean) = report.peers_mean_accuracy {
        let accuracy = |p: &Found| p.validation.accuracy;
        let best = report.peers.iter().map(accuracy).fold(f64::NEG_INFINITY, f64::max);
        output::line(format!(
            "same MACs     {} random networks (within 5 %): accuracy {:.2} % on average, {:.2} % at best",
            report.peers.len(),
            100.0 * mean,
            100.0 * best
        ))?;
    }
    output::line(format!(
        "(accuracy with inherited BatchNorm, statistics recalibrated, on {} validation images that the search did not see)",
        report.report_images
    ))?;
    for file in &report.files {
        output::line(format!("wrote         {}", file.display()))?;
    }
    Ok(())
}
