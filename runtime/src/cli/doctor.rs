//! `nasbn doctor`: which library, and what it can do.

use clap::Args;
use ort::ep::{self, ExecutionProvider};
use serde::Serialize;

use super::{
    Exit, Failure,
    args::{LibraryArgs, OutputArgs},
    output, setup,
};
use crate::ort_library::Library;

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn doctor
  nasbn doctor --json --ort-library /opt/onnxruntime/lib/libonnxruntime.so")]
pub struct DoctorArgs {
    #[command(flatten)]
    library: LibraryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Report {
    nasbn: &'static str,
    library: Library,
    onnxruntime: String,
    build: &'static str,
    /// Providers that the library was built with; whether they work shows when they are used.
    providers: Vec<&'static str>,
    architecture: &'static str,
    cores: usize,
}

/// What `--json` prints where no library can be used.
#[derive(Serialize)]
struct Problem<'a> {
    nasbn: &'static str,
    problem: &'a str,
    hint: Option<&'a str>,
    architecture: &'static str,
}

pub fn run(args: DoctorArgs) -> Result<Exit, Failure> {
    let (library, _environment) = match setup::library(&args.library) {
        Ok(found) => found,
        Err(failure) => {
            if args.output.json {
                let problem = Problem {
                    nasbn: env!("CARGO_PKG_VERSION"),
                    problem: failure.message(),
                    hint: failure.advice(),
                    architecture: std::env::consts::ARCH,
                };
                output::json(&problem)?;
            }
            return Err(failure);
        }
    };
    let built_in: [(&'static str, ort::Result<bool>); 3] = [
        ("cpu", ep::CPU::is_available()),
        ("cuda", ep::CUDA::is_available()),
        ("tensorrt", ep::TensorRT::is_available()),
    ];
    let report = Report {
        nasbn: env!("CARGO_PKG_VERSION"),
        onnxruntime: format!("1.{}", library.minor),
        library,
        build: ort::info(),
        providers: built_in.iter().filter(|(_, there)| matches!(there, Ok(true))).map(|(name, _)| *name).collect(),
        architecture: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    };
    if args.output.json {
        output::json(&report)?;
        return Ok(Exit::Done);
    }
    output::line(format!("nasbn        {}", report.nasbn))?;
    let origin = serde_json::to_value(report.library.origin).unwrap_or_default();
    output::line(format!("library      {} ({})", report.library.path.display(), origin.as_str().unwrap_or("")))?;
    output::line(format!("onnxruntime  {}", report.onnxruntime))?;
    output::line(format!("providers    {}", report.providers.join(", ")))?;
    output::line(format!("machine      {}, {} cores", report.architecture, report.cores))?;
    Ok(Exit::Done)
}
