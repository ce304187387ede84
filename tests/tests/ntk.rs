//! Tangent kernels and sign agreements of whole paths: against PyTorch's passes of single samples, and against the
//! path in float64, one sample after another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod reference;
mod twin;

use std::{fs, path::Path as FsPath};

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
    engine::EngineError,
    indicators::ntk::{Outputs, Parameters, add_gram, kernel, summary},
    indicators::signs::log_determinant,
    network::{Jacobian, Network, Pass},
    parameters::{BnParameters, Layout, Statistics},
};
use ndarray::{Array2, Array4, ArrayD, Axis};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use reference::{FLOOR, TIMES_PYTORCH, TURN, Tensors, fixtures, network, normalise, pytorch, relative};
use twin::{Sample, Twin};

/// Relative L2 distance of a float32 Jacobian of a batch from the float64 one of its samples.
const CLOSE: f64 = 1e-4;
/// Relative L2 distance of two ways of summing the same float32 results.
const SUMMED: f64 = 1e-5;
/// Values nearer to zero than this may have either sign in float32.
const UNDECIDED: f64 = 1e-4;
const SAMPLES: usize = 5;
const CLASSES: usize = 10;
const LOWERINGS: [Lowering; 2] = [Lowering::Fused, Lowering::Portable];

#[test]
fn kernels_of_whole_paths_are_pytorchs_of_single_samples() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let found = fixtures("kernel-");
    assert_eq!(found.len(), 6);
    for (file, fixture) in found {
        let exact = Tensors(fs::read(file.with_extension("safetensors")).unwrap());
        let data = Tensors(fs::read(file.with_file_name(fixture["data"].as_str().unwrap())).unwrap());
        let bundle = reference::bundle(dir.path(), &fixture);
        let (shape, pixels) = data.u8("images");
        let shape = (shape[0], shape[1], shape[2], shape[3]);
        let images = Array4::from_shape_vec(shape, normalise(&pixels, &fixture)).unwrap();
        for lowering in LOWERINGS {
            let mut network = network(&bundle, MemoryMode::Lean, lowering);
            let supernet = network.supernet().clone();
            let path = supernet.parse_path(fixture["path"].as_str().unwrap()).unwrap();
            let layout = network.layout().clone();
            let slots: Vec<usize> = layout.path(&supernet, &path).collect();
            let parameters = reference::parameters(&fixture, &data, &layout, &slots);
            let mut statistics = Statistics::standard(&layout);
            let pass = network.forward_for_indicators(&path, &parameters, images.view(), &mut statistics).unwrap();
            for (kind, outputs) in [("theta_sum", Outputs::Sum), ("theta_each_class", Outputs::EachClass)] {
                let theta = kernel(&mut network, &parameters, &statistics, &pass, outputs).unwrap();
                let got: Vec<f64> = theta.iter().copied().collect();
                let error = relative(&got, &exact.f64(kind));
                let allowed = TIMES_PYTORCH * pytorch(&fixture, kind) + FLOOR;
                let what = format!("{} {lowering:?} {kind}", file.file_stem().unwrap().to_str().unwrap());
                println!("{what}: {error:.1e} from float64, PyTorch's float32 {:.1e}", pytorch(&fixture, kind));
                assert!(error <= allowed, "{what} is {error:.2e} from float64; {allowed:.2e} is allowed");
            }
        }
    }
}

const SPACES: [(&str, &str, u32, f64); 2] = [
    ("tiny-cell", include_str!("../../models/tests/fixtures/tiny-cell.toml"), 8, 1.0),
    ("nas-bench-macro", include_str!("../../models/spaces/nas-bench-macro.toml"), 9, 0.25),
];

fn bundle(dir: &FsPath, space: usize, placement: BnPlacement) -> Bundle {
    let (name, text, size, width) = SPACES[space];
    let options = SpaceOptions { image_size: Some(size), classes: Some(CLASSES as u32), width, placement };
    let out = dir.join(format!("{name}-{placement:?}"));
    let supernet = spec::parse(text, name, &options).unwrap();
    write(&supernet, &BuildOptions { seed: 3, weights: None, force: false }, &out, &mut |_| {}).unwrap();
    Bundle::open(&out).unwrap()
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    // A sum of twelve uniform numbers is near enough.
    (0..12).map(|_| rng.next_u32() as f32 / u32::MAX as f32).sum::<f32>() - 6.0
}

fn images(side: usize, rng: &mut ChaCha8Rng) -> Array4<f32> {
    Array4::from_shape_simple_fn((SAMPLES, 3, side, side), || normal(rng))
}

fn random_parameters(layout: &Layout, rng: &mut ChaCha8Rng) -> BnParameters {
    let mut parameters = BnParameters::initial(layout);
    parameters.gamma.iter_mut().for_each(|g| *g += 0.3 * normal(rng));
    parameters.beta.iter_mut().for_each(|b| *b += 0.3 * normal(rng));
    parameters
}

/// All ones, and ones in the column of one class.
fn seeds(samples: usize) -> [Array2<f32>; 2] {
    let class = |(_, k): (usize, usize)| if k == 3 { 1.0 } else { 0.0 };
    [Array2::ones([samples, CLASSES]), Array2::from_shape_fn([samples, CLASSES], class)]
}

/// The batched Jacobian, and that of the samples one by one, both as one row a sample.
fn rows(jacobian: &Jacobian, seed: usize, samples: &[Sample]) -> [Vec<f64>; 2] {
    let (mut batched, mut alone) = (Vec::new(), Vec::new());
    for slot in &jacobian.slots {
        for (n, sample) in samples.iter().enumerate() {
            let [gamma, beta] = &sample.jacobians[seed][&slot.slot];
            alone.extend(gamma.iter().chain(beta));
            batched.extend(slot.gamma.row(n).iter().chain(slot.beta.row(n)).map(|&v| f64::from(v)));
        }
    }
    [batched, alone]
}

/// The kernel over the BatchNorms of operators that are no candidates, of samples one by one.
fn shared_alone(layout: &Layout, seed: usize, samples: &[Sample]) -> Array2<f64> {
    const FIXED: [&str; 4] = ["stem", "reduce", "squeezed", "head"];
    let fixed = |slot: &usize| layout.name(*slot).split('.').any(|part| FIXED.contains(&part));
    let row = |sample: &Sample| -> Vec<f64> {
        let slots = (0..layout.slots().len()).filter(fixed).filter_map(|slot| sample.jacobians[seed].get(&slot));
        slots.flat_map(|[gamma, beta]| gamma.iter().chain(beta).copied().collect::<Vec<_>>()).collect()
    };
    let rows: Vec<Vec<f64>> = samples.iter().map(row).collect();
    Array2::from_shape_fn([samples.len(); 2], |(n, m)| rows[n].iter().zip(&rows[m]).map(|(a, b)| a * b).sum())
}

fn check_signs(network: &mut Network, parameters: &BnParameters, statistics: &Statistics, pass: &Pass, all: &[Sample]) {
    let agreement = network.sign_agreement(parameters, statistics, pass).unwrap();
    assert_eq!(agreement.activations, all[0].normalised.len() as u64);
    for ((n, m), &found) in agreement.kernel.indexed_iter() {
        let pairs = all[n].normalised.iter().zip(&all[m].normalised);
        let agree = pairs.clone().filter(|&(&a, &b)| (a > 0.0) == (b > 0.0)).count() as f64;
        let undecided = pairs.filter(|(a, b)| a.abs().min(b.abs()) < UNDECIDED).count() as f64;
        assert!(undecided < 0.01 * agreement.activations as f64, "{undecided} of {} undecided", agreement.activations);
        assert_eq!(found.fract(), 0.0);
        assert!((found - agree).abs() <= undecided, "samples {n}, {m}: {found} agree instead of {agree}");
        if n == m {
            assert_eq!(found, agreement.activations as f64);
        }
    }
    let value = log_determinant(&agreement).unwrap();
    assert!(value.is_some_and(|v| v < 0.0), "{value:?}");
}

/// The samples of `images` one by one, with the statistics of the batch.
fn alone(bundle: &Bundle, p: (&BnParameters, &Statistics), path: &Path, images: &Array4<f32>) -> Vec<Sample> {
    let layout = Layout::new(&bundle.manifest().supernet);
    let twin = Twin { bundle, layout: &layout, parameters: p.0, statistics: p.1 };
    let seeds = seeds(1).map(|seed| seed.mapv(f64::from).into_dyn());
    let wide = images.mapv(f64::from);
    let each = wide.axis_iter(Axis(0)).map(|image| -> ArrayD<f64> { image.insert_axis(Axis(0)).to_owned().into_dyn() });
    each.map(|image| twin.sample(path, &image, &seeds)).collect()
}

#[test]
fn one_batched_pass_is_the_samples_one_by_one() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for (space, placement) in
        [(0, BnPlacement::EveryOperator), (0, BnPlacement::Convolution), (1, BnPlacement::EveryOperator)]
    {
        let bundle = bundle(dir.path(), space, placement);
        let supernet = bundle.manifest().supernet.clone();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let images = images(SPACES[space].2 as usize, &mut rng);
        let layout = Layout::new(&supernet);
        let parameters = random_parameters(&layout, &mut rng);
        for _ in 0..3 {
            let path = sample::uniform(&supernet, &mut rng);
            for lowering in LOWERINGS {
                let what = format!("{} {} {lowering:?}", SPACES[space].0, supernet.format_path(&path));
                let mut network = network(&bundle, MemoryMode::Fast, lowering);
                let mut statistics = Statistics::standard(&layout);
                let pass = network.forward_for_indicators(&path, &parameters, images.view(), &mut statistics).unwrap();
                let samples = alone(&bundle, (&parameters, &statistics), &path, &images);
                for (i, seed) in seeds(SAMPLES).iter().enumerate() {
                    let jacobian = network.jacobian(&parameters, &statistics, &pass, seed.view()).unwrap();
                    assert_eq!(jacobian.samples, SAMPLES);
                    let slots: Vec<usize> = jacobian.slots.iter().map(|slot| slot.slot).collect();
                    assert_eq!(slots, layout.path(&supernet, &path).collect::<Vec<_>>());
                    let [batched, alone] = rows(&jacobian, i, &samples);
                    let distance = relative(&batched, &alone);
                    assert!(distance < CLOSE, "{what} seed {i}: {distance:.1e}");
                    let mut shared = Array2::zeros([SAMPLES, SAMPLES]);
                    add_gram(&mut shared, &jacobian, Parameters::Shared(&supernet, &layout));
                    let [shared, alone] = [shared, shared_alone(&layout, i, &samples)];
                    let distance = relative(shared.as_slice().unwrap(), alone.as_slice().unwrap());
                    assert!(distance < CLOSE, "{what} seed {i}, shared parameters: {distance:.1e}");
                }
                check_signs(&mut network, &parameters, &statistics, &pass, &samples);
            }
        }
    }
}

/// A path whose cells are empty, so that operators lead nowhere and their rows are zero.
#[test]
fn operators_that_lead_nowhere_have_rows_of_zeroes() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), 0, BnPlacement::EveryOperator);
    let supernet = bundle.manifest().supernet.clone();
    let path = supernet.parse_path(&"0".repeat(supernet.choices.len())).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let images = images(8, &mut rng);
    let layout = Layout::new(&supernet);
    let parameters = random_parameters(&layout, &mut rng);
    let mut network = network(&bundle, MemoryMode::Lean, Lowering::Fused);
    let mut statistics = Statistics::standard(&layout);
    let pass = network.forward_for_indicators(&path, &parameters, images.view(), &mut statistics).unwrap();
    let samples = alone(&bundle, (&parameters, &statistics), &path, &images);
    let jacobian = network.jacobian(&parameters, &statistics, &pass, seeds(SAMPLES)[0].view()).unwrap();
    let [batched, alone] = rows(&jacobian, 0, &samples);
    assert!(relative(&batched, &alone) < CLOSE);
    assert!(jacobian.slots[0].gamma.iter().all(|&v| v == 0.0), "the stem leads nowhere");
    assert!(jacobian.slots.last().unwrap().beta.iter().any(|&v| v != 0.0));
    // All samples are alike behind the empty cells.
    let theta = kernel(&mut network, &parameters, &statistics, &pass, Outputs::Sum).unwrap();
    assert!(summary(theta.view(), &[0, 1, 2, 3, 4]).unwrap().ill_conditioned);
}

#[test]
fn a_pass_serves_training_and_every_seed() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), 1, BnPlacement::EveryOperator);
    let supernet = bundle.manifest().supernet.clone();
    let path = supernet.parse_path("01212012").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let images = images(9, &mut rng);
    let layout = Layout::new(&supernet);
    let parameters = random_parameters(&layout, &mut rng);
    let gradients_of = |network: &mut Network, pass: Pass, statistics: &Statistics| {
        let loss = network.loss(&pass.logits, &[0, 1, 2, 3, 4]).unwrap();
        let mut gradients = BnParameters::zeros(&layout);
        network.backward(&parameters, statistics, pass, loss, &mut gradients, &path).unwrap();
        gradients
    };
    let mut fast = network(&bundle, MemoryMode::Fast, Lowering::Fused);
    let mut statistics = Statistics::standard(&layout);
    let pass = fast.forward(&path, &parameters, images.view(), &mut statistics, true).unwrap();
    let expected = gradients_of(&mut fast, pass, &statistics);

    let mut lean = network(&bundle, MemoryMode::Lean, Lowering::Fused);
    let pass = lean.forward_for_indicators(&path, &parameters, images.view(), &mut statistics).unwrap();
    // The classes' Jacobians sum to that of the sum.
    let mut sum: Vec<f64> = Vec::new();
    let mut each = Array2::zeros([SAMPLES, SAMPLES]);
    let flat = |jacobian: &Jacobian| -> Vec<f64> {
        let parts = jacobian.slots.iter().flat_map(|slot| slot.gamma.iter().chain(&slot.beta));
        parts.map(|&v| f64::from(v)).collect()
    };
    for class in 0..CLASSES {
        let one = |(_, k): (usize, usize)| if k == class { 1.0 } else { 0.0 };
        let seed = Array2::from_shape_fn([SAMPLES, CLASSES], one);
        let jacobian = lean.jacobian(&parameters, &statistics, &pass, seed.view()).unwrap();
        add_gram(&mut each, &jacobian, Parameters::All);
        let values = flat(&jacobian);
        sum.resize(values.len(), 0.0);
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    let whole = lean.jacobian(&parameters, &statistics, &pass, seeds(SAMPLES)[0].view()).unwrap();
    assert!(relative(&flat(&whole), &sum) < SUMMED);
    assert_eq!(kernel(&mut lean, &parameters, &statistics, &pass, Outputs::EachClass).unwrap(), each);
    let theta = kernel(&mut lean, &parameters, &statistics, &pass, Outputs::Sum).unwrap();
    let found = summary(theta.view(), &[0, 1, 2, 3, 4]).unwrap();
    assert!(found.condition_number > 1.0 && found.least_eigenvalue > 0.0 && !found.ill_conditioned, "{found:?}");
    assert_eq!(gradients_of(&mut lean, pass, &statistics), expected, "backward of such a pass is fast's, bit for bit");
}

#[test]
fn what_no_indicator_can_use_is_refused() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), 1, BnPlacement::EveryOperator);
    let supernet = bundle.manifest().supernet.clone();
    let path = supernet.parse_path("01212012").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let images = images(9, &mut rng);
    let layout = Layout::new(&supernet);
    let mut parameters = random_parameters(&layout, &mut rng);
    let mut network = network(&bundle, MemoryMode::Lean, Lowering::Fused);
    let mut statistics = Statistics::standard(&layout);
    let seed = Array2::ones([SAMPLES, CLASSES]);
    for keep in [false, true] {
        let pass = network.forward(&path, &parameters, images.view(), &mut statistics, keep).unwrap();
        let error = network.jacobian(&parameters, &statistics, &pass, seed.view()).unwrap_err();
        assert!(error.to_string().contains("not kept"), "{error}");
        let error = network.sign_agreement(&parameters, &statistics, &pass).unwrap_err();
        assert!(error.to_string().contains("not kept"), "{error}");
    }
    let pass = network.forward_for_indicators(&path, &parameters, images.view(), &mut statistics).unwrap();
    for wrong in [[SAMPLES, CLASSES - 1], [SAMPLES + 1, CLASSES]] {
        let error = network.jacobian(&parameters, &statistics, &pass, Array2::ones(wrong).view()).unwrap_err();
        assert!(error.to_string().contains("does not fit logits"), "{error}");
    }
    let last = layout.path(&supernet, &path).last().unwrap();
    parameters.gamma[layout.slots()[last].range.start] = f32::NAN;
    let error = network.sign_agreement(&parameters, &statistics, &pass).unwrap_err();
    assert!(matches!(&error, EngineError::NotFinite { what: "gamma", name } if name == layout.name(last)), "{error}");
    let pass = network.forward_for_indicators(&path, &parameters, images.view(), &mut statistics).unwrap();
    let theta = kernel(&mut network, &parameters, &statistics, &pass, Outputs::Sum).unwrap();
    let error = summary(theta.view(), &[0, 1, 2, 3, 4]).unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
}
