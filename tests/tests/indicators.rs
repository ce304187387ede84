//! Indicators on whole paths against slow, obvious twins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::HashMap, fs, path::Path as FsPath, sync::Mutex};

use nasbn_export::{
    bundle::{
        Bundle,
        write::{BuildOptions, write},
    },
    ir::Op,
    reference::{Feeds, evaluate},
    roles,
};
use nasbn_models::{
    BnPlacement, Combine, Path, Supernet,
    manifest::{Lowering, MemoryMode, Port},
    sample,
    spec::{self, SpaceOptions},
};
use nasbn_runtime::{
    data::Batch,
    indicators::{
        catalogue::{Measurement, Selection},
        ntk::{self, Outputs, Parameters},
        signs,
        synflow::log_synflow,
        uncertainty::logits,
        zen::{self, Noise},
    },
    network::{Network, NetworkOptions},
    ort_library,
    parameters::{BnParameters, Statistics},
    score::{Images, ScoreOptions, Scorer},
};
use ndarray::{Array2, Array4, ArrayD, Axis, IxDyn};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use safetensors::SafeTensors;

/// The log of a sum of some hundred thousand products in float32 against float64.
const LOG: f64 = 1e-4;
/// Logits of order one in two float32 lowerings.
const CLOSE: f32 = 1e-4;
/// The Zen-score in two float32 lowerings: the log of a difference that has lost two of its digits.
const ZEN: f64 = 1e-3;

const SPACES: [(&str, &str, u32, f64); 2] = [
    ("tiny-cell", include_str!("../../models/tests/fixtures/tiny-cell.toml"), 8, 1.0),
    ("nas-bench-macro", include_str!("../../models/spaces/nas-bench-macro.toml"), 8, 0.25),
];

/// ONNX Runtime's environment is one per process; tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn bundle(dir: &FsPath, (name, text, size, width): (&str, &str, u32, f64)) -> Bundle {
    let placement = BnPlacement::EveryOperator;
    let options = SpaceOptions { image_size: Some(size), classes: Some(10), width, placement };
    let supernet = spec::parse(text, name, &options).unwrap();
    let out = dir.join(name);
    write(&supernet, &BuildOptions { seed: 5, weights: None, force: false }, &out, &mut |_| {}).unwrap();
    Bundle::open(&out).unwrap()
}

fn network(bundle: &Bundle, lowering: Lowering) -> Network {
    let library = ort_library::locate(None).expect("ONNX Runtime is provisioned by `cargo xtest`");
    let environment = ort_library::load(&library, 1).unwrap();
    let options = NetworkOptions { memory: MemoryMode::Lean, lowering };
    let network = Network::new(environment, bundle.dir(), bundle.manifest(), options).unwrap();
    assert_eq!(network.options().lowering, lowering);
    network
}

fn batch(size: usize, rng: &mut ChaCha8Rng) -> Batch {
    let images = Array4::from_shape_simple_fn((size, 3, 8, 8), || rng.next_u32() as f32 / u32::MAX as f32 - 0.5);
    Batch { images, labels: (0..size as i64).map(|i| i % 10).collect() }
}

/// Magnitudes of every weight of a bundle.
fn magnitudes(bundle: &Bundle) -> HashMap<String, ArrayD<f64>> {
    let manifest = bundle.manifest();
    let bytes = fs::read(bundle.dir().join(&manifest.files[manifest.weights_file as usize].name)).unwrap();
    let read = |(name, tensor): (String, safetensors::tensor::TensorView<'_>)| {
        let values = tensor.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b).abs())).collect();
        (name, ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).unwrap())
    };
    SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter().map(read).collect()
}

/// Sum of the outputs on an image of ones in f64, BatchNorms of mean 0, variance 1, gamma 1 and beta 0; and
/// the weights that took part.
fn output(supernet: &Supernet, path: &Path, weights: &HashMap<String, ArrayD<f64>>) -> (f64, Vec<String>) {
    const EPSILON: f64 = 1e-5;
    let image = supernet.image();
    let extents = [1, image.channels as usize, image.height as usize, image.width as usize];
    let mut nodes: Vec<Option<ArrayD<f64>>> = vec![None; supernet.nodes.len()];
    nodes[0] = Some(ArrayD::ones(IxDyn(&extents)));
    let mut used = Vec::new();
    for (e, edge) in supernet.edges.iter().enumerate() {
        let operator = supernet.operator_on(edge, path);
        let (program, key) = (supernet.program(e, operator).unwrap(), supernet.key(e, operator));
        let shape = supernet.edge_shape(edge);
        let zeros = || ArrayD::zeros(IxDyn(&[1, shape.channels as usize, shape.height as usize, shape.width as usize]));
        let y = match &nodes[usize::from(edge.from)] {
            Some(x) if !program.is_absent() => {
                let graph = roles::evaluation(&program).unwrap();
                let mut feeds = Feeds { epsilon: EPSILON, ..Feeds::default() };
                for (port, value) in graph.inputs() {
                    let constant = |value: f64, dims: &[usize]| ArrayD::from_elem(IxDyn(dims), value);
                    let dims = graph.dims(value).unwrap().sizes(1);
                    let fed = match port {
                        Port::X => x.clone(),
                        Port::Gamma(_) => constant(1.0, &dims),
                        Port::Var(_) => constant(1.0 - EPSILON, &dims),
                        _ => constant(0.0, &dims),
                    };
                    feeds.ports.insert(port, fed);
                }
                for node in graph.nodes() {
                    if let Op::Weight(name) = &node.op {
                        let full = format!("{key}.{name}");
                        feeds.weights.insert(name.clone(), weights[&full].clone());
                        used.push(full);
                    }
                }
                evaluate(&graph, &feeds).unwrap().remove(0).1
            }
            _ => zeros(),
        };
        let to = usize::from(edge.to);
        nodes[to] = Some(match nodes[to].take() {
            None => y,
            Some(before) if supernet.nodes[to].combine == Combine::Concat => {
                ndarray::concatenate(Axis(1), &[before.view(), y.view()]).unwrap()
            }
            Some(before) => before + y,
        });
    }
    (nodes.pop().flatten().unwrap().sum(), used)
}

/// The outputs are affine in every weight tensor, so its `sum of w dR/dw` is what doubling it adds.
#[test]
fn synflow_is_what_doubling_each_weight_adds_to_the_outputs() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for space in SPACES {
        let bundle = bundle(dir.path(), space);
        let supernet = bundle.manifest().supernet.clone();
        let mut network = network(&bundle, Lowering::Fused);
        let mut weights = magnitudes(&bundle);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..2 {
            let path = sample::uniform(&supernet, &mut rng);
            let (whole, used) = output(&supernet, &path, &weights);
            let mut expected = 0.0;
            for name in used {
                let kept = weights[&name].clone();
                weights.insert(name.clone(), 2.0 * &kept);
                expected += output(&supernet, &path, &weights).0 - whole;
                weights.insert(name, kept);
            }
            let found = log_synflow(&mut network, &path).unwrap();
            let text = supernet.format_path(&path);
            assert!((found - expected.ln()).abs() < LOG, "{} {text}: {found} against {}", space.0, expected.ln());
        }
    }
}

#[test]
fn fused_and_portable_graphs_give_the_same_evaluation_and_zen_score() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for space in SPACES {
        let bundle = bundle(dir.path(), space);
        let supernet = bundle.manifest().supernet.clone();
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let (train, unseen) = ([batch(16, &mut rng), batch(16, &mut rng)], [batch(7, &mut rng), batch(4, &mut rng)]);
        for _ in 0..3 {
            let path = sample::uniform(&supernet, &mut rng);
            let both = [Lowering::Portable, Lowering::Fused].map(|lowering| {
                let mut network = network(&bundle, lowering);
                let parameters = BnParameters::initial(network.layout());
                let statistics: Vec<Statistics> = train
                    .iter()
                    .map(|batch| {
                        let mut statistics = Statistics::standard(network.layout());
                        let images = batch.images.view();
                        network.forward(&path, &parameters, images, &mut statistics, false).unwrap();
                        statistics
                    })
                    .collect();
                let logits = logits(&mut network, &path, &parameters, &statistics, &unseen).unwrap();
                let noise = Noise::new(&network, 8, 1);
                (logits, zen::score(&mut network, &path, &noise).unwrap())
            });
            let [(portable, portable_zen), (fused, fused_zen)] = both;
            assert_eq!(portable.dim(), (2, 11, 10));
            let error = portable.iter().zip(&fused).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(error < f64::from(CLOSE), "{}: {error:e}", supernet.format_path(&path));
            // Statistics of another mini-batch give other logits.
            let between = (&portable.index_axis(Axis(0), 0) - &portable.index_axis(Axis(0), 1)).mapv(f64::abs).sum();
            assert!(between > 100.0 * error);
            assert!((portable_zen - fused_zen).abs() < ZEN, "{portable_zen} against {fused_zen}");
        }
    }
}

/// Columns of signs and of the kernel are what is measured without a table, each under its own name.
#[test]
fn columns_of_signs_and_of_the_kernel_are_their_measurements() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), SPACES[1]);
    let mut network = network(&bundle, Lowering::Fused);
    let (supernet, layout) = (network.supernet().clone(), network.layout().clone());
    let parameters = BnParameters::initial(&layout);
    let path = supernet.parse_path("22212220").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let images = Images { training: vec![batch(12, &mut rng)], ..Images::default() };
    let Batch { images: pixels, labels } = &images.training[0];
    for ntk_outputs in [Outputs::Sum, Outputs::EachClass] {
        let options = ScoreOptions {
            selection: Selection::of(|i| matches!(i.measurement, Measurement::Signs | Measurement::Kernel)),
            recalibrate: 1,
            mc_batches: 2,
            ntk_outputs,
            adapt: None,
            noise_images: 4,
            seed: 0,
        };
        let names: Vec<&str> = options.selection.indicators().iter().map(|i| i.name).collect();
        let values = Scorer::new(&mut network, &parameters, &images, options).values(&path).unwrap();
        let mut statistics = Statistics::standard(&layout);
        let pass = network.forward_for_indicators(&path, &parameters, pixels.view(), &mut statistics).unwrap();
        let agreement = network.sign_agreement(&parameters, &statistics, &pass).unwrap();
        let theta = ntk::kernel(&mut network, &parameters, &statistics, &pass, ntk_outputs).unwrap();
        let mut shared = Array2::zeros(theta.dim());
        for seed in ntk_outputs.seeds(labels.len(), 10) {
            let jacobian = network.jacobian(&parameters, &statistics, &pass, seed.view()).unwrap();
            ntk::add_gram(&mut shared, &jacobian, Parameters::Shared(&supernet, &layout));
        }
        let summary = ntk::summary(theta.view(), labels).unwrap();
        assert!(!summary.ill_conditioned);
        let expected = [
            ("sign_log_det", signs::unscaled_log_determinant(&agreement).unwrap().unwrap()),
            ("sign_log_det_scaled", signs::log_determinant(&agreement).unwrap().unwrap()),
            ("ntk_condition", summary.condition_number),
            ("ntk_least", summary.least_eigenvalue),
            ("ntk_trace", summary.trace),
            ("ntk_effective_rank", summary.effective_rank.unwrap()),
            ("ntk_alignment", summary.label_alignment.unwrap()),
            ("ntk_shared_log_det", ntk::log_determinant(shared.view()).unwrap()),
        ];
        assert_eq!(names.into_iter().zip(values).collect::<Vec<_>>(), expected, "{ntk_outputs:?}");
        for (i, (name, value)) in expected.iter().enumerate() {
            assert!(value.is_finite() && expected[..i].iter().all(|(_, other)| other != value), "{name}: {value}");
        }
    }
}

/// An operator that the image does not get to is run on zeros: its variance is no part of the score.
#[test]
fn the_zen_score_is_of_what_the_image_gets_to() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), SPACES[0]);
    let supernet = bundle.manifest().supernet.clone();
    for lowering in [Lowering::Fused, Lowering::Portable] {
        let mut network = network(&bundle, lowering);
        let noise = Noise::new(&network, 8, 1);
        let mut score = |path: &str| zen::score(&mut network, &supernet.parse_path(path).unwrap(), &noise).unwrap();
        // 0->1 none, 0->2 none, 1->2 conv3, 0->3 conv3: nothing gets to node 1.
        let (behind, without) = (score("0022000"), score("0002000"));
        assert!(behind.is_finite(), "{behind}");
        assert_eq!(behind, without, "{lowering:?}");
        assert_eq!(score("0022020"), without, "zeros through one more");
        assert_ne!(score("1022000"), without, "what the image gets to counts");
    }
}

/// A cell whose last node is a sum just before the head: without an edge there is nothing at all.
#[test]
fn a_network_that_does_not_see_the_noise_has_the_lowest_zen_score() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let tiny = SPACES[0].1;
    let text = tiny.replace("\n[[layer]]\ncell = \"joined\"\nout = 12\n", "");
    assert_ne!(text, tiny);
    let bundle = bundle(dir.path(), ("sums", &text, 8, 1.0));
    let supernet = bundle.manifest().supernet.clone();
    let mut network = network(&bundle, Lowering::Fused);
    let noise = Noise::new(&network, 4, 1);
    for (path, finite) in [("000000", false), ("100000", false), ("000200", true)] {
        let path = supernet.parse_path(path).unwrap();
        let score = zen::score(&mut network, &path, &noise).unwrap();
        assert!(if finite { score.is_finite() } else { score == f64::NEG_INFINITY }, "{path:?}: {score}");
    }
}

#[test]
fn equal_networks_are_measured_once() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), SPACES[1]);
    let mut network = network(&bundle, Lowering::Fused);
    let supernet = network.supernet().clone();
    let parameters = BnParameters::initial(network.layout());
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let images = Images { training: vec![batch(16, &mut rng)], ..Images::default() };
    let options = ScoreOptions {
        selection: Selection::parse("grad_norm,bn_all").unwrap(),
        recalibrate: 1,
        mc_batches: 2,
        ntk_outputs: Outputs::Sum,
        adapt: None,
        noise_images: 4,
        seed: 0,
    };
    let mut scorer = Scorer::new(&mut network, &parameters, &images, options);
    let rows: Vec<_> = ["22012010", "22212220", "22012001", "22012010"]
        .map(|text| scorer.score(&supernet.parse_path(text).unwrap()).unwrap())
        .into();
    assert_eq!((scorer.measured(), scorer.distinct()), (2, 2));
    assert_eq!(rows[0].values, rows[2].values);
    assert_ne!(rows[0].values, rows[1].values);
    // What an earlier run measured is not measured again.
    let path = supernet.parse_path("00000000").unwrap();
    scorer.remember(&path, &rows[0]);
    assert_eq!(scorer.score(&path).unwrap().values, rows[0].values);
    assert_eq!(scorer.measured(), 2);
}
