//! A training step like those before it asks the allocator for nothing, outside ONNX Runtime and its wrapper.
//!
//! Counted are all allocations of the process by the thread that makes them and by whose code it runs
//! ([`nasbn_runtime::engine::boundary`]). ONNX Runtime's own memory, of C++, is not seen here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
// An allocator is unsafe by its nature; this one hands everything on.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    num::NonZeroUsize,
    ops::ControlFlow,
    path::Path as FsPath,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

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
    adapt::{
        AdaptOptions, Sampling, StepReport, Trainer, metrics,
        optimizer::{Rule, Schedule},
        run,
    },
    data::{About, Dataset, ImageSpec, LoaderOptions, Prefetcher, Split, TrainLoader},
    engine::boundary::{Place, place},
    memory::{Plan, Verdict, Watch, resident},
    network::{Network, NetworkOptions},
    ort_library,
    parameters::BnParameters,
};
use ort::environment::Environment;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Counts by thread (the one that trains, all others) and place (the program, `ort`, a fused operator).
static COUNTS: [[AtomicU64; 3]; 2] = [const { [const { AtomicU64::new(0) }; 3] }; 2];
static COUNTING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static TRAINS: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn count() {
    if !COUNTING.load(Ordering::Relaxed) {
        return;
    }
    let thread = usize::from(!TRAINS.try_with(Cell::get).unwrap_or(false));
    let place = match place() {
        Place::Program => 0,
        Place::OnnxRuntime => 1,
        Place::Kernel => 2,
    };
    COUNTS[thread][place].fetch_add(1, Ordering::Relaxed);
}

// SAFETY: every call is handed on to the system's allocator as it is. Counting neither allocates nor unwinds: the variables of
// a thread are constants to begin with and have nothing to drop, and the counters are atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SPACES: [(&str, &str, f64); 2] = [
    ("tiny-cell", include_str!("../../models/tests/fixtures/tiny-cell.toml"), 1.0),
    ("nas-bench-macro", include_str!("../../models/spaces/nas-bench-macro.toml"), 0.1),
];
const SIDE: usize = 8;
const CLASSES: usize = 4;
const BATCH: usize = 8;
/// Different paths.
const PATHS: usize = 4;
/// Sessions that are kept where not all of them are: fewer than any path needs, so that each step opens some.
const KEPT: usize = 3;
/// Batches that wait for their use.
const AHEAD: usize = 2;

fn bundle(dir: &FsPath, (name, text, width): (&str, &str, f64)) -> Bundle {
    let (image_size, classes) = (Some(SIDE as u32), Some(CLASSES as u32));
    let options = SpaceOptions { image_size, classes, width, placement: BnPlacement::EveryOperator };
    let supernet = spec::parse(text, name, &options).unwrap();
    let out = dir.join(name);
    write(&supernet, &BuildOptions::default(), &out, &mut |_| {}).unwrap();
    Bundle::open(&out).unwrap()
}

fn loader() -> TrainLoader {
    let spec = ImageSpec { channels: 3, height: SIDE, width: SIDE, classes: CLASSES };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut noise = |count: usize| {
        let mut pixels = vec![0; count * spec.elements()];
        rng.fill_bytes(&mut pixels);
        Split::new(&spec, pixels, (0..count).map(|i| (i % CLASSES) as u16).collect()).unwrap()
    };
    let classes = (0..CLASSES).map(|class| class.to_string()).collect();
    let data = Dataset::new(spec, noise(3 * BATCH), noise(BATCH), About { classes, ..About::default() }).unwrap();
    TrainLoader::new(Arc::new(data), LoaderOptions { batch: BATCH, seed: 0, augment: true }).unwrap()
}

fn options(path: Option<Path>, rule: Rule, sampling: Sampling) -> AdaptOptions {
    AdaptOptions {
        epochs: 1,
        batch: BATCH as u32,
        rule,
        schedule: Schedule { peak: 0.01, warmup: 2, total: 1000, cosine: true },
        clip_norm: Some(1.0),
        sampling,
        path,
        seed: 2,
        data: String::new(),
        augment: true,
        lean: false,
        fused: false,
    }
}

/// What the threads that do not train and the one that does asked for while `run` ran: of the program's own accord, by `ort`,
/// and in fused operators.
fn counted(run: impl FnOnce()) -> [[u64; 3]; 2] {
    begin_to_count();
    run();
    end_of_counting()
}

fn begin_to_count() {
    TRAINS.with(|trains| trains.set(true));
    COUNTS.iter().flatten().for_each(|count| count.store(0, Ordering::SeqCst));
    COUNTING.store(true, Ordering::SeqCst);
}

fn end_of_counting() -> [[u64; 3]; 2] {
    COUNTING.store(false, Ordering::SeqCst);
    COUNTS.each_ref().map(|counts| counts.each_ref().map(|count| count.load(Ordering::SeqCst)))
}

/// One test: another one's threads would be counted, too.
#[test]
fn training_steps_allocate_nothing() {
    the_counter_counts();
    let library = ort_library::locate(None).expect("ONNX Runtime is provisioned by `cargo xtest`");
    let environment = ort_library::load(&library, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for space in SPACES {
        let bundle = bundle(dir.path(), space);
        steps_of_fixed_paths(&environment, &bundle);
        steps_of_sampled_paths(&environment, &bundle);
        steps_of_a_run(&environment, &bundle, None);
        steps_of_a_run(&environment, &bundle, Some(KEPT));
    }
}

fn the_counter_counts() {
    let [[program, ort, kernel], _] = counted(|| drop(std::hint::black_box(vec![1_u8; 100])));
    assert_eq!((program, ort, kernel), (1, 0, 0));
    let [_, [program, ..]] = counted(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| drop(std::hint::black_box(vec![1_u8; 100])));
        });
    });
    assert!(program >= 1, "other threads are counted, too");
}

/// Trainers of fixed paths over one network, each met before: what is counted are further steps of all of them, with
/// batches that a thread makes ahead.
fn steps_of_fixed_paths(environment: &Environment, bundle: &Bundle) {
    let name = &bundle.manifest().supernet.name;
    let adam = Rule::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    for (memory, lowering, rule) in [
        (MemoryMode::Fast, Lowering::Fused, Rule::Sgd { momentum: 0.9 }),
        (MemoryMode::Lean, Lowering::Fused, adam),
        (MemoryMode::Fast, Lowering::Portable, adam),
        (MemoryMode::Lean, Lowering::Portable, Rule::Sgd { momentum: 0.9 }),
    ] {
        let options_of_network = NetworkOptions { memory, lowering };
        let mut network =
            Network::new(environment.clone(), bundle.dir(), bundle.manifest(), options_of_network).unwrap();
        let initial = BnParameters::initial(network.layout());
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut trainers: Vec<Trainer> = (0..PATHS)
            .map(|_| {
                let path = sample::uniform(network.supernet(), &mut rng);
                Trainer::new(&network, options(Some(path), rule, Sampling::Uniform), initial.clone())
            })
            .collect();
        // Longer than any epoch, so that new orders of the images are among what is counted.
        let mut batches = Prefetcher::start(loader(), 0..u64::MAX, AHEAD).unwrap();
        let [trains, _] = counted(|| each_waits_for_the_other(&mut batches));
        assert_eq!(trains[0], 0, "{name} {memory:?} {lowering:?}: waiting for the first batches");
        let mut steps = |rounds: usize| {
            for _ in 0..rounds {
                for trainer in &mut trainers {
                    let batch = batches.next().unwrap().unwrap();
                    trainer.step(&mut network, batch.images.view(), &batch.labels).unwrap();
                    batches.recycle(batch);
                }
            }
        };
        steps(3);
        const ROUNDS: usize = 3;
        let [trains, others] = counted(|| steps(ROUNDS));
        let a_step = |count: u64| count as f64 / (ROUNDS * PATHS) as f64;
        eprintln!(
            "{} {memory:?} {lowering:?}: allocations a step, of the program {:.1}, in fused operators {:.1}, of ort {:.1}; \
             on other threads {others:?}",
            name,
            a_step(trains[0]),
            a_step(trains[2]),
            a_step(trains[1]),
        );
        assert_eq!(trains[0], 0, "{} {memory:?} {lowering:?}: the program's own", name);
        assert_eq!(trains[2], 0, "{} {memory:?} {lowering:?}: the fused operators'", name);
        assert_eq!(others[0], 0, "{} {memory:?} {lowering:?}: the data thread's", name);
        // Whichever of the threads is the faster.
        let [trains, others] = counted(|| each_waits_for_the_other(&mut batches));
        assert_eq!((trains[0], others[0]), (0, 0), "{name} {memory:?} {lowering:?}: threads that wait");
    }
}

/// Takes batches until the thread that makes them has waited for room, and this one for a batch.
fn each_waits_for_the_other(batches: &mut Prefetcher) {
    let before = batches.waits();
    let take = |batches: &mut Prefetcher| {
        let batch = batches.next().unwrap().unwrap();
        batches.recycle(batch);
    };
    take(batches);
    // It makes as many as there is room for, and nothing is taken until it waits.
    while batches.waits().to_give == before.to_give {
        std::thread::yield_now();
    }
    // To hand a batch back is less than to make one.
    while batches.waits().to_take == before.to_take {
        take(batches);
    }
}

/// Sampled paths: once every operator was used, drawing one and training it asks for nothing, in either way of drawing.
fn steps_of_sampled_paths(environment: &Environment, bundle: &Bundle) {
    let options_of_network = NetworkOptions { memory: MemoryMode::Fast, lowering: Lowering::Fused };
    let mut network = Network::new(environment.clone(), bundle.dir(), bundle.manifest(), options_of_network).unwrap();
    let initial = BnParameters::initial(network.layout());
    let mut loader = loader();
    let batch = loader.batch(0).unwrap();
    for sampling in [Sampling::Fair, Sampling::Uniform] {
        let options = options(None, Rule::Sgd { momentum: 0.9 }, sampling);
        let mut trainer = Trainer::new(&network, options, initial.clone());
        let mut steps = |count: usize| {
            for _ in 0..count {
                trainer.step(&mut network, batch.images.view(), &batch.labels).unwrap();
            }
        };
        // A fair round of at most four operators a layer uses all of them; drawn uniformly, the most parts of a sum and its
        // like are met later.
        steps(24);
        let [[program, ..], _] = counted(|| steps(12));
        assert_eq!(program, 0, "{sampling:?}");
    }
}

/// What `nasbn adapt` does, but for the end of an epoch: batches made ahead, steps, a line of metrics for each, and a look at
/// what the process takes; with all sessions kept, or with `kept` of them.
fn steps_of_a_run(environment: &Environment, bundle: &Bundle, kept: Option<usize>) {
    /// Steps before those that are counted, and in all.
    const WARM: u64 = 40;
    const STEPS: u64 = 64;
    let options_of_network = NetworkOptions { memory: MemoryMode::Fast, lowering: Lowering::Fused };
    let mut network = Network::new(environment.clone(), bundle.dir(), bundle.manifest(), options_of_network).unwrap();
    let kept = kept.and_then(NonZeroUsize::new);
    kept.into_iter().for_each(|kept| network.keep_sessions(kept));
    let mut options = options(None, Rule::Sgd { momentum: 0.9 }, Sampling::Fair);
    options.schedule.total = STEPS;
    let mut trainer = Trainer::new(&network, options, BnParameters::initial(network.layout()));
    let mut watch = Watch::new(&Plan {
        budget: u64::MAX,
        memory: MemoryMode::Fast,
        batch: BATCH as u32,
        kept: kept.unwrap_or(NonZeroUsize::MAX),
        sessions: usize::MAX,
        expected: 0,
    });
    let mut lines = Vec::with_capacity(STEPS as usize * metrics::LINE);
    let (mut opened, mut counts) = (0, [[0; 3]; 2]);
    let after = |network: &mut Network, _: &Trainer, report: &StepReport, seconds: f64| {
        metrics::line(&mut lines, report, network.supernet(), STEPS, BATCH as f64 / seconds)?;
        assert_eq!(watch.look(resident().unwrap()), Verdict::Fine);
        match report.step {
            WARM => {
                opened = network.sessions();
                begin_to_count();
            }
            STEPS => counts = end_of_counting(),
            _ => {}
        }
        Ok::<_, std::io::Error>(ControlFlow::Continue(()))
    };
    run::run(&mut network, &mut trainer, loader(), after).unwrap();
    let opened = network.sessions() - opened;
    assert_eq!(opened > 0, kept.is_some(), "{opened} sessions were opened");
    let [[program, ort, kernel], others] = counts;
    eprintln!(
        "a run, {kept:?} sessions kept: {program} of the program, {kernel} in operators, {ort} of ort, {others:?}"
    );
    assert_eq!((program, others[0]), (0, 0), "{kept:?}");
    assert!(lines.iter().filter(|&&byte| byte == b'\n').count() == STEPS as usize);
    assert!(lines.len() <= STEPS as usize * metrics::LINE, "{} bytes", lines.len());
}
