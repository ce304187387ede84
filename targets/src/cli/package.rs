//! `nasbn-targets package`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use nasbn_targets::{
    device::catalog,
    elf::GlibcVersion,
    library::pinned,
    package::{self, Request},
};

use super::{libraries::fetcher, target_dir};

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn-targets package --target orin-nano --bundle bundle --out deploy
  nasbn-targets package --target xavier-nx --jetpack 5.1.2 --bundle bundle --out deploy --force
  nasbn-targets package --target nano --bundle bundle --out deploy --no-library

Equal inputs give equal bytes, of the directory and of its archive. Exit status: 0 done, 2 bad usage
or input (a program for another processor or a newer glibc among them), 3 the library is not to be
had.")]
pub struct PackageArgs {
    /// Device, of `nasbn-targets list`, or what its board says that it is
    #[arg(long, value_name = "NAME")]
    target: String,
    /// Bundle that `nasbn-export build` wrote
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// Directory for the package; its archive is DIR.tar.gz
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// JetPack on the board [default: any that the device runs]
    #[arg(long, value_name = "VERSION")]
    jetpack: Option<String>,
    /// glibc on the board, if it is newer than the oldest that the device may have
    #[arg(long, value_name = "VERSION", conflicts_with = "jetpack")]
    glibc: Option<GlibcVersion>,
    /// Program [default: what `cargo jetson` built; on a machine like the device what `cargo build --release` did]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Version of the ONNX Runtime library [default: the newest pinned one that runs on the board]
    #[arg(long, value_name = "VERSION", conflicts_with = "no_library")]
    ort_version: Option<String>,
    /// Leave out the ONNX Runtime library
    #[arg(long)]
    no_library: bool,
    /// Man pages, as `nasbn man --out DIR` writes them [default: those of the program, made by the `nasbn` that is built for this machine]
    #[arg(long, value_name = "DIR", conflicts_with = "no_man")]
    man: Option<PathBuf>,
    /// Leave out the man pages
    #[arg(long)]
    no_man: bool,
    /// Leave out the licences of the crates that the program is made of
    #[arg(long)]
    no_third_party: bool,
    /// Replace the package that is there
    #[arg(long)]
    force: bool,
    /// Where builds and libraries are [default: $CARGO_TARGET_DIR, or `target`]
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: PackageArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (catalog, libraries) = (catalog()?, pinned()?);
    let request = Request {
        device: catalog.find(&args.target)?,
        jetpack: args.jetpack,
        glibc: args.glibc,
        binary: args.binary,
        bundle: args.bundle,
        out: args.out,
        force: args.force,
        onnxruntime: args.ort_version,
        library: !args.no_library,
        manual: args.man,
        with_manual: !args.no_man,
        with_licences: !args.no_third_party,
        target_dir: target_dir(args.target_dir),
    };
    let made = package::package(&request, &catalog, &libraries, &fetcher())?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&made)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let library = made.description.onnxruntime.as_ref().map_or("none".to_owned(), |v| format!("ONNX Runtime {v}, CPU"));
    writeln!(
        out,
        "device   {} ({}), glibc {} or newer",
        request.device.title, made.description.triple, made.description.glibc
    )?;
    writeln!(out, "library  {library}")?;
    writeln!(out, "wrote    {}: {} files, {:.1} MB", made.directory.display(), made.files, megabytes(made.bytes))?;
    writeln!(
        out,
        "wrote    {}: {:.1} MB, SHA-256 {}",
        made.archive.display(),
        megabytes(made.archive_bytes),
        made.sha256
    )?;
    Ok(ExitCode::SUCCESS)
}
