//! Every row of Accel-NASBench: the parameters and, by the rule of its counter, the multiply-accumulates must be equal.
#![cfg(feature = "spec")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{env, path::Path as FsPath};

use nasbn_models::{
    BnPlacement, Path, Primitive, Selection, Supernet,
    cost::CostTable,
    spec::{self, SpaceOptions},
};

/// The published figures have six significant digits; this is half a unit of the last.
fn printed_digits(millions: f64) -> f64 {
    0.5 * 10f64.powf(millions.log10().floor() - 5.0) * (1.0 + 1e-9)
}

fn space(placement: BnPlacement) -> Supernet {
    let options = SpaceOptions { image_size: None, classes: None, width: 1.0, placement };
    spec::parse(spec::builtin("mnasnet").unwrap(), "mnasnet", &options).unwrap()
}

/// Layers that a block may have.
const LAYERS: [usize; 7] = [3, 3, 3, 3, 3, 4, 3];

/// The path of a network: names of its blocks' operators, and how many layers have them.
fn path(space: &Supernet, blocks: &[(String, usize)]) -> Path {
    let names = blocks.iter().zip(LAYERS).flat_map(|((name, layers), most)| {
        assert!((1..=most).contains(layers));
        (0..most).map(move |layer| if layer < *layers { name.as_str() } else { "identity" })
    });
    let mixed = space.edges.iter().filter(|edge| matches!(edge.selection, Selection::Mixed(_)));
    let choices = names.zip(mixed).map(|(name, edge)| {
        let named = |&operator: &u8| space.operators[usize::from(operator)].name == name;
        u8::try_from(space.candidates(edge).iter().position(named).unwrap()).unwrap()
    });
    Path::new(&choices.collect::<Vec<_>>()).unwrap()
}

/// What the published figure counts besides multiply-accumulates: four operations for every output of a BatchNorm, and
/// for every output of a pooling one more than it has pixels.
fn other_operations(space: &Supernet, path: &Path) -> u64 {
    let mut operations = 0;
    for (e, edge) in space.edges.iter().enumerate() {
        let operator = match edge.selection {
            Selection::Fixed(operator) => operator,
            Selection::Mixed(choice) => space.candidates(edge)[usize::from(path.choices()[usize::from(choice)])],
        };
        let program = space.deployed_program(e, operator).unwrap();
        for step in &program.steps {
            operations += match step.primitive {
                Primitive::BatchNorm => 4 * step.shape.elements(),
                Primitive::GlobalAvgPool => {
                    let input = program.steps[usize::from(step.inputs[0])].shape;
                    step.shape.elements() * (input.pixels() + 1)
                }
                _ => 0,
            };
        }
    }
    operations
}

#[test]
fn costs_equal_the_published_ones() {
    let file = FsPath::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/accel-nasbench/dev.csv");
    if !file.exists() {
        assert!(env::var_os("CI").is_none(), "{} is missing", file.display());
        eprintln!("SKIPPED: {} is missing", file.display());
        return;
    }
    for placement in [BnPlacement::EveryOperator, BnPlacement::Convolution] {
        let space = space(placement);
        let costs = CostTable::new(&space);
        let mut reader = csv::Reader::from_path(&file).unwrap();
        let headers = reader.headers().unwrap().clone();
        let column = |name: &str| headers.iter().position(|h| h == name).unwrap();
        let fields = ["expand", "kernel", "layers", "se"].map(column);
        let (macs_m, params_m) = (column("macs_m"), column("params_m"));
        let mut rows = 0;
        for record in reader.records() {
            let record = record.unwrap();
            let of = |i: usize| record[fields[i]].split('-').collect::<Vec<_>>();
            let [expand, kernel, layers, se] = [0, 1, 2, 3].map(of);
            let block = |b: usize| {
                let gate = if se[b] == "1" { "se" } else { "" };
                (format!("mb{}k{}{gate}", expand[b], kernel[b]), layers[b].parse().unwrap())
            };
            let path = path(&space, &(0..7).map(block).collect::<Vec<_>>());
            let cost = costs.cost(&path);
            let published = |column: usize| record[column].parse::<f64>().unwrap();
            let params = cost.params as f64 / 1e6;
            let operations = (cost.macs + other_operations(&space, &path)) as f64 / 1e6;
            for (ours, theirs) in [(params, published(params_m)), (operations, published(macs_m))] {
                assert!((ours - theirs).abs() <= printed_digits(theirs), "{ours} {theirs} in {record:?}");
            }
            let share = cost.macs as f64 / 1e6 / published(macs_m);
            assert!((0.85..0.97).contains(&share), "{share}");
            assert_eq!(cost.depth as usize, layers.iter().map(|l| l.parse::<usize>().unwrap()).sum::<usize>());
            assert_eq!(space.canonical(&path), path, "identities end a block");
            assert_eq!(space.parse_path(&space.format_path(&path)).unwrap(), path);
            rows += 1;
        }
        assert_eq!(rows, 1500);
    }
}

#[test]
fn the_space_has_22_layers_and_12_or_13_operators_each() {
    let space = space(BnPlacement::EveryOperator);
    assert_eq!(space.choices.len(), LAYERS.iter().sum::<usize>());
    assert_eq!(space.path_count(), 12u128.pow(7) * 13u128.pow(15));
    let timm = |name: &str| space.operators.iter().find(|o| o.name == name).unwrap().timm.clone();
    assert_eq!(timm("mb6k5se").as_deref(), Some("ir_r1_k5_s{s}_e6_c{c}_se0.25"));
    assert_eq!(timm("mb1k3se").as_deref(), Some("ds_r1_k3_s{s}_c{c}_se0.25"));
}
