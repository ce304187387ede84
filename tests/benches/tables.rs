//! Paths a second that tables score on one core, on nas-bench-macro:
//! `cargo bench -p nasbn-tests --bench tables`.
//!
//! The best of several sweeps over all paths of the space: what the machine can do when nobody else uses it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use nasbn_models::{
    BnPlacement, Path,
    spec::{self, SpaceOptions},
};
use nasbn_runtime::{
    composite::Composite,
    indicators::bn::BnTable,
    parameters::{BnParameters, Layout},
    path_table::PathTable,
};

/// How long a table is measured, at least.
const MEASURE: Duration = Duration::from_secs(2);

fn main() {
    let options = SpaceOptions { placement: BnPlacement::EveryOperator, width: 1.0, image_size: None, classes: None };
    let text = spec::builtin("nas-bench-macro").unwrap();
    let supernet = spec::parse(text, "nas-bench-macro", &options).unwrap();
    let paths: Vec<Path> = supernet.paths().collect();
    let layout = Layout::new(&supernet);
    let bn = BnTable::new(&supernet, &layout, &BnParameters::initial(&layout));
    let table = |factor: usize| {
        PathTable::of_edges(&supernet, |edge, operator| ((edge * factor + usize::from(operator)) as f64).sin())
    };
    let (one, parts) = (table(3), vec![("e", 2.0, table(3)), ("t", 1.0, table(5)), ("u", 1.0, table(7))]);
    let composite = Composite::new(parts, &paths);
    rate("BnTable::all", &paths, |path| bn.all(path));
    rate("BnTable::last", &paths, |path| bn.last(path));
    rate("PathTable::value", &paths, |path| one.value(path));
    rate("Composite::score, three parts", &paths, |path| composite.score(path));
}

fn rate(name: &str, paths: &[Path], score: impl Fn(&Path) -> f64) {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    while begin.elapsed() < MEASURE {
        let start = Instant::now();
        black_box(paths.iter().map(|path| score(black_box(path))).sum::<f64>());
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name}: {:.1} million paths a second", paths.len() as f64 / best / 1e6);
}
