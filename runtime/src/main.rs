//! The `nasbn` program. All of it is in [`nasbn_runtime::cli`].

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

/// With this variable ONNX Runtime keeps no telemetry. Otherwise newer ones (1.32 does) make an id of the device and a
/// database in the user's home directory as soon as they are loaded.
const DISABLE_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

fn main() -> ExitCode {
    without_telemetry();
    nasbn_runtime::cli::run(env::args_os()).into()
}

/// Begins anew, as the same process, with ONNX Runtime's telemetry off, unless the environment says something of it: a program may
/// not change its own environment. Where it cannot begin anew (an emulator), it goes on.
fn without_telemetry() {
    if env::var_os(DISABLE_TELEMETRY).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // It only comes back if it failed.
    let _ = again.args(arguments).env(DISABLE_TELEMETRY, "1").exec();
}
