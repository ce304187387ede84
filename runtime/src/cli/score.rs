//! `nasbn score`: a table of indicators.

mod kept;
mod options;

use std::{path::PathBuf, sync::atomic::Ordering};

use clap::Args;
use nasbn_models::manifest::MemoryMode;
use serde_json::json;

use super::{
    Exit, Failure,
    args::{BundleArgs, McArgs, OptionalDataArgs, OutputArgs, PathsArgs, ReferenceArgs, ValidationArgs},
    budget::{BudgetArgs, Left, Planned, Scoring},
    output, outputs,
    reference::{self, Watched},
    setup,
};
use crate::{
    atomic,
    composite::Composite,
    data::Dataset,
    indicators::{
        catalogue::{self, Measurement, Selection},
        ntk::Outputs,
    },
    score::{Images, Scorer, not_finite, write_csv},
};

use kept::{Kept, described};
use options::{composite_is_named, images_of, options};

const EXAMPLES: &str = "Examples:
  nasbn score --bundle bundle --checkpoint checkpoint --data digits --random 1000 --out scores.csv
  nasbn score --bundle bundle --paths paths.csv --indicators bn_all,zen --out -
  nasbn score --bundle bundle --data digits --random 99 --adapt-steps 20 --out s.csv --resume";

#[derive(Args)]
#[command(after_help = EXAMPLES, after_long_help = long_help())]
pub struct ScoreArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Checkpoint of `nasbn adapt` [default: the initial BatchNorm parameters]
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    data: OptionalDataArgs,
    #[command(flatten)]
    paths: PathsArgs,
    /// CSV file to write; - for stdout. Rows stand in FILE.partial until all are there
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Go on from FILE.partial, which a run that was stopped has left
    #[arg(long)]
    resume: bool,
    /// Indicators, or perspectives for all of their indicators, separated by commas; `all`. --help lists them
    /// [default: bn_all,bn_last,validation,composite]
    #[arg(long, value_name = "LIST")]
    indicators: Option<String>,
    #[command(flatten)]
    validation: ValidationArgs,
    /// Leave out validation loss and accuracy
    #[arg(long)]
    no_validation: bool,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    mc: McArgs,
    /// Outputs that the tangent kernel is of: the sum of a network's logits, or each by itself (a pass a class)
    #[arg(long, value_enum, default_value_t = Outputs::Sum)]
    ntk_outputs: Outputs,
    #[command(flatten)]
    reference: ReferenceArgs,
    /// Train every candidate's own BatchNorms for N steps before it is scored
    #[arg(long, value_name = "N", default_value_t = 0)]
    adapt_steps: u32,
    /// Peak learning rate of these steps; it falls along a cosine [default: 1]
    #[arg(long, value_name = "RATE", requires = "adapt_steps")]
    adapt_rate: Option<f32>,
    /// Seed of random paths, of the mini-batches of training images, of the order of the validation images,
    /// and of noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

fn long_help() -> String {
    format!(
        "Indicators (+ higher is better, - lower is; costs are always there):\n{}\n{EXAMPLES}",
        catalogue::describe()
    )
}

pub fn run(args: ScoreArgs) -> Result<Exit, Failure> {
    let options = options(&args)?;
    let to_stdout = args.out.as_os_str() == "-";
    if to_stdout && args.resume {
        return Err(Failure::usage("--resume has nothing to go on from with --out -").hint("name a file with --out"));
    }
    if to_stdout && args.output.json {
        return Err(Failure::usage("--json and --out - both want standard output")
            .hint("leave out --json for the table, or name a file with --out"));
    }
    if !to_stdout {
        outputs::outside(&args.bundle.bundle, "--out", &args.out)?;
        outputs::file(&args.out)?;
    }
    let source = images_of(&args, &options)?;
    // Steps go faster if their activations are kept.
    let memory = if options.adapt.is_some() { MemoryMode::Fast } else { MemoryMode::Lean };
    let mut session = setup::open(&args.bundle, memory, args.validation.graphs)?;
    let paths = setup::paths(&args.paths, session.network.supernet(), args.seed)?;
    let parameters = setup::parameters(&session, args.checkpoint.as_deref())?;
    let (images, data) = if let Some(source) = source {
        let budget = args.budget.memory_budget;
        let data = setup::dataset_within(source, &args.data.reading, session.network.supernet(), budget)?;
        let order = setup::validation_order(&data, &args.validation, args.seed);
        let images = setup::score_images(&data, &options, &args.validation, args.mc.mc_images, &order, 0, args.seed)?;
        (images, Some(data))
    } else {
        (Images::default(), None)
    };
    let selection = options.selection.clone();
    let reference_is_needed = selection.needs(Measurement::Composite) && data.is_some();
    let scoring = args.budget.memory_budget.map(|budget| Scoring {
        budget,
        data: data.as_ref(),
        parameters: &parameters,
        options: Some(&options),
        validation: &args.validation,
        reference: reference_is_needed.then(|| args.reference.options()),
        paths: &paths,
        writes: false,
        latency: None,
        left: if to_stdout { Left::NothingOnStdout } else { Left::Resumable },
        quiet: args.output.quiet,
    });
    let mut planned = scoring.map(|scoring| scoring.plan(&mut session)).transpose()?;
    let interrupted = setup::interrupted();
    let (mut kept, mut rows) = match to_stdout {
        true => (None, Vec::new()),
        false => {
            let run = described(&args, &options, &session, &parameters, data.as_deref(), &paths);
            let (kept, rows) = Kept::open(&args, &run, &selection, session.network.supernet(), &paths)?;
            (Some(kept), rows)
        }
    };
    let bar = output::bar(paths.len() as u64, args.output.quiet);
    bar.set_position(rows.len() as u64);
    let watched = Watched { interrupted: &interrupted, planned: planned.as_ref() };
    let composite = match (&data, selection.needs(Measurement::Composite)) {
        (Some(data), true) => match reference(&args, &selection, &mut session, data, kept.as_mut(), watched) {
            Ok(composite) => composite,
            Err(failure) => {
                // One that was stopped goes on; of one that failed there is nothing to go on from.
                if let Some(kept) = kept.filter(|_| rows.is_empty() && !failure.is_stopped()) {
                    kept.remove()?;
                }
                return Err(failure);
            }
        },
        _ => None,
    };
    let mut scorer = Scorer::new(&mut session.network, &parameters, &images, options).with_composite(composite);
    for (path, row) in paths.iter().zip(&rows) {
        scorer.remember(path, row);
    }
    for path in &paths[rows.len()..] {
        if interrupted.load(Ordering::SeqCst) {
            bar.finish_and_clear();
            let stopped = format!("stopped after {} of {} paths", rows.len(), paths.len());
            return Err(Failure::usage(stopped).with_exit(Exit::Stopped).hint(match to_stdout {
                true => "name a file with --out, and such a run can be gone on with",
                false => "go on with the same command and --resume",
            }));
        }
        if let Some(planned) = &mut planned {
            planned.look(scorer.network_mut())?;
        }
        let row = match scorer.score(path) {
            Ok(row) => row,
            Err(error) => {
                // Of a run that has come to nothing there is nothing to go on from.
                if let Some(kept) = kept.filter(|kept| rows.is_empty() && kept.composite().is_none()) {
                    kept.remove()?;
                }
                return Err(error.into());
            }
        };
        if let Some(kept) = &mut kept {
            kept.row(&row)?;
        }
        rows.push(row);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let distinct = scorer.distinct();
    let placement = session.running.told_placement(scorer.network(), args.output.quiet);
    let missing = not_finite(&rows, &selection);
    for column in &missing {
        let text = format!("warning: {} is not finite in {} of {} rows", column.indicator, column.rows, rows.len());
        output::say(&bar, args.output.quiet, &text);
    }
    let mut csv = Vec::new();
    write_csv(&rows, &selection, &mut csv).map_err(Failure::usage)?;
    if to_stdout {
        use std::io::Write;
        std::io::stdout().write_all(&csv).map_err(|e| Failure::stdout(&e))?;
        planned.as_ref().map(Planned::end);
        return Ok(Exit::Done);
    }
    // All rows are on file.
    atomic::write(&args.out, &csv).map_err(|e| Failure::file(&args.out, &e).resumable())?;
    if let Some(kept) = kept {
        kept.remove()?;
    }
    let memory = planned.as_ref().map(Planned::end);
    if args.output.json {
        output::json(&json!({
            "out": args.out, "paths": rows.len(), "distinct_networks": distinct, "not_finite": missing,
            "placement": placement, "memory": memory,
        }))?;
    } else if !args.output.quiet {
        output::line(format!("{}: {} paths, {distinct} different networks", args.out.display(), rows.len()))?;
    }
    Ok(Exit::Done)
}

/// The composite: as an earlier run has kept it, or measured now, and kept. None, with a warning, where it is undefined
/// and was not asked for by name.
fn reference(
    args: &ScoreArgs,
    selection: &Selection,
    session: &mut setup::Session,
    data: &Dataset,
    kept: Option<&mut Kept>,
    watched: Watched<'_>,
) -> Result<Option<Composite>, Failure> {
    if let Some(composite) = kept.as_ref().and_then(|kept| kept.composite()) {
        return Ok(Some(composite.clone()));
    }
    let quiet = args.output.quiet;
    let measured = match composite_is_named(args, selection) {
        true => reference::needed_composite(session, data, args.reference, watched, quiet).map(Some),
        false => reference::composite(session, data, args.reference, watched, quiet),
    };
    let measured = measured.map_err(|failure| match kept.is_some() && watched.interrupted.load(Ordering::SeqCst) {
        true => failure.hint("go on with the same command and --resume; reference paths are measured anew"),
        false => failure,
    })?;
    if let (Some(kept), Some(composite)) = (kept, &measured) {
        kept.note(composite)?;
    }
    Ok(measured)
}
