//! The `nasbn` program: its commands, and how it speaks.

mod adapt;
mod analyze;
mod args;
mod budget;
mod doctor;
mod evaluate;
mod failure;
mod fingerprint;
mod latency;
#[cfg(feature = "manual")]
mod manual;
mod note;
mod output;
mod outputs;
mod reference;
mod running;
mod score;
mod search;
mod setup;
mod subnet;
mod training;
mod units;
mod usage;

use clap::{Parser, Subcommand};

pub use failure::{Exit, Failure};

/// Searches for MobileNet-like networks on the device, training only BatchNorm.
#[derive(Parser)]
#[command(
    name = "nasbn",
    version,
    about,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more on stderr (-v what is done, -vv every detail)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Train gamma and beta of the supernet's BatchNorms along sampled paths
    Adapt(adapt::AdaptArgs),
    /// Score paths: costs, BN indicators, validation loss and accuracy, as CSV
    Score(score::ScoreArgs),
    /// Measure latency on this machine: of a bundle's blocks and networks, or of any ONNX model
    Latency(latency::LatencyArgs),
    /// Search for the best path within limits and write it as ONNX
    Search(search::SearchArgs),
    /// Say how well scores rank networks whose accuracy is known
    Evaluate(evaluate::EvaluateArgs),
    /// Show what BatchNorm-only training does: to operators by their BN placement, to the tangent kernel
    #[command(subcommand)]
    Analyze(analyze::AnalyzeCommand),
    /// Write one path as a standalone ONNX network
    Subnet(subnet::SubnetArgs),
    /// Say which ONNX Runtime library is used, what it can do, and how the board is set
    Doctor(doctor::DoctorArgs),
    /// Write a shell's completions to standard output
    #[cfg(feature = "manual")]
    Completions(manual::CompletionsArgs),
    /// Write man pages, one of the program and one of every command
    #[cfg(feature = "manual")]
    Man(manual::ManArgs),
}

/// Runs the program; `arguments` begin with its name.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Exit {
    let cli = match usage::parse::<Cli>(&arguments.into_iter().collect::<Vec<_>>()) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let level = match cli.verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    // A second initialisation (in tests) changes nothing.
    let _ = env_logger::Builder::new().filter_module("nasbn", level).filter_module("nasbn_runtime", level).try_init();
    let result = match cli.command {
        Command::Adapt(args) => adapt::run(args),
        Command::Score(args) => score::run(args),
        Command::Latency(args) => latency::run(args),
        Command::Search(args) => search::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Analyze(command) => analyze::run(command),
        Command::Subnet(args) => subnet::run(args),
        Command::Doctor(args) => doctor::run(args),
        #[cfg(feature = "manual")]
        Command::Completions(args) => manual::completions(&args),
        #[cfg(feature = "manual")]
        Command::Man(args) => manual::man(&args),
    };
    match result {
        Ok(exit) => exit,
        Err(failure) => failure.report(),
    }
}
