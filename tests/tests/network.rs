//! What the runtime promises beyond right gradients: statistics, sessions, memory, clipping.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use nasbn_export::bundle::{
    Bundle,
    write::{BuildOptions, write},
};
use nasbn_models::{
    BnPlacement, Path,
    manifest::{Lowering, MemoryMode},
    spec::{self, SpaceOptions},
};
use nasbn_runtime::{
    adapt::{
        AdaptError, AdaptOptions, Sampling, Trainer,
        optimizer::{Rule, Schedule},
        rate::find_rate,
    },
    data::Batch,
    network::{Network, NetworkOptions},
    ort_library,
    parameters::{BnParameters, Statistics},
    validation::{recalibrate, validate},
};
use ndarray::{Array4, Axis, concatenate};

/// float32 sums of a batch against float64 ones of the whole.
const CLOSE: f64 = 1e-5;
const SIDE: usize = 8;
const CLASSES: u32 = 4;

/// ONNX Runtime's environment is one per process; tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bundle() -> Bundle {
    static DIR: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let options = SpaceOptions {
            image_size: Some(SIDE as u32),
            classes: Some(CLASSES),
            width: 0.1,
            placement: BnPlacement::EveryOperator,
        };
        let space = spec::parse(spec::builtin("nas-bench-macro").unwrap(), "nas-bench-macro", &options).unwrap();
        let path = dir.path().join("bundle");
        write(&space, &BuildOptions::default(), &path, &mut |_| {}).unwrap();
        (dir, path)
    });
    Bundle::open(path).unwrap()
}

fn network(memory: MemoryMode, lowering: Lowering) -> Network {
    let library = ort_library::locate(None).expect("ONNX Runtime is provisioned by `cargo xtest`");
    let environment = ort_library::load(&library, 1).unwrap();
    let bundle = bundle();
    Network::new(environment, bundle.dir(), bundle.manifest(), NetworkOptions { memory, lowering }).unwrap()
}

fn path(network: &Network, text: &str) -> Path {
    network.supernet().parse_path(text).unwrap()
}

/// Images whose brightness differs from batch to batch, so that the means of batches differ.
fn batch(number: usize, size: usize) -> Batch {
    let pixel = |(n, c, y, x): (usize, usize, usize, usize)| {
        let hash = (n * 7919 + c * 104_729 + y * 1299 + x * 611 + number * 15_485_863) % 1009;
        number as f32 * 0.5 + hash as f32 / 504.5 - 1.0
    };
    Batch {
        images: Array4::from_shape_fn((size, 3, SIDE, SIDE), pixel),
        labels: (0..size).map(|n| (n % CLASSES as usize) as i64).collect(),
    }
}

#[test]
fn looking_for_a_rate_ends_when_the_caller_says_so() {
    let _turn = turn();
    let mut network = network(MemoryMode::Lean, Lowering::Fused);
    let options = AdaptOptions {
        epochs: 1,
        batch: 4,
        rule: Rule::Sgd { momentum: 0.9 },
        schedule: Schedule { peak: 0.01, warmup: 0, total: 10, cosine: true },
        clip_norm: None,
        sampling: Sampling::Uniform,
        path: Some(path(&network, "22212220")),
        seed: 2,
        data: String::new(),
        augment: false,
        lean: true,
        fused: true,
    };
    #[derive(Debug)]
    struct Enough;
    impl From<AdaptError> for Enough {
        fn from(error: AdaptError) -> Self {
            panic!("{error}")
        }
    }
    let initial = BnParameters::initial(network.layout());
    let mut trainer = Trainer::new(&network, options, initial);
    let mut steps = 0;
    let after = |_: &mut Network| {
        steps += 1;
        if steps == 3 { Err(Enough) } else { Ok(()) }
    };
    assert!(matches!(find_rate(&mut network, &mut trainer, &[batch(0, 4)], 10, 1e-3, 1e-2, after), Err(Enough)));
    assert_eq!((steps, trainer.steps()), (3, 3));
}

fn train(network: &mut Network, path: &Path, batch: &Batch) {
    let parameters = BnParameters::initial(network.layout());
    let mut statistics = Statistics::standard(network.layout());
    let pass = network.forward(path, &parameters, batch.images.view(), &mut statistics, true).unwrap();
    let loss = network.loss(&pass.logits, &batch.labels).unwrap();
    let mut gradients = BnParameters::zeros(network.layout());
    network.backward(&parameters, &statistics, pass, loss, &mut gradients, path).unwrap();
}

#[test]
fn recalibrated_statistics_are_the_moments_of_all_batches_together() {
    let _turn = turn();
    for lowering in [Lowering::Portable, Lowering::Fused] {
        let mut network = network(MemoryMode::Lean, lowering);
        let path = path(&network, "22212220");
        let parameters = BnParameters::initial(network.layout());
        let batches: Vec<Batch> = (0..3).map(|n| batch(n, 6)).collect();
        let found = recalibrate(&mut network, &path, &parameters, &batches).unwrap();
        let slots: Vec<usize> = network.layout().path(network.supernet(), &path).collect();

        // The first BatchNorm's input does not depend on statistics: its moments are those of one large batch.
        let views: Vec<_> = batches.iter().map(|b| b.images.view()).collect();
        let all = concatenate(Axis(0), &views).unwrap();
        let mut whole = Statistics::standard(network.layout());
        network.forward(&path, &parameters, all.view(), &mut whole, false).unwrap();
        // Every other one against the law of total variance, in two passes over the batches' own moments.
        let each: Vec<Statistics> = batches
            .iter()
            .map(|batch| {
                let mut statistics = Statistics::standard(network.layout());
                network.forward(&path, &parameters, batch.images.view(), &mut statistics, false).unwrap();
                statistics
            })
            .collect();
        let count = each.len() as f64;
        let mut between_counts = false;
        for (n, &slot) in slots.iter().enumerate() {
            for channel in network.layout().slots()[slot].range.clone() {
                let sum = |value: &dyn Fn(&Statistics) -> f64| each.iter().map(value).sum::<f64>() / count;
                let mean = sum(&|s| f64::from(s.mean[channel]));
                let within = sum(&|s| f64::from(s.var[channel]));
                let between = sum(&|s| (f64::from(s.mean[channel]) - mean).powi(2));
                between_counts |= between > 0.1 * within;
                let mut expected = vec![(mean, within + between)];
                if n == 0 {
                    expected.push((f64::from(whole.mean[channel]), f64::from(whole.var[channel])));
                }
                for (mean, var) in expected {
                    let (found_mean, found_var) = (f64::from(found.mean[channel]), f64::from(found.var[channel]));
                    let scale = 1.0 + mean.abs() + var;
                    assert!((found_mean - mean).abs() < CLOSE * scale, "slot {slot}: mean {found_mean}, {mean}");
                    assert!((found_var - var).abs() < CLOSE * scale, "slot {slot}: variance {found_var}, {var}");
                }
            }
        }
        assert!(between_counts, "the batches' means must differ for this test to say anything");
    }
}

#[test]
fn a_path_of_operators_that_were_used_costs_no_session() {
    let _turn = turn();
    for memory in [MemoryMode::Fast, MemoryMode::Lean] {
        let mut network = network(memory, Lowering::Fused);
        assert_eq!(network.sessions(), 0);
        let batch = batch(0, 4);
        for used in ["11111111", "22222222"] {
            let path = path(&network, used);
            train(&mut network, &path, &batch);
        }
        let sessions = network.sessions();
        assert!(sessions > 0);
        for mixed in ["12121212", "21122211", "22212221"] {
            let path = path(&network, mixed);
            train(&mut network, &path, &batch);
            assert_eq!(network.sessions(), sessions, "{mixed}");
        }
        // An operator that was not used before does.
        let path = path(&network, "11111110");
        train(&mut network, &path, &batch);
        assert!(network.sessions() > sessions);
    }
}

#[test]
fn activations_lie_in_the_arena() {
    const BATCH: usize = 64;
    let _turn = turn();
    let mut network = network(MemoryMode::Fast, Lowering::Fused);
    let path = path(&network, "22222222");
    train(&mut network, &path, &batch(0, BATCH));
    let usage = ort_library::arena_usage().expect("the arena is registered");
    // The stem's output alone, in float32.
    let stem = network.supernet().nodes[1].shape;
    let least = BATCH * 4 * stem.elements() as usize;
    assert!(usage.high_water >= least, "{} bytes of at least {least} were in the arena", usage.high_water);
    assert!(usage.in_use <= usage.high_water);
}

#[test]
fn long_gradients_are_shortened_to_the_limit() {
    const LIMIT: f32 = 1e-3;
    const RATE: f32 = 0.5;
    let _turn = turn();
    let mut network = network(MemoryMode::Fast, Lowering::Fused);
    let step = |network: &mut Network, clip_norm| {
        let options = AdaptOptions {
            epochs: 1,
            batch: 8,
            rule: Rule::Sgd { momentum: 0.0 },
            schedule: Schedule { peak: RATE, warmup: 0, total: 1, cosine: false },
            clip_norm,
            sampling: Sampling::Uniform,
            path: Some(path(network, "22222222")),
            seed: 0,
            data: String::new(),
            augment: false,
            lean: false,
            fused: true,
        };
        let mut trainer = Trainer::new(network, options, BnParameters::initial(network.layout()));
        let batch = batch(0, 8);
        let report = trainer.step(network, batch.images.view(), &batch.labels).unwrap();
        let initial = BnParameters::initial(network.layout());
        let moved = |after: &[f32], before: &[f32]| -> Vec<f64> {
            after.iter().zip(before).map(|(a, b)| f64::from(a - b)).collect()
        };
        let moved =
            [moved(&trainer.parameters.gamma, &initial.gamma), moved(&trainer.parameters.beta, &initial.beta)].concat();
        (report.gradient_norm, moved.iter().map(|m| m * m).sum::<f64>().sqrt())
    };
    /// Gammas near 1 keep only so much of a small step.
    const ROUNDING: f64 = 1e-2;
    let (norm, moved) = step(&mut network, Some(LIMIT));
    assert!(norm > 10.0 * f64::from(LIMIT), "the gradient of {norm} must be longer than the limit");
    let expected = f64::from(RATE * LIMIT);
    assert!((moved - expected).abs() < ROUNDING * expected, "moved by {moved} instead of {expected}");
    for clip_norm in [None, Some(1e9)] {
        let (norm, moved) = step(&mut network, clip_norm);
        assert!((moved - f64::from(RATE) * norm).abs() < ROUNDING * moved, "{clip_norm:?}: moved by {moved}");
    }
}

#[test]
fn logits_that_are_no_numbers_are_wrong_and_have_no_loss() {
    let _turn = turn();
    let mut network = network(MemoryMode::Lean, Lowering::Portable);
    let path = path(&network, "11111111");
    let mut parameters = BnParameters::initial(network.layout());
    let batch = batch(0, 8);
    let statistics = recalibrate(&mut network, &path, &parameters, std::slice::from_ref(&batch)).unwrap();
    let good = validate(&mut network, &path, &parameters, &statistics, std::slice::from_ref(&batch)).unwrap();
    assert!(good.loss.is_finite() && good.accuracy > 0.0);
    parameters.beta.fill(f32::NAN);
    let bad = validate(&mut network, &path, &parameters, &statistics, &[batch]).unwrap();
    assert!(bad.loss.is_nan() && bad.accuracy == 0.0 && bad.images == 8, "{bad:?}");
}
