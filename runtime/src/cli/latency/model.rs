//! `nasbn latency --onnx`: any model, measured as blocks and networks are.

use std::{fmt::Display, path::Path as FsPath, time::Duration};

use serde::Serialize;
use serde_json::Map;

use super::{LatencyArgs, device, noise, report, warn};
use crate::{
    board::Board,
    cli::{
        Exit, Failure, output,
        running::{self, Running},
        setup,
    },
    engine::Model,
    latency::{
        Subject, SubjectError, Timing,
        bench::{Bench, BenchError, model_name, throttled_rounds},
        record::Times,
    },
    provider::{self, EngineCache, Placement, PlacementError, Precision, Provider, SCRATCH},
};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    model: String,
    device: String,
    power_mode: Option<String>,
    provider: Provider,
    precision: Precision,
    /// Where the nodes of the model ran.
    placement: Option<Placement>,
    threads: usize,
    onnxruntime: String,
    inputs: Vec<Input>,
    batch: u32,
    latency: Timing,
    /// Images a second.
    throughput: f64,
    throttled_rounds: u32,
    before: Board,
    after: Board,
}

#[derive(Serialize)]
struct Input {
    name: String,
    dims: Vec<i64>,
}

pub fn run(args: &LatencyArgs, file: &FsPath) -> Result<Exit, Failure> {
    if let Err(error) = std::fs::File::open(file) {
        return Err(Failure::file(file, &error));
    }
    let mut running = running::start(&args.run, None, None)?;
    let before = Board::read(&args.root);
    if !args.output.quiet {
        warn(&before);
    }
    let name = file.display().to_string();
    let wrong = |source: SubjectError| {
        let failure = Failure::usage(format!("{name}: {source}"));
        // A model that does not load is bad input, whatever machine it is.
        failure.hint(source.hint())
    };
    // Measured in one go: its times, and TensorRT's engines, need to stand on file only while it lasts.
    let no_scratch = |error: &dyn Display| Failure::usage(format!("no temporary files: {error}")).hint(SCRATCH);
    let scratch = tempfile::tempdir().map_err(|error| no_scratch(&error))?;
    if running.backend.provider == Provider::TensorRt {
        output::words("tensorrt: engines are built now, from seconds to minutes; they are kept for bundles only");
        let (version, precision) = (running.version(), running.backend.precision);
        running.backend.cache = EngineCache::open(scratch.path(), &version, &[], precision).ok();
    }
    let subject_on = |running: &Running| {
        let session = running.opener()?.file(file).map_err(|error| wrong(error.into()))?;
        let subject = Subject::new(session, args.batch, &args.shape);
        subject.and_then(|subject| subject.bound_to(&running.backend)).map_err(wrong)
    };
    let mut subject = subject_on(&running)?;
    let asked = running.backend.provider;
    let mut placed = match provider::measure(&running.opener()?, Model::File(file), args.batch, &args.shape) {
        // What loads and does not run is the device's or the provider's affair.
        Err(PlacementError::Subject(source @ SubjectError::Run(_))) => {
            return Err(wrong(source).with_exit(Exit::Device));
        }
        Err(PlacementError::Subject(source)) => return Err(wrong(source)),
        placed => running.judge(&args.run, &name, placed)?,
    };
    if running.backend.provider != asked {
        subject = subject_on(&running)?;
        placed = provider::measure(&running.opener()?, Model::File(file), args.batch, &args.shape).ok();
    }
    let (opener, batch) = (running.opener()?, subject.batch());
    let inputs: Vec<Input> = subject.inputs().map(|(name, dims)| Input { name: name.to_owned(), dims }).collect();
    let times = Times::create(&scratch.path().join("times"), &Map::new());
    let mut times = times.map_err(|error| no_scratch(&error))?;
    let rules = args.rules(Duration::from_millis(200), Duration::from_secs(3), Duration::from_millis(50));
    let interrupted = setup::interrupted();
    let bar = output::bar(1000, args.output.quiet);
    let mut bench =
        Bench { opener: &opener, times: &mut times, root: &args.root, batch: args.batch, interrupted: &interrupted };
    let key = model_name(&name);
    let mut items = [(key.clone(), subject)];
    let result = bench.measure(&mut items, &rules, &mut |share| bar.set_position((1000.0 * share) as u64));
    bar.finish_and_clear();
    match result {
        // What there is of a model that is measured in one go is of no use.
        Err(BenchError::Stopped) => {
            return Err(Failure::usage("stopped").with_exit(Exit::Stopped).hint("run the same command again"));
        }
        Err(BenchError::Journal(error)) => return Err(no_scratch(&error)),
        other => other?,
    }
    let Some(latency) = Timing::of(times.of(&key)) else {
        return Err(Failure::usage(format!("{name}: no run was measured")).hint("raise --min-time"));
    };
    if let Some(file) = &args.export_times {
        report::export_times(file, [(&name, times.of(&key))])?;
    }
    noise(usize::from(latency.is_noisy()), 1, latency.variation, None, args.output.quiet);
    let report = Report {
        device: device(&before, running.backend.provider),
        power_mode: before.power_mode.as_ref().map(ToString::to_string),
        provider: running.backend.provider,
        precision: running.backend.precision,
        placement: placed,
        threads: running.threads,
        onnxruntime: running.version(),
        inputs,
        batch,
        throughput: latency.throughput(batch),
        latency,
        throttled_rounds: throttled_rounds(&times),
        after: Board::read(&args.root),
        before,
        model: name,
    };
    if args.output.json {
        output::json(&report)?;
    } else if !args.output.quiet {
        print(&report)?;
    }
    Ok(Exit::Done)
}

fn print(report: &Report) -> Result<(), Failure> {
    let Report { latency, .. } = report;
    output::line(format!("model         {}", report.model))?;
    for Input { name, dims } in &report.inputs {
        let dims: Vec<String> = dims.iter().map(i64::to_string).collect();
        output::line(format!("input         {name} {}", dims.join("x")))?;
    }
    output::line(format!(
        "device        {}, {}, {}, {} threads, ONNX Runtime {}",
        report.device, report.provider, report.precision, report.threads, report.onnxruntime
    ))?;
    if let Some(placement) = &report.placement {
        output::line(format!("placement     {placement}"))?;
    }
    output::line(format!("runs          {} (variation {:.1} %)", latency.runs, 100.0 * latency.variation))?;
    output::line(format!(
        "latency       min {:.3}  median {:.3}  mean {:.3}  max {:.3} ms",
        latency.min_ms, latency.median_ms, latency.mean_ms, latency.max_ms
    ))?;
    output::line(format!(
        "percentiles   90 % {:.3}  95 % {:.3}  99 % {:.3} ms",
        latency.p90_ms, latency.p95_ms, latency.p99_ms
    ))?;
    output::line(format!("throughput    {:.1} images a second", report.throughput))
}
