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
    // Another loader, and none: a program of musl's.
    let at = |words: &[u8]| exe.windows(words.len()).position(|found| found == words).unwrap();
    let loader = at(b"ld-linux");
    for (with, words) in [(&b"ld-musll"[..], "and boards have glibc's"), (b"", "it names no loader")] {
        let mut changed = exe.clone();
        changed[loader..loader + with.len()].copy_from_slice(with);
        if with.is_empty() {
            // PT_INTERP, the kind of a segment of the table behind the header, becomes PT_NULL.
            let segment = (64..).step_by(56).find(|&at| changed[at..at + 4] == [3, 0, 0, 0]).unwrap();
            changed[segment] = 0;
        }
        let path = place.path("pages/changed");
        fs::write(&path, changed).unwrap();
        let error = place.make(|r| r.binary = Some(path)).unwrap_err();
        assert!(matches!(&error, PackageError::NoProgram { .. }) && error.to_string().contains(words), "{error}");
        assert!(error.hint().contains("cargo jetson"));
    }
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
    assert!(error.hint().contains("--ort-version") && !error.hint().contains("cargo jetson"), "{}", error.hint());
    assert_eq!(error.exit_status(), 2);
    let error = place.make(|_| {}).unwrap_err();
    assert!(matches!(&error, PackageError::Library(ProvisionError::NotPinned { .. })), "{error}");
    assert!(!place.path("target").exists() && place.left().is_empty());
}

#[test]
fn a_bundle_that_is_none_damaged_or_not_whole_is_refused() {
    let place = Place::new();
    let refused = |bundle: &str, words: &str| {
        let error = place.make(|r| r.bundle = place.path(bundle)).unwrap_err();
        assert!(matches!(&error, PackageError::Bundle(_)) && error.to_string().contains(words), "{error}");
        assert!(error.exit_status() == 2 && !error.hint().is_empty());
        assert!(place.left().is_empty());
    };
    for name in ["pages", "none"] {
        refused(name, "is not a nasbn bundle");
    }
    let link = |path: &Path| std::os::unix::fs::symlink(place.path("pages/nasbn.1"), path).unwrap();
    type Damage<'a> = &'a dyn Fn(&Path, &[u8]);
    let longer: Damage<'_> = &|path, bytes| fs::write(path, [bytes, b"x"].concat()).unwrap();
    let changed: Damage<'_> = &|path, bytes| fs::write(path, [&bytes[..bytes.len() - 1], b"x"].concat()).unwrap();
    let away: Damage<'_> = &|_, _| {};
    let linked: Damage<'_> = &|path, _| link(path);
    let other: Damage<'_> = &|path, _| fs::write(path, "hi").unwrap();
    for (name, damage, words) in [
        (GRAPH, longer, "bytes, the manifest says"),
        (GRAPH, changed, "was altered"),
        ("bundle/graphs/weights.safetensors", away, "weights.safetensors is missing"),
        ("bundle/initial.safetensors", linked, "is a symbolic link"),
        ("bundle/manifest.postcard", other, "manifest.postcard: "),
    ] {
        let path = place.path(name);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        damage(&path, &whole);
        refused("bundle", words);
        let _ = fs::remove_file(&path);
        fs::write(&path, whole).unwrap();
    }
    place.make(|_| {}).unwrap();
}

#[test]
fn what_killed_processes_left_is_removed_and_an_old_package_put_back() {
    let place = Place::new();
    let first = place.make(|_| {}).unwrap();
    // Nobody holds the first locked; the second is held, the third not yet.
    let [dead, living, new] = ["dead00", "living", "new000"].map(|name| place.path(&format!(".deploy.nasbn-{name}")));
    let others = ["x.deploy.nasbn-dead00", ".deploy.nasbn-dead0", ".deploy.nasbn-dead0.", ".deploy.nasbn-1-dead00"];
    let others = others.map(|name| place.path(name));
    for work in [&dead, &living, &new].into_iter().chain(&others) {
        fs::create_dir(work).unwrap();
    }
    let locks: Vec<_> = [&dead, &living].into_iter().chain(&others).map(|w| fs::File::create(w.join("lock"))).collect();
    locks[1].as_ref().unwrap().try_lock().unwrap();
    fs::rename(&first.directory, dead.join("old")).unwrap();
    fs::remove_file(&first.archive).unwrap();
    let error = place.make(|_| {}).unwrap_err();
    assert!(matches!(&error, PackageError::Exists { .. }), "{error}");
    assert!(!dead.exists() && first.directory.join(RUN).is_file());
    assert!([&living, &new].into_iter().chain(&others).all(|work| work.exists()), "{:?}", place.left());
}

#[test]
fn force_replaces_no_archive_that_is_not_a_package_s() {
    let place = Place::new();
    let first = place.make(|_| {}).unwrap();
    let refused = |place: &Place| {
        let error = place.make(|r| r.force = true).unwrap_err();
        assert!(matches!(&error, PackageError::Foreign { path } if *path == first.archive), "{error}");
        assert!(error.hint().contains("move it away"));
    };
    // A text; what `tar` makes of the directory with something of one's own in it; half an archive.
    let whole = fs::read(&first.archive).unwrap();
    fs::create_dir(place.path("nasbn-mine")).unwrap();
    let copy = "cp -a deploy/. nasbn-mine; echo mine > nasbn-mine/notes; find nasbn-mine -type f | tar -czf mine -T -";
    assert!(Command::new("sh").args(["-c", copy]).current_dir(place.dir.path()).status().unwrap().success());
    let own = fs::read(place.path("mine")).unwrap();
    for contents in [b"the holidays' photographs".as_slice(), &own, &whole[..whole.len() / 2]] {
        fs::write(&first.archive, contents).unwrap();
        refused(&place);
        assert_eq!(fs::read(&first.archive).unwrap(), contents);
        // Without a package beside it, too.
        fs::rename(&first.directory, place.path("away")).unwrap();
        refused(&place);
        assert_eq!(fs::read(&first.archive).unwrap(), contents);
        assert!(!first.directory.exists());
        fs::rename(place.path("away"), &first.directory).unwrap();
    }
    fs::write(&first.archive, &whole).unwrap();
    fs::remove_dir_all(&first.directory).unwrap();
    assert_eq!(place.make(|r| r.force = true).unwrap().sha256, first.sha256);
}

#[test]
fn force_deletes_nothing_that_was_put_into_the_package() {
    let place = Place::new();
    let first = place.make(|_| {}).unwrap();
    for name in ["checkpoint/state", "bundle/cache/a.engine", "bundle/graphs/mine.onnx", "results.csv"] {
        let path = first.directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let error = place.make(|r| r.force = true).unwrap_err();
        let PackageError::Holds { others, .. } = &error else { panic!("{error}") };
        let entry = if name.starts_with("bundle/graphs") { name } else { name.rsplit_once('/').map_or(name, |n| n.0) };
        assert_eq!(*others, [entry]);
        assert!(error.to_string().contains(entry) && error.hint().contains("elsewhere"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        if entry == name {
            fs::remove_file(path).unwrap()
        } else {
            fs::remove_dir_all(first.directory.join(entry)).unwrap()
        }
    }
    // A link in a file's place leads to somebody's file; an empty directory is somebody's, too.
    fs::create_dir(first.directory.join("empty")).unwrap();
    fs::remove_file(first.directory.join(RUN)).unwrap();
    std::os::unix::fs::symlink("elsewhere", first.directory.join(RUN)).unwrap();
    let error = place.make(|r| r.force = true).unwrap_err();
    assert!(error.to_string().ends_with("no part of the package: empty, run.sh"), "{error}");
    fs::remove_dir(first.directory.join("empty")).unwrap();
    fs::remove_file(first.directory.join(RUN)).unwrap();
    assert_eq!(place.make(|r| r.force = true).unwrap().sha256, first.sha256);
    assert_eq!(place.left(), ["deploy", "deploy.tar.gz"]);
}

#[test]
fn what_comes_to_the_place_while_a_package_is_made_is_not_replaced() {
    let place = Place::new();
    let outputs = stage::Outputs::new(&place.path("deploy"), &place.path("bundle"), false).unwrap();
    for taken in ["deploy", "deploy.tar.gz"] {
        fs::write(place.path(taken), "mine").unwrap();
        let error = outputs.write(vec![Part::text("run.sh", String::new())], "nasbn-x").unwrap_err();
        assert!(matches!(&error, PackageError::Exists { .. }), "{error}");
        assert_eq!(place.left(), [taken]);
        fs::remove_file(place.path(taken)).unwrap();
    }
    let outputs = stage::Outputs::new(&place.path("deploy"), &place.path("bundle"), true).unwrap();
    fs::write(place.path("deploy.tar.gz"), "mine").unwrap();
    let error = outputs.write(vec![Part::text("run.sh", String::new())], "nasbn-x").unwrap_err();
    assert!(matches!(&error, PackageError::Foreign { .. }), "{error}");
    assert_eq!(place.left(), ["deploy.tar.gz"]);
}
