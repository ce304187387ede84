//! `nasbn latency --bundle`: the table of this machine.

use std::{collections::HashMap, path::Path as FsPath, time::Duration};

use nasbn_export::bundle::Bundle;
use nasbn_models::Path;
use serde_json::{Map, Value, json};

use super::{LatencyArgs, conditions, networks, noise, pairs, report, warn};
use crate::{
    board::Board,
    cli::{Failure, fingerprint, output, running, setup},
    journal,
    latency::{
        BlockTime, LatencyTable, NetworkTime, Timing,
        bench::{Bench, block_name, energy_of, network_name, run_times, throttled_rounds},
        distinct,
        record::Times,
    },
    parameters::Layout,
    path_table::PathTable,
};

/// A table, and the times that it was made of, which are to be removed once it is written.
pub struct Measured {
    pub table: LatencyTable,
    pub times: Times,
}

/// Measures blocks and networks and fits the table.
pub fn run(args: &LatencyArgs, bundle: &Bundle, out: &FsPath) -> Result<Measured, Failure> {
    let supernet = &bundle.manifest().supernet;
    let layout = Layout::new(supernet);
    let mut running = running::start(&args.run, None, Some(bundle))?;
    let (fit, check) = networks(supernet, args)?;
    // Before anything is written: what would not be measured on the provider is not measured.
    let path = match fit.iter().chain(&check).next() {
        Some(path) => path.clone(),
        None => setup::some_path(supernet, args.seed)?,
    };
    let placement = running.place(&args.run, bundle, &path, args.batch)?;
    let opener = running.opener()?;
    let before = Board::read(&args.root);
    if !args.output.quiet {
        warn(&before);
    }
    let conditions = conditions(bundle, &running, args.batch, &before);
    let of_blocks = args.rules(Duration::from_millis(20), Duration::from_millis(300), Duration::from_millis(15));
    let of_networks = args.rules(Duration::from_millis(50), Duration::from_millis(300), Duration::from_millis(30));
    let run: Map<String, Value> = [
        ("nasbn", json!(env!("CARGO_PKG_VERSION"))),
        ("conditions", json!(conditions)),
        ("blocks", json!(of_blocks)),
        ("networks", json!(of_networks)),
        ("networks of the fit (--networks, --seed)", json!(fingerprint::networks(supernet, &fit))),
        ("networks of the check (--check, --seed)", json!(fingerprint::networks(supernet, &check))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect();
    let file = journal::beside(out);
    let mut times = if args.resume { Times::resume(&file, &run)? } else { Times::create(&file, &run)? };
    let interrupted = setup::interrupted();
    let bar = output::bar(1000, args.output.quiet);
    let mut bench =
        Bench { opener: &opener, times: &mut times, root: &args.root, batch: args.batch, interrupted: &interrupted };
    let blocks = distinct(supernet);
    bar.set_message(format!("{} blocks", blocks.len()));
    let show = |share: f64| bar.set_position((1000.0 * share) as u64);
    bench.blocks(bundle, &blocks, &of_blocks, show)?;
    let all: Vec<Path> = fit.iter().chain(&check).cloned().collect();
    bar.set_message(format!("{} networks", all.len()));
    bench.networks(bundle, &layout, &all, &of_networks, show)?;
    bar.finish_and_clear();

    let mut block_times = Vec::new();
    for block in &blocks {
        let Some(timing) = Timing::of(times.of(&block_name(bundle, block))) else { continue };
        for &(edge, operator) in &block.members {
            let key = supernet.key(edge, operator);
            block_times.push(BlockTime { edge: edge as u16, operator, key, timing: timing.clone() });
        }
    }
    block_times.sort_by_key(|block| (block.edge, block.operator));
    let of_block = |edge: usize, operator: u8| {
        let is = |block: &&BlockTime| usize::from(block.edge) == edge && block.operator == operator;
        block_times.iter().find(is).map_or(0.0, |block| block.timing.statistic(args.statistic))
    };
    let sums = PathTable::of_edges(supernet, of_block);
    let mut table = LatencyTable::new(conditions, before, Board::read(&args.root), sums);
    (table.placement, table.statistic) = (placement, args.statistic);
    let timings: HashMap<&Path, Timing> =
        all.iter().filter_map(|path| Some((path, Timing::of(times.of(&network_name(bundle, path)))?))).collect();
    let latency = |path: &Path| timings.get(path).map(|timing| timing.statistic(args.statistic));
    let energy = |path: &Path| energy_of(&times, bundle, path);
    let energies = (pairs(&fit, energy), pairs(&check, energy));
    table.fit(supernet, &pairs(&fit, latency), &pairs(&check, latency), energies);
    // Those of the fit stand first.
    let whole = |(number, path): (usize, &Path)| {
        Some(NetworkTime {
            path: supernet.format_path(path),
            timing: timings.get(path)?.clone(),
            predicted_ms: table.latency(path),
            in_fit: number < fit.len(),
            energy_mj: energy(path),
        })
    };
    let networks = all.iter().enumerate().filter_map(whole).collect();
    (table.networks, table.throttled_rounds) = (networks, throttled_rounds(&times));
    let timings = || block_times.iter().map(|b| &b.timing).chain(table.networks.iter().map(|n| &n.timing));
    let noisy = timings().filter(|timing| timing.is_noisy()).count();
    let worst = timings().map(|timing| timing.variation).fold(0.0, f64::max);
    noise(noisy, timings().count(), worst, Some(args.statistic), args.output.quiet);
    table.blocks = block_times;
    if let Some(file) = &args.export_times {
        report::export_times(file, run_times(&times)).map_err(Failure::resumable)?;
    }
    Ok(Measured { table, times })
}
