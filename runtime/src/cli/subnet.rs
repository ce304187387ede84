//! `nasbn subnet`: one path as a network of its own.

use std::path::PathBuf;

use clap::Args;
use nasbn_models::manifest::MemoryMode;

use super::{
    Exit, Failure,
    args::{BundleArgs, DataArgs, OutputArgs, ValidationArgs},
    budget::{BudgetArgs, Left, Planned, Scoring},
    output, outputs, setup,
};
use crate::{
    subnet,
    validation::{recalibrate, validate},
};

#[derive(Args)]
#[command(after_help = "Example:
  nasbn subnet --bundle bundle --checkpoint checkpoint --data digits --path 22212220 --out found")]
pub struct SubnetArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Checkpoint of `nasbn adapt` [default: the initial BatchNorm parameters]
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// The path; of equal networks, the canonical one is written
    #[arg(long, value_name = "PATH")]
    path: String,
    /// Directory for subnet.onnx, subnet.safetensors and subnet.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    validation: ValidationArgs,
    #[command(flatten)]
    budget: BudgetArgs,
    /// Seed of the mini-batches for recalibration
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: SubnetArgs) -> Result<Exit, Failure> {
    outputs::outside(&args.bundle.bundle, "--out", &args.out)?;
    let mut session = setup::open(&args.bundle, MemoryMode::Lean, args.validation.graphs)?;
    // Equal networks are one: the BatchNorms are those that scores and searches look at.
    let path = session.network.supernet().canonical(&setup::path(session.network.supernet(), &args.path)?);
    let name = session.network.supernet().format_path(&path);
    let parameters = setup::parameters(&session, args.checkpoint.as_deref())?;
    let budget = args.budget.memory_budget;
    let data = setup::dataset_within(&args.data.data, &args.data.reading, session.network.supernet(), budget)?;
    let order = setup::validation_order(&data, &args.validation, args.seed);
    let training = setup::training(&data, &args.validation, args.seed)?;
    let images = setup::validation(&data, &args.validation, &order)?;
    let scoring = budget.map(|budget| Scoring {
        budget,
        data: Some(&data),
        parameters: &parameters,
        options: None,
        validation: &args.validation,
        reference: None,
        paths: std::slice::from_ref(&path),
        writes: true,
        latency: None,
        left: Left::Nothing,
        quiet: args.output.quiet,
    });
    let planned = scoring.map(|scoring| scoring.plan(&mut session)).transpose()?;
    let statistics = recalibrate(&mut session.network, &path, &parameters, &training)?;
    let validation = validate(&mut session.network, &path, &parameters, &statistics, images.iter())?;
    let placement = session.running.told_placement(&session.network, args.output.quiet);
    let extra = [("validation_accuracy".to_owned(), validation.accuracy.to_string())];
    let layout = session.network.layout();
    let files = subnet::files(&session.bundle, layout, &path, &parameters, &statistics, data.normaliser(), &extra)?;
    planned.as_ref().map_or(Ok(()), Planned::check)?;
    let _out = outputs::Directory::make(&args.out)?;
    let written = files.write(&args.out, "subnet", &[])?;
    let memory = planned.as_ref().map(Planned::end);
    if args.output.json {
        output::json(&serde_json::json!({
            "path": name, "asked": args.path, "validation": validation, "files": written,
            "placement": placement, "memory": memory,
        }))?;
    } else if !args.output.quiet {
        output::line(format!(
            "{}: loss {:.4}, accuracy {:.2} % on {} validation images (inherited BatchNorm, statistics recalibrated)",
            if name == args.path { name } else { format!("{} (as {name})", args.path) },
            validation.loss,
            100.0 * validation.accuracy,
            validation.images
        ))?;
        for file in written {
            output::line(format!("wrote {}", file.display()))?;
        }
    }
    Ok(Exit::Done)
}
