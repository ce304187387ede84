//! The FBNet space as HW-NAS-Bench measures it: structure, costs, every architecture of the list, hostile channels.
#![cfg(feature = "spec")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{collections::HashMap, env, path::PathBuf};

use nasbn_models::{
    BnPlacement, Form, Layer, Operator, Path, Primitive, Program, Shape, Supernet, Width,
    canonical::CanonicalTable,
    cost::CostTable,
    program::ProgramError,
    sample,
    spec::{self, SpaceOptions},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

const OPTIONS: SpaceOptions =
    SpaceOptions { image_size: None, classes: None, width: 1.0, placement: BnPlacement::EveryOperator };
const LAYERS: usize = 22;
const SKIP: u8 = 8;

fn space(options: &SpaceOptions) -> Supernet {
    spec::parse(spec::builtin("fbnet").unwrap(), "fbnet", options).unwrap()
}

/// A file of HW-NAS-Bench's extracts, if it is there.
fn records(name: &str) -> Option<Vec<HashMap<String, String>>> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/hw-nas-bench").join(name);
    if !file.exists() {
        assert!(env::var_os("CI").is_none(), "{} is missing", file.display());
        eprintln!("SKIPPED: {} is missing", file.display());
        return None;
    }
    Some(csv::Reader::from_path(&file).unwrap().deserialize().map(Result::unwrap).collect())
}

/// A path of skips but for one layer.
fn alone(layer: usize, operator: u8) -> Path {
    let mut choices = [SKIP; LAYERS];
    choices[layer] = operator;
    Path::new(&choices).unwrap()
}

#[test]
fn every_architecture_of_the_list_is_a_path() {
    let Some(records) = records("fbnet_e2e_dev.csv") else { return };
    let space = space(&OPTIONS);
    let (costs, canonical) = (CostTable::new(&space), CanonicalTable::new(&space));
    for record in &records {
        let text = &record["ops"];
        let path = space.parse_path(text).unwrap();
        assert_eq!(space.format_path(&path), *text);
        assert_eq!(costs.cost(&path).depth as usize, text.split('-').filter(|&op| op != "8").count());
        assert_eq!(costs.cost(&canonical.of(&path)).macs, costs.cost(&path).macs);
    }
    assert_eq!(records.len(), 1500);
}

/// Multiply-accumulates and parameters of a block by the formulas of its layers, from what the table says of it.
fn by_hand(field: impl Fn(&str) -> u64) -> (u64, u64) {
    let [h, w, cin, cout, stride] = ["h", "w", "cin", "cout", "stride"].map(&field);
    let (before, after) = (h * w, h.div_ceil(stride) * w.div_ceil(stride));
    match field("expansion") {
        0 if stride == 1 && cin == cout => (0, 0),
        0 => (cin * cout * after, cin * cout + 2 * cout),
        expansion => {
            let [kernel, groups] = ["kernel", "groups"].map(&field);
            let hidden = expansion * cin;
            let (expand, depthwise, project) =
                (cin * hidden / groups, hidden * kernel * kernel, hidden * cout / groups);
            let norms = 2 * (2 * hidden + cout);
            (expand * before + (depthwise + project) * after, expand + depthwise + project + norms)
        }
    }
}

#[test]
fn shapes_and_costs_of_every_block_follow_the_table() {
    let Some(records) = records("fbnet_lut.csv") else { return };
    let space = space(&OPTIONS);
    let costs = CostTable::new(&space);
    let base = costs.cost(&alone(0, SKIP));
    let mut blocks = 0;
    for record in records.iter().filter(|r| r["device"] == "pixel3" && r["layers"] != "all") {
        let field = |name: &str| record[name].parse::<u64>().unwrap();
        let operator = space.operators.iter().position(|o| o.name == record["op"]).unwrap() as u8;
        let number = space.alphabet.iter().position(|&o| o == operator).unwrap() as u8;
        for layer in record["layers"].split(';').map(|l| l.parse::<usize>().unwrap()) {
            // Edge 0 is the stem.
            let edge = &space.edges[layer + 1];
            let from = space.nodes[usize::from(edge.from)].shape;
            let found = [from.height, from.width, from.channels, edge.channels, edge.stride.into()].map(u64::from);
            assert_eq!(found, ["h", "w", "cin", "cout", "stride"].map(field), "layer {layer}");
            let cost = costs.cost(&alone(layer, number));
            let skip = by_hand(|name| if name == "expansion" { 0 } else { field(name) });
            let block = by_hand(field);
            let expected = (base.macs + block.0 - skip.0, base.params + block.1 - skip.1);
            assert_eq!((cost.macs, cost.params), expected, "layer {layer}, {}", record["op"]);
            blocks += 1;
        }
    }
    assert_eq!(blocks, 9 * LAYERS);
}

#[test]
fn the_network_of_skips_by_hand() {
    let space = space(&OPTIONS);
    assert_eq!((space.image(), space.classes(), space.choices.len()), (Shape::new(3, 32, 32), 100, LAYERS));
    let cost = CostTable::new(&space).cost(&alone(0, SKIP));
    // Stem; six skips that change channels or size; head of 1504 features; classifier.
    let skips = [(16, 24, 32), (24, 32, 16), (32, 64, 8), (64, 112, 8), (112, 184, 4), (184, 352, 4)];
    let macs: u64 = skips.iter().map(|&(from, to, side)| from * to * side * side).sum();
    assert_eq!(cost.macs, 9 * 3 * 16 * 32 * 32 + macs + 352 * 1504 * 4 * 4 + 1504 * 100);
    let params: u64 = skips.iter().map(|&(from, to, _)| from * to + 2 * to).sum();
    assert_eq!(cost.params, 9 * 3 * 16 + 2 * 16 + params + 352 * 1504 + 2 * 1504 + 1504 * 100 + 100);
    assert_eq!(cost.depth, 0);
}

#[test]
fn a_skip_is_an_identity_where_shapes_stay_and_a_rectified_convolution_elsewhere() {
    let primitives = |placement, layer: usize| -> Vec<Primitive> {
        let space = space(&SpaceOptions { placement, ..OPTIONS });
        let skip = space.alphabet[usize::from(SKIP)];
        space.program(layer + 1, skip).unwrap().steps.iter().map(|s| s.primitive).collect()
    };
    let conv = |stride| Primitive::Conv { kernel: 1, stride, groups: 1, bias: false };
    for placement in [BnPlacement::EveryOperator, BnPlacement::Convolution] {
        for (layer, stride) in [(1, 1), (5, 2), (21, 1)] {
            let expected = [Primitive::Input, conv(stride), Primitive::BatchNorm, Primitive::Relu];
            assert_eq!(primitives(placement, layer), expected, "layer {layer}");
        }
    }
    for layer in [0, 2, 20] {
        assert_eq!(primitives(BnPlacement::Convolution, layer), [Primitive::Input]);
        assert_eq!(primitives(BnPlacement::EveryOperator, layer), [Primitive::Input, Primitive::BatchNorm]);
    }
}

#[test]
fn skips_stand_last_in_the_canonical_path_where_they_are_identities() {
    let space = space(&OPTIONS);
    // Layer 0; the first layer of each stage has its own shape, the next three are interchangeable.
    let path = space.parse_path("8-8-8-3-8-1-8-8-2-8-4-5-6-7-8-8-8-0-8-8-1-8").unwrap();
    let canonical = "8-8-3-8-8-1-2-8-8-8-4-5-6-7-8-8-8-0-1-8-8-8";
    assert_eq!(space.format_path(&space.canonical(&path)), canonical);
    let fillings: u128 = 1 + 8 + 8 * 8 + 8 * 8 * 8;
    assert_eq!(CanonicalTable::new(&space).count(&space), 9 * 9 * (9 * fillings).pow(5));
    assert_eq!(space.path_count(), 9u128.pow(22));
}

#[test]
fn grouped_blocks_shuffle_between_their_convolutions() {
    let space = space(&OPTIONS);
    let program = space.program(1, space.alphabet[1]).unwrap();
    let conv = |kernel, groups| Primitive::Conv { kernel, stride: 1, groups, bias: false };
    let (norm, relu) = (Primitive::BatchNorm, Primitive::Relu);
    let shuffle = Primitive::ChannelShuffle { groups: 2 };
    let expected =
        [Primitive::Input, conv(1, 2), norm, relu, shuffle, conv(3, 16), norm, relu, conv(1, 2), norm, Primitive::Add];
    assert_eq!(program.steps.iter().map(|s| s.primitive).collect::<Vec<_>>(), expected);
    let timm = |name: &str| space.operators.iter().find(|o| o.name == name).unwrap().timm.clone();
    assert_eq!(timm("k5_e1").as_deref(), Some("ir_r1_k5_s{s}_e1_c{c}"));
    assert_eq!(timm("k3_e6").as_deref(), Some("ir_r1_k3_s{s}_e6_c{c}"));
    assert_eq!((timm("k3_e1_g2"), timm("skip").as_deref()), (None, Some("cn_r1_k1_s{s}_c{c}")));
}

fn built(layers: Vec<Layer>, input: u32, output: u32) -> Result<Program, ProgramError> {
    let operator = Operator { name: "o".into(), form: Form::Layers { layers, residual: false }, timm: None };
    Program::build(&operator, Shape::new(input, 4, 4), Shape::new(output, 4, 4), 1, false)
}

#[test]
fn groups_that_do_not_divide_are_told_with_what_would() {
    let conv = |groups| Layer::GroupedConv { kernel: 1, width: Width::Output, groups, strided: false };
    assert!(built(vec![conv(2)], 6, 4).is_ok());
    for (groups, input, output) in [(2, 3, 4), (2, 4, 3), (0, 4, 4), (3, 4, 4), (u32::MAX, 4, 4), (8, 4, 4)] {
        let error = built(vec![conv(groups)], input, output).unwrap_err();
        assert_eq!(error, ProgramError::Groups { groups, input, output });
        assert!(error.to_string().contains("divide both numbers"), "{error}");
    }
    for groups in [0, 3, 8, u32::MAX] {
        let error = built(vec![Layer::ChannelShuffle { groups }], 4, 4).unwrap_err();
        assert_eq!(error, ProgramError::Groups { groups, input: 4, output: 4 });
    }
}

#[test]
fn widths_keep_groups_whole_unless_the_divisor_is_odd() {
    for width in [0.01, 0.1, 0.3, 0.77, 1.3] {
        space(&SpaceOptions { width, ..OPTIONS });
    }
    let text = spec::builtin("fbnet").unwrap().replace("classes = 100", "classes = 100\ndivisor = 3");
    assert!(spec::parse(&text, "odd.toml", &OPTIONS).is_ok(), "a width of 1 scales nothing");
    let error = spec::parse(&text, "odd.toml", &SpaceOptions { width: 0.5, ..OPTIONS }).unwrap_err();
    let words = "operator `k3_e1_g2` does not fit: a layer from 9 to 9 channels cannot have 2 groups";
    assert!(error.problem.contains(words) && error.problem.contains("`divisor`"), "{error}");
    let layer = text[..text.find("out = 16\n\n[[layer]]\ncandidates").unwrap()].matches('\n').count() + 3;
    assert_eq!(error.line, layer, "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn mistakes_in_groups_get_their_line() {
    let text = spec::builtin("fbnet").unwrap();
    for (from, to, words) in [
        ("width = \"same\", groups = 2", "width = \"same\", groups = 0", "`groups` is 0; it must be at least 1"),
        ("width = \"same\", groups = 2", "width = \"same\", groups = -2", "invalid value"),
        ("\"channel-shuffle\", groups = 2", "\"channel-shuffle\"", "needs `groups`"),
        ("\"channel-shuffle\", groups = 2", "\"channel-shuffle\", kernel = 3", "it takes `groups`"),
        ("{ layer = \"relu\" }", "{ layer = \"relu\", groups = 2 }", "it takes no fields"),
        ("depthwise = true", "depthwise = true, groups = 2", "`groups` must be left out"),
        ("kind = \"skip\"", "kind = \"skip\"\nkernel = 3", "an operator of kind `skip` has no `kernel`"),
    ] {
        let line = text[..text.find(from).unwrap()].matches('\n').count() + 1;
        let error = spec::parse(&text.replacen(from, to, 1), "my.toml", &OPTIONS).unwrap_err();
        assert!(error.problem.contains(words), "{to:?}: {error}");
        assert_eq!(error.line - to.matches('\n').count(), line, "{to:?}: {error}");
    }
    // One group is a plain convolution.
    let plain = spec::parse(&text.replace(", groups = 2", ", groups = 1"), "one.toml", &OPTIONS).unwrap();
    let layers = plain.operators.iter().flat_map(|o| match &o.form {
        Form::Layers { layers, .. } => layers.as_slice(),
        _ => &[],
    });
    assert!(layers.clone().all(|layer| !matches!(layer, Layer::GroupedConv { .. })));
    assert!(layers.clone().any(|layer| matches!(layer, Layer::ChannelShuffle { groups: 1 })));
}

#[test]
fn mangled_files_and_supernets_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let text = spec::builtin("fbnet").unwrap();
    let narrow = SpaceOptions { width: 0.1, ..OPTIONS };
    for _ in 0..1000 {
        let mut mangled = text.as_bytes().to_vec();
        let at = sample::below(&mut rng, mangled.len() as u32) as usize;
        mangled[at] = 32 + sample::below(&mut rng, 95) as u8;
        if let Ok(space) = spec::parse(std::str::from_utf8(&mangled).unwrap(), "mangled", &narrow) {
            space.validate().unwrap();
        }
    }
    let bytes = postcard::to_allocvec(&space(&narrow)).unwrap();
    let mut refused = 0;
    for _ in 0..3000 {
        let mut mangled = bytes.clone();
        let at = sample::below(&mut rng, bytes.len() as u32) as usize;
        mangled[at] = sample::below(&mut rng, 256) as u8;
        let Ok(space) = postcard::from_bytes::<Supernet>(&mangled) else { continue };
        match space.validate() {
            Ok(()) => {
                let path = sample::uniform(&space, &mut rng);
                CostTable::new(&space).cost(&space.canonical(&path));
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
}
