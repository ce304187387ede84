//! However graphs are run, the numbers are the same bits: with few sessions open or all, in the host's memory or a provider's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{num::NonZeroUsize, path::Path as FsPath, sync::Mutex};

use nasbn_export::bundle::{
    Bundle,
    write::{BuildOptions, write},
};
use nasbn_models::{
    BnPlacement, Path,
    manifest::{Graph, Lowering, MemoryMode, Owner, Port, Role},
    sample,
    spec::{self, SpaceOptions},
};
use nasbn_runtime::{
    adapt::{
        AdaptOptions, Sampling, Trainer,
        candidate::CandidateOptions,
        optimizer::{Rule, Schedule},
    },
    analyze::drift::{StatisticsUse, as_it_stands},
    data::Batch,
    engine::{Engine, EngineError, Feed, Model, Opener, Residence, residence},
    indicators::{
        catalogue::{Measurement, Selection},
        ntk::Outputs,
    },
    latency::Subject,
    network::{Network, NetworkOptions, Trail, Transfer, operators},
    ort_library,
    parameters::{BnParameters, Layout, Statistics},
    provider::{Backend, EngineCache, Placement, Precision, measure},
    score::{Images, ScoreOptions, Scorer},
    subnet,
    validation::{recalibrate, validate},
};
use ndarray::{Array2, Array4};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// ONNX Runtime's environment is one per process; tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Spaces with what there is: edges that may be absent or pass on, nodes that sum and concatenate, squeezing.
const SPACES: [(&str, &str, f64); 2] = [
    ("tiny-cell", include_str!("../../models/tests/fixtures/tiny-cell.toml"), 1.0),
    ("nas-bench-macro", include_str!("../../models/spaces/nas-bench-macro.toml"), 0.1),
];
const SIDE: usize = 8;
const CLASSES: usize = 4;
const STEPS: usize = 6;

fn bundle(dir: &FsPath, (name, text, width): (&str, &str, f64)) -> Bundle {
    let options = SpaceOptions {
        image_size: Some(SIDE as u32),
        classes: Some(CLASSES as u32),
        width,
        // Identities then pass a value on as it is.
        placement: BnPlacement::Convolution,
    };
    let supernet = spec::parse(text, name, &options).unwrap();
    let out = dir.join(name);
    write(&supernet, &BuildOptions::default(), &out, &mut |_| {}).unwrap();
    Bundle::open(&out).unwrap()
}

fn backend() -> Backend {
    let library = ort_library::locate(None).expect("ONNX Runtime is provisioned by `cargo xtest`");
    ort_library::load(&library, 1).unwrap().into()
}

fn network(backend: Backend, bundle: &Bundle, memory: MemoryMode, lowering: Lowering) -> Network {
    Network::new(backend, bundle.dir(), bundle.manifest(), NetworkOptions { memory, lowering }).unwrap()
}

fn batch(size: usize, rng: &mut ChaCha8Rng) -> Batch {
    let images = Array4::from_shape_simple_fn((size, 3, SIDE, SIDE), || rng.next_u32() as f32 / u32::MAX as f32 - 0.5);
    Batch { images, labels: (0..size).map(|i| (i % CLASSES) as i64).collect() }
}

fn adapt_options(network: &Network) -> AdaptOptions {
    AdaptOptions {
        epochs: 1,
        batch: 6,
        rule: Rule::Sgd { momentum: 0.9 },
        schedule: Schedule { peak: 0.1, warmup: 0, total: STEPS as u64, cosine: true },
        clip_norm: Some(5.0),
        sampling: Sampling::Uniform,
        path: None,
        seed: 3,
        data: String::new(),
        augment: false,
        lean: network.options().memory == MemoryMode::Lean,
        fused: network.options().lowering == Lowering::Fused,
    }
}

fn bits(values: &[f32]) -> impl Iterator<Item = u64> + '_ {
    values.iter().map(|v| u64::from(v.to_bits()))
}

/// Some steps of training, and every indicator of some paths with what was trained: as bits.
fn everything(network: &mut Network) -> Vec<u64> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut trainer = Trainer::new(network, adapt_options(network), BnParameters::initial(network.layout()));
    let mut found = Vec::new();
    for _ in 0..STEPS {
        // The batch's size changes from step to step.
        let batch = batch(5 + found.len() % 3, &mut rng);
        let report = trainer.step(network, batch.images.view(), &batch.labels).unwrap();
        found.extend([u64::from(report.loss.to_bits()), report.gradient_norm.to_bits()]);
    }
    let parameters = trainer.parameters.clone();
    found.extend(bits(&parameters.gamma).chain(bits(&parameters.beta)));
    let paths: Vec<Path> = (0..3).map(|_| sample::uniform(network.supernet(), &mut rng)).collect();
    let images = Images {
        training: (0..2).map(|_| batch(6, &mut rng)).collect(),
        uncertainty: vec![batch(4, &mut rng)],
        ..Images::default()
    };
    let options = ScoreOptions {
        // What needs a data set is measured below.
        selection: Selection::of(|i| i.measurement != Measurement::Validation),
        recalibrate: 2,
        mc_batches: 2,
        ntk_outputs: Outputs::EachClass,
        adapt: Some(CandidateOptions { steps: 2, rate: 0.1 }),
        noise_images: 3,
        seed: 1,
    };
    let mut scorer = Scorer::new(network, &parameters, &images, options);
    for path in &paths {
        found.extend(scorer.values(path).unwrap().iter().map(|v| v.to_bits()));
    }
    for path in &paths {
        let statistics = recalibrate(network, path, &parameters, &images.training).unwrap();
        let validation = validate(network, path, &parameters, &statistics, &images.uncertainty).unwrap();
        found.extend([validation.loss.to_bits(), validation.accuracy.to_bits()]);
    }
    found.extend(trails(network, &parameters, &images, &paths));
    found
}

/// What passes along trails and with given statistics give, as bits.
fn trails(network: &mut Network, parameters: &BnParameters, images: &Images, paths: &[Path]) -> Vec<u64> {
    let layout = network.layout().clone();
    let [from, to] = [0, 1].map(|i| images.training[i].images.view());
    let mut trail = Trail::new(&layout, parameters, from);
    let mut transfer = Transfer::new(&layout, parameters, from, to);
    let seed = Array2::ones([from.dim().0, CLASSES]);
    let mut found = Vec::new();
    for (i, path) in paths.iter().enumerate() {
        let next = paths.get(i + 1);
        let pass = trail.forward_for_indicators(network, path, next).unwrap();
        let agreement = trail.sign_agreement(network, &pass).unwrap();
        found.extend(agreement.kernel.iter().map(|v| v.to_bits()));
        let logits = transfer.evaluate(network, path, next).unwrap();
        found.extend(bits(logits.read().unwrap().1));
        let statistics = trail.statistics().clone();
        let held = network.forward_held(path, parameters, to, &statistics).unwrap();
        let jacobian = network.jacobian(parameters, &statistics, &held, seed.view()).unwrap();
        for slot in &jacobian.slots {
            found.extend(slot.gamma.iter().chain(&slot.beta).map(|v| u64::from(v.to_bits())));
        }
        let mut gradients = BnParameters::zeros(&layout);
        network.gradient(parameters, &statistics, &held, seed.view(), &mut gradients).unwrap();
        found.extend(bits(&gradients.gamma));
        let mut of_batch = Statistics::standard(&layout);
        network.forward(path, parameters, to, &mut of_batch, false).unwrap();
        found.extend(bits(&of_batch.mean).chain(bits(&of_batch.var)));
        let labels = &images.training[1].labels;
        // A pass a logit is much: of the first path only.
        for using in [StatisticsUse::Batch, StatisticsUse::Held].into_iter().filter(|_| i == 0) {
            let (kernel, loss) = as_it_stands(network, path, parameters, to, labels, using).unwrap();
            found.extend(kernel.iter().map(|v| v.to_bits()).chain([loss.to_bits()]));
        }
    }
    found
}

#[test]
fn any_number_of_open_sessions_gives_the_same_bits() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for space in SPACES {
        let bundle = bundle(dir.path(), space);
        for (memory, lowering) in [(MemoryMode::Fast, Lowering::Fused), (MemoryMode::Lean, Lowering::Portable)] {
            let mut all = network(backend(), &bundle, memory, lowering);
            let expected = everything(&mut all);
            assert_eq!(all.sessions(), all.kept_sessions(), "without a bound nothing is closed");
            for limit in [1, 3] {
                let mut few = network(backend(), &bundle, memory, lowering);
                few.keep_sessions(NonZeroUsize::new(limit).unwrap());
                let found = everything(&mut few);
                assert!(found == expected, "{} {memory:?} {lowering:?}, {limit} sessions", space.0);
                assert_eq!(few.kept_sessions(), limit);
                assert!(few.sessions() > all.sessions(), "some were opened again: {}", few.sessions());
                assert_eq!(few.runs(), all.runs());
            }
            // One that comes late closes what is too many, and what is left goes on.
            let open = all.kept_sessions();
            all.keep_sessions(NonZeroUsize::new(2).unwrap());
            assert_eq!((all.kept_sessions(), all.sessions()), (2, open));
            assert!(everything(&mut all) == expected, "{} after closing most", space.0);
        }
    }
}

/// The CPU in the place of a provider with memory of its own: what graphs hand to each other is then out of the program's reach,
/// though it is the same memory, so that a value that is read without having been fetched is an error here, too.
fn bound() -> Backend {
    Backend { bound: true, ..backend() }
}

#[test]
fn bound_runs_give_the_same_bits() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for space in SPACES {
        let bundle = bundle(dir.path(), space);
        for (memory, lowering) in [
            (MemoryMode::Fast, Lowering::Portable),
            (MemoryMode::Lean, Lowering::Portable),
            (MemoryMode::Fast, Lowering::Fused),
        ] {
            let expected = everything(&mut network(backend(), &bundle, memory, lowering));
            let mut network = network(bound(), &bundle, memory, lowering);
            assert!(everything(&mut network) == expected, "{} {memory:?} {lowering:?}", space.0);
            network.keep_sessions(NonZeroUsize::MIN);
            assert!(everything(&mut network) == expected, "{} {memory:?} {lowering:?}, one session", space.0);
        }
    }
}

#[test]
fn where_nodes_run_is_seen_while_they_do() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for space in SPACES {
        let bundle = bundle(dir.path(), space);
        for (memory, lowering) in [(MemoryMode::Fast, Lowering::Fused), (MemoryMode::Lean, Lowering::Portable)] {
            let mut plain = network(bound(), &bundle, memory, lowering);
            let expected = everything(&mut plain);
            assert!(plain.placement().is_none());
            let mut placements = Vec::new();
            for limit in [usize::MAX, 1] {
                let mut watched = network(bound(), &bundle, memory, lowering);
                watched.keep_sessions(NonZeroUsize::new(limit).unwrap());
                watched.watch_placement().unwrap();
                assert!(everything(&mut watched) == expected, "{} {memory:?} {lowering:?}, {limit} sessions", space.0);
                placements.push(watched.placement().unwrap().clone());
            }
            assert_eq!(placements[0].nodes().into_keys().collect::<Vec<_>>(), ["cpu"]);
            assert_eq!(placements[0], placements[1], "a graph that is opened again counts once");
        }
    }
    // The twin: each graph by itself, on inputs that are made up.
    let bundle = bundle(&dir.path().join("twin"), SPACES[1]);
    let (manifest, mut rng) = (bundle.manifest(), ChaCha8Rng::seed_from_u64(5));
    let mut network = network(backend(), &bundle, MemoryMode::Lean, Lowering::Portable);
    network.watch_placement().unwrap();
    assert_eq!(network.placement().unwrap(), &Placement::default(), "nothing has run");
    let path = network.supernet().parse_path("12112121").unwrap();
    let (parameters, statistics) = (BnParameters::initial(network.layout()), Statistics::standard(network.layout()));
    network.evaluate(&path, &parameters, &statistics, batch(3, &mut rng).images.view()).unwrap();
    let opener = network.opener().unwrap();
    let mut expected = Placement::default();
    for (edge, operator) in operators(network.supernet(), &path).into_iter().enumerate() {
        let owner = Owner::Operator { edge: edge as u16, operator };
        let is = |g: &&Graph| (g.owner, g.role, g.lowering) == (owner, Role::Evaluate, Lowering::Portable);
        let graph = manifest.graphs.iter().find(is).unwrap();
        expected = expected.with(measure(&opener, Model::File(&bundle.file_path(graph.file)), 1, &[]).unwrap());
    }
    assert_eq!(network.placement().unwrap(), &expected);
}

#[test]
fn what_graphs_hand_on_is_read_only_after_it_was_fetched() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), SPACES[1]);
    let operator = bundle.manifest().supernet.candidates(&bundle.manifest().supernet.edges[0])[0];
    let owner = Owner::Operator { edge: 0, operator };
    let values = [backend(), bound()].map(|backend| {
        let is_bound = backend.is_bound();
        let mut engine = Engine::new(backend, bundle.dir(), bundle.manifest()).unwrap();
        let graph = engine.find(owner, Role::Forward(MemoryMode::Fast), Lowering::Portable).unwrap();
        let (x, ones) = (engine.zeros(&[2, 3, SIDE, SIDE]).unwrap(), vec![1.0; 1024]);
        let channels: Vec<usize> = {
            let program = bundle.manifest().supernet.program(0, operator).unwrap();
            program.batch_norms().map(|channels| channels as usize).collect()
        };
        let mut found = Vec::new();
        let input = |port| {
            Ok(match port {
                Port::X => Feed::Tensor(&x),
                Port::Gamma(i) | Port::Beta(i) => Feed::Numbers(&ones[..channels[usize::from(i)]]),
                other => panic!("{other:?}"),
            })
        };
        engine
            .run(graph, input, |port, value| {
                found.push((port, value));
                Ok(())
            })
            .unwrap();
        for (port, value) in &found {
            let expected = residence(Role::Forward(MemoryMode::Fast), *port);
            let expected = if is_bound { expected } else { Residence::Host };
            assert_eq!(value.residence(), expected, "{port:?}");
            let refused = matches!(value.read(), Err(EngineError::NotOnHost));
            assert_eq!(refused, expected == Residence::Device, "{port:?}");
            assert!(!value.dims().is_empty(), "dimensions are known wherever it is");
        }
        let (_, y) = found.into_iter().find(|(port, _)| *port == Port::Y).unwrap();
        let fetched = engine.on_host(y).unwrap();
        fetched.read().unwrap().1.to_vec()
    });
    assert!(!values[0].is_empty() && values[0] == values[1]);
}

#[test]
fn logits_of_a_training_step_stay_where_the_graphs_leave_them() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    for space in SPACES {
        let bundle = bundle(dir.path(), space);
        let logits = [backend(), bound()].map(|backend| {
            let is_bound = backend.is_bound();
            let mut network = network(backend, &bundle, MemoryMode::Fast, Lowering::Portable);
            let mut rng = ChaCha8Rng::seed_from_u64(11);
            let (path, batch) = (sample::uniform(network.supernet(), &mut rng), batch(6, &mut rng));
            let parameters = BnParameters::initial(network.layout());
            let mut statistics = Statistics::standard(network.layout());
            let pass = network.forward(&path, &parameters, batch.images.view(), &mut statistics, true).unwrap();
            let expected = if is_bound { Residence::Device } else { Residence::Host };
            assert_eq!(pass.logits.residence(), expected);
            assert_eq!(matches!(pass.logits.read(), Err(EngineError::NotOnHost)), is_bound);
            let mut trainer = Trainer::new(&network, adapt_options(&network), parameters);
            for _ in 0..STEPS {
                trainer.step(&mut network, batch.images.view(), &batch.labels).unwrap();
            }
            assert_eq!(network.fetches(), 0, "{}: a training step copies nothing between operators", space.0);
            let read = network.logits(&pass).unwrap().read().unwrap().1.to_vec();
            assert_eq!(network.fetches(), u64::from(is_bound), "{}: who reads them has them copied", space.0);
            bits(&read).collect::<Vec<u64>>()
        });
        assert!(!logits[0].is_empty() && logits[0] == logits[1], "{}", space.0);
    }
}

#[test]
fn engines_are_kept_by_the_precision_of_their_session() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), SPACES[1]);
    let precision = Precision::Fp16;
    let cache = EngineCache::open(dir.path(), "1.0.0", &[1; 32], precision).unwrap();
    let timing = cache.timing().to_owned();
    // The CPU builds none; where they would be kept is decided all the same.
    let backend = Backend { precision, cache: Some(cache), ..backend() };
    let mut network = network(backend, &bundle, MemoryMode::Fast, Lowering::Portable);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (path, batch) = (sample::uniform(network.supernet(), &mut rng), batch(3, &mut rng));
    let parameters = BnParameters::initial(network.layout());
    let mut statistics = Statistics::standard(network.layout());
    let graphs = |precision: &str| {
        let suffix = format!("-{precision}");
        let of = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().ends_with(&suffix);
        let found = std::fs::read_dir(&timing).unwrap().map(Result::unwrap).filter(of);
        found.map(|entry| std::fs::read_dir(entry.path()).unwrap().count()).sum::<usize>()
    };
    network.forward(&path, &parameters, batch.images.view(), &mut statistics, true).unwrap();
    assert_eq!((graphs("fp16"), graphs("fp32")), (0, network.sessions()), "what trains is computed with fp32");
    let training = network.sessions();
    network.evaluate(&path, &parameters, &statistics, batch.images.view()).unwrap();
    assert_eq!((graphs("fp16"), graphs("fp32")), (network.sessions() - training, training));
    assert!(network.sessions() > training);
}

#[test]
fn what_is_timed_keeps_its_output_where_it_is() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path(), SPACES[1]);
    let layout = Layout::new(&bundle.manifest().supernet);
    let path = sample::uniform(&bundle.manifest().supernet, &mut ChaCha8Rng::seed_from_u64(1));
    let model = subnet::untrained(&bundle, &layout, &path).unwrap();
    let in_use = || ort_library::arena_usage().map(|usage| usage.in_use);
    for backend in [backend(), bound()] {
        let opener = Opener::new(backend.clone()).unwrap();
        let subject = Subject::new(opener.model(&model).unwrap(), 4, &[]).unwrap();
        let mut subject = subject.bound_to(&backend).unwrap();
        let before = in_use();
        subject.run().unwrap();
        let after = in_use();
        subject.run().unwrap();
        assert_eq!(in_use(), after, "the second run takes no place of its own");
        // Only a bound output outlives its run.
        assert_eq!(after > before, backend.is_bound(), "{before:?} {after:?}");
    }
}
