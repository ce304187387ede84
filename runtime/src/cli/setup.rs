//! From arguments to a network that is ready to run.

use std::{
    collections::HashSet,
    fs, io,
    io::Read,
    path::Path as FsPath,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nasbn_export::bundle::read::Bundle;
use nasbn_models::{Path, Supernet, canonical::CanonicalTable, manifest::MemoryMode, sample};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    Failure,
    args::{BundleArgs, LibraryArgs, PathsArgs, ReadingArgs, ValidationArgs},
    budget::{self, Bound},
    running::{self, RunArgs, Running},
    training::Graphs,
};
use crate::{
    checkpoint::Checkpoint,
    data::{self, Batch, BatchList, DataSource, Dataset, ImageSpec, LoadOptions, Part},
    indicators::catalogue::Measurement,
    network::{Network, NetworkOptions},
    ort_library::{self, Library},
    parameters::BnParameters,
    provider::Provider,
    score::{Images, ScoreOptions},
    table::{self, Row},
};

/// More threads than any machine has cores for.
const MOST_THREADS: usize = 512;

/// A verified bundle and a network that runs it.
pub struct Session {
    /// The bundle.
    pub bundle: Bundle,
    /// The network.
    pub network: Network,
    /// What runs it.
    pub running: Running,
}

/// Threads to compute with: those asked for, or as many as there are cores.
pub fn threads(args: &LibraryArgs) -> usize {
    args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Finds and loads the library with the threads asked for.
pub fn library(args: &LibraryArgs) -> Result<(Library, ort::environment::Environment), Failure> {
    let threads = threads(args);
    if args.threads.is_some() && !(1..=MOST_THREADS).contains(&threads) {
        return Err(Failure::usage(format!("--threads {threads} is not possible; 1 to {MOST_THREADS} is"))
            .hint("leave it out to use all cores"));
    }
    let library = ort_library::locate(args.ort_library.as_deref())?;
    let environment = ort_library::load(&library, threads)?;
    log::info!("ONNX Runtime 1.{} from {} ({threads} threads)", library.minor, library.path.display());
    Ok((library, environment))
}

/// Opens and verifies the bundle and makes its network.
pub fn open(args: &BundleArgs, memory: MemoryMode, graphs: Option<Graphs>) -> Result<Session, Failure> {
    open_in(&args.bundle, &args.run, memory, graphs)
}

/// [`open`], with proof that with another provider than the CPU the graphs of deployed networks run there: on `batch`
/// images, of a network drawn by `seed` and of every block. Where they do not and a fallback is allowed, it is known before the
/// network is made, and that runs on the CPU, too.
pub fn open_placed(
    args: &BundleArgs,
    memory: MemoryMode,
    graphs: Option<Graphs>,
    batch: u32,
    seed: u64,
) -> Result<Session, Failure> {
    open_after(&args.bundle, &args.run, memory, graphs, |bundle, running| {
        if running.backend.provider != Provider::Cpu {
            let path = some_path(&bundle.manifest().supernet, seed)?;
            running.place(&args.run, bundle, &path, batch)?;
        }
        Ok(())
    })
}

/// Opens and verifies the bundle in `directory` and makes its network.
pub fn open_in(
    directory: &FsPath,
    args: &RunArgs,
    memory: MemoryMode,
    graphs: Option<Graphs>,
) -> Result<Session, Failure> {
    open_after(directory, args, memory, graphs, |_, _| Ok(()))
}

/// [`open_in`]; what `settle` says of where graphs run holds for the network.
fn open_after(
    directory: &FsPath,
    args: &RunArgs,
    memory: MemoryMode,
    graphs: Option<Graphs>,
    settle: impl FnOnce(&Bundle, &mut Running) -> Result<(), Failure>,
) -> Result<Session, Failure> {
    let bundle = Bundle::open(directory)?;
    bundle.verify()?;
    let mut running = running::start(args, graphs, Some(&bundle))?;
    settle(&bundle, &mut running)?;
    let options = NetworkOptions { memory, lowering: running.lowering(graphs) };
    let network = running.network(&bundle, options)?;
    Ok(Session { bundle, network, running })
}

/// Loads the images that fit the supernet. Where a source has no validation part of its own, the images
/// held back are the same for every `--seed`, so that no command validates on what another trained on.
/// Refused before it is read where its images alone are larger than a memory budget.
pub fn dataset_within(
    source: &DataSource,
    args: &ReadingArgs,
    supernet: &Supernet,
    most: Option<u64>,
) -> Result<Arc<Dataset>, Failure> {
    let image = supernet.image();
    let spec = ImageSpec {
        channels: image.channels as usize,
        height: image.height as usize,
        width: image.width as usize,
        classes: supernet.classes() as usize,
    };
    let usual = LoadOptions::default();
    let most = most.map(Bound::new);
    let room = most.map(|most| most.room_for_images());
    let options = LoadOptions {
        skip_unreadable: args.skip_unreadable,
        validation_fraction: args.validation_fraction,
        max_bytes: room.map_or(usual.max_bytes, |room| room.min(usual.max_bytes)),
        ..usual
    };
    let data = data::load(source, &spec, &options);
    Ok(Arc::new(data.map_err(|error| budget::refused_images(error, most.zip(room)))?))
}

/// BatchNorm parameters: those of the checkpoint, or the initial ones.
pub fn parameters(session: &Session, checkpoint: Option<&FsPath>) -> Result<BnParameters, Failure> {
    Ok(match checkpoint {
        Some(directory) => Checkpoint::read(directory, session.bundle.digest(), session.network.layout())?.parameters,
        None => BnParameters::of_bundle(&session.bundle, session.network.layout())?,
    })
}

/// Mini-batches of training images to recalibrate on.
pub fn training(data: &Dataset, args: &ValidationArgs, seed: u64) -> Result<Vec<Batch>, Failure> {
    Ok(data.fixed_batches(Part::Train, args.batch as usize, args.recalibrate as usize, seed)?)
}

/// The validation images at `indices`.
pub fn validation(data: &Arc<Dataset>, args: &ValidationArgs, indices: &[usize]) -> Result<BatchList, Failure> {
    Ok(BatchList::new(data, Part::Validation, indices, args.batch as usize)?)
}

/// Images for the indicators that `options` ask for; those for validation and uncertainty are the
/// validation images at `indices`, for uncertainty the first `mc_images` of them. At least `least` mini-batches are of
/// training images, the first of them those of [`training`].
pub fn score_images(
    data: &Arc<Dataset>,
    options: &ScoreOptions,
    args: &ValidationArgs,
    mc_images: u32,
    indices: &[usize],
    least: u32,
    seed: u64,
) -> Result<Images, Failure> {
    let batch = args.batch as usize;
    // An adaptation of more steps than there are mini-batches begins again.
    let steps = options.adapt.map_or(0, |adapt| adapt.steps as usize);
    let steps = steps.min((data.split(Part::Train).len() / batch).max(1));
    let count = steps.max(options.training_batches()).max(least as usize);
    let training = data.fixed_batches(Part::Train, batch, count, seed)?;
    let wanted = |measurement, indices| match options.selection.needs(measurement) {
        true => validation(data, args, indices),
        false => Ok(BatchList::default()),
    };
    let few = &indices[..indices.len().min(mc_images as usize)];
    Ok(Images {
        training,
        validation: wanted(Measurement::Validation, indices)?,
        uncertainty: wanted(Measurement::MonteCarlo, few)?.iter().collect(),
    })
}

/// Validation images in two halves drawn at random: one to choose by, one to report on.
pub fn halves(data: &Dataset, args: &ValidationArgs, seed: u64) -> Result<(Vec<usize>, Vec<usize>), Failure> {
    let mut choose = validation_order(data, args, seed);
    let report = choose.split_off(choose.len().div_ceil(2));
    if report.is_empty() {
        return Err(Failure::usage("one validation image is too few")
            .hint("a search chooses by one half of the validation images and reports on the other"));
    }
    Ok((choose, report))
}

/// Validation images in random order, as many as asked for.
pub fn validation_order(data: &Dataset, args: &ValidationArgs, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..data.split(Part::Validation).len()).collect();
    sample::shuffle(&mut ChaCha8Rng::seed_from_u64(seed), &mut order);
    if let Some(asked) = args.validation_images.filter(|&asked| asked as usize > order.len()) {
        log::warn!("--validation-images {asked}: there are only {}, all of which are taken", order.len());
    }
    order.truncate(args.validation_images.map_or(usize::MAX, |n| n as usize));
    order
}

/// A path from its text.
pub fn path(supernet: &Supernet, text: &str) -> Result<Path, Failure> {
    supernet.parse_path(text).map_err(|e| {
        let failure = Failure::usage(&e);
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// The paths that `--paths` or `--random` ask for.
pub fn paths(args: &PathsArgs, supernet: &Supernet, seed: u64) -> Result<Vec<Path>, Failure> {
    if let Some(count) = args.random {
        return random_paths(supernet, count, seed);
    }
    let Some(file) = &args.paths else {
        return Err(Failure::usage("no paths were asked for").hint("name some with --paths FILE or --random N"));
    };
    paths_of(file, supernet)
}

/// The paths in a file, or on stdin for `-`.
pub fn paths_of(file: &FsPath, supernet: &Supernet) -> Result<Vec<Path>, Failure> {
    let wanted = "--paths wants a CSV file with a column `path` or `arch`, or a path a line";
    let text = text(file, wanted)?;
    let texts =
        column(&text).map_err(|problem| Failure::usage(format!("{}: {problem}", file.display())).hint(wanted))?;
    if texts.is_empty() {
        return Err(Failure::usage(format!("{}: holds no path", file.display())).hint(wanted));
    }
    let located = |(line, text): &(u64, String)| {
        supernet.parse_path(text).map_err(|e| {
            let failure = Failure::usage(format!("{}, line {line}: {e}", file.display()));
            match e.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    };
    texts.iter().map(located).collect()
}

/// The paths of a file with their lines: the column `path` of a CSV, `arch` if there is none, or every line.
fn column(text: &str) -> Result<Vec<(u64, String)>, String> {
    let mut index = None;
    let mut found = Vec::new();
    for (number, row) in table::rows(text).enumerate() {
        let Row { line, fields } = row.map_err(|e| e.to_string())?;
        if number == 0 {
            let named = |wanted: &str| fields.iter().position(|name| name == wanted);
            index = named("path").or_else(|| named("arch"));
            if index.is_some() {
                continue;
            }
            if fields.len() > 1 {
                return Err("the header has no column `path` or `arch`".into());
            }
        }
        match fields.get(index.unwrap_or(0)) {
            Some("") if fields.len() == 1 => {}
            Some(text) => found.push((line, text.to_owned())),
            None => return Err(format!("line {line} has no column {}", index.unwrap_or(0) + 1)),
        }
    }
    Ok(found)
}

/// The text of a file, or of stdin for `-`.
pub fn text(file: &FsPath, wanted: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        fs::read_to_string(file).map(|contents| text = contents)
    };
    read.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Failure::file(file, &e),
        _ => Failure::file(file, &e).hint(wanted),
    })?;
    Ok(text)
}

/// `count` random paths of different networks, or all there are if there are fewer.
pub fn random_paths(supernet: &Supernet, count: usize, seed: u64) -> Result<Vec<Path>, Failure> {
    if count == 0 {
        return Err(Failure::usage("--random 0 asks for no path").hint("ask for at least one"));
    }
    let paths = distinct_random_paths(supernet, count, seed);
    if paths.len() < count {
        log::warn!("the space has only {} different networks", paths.len());
    }
    Ok(paths)
}

/// The different networks of paths that lead to the logits, canonical, in the order of their first descriptions.
pub fn networks(supernet: &Supernet, paths: &[Path]) -> Vec<Path> {
    let canonical = CanonicalTable::new(supernet);
    let mut seen = HashSet::new();
    let paths = paths.iter().map(|path| canonical.of(path));
    paths.filter(|path| supernet.is_connected(path) && seen.insert(path.clone())).collect()
}

/// Refuses a root of the board's files that is no directory.
pub fn root(root: &FsPath) -> Result<(), Failure> {
    if root.is_dir() {
        return Ok(());
    }
    Err(Failure::usage(format!("--root {} is not a directory", root.display()))
        .hint("name one that holds etc, proc and sys of a board, or leave --root out"))
}

/// A random path that leads to the logits.
pub fn some_path(supernet: &Supernet, seed: u64) -> Result<Path, Failure> {
    distinct_random_paths(supernet, 1, seed).pop().ok_or_else(|| {
        Failure::usage("no random path of the space leads from the image to the logits")
            .hint("absent operators cut off nearly every path of this space: name some with --paths")
    })
}

/// Up to `count` random paths of different networks.
pub fn distinct_random_paths(supernet: &Supernet, count: usize, seed: u64) -> Vec<Path> {
    /// Draws without a new network after which the space counts as used up.
    const PATIENCE: usize = 100_000;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut seen, mut paths, mut idle) = (HashSet::new(), Vec::new(), 0);
    while paths.len() < count && idle < PATIENCE {
        let path = sample::uniform(supernet, &mut rng);
        if supernet.is_connected(&path) && seen.insert(supernet.canonical(&path)) {
            paths.push(path);
            idle = 0;
        } else {
            idle += 1;
        }
    }
    paths
}

/// A flag that Ctrl-C and termination set.
pub fn interrupted() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    // Without a handler (one is already there, in tests) Ctrl-C ends the program as ever.
    let _ = ctrlc::set_handler(move || {
        if set.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    });
    flag
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::borrow::Borrow;

    use super::*;
    use crate::data::{About, Split};

    /// A data set of one pixel an image, every image a class of its own.
    fn numbered(train: u16, validation: u16) -> Arc<Dataset> {
        let spec = ImageSpec { channels: 1, height: 1, width: 1, classes: usize::from(train + validation) };
        let split = |labels: std::ops::Range<u16>| Split::new(&spec, vec![0; labels.len()], labels.collect()).unwrap();
        let classes = (0..spec.classes).map(|c| c.to_string()).collect();
        let about = About { source: "numbers".into(), classes, flip: false, skipped: Vec::new() };
        Arc::new(Dataset::new(spec, split(0..train), split(train..train + validation), about).unwrap())
    }

    fn labels(batches: impl IntoIterator<Item = impl Borrow<Batch>>) -> Vec<i64> {
        batches.into_iter().flat_map(|batch| batch.borrow().labels.clone()).collect()
    }

    #[test]
    fn halves_share_no_image_and_leave_none_out() {
        let arguments = |validation_images| ValidationArgs {
            batch: 4,
            recalibrate: 2,
            validation_images,
            graphs: Some(Graphs::Portable),
        };
        for (images, asked, expected) in [(30, None, 30), (31, None, 31), (30, Some(7), 7), (2, None, 2)] {
            let data = numbered(20, images);
            let of = |seed| {
                let (choose, report) = halves(&data, &arguments(asked), seed).unwrap();
                [choose, report].map(|half| labels(validation(&data, &arguments(asked), &half).unwrap().iter()))
            };
            let [first, second] = of(3);
            let all: HashSet<i64> = first.iter().chain(&second).copied().collect();
            assert_eq!((first.len() + second.len(), all.len()), (expected, expected), "an image is in both halves");
            assert!(first.len() - second.len() <= 1);
            // Validation images only, and statistics from training images only.
            assert!(all.iter().all(|&label| label >= 20));
            assert!(labels(training(&data, &arguments(asked), 3).unwrap()).iter().all(|&label| label < 20));
            assert_eq!(of(3)[1], second);
            assert!(images < 30 || of(4)[1] != second);
        }
        assert!(halves(&numbered(20, 1), &arguments(None), 0).is_err());
    }

    #[test]
    fn paths_are_found_with_their_lines() {
        let found = |text: &str| column(text).unwrap().into_iter().map(|(l, t)| format!("{l}:{t}")).collect::<Vec<_>>();
        assert_eq!(found("012\n\n\n210\n"), ["1:012", "4:210"]);
        assert_eq!(found("path\n012\n\n210"), ["2:012", "4:210"]);
        assert_eq!(found("index,arch,acc\n1, 012 ,3\n2,210,4\n"), ["2:012", "3:210"]);
        // `path` comes first, wherever it stands.
        assert_eq!(found("path,arch\n012,a\n"), ["2:012"]);
        assert_eq!(found("arch,acc,path\na,3,012\n"), ["2:012"]);
        assert_eq!(found(""), [""; 0]);
        assert!(column("a,b\n1,2\n").unwrap_err().contains("no column `path` or `arch`"));
        assert!(column("a,path\n1\n").unwrap_err().contains("line 2 has no column 2"));
    }
}
