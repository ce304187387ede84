//! `nasbn latency --bundle`: the table of this machine.

use std::{path::Path as FsPath, time::Duration};

use nasbn_export::bundle::Bundle;
use nasbn_models::{Path, Supernet};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{LatencyArgs, conditions, networks, noise, pairs, report};
use crate::{
    board::{
        Board,
        energy::{EnergyMeter, INTERVAL},
        power::Rails,
    },
    cli::{Failure, fingerprint, output, running, setup},
    journal,
    latency::{
        BlockTime, LatencyTable, NetworkTime, Timing,
        bench::{Bench, THROTTLED, block_name, energy_of, network_name},
        distinct,
        record::Times,
    },
    parameters::Layout,
    path_table::PathTable,
};

/// Names networks, in their order.
fn names(supernet: &Supernet, paths: &[Path]) -> String {
    let texts: Vec<String> = paths.iter().map(|path| supernet.format_path(path)).collect();
    fingerprint::hex(&Sha256::digest(texts.join("\n")))
}

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
        before.warnings().iter().for_each(|warning| output::words(format_args!("warning: {warning}")));
    }
    let conditions = conditions(bundle, &running, args.batch, &before);
    let of_blocks = args.rules(Duration::from_millis(20), Duration::from_millis(300), Duration::from_millis(15));
    let of_networks = args.rules(Duration::from_millis(50), Duration::from_millis(300), Duration::from_millis(30));
    let run: Map<String, Value> = [
        ("nasbn", json!(env!("CARGO_PKG_VERSION"))),
        ("conditions", json!(conditions)),
        ("blocks", json!(of_blocks)),
        ("networks", json!([of_networks, names(supernet, &fit), names(supernet, &check)])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect();
    let file = journal::beside(out);
    let mut times = if args.resume { Times::resume(&file, &run)? } else { Times::create(&file, &run)? };
    let interrupted = setup::interrupted();
    let bar = output::bar(1000, args.output.quiet);
    let mut bench = Bench {
        opener: &opener,
        times: &mut times,
        root: &args.root,
        batch: args.batch,
        interrupted: &interrupted,
        throttled: 0,
    };
    let blocks = distinct(supernet);
    bar.set_message(format!("{} blocks", blocks.len()));
    let show = |share: f64| bar.set_position((1000.0 * share) as u64);
    bench.blocks(bundle, &blocks, &of_blocks, show)?;
    let meter = Rails::find(&args.root).and_then(|rails| EnergyMeter::new(rails, INTERVAL).ok());
    let all: Vec<Path> = fit.iter().chain(&check).cloned().collect();
    bar.set_message(format!("{} networks", all.len()));
    bench.networks(bundle, &layout, &all, &of_networks, meter.as_ref(), show)?;
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
    let median = |edge: usize, operator: u8| {
        let is = |block: &&BlockTime| usize::from(block.edge) == edge && block.operator == operator;
        block_times.iter().find(is).map_or(0.0, |block| block.timing.median_ms)
    };
    let sums = PathTable::of_edges(supernet, median);
    let mut table = LatencyTable::new(conditions, before, Board::read(&args.root), sums);
    table.placement = placement;
    let timing = |path: &Path| Timing::of(times.of(&network_name(bundle, path)));
    let latency = |path: &Path| timing(path).map(|timing| timing.median_ms);
    let energy = |path: &Path| energy_of(&times, bundle, path);
    let energies = (pairs(&fit, energy), pairs(&check, energy));
    table.fit(supernet, &pairs(&fit, latency), &pairs(&check, latency), energies);
    let whole = |(path, in_fit): (&Path, bool)| {
        let predicted_ms = table.latency(path);
        let (path, energy_mj) = (supernet.format_path(path), energy(path));
        move |timing| NetworkTime { path, timing, predicted_ms, in_fit, energy_mj }
    };
    let taken = fit.iter().map(|path| (path, true)).chain(check.iter().map(|path| (path, false)));
    let networks: Vec<NetworkTime> =
        taken.filter_map(|(path, in_fit)| timing(path).map(whole((path, in_fit)))).collect();
    (table.networks, table.throttled_rounds) = (networks, times.of(THROTTLED).len() as u32);
    let timings = || block_times.iter().map(|b| &b.timing).chain(table.networks.iter().map(|n| &n.timing));
    let noisy = timings().filter(|timing| timing.is_noisy()).count();
    let worst = timings().map(|timing| timing.variation).fold(0.0, f64::max);
    noise(noisy, timings().count(), worst, args.output.quiet);
    table.blocks = block_times;
    if let Some(file) = &args.export_times {
        report::export_times(
            file,
            times.all().iter().filter(|(name, _)| !name.starts_with("energy ") && *name != THROTTLED),
        )?;
    }
    Ok(Measured { table, times })
}
