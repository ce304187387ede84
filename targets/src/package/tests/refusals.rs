//! What is refused, and what is left then: nothing.

use super::*;

#[test]
fn a_place_in_the_bundle_or_without_a_name_is_refused() {
    let place = Place::new();
    for (out, words) in [("bundle/graphs/deploy", "in the bundle"), ("bundle/..", "does not end in a name")] {
        let error = place.make(|r| r.out = place.path(out)).unwrap_err();
        assert!(matches!(&error, PackageError::Place { .. }) && error.to_string().contains(words), "{error}");
    }
    assert!(place.left().is_empty());
}

#[test]
fn what_does_not_run_on_the_board_is_refused_and_nothing_is_written() {
    let mut place = Place::new();
    let exe = fs::read(&place.exe).unwrap();
    let foreign = place.path("pages/foreign");
    fs::write(&foreign, [&exe[..18], &[243, 0], &exe[20..]].concat()).unwrap();
    let error = place.make(|r| r.binary = Some(foreign)).unwrap_err();
    assert!(error.to_string().contains("is for machine 243") && error.hint().contains("cargo jetson"), "{error}");
    let script = place.path("pages/script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    let error = place.make(|r| r.binary = Some(script)).unwrap_err();
    assert!(matches!(&error, PackageError::Elf(_)), "{error}");
    let error = place.make(|r| r.binary = None).unwrap_err();
    assert!(matches!(&error, PackageError::NotBuilt { cross: false, .. }), "{error}");
    assert!(error.to_string().contains("target/release/nasbn") && error.hint().contains("--binary"), "{error}");
    place.device.glibc = GlibcVersion::new(2, 2);
    let exe = std::env::current_exe().unwrap();
    let error = place.make(|r| r.binary = Some(exe)).unwrap_err();
    assert!(error.to_string().contains("may have 2.2 only") && error.hint().contains("--glibc"), "{error}");
    assert!(place.left().is_empty(), "{:?}", place.left());
    // Who knows the board better than the profile says so.
    let made = place.make(|r| r.glibc = Some(GlibcVersion::new(2, 98))).unwrap();
    assert_eq!(made.description.glibc, GlibcVersion::new(2, 98));
}

#[test]
fn a_library_for_a_newer_glibc_is_not_even_fetched() {
    let mut place = Place::new();
    place.device.glibc = GlibcVersion::new(2, 97);
    place.glibc = GlibcVersion::new(2, 98);
    let error = place.make(|r| r.onnxruntime = Some("1.99.0".into())).unwrap_err();
    assert!(error.to_string().starts_with("ONNX Runtime 1.99.0 needs glibc 2.98"), "{error}");
    assert_eq!(error.exit_status(), 2);
    let error = place.make(|_| {}).unwrap_err();
    assert!(matches!(&error, PackageError::Library(ProvisionError::NotPinned { .. })), "{error}");
    assert!(!place.path("target").exists() && place.left().is_empty());
}

#[test]
fn a_bundle_with_links_or_without_a_manifest_is_refused() {
    let place = Place::new();
    for name in ["pages", "none"] {
        let error = place.make(|r| r.bundle = place.path(name)).unwrap_err();
        assert!(matches!(&error, PackageError::NotABundle { .. }) && error.hint().contains("nasbn-export"), "{error}");
    }
    let link = place.path("bundle/graphs/b.onnx");
    std::os::unix::fs::symlink(place.path("pages/nasbn.1"), &link).unwrap();
    let error = place.make(|_| {}).unwrap_err();
    assert!(error.to_string().contains("b.onnx is a link"), "{error}");
    fs::remove_file(&link).unwrap();
    fs::write(place.path("bundle/graphs/a\nb.onnx"), "").unwrap();
    let error = place.make(|_| {}).unwrap_err();
    assert!(matches!(&error, PackageError::Name { .. }), "{error}");
    assert!(place.left().is_empty());
}

#[test]
fn what_killed_processes_left_is_removed_and_an_old_package_put_back() {
    let place = Place::new();
    let first = place.make(|_| {}).unwrap();
    // No process has this number; this one lives.
    let dead = place.path(".deploy.nasbn-4194999-abc");
    let living = place.path(&format!(".deploy.nasbn-{}-abc", std::process::id()));
    for work in [&dead, &living] {
        fs::create_dir(work).unwrap();
    }
    fs::rename(&first.directory, dead.join("old")).unwrap();
    fs::remove_file(&first.archive).unwrap();
    let error = place.make(|_| {}).unwrap_err();
    assert!(matches!(&error, PackageError::Exists { .. }), "{error}");
    assert!(!dead.exists() && living.exists() && first.directory.join(RUN).is_file());
}
