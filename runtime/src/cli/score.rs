//! `nasbn score`: a table of indicators.

use std::{
    path::{Path as FsPath, PathBuf},
    sync::atomic::Ordering,
};

use clap::Args;
use nasbn_models::{Path, manifest::MemoryMode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    Exit, Failure,
    args::{BundleArgs, McArgs, OptionalDataArgs, OutputArgs, PathsArgs, ReferenceArgs, ValidationArgs},
    fingerprint, output, setup,
};
use crate::{
    adapt::candidate::CandidateOptions,
    atomic,
    data::{DataSource, Dataset},
    indicators::{
        catalogue::{self, Measurement, Perspective, Selection},
        ntk::Outputs,
    },
    journal::{self, Journal},
    parameters::BnParameters,
    score::{Images, Row, ScoreOptions, Scorer, header, not_finite, write_csv},
};

const EXAMPLES: &str = "Examples:
  nasbn score --bundle bundle --checkpoint checkpoint --data digits --random 1000 --out scores.csv
  nasbn score --bundle bundle --paths paths.csv --indicators bn_all,zen --out -
  nasbn score --bundle bundle --data digits --random 99 --adapt-steps 20 --out s.csv --resume";

/// What is measured unless `--indicators` says otherwise.
const USUAL: &str = "bn_all,bn_last,validation,composite";

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
    #[arg(long, value_name = "LIST", default_value = USUAL)]
    indicators: String,
    #[command(flatten)]
    validation: ValidationArgs,
    /// Leave out validation loss and accuracy
    #[arg(long)]
    no_validation: bool,
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
    /// Peak learning rate of these steps; it falls along a cosine
    #[arg(long, value_name = "RATE", default_value_t = 1.0)]
    adapt_rate: f32,
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
    let source = images_of(&args, &options)?;
    // Steps go faster if their activations are kept.
    let memory = if options.adapt.is_some() { MemoryMode::Fast } else { MemoryMode::Lean };
    let mut session = setup::open(&args.bundle, memory, args.validation.graphs)?;
    let paths = setup::paths(&args.paths, session.network.supernet(), args.seed)?;
    let parameters = setup::parameters(&session, args.checkpoint.as_deref())?;
    let (images, data) = if let Some(source) = source {
        let data = setup::dataset_of(source, &args.data.reading, session.network.supernet())?;
        let order = setup::validation_order(&data, &args.validation, args.seed);
        let images = setup::score_images(&data, &options, &args.validation, args.mc.mc_images, &order, 0, args.seed)?;
        (images, Some(data))
    } else {
        (Images::default(), None)
    };
    let selection = options.selection.clone();
    let (mut journal, mut rows) = match to_stdout {
        true => (None, Vec::new()),
        false => {
            let run = run_of(&args, &options, &session, &parameters, data.as_deref(), &paths);
            let (journal, rows) = open(&args, &run, &selection, &session, &paths)?;
            (Some(journal), rows)
        }
    };
    let interrupted = setup::interrupted();
    let bar = output::bar(paths.len() as u64, args.output.quiet);
    bar.set_position(rows.len() as u64);
    let composite = match (&data, options.selection.needs(Measurement::Composite)) {
        (Some(data), true) => {
            let measured = setup::composite(&mut session, data, args.reference, &interrupted, args.output.quiet);
            measured.map_err(|failure| match journal.is_some() && interrupted.load(Ordering::SeqCst) {
                true => failure.hint("go on with the same command and --resume"),
                false => failure,
            })?
        }
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
        let row = scorer.score(path)?;
        if let Some(journal) = &mut journal {
            journal.row(&row.cells())?;
        }
        rows.push(row);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let distinct = scorer.distinct();
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
        return Ok(Exit::Done);
    }
    atomic::write(&args.out, &csv).map_err(|e| Failure::file(&args.out, &e))?;
    if let Some(journal) = journal {
        journal.remove()?;
    }
    if args.output.json {
        output::json(&json!({
            "out": args.out, "paths": rows.len(), "distinct_networks": distinct, "not_finite": missing,
        }))?;
    } else {
        output::line(format!("{}: {} paths, {distinct} different networks", args.out.display(), rows.len()))?;
    }
    Ok(Exit::Done)
}

/// Where images come from, if any are needed.
fn images_of<'a>(args: &'a ScoreArgs, options: &ScoreOptions) -> Result<Option<&'a DataSource>, Failure> {
    let chosen = options.selection.indicators();
    let needing = chosen.iter().filter(|i| i.measurement.needs_images()).map(|i| i.name);
    let needing: Vec<&str> = needing.chain(options.adapt.map(|_| "--adapt-steps")).collect();
    match (&args.data.data, needing.as_slice()) {
        (_, []) => Ok(None),
        (Some(source), _) => Ok(Some(source)),
        (None, needing) => {
            Err(Failure::usage(format!("--data is missing: images are needed for {}", needing.join(", ")))
                .hint("name some, as with --data digits, or only --indicators that need none, as bn_all,bn_last,zen"))
        }
    }
}

/// What is measured, from the arguments.
fn options(args: &ScoreArgs) -> Result<ScoreOptions, Failure> {
    let hint = "`nasbn score --help` lists indicators and perspectives";
    let mut selection = Selection::parse(&args.indicators).map_err(|e| Failure::usage(&e).hint(hint))?;
    if args.no_validation {
        selection = selection.only(|i| i.perspective != Perspective::Validation);
    }
    let adapt = (args.adapt_steps > 0).then_some(CandidateOptions { steps: args.adapt_steps, rate: args.adapt_rate });
    if !(args.adapt_rate.is_finite() && args.adapt_rate > 0.0) {
        return Err(Failure::usage(format!("--adapt-rate must be a number above 0, not {}", args.adapt_rate))
            .hint("1 is usual; leave it out"));
    }
    if adapt.is_none() {
        if args.indicators.split(',').any(|name| name.trim() == "adapt_loss") {
            return Err(Failure::usage("adapt_loss is the loss of steps that are not taken")
                .hint("say how many with --adapt-steps"));
        }
        selection = selection.only(|i| i.measurement != Measurement::Adaptation);
    }
    Ok(ScoreOptions {
        selection,
        recalibrate: args.validation.recalibrate as usize,
        mc_batches: args.mc.mc_batches as usize,
        ntk_outputs: args.ntk_outputs,
        adapt,
        noise_images: args.validation.batch as usize,
        seed: args.seed,
    })
}

/// The journal beside the output, and the rows that an earlier run has left in it.
fn open(
    args: &ScoreArgs,
    run: &Map<String, Value>,
    selection: &Selection,
    session: &setup::Session,
    paths: &[Path],
) -> Result<(Journal, Vec<Row>), Failure> {
    let file: &FsPath = &journal::beside(&args.out);
    if !args.resume {
        return Ok((Journal::create(file, run)?, Vec::new()));
    }
    let (journal, found) = Journal::resume(file, run)?;
    let mut rows = Vec::with_capacity(found.len());
    for (i, cells) in found.iter().enumerate() {
        let of_run = paths.get(i).map(|path| session.network.supernet().format_path(path));
        let row = Row::from_cells(cells).filter(|row| Some(&row.path) == of_run.as_ref());
        let row = row.filter(|_| cells.len() == header(selection).len());
        rows.push(row.ok_or_else(|| journal.damaged(i, "it is not the row of this path"))?);
    }
    Ok((journal, rows))
}

/// What decides the bytes of the table, by name.
fn run_of(
    args: &ScoreArgs,
    options: &ScoreOptions,
    session: &setup::Session,
    parameters: &BnParameters,
    data: Option<&Dataset>,
    paths: &[Path],
) -> Map<String, Value> {
    let supernet = session.network.supernet();
    let texts: Vec<String> = paths.iter().map(|path| supernet.format_path(path)).collect();
    let more = json!({
        "paths": fingerprint::hex(&Sha256::digest(texts.join("\n"))),
        "indicators": options.selection.to_string(),
        "mc_batches": args.mc.mc_batches,
        "mc_images": args.mc.mc_images,
        "ntk_outputs": args.ntk_outputs,
        "adapt": options.adapt,
        "reference": args.reference.options(),
        "seed": args.seed,
    });
    fingerprint::of(session, parameters, data, &args.validation, more)
}
