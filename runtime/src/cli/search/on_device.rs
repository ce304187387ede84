//! The network of the best objective within a latency budget, as measured on this machine.

mod candidates;
mod demands;
mod dry;
mod outcome;

use std::path::Path as FsPath;

use nasbn_models::{Path, cost::CostTable, manifest::MemoryMode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Objective, ReportImages, SearchArgs, described, planned, record, reference};
use crate::{
    board::{
        Board,
        energy::{EnergyMeter, INTERVAL},
        power::Rails,
    },
    cli::{
        Exit, Failure,
        budget::{Planned, say_json},
        fingerprint, latency, output, outputs,
        reference::Watched,
        setup,
    },
    indicators::catalogue::Measurement,
    journal,
    latency::{Conditions, LatencyTable, record::Times},
    parameters::BnParameters,
    report::BudgetLimits,
    score::Scorer,
    search::finalists::{self, Budget, Plan},
};
use candidates::{Candidates, Source};
use demands::Demands;

/// Times that as many networks as finalists may be measured besides, for those that do not keep the budget.
const REPLACEMENTS: usize = 3;

pub fn run(args: &SearchArgs, objective: &Objective, file: &FsPath, budget: f64) -> Result<Exit, Failure> {
    setup::root(&args.root)?;
    let table = latency::read(file)?;
    let (graphs, batch) = (args.validation.graphs, table.conditions.batch);
    let mut session = setup::open_placed(&args.bundle, MemoryMode::Lean, graphs, batch, args.seed)?;
    let supernet = session.network.supernet().clone();
    let before = Board::read(&args.root);
    let now = check(args, &table, file, &session, &before)?;
    if !args.output.quiet {
        latency::warn(&before);
    }
    let limits = BudgetLimits {
        latency_ms: budget,
        energy_mj: args.energy_budget,
        macs: args.max_macs,
        params: args.max_params,
        memory_bytes: args.max_memory,
    };
    let plan = Plan {
        budget: Budget { latency_ms: budget, energy_mj: args.energy_budget },
        evaluations: args.evaluations(objective),
        population: args.population as usize,
        mutation: args.mutation,
        finalists: args.finalists as usize,
        replacements: REPLACEMENTS,
        free: objective.is_cheap(),
        seed: args.seed,
    };
    let among = match &args.paths {
        Some(file) => Some(setup::networks(&supernet, &setup::paths_of(file, &supernet)?)),
        None => None,
    };
    let costs = CostTable::new(&supernet);
    let demands = Demands { limits: &limits, costs: &costs, table: &table };
    let parameters = setup::parameters(&session, args.checkpoint.as_deref())?;
    let data = setup::dataset_within(&args.data.data, &args.data.reading, &supernet, args.memory_budget)?;
    if args.dry_run {
        let (supernet, among) = (&supernet, among.as_deref());
        return dry::Dry { args, objective, plan: &plan, demands, supernet, among }.say();
    }
    let (choose, report) = setup::halves(&data, &args.validation, args.seed)?;
    let scoring = args.scoring(objective);
    let (mc_images, recalibrate) = (args.mc.mc_images, args.validation.recalibrate);
    let choose = setup::score_images(&data, &scoring, &args.validation, mc_images, &choose, recalibrate, args.seed)?;
    let images = ReportImages {
        training: &choose.training[..recalibrate as usize],
        validation: setup::validation(&data, &args.validation, &report)?,
    };
    let planned = planned(args, &mut session, &data, &parameters, (objective, &scoring), Some(batch))?;
    let encoded = table.encode().map_err(|error| latency::at(file, &error))?;
    let options = json!({
        "plan": plan, "limits": limits, "min_time": args.min_time, "table": fingerprint::hex(&Sha256::digest(&encoded)),
        "among": among.as_ref().map(|among| fingerprint::networks(&supernet, among)),
    });
    let run = described(args, (objective, options), &session, &parameters, &data);
    // The times first: without them nothing is begun, and the record alone would be in the way of the next start.
    let _out = outputs::Directory::make(&args.out)?;
    let times_file = journal::beside(&args.out.join("latency.jsonl"));
    let mut times = match args.resume && times_file.exists() {
        true => Times::resume(&times_file, &run)?,
        false => Times::create(&times_file, &run)?,
    };
    let mut record = match record(args, &run, &supernet) {
        Ok(record) => record,
        Err(failure) => {
            if times.all().is_empty() {
                times.remove()?;
            }
            return Err(failure);
        }
    };
    let interrupted = setup::interrupted();
    let watched = Watched { interrupted: &interrupted, planned: planned.as_ref() };
    let initial = BnParameters::of_bundle(&session.bundle, session.network.layout())?;
    let composite = match objective.indicator.measurement {
        Measurement::Composite => match reference(args, &mut session, &data, &mut record, watched) {
            Ok(composite) => Some(composite),
            Err(failure) if failure.is_stopped() => return Err(failure),
            Err(failure) => {
                // They may be those of an earlier run, whose composite did not fit on the disk.
                if record.is_empty() && times.all().is_empty() {
                    times.remove()?;
                    record.remove()?;
                }
                return Err(failure);
            }
        },
        _ => None,
    };
    let opener = session.network.opener()?;
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
        demands,
        indicator: objective.indicator,
        source,
        record: &mut record,
        times: &mut times,
        opener: &opener,
        root: &args.root,
        min_time: args.min_time,
        seed: args.seed,
        interrupted: &interrupted,
        planned,
        quiet: args.output.quiet,
    };
    let candidates = std::cell::RefCell::new(candidates);
    let bar = output::bar(0, args.output.quiet);
    bar.set_message("networks looked at");
    let found = finalists::search(
        &supernet,
        &plan,
        among.as_deref(),
        |path, margins| candidates.borrow_mut().cheap(path, margins),
        |path| demands.keeps_known(path),
        |paths: &[Path]| {
            bar.finish_and_clear();
            candidates.borrow_mut().dear(paths)
        },
        |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    );
    bar.finish_and_clear();
    let planned = candidates.into_inner().planned;
    let found = found?;
    let outcome = outcome::Outcome {
        args,
        objective,
        table: &table,
        demands,
        limits,
        supernet: &supernet,
        costs: &costs,
        times: &times,
        composite: composite.as_ref(),
        found: &found,
        conditions: now,
        before,
    };
    let report = match &found.winner {
        Some(winner) => {
            let report = outcome.report(&mut session, &parameters, &images, winner)?;
            outcome.write(&mut session, &parameters, (&images, data.normaliser()), winner, &report)?;
            Some(report)
        }
        None => None,
    };
    let failure = outcome.nothing_fits();
    let said = outcome.infeasible();
    // All that there will be is on file: who does not listen to what is said of it leaves nothing behind.
    times.remove()?;
    record.remove()?;
    let memory = planned.as_ref().map(Planned::end);
    match report {
        Some(report) => outcome::say(args, &report, memory).map(|()| Exit::Done),
        None if args.output.json => say_json(&said, memory).and(Err(failure)),
        None => Err(failure),
    }
}

/// Whether the table may be used here; and the conditions here.
fn check(
    args: &SearchArgs,
    table: &LatencyTable,
    file: &FsPath,
    session: &setup::Session,
    board: &Board,
) -> Result<Conditions, Failure> {
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
    if args.energy_budget.is_some() {
        if table.energy.is_none() {
            return Err(Failure::usage(format!(
                "{} has no energies, so --energy-budget cannot be kept",
                file.display()
            ))
            .hint("measure the table on a board whose power rails can be read (see `nasbn doctor`)"));
        }
        check_rails(&args.root)?;
    }
    outputs::directory(&args.out)?;
    Ok(now)
}

/// That energy can be measured here, so that a limit on it can be kept.
fn check_rails(root: &FsPath) -> Result<(), Failure> {
    let why = match Rails::find(root).map(|rails| EnergyMeter::new(rails, INTERVAL)) {
        Some(Ok(_)) => return Ok(()),
        Some(Err(error)) => error.to_string(),
        None => format!("no power rails are found below {}", root.display()),
    };
    Err(Failure::usage(format!("--energy-budget cannot be kept here: {why}"))
        .with_exit(Exit::Device)
        .hint("search without --energy-budget, or on a board whose power rails can be read (see `nasbn doctor`)"))
}
