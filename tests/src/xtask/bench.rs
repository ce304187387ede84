//! `cargo xtask bench`: a training step here against PyTorch's, both in one run, in turns.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::peer::{Peer, median};

/// What is timed: space, path, image size, batch.
const CASES: [(&str, &str, u32, u32); 2] =
    [("mobilenet", "256413026641503251246", 64, 32), ("nas-bench-macro", "22212220", 32, 64)];
/// Turns that every peer gets.
const TURNS: usize = 7;
/// Steps in a turn.
const STEPS: usize = 5;

/// Runs every case and prints a table. `step` is the built example, `export` the exporter.
pub fn run(root: &Path, work: &Path, step: &Path, export: &Path, python: &str, threads: usize) -> Result<()> {
    let script = root.join("tests/peers/torch_step.py");
    println!(
        "| space, batch, image | step | median ms (least to most of {TURNS} turns) | against PyTorch's faster | peak memory MiB | of which before the network | ms to the first loss |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (space, path, size, batch) in CASES {
        let bundle: PathBuf = work.join(format!("bench-{space}"));
        build(export, &bundle, space, size)?;
        let mut peers = Vec::new();
        for layout in ["contiguous", "channels_last"] {
            let mut command = Command::new(python);
            command.arg(&script).args(["--serve", "--space", space, "--path", path, "--layout", layout]);
            command.args(["--image-size", &size.to_string(), "--batch", &batch.to_string()]);
            command.args(["--threads", &threads.to_string()]);
            peers.push(Peer::start(&format!("PyTorch, {layout}"), &mut command)?);
        }
        for (memory, graphs) in [("fast", "fused"), ("lean", "fused"), ("fast", "portable"), ("lean", "portable")] {
            let mut command = Command::new(step);
            command.arg(&bundle).args([path, &batch.to_string(), memory, graphs, &threads.to_string()]);
            peers.push(Peer::start(&format!("nasbn, {memory}, {graphs}"), &mut command)?);
        }
        for _ in 0..TURNS {
            for peer in &mut peers {
                peer.turn(STEPS)?;
            }
        }
        let faster = if median(&peers[0].turns) < median(&peers[1].turns) { 0 } else { 1 };
        let reference = &peers[faster];
        for peer in &peers {
            println!(
                "| {space}, {batch}, {size} x {size} | {} | {} | {} |",
                peer.name,
                peer.cells(reference),
                peer.about["first_loss_ms"].as_f64().map_or_else(|| "".to_owned(), |ms| format!("{ms:.0}")),
            );
        }
    }
    Ok(())
}

/// Writes the bundle of a space for images of `size` x `size` in ten classes.
pub fn build(export: &Path, bundle: &Path, space: &str, size: u32) -> Result<()> {
    let mut build = Command::new(export);
    build.args(["build", "--quiet", "--force", "--space", space, "--classes", "10"]);
    build.args(["--image-size", &size.to_string()]);
    ensure!(build.arg("--out").arg(bundle).status()?.success(), "the bundle of {space} was not written");
    Ok(())
}
