//! `nasbn evaluate`: how well scores rank networks whose truth is known.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use super::{Exit, Failure, args::OutputArgs, output, outputs, setup};
use crate::{
    atomic,
    evaluate::{
        Estimate, Options, Regret, Report, TOP,
        bootstrap::{CONFIDENCE, FEWEST},
        evaluate, join,
        join::{Column, JoinError, Population, Rows, Side},
        picture::{picture, with_interval},
    },
    table::{Table, TableError, nearest},
};

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn evaluate --scores scores.csv --truth nas-bench-macro.csv --truth-column mean_acc
  nasbn evaluate --scores scores.csv --truth trained.csv --truth-column top1 --path-column network \\
    --score-column composite --plot composite.svg --json

Correlations keep their sign: that of a loss is negative if it is any good. docs/evaluate.md says what each figure means.")]
pub struct EvaluateArgs {
    /// CSV file of `nasbn score`: a column `path` or `arch`, and a column an indicator; - for stdin
    #[arg(long, value_name = "FILE")]
    scores: PathBuf,
    /// CSV file with what the networks reach when trained; - for stdin
    #[arg(long, value_name = "FILE")]
    truth: PathBuf,
    /// Column of the truth
    #[arg(long, value_name = "COLUMN")]
    truth_column: String,
    /// Column of paths in the truth [default: path or arch]
    #[arg(long, value_name = "COLUMN")]
    path_column: Option<String>,
    /// Column of the scores to evaluate; may be given several times [default: all that hold numbers]
    #[arg(long, value_name = "COLUMN")]
    score_column: Vec<String>,
    /// A column, of scores or truth, that is better when lower; may be given several times. Decides which networks
    /// are the top; those of `nasbn score`, loss and latency_ms are known
    #[arg(long, value_name = "COLUMN")]
    lower_is_better: Vec<String>,
    /// Numbers of networks to train for the regret
    #[arg(long, value_name = "K", num_args = 1.., value_delimiter = ',', default_values_t = TOP,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    top: Vec<usize>,
    /// Resamples for the 95 % intervals, 40 or more; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = resamples)]
    bootstrap: u32,
    /// Seed of the resamples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the result as JSON to a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw scores against truth as SVG: the first --score-column, else `composite`, else the greatest tau
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A number of resamples.
fn resamples(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Ok(0),
        Ok(number @ FEWEST..=1_000_000) => Ok(number),
        _ => Err(format!("0, or a whole number from {FEWEST} to 1000000, is needed: fewer give no 95 % interval")),
    }
}

/// The result as JSON.
#[derive(Serialize)]
struct Evaluation<'a> {
    scores: &'a Path,
    truth: &'a Path,
    truth_column: &'a str,
    /// Whether lower truths count as better.
    truth_lower_is_better: bool,
    /// Different networks with scores and truth.
    networks: usize,
    rows: &'a Rows,
    /// Networks whose paths have different truths, which were averaged; null if there are none.
    differing_truths: &'a Option<join::Differing>,
    seed: u64,
    bootstrap: u32,
    confidence: f64,
    columns: &'a [Report],
    /// The plot and its column; null if none was asked for.
    plot: Option<Plot<'a>>,
}

#[derive(Serialize)]
struct Plot<'a> {
    file: &'a Path,
    column: &'a str,
}

pub fn run(mut args: EvaluateArgs) -> Result<Exit, Failure> {
    if args.scores.as_os_str() == "-" && args.truth.as_os_str() == "-" {
        return Err(Failure::usage("--scores and --truth cannot both be stdin").hint("write one of them to a file"));
    }
    let inputs = [("--scores", args.scores.as_path()), ("--truth", &args.truth)];
    let named = [("--out", &args.out), ("--plot", &args.plot)];
    let written: Vec<(&str, &Path)> = named.iter().filter_map(|(o, file)| Some((*o, file.as_deref()?))).collect();
    outputs::apart(&inputs, &written)?;
    written.iter().try_for_each(|(_, file)| outputs::file(file))?;
    let mut seen = HashSet::new();
    args.top.retain(|&k| seen.insert(k));
    let (scores, truth) = (table(&args.scores)?, table(&args.truth)?);
    let population = join::join(&scores, &truth, &args.truth_column, args.path_column.as_deref(), &args.score_column)
        .map_err(|error| joining(&args, &error))?;
    check_names(&args, &population)?;
    say(&args, &population);
    let options = Options {
        seed: args.seed,
        bootstrap: args.bootstrap,
        top: args.top.clone(),
        lower_is_better: args.lower_is_better.clone(),
    };
    let bar = output::bar(population.columns.len() as u64, args.output.quiet);
    let reports = population.columns.iter().map(|column| {
        let report = evaluate(&population, column, &args.truth_column, &options);
        bar.inc(1);
        report
    });
    let reports: Vec<Report> = reports.collect();
    bar.finish_and_clear();
    let drawn = args.plot.as_deref().zip(drawn(&args, &population, &reports));
    let result = Evaluation {
        scores: &args.scores,
        truth: &args.truth,
        truth_column: &args.truth_column,
        truth_lower_is_better: options.lower(&args.truth_column),
        networks: population.truth.len(),
        rows: &population.rows,
        differing_truths: &population.differing,
        seed: args.seed,
        bootstrap: args.bootstrap,
        confidence: CONFIDENCE,
        columns: &reports,
        plot: drawn.map(|(file, (column, _))| Plot { file, column: &column.name }),
    };
    let svg = drawn.map(|(_, (column, report))| picture(&population, column, &args.truth_column, report));
    let json = serde_json::to_string_pretty(&result).map_err(Failure::usage)?;
    let files = [(&args.plot, svg), (&args.out, Some(json))];
    let files: Vec<(&Path, &[u8])> =
        files.iter().filter_map(|(file, text)| Some((file.as_deref()?, text.as_ref()?.as_bytes()))).collect();
    atomic::write_all(&files)?;
    if args.output.json {
        output::json(&result)?
    } else {
        print(&args, &result)?
    }
    Ok(Exit::Done)
}

fn table(file: &Path) -> Result<Table, Failure> {
    let text = setup::text(file, "a CSV file in UTF-8 with a header is wanted")?;
    Table::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())).hint(error.hint()))
}

fn joining(args: &EvaluateArgs, error: &JoinError) -> Failure {
    let (file, option) = match error.side {
        Side::Scores => (&args.scores, "--score-column"),
        Side::Truth => (&args.truth, "--truth-column"),
    };
    let hint = match &error.problem {
        join::Problem::Table(TableError::NoColumn { name, nearest: None, available })
            if name == "path" && available.len() > 1 =>
        {
            let other = if error.side == Side::Truth { "; --path-column names another" } else { "" };
            format!("paths are in a column `path` or `arch`{other}")
        }
        join::Problem::NotANumber { .. } if error.side == Side::Scores => {
            format!("{}; {option} chooses other columns", error.problem.hint())
        }
        problem => problem.hint(),
    };
    Failure::usage(format!("{}: {error}", file.display())).hint(hint)
}

/// Columns of `--lower-is-better` exist.
fn check_names(args: &EvaluateArgs, population: &Population) -> Result<(), Failure> {
    let known = || population.columns.iter().map(|c| c.name.as_str()).chain([args.truth_column.as_str()]);
    for name in &args.lower_is_better {
        if known().any(|column| column == name) {
            continue;
        }
        let hint = match nearest(name, known()) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("name one of {}", known().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")),
        };
        return Err(Failure::usage(format!("--lower-is-better: no column `{name}` is evaluated")).hint(hint));
    }
    Ok(())
}

/// What became of rows, on stderr.
fn say(args: &EvaluateArgs, population: &Population) {
    if args.output.quiet {
        return;
    }
    let rows = &population.rows;
    let mut notes = Vec::new();
    let mut note = |count: usize, file: &Path, what: &str| {
        if count > 0 {
            notes.push(format!("{}: {count} {} {what}", file.display(), if count == 1 { "row" } else { "rows" }));
        }
    };
    note(rows.scores_without_truth, &args.scores, "without truth, left out");
    note(rows.truth_without_scores, &args.truth, "of paths that the scores do not have, left out");
    note(rows.truth_without_value, &args.truth, "without a finite value, left out");
    note(rows.truth_repeated, &args.truth, "repeated, counted once");
    if !population.canonical {
        notes.push(format!("{}: no column `canonical`, so every path counts as a network", args.scores.display()));
    }
    if let Some(differing) = &population.differing {
        notes.push(format!(
            "{}: paths of {} networks differ in {}, by {} at most (lines {} and {}); the mean is taken",
            args.truth.display(),
            differing.networks,
            args.truth_column,
            differing.most,
            differing.lines.0,
            differing.lines.1
        ));
    }
    for (column, line, text) in &population.text_columns {
        notes.push(format!(
            "{}: `{column}` is not evaluated: line {line} holds `{text}`, which is no number",
            args.scores.display()
        ));
    }
    notes.iter().for_each(|note| eprintln!("{note}"));
}

/// The column that is drawn.
fn drawn<'a>(
    args: &EvaluateArgs,
    population: &'a Population,
    reports: &'a [Report],
) -> Option<(&'a Column, &'a Report)> {
    let tau = |report: &Report| report.kendall_tau.value.unwrap_or(f64::NEG_INFINITY);
    let all = || population.columns.iter().zip(reports);
    let named = |name: &str| all().find(|(column, _)| column.name == name);
    match args.score_column.first() {
        Some(first) => named(first),
        None => named("composite").or_else(|| all().max_by(|a, b| tau(a.1).total_cmp(&tau(b.1)))),
    }
}

fn print(args: &EvaluateArgs, result: &Evaluation) -> Result<(), Failure> {
    let rows = result.rows;
    output::line(format!(
        "{} different networks, from {} of {} rows of scores and {} of {} rows of truth",
        result.networks, rows.scores_joined, rows.scores, rows.truth_joined, rows.truth
    ))?;
    let cell = |estimate: &Estimate| match estimate.undefined {
        Some(why) => format!("undefined ({why})"),
        None => with_interval(estimate),
    };
    let heads = ["column", "networks", "Kendall tau-b", "Spearman", "tau within MACs", "tau within depth"];
    let correlations = result.columns.iter().map(|report| {
        let Report { kendall_tau, spearman, kendall_within_macs, kendall_within_depth, .. } = report;
        let cells = [kendall_tau, spearman, &kendall_within_macs.mean, &kendall_within_depth.mean].map(cell);
        [vec![report.column.clone(), report.networks.to_string()], cells.into()].concat()
    });
    output::line("")?;
    output::table(&heads.map(str::to_owned), correlations.collect())?;
    let tops = args.top.iter().map(|k| format!("top {k}"));
    let heads: Vec<String> = ["regret", "better"].map(str::to_owned).into_iter().chain(tops).collect();
    let regrets = result.columns.iter().map(|report| {
        let better = if report.lower_is_better { "lower" } else { "higher" };
        let cell = |r: &Regret| r.regret.map_or("-".to_owned(), |regret| format!("{regret:.3}"));
        let cells = report.top_k_regret.iter().map(cell);
        [report.column.clone(), better.to_owned()].into_iter().chain(cells).collect()
    });
    output::line("")?;
    output::table(&heads, regrets.collect())?;
    if let Some(plot) = &result.plot {
        output::line(format!("\nwrote {} ({})", plot.file.display(), plot.column))?;
    }
    if let Some(file) = &args.out {
        output::line(format!("wrote {}", file.display()))?;
    }
    Ok(())
}
