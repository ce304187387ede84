//! Folders of PNG and JPEG files, right and wrong.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};

use super::super::{DataError, ImageSpec, LoadOptions, Part, load as load_with};
use super::{load, refusal};

const SPEC: ImageSpec = ImageSpec { channels: 3, height: 8, width: 8, classes: 2 };

/// `count` pictures of one colour in `root/name`, PNG and JPEG in turn.
fn class(root: &Path, name: &str, count: u32, colour: [u8; 3]) {
    let dir = root.join(name);
    fs::create_dir_all(&dir).unwrap();
    for index in 0..count {
        let picture = RgbImage::from_pixel(16 + index, 16, Rgb(colour));
        let extension = if index % 2 == 0 { "png" } else { "jpg" };
        picture.save(dir.join(format!("{index:02}.{extension}"))).unwrap();
    }
}

fn two_classes(train: u32) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    class(dir.path(), "red", train, [200, 0, 0]);
    class(dir.path(), "blue", train, [0, 0, 200]);
    let source = format!("images:{}", dir.path().display());
    (dir, source)
}

#[test]
fn class_folders_are_split_and_labelled_by_name() {
    let (_dir, source) = two_classes(10);
    let data = load(&source, &SPEC).unwrap();
    assert_eq!(data.classes(), ["blue", "red"]);
    for (part, count) in [(Part::Train, 8), (Part::Validation, 2)] {
        let split = data.split(part);
        assert_eq!(split.class_counts(2), [count; 2]);
        for (index, &label) in split.labels().iter().enumerate() {
            let image = split.image(index).unwrap();
            // JPEG changes a flat colour by a few levels at most.
            let (red, blue) = (image[0], image[128]);
            assert_eq!(red > 190 && blue < 10, label == 1, "{red} {blue} {label}");
        }
    }
    assert_eq!(data.fingerprint(), load(&source, &SPEC).unwrap().fingerprint());
}

#[test]
fn train_and_val_folders_are_the_parts() {
    let dir = tempfile::tempdir().unwrap();
    for (part, count) in [("train", 3), ("val", 2), ("test", 1)] {
        class(&dir.path().join(part), "a", count, [9; 3]);
        class(&dir.path().join(part), "b", count, [200; 3]);
    }
    let source = format!("images:{}", dir.path().display());
    let data = load(&source, &SPEC).unwrap();
    assert_eq!((data.split(Part::Train).len(), data.split(Part::Validation).len()), (6, 4));
    fs::remove_dir_all(dir.path().join("val")).unwrap();
    assert_eq!(load(&source, &SPEC).unwrap().split(Part::Validation).len(), 2);
    // Class folders that differ, then no held-back folder at all.
    fs::rename(dir.path().join("test/b"), dir.path().join("test/c")).unwrap();
    let message = refusal(&source, &SPEC);
    assert!(message.contains("first: b") && message.contains("second: c"), "{message}");
    fs::remove_dir_all(dir.path().join("test")).unwrap();
    assert_eq!(load(&source, &SPEC).unwrap().split(Part::Validation).class_counts(2), [1, 1]);
}

#[test]
fn every_usual_name_of_the_held_back_part_is_known_and_others_do_not_pass_for_classes() {
    let dir = tempfile::tempdir().unwrap();
    for (part, count) in [("train", 3), ("held", 2)] {
        class(&dir.path().join(part), "a", count, [9; 3]);
        class(&dir.path().join(part), "b", count, [200; 3]);
    }
    let source = format!("images:{}", dir.path().display());
    let mut name = "held";
    for next in ["val", "valid", "validation", "test", "dev"] {
        fs::rename(dir.path().join(name), dir.path().join(next)).unwrap();
        name = next;
        if next == "dev" {
            continue;
        }
        let data = load(&source, &SPEC).unwrap();
        assert_eq!(data.classes(), ["a", "b"], "{next}");
        assert_eq!((data.split(Part::Train).len(), data.split(Part::Validation).len()), (6, 4), "{next}");
    }
    // Two folders, two classes: without the refusal these would be called `dev` and `train`.
    let error = load(&source, &SPEC).unwrap_err();
    assert!(error.to_string().contains("train/ beside dev"), "{error}");
    assert!(error.hint().contains("validation"), "{}", error.hint());
}

#[test]
fn grey_pictures_fill_three_planes() {
    let (dir, source) = two_classes(4);
    for name in ["red", "blue"] {
        GrayImage::from_pixel(9, 9, Luma([77])).save(dir.path().join(name).join("grey.png")).unwrap();
    }
    let data = load(&source, &SPEC).unwrap();
    let split = [Part::Train, Part::Validation].map(|part| data.split(part));
    let images = split.iter().flat_map(|split| (0..split.len()).filter_map(|index| split.image(index)));
    assert_eq!(images.filter(|image| image.iter().all(|&byte| byte == 77)).count(), 2);
}

#[test]
fn unreadable_images_are_named_counted_and_skipped_only_if_asked() {
    let (dir, source) = two_classes(6);
    for index in 0..7 {
        fs::write(dir.path().join(format!("red/x{index}.png")), b"no picture").unwrap();
    }
    let message = refusal(&source, &SPEC);
    assert!(message.starts_with("7 of 19 images cannot be read"), "{message}");
    assert!(message.contains("x0.png") && message.contains("and 2 more"), "{message}");
    let options = LoadOptions { skip_unreadable: true, ..Default::default() };
    let data = load_with(&source.parse().unwrap(), &SPEC, &options).unwrap();
    assert_eq!(data.skipped().len(), 7);
    assert!(data.skipped()[0].path.ends_with("red/x0.png"));
    assert_eq!(data.split(Part::Train).len() + data.split(Part::Validation).len(), 12);
    assert!(data.description().contains("7 unreadable left out"), "{}", data.description());
}

#[test]
fn a_class_of_which_nothing_is_readable_is_named() {
    let (dir, source) = two_classes(4);
    for index in 0..4 {
        let extension = if index % 2 == 0 { "png" } else { "jpg" };
        fs::write(dir.path().join(format!("red/{index:02}.{extension}")), b"no picture").unwrap();
    }
    let options = LoadOptions { skip_unreadable: true, ..Default::default() };
    let error = load_with(&source.parse().unwrap(), &SPEC, &options).unwrap_err();
    assert!(error.to_string().contains("'red' has 0"), "{error}");
}

#[test]
fn folders_that_are_no_data_sets_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = format!("images:{}", dir.path().display());
    assert!(refusal(&source, &SPEC).contains("no class folders"));
    class(dir.path(), "only", 3, [1; 3]);
    assert!(matches!(load(&source, &SPEC), Err(DataError::OneClass { class, .. }) if class == "only"));
    fs::create_dir(dir.path().join("void")).unwrap();
    fs::write(dir.path().join("void/a.webp"), b"").unwrap();
    let message = refusal(&source, &SPEC);
    assert!(message.contains("void") && message.contains("1 files of other kinds"), "{message}");
    fs::remove_dir_all(dir.path().join("void")).unwrap();
    class(dir.path(), "single", 1, [1; 3]);
    assert!(refusal(&source, &SPEC).contains("'single' has 1 images"));
    class(dir.path(), "third", 2, [1; 3]);
    let message = refusal(&source, &SPEC);
    assert!(message.contains("3 classes") && message.contains("built for 2"), "{message}");
}

#[test]
fn memory_is_bounded_before_decoding() {
    let (_dir, source) = two_classes(3);
    let options = LoadOptions { max_bytes: 6 * 192 - 1, ..Default::default() };
    let error = load_with(&source.parse().unwrap(), &SPEC, &options).unwrap_err();
    assert!(matches!(error, DataError::TooLarge { images: 6, image_bytes: 192, .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn folders_without_permission_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, source) = two_classes(3);
    let locked = dir.path().join("red");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&locked).is_ok() {
        eprintln!("SKIPPED: this user may read everything; the test of permissions did not run");
    } else {
        let error = load(&source, &SPEC).unwrap_err();
        assert!(error.to_string().contains("red"), "{error}");
        assert!(error.hint().contains("readable"));
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
}
