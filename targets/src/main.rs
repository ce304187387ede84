//! The `nasbn-targets` program: devices, the ONNX Runtime library for each, packages, and how they get there.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
