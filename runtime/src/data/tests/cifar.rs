//! CIFAR binary files, right and wrong.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{LoadOptions, Part, load as load_with};
use super::{load, refusal, spec};

/// Records with these labels; pixel bytes tell record and plane.
fn records(label_bytes: usize, labels: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, &label) in (0_u8..).zip(labels) {
        out.extend(vec![1; label_bytes - 1]);
        out.push(label);
        for plane in 0..3 {
            out.extend([index * 3 + plane; 1024]);
        }
    }
    out
}

fn folder(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let source = format!("cifar10:{}", dir.path().display());
    (dir, source)
}

#[test]
fn files_are_found_by_prefix_and_read_in_order() {
    let (_dir, source) = folder(&[
        ("train-b.bin", records(1, &[2, 3])),
        ("data_batch_1.bin", records(1, &[0, 1])),
        ("test-x.bin", records(1, &[9])),
        ("train.csv", b"not a record file".to_vec()),
        ("batches.meta.bin", b"neither".to_vec()),
    ]);
    let data = load(&source, &spec(10)).unwrap();
    let train = data.split(Part::Train);
    assert_eq!(train.labels(), [0, 1, 2, 3]);
    assert_eq!(data.split(Part::Validation).labels(), [9]);
    let image = train.image(1).unwrap();
    assert_eq!((image[0], image[1024], image[2048]), (3, 4, 5));
    assert_eq!(data.classes()[9], "truck");
    assert!(data.flip());
}

#[test]
fn other_sizes_and_grey_are_made() {
    let (_dir, source) = folder(&[("train.bin", records(1, &[0, 1])), ("test.bin", records(1, &[2]))]);
    let large = load(&source, &super::ImageSpec { height: 64, width: 48, ..spec(10) }).unwrap();
    let image = large.split(Part::Train).image(1).unwrap();
    assert_eq!(image.len(), 3 * 64 * 48);
    assert_eq!((image[0], image[64 * 48], image[2 * 64 * 48]), (3, 4, 5));
    let grey = load(&source, &super::ImageSpec { channels: 1, ..spec(10) }).unwrap();
    // Luma of (3, 4, 5).
    assert_eq!(grey.split(Part::Train).image(1).unwrap(), [4; 1024]);
}

#[test]
fn without_a_test_file_a_stratified_share_is_held_back() {
    let labels: Vec<u8> = (0..10).flat_map(|class| [class; 5]).collect();
    let (_dir, source) = folder(&[("train.bin", records(1, &labels))]);
    let data = load(&source, &spec(10)).unwrap();
    assert_eq!(data.split(Part::Validation).class_counts(10), [1; 10]);
    assert_eq!(data.split(Part::Train).class_counts(10), [4; 10]);
    assert!(data.description().contains("held back"), "{}", data.description());
    assert_eq!(data.fingerprint(), load(&source, &spec(10)).unwrap().fingerprint());
    let options = LoadOptions { seed: 1, ..Default::default() };
    let other = load_with(&source.parse().unwrap(), &spec(10), &options).unwrap();
    assert_ne!(data.fingerprint(), other.fingerprint());
}

#[test]
fn wrong_sizes_name_file_size_and_record() {
    for size in [0, 1, 3072, 3074, 3073 * 2 - 1] {
        let (_dir, source) = folder(&[("train.bin", vec![0; size]), ("test.bin", records(1, &[0]))]);
        let message = refusal(&source, &spec(10));
        assert!(message.contains("train.bin") && message.contains("3073"), "{message}");
        assert!(message.contains(&format!("{size} bytes")), "{message}");
    }
    let (_dir, source) = folder(&[("train.bin", records(1, &[0])), ("test.bin", vec![0; 5])]);
    assert!(refusal(&source, &spec(10)).contains("test.bin"));
}

#[test]
fn labels_beyond_the_classes_name_their_record() {
    let (_dir, source) = folder(&[("train.bin", records(1, &[0, 1, 10])), ("test.bin", records(1, &[0]))]);
    let message = refusal(&source, &spec(10));
    assert!(message.contains("train.bin, record 2") && message.contains("label 10"), "{message}");
    assert!(message.contains("0 to 9"), "{message}");
}

#[test]
fn records_of_one_class_only_are_refused() {
    let (_dir, source) = folder(&[("train.bin", records(1, &[3; 8])), ("test.bin", records(1, &[3, 4]))]);
    let message = refusal(&source, &spec(10));
    assert!(message.contains("all of one class, 'cat'") && message.contains("8 training images"), "{message}");
}

#[test]
fn missing_files_and_folders_say_what_is_there() {
    let (dir, source) = folder(&[("test.bin", records(1, &[0])), ("cifar.tar.gz", vec![1])]);
    let message = refusal(&source, &spec(10));
    assert!(message.contains("data_batch*.bin") && message.contains("cifar.tar.gz"), "{message}");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(refusal(&format!("cifar10:{}", empty.display()), &spec(10)).contains("nothing"));
    let file = dir.path().join("test.bin");
    assert!(refusal(&format!("cifar10:{}", file.display()), &spec(10)).contains("test.bin"));
    assert!(refusal("cifar10:/no/such/place", &spec(10)).contains("/no/such/place"));
}

#[test]
fn other_class_numbers_and_too_much_data_are_refused() {
    let (_dir, source) = folder(&[("train.bin", records(1, &[0; 8])), ("test.bin", records(1, &[0]))]);
    let message = refusal(&source, &spec(100));
    assert!(message.contains("10 classes") && message.contains("100"), "{message}");
    let options = LoadOptions { max_bytes: 9 * 3072 - 1, ..Default::default() };
    let error = load_with(&source.parse().unwrap(), &spec(10), &options).unwrap_err();
    assert!(error.to_string().contains("27648"), "{error}");
    assert!(error.hint().contains("fewer images"), "{}", error.hint());
}

#[test]
fn cifar100_takes_the_fine_label() {
    let (dir, _) = folder(&[("train.bin", records(2, &[0, 99])), ("test.bin", records(2, &[50]))]);
    let source = format!("cifar100:{}", dir.path().display());
    let data = load(&source, &spec(100)).unwrap();
    assert_eq!(data.split(Part::Train).labels(), [0, 99]);
    assert_eq!(data.split(Part::Train).image(1).unwrap()[0], 3);
    assert_eq!((data.classes()[0].as_str(), data.classes()[99].as_str()), ("apple", "worm"));
    let mut sorted = data.classes().to_vec();
    sorted.dedup();
    assert!(sorted.is_sorted() && sorted.len() == 100);
    // CIFAR-10 files are no CIFAR-100 files: two records have the wrong size.
    fs::write(dir.path().join("train.bin"), records(1, &[0, 1])).unwrap();
    assert!(refusal(&source, &spec(100)).contains("3074"));
}

/// Real images beside the checkout, if they are there.
fn real() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/cifar10");
    if dir.is_dir() {
        return Some(dir);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", dir.display());
    eprintln!("SKIPPED: no {}; the test of real CIFAR-10 images did not run", dir.display());
    None
}

#[test]
fn real_images_have_the_documented_statistics() {
    let Some(dir) = real() else { return };
    let data = load(&format!("cifar10:{}", dir.display()), &spec(10)).unwrap();
    assert_eq!(data.split(Part::Train).class_counts(10), [500; 10]);
    assert_eq!(data.split(Part::Validation).class_counts(10), [200; 10]);
    // The four published decimals.
    let normaliser = data.normaliser();
    for (found, stated) in normaliser.mean().iter().zip([0.4933, 0.4837, 0.4473]) {
        assert!((found - stated).abs() < 5.1e-5, "{found} {stated}");
    }
    for (found, stated) in normaliser.std().iter().zip([0.2479, 0.2444, 0.2624]) {
        assert!((found - stated).abs() < 5.1e-5, "{found} {stated}");
    }
}
