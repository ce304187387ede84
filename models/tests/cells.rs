//! Cell spaces: sums, concatenations, absent edges, shared choices; and what holds in every space.
#![cfg(feature = "spec")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use nasbn_models::{
    BnPlacement, Combine, Primitive, Selection, Supernet,
    canonical::CanonicalTable,
    cost::CostTable,
    sample,
    spec::{self, SpaceOptions},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

const OPTIONS: SpaceOptions =
    SpaceOptions { image_size: None, classes: None, width: 1.0, placement: BnPlacement::EveryOperator };

fn tiny() -> Supernet {
    spec::parse(include_str!("fixtures/tiny-cell.toml"), "tiny-cell.toml", &OPTIONS).unwrap()
}

fn builtin(name: &str, options: &SpaceOptions) -> Supernet {
    spec::parse(spec::builtin(name).unwrap(), name, options).unwrap()
}

#[test]
fn repeated_cells_share_their_choices() {
    let space = tiny();
    assert_eq!(space.choices.len(), 7);
    assert_eq!(space.path_count(), 4u128.pow(6) * 2);
    let sharing = space.edges.iter().filter(|e| e.selection == Selection::Mixed(0)).count();
    assert_eq!(sharing, 2);
    assert_eq!(space.choices[3].name, "normal 0->3");
}

#[test]
fn nodes_sum_or_concatenate_and_edges_may_be_absent() {
    let space = tiny();
    let concat: Vec<_> = space.nodes.iter().filter(|n| n.combine == Combine::Concat).collect();
    assert_eq!(concat.len(), 1);
    assert_eq!(concat[0].shape.channels, 24);
    let path = space.parse_path("0202010").unwrap();
    let absent = space
        .edges
        .iter()
        .enumerate()
        .filter(|(e, edge)| space.program(*e, space.operator_on(edge, &path)).unwrap().is_absent());
    assert_eq!(absent.count(), 7);
}

#[test]
fn a_path_without_a_way_through_is_not_connected() {
    let space = tiny();
    assert!(!space.is_connected(&space.parse_path("0000000").unwrap()));
    assert!(space.is_connected(&space.parse_path("0001000").unwrap()));
    assert!(space.is_connected(&space.parse_path("1010010").unwrap()));
    assert!(!space.is_connected(&space.parse_path("1000000").unwrap()));
    // Two nodes of either cell that are joined to each other alone, and one of the last cell.
    let reached = space.reached(&space.parse_path("0022000").unwrap());
    assert_eq!((reached.len(), reached.iter().filter(|reached| !**reached).count()), (space.nodes.len(), 5));
}

#[test]
fn fairness_gives_every_candidate_a_bn_and_deployment_takes_it_away() {
    let space = tiny();
    let norms = |program: nasbn_models::Program| program.batch_norms().count();
    for (e, edge) in space.edges.iter().enumerate() {
        for &operator in space.candidates(edge) {
            let program = space.program(e, operator).unwrap();
            let mixed = matches!(edge.selection, Selection::Mixed(_));
            if mixed && !program.is_absent() {
                assert!(norms(program) >= 1);
            }
        }
    }
    let skip = space.operators.iter().position(|o| o.name == "skip").unwrap() as u8;
    let edge = space.edges.iter().position(|e| e.selection == Selection::Mixed(0)).unwrap();
    assert_eq!(norms(space.program(edge, skip).unwrap()), 1);
    assert_eq!(norms(space.deployed_program(edge, skip).unwrap()), 0);
    let fair = space.program(edge, skip).unwrap();
    assert_eq!(fair.steps.last().unwrap().primitive, Primitive::BatchNorm);
}

#[test]
fn costs_of_a_cell_path_equal_a_sum_by_hand() {
    let space = tiny();
    let costs = CostTable::new(&space);
    // Stem 3->8 and reduction 8->12, 3x3 with BN; one 3x3 conv per cell on 0->3; the squeezed block on 12
    // channels; head on 24 channels.
    let path = space.parse_path("0002000").unwrap();
    let cost = costs.cost(&path);
    let (big, small) = (8 * 8u64, 4 * 4u64);
    let macs = 9 * 3 * 8 * big
        + 9 * 8 * 8 * big
        + 9 * 8 * 12 * small
        + 9 * 12 * 12 * small
        + (12 * 24 * small + 9 * 24 * small + 2 * 24 * 3 + 24 * 12 * small)
        + 24 * 32 * small
        + 32 * 10;
    assert_eq!(cost.macs, macs);
    // The choice stands in both cells.
    assert_eq!(cost.depth, 2);
    let none = costs.cost(&space.parse_path("0000000").unwrap());
    assert_eq!(cost.macs - none.macs, 9 * 8 * 8 * big + 9 * 12 * 12 * small);
}

#[test]
fn text_canonical_and_sampling_agree_on_every_space() {
    let narrow = SpaceOptions { width: 0.25, image_size: Some(64), classes: Some(7), ..OPTIONS };
    for space in [tiny(), builtin("mobilenet", &narrow), builtin("nas-bench-macro", &narrow)] {
        let (costs, table) = (CostTable::new(&space), CanonicalTable::new(&space));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..500 {
            let path = sample::uniform(&space, &mut rng);
            assert!(space.contains(&path));
            assert_eq!(space.parse_path(&space.format_path(&path)).unwrap(), path);
            let canonical = space.canonical(&path);
            assert_eq!(space.canonical(&canonical), canonical);
            assert_eq!(table.of(&path), canonical);
            assert!(table.is_canonical(&canonical));
            let (a, b) = (costs.cost(&path), costs.cost(&canonical));
            assert_eq!((a.macs, a.params, a.depth), (b.macs, b.params, b.depth));
            let mutated = sample::mutate(&space, &path, 0.5, &mut rng);
            assert!(space.contains(&mutated) && space.contains(&sample::crossover(&path, &mutated, &mut rng)));
        }
    }
}

#[test]
fn wrong_paths_name_the_nearest_right_one() {
    let space = builtin("nas-bench-macro", &OPTIONS);
    let nearest = |text: &str| space.parse_path(text).unwrap_err().nearest;
    assert_eq!(nearest("2221222"), "22212220");
    assert_eq!(nearest("222122209"), "22212220");
    assert_eq!(nearest("22912220"), "22212220");
    assert!(space.parse_path("22912220").unwrap_err().to_string().contains("position 3"));
    for text in ["", "ß", "----", "99999999999999999999999999999999999999999999999999999999999999999999999999"] {
        assert!(space.parse_path(&nearest(text)).is_ok(), "{text}");
    }
    let mobilenet = builtin("mobilenet", &OPTIONS);
    let error = mobilenet.parse_path("011111111111111111111").unwrap_err();
    assert_eq!(error.nearest, "111111111111111111111");
}

#[test]
fn the_number_of_canonical_paths_needs_no_enumeration() {
    let stages = "[[layer]]\ncandidates = [\"skip\", \"conv3\", \"pool3\"]\nout = 8\nrepeat = 4\n\
                  [[layer]]\noperator = \"reduce\"\nout = 8\n\
                  [[layer]]\ncandidates = [\"conv3\", \"skip\"]\nout = 8\n\
                  [[layer]]\ncandidates = [\"skip\", \"conv3\"]\nout = 8\nrepeat = 2\n";
    let text = include_str!("fixtures/tiny-cell.toml");
    let (head, tail) = text.split_at(text.find("[[layer]]\ncell = \"normal\"").unwrap());
    let chain = format!("{head}{stages}{}", &tail[tail.rfind("[[layer]]").unwrap()..]);
    let chain = spec::parse(&chain, "chain.toml", &OPTIONS).unwrap();
    for (space, expected) in [(chain, (1 + 2 + 4 + 8 + 16) * 2 * (1 + 1 + 1)), (tiny(), 4u128.pow(6) * 2)] {
        let table = CanonicalTable::new(&space);
        assert_eq!(table.count(&space), expected);
        assert_eq!(space.paths().filter(|p| table.is_canonical(p)).count() as u128, expected);
    }
    let mobilenet = builtin("mobilenet", &OPTIONS);
    // Five stages of one layer of six blocks and three with identities; one last layer.
    let stage = 6 * (1 + 6 + 36 + 216);
    assert_eq!(CanonicalTable::new(&mobilenet).count(&mobilenet), 6 * u128::pow(stage, 5));
}
