//! The project's own tasks: `cargo demo`, `cargo xtest`, and what CI checks. Each does its own set-up.

#[path = "../xtask/accel_nasbench.rs"]
mod accel_nasbench;
#[path = "../xtask/bench.rs"]
mod bench;
#[path = "../xtask/bench_candidates.rs"]
mod bench_candidates;
#[path = "../xtask/demo.rs"]
mod demo;
#[path = "../xtask/hw_nas_bench.rs"]
mod hw_nas_bench;
#[path = "../xtask/jetson.rs"]
mod jetson;
#[path = "../xtask/lint.rs"]
mod lint;
#[path = "../xtask/peer.rs"]
mod peer;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use nasbn_targets::library::{PackageManagers, ProvisionError, choose, host_triple, pinned, provision};

/// Tasks of the nasbn project.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The main job on real data: export, adapt, score, search
    Demo {
        /// Use these images and the full NAS-Bench-Macro space instead of the digits and a narrow one
        #[arg(long, value_name = "DIR")]
        cifar10: Option<PathBuf>,
    },
    /// Provision ONNX Runtime (newest and oldest), build the programs, run every test
    Test {
        /// Arguments for `cargo test`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Time a training step against PyTorch's, and print the table of docs/performance.md
    Bench {
        /// Python with the packages of tests/reference/requirements.txt
        #[arg(long, default_value = "python3")]
        python: String,
        /// Threads that every peer may use
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Time the measurements of the composite against PyTorch's, and print the table of docs/performance.md
    BenchCandidates {
        /// Python with the packages of tests/reference/requirements.txt
        #[arg(long, default_value = "python3")]
        python: String,
        /// Threads that every peer may use
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Turn networks of Accel-NASBench into paths of the space mnasnet, with their accuracy
    AccelNasbench {
        /// CSV file with the columns expand, kernel, layers, se, val_top1, macs_m, params_m
        from: PathBuf,
        /// CSV file to write: path, val_top1, macs_m, params_m
        to: PathBuf,
        /// Take N different networks at random [default: all]
        #[arg(long, value_name = "N")]
        rows: Option<usize>,
        /// Seed of that choice
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Turn latencies of HW-NAS-Bench's FBNet space into files for `nasbn latency --import`
    HwNasBench {
        /// Directory with fbnet_lut.csv and fbnet_e2e_dev.csv
        from: PathBuf,
        /// Directory to write: blocks-DEVICE.csv, networks-DEVICE.csv
        to: PathBuf,
    },
    /// Build the `nasbn` of boards (aarch64, glibc 2.27), print what it needs, and check that boards have it
    Jetson,
    /// Check what no compiler checks: file sizes, and where `unsafe` stands
    Lint,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo { cifar10 } => demo(cifar10.as_deref()),
        Task::Test { arguments } => test(&arguments),
        Task::AccelNasbench { from, to, rows, seed } => accel_nasbench::run(&from, &to, rows, seed),
        Task::HwNasBench { from, to } => hw_nas_bench::run(&from, &to),
        Task::Jetson => root().and_then(|root| jetson::run(&root, &target_dir(), cargo())),
        Task::Lint => root().and_then(|root| lint::run(&root)),
        Task::Bench { python, threads } => benchmark("step", bench::run, &python, threads),
        Task::BenchCandidates { python, threads } => benchmark("candidates", bench_candidates::run, &python, threads),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(error) = error.downcast_ref::<ProvisionError>() {
                eprintln!("hint: {}", error.hint());
            }
            ExitCode::FAILURE
        }
    }
}

/// Root of the repository.
fn root() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate is in the workspace")?;
    env::set_current_dir(dir).with_context(|| format!("{}", dir.display()))?;
    Ok(dir.to_owned())
}

fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The programs must find the provisioned library by themselves.
    command.env_remove("ORT_DYLIB_PATH");
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{}", command.get_program().to_string_lossy()))?;
    ensure!(status.success(), "`{}` ended with {status}", words(command));
    Ok(())
}

fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|a| a.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Provisions the preferred library of this machine; with `all`, every pinned version.
fn provision_libraries(all: bool) -> Result<()> {
    let triple = host_triple();
    let libraries = pinned()?;
    let preferred = choose(&libraries, &triple, None)?;
    let fetcher = PackageManagers { announce: |library| eprintln!("fetching {library}"), ..Default::default() };
    for library in libraries.iter().filter(|l| if all { l.triple == triple } else { *l == preferred }) {
        provision(library, &target_dir(), &fetcher)?;
    }
    Ok(())
}

/// Builds `nasbn-export` and `nasbn`.
fn build_programs() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--profile", "quick", "--bins", "-p", "nasbn-export", "-p", "nasbn-runtime"]);
    run(build.args(["--features", "nasbn-export/cli"]))
}

fn demo(cifar10: Option<&Path>) -> Result<()> {
    let here = env::current_dir()?;
    let root = root()?;
    // The commands run in the root: what is relative to another directory would be elsewhere there.
    let cifar10 = cifar10.map(|dir| if here == root { dir.to_owned() } else { here.join(dir) });
    provision_libraries(false)?;
    build_programs()?;
    demo::run(&target_dir(), &target_dir().join("quick"), cifar10.as_deref())
}

fn test(arguments: &[String]) -> Result<()> {
    root()?;
    provision_libraries(true)?;
    run(cargo().args(["build", "--workspace", "--bins"]))?;
    run(cargo().args(["test", "--workspace"]).args(arguments))
}

/// Runs a benchmark whose peer on this side is an example of this crate.
fn benchmark(
    example: &str,
    run_peers: fn(&Path, &Path, &Path, &Path, &str, usize) -> Result<()>,
    python: &str,
    threads: usize,
) -> Result<()> {
    let root = root()?;
    provision_libraries(false)?;
    build_programs()?;
    run(cargo().args(["build", "--quiet", "--profile", "quick", "-p", "nasbn-tests", "--example", example]))?;
    let quick = target_dir().join("quick");
    let built = quick.join("examples").join(example);
    run_peers(&root, &quick, &built, &quick.join("nasbn-export"), python, threads)
}
