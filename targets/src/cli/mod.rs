//! Words and exit codes.

mod deploy;
mod devices;
mod failure;
mod libraries;
mod package;

use std::{
    env,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use failure::Failure;

/// Devices that nasbn runs on: what they are, packages for them, and the ONNX Runtime library.
#[derive(Parser)]
#[command(name = "nasbn-targets", version, about, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the devices: memory, compute capability, JetPack, providers, glibc
    List(devices::ListArgs),
    /// Show all that is known of a device, with sources
    Show(devices::ShowArgs),
    /// Make a package for a device: program, bundle, ONNX Runtime library, man pages, licences, instructions
    Package(package::PackageArgs),
    /// Copy a package to a board over ssh and run `nasbn doctor` there
    Deploy(deploy::DeployArgs),
    /// Put a pinned ONNX Runtime library under the target directory, and print its path
    Provision(libraries::ProvisionArgs),
    /// List the pinned libraries: version, machine, package manager and package
    Libraries,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let command = Cli::parse().command;
    // These only print: who reads no further has what they wanted. Others do something, of which they then cannot tell.
    let only_prints = matches!(command, Command::List(_) | Command::Show(_) | Command::Libraries);
    let done = match command {
        Command::List(args) => devices::list(&args, &mut out),
        Command::Show(args) => devices::show(&args, &mut out),
        Command::Package(args) => package::run(args, &mut out),
        Command::Deploy(args) => deploy::run(&args, &mut out),
        Command::Provision(args) => libraries::provision(args, &mut out),
        Command::Libraries => libraries::list(&mut out),
    };
    let error = match done.and_then(|code| out.flush().map(|()| code).map_err(Into::into)) {
        Ok(code) => return code,
        Err(error) => Failure::from(error),
    };
    if only_prints && error.is_closed_pipe() {
        return ExitCode::SUCCESS;
    }
    eprintln!("{error}");
    error.exit_code()
}

/// Cargo's target directory: as named, else `CARGO_TARGET_DIR`, else `target`.
fn target_dir(named: Option<PathBuf>) -> PathBuf {
    named.or_else(|| env::var_os("CARGO_TARGET_DIR").map(PathBuf::from)).unwrap_or_else(|| "target".into())
}
