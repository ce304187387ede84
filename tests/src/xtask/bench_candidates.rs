//! `cargo xtask bench-candidates`: the three measurements of a candidate here against PyTorch's, in one run, in turns.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    bench,
    peer::{Peer, median, ratios, spread},
};

/// Side of the images, pixels.
const SIZE: u32 = 32;
/// Images in a mini-batch.
const BATCH: usize = 32;
/// Paths that every peer measures one by one in each turn.
const PATHS: usize = 8;
/// Paths of a sample that is measured together: the composite's default. The first of them are those above.
const POPULATION: usize = 64;
/// Turns that every peer gets.
const TURNS: usize = 3;
/// The ways in which PyTorch finds tangent kernels. The first two take a backward pass a sample, one way or another.
const KERNELS: [&str; 3] = ["loop", "vmap", "copies"];
/// Of these, those that are asked to be outdone.
const ASKED: usize = 2;

/// Runs every peer and prints a table. `candidates` is the built example, `export` the exporter.
pub fn run(root: &Path, work: &Path, candidates: &Path, export: &Path, python: &str, threads: usize) -> Result<()> {
    let bundle: PathBuf = work.join("bench-nas-bench-macro");
    bench::build(export, &bundle, "nas-bench-macro", SIZE)?;
    let ours = |name: &str, mode: &str, paths: usize| {
        let mut command = Command::new(candidates);
        command.arg(&bundle).args([mode, &paths.to_string(), &BATCH.to_string(), &threads.to_string()]);
        Peer::start(name, &mut command)
    };
    let one_by_one = ours("nasbn, one by one", "each", PATHS)?;
    let together = ours(&format!("nasbn, {POPULATION} random paths together"), "together", POPULATION)?;
    let paths = one_by_one.about["paths"].as_array().context("paths")?;
    let paths: Vec<&str> = paths.iter().filter_map(Value::as_str).collect();
    let paths = paths.join(",");
    eprintln!("paths {paths}");

    let script = root.join("tests/peers/torch_candidates.py");
    let mut torch = Vec::new();
    for kernel in KERNELS {
        let mut layouts = Vec::new();
        for layout in ["contiguous", "channels_last"] {
            let mut command = Command::new(python);
            command.arg(&script).args(["--serve", "--paths", &paths, "--ntk", kernel, "--layout", layout]);
            command.args(["--batch", &BATCH.to_string(), "--image-size", &SIZE.to_string()]);
            command.args(["--threads", &threads.to_string()]);
            layouts.push(Peer::start(&format!("PyTorch, {kernel}, {layout}"), &mut command)?);
        }
        // The layout that is slower on the first path goes home.
        let first = |peer: &Peer| peer.about["first_cpu_ms"].as_f64().unwrap_or(f64::INFINITY);
        layouts.sort_by(|a, b| first(a).total_cmp(&first(b)));
        layouts.truncate(1);
        torch.append(&mut layouts);
    }
    let mut peers = torch;
    peers.extend([one_by_one, together]);
    for _ in 0..TURNS {
        for peer in &mut peers {
            peer.turn(1)?;
        }
    }
    let asked = peers.iter().take(ASKED).min_by(|a, b| median(&a.cpu_turns).total_cmp(&median(&b.cpu_turns)));
    let reference = asked.context("a peer")?;
    println!(
        "| {PATHS} random paths, batch {BATCH}, {threads} thread(s) | ms of processors per candidate (least to most of \
         {TURNS} turns) | against PyTorch's faster way by samples | ms per candidate | against the same | peak memory MiB \
         | of which before the network |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for peer in &peers {
        let cpu = spread(&peer.cpu_turns, 0, "");
        let ratio = spread(&ratios(&peer.cpu_turns, &reference.cpu_turns), 2, " x");
        println!("| {} | {cpu} | {ratio} | {} |", peer.name, peer.cells(reference));
    }
    Ok(())
}
