//! The network of the highest objective within limits on its costs.

use std::{
    path::{Path as FsPath, PathBuf},
    sync::atomic::AtomicBool,
};

use nasbn_models::{
    Path, Supernet,
    canonical::CanonicalTable,
    cost::{Cost, CostTable},
    manifest::MemoryMode,
    sample,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::Serialize;

use super::{Objective, ReportImages, SearchArgs, check_interrupted, described, measure, planned, record, reference};
use crate::{
    cli::{
        Exit, Failure,
        budget::{self, Planned},
        output, outputs,
        reference::Watched,
        setup,
    },
    data::Normaliser,
    indicators::catalogue::{self, Direction, Measurement},
    parameters::BnParameters,
    score::Scorer,
    search::{Candidate, FoundBy, Limits, Method, Outcome, SearchError, SearchOptions, search},
    subnet,
    validation::{Validation, recalibrate},
};

/// result.json.
#[derive(Serialize)]
struct Report {
    space: String,
    seed: u64,
    objective: Objective,
    /// Which of its values are better.
    direction: Direction,
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
    /// The objective's own value: of a loss, the loss. Null for peers, which were not searched for.
    score: Option<f64>,
    macs: u64,
    params: u64,
    depth: u32,
    peak_activation_bytes: u64,
    /// With inherited BN and recalibrated statistics, on images that the search did not see.
    validation: Validation,
}

pub fn run(args: &SearchArgs, objective: &Objective) -> Result<Exit, Failure> {
    let mut session = setup::open(&args.bundle, MemoryMode::Lean, args.validation.graphs)?;
    let parameters = setup::parameters(&session, args.checkpoint.as_deref())?;
    let supernet = session.network.supernet().clone();
    let data = setup::dataset_within(&args.data.data, &args.data.reading, &supernet, args.memory_budget)?;
    let (choose, report) = setup::halves(&data, &args.validation, args.seed)?;
    let (indicator, scoring) = (objective.indicator, args.scoring(objective));
    let (mc_images, recalibrate) = (args.mc.mc_images, args.validation.recalibrate);
    let choose = setup::score_images(&data, &scoring, &args.validation, mc_images, &choose, recalibrate, args.seed)?;
    let report = ReportImages {
        training: &choose.training[..recalibrate as usize],
        validation: setup::validation(&data, &args.validation, &report)?,
    };
    let costs = CostTable::new(&supernet);
    let options = SearchOptions {
        limits: args.limits(),
        evaluations: args.evaluations(objective),
        seed: args.seed,
        parents: args.parents as usize,
        population: args.population as usize,
        mutation: args.mutation,
    };
    let mut planned = planned(args, &mut session, &data, &parameters, (objective, &scoring), None)?;
    let run = described(args, (objective, serde_json::json!(options)), &session, &parameters, &data);
    let _out = outputs::Directory::make(&args.out)?;
    let mut record = record(args, &run, &supernet)?;
    let interrupted = setup::interrupted();
    let watched = Watched { interrupted: &interrupted, planned: planned.as_ref() };
    let bar = output::bar(0, args.output.quiet);
    let composite = match indicator.measurement {
        Measurement::Composite => match reference(args, &mut session, &data, &mut record, watched) {
            Ok(composite) => Some(composite),
            Err(failure) if failure.is_stopped() => return Err(failure),
            Err(failure) => {
                // Scores may be those of an earlier run, whose composite did not fit on the disk.
                if record.is_empty() {
                    record.remove()?;
                }
                return Err(failure);
            }
        },
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
            if let Some(planned) = &mut planned {
                planned.look(scorer.network_mut())?;
            }
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
            planned.as_ref().map(Planned::end);
            record.remove()?;
            return Err(Failure::usage(format!("not one of {evaluated} networks has a score that is a number"))
                .hint("the checkpoint's BatchNorms do not fit the data: adapt again with a lower --rate"));
        }
        Err(SearchError::Infeasible { nearest, cost, excess }) => {
            record.remove()?;
            return infeasible(args, &supernet, &nearest, &cost, excess);
        }
    };
    let found = describe((args, objective), &mut session, &parameters, &outcome, &report, &costs, &interrupted)?;
    write(&args.out, &mut session, &parameters, &outcome, (&report, data.normaliser()), &found)?;
    session.running.told_placement(&session.network, args.output.quiet);
    record.remove()?;
    let memory = planned.as_ref().map(Planned::end);
    if args.output.json {
        budget::say_json(&found, memory)?
    } else if !args.output.quiet {
        print(&found)?
    }
    Ok(Exit::Done)
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
    (args, objective): (&SearchArgs, &Objective),
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
            // The search maximises: its negative brings a lower one back.
            score: score.map(|score| objective.indicator.direction.score(score)),
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
        objective: objective.clone(),
        direction: objective.indicator.direction,
        limits: args.limits(),
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
        ("objective".to_owned(), report.objective.name.clone()),
        ("score".to_owned(), report.direction.score(outcome.best.score).to_string()),
        ("macs".to_owned(), outcome.best.cost.macs.to_string()),
        ("validation_accuracy".to_owned(), report.winner.validation.accuracy.to_string()),
    ];
    let layout = session.network.layout();
    let files = subnet::files(&session.bundle, layout, path, parameters, &statistics, normaliser, &extra)?;
    let text = serde_json::to_string_pretty(report).map_err(Failure::usage)?;
    // Scores are on file.
    files
        .write(out, "winner", &[("result.json", text.as_bytes())])
        .map_err(|error| Failure::from(error).resumable())?;
    Ok(())
}

fn print(report: &Report) -> Result<(), Failure> {
    let how = if report.method == Method::Exhaustive { "every network within the limits" } else { "evolution" };
    output::line(format!("searched      {} networks ({how})", report.evaluations))?;
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
