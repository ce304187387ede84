//! Times the three measurements of a composite, candidate after candidate, the way `tests/peers/torch_candidates.py` does
//! for PyTorch: a line of JSON with the paths when ready, then for every line `N` on stdin the times of N passes over
//! the paths, in ms per candidate.
//!
//!     cargo run --profile quick -p nasbn-tests --example candidates -- BUNDLE each|together PATHS BATCH THREADS
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/memory.rs"]
mod memory;

use std::{
    env,
    io::{self, BufRead, Write},
    time::Instant,
};

use memory::memory_mb;
use nasbn_export::bundle::Bundle;
use nasbn_models::{
    Path,
    canonical::CanonicalTable,
    manifest::{Lowering, MemoryMode},
    sample,
};
use nasbn_runtime::{
    composite::{ReferenceImages, ReferenceOptions, parts, parts_of_all},
    data::{About, Dataset, ImageSpec, Split},
    network::{Network, NetworkOptions},
    ort_library,
    parameters::BnParameters,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Mini-batches of images that there are.
const BATCHES: usize = 12;

/// Images of noise, of all classes.
fn noise(spec: &ImageSpec, count: usize, rng: &mut ChaCha8Rng) -> Split {
    let mut pixels = vec![0; count * spec.elements()];
    rng.fill_bytes(&mut pixels);
    Split::new(spec, pixels, (0..count).map(|i| (i % spec.classes) as u16).collect()).unwrap()
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [bundle, mode, count, batch, threads] = &arguments[..] else {
        eprintln!("usage: candidates BUNDLE each|together PATHS BATCH THREADS");
        std::process::exit(2);
    };
    let (count, batch): (usize, usize) = (count.parse().expect("PATHS"), batch.parse().expect("BATCH"));
    let bundle = Bundle::open(bundle.as_ref()).expect("the bundle opens");
    let library = ort_library::locate(None).expect("ONNX Runtime is provisioned");
    let environment = ort_library::load(&library, threads.parse().expect("THREADS is a number")).unwrap();
    let before = memory_mb("VmRSS:");
    let options = NetworkOptions { memory: MemoryMode::Fast, lowering: Lowering::Fused };
    let mut network = Network::new(environment, bundle.dir(), bundle.manifest(), options).unwrap();
    let supernet = network.supernet().clone();
    let initial = BnParameters::initial(network.layout());

    let image = supernet.image();
    let [channels, height, width] = [image.channels, image.height, image.width].map(|extent| extent as usize);
    let spec = ImageSpec { channels, height, width, classes: supernet.classes() as usize };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (train, validation) = (noise(&spec, BATCHES * batch, &mut rng), noise(&spec, batch, &mut rng));
    let classes = (0..spec.classes).map(|class| class.to_string()).collect();
    let data = Dataset::new(spec, train, validation, About { classes, ..About::default() }).unwrap();
    let options = ReferenceOptions { batch, ..Default::default() };
    let images = ReferenceImages::new(&data, &options, 0).unwrap();

    let canonical = CanonicalTable::new(&supernet);
    let mut paths: Vec<Path> = Vec::new();
    while paths.len() < count {
        let path = sample::uniform(&supernet, &mut rng);
        if canonical.is_canonical(&path) && !paths.contains(&path) {
            paths.push(path);
        }
    }
    let mut run = || {
        let start = Instant::now();
        match mode.as_str() {
            "each" => {
                for path in &paths {
                    parts(&mut network, &initial, &images, path).unwrap();
                }
            }
            "together" => {
                parts_of_all(&mut network, &initial, &images, &paths, |_| true).unwrap();
            }
            other => panic!("{other} is not a mode"),
        }
        start.elapsed().as_secs_f64() * 1e3 / paths.len() as f64
    };
    // Sessions are made by the first pass.
    run();
    let texts: Vec<String> = paths.iter().map(|path| format!("{:?}", supernet.format_path(path))).collect();
    println!("{{\"ready\": true, \"paths\": [{}]}}", texts.join(", "));
    for line in io::stdin().lock().lines() {
        let count: usize = line.unwrap().trim().parse().expect("a number of passes");
        let times: Vec<String> = (0..count).map(|_| format!("{:.3}", run())).collect();
        println!(
            "{{\"times_ms\": [{}], \"peak_rss_mb\": {:.1}, \"rss_before_mb\": {before:.1}}}",
            times.join(", "),
            memory_mb("VmHWM:")
        );
        io::stdout().flush().unwrap();
    }
}
