//! `images:DIR`: class folders of PNG and JPEG files, the class being the folder's name.

use std::path::{Path, PathBuf};

use super::dataset::{About, Dataset, Split};
use super::decode;
use super::error::{DataError, Skipped};
use super::listing::{self, Entry};
use super::options::{ImageSpec, LoadOptions};
use super::stratify;

/// Names of a held-back part, best first.
const HELD_BACK: [&str; 4] = ["val", "valid", "validation", "test"];

/// The images of one folder of class folders, not yet decoded.
#[derive(Debug)]
struct Tree {
    root: PathBuf,
    classes: Vec<String>,
    files: Vec<PathBuf>,
    labels: Vec<u16>,
}

/// Reads `dir`. With `train/` beside `val/`, `valid/`, `validation/` or `test/` these are the two parts (the first
/// of the four counts, other folders are ignored). `train/` beside other folders only is refused: they would pass
/// for classes. With `train/` alone, or class folders themselves, a stratified share of each
/// class is held back.
pub(crate) fn load(dir: &Path, spec: &ImageSpec, options: &LoadOptions) -> Result<Dataset, DataError> {
    let entries = listing::entries(dir)?;
    let folder = |name: &str| entries.iter().find(|e| e.is_dir && e.name == name).map(|e| e.path.clone());
    let held_back = HELD_BACK.iter().find_map(|name| folder(name));
    let others = entries.iter().filter(|e| e.is_dir && e.name != "train").map(|e| e.name.clone());
    let others: Vec<String> = others.collect();
    match (folder("train"), held_back) {
        (Some(train), Some(held)) => two_parts(dir, &train, &held, spec, options),
        (Some(train), None) if others.is_empty() => one_part(dir, &train, spec, options),
        (Some(_), None) => Err(DataError::Parts { path: dir.into(), others }),
        _ => one_part(dir, dir, spec, options),
    }
}

fn two_parts(
    dir: &Path,
    train: &Path,
    held: &Path,
    spec: &ImageSpec,
    options: &LoadOptions,
) -> Result<Dataset, DataError> {
    let (train, held) = (tree(train)?, tree(held)?);
    if train.classes != held.classes {
        let lacking = |a: &Tree, b: &Tree| -> Vec<String> {
            a.classes.iter().filter(|class| !b.classes.contains(class)).cloned().collect()
        };
        let (only_train, only_validation) = (lacking(&train, &held), lacking(&held, &train));
        return Err(DataError::ClassesDiffer { train: train.root, validation: held.root, only_train, only_validation });
    }
    let part = held.root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let source = format!("images in {} (train/ and {part}/)", dir.display());
    check(&train, spec, options, train.files.len() + held.files.len())?;
    assemble(source, train.classes, (train.files, train.labels), (held.files, held.labels), spec, options)
}

fn one_part(dir: &Path, root: &Path, spec: &ImageSpec, options: &LoadOptions) -> Result<Dataset, DataError> {
    let tree = tree(root)?;
    check(&tree, spec, options, tree.files.len())?;
    let count = (tree.files.len() as f64 * options.validation_fraction).round() as usize;
    let held = stratify::held_back(&tree.labels, &tree.classes, count, options.seed)?;
    let mut next = held.iter().peekable();
    let (mut train, mut validation) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for (index, (file, label)) in tree.files.into_iter().zip(tree.labels).enumerate() {
        let part = if next.next_if(|&&held| held == index).is_some() { &mut validation } else { &mut train };
        part.0.push(file);
        part.1.push(label);
    }
    let source = format!("images in {} (validation held back)", dir.display());
    assemble(source, tree.classes, train, validation, spec, options)
}

/// Lists the class folders of `root`.
fn tree(root: &Path) -> Result<Tree, DataError> {
    let entries = listing::entries(root)?;
    let (folders, files): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.is_dir);
    if !files.is_empty() {
        log::warn!("{} files directly in {} belong to no class and are ignored", files.len(), root.display());
    }
    if folders.is_empty() {
        let (wanted, found) = ("class folders".into(), listing::summary(&entries));
        return Err(DataError::Missing { path: root.into(), wanted, found });
    }
    if let [only] = folders[..] {
        return Err(DataError::OneClass { path: root.into(), class: only.name.clone() });
    }
    let (mut all, mut labels, mut classes) = (Vec::new(), Vec::new(), Vec::new());
    for (label, folder) in folders.iter().enumerate() {
        let images = listing::images(&folder.path)?;
        if images.files.is_empty() {
            let found = format!("{} files of other kinds", images.others);
            return Err(DataError::Missing { path: folder.path.clone(), wanted: "PNG or JPEG file".into(), found });
        }
        if images.others > 0 {
            log::warn!("{} files in {} are neither PNG nor JPEG and are ignored", images.others, folder.path.display());
        }
        // More folders than labels can name are refused right after, by the number of classes.
        let label = u16::try_from(label).unwrap_or(u16::MAX);
        labels.extend(std::iter::repeat_n(label, images.files.len()));
        all.extend(images.files);
        classes.push(folder.name.clone());
    }
    Ok(Tree { root: root.into(), classes, files: all, labels })
}

/// Refuses a wrong number of classes, and more images than memory was granted for.
fn check(tree: &Tree, spec: &ImageSpec, options: &LoadOptions, images: usize) -> Result<(), DataError> {
    if tree.classes.len() != spec.classes {
        let (found, expected) = (tree.classes.len(), spec.classes);
        return Err(DataError::ClassCount { what: tree.root.display().to_string(), found, expected });
    }
    options.check_memory(images as u64, spec)
}

type Files = (Vec<PathBuf>, Vec<u16>);

fn assemble(
    source: String,
    classes: Vec<String>,
    train: Files,
    validation: Files,
    spec: &ImageSpec,
    options: &LoadOptions,
) -> Result<Dataset, DataError> {
    let total = train.0.len() + validation.0.len();
    let mut skipped: Vec<Skipped> = Vec::new();
    let mut decode = |(files, labels): Files| -> Result<Split, DataError> {
        let decoded = decode::all(&files, spec)?;
        skipped.extend(decoded.skipped);
        let labels = decoded.kept.iter().filter_map(|&index| labels.get(index).copied()).collect();
        Split::new(spec, decoded.images, labels)
    };
    let (train, validation) = (decode(train)?, decode(validation)?);
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    if !skipped.is_empty() && !options.skip_unreadable {
        return Err(DataError::Unreadable { files: skipped, total });
    }
    for split in [&train, &validation] {
        let counts = split.class_counts(spec.classes);
        if let Some((class, _)) = classes.iter().zip(counts).find(|(_, count)| *count == 0) {
            let (class, found, needed) = (class.clone(), 0, 1);
            return Err(DataError::SmallClass { class, found, needed });
        }
    }
    Dataset::new(*spec, train, validation, About { source, classes, flip: true, skipped })
}
