//! `nasbn latency`: measures blocks and networks on this machine, or any ONNX model.

mod measured;
mod model;
mod report;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use nasbn_export::bundle::Bundle;
use nasbn_models::{Path, Supernet, manifest::MANIFEST_FILE, sample};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    Exit, Failure,
    args::OutputArgs,
    fingerprint, output, outputs,
    running::{RunArgs, Running},
    setup, units,
};
use crate::{
    board::Board,
    journal,
    latency::{
        Conditions, GivenShape, IMPORTED, LatencyTable, MOST_IMAGES, Measured, NOISY, NetworkTime, Rules, Statistic,
        TableError, Timing,
        bench::BenchError,
        import::{self, ImportError},
        record::Times,
    },
    provider::Provider,
};

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn latency --bundle bundle --out board.latency
  nasbn latency --bundle bundle --out board.latency --threads 1 --networks 128 --check 200 --export board.json
  nasbn latency --onnx winner.onnx --min-time 5s --provider cuda
  nasbn latency --bundle bundle --import blocks.csv --import-networks networks.csv --out gpu.latency")]
#[command(group = clap::ArgGroup::new("subject").required(true).args(["bundle", "onnx"]))]
pub struct LatencyArgs {
    /// Bundle whose blocks and networks are measured
    #[arg(long, value_name = "DIR", requires = "out")]
    bundle: Option<PathBuf>,
    /// ONNX model to measure instead
    #[arg(long, value_name = "FILE")]
    onnx: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Latency table to write; times stand in FILE.partial until it is whole
    #[arg(long, value_name = "FILE", conflicts_with = "onnx")]
    out: Option<PathBuf>,
    /// Write the table as JSON, too
    #[arg(long, value_name = "FILE", conflicts_with = "onnx")]
    export: Option<PathBuf>,
    /// Write every single time as JSON, milliseconds
    #[arg(long, value_name = "FILE", conflicts_with = "import")]
    export_times: Option<PathBuf>,
    /// Go on from FILE.partial, which a measurement that was stopped has left
    #[arg(long, conflicts_with_all = ["onnx", "import"])]
    resume: bool,
    /// Images in a batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_IMAGES)))]
    batch: u32,
    /// Dimensions of a model's input, where they are open (NAME=1x3x224x224)
    #[arg(long, value_name = "NAME=DIMS", value_parser = shape, requires = "onnx")]
    shape: Vec<GivenShape>,
    /// Time that each block, network or model runs before it is measured [default: 200ms; 20ms for a block, 50ms for a
    /// network of a bundle]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    warm_up: Option<Duration>,
    /// Least time that each is measured [default: 3s; 300ms for a block or network of a bundle]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    min_time: Option<Duration>,
    /// Least number of runs that each is measured
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    min_runs: u32,
    /// Which of the run times of a block or network is predicted. On a machine that others use as well, medians differ from
    /// hour to hour; a search keeps its budget by the median as measured, whatever is predicted
    #[arg(long, value_enum, default_value_t = Statistic::Median, conflicts_with_all = ["onnx", "import"])]
    statistic: Statistic,
    /// Take whole networks from this file instead of at random: a CSV file with a column `path` or `arch`, or a path a
    /// line; they are shuffled, and equal ones taken once
    #[arg(long, value_name = "FILE", conflicts_with_all = ["onnx", "import"])]
    paths: Option<PathBuf>,
    /// Whole networks that the prediction is fitted to
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    networks: u32,
    /// More whole networks, on which it is checked
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    check: u32,
    /// Latencies of blocks that were measured elsewhere, as CSV (layer, operator, latency_ms)
    #[arg(long, value_name = "FILE", conflicts_with = "onnx")]
    import: Option<PathBuf>,
    /// Latencies of whole networks that were measured elsewhere, as CSV (path, latency_ms): --networks of them, drawn at
    /// random, are fitted to, the others are for the check
    #[arg(long, value_name = "FILE", requires = "import")]
    import_networks: Option<PathBuf>,
    /// Name of the device that imported latencies are of
    #[arg(long, value_name = "NAME", requires = "import", default_value = "elsewhere")]
    device: String,
    /// Read the board's state below this directory instead of /
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// Seed of the networks and of the order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// `NAME=1x3x224x224`.
fn shape(text: &str) -> Result<GivenShape, String> {
    let wrong = || format!("`{text}` is not an input and its dimensions such as image=1x3x224x224");
    let (name, dims) = text.split_once('=').ok_or_else(wrong)?;
    let dims: Option<Vec<i64>> = dims.split('x').map(|d| d.parse().ok().filter(|&d| d > 0)).collect();
    Ok(GivenShape { name: name.to_owned(), dims: dims.ok_or_else(wrong)? })
}

pub fn run(args: LatencyArgs) -> Result<Exit, Failure> {
    if let Some(file) = &args.onnx {
        args.check_outputs()?;
        return model::run(&args, file);
    }
    let (Some(directory), Some(out)) = (&args.bundle, &args.out) else {
        return Err(Failure::usage("neither --bundle with --out nor --onnx").hint("see `nasbn latency --help`"));
    };
    args.check_outputs()?;
    let bundle = Bundle::open(directory)?;
    bundle.verify()?;
    let (table, times) = match &args.import {
        Some(file) => (imported(&args, &bundle, file)?, None),
        None => {
            let measured::Measured { table, times } = measured::run(&args, &bundle, out)?;
            (table, Some(times))
        }
    };
    let written = table.write(out).map_err(|error| at(out, &error));
    let written = written.and_then(|()| args.export.as_ref().map_or(Ok(()), |file| report::export(file, &table)));
    // What was measured is on file.
    written.map_err(|failure| if times.is_some() { failure.resumable() } else { failure })?;
    // Now that everything is written.
    times.map_or(Ok(()), Times::remove)?;
    if args.output.json {
        output::json(&report::summary(&table))?;
    } else if !args.output.quiet {
        report::print(&table)?;
        output::line(format!("wrote         {}", out.display()))?;
    }
    Ok(Exit::Done)
}

/// A table of latencies that were measured elsewhere.
fn imported(args: &LatencyArgs, bundle: &Bundle, file: &std::path::Path) -> Result<LatencyTable, Failure> {
    let supernet = &bundle.manifest().supernet;
    let said = |file: &std::path::Path, error: ImportError| {
        Failure::usage(format!("{}: {error}", file.display())).hint(error.hint())
    };
    let text = setup::text(file, "--import wants a CSV file with layer, operator and latency_ms")?;
    let sums = import::blocks(supernet, &text).map_err(|error| said(file, error))?;
    let mut networks = Vec::new();
    if let Some(file) = &args.import_networks {
        let text = setup::text(file, "--import-networks wants a CSV file with path and latency_ms")?;
        networks = import::networks(supernet, &text).map_err(|error| said(file, error))?;
        sample::shuffle(&mut ChaCha8Rng::seed_from_u64(args.seed), &mut networks);
    }
    let check = networks.split_off(networks.len().min(args.networks as usize));
    let conditions = Conditions {
        space: supernet.name.clone(),
        bundle: fingerprint::hex(&bundle.digest()),
        device: args.device.clone(),
        power_mode: None,
        clocks: None,
        provider: IMPORTED.into(),
        precision: "as measured".into(),
        batch: args.batch,
        threads: 0,
        onnxruntime: "none".into(),
    };
    let mut table = LatencyTable::new(conditions, Board::default(), Board::default(), sums);
    let energies = (Vec::new(), Vec::new());
    table.fit(supernet, &networks, &check, energies);
    // Those of the fit stand first.
    let whole = |network: &Measured, in_fit: bool| NetworkTime {
        path: supernet.format_path(&network.path),
        timing: Timing::of_one(network.ms),
        predicted_ms: table.latency(&network.path),
        in_fit,
        energy_mj: None,
    };
    let (fit, check) = (networks.iter().map(|n| whole(n, true)), check.iter().map(|n| whole(n, false)));
    table.networks = fit.chain(check).collect();
    Ok(table)
}

/// What is measured with which library on which machine.
pub fn conditions(bundle: &Bundle, running: &Running, batch: u32, board: &Board) -> Conditions {
    Conditions {
        space: bundle.manifest().supernet.name.clone(),
        bundle: fingerprint::hex(&bundle.digest()),
        device: device(board, running.backend.provider),
        power_mode: board.power_mode.as_ref().map(ToString::to_string),
        clocks: board.clocks(),
        provider: running.backend.provider.to_string(),
        precision: running.backend.precision.to_string(),
        batch,
        threads: running.threads as u32,
        onnxruntime: running.version(),
    }
}

/// Name of the device: what it is and its processor, and for graphs that do not run there the accelerator.
pub fn device(board: &Board, provider: Provider) -> String {
    let mut parts: Vec<&str> = board.model.iter().map(String::as_str).collect();
    parts.extend(board.processor.as_deref().filter(|processor| board.model.as_deref() != Some(processor)));
    if provider != Provider::Cpu {
        parts.extend(board.accelerators.iter().map(String::as_str));
    }
    match parts.is_empty() {
        true => format!("unknown ({})", std::env::consts::ARCH),
        false => parts.join(", "),
    }
}

/// Distinct networks, at random or from a file: those to fit to, and those to check on.
fn networks(supernet: &Supernet, args: &LatencyArgs) -> Result<(Vec<Path>, Vec<Path>), Failure> {
    let (fit, check) = (args.networks as usize, args.check as usize);
    let drawn = match &args.paths {
        Some(file) => {
            let mut paths = setup::paths_of(file, supernet)?;
            sample::shuffle(&mut ChaCha8Rng::seed_from_u64(args.seed), &mut paths);
            paths
        }
        None => setup::distinct_random_paths(supernet, fit + check, args.seed),
    };
    let mut all = setup::networks(supernet, &drawn);
    all.truncate(fit + check);
    // Where there are fewer than asked for, they are shared out in proportion, but no fit goes short for a long check.
    let share = (all.len() * fit).checked_div(fit + check).unwrap_or(0);
    let share = share.max(fit.min(all.len() / 2));
    let check = all.split_off(share);
    Ok((all, check))
}

impl LatencyArgs {
    /// Refuses outputs that could not be written, or would be written over one another or an input.
    fn check_outputs(&self) -> Result<(), Failure> {
        fn given<'a>(all: &[(&'a str, &'a Option<PathBuf>)]) -> Vec<(&'a str, &'a std::path::Path)> {
            all.iter().filter_map(|(option, file)| Some((*option, file.as_deref()?))).collect()
        }
        setup::root(&self.root)?;
        let journal = self.out.as_deref().map(journal::beside);
        let bundle = self.bundle.as_deref().map(|bundle| bundle.join(MANIFEST_FILE));
        let mut inputs = given(&[
            ("the journal of --out", &journal),
            ("the manifest of --bundle", &bundle),
            ("--onnx", &self.onnx),
            ("--import", &self.import),
            ("--import-networks", &self.import_networks),
            ("--paths", &self.paths),
        ]);
        let written =
            given(&[("--out", &self.out), ("--export", &self.export), ("--export-times", &self.export_times)]);
        if self.import.is_some() {
            // Nothing is measured, so there is no journal.
            inputs.retain(|(option, _)| !option.starts_with("the journal"));
        }
        outputs::apart(&inputs, &written)?;
        if let Some(bundle) = &self.bundle {
            written.iter().try_for_each(|(option, file)| outputs::outside(bundle, option, file))?;
        }
        written.iter().try_for_each(|(_, file)| outputs::file(file))
    }

    fn rules(&self, warm_up: Duration, min_time: Duration, visit: Duration) -> Rules {
        Rules {
            warmup: self.warm_up.unwrap_or(warm_up),
            min_time: self.min_time.unwrap_or(min_time),
            min_runs: self.min_runs,
            visit,
            seed: self.seed,
        }
    }
}

/// Reads a table's file.
pub fn read(file: &std::path::Path) -> Result<LatencyTable, Failure> {
    LatencyTable::read(file).map_err(|error| at(file, &error).hint(error.hint()))
}

/// A table that cannot be read, written or used.
pub fn at(file: &std::path::Path, error: &TableError) -> Failure {
    match error {
        TableError::Io { source } => Failure::file(file, source),
        other => Failure::usage(format!("{}: {other}", file.display())).hint(other.hint()),
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let exit = match error {
            BenchError::Journal(error) => return error.into(),
            BenchError::Stopped => Exit::Stopped,
            BenchError::Throttled { .. } | BenchError::Subject { .. } => Exit::Device,
            _ => Exit::Usage,
        };
        Self::usage(&error).with_exit(exit).hint(error.hint())
    }
}

/// What about the board makes times swing, before they are measured.
pub fn warn(board: &Board) {
    board.warnings().iter().for_each(|warning| output::words(format_args!("warning: {warning}")));
}

/// Warnings about a measurement that was not quiet.
fn noise(noisy: usize, of: usize, worst: f64, statistic: Option<Statistic>, quiet: bool) {
    if noisy > 0 && !quiet {
        output::words(format_args!(
            "warning: the times of {noisy} of {of} vary by more than {:.1} % (at worst {:.0} %); hint: leave the machine \
             alone and lock its clocks (see `nasbn doctor`), or raise --min-time{}",
            100.0 * NOISY,
            100.0 * worst,
            if statistic == Some(Statistic::Median) {
                ", or predict what noise moves less: --statistic p10"
            } else {
                ""
            }
        ));
    }
}

/// As [`Measured`] of paths and latencies.
fn pairs(paths: &[Path], ms: impl Fn(&Path) -> Option<f64>) -> Vec<Measured> {
    paths.iter().filter_map(|path| Some(Measured { path: path.clone(), ms: ms(path)? })).collect()
}
