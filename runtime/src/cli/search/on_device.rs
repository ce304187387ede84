//! The network of the best objective within a latency budget, as measured on this machine.

mod candidates;
mod outcome;

use std::{collections::HashSet, fs, path::Path as FsPath, sync::atomic::Ordering};

use nasbn_models::{Path, Supernet, canonical::CanonicalTable, cost::CostTable, manifest::MemoryMode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Objective, ReportImages, SearchArgs, described, end, record, reference};
use crate::{
    board::Board,
    cli::{Exit, Failure, fingerprint, latency, output, setup},
    indicators::catalogue::Measurement,
    journal,
    latency::{LatencyTable, record::Times},
    parameters::BnParameters,
    report::BudgetLimits,
    score::Scorer,
    search::finalists::{self, Plan},
};
use candidates::{Candidates, Source};

/// Times that finalists are replaced by as many others if not one keeps the limit as measured.
const REPLACEMENTS: usize = 3;

pub fn run(args: &SearchArgs, objective: &Objective, file: &FsPath, budget: f64) -> Result<Exit, Failure> {
    let table = LatencyTable::read(file).map_err(|error| latency::at(file, &error))?;
    let (graphs, batch) = (args.validation.graphs, table.conditions.batch);
    let mut session = setup::open_placed(&args.bundle, MemoryMode::Lean, graphs, batch, args.seed)?;
    let supernet = session.network.supernet().clone();
    let before = Board::read(&args.root);
    check(args, &table, file, &session, &before)?;
    let limits = BudgetLimits {
        latency_ms: budget,
        energy_mj: args.energy_budget,
        macs: args.max_macs,
        params: args.max_params,
        memory_bytes: args.max_memory,
    };
    let plan = Plan {
        budget_ms: budget,
        evaluations: args.evaluations(objective),
        population: args.population as usize,
        mutation: args.mutation,
        finalists: args.finalists as usize,
        replacements: REPLACEMENTS,
        free: objective.is_cheap(),
        seed: args.seed,
    };
    if args.dry_run {
        return dry_run(args, objective, &plan, CanonicalTable::new(&supernet).count(&supernet));
    }
    let allowed: Option<HashSet<Path>> = match &args.paths {
        Some(file) => {
            let canonical = CanonicalTable::new(&supernet);
            Some(setup::paths_of(file, &supernet)?.iter().map(|path| canonical.of(path)).collect())
        }
        None => None,
    };
    let parameters = setup::parameters(&session, args.checkpoint.as_deref())?;
    let data = setup::dataset(&args.data, &supernet)?;
    let (choose, report) = setup::halves(&data, &args.validation, args.seed)?;
    let scoring = args.scoring(objective);
    let (mc_images, recalibrate) = (args.mc.mc_images, args.validation.recalibrate);
    let choose = setup::score_images(&data, &scoring, &args.validation, mc_images, &choose, recalibrate, args.seed)?;
    let images = ReportImages {
        training: &choose.training[..recalibrate as usize],
        validation: setup::validation(&data, &args.validation, &report)?,
    };
    let present = args.out.exists();
    let encoded = table.encode().map_err(|error| latency::at(file, &error))?;
    let options = json!({
        "plan": plan, "limits": limits, "min_time": args.min_time, "table": fingerprint::hex(&Sha256::digest(&encoded)),
        "among": allowed.as_ref().map(|allowed| digest_of(&supernet, allowed)),
    });
    let run = described(args, (objective, options), &session, &parameters, &data);
    let mut record = record(args, &run, &supernet)?;
    let times_file = journal::beside(&args.out.join("latency.jsonl"));
    // A run that was stopped before its first time has only the other.
    let times = if args.resume && times_file.exists() {
        Times::resume(&times_file, &run)
    } else {
        Times::create(&times_file, &run)
    };
    let mut times = times?;
    let interrupted = setup::interrupted();
    let initial = BnParameters::of_bundle(&session.bundle, session.network.layout())?;
    let composite = match objective.indicator.measurement {
        Measurement::Composite => match reference(args, &mut session, &data, &mut record, &interrupted) {
            Ok(composite) => Some(composite),
            Err(failure) if interrupted.load(Ordering::SeqCst) => return Err(failure),
            Err(failure) => {
                times.remove()?;
                end(record, &args.out, present)?;
                return Err(failure);
            }
        },
        _ => None,
    };
    let costs = CostTable::new(&supernet);
    let limits_of_costs = args.limits();
    let opener = session.network.opener()?;
    let keeps = |path: &Path| {
        limits_of_costs.excess(&costs.cost(path)) <= 0.0
            && allowed.as_ref().is_none_or(|allowed| allowed.contains(path))
    };
    let source = match &composite {
        Some(composite) => Source::Composite {
            network: &mut session.network,
            composite,
            initial: &initial,
            data: &data,
            options: args.reference.options(),
        },
        None => Source::Indicator(Box::new(Scorer::new(&mut session.network, &parameters, &choose, scoring))),
    };
    let candidates = Candidates {
        bundle: &session.bundle,
        supernet: &supernet,
        costs: &costs,
        table: &table,
        limits: &limits,
        allowed: allowed.as_ref(),
        indicator: objective.indicator,
        source,
        record: &mut record,
        times: &mut times,
        opener: &opener,
        root: &args.root,
        min_time: args.min_time,
        seed: args.seed,
        interrupted: &interrupted,
        quiet: args.output.quiet,
    };
    let candidates = std::cell::RefCell::new(candidates);
    let bar = output::bar(0, args.output.quiet);
    bar.set_message("networks looked at");
    let found = finalists::search(
        &supernet,
        &plan,
        |path| candidates.borrow_mut().cheap(path),
        keeps,
        |paths: &[Path]| candidates.borrow_mut().dear(paths),
        |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    );
    bar.finish_and_clear();
    drop(candidates);
    let found = found?;
    let outcome = outcome::Outcome {
        args,
        objective,
        table: &table,
        limits,
        supernet: &supernet,
        costs: &costs,
        times: &times,
        composite: composite.as_ref(),
        found: &found,
        before,
    };
    let (exit, failure) = match &found.winner {
        Some(winner) => {
            let report = outcome.report(&mut session, &parameters, &images, winner)?;
            outcome.write(&mut session, &parameters, (&images, data.normaliser()), winner, &report)?;
            outcome::say(args, &report)?;
            (Exit::Done, None)
        }
        None => (outcome.infeasible()?, Some(outcome.nothing_fits())),
    };
    times.remove()?;
    end(record, &args.out, present || exit == Exit::Done)?;
    failure.map_or(Ok(Exit::Done), Err)
}

/// Names a set of networks.
fn digest_of(supernet: &Supernet, paths: &HashSet<Path>) -> String {
    let mut texts: Vec<String> = paths.iter().map(|path| supernet.format_path(path)).collect();
    texts.sort();
    fingerprint::hex(&Sha256::digest(texts.join("\n")))
}

/// Whether the table may be used here.
fn check(
    args: &SearchArgs,
    table: &LatencyTable,
    file: &FsPath,
    session: &setup::Session,
    board: &Board,
) -> Result<(), Failure> {
    table.check_space(session.network.supernet()).map_err(|error| latency::at(file, &error))?;
    let now = latency::conditions(&session.bundle, &session.running, table.conditions.batch, board);
    if let Err(error) = table.check_conditions(&now) {
        let failure = latency::at(file, &error);
        if !args.force {
            return Err(failure);
        }
        if !args.output.quiet {
            output::words(format_args!("warning: {}", failure.message()));
        }
    }
    if args.energy_budget.is_some() && table.energy.is_none() {
        return Err(Failure::usage(format!("{} has no energies, so --energy-budget cannot be kept", file.display()))
            .hint("measure the table on a board whose power rails can be read (see `nasbn doctor`)"));
    }
    match fs::metadata(&args.out) {
        Ok(found) if !found.is_dir() => {
            Err(Failure::usage(format!("{} is no directory", args.out.display())).hint("name a directory with --out"))
        }
        _ => Ok(()),
    }
}

/// What the search would look at and measure.
fn dry_run(args: &SearchArgs, objective: &Objective, plan: &Plan, networks: u128) -> Result<Exit, Failure> {
    let composite = objective.indicator.measurement == Measurement::Composite;
    let options = args.reference.options();
    let reference = if composite { options.paths * options.draws } else { 0 };
    let measured = 2 * plan.finalists;
    let seconds = measured as f64 * args.min_time.as_secs_f64();
    if args.output.json {
        output::json(&json!({
            "networks_of_the_space": networks as f64, "reference_paths": reference, "looked_at_at_most": plan.evaluations,
            "measured": measured, "measured_at_most": measured * (1 + plan.replacements), "measuring_seconds": seconds,
        }))?;
        return Ok(Exit::Done);
    }
    output::line(format!("space         {networks} networks"))?;
    if composite {
        output::line(format!("composite     measured on {reference} reference paths"))?;
    }
    let free = if plan.free { "without running one" } else { "each of them run" };
    output::line(format!("look at       up to {} networks, {free}", plan.evaluations))?;
    output::line(format!(
        "measure       {} finalists and as many of random search: {} of each, {seconds:.0} s of latency at least",
        plan.finalists,
        if composite { "composite and latency" } else { "objective and latency" }
    ))?;
    Ok(Exit::Done)
}
