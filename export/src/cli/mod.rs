//! The `nasbn-export` program: its commands, and how it speaks.
//!
//! Data goes to stdout, words to stderr, what to do next is a `hint:` line.

mod build;
mod check;
mod failure;
mod inspect;
mod manual;
mod output;
mod spaces;

use clap::{Parser, Subcommand};

pub use failure::{Exit, Failure};

/// Writes supernets as ONNX graphs, gradients included, for `nasbn` to adapt on a device.
#[derive(Parser)]
#[command(
    name = "nasbn-export",
    version,
    about,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    before_help = "Examples:
  nasbn-export spaces
  nasbn-export build --space mobilenet --image-size 64 --classes 10 --out bundle
  nasbn-export inspect bundle
  nasbn-export check bundle"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the bundle of a space
    Build(build::BuildArgs),
    /// Say what a bundle holds
    Inspect(inspect::InspectArgs),
    /// Check every file and graph of a bundle
    Check(check::CheckArgs),
    /// List the built-in spaces, or print one as a file to start from
    Spaces(spaces::SpacesArgs),
    /// Write a shell's completions to standard output
    Completions(manual::CompletionsArgs),
    /// Write man pages
    Man(manual::ManArgs),
}

/// Runs the program; `arguments` begin with its name.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no failure; a closed pipe is none either.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let result = match cli.command {
        Command::Build(args) => build::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Spaces(args) => spaces::run(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    };
    match result {
        Ok(()) => Exit::Done,
        Err(failure) => failure.report(),
    }
}
