//! Times a BN-only training step of one path, the way `tests/peers/torch_step.py` does for PyTorch: a line of
//! JSON when ready, then the times of N steps for every line `N` on stdin.
//!
//!     cargo run --profile quick -p nasbn-tests --example step -- BUNDLE PATH BATCH MEMORY GRAPHS THREADS
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/memory.rs"]
mod memory;

use std::{
    env,
    io::{self, BufRead, Write},
    time::Instant,
};

use memory::memory_mb;
use nasbn_export::bundle::Bundle;
use nasbn_models::manifest::{Lowering, MemoryMode};
use nasbn_runtime::{
    adapt::{
        AdaptOptions, Sampling, Trainer,
        optimizer::{Rule, Schedule},
    },
    network::{Network, NetworkOptions},
    ort_library,
    parameters::BnParameters,
};
use ndarray::Array4;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

const WARMUP: u32 = 5;

fn main() {
    let started = Instant::now();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [bundle, path, batch, memory, graphs, threads] = &arguments[..] else {
        eprintln!("usage: step BUNDLE PATH BATCH fast|lean fused|portable THREADS");
        std::process::exit(2);
    };
    let batch: usize = batch.parse().expect("BATCH is a number");
    let bundle = Bundle::open(bundle.as_ref()).expect("the bundle opens");
    let library = ort_library::locate(None).expect("ONNX Runtime is provisioned");
    let environment = ort_library::load(&library, threads.parse().expect("THREADS is a number")).unwrap();
    let before = memory_mb("VmRSS:");
    let options = NetworkOptions {
        memory: if memory == "lean" { MemoryMode::Lean } else { MemoryMode::Fast },
        lowering: if graphs == "portable" { Lowering::Portable } else { Lowering::Fused },
    };
    let mut network = Network::new(environment, bundle.dir(), bundle.manifest(), options).unwrap();
    let supernet = network.supernet().clone();
    let path = supernet.parse_path(path).expect("the path is one of the space");
    let image = supernet.image();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let shape = (batch, image.channels as usize, image.height as usize, image.width as usize);
    // Uniform numbers of mean 0 and variance 1.
    let images = Array4::from_shape_simple_fn(shape, || (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 12f32.sqrt());
    let labels: Vec<i64> = (0..batch as i64).map(|i| i % i64::from(supernet.classes())).collect();
    let adapt = AdaptOptions {
        epochs: 1,
        batch: batch as u32,
        rule: Rule::Sgd { momentum: 0.9 },
        schedule: Schedule { peak: 0.01, warmup: 0, total: 1, cosine: false },
        clip_norm: None,
        sampling: Sampling::Uniform,
        path: Some(path),
        seed: 0,
        data: String::new(),
        augment: false,
        lean: options.memory == MemoryMode::Lean,
        fused: options.lowering == Lowering::Fused,
    };
    let initial = BnParameters::initial(network.layout());
    let mut trainer = Trainer::new(&network, adapt, initial);
    let mut step = || {
        let start = Instant::now();
        trainer.step(&mut network, images.view(), &labels).unwrap();
        start.elapsed().as_secs_f64() * 1e3
    };
    step();
    // From the start of the program: library, bundle, sessions, and the first step itself.
    let first_loss_ms = started.elapsed().as_secs_f64() * 1e3;
    for _ in 1..WARMUP {
        step();
    }
    println!("{{\"ready\": true, \"first_loss_ms\": {first_loss_ms:.0}}}");
    for line in io::stdin().lock().lines() {
        let count: usize = line.unwrap().trim().parse().expect("a number of steps");
        let times: Vec<String> = (0..count).map(|_| format!("{:.3}", step())).collect();
        println!(
            "{{\"times_ms\": [{}], \"peak_rss_mb\": {:.1}, \"rss_before_mb\": {before:.1}}}",
            times.join(", "),
            memory_mb("VmHWM:")
        );
        io::stdout().flush().unwrap();
    }
}
