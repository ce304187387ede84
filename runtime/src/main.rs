//! The `nasbn` program. All of it is in [`nasbn_runtime::cli`].

use std::{env, process::ExitCode};

/// With this variable ONNX Runtime keeps no telemetry. Otherwise newer ones (1.32 does) make an id of the device and a
/// database in the user's home directory as soon as they are loaded.
const DISABLE_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

fn main() -> ExitCode {
    without_telemetry();
    nasbn_runtime::cli::run(env::args_os()).into()
}

/// Turns ONNX Runtime's telemetry off, unless the environment says something of it. To begin anew with another environment would be
/// without `unsafe`, but no emulator starts a program for another processor anew.
#[allow(unsafe_code)]
fn without_telemetry() {
    if env::var_os(DISABLE_TELEMETRY).is_none() {
        // SAFETY: the process has one thread: nothing was started before, and nothing else reads the environment meanwhile.
        unsafe { env::set_var(DISABLE_TELEMETRY, "1") };
    }
}
