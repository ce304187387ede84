//! `nasbn subnet`: one path as a network of its own.

use std::{fs, path::PathBuf};

use clap::Args;
use nasbn_models::manifest::MemoryMode;

use super::{
    Exit, Failure,
    args::{BundleArgs, DataArgs, OutputArgs, ValidationArgs},
    output, setup,
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
    /// The path
    #[arg(long, value_name = "PATH")]
    path: String,
    /// Directory for subnet.onnx, subnet.safetensors and subnet.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    validation: ValidationArgs,
    /// Seed of the mini-batches for recalibration
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: SubnetArgs) -> Result<Exit, Failure> {
    let mut session = setup::open(&args.bundle, MemoryMode::Lean, args.validation.graphs.into())?;
    let path = setup::path(session.network.supernet(), &args.path)?;
    let parameters = setup::parameters(&session, args.checkpoint.as_deref())?;
    let data = setup::dataset(&args.data, session.network.supernet())?;
    let images = setup::images(&data, &args.validation, args.seed)?;
    let statistics = recalibrate(&mut session.network, &path, &parameters, &images.recalibration)?;
    let validation = validate(&mut session.network, &path, &parameters, &statistics, &images.validation)?;
    let extra = [("validation_accuracy".to_owned(), validation.accuracy.to_string())];
    let files = subnet::files(&session.bundle, session.network.layout(), &path, &parameters, &statistics, &extra)?;
    fs::create_dir_all(&args.out).map_err(|e| Failure::file(&args.out, &e))?;
    let written = files.write(&args.out, "subnet")?;
    if args.output.json {
        output::json(&serde_json::json!({ "path": args.path, "validation": validation, "files": written }))?;
    } else {
        output::line(format!(
            "{}: loss {:.4}, accuracy {:.2} % on {} validation images (inherited BatchNorm, statistics recalibrated)",
            args.path,
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
