//! The drift of tangent kernels: passes with given statistics, whole kernels, and the linearised network, each against
//! what it must equal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod reference;

use std::path::Path as FsPath;

use nasbn_export::bundle::{
    Bundle,
    write::{BuildOptions, write},
};
use nasbn_models::{
    BnPlacement, Path,
    manifest::{Lowering, MemoryMode},
    sample,
    spec::{self, SpaceOptions},
};
use nasbn_runtime::{
    analyze::drift::{Drift, DriftError, DriftOptions, StatisticsUse, of_path, whole_kernel},
    data::Batch,
    indicators::ntk::{Outputs, kernel},
    network::{Network, Pass},
    parameters::{BnParameters, Layout, Statistics},
};
use ndarray::{Array1, Array2, Array4};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use reference::{TURN, network, relative};

/// Relative L2 distance of two float32 ways through a whole path to the same numbers.
const CLOSE: f64 = 1e-4;
/// Relative L2 distance of two ways of summing the same float32 results.
const SUMMED: f64 = 1e-5;
/// How far linearised logits may be from true ones, of the way that these have gone, at a rate near 0.
const LINEAR: f64 = 0.02;
const SAMPLES: usize = 4;
const CLASSES: usize = 10;
const USES: [StatisticsUse; 2] = [StatisticsUse::Batch, StatisticsUse::Held];
const LOWERINGS: [Lowering; 2] = [Lowering::Fused, Lowering::Portable];

const SPACES: [(&str, &str, f64); 2] = [
    ("tiny-cell", include_str!("../../models/tests/fixtures/tiny-cell.toml"), 1.0),
    ("nas-bench-macro", include_str!("../../models/spaces/nas-bench-macro.toml"), 0.25),
];

fn bundle(dir: &FsPath, space: usize) -> Bundle {
    let (name, text, width) = SPACES[space];
    let placement = BnPlacement::EveryOperator;
    let options = SpaceOptions { image_size: Some(8), classes: Some(CLASSES as u32), width, placement };
    let out = dir.join(name);
    let supernet = spec::parse(text, name, &options).unwrap();
    write(&supernet, &BuildOptions { seed: 3, weights: None, force: false }, &out, &mut |_| {}).unwrap();
    Bundle::open(&out).unwrap()
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    // A sum of twelve uniform numbers is near enough.
    (0..12).map(|_| rng.next_u32() as f32 / u32::MAX as f32).sum::<f32>() - 6.0
}

fn batch(rng: &mut ChaCha8Rng) -> Batch {
    let images = Array4::from_shape_simple_fn((SAMPLES, 3, 8, 8), || normal(rng));
    Batch { images, labels: vec![0, 3, 9, 3] }
}

fn random_parameters(layout: &Layout, rng: &mut ChaCha8Rng) -> BnParameters {
    let mut parameters = BnParameters::initial(layout);
    parameters.gamma.iter_mut().for_each(|g| *g += 0.3 * normal(rng));
    parameters.beta.iter_mut().for_each(|b| *b += 0.3 * normal(rng));
    parameters
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn logits(pass: &Pass) -> Vec<f64> {
    wide(pass.logits.read().unwrap().1)
}

#[test]
fn a_held_pass_is_an_evaluation_that_is_kept() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for (space, &(name, ..)) in SPACES.iter().enumerate() {
        let bundle = bundle(dir.path(), space);
        let supernet = bundle.manifest().supernet.clone();
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let (batch, other) = (batch(&mut rng), batch(&mut rng));
        let layout = Layout::new(&supernet);
        let (before, after) = (random_parameters(&layout, &mut rng), random_parameters(&layout, &mut rng));
        for lowering in LOWERINGS {
            let mut network = network(&bundle, MemoryMode::Lean, lowering);
            let path = sample::uniform(&supernet, &mut rng);
            let what = format!("{} {} {lowering:?}", name, supernet.format_path(&path));
            // Statistics of other images under other parameters.
            let mut held = Statistics::standard(&layout);
            network.forward(&path, &before, other.images.view(), &mut held, false).unwrap();
            let given = held.clone();
            let pass = network.forward_held(&path, &after, batch.images.view(), &held).unwrap();
            let expected = network.evaluate(&path, &after, &held, batch.images.view()).unwrap();
            let expected = wide(expected.read().unwrap().1);
            let error = relative(&logits(&pass), &expected);
            assert!(error < CLOSE, "{what}: {error:.1e}");
            assert_eq!(given, held);
            // And its kernel is that of every sample in a batch with any other.
            let theta = whole_kernel(&mut network, &after, &held, &pass, StatisticsUse::Held).unwrap();
            let first = batch.images.slice(ndarray::s![..2, .., .., ..]);
            let few = network.forward_held(&path, &after, first, &held).unwrap();
            let corner = whole_kernel(&mut network, &after, &held, &few, StatisticsUse::Held).unwrap();
            let part = theta.slice(ndarray::s![..2 * CLASSES, ..2 * CLASSES]);
            let [part, corner]: [Vec<f64>; 2] = [part.iter().copied().collect(), corner.iter().copied().collect()];
            let error = relative(&corner, &part);
            assert!(error < CLOSE, "{what}, kernel: {error:.1e}");
        }
    }
}

/// The norm of the gradient of `sum seed logits` is `seed' Theta seed`: one backward pass is the twin of many.
#[test]
fn whole_kernels_are_those_of_the_gradients() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for (space, &(name, ..)) in SPACES.iter().enumerate() {
        let bundle = bundle(dir.path(), space);
        let supernet = bundle.manifest().supernet.clone();
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let batch = batch(&mut rng);
        let layout = Layout::new(&supernet);
        let parameters = random_parameters(&layout, &mut rng);
        for (lowering, path) in LOWERINGS.map(|lowering| (lowering, sample::uniform(&supernet, &mut rng))) {
            let mut network = network(&bundle, MemoryMode::Lean, lowering);
            let mut statistics = Statistics::standard(&layout);
            let pass =
                network.forward_for_indicators(&path, &parameters, batch.images.view(), &mut statistics).unwrap();
            let [through, held] =
                USES.map(|using| whole_kernel(&mut network, &parameters, &statistics, &pass, using).unwrap());
            for round in 0..3 {
                let seed = Array2::from_shape_simple_fn([SAMPLES, CLASSES], || normal(&mut rng));
                let flat = Array1::from_iter(seed.iter().map(|&v| f64::from(v)));
                let squares = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
                let mut gradient = BnParameters::zeros(&layout);
                network.gradient(&parameters, &statistics, &pass, seed.view(), &mut gradient).unwrap();
                let expected = squares(&gradient.gamma) + squares(&gradient.beta);
                let error = relative(&[flat.dot(&through.dot(&flat))], &[expected]);
                assert!(error < CLOSE, "{} {lowering:?} {round}: {error:.1e}", name);
                let jacobian = network.jacobian(&parameters, &statistics, &pass, seed.view()).unwrap();
                let sums = jacobian.slots.iter().flat_map(|s| [&s.gamma, &s.beta]);
                let sums = sums.flat_map(|rows| rows.sum_axis(ndarray::Axis(0)).to_vec()).collect::<Vec<f32>>();
                let error = relative(&[flat.dot(&held.dot(&flat))], &[squares(&sums)]);
                assert!(error < CLOSE, "{} {lowering:?} {round}, held: {error:.1e}", name);
            }
            // Traced over logits, the held one is the kernel of `nasbn score`.
            let traced = Array2::from_shape_fn([SAMPLES, SAMPLES], |(n, m)| -> f64 {
                (0..CLASSES).map(|c| held[[n * CLASSES + c, m * CLASSES + c]]).sum()
            });
            let each = kernel(&mut network, &parameters, &statistics, &pass, Outputs::EachClass).unwrap();
            let [traced, each]: [Vec<f64>; 2] = [traced, each].map(|a| a.iter().copied().collect());
            assert!(relative(&traced, &each) < SUMMED);
            // Differentiated through statistics, a kernel is another one.
            let [through, held]: [Vec<f64>; 2] = [through, held].map(|a| a.iter().copied().collect());
            assert!(relative(&through, &held) > 0.01);
            // The gradient of the loss is training's own.
            let loss = network.loss(&pass.logits, &batch.labels).unwrap();
            let mut expected = BnParameters::zeros(&layout);
            let kept = network.forward_for_indicators(&path, &parameters, batch.images.view(), &mut statistics);
            network.backward(&parameters, &statistics, kept.unwrap(), loss, &mut expected, &path).unwrap();
            let values = ndarray::ArrayView2::from_shape([SAMPLES, CLASSES], pass.logits.read().unwrap().1);
            let (_, dlogits) =
                nasbn_runtime::analyze::linear::cross_entropy(values.unwrap().mapv(f64::from).view(), &batch.labels);
            let mut found = BnParameters::zeros(&layout);
            network.gradient(&parameters, &statistics, &pass, dlogits.mapv(|v| v as f32).view(), &mut found).unwrap();
            assert!(relative(&wide(&found.gamma), &wide(&expected.gamma)) < CLOSE);
            assert!(relative(&wide(&found.beta), &wide(&expected.beta)) < CLOSE);
        }
    }
}

fn options(rate: f64, statistics: StatisticsUse) -> DriftOptions {
    DriftOptions { steps: 8, points: 4, rate: Some(rate), statistics }
}

fn drift(network: &mut Network, path: &Path, start: &BnParameters, batch: &Batch, options: DriftOptions) -> Drift {
    of_path(network, path, start, batch, options, |_| true).unwrap()
}

/// With shifts so high that no ReLU cuts, logits are smooth in the parameters, and what is left of the difference
/// falls with the rate.
#[test]
fn the_linearised_network_trains_as_the_true_one_at_small_rates() {
    const STEEP: f64 = 3.0;
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), 1);
    let supernet = bundle.manifest().supernet.clone();
    let path = supernet.parse_path("01000020").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let batch = batch(&mut rng);
    let layout = Layout::new(&supernet);
    let mut start = BnParameters::initial(&layout);
    start.beta.fill(5.0);
    let mut network = network(&bundle, MemoryMode::Fast, Lowering::Fused);
    for using in USES {
        let of = |network: &mut Network, rate| drift(network, &path, &start, &batch, options(rate, using)).moments;
        let usual =
            of_path(&mut network, &path, &start, &batch, DriftOptions { rate: None, ..options(0.0, using) }, |_| true)
                .unwrap();
        // Held statistics leave less that bends, and rounding shows the sooner.
        let small_rate = usual.rate * if using == StatisticsUse::Batch { 0.1 } else { 3.0 };
        let [small, tenth] = [small_rate, 0.1 * small_rate].map(|rate| of(&mut network, rate));
        let distance =
            |moments: &[nasbn_runtime::analyze::drift::Moment]| moments.last().unwrap().logit_distance.unwrap();
        assert!(distance(&tenth) < LINEAR, "{using:?}: {tenth:?}");
        assert!(distance(&small) > STEEP * distance(&tenth), "{using:?}: {small:?} {tenth:?}");
        let (first, last) = (&small[0], small.last().unwrap());
        assert_eq!((small.len(), first.step, last.step), (5, 0, 8));
        assert_eq!((first.kernel_distance, first.logit_distance), (0.0, None));
        assert_eq!(first.linearised_loss, Some(first.loss));
        assert!(last.loss < first.loss && last.kernel_distance > 0.0, "{small:?}");
        // What the linearised loss foretells is the way of the true one.
        let way = first.loss - tenth.last().unwrap().loss;
        let off = (tenth.last().unwrap().linearised_loss.unwrap() - tenth.last().unwrap().loss).abs();
        assert!(off < LINEAR * way, "{using:?}: off by {off:.2e} of {way:.2e}");
        assert_eq!(of(&mut network, small_rate), small, "{using:?}: not the same again");
    }
}

#[test]
fn a_drift_that_cannot_be_is_refused() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), 1);
    let supernet = bundle.manifest().supernet.clone();
    let path = supernet.parse_path("01211020").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let batch = batch(&mut rng);
    let layout = Layout::new(&supernet);
    let start = BnParameters::initial(&layout);
    let mut network = network(&bundle, MemoryMode::Fast, Lowering::Fused);
    let mut of =
        |start: &BnParameters, rate: f64| of_path(&mut network, &path, start, &batch, options(rate, USES[0]), |_| true);
    let diverged = of(&start, 1e9).unwrap_err();
    assert!(matches!(diverged, DriftError::NonFinite { step: 1.., .. }), "{diverged}");
    // A loss is a number, however large.
    let mut large = start.clone();
    large.beta.fill(9.9e3);
    large.gamma.fill(9.9e3);
    let far = of(&large, 1e-12).unwrap();
    assert!(far.moments[0].loss > 1e4, "{}", far.moments[0].loss);
    let mut wild = start.clone();
    wild.gamma.fill(f32::NAN);
    assert!(matches!(of(&wild, 0.1).unwrap_err(), DriftError::NonFinite { step: 0, .. }));
    let mut calls = 0;
    let stopped = of_path(&mut network, &path, &start, &batch, options(1e-3, USES[0]), |_| {
        calls += 1;
        calls < 3
    });
    assert!(matches!(stopped.unwrap_err(), DriftError::Stopped));
    assert_eq!(calls, 3);
}
