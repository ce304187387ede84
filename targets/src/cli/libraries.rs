//! `nasbn-targets provision` and `libraries`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use nasbn_targets::library::{self, PackageManagers, choose, host_triple, pinned};

use super::target_dir;

#[derive(Args)]
#[command(after_help = "Fetches with `python3 -m pip` or `npm`; $NASBN_PYTHON and $NASBN_NPM name others.\n\
                        Exit status: 0 done, 2 bad usage or nothing pinned for it, 3 not to be had.")]
pub struct ProvisionArgs {
    /// Version of ONNX Runtime [default: the preferred one]
    #[arg(long)]
    version: Option<String>,
    /// Machine it is for [default: this one]
    #[arg(long)]
    triple: Option<String>,
    /// Where it goes [default: $CARGO_TARGET_DIR, or `target`]
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The package managers, which say what they fetch.
pub fn fetcher() -> PackageManagers {
    PackageManagers { announce: |library| eprintln!("fetching {library}"), ..Default::default() }
}

pub fn list(out: &mut impl Write) -> anyhow::Result<ExitCode> {
    for library in pinned()? {
        let manager = format!("{:?}", library.package.manager).to_lowercase();
        writeln!(out, "{:<8} {:<26} {manager} {}", library.version, library.triple, library.package.name)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn provision(args: ProvisionArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let libraries = pinned()?;
    let triple = args.triple.unwrap_or_else(host_triple);
    let library = choose(&libraries, &triple, args.version.as_deref())?;
    let done = library::provision(library, &target_dir(args.target_dir), &fetcher())?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&done)?)?;
    } else {
        writeln!(out, "{}", done.path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
