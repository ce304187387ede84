//! Passes that go on where paths part, against passes of their own: equal to the bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Mutex;

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
    composite::{ReferenceImages, ReferenceOptions, parts, parts_of_all},
    data::{About, Dataset, ImageSpec, Split},
    engine::SharedTensor,
    network::{Jacobian, Network, NetworkOptions, SignAgreement, Trail, Transfer, operators},
    ort_library,
    parameters::{BnParameters, Statistics},
};
use ndarray::{Array2, Array4};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// ONNX Runtime's environment is one per process; tests take turns.
static TURN: Mutex<()> = Mutex::new(());
const CLASSES: usize = 10;
const SAMPLES: usize = 6;
const SPACES: [(&str, &str, u32, BnPlacement); 3] = [
    ("tiny-cell", include_str!("../../models/tests/fixtures/tiny-cell.toml"), 8, BnPlacement::EveryOperator),
    ("tiny-cell", include_str!("../../models/tests/fixtures/tiny-cell.toml"), 8, BnPlacement::Convolution),
    ("nas-bench-macro", include_str!("../../models/spaces/nas-bench-macro.toml"), 16, BnPlacement::EveryOperator),
];

fn network(dir: &std::path::Path, space: usize, lowering: Lowering) -> Network {
    let (name, text, size, placement) = SPACES[space];
    let options = SpaceOptions { image_size: Some(size), classes: Some(CLASSES as u32), width: 0.25, placement };
    let out = dir.join(format!("{space}-{lowering:?}"));
    let supernet = spec::parse(text, name, &options).unwrap();
    write(&supernet, &BuildOptions { seed: 3, weights: None, force: false }, &out, &mut |_| {}).unwrap();
    let bundle = Bundle::open(&out).unwrap();
    let library = ort_library::locate(None).expect("ONNX Runtime is provisioned by `cargo xtest`");
    let environment = ort_library::load(&library, 1).unwrap();
    let options = NetworkOptions { memory: MemoryMode::Lean, lowering };
    Network::new(environment, bundle.dir(), bundle.manifest(), options).unwrap()
}

fn images(network: &Network, rng: &mut ChaCha8Rng) -> Array4<f32> {
    let shape = network.supernet().image();
    let [c, h, w] = [shape.channels, shape.height, shape.width].map(|extent| extent as usize);
    Array4::from_shape_simple_fn((SAMPLES, c, h, w), || rng.next_u32() as f32 / u32::MAX as f32 - 0.5)
}

/// Paths in the order of their operators, and a few more out of order, one of them twice.
fn paths(network: &Network, rng: &mut ChaCha8Rng) -> Vec<Path> {
    let mut paths: Vec<Path> = (0..12).map(|_| sample::uniform(network.supernet(), rng)).collect();
    paths.sort_by_key(|path| operators(network.supernet(), path));
    paths.extend([paths[3].clone(), paths[3].clone(), paths[0].clone(), paths[11].clone()]);
    paths
}

/// All that passes over one path give.
#[derive(PartialEq, Debug)]
struct Found {
    logits: Vec<f32>,
    /// Of the path's own BatchNorms.
    statistics: Vec<(Vec<f32>, Vec<f32>)>,
    agreement: SignAgreement,
    jacobian: Jacobian,
    transferred: Vec<f32>,
}

fn own_statistics(network: &Network, path: &Path, statistics: &Statistics) -> Vec<(Vec<f32>, Vec<f32>)> {
    let layout = network.layout();
    let range = |slot: usize| layout.slots()[slot].range.clone();
    let of = |slot| (statistics.mean[range(slot)].to_vec(), statistics.var[range(slot)].to_vec());
    layout.path(network.supernet(), path).map(of).collect()
}

#[test]
fn passes_along_a_trail_are_passes_of_their_own() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let seed = Array2::ones([SAMPLES, CLASSES]);
    let values = |value: &SharedTensor| value.read().unwrap().1.to_vec();
    for space in 0..SPACES.len() {
        for lowering in [Lowering::Fused, Lowering::Portable] {
            let mut network = network(dir.path(), space, lowering);
            let mut rng = ChaCha8Rng::seed_from_u64(4);
            let [a, b] = [images(&network, &mut rng), images(&network, &mut rng)];
            let mut p = BnParameters::initial(network.layout());
            p.gamma.iter_mut().chain(&mut p.beta).for_each(|v| *v += rng.next_u32() as f32 / u32::MAX as f32 - 0.5);
            let paths = paths(&network, &mut rng);

            let before = network.runs();
            let mut alone = Vec::new();
            for path in &paths {
                let mut statistics = Statistics::standard(network.layout());
                let pass = network.forward_for_indicators(path, &p, a.view(), &mut statistics).unwrap();
                let agreement = network.sign_agreement(&p, &statistics, &pass).unwrap();
                let jacobian = network.jacobian(&p, &statistics, &pass, seed.view()).unwrap();
                let logits = values(&pass.logits);
                let own = own_statistics(&network, path, &statistics);
                network.forward(path, &p, a.view(), &mut statistics, false).unwrap();
                let transferred = values(&network.evaluate(path, &p, &statistics, b.view()).unwrap());
                alone.push(Found { logits, statistics: own, agreement, jacobian, transferred });
            }
            let runs_alone = network.runs() - before;

            // The next path told, none told, and a wrong one told.
            type Tell = fn(&[Path], usize) -> Option<&Path>;
            let tells: [Tell; 3] = [|paths, i| paths.get(i + 1), |_, _| None, |paths, i| paths.get(i.max(1) - 1)];
            let mut runs = Vec::new();
            for tell in tells {
                let layout = network.layout().clone();
                let mut trail = Trail::new(&layout, &p, a.view());
                let mut transfer = Transfer::new(&layout, &p, a.view(), b.view());
                let before = network.runs();
                for (i, (path, alone)) in paths.iter().zip(&alone).enumerate() {
                    let next = tell(&paths, i);
                    let pass = trail.forward_for_indicators(&mut network, path, next).unwrap();
                    let agreement = trail.sign_agreement(&mut network, &pass).unwrap();
                    let jacobian = network.jacobian(&p, trail.statistics(), &pass, seed.view()).unwrap();
                    let (logits, statistics) =
                        (values(&pass.logits), own_statistics(&network, path, trail.statistics()));
                    let transferred = values(&transfer.evaluate(&mut network, path, next).unwrap());
                    let found = Found { logits, statistics, agreement, jacobian, transferred };
                    assert!(found == *alone, "{} {lowering:?} {i}", network.supernet().format_path(path));
                }
                runs.push(network.runs() - before);
            }
            assert!(runs[0] < runs[1] && runs[1] == runs_alone, "{runs:?} of {runs_alone}");
        }
    }
}

/// The twin is [`parts`], path by path.
#[test]
fn parts_of_a_sample_are_those_of_its_paths() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let mut network = network(dir.path(), 2, Lowering::Fused);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let spec = ImageSpec { channels: 3, height: 16, width: 16, classes: CLASSES };
    let mut noise = |count: usize| {
        let mut pixels = vec![0; count * spec.elements()];
        rng.fill_bytes(&mut pixels);
        Split::new(&spec, pixels, (0..count).map(|i| (i % CLASSES) as u16).collect()).unwrap()
    };
    let classes = (0..CLASSES).map(|class| class.to_string()).collect();
    let data = Dataset::new(spec, noise(100), noise(10), About { classes, ..About::default() }).unwrap();
    let options = ReferenceOptions { batch: SAMPLES, ..Default::default() };
    let images = ReferenceImages::new(&data, &options, 0).unwrap();
    let initial = BnParameters::initial(network.layout());
    let paths: Vec<Path> = (0..10).map(|_| sample::uniform(network.supernet(), &mut rng)).collect();
    let mut heard = Vec::new();
    let hear = |done| {
        heard.push(done);
        true
    };
    let together = parts_of_all(&mut network, &initial, &images, &paths, hear).unwrap().unwrap();
    assert_eq!(heard, (0..10).collect::<Vec<_>>());
    for (path, together) in paths.iter().zip(&together) {
        let alone = parts(&mut network, &initial, &images, path).unwrap();
        assert!(alone.iter().all(|part| part.is_finite()));
        assert_eq!(alone.map(f64::to_bits), together.map(f64::to_bits));
    }
    let stopped = parts_of_all(&mut network, &initial, &images, &paths, |done| done < 3).unwrap();
    assert!(stopped.is_none());
}
