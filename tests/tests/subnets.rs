//! Cell spaces through the runtime, and subnets as networks of their own: the same numbers every way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{path::Path, sync::Mutex};

use nasbn_export::bundle::{
    Bundle,
    write::{BuildOptions, write},
};
use nasbn_models::{
    BnPlacement,
    manifest::{Lowering, MemoryMode},
    sample,
    spec::{self, SpaceOptions},
};
use nasbn_runtime::{
    data::{Batch, Normaliser},
    network::{Network, NetworkOptions},
    ort_library,
    parameters::{BnParameters, Layout, Statistics},
    subnet,
    validation::recalibrate,
};
use ndarray::Array4;
use ort::{session::Session, value::TensorRef};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Relative L2 distance between two float32 ways of computing gradients.
const CLOSE: f64 = 2e-4;
/// Largest difference of logits between a folded subnet and its path, logits being of order one.
const FOLDED: f32 = 2e-4;
/// Relative error of a central difference of a float32 loss.
const DIFFERENCE: f64 = 0.05;

/// ONNX Runtime's environment is one per process; tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Name, file, side of the images, width.
const SPACES: [(&str, &str, u32, f64); 4] = [
    ("tiny-cell", include_str!("../../models/tests/fixtures/tiny-cell.toml"), 8, 1.0),
    ("nas-bench-macro", include_str!("../../models/spaces/nas-bench-macro.toml"), 9, 0.25),
    // Grouped convolutions, shuffles, and skips that are none; a chain so short that float32 turns no ReLU.
    ("grouped", include_str!("../../models/tests/fixtures/grouped.toml"), 9, 1.0),
    ("fbnet", include_str!("../../models/spaces/fbnet.toml"), 17, 0.1),
];

fn bundle(dir: &Path, space: usize, placement: BnPlacement) -> Bundle {
    let (name, text, size, width) = SPACES[space];
    let options = SpaceOptions { image_size: Some(size), classes: Some(10), width, placement };
    let out = dir.join(format!("{name}-{placement:?}"));
    let supernet = spec::parse(text, name, &options).unwrap();
    write(&supernet, &BuildOptions { seed: 3, weights: None, force: false }, &out, &mut |_| {}).unwrap();
    Bundle::open(&out).unwrap()
}

fn environment() -> ort::environment::Environment {
    let library = ort_library::locate(None).expect("ONNX Runtime is provisioned by `cargo xtest`");
    ort_library::load(&library, 1).unwrap()
}

fn network(bundle: &Bundle, memory: MemoryMode, lowering: Lowering) -> Network {
    let options = NetworkOptions { memory, lowering };
    let network = Network::new(environment(), bundle.dir(), bundle.manifest(), options).unwrap();
    assert_eq!(network.options().lowering, lowering);
    network
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    // A sum of twelve uniform numbers is near enough.
    (0..12).map(|_| rng.next_u32() as f32 / u32::MAX as f32).sum::<f32>() - 6.0
}

fn batch(size: usize, side: usize, rng: &mut ChaCha8Rng) -> Batch {
    let images = Array4::from_shape_simple_fn((size, 3, side, side), || normal(rng));
    Batch { images, labels: (0..size as i64).map(|i| i % 10).collect() }
}

fn parameters(layout: &Layout, rng: &mut ChaCha8Rng) -> BnParameters {
    let mut parameters = BnParameters::initial(layout);
    parameters.gamma.iter_mut().for_each(|g| *g += 0.3 * normal(rng));
    parameters.beta.iter_mut().for_each(|b| *b += 0.3 * normal(rng));
    parameters
}

fn relative(a: &BnParameters, b: &BnParameters) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let pairs = || a.gamma.iter().chain(&a.beta).zip(b.gamma.iter().chain(&b.beta));
    let difference: f64 = pairs().map(|(x, y)| square(x - y)).sum();
    let size: f64 = pairs().map(|(x, _)| square(*x)).sum();
    assert!(size > 0.0);
    (difference / size).sqrt()
}

#[test]
fn every_way_gives_the_same_gradients_and_they_are_those_of_the_loss() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for (space, placement) in [
        (0, BnPlacement::EveryOperator),
        (0, BnPlacement::Convolution),
        (1, BnPlacement::EveryOperator),
        (2, BnPlacement::EveryOperator),
    ] {
        let bundle = bundle(dir.path(), space, placement);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let side = SPACES[space].2 as usize;
        let batch = batch(16, side, &mut rng);
        let layout = Layout::new(&bundle.manifest().supernet);
        let parameters = parameters(&layout, &mut rng);
        for _ in 0..4 {
            let supernet = bundle.manifest().supernet.clone();
            let path = sample::uniform(&supernet, &mut rng);
            let mut all = Vec::new();
            for memory in [MemoryMode::Fast, MemoryMode::Lean] {
                for lowering in [Lowering::Portable, Lowering::Fused] {
                    let mut network = network(&bundle, memory, lowering);
                    let mut statistics = Statistics::standard(&layout);
                    let images = batch.images.view();
                    let pass = network.forward(&path, &parameters, images, &mut statistics, true).unwrap();
                    let loss = network.loss(&pass.logits, &batch.labels).unwrap();
                    let mut gradients = BnParameters::zeros(&layout);
                    network.backward(&parameters, &statistics, pass, loss, &mut gradients, &path).unwrap();
                    all.push(gradients);
                }
            }
            for other in &all[1..] {
                let distance = relative(&all[0], other);
                assert!(distance < CLOSE, "{}: {distance:.1e}", supernet.format_path(&path));
            }
            // Along the gradient, the loss changes by its squared length.
            let gradient = &all[0];
            let squares = |v: &[f32]| v.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
            let length = (squares(&gradient.gamma) + squares(&gradient.beta)).sqrt();
            let h = 0.003 / length;
            let mut network = network(&bundle, MemoryMode::Fast, Lowering::Portable);
            let mut loss_at = |step: f64| {
                let mut moved = parameters.clone();
                let shift = |values: &mut [f32], by: &[f32]| {
                    values.iter_mut().zip(by).for_each(|(v, g)| *v += (step * f64::from(*g)) as f32);
                };
                shift(&mut moved.gamma, &gradient.gamma);
                shift(&mut moved.beta, &gradient.beta);
                let mut statistics = Statistics::standard(&layout);
                let pass = network.forward(&path, &moved, batch.images.view(), &mut statistics, false).unwrap();
                let output = network.loss(&pass.logits, &batch.labels).unwrap();
                output.sample_loss().unwrap().iter().map(|&l| f64::from(l)).sum::<f64>() / 16.0
            };
            let slope = (loss_at(h) - loss_at(-h)) / (2.0 * h);
            let error = (slope - length * length).abs() / (length * length);
            assert!(error < DIFFERENCE, "{}: {slope} against {}", supernet.format_path(&path), length * length);
        }
    }
}

#[test]
fn a_folded_subnet_gives_the_logits_of_its_path() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for (space, placement) in [
        (0, BnPlacement::EveryOperator),
        (1, BnPlacement::EveryOperator),
        (1, BnPlacement::Convolution),
        (2, BnPlacement::EveryOperator),
        (3, BnPlacement::Convolution),
    ] {
        let bundle = bundle(dir.path(), space, placement);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let side = SPACES[space].2 as usize;
        let mut network = network(&bundle, MemoryMode::Lean, Lowering::Fused);
        let parameters = parameters(&network.layout().clone(), &mut rng);
        let batches = [batch(16, side, &mut rng), batch(16, side, &mut rng)];
        let unseen = batch(5, side, &mut rng);
        for round in 0..4 {
            let supernet = network.supernet().clone();
            let path = sample::uniform(&supernet, &mut rng);
            let statistics = recalibrate(&mut network, &path, &parameters, &batches).unwrap();
            let logits = network.evaluate(&path, &parameters, &statistics, unseen.images.view()).unwrap();
            let expected = logits.read().unwrap().1.to_vec();
            let input = Normaliser::of(&[0, 255, 0, 51, 0, 255], 3, 2);
            let layout = network.layout();
            let files = subnet::files(&bundle, layout, &path, &parameters, &statistics, &input, &[]).unwrap();
            let written = files.write(dir.path(), &format!("s{space}{round}"), &[]).unwrap();
            let definition: serde_json::Value = serde_json::from_slice(&std::fs::read(&written[2]).unwrap()).unwrap();
            assert_eq!(definition["input"]["mean"][0], 0.5);
            assert_eq!(definition["input"]["std"][2], 0.5);
            let model = String::from_utf8_lossy(&std::fs::read(&written[0]).unwrap()).into_owned();
            assert!(model.contains("input_mean") && model.contains("0.5,0.1,0.5"), "the normalisation is not told");
            let mut session =
                Session::builder(&environment()).unwrap().commit_from_file(&written[0]).expect("the subnet loads");
            let input = TensorRef::from_array_view(unseen.images.view()).unwrap();
            let outputs = session.run(ort::inputs!["image" => input]).unwrap();
            let (shape, got) = outputs["logits"].try_extract_tensor::<f32>().unwrap();
            assert_eq!(&shape[..], [5, 10]);
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() < FOLDED, "{}: {a} against {b}", supernet.format_path(&path));
            }
        }
    }
}
