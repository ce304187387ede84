//! `nasbn analyze`: what BatchNorm-only training does.

mod ntk_drift;
mod operator_bias;

use std::path::{Path as FsPath, PathBuf};

use clap::Subcommand;
use nasbn_models::BnPlacement;

use super::{Exit, Failure, outputs};
use crate::{analyze::Trait, atomic};

#[derive(Subcommand)]
pub enum AnalyzeCommand {
    /// Which operators indicators of gamma prefer, with a BatchNorm on every operator and on convolutions alone
    OperatorBias(operator_bias::OperatorBiasArgs),
    /// How far the tangent kernel of the BatchNorm parameters moves while they are trained, width by width
    NtkDrift(ntk_drift::NtkDriftArgs),
}

pub fn run(command: AnalyzeCommand) -> Result<Exit, Failure> {
    match command {
        AnalyzeCommand::OperatorBias(args) => operator_bias::run(args),
        AnalyzeCommand::NtkDrift(args) => ntk_drift::run(args),
    }
}

/// Name of the file of the result as JSON.
const RESULT_FILE: &str = "result.json";

/// Writes files into a directory, which is made if need be; all of them or none.
fn write(directory: &FsPath, files: &[(&str, String)]) -> Result<(), Failure> {
    let _out = outputs::Directory::make(directory)?;
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| directory.join(name)).collect();
    let files = paths.iter().zip(files).map(|(path, (_, contents))| (path.as_path(), contents.as_bytes()));
    Ok(atomic::write_all(&files.collect::<Vec<_>>())?)
}

/// A placement as `nasbn-export build --bn` names it.
const fn placement_name(placement: BnPlacement) -> &'static str {
    match placement {
        BnPlacement::EveryOperator => "every-operator",
        BnPlacement::Convolution => "convolution",
    }
}

fn names(traits: &[Trait]) -> String {
    traits.iter().map(|t| t.name()).collect::<Vec<_>>().join(", ")
}

/// A mean and its spread: `0.123 ± 0.004`.
fn with_spread((mean, deviation): (f64, Option<f64>), digits: usize) -> String {
    match deviation {
        Some(deviation) => format!("{mean:.digits$} ± {deviation:.digits$}"),
        None => format!("{mean:.digits$}"),
    }
}

/// A width multiplier, from thousandths.
fn width(permille: u32) -> String {
    format!("{}", f64::from(permille) / 1000.0)
}
