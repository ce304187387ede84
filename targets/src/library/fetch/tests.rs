//! The package managers are scripts here: no test needs the network. Python itself is the real one.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::{
    super::{Package, provision},
    *,
};
use crate::elf::GlibcVersion;

fn file(name: &str) -> PinnedFile {
    PinnedFile { name: name.into(), bytes: 9, sha256: String::new() }
}

fn library(manager: Manager, archive: &str) -> Library {
    let platform = (manager == Manager::Pip).then(|| "manylinux_2_28_test".to_owned());
    Library {
        version: "1.2.3".into(),
        triple: "test-machine".into(),
        glibc: GlibcVersion::new(2, 27),
        package: Package { manager, name: "thing".into(), version: "1.2.3".into(), platform },
        archive: file(archive),
        member: file("lib/libonnxruntime.so"),
        notices: file("notices.txt"),
        notices_in: None,
    }
}

fn wheel() -> Library {
    library(Manager::Pip, "thing-1.2.3.whl")
}

/// A shell script in place of Python and npm. A process of its own writes it: a file that this one had open for
/// writing could not be started while a fork in another test's thread still holds it ("text file busy").
fn script(dir: &Path, body: &str) -> PackageManagers {
    let path = dir.join("script");
    let write = "printf '#!/bin/sh\n%s\n' \"$2\" > \"$1\" && chmod +x \"$1\"";
    assert!(Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(body).status().unwrap().success());
    let name = path.to_str().unwrap().to_owned();
    PackageManagers { python: name.clone(), npm: name, announce: |_| {} }
}

fn says(dir: &Path, words: &str) -> PackageManagers {
    script(dir, &format!("echo \"{words}\" >&2; exit 1"))
}

fn python(code: &str, dir: &Path) {
    let status = Command::new("python3").args(["-c", code]).current_dir(dir).status().unwrap();
    assert!(status.success());
}

#[test]
fn pip_is_asked_for_the_pinned_wheel_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    let managers = script(dir.path(), "echo \"$@\" > thing-1.2.3.whl; echo $TMPDIR >> thing-1.2.3.whl");
    let archive = managers.fetch(&wheel(), &into).unwrap();
    assert_eq!(archive, into.join("thing-1.2.3.whl"));
    let asked = fs::read_to_string(archive).unwrap();
    assert!(asked.starts_with("-m pip download "), "{asked}");
    for words in ["--no-deps", "--only-binary=:all:", "--platform manylinux_2_28_test", "--python-version 3.11"] {
        assert!(asked.contains(words), "{asked}");
    }
    assert!(asked.ends_with(&format!("--dest {0} thing==1.2.3\n{0}\n", into.display())), "{asked}");
    assert!(!asked.contains("://"), "{asked}");
}

#[test]
fn npm_is_asked_for_the_pinned_package_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let managers = script(dir.path(), "echo \"$@\" > thing-1.2.3.tgz");
    let archive = managers.fetch(&library(Manager::Npm, "thing-1.2.3.tgz"), dir.path()).unwrap();
    let asked = fs::read_to_string(archive).unwrap();
    assert!(asked.starts_with("pack ") && asked.trim_end().ends_with(" thing@1.2.3"), "{asked}");
    assert!(!asked.contains("://"), "{asked}");
}

#[test]
fn a_member_is_taken_out_of_either_kind_of_archive() {
    let dir = tempfile::tempdir().unwrap();
    python("import zipfile; zipfile.ZipFile('a.whl', 'w').writestr('lib/libonnxruntime.so', 'a library')", dir.path());
    fs::create_dir(dir.path().join("lib")).unwrap();
    fs::write(dir.path().join("lib/libonnxruntime.so"), "a library").unwrap();
    python("import tarfile; tarfile.open('a.tgz', 'w:gz').add('lib/libonnxruntime.so')", dir.path());
    let real = PackageManagers { python: "python3".into(), ..script(dir.path(), "exit 1") };
    for name in ["a.whl", "a.tgz"] {
        let out = dir.path().join("out");
        let library = library(Manager::Pip, name);
        real.extract(&dir.path().join(name), &library, &library.member, &out).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"a library");
        fs::remove_file(out).unwrap();
    }
    let other = Library { member: file("lib/other.so"), ..wheel() };
    let error = real.extract(&dir.path().join("a.whl"), &other, &other.member, &dir.path().join("out")).unwrap_err();
    assert!(matches!(&error, ProvisionError::Unpack { archive, .. } if archive == "thing-1.2.3.whl"), "{error}");
    assert!(error.to_string().contains("lib/other.so") && error.hint().contains(PYTHON), "{error}");
    assert!(!dir.path().join("out").exists());
}

#[test]
fn missing_programs_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing =
        PackageManagers { python: "/nonexistent/python".into(), npm: "/nonexistent/npm".into(), announce: |_| {} };
    for (library, managers, name) in [
        (wheel(), missing.clone(), "/nonexistent/python is needed to fetch thing 1.2.3"),
        (library(Manager::Npm, "thing.tgz"), missing, "/nonexistent/npm is needed"),
        (wheel(), says(dir.path(), "/usr/bin/python3: No module named pip"), "script -m pip is needed"),
    ] {
        let error = managers.fetch(&library, dir.path()).unwrap_err();
        assert!(matches!(&error, ProvisionError::MissingProgram { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.hint().contains("pip"));
    }
}

#[test]
fn a_failing_package_manager_has_the_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let managers = says(dir.path(), "one\ntwo\nWARNING: retrying\n\nERROR: network unreachable\nERROR: no version");
    let error = managers.fetch(&wheel(), dir.path()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(&error, ProvisionError::Fetch { .. }), "{text}");
    assert!(text.contains("script -m pip download thing==1.2.3` said\n"), "{text}");
    assert!(text.contains("network unreachable\nERROR: no version") && !text.contains("one"), "{text}");
    assert!(error.hint().contains("network"));
    let error = script(dir.path(), "exit 3").fetch(&wheel(), dir.path()).unwrap_err();
    assert!(error.to_string().contains("exit status: 3"), "{error}");
}

#[test]
fn another_file_than_the_pinned_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    let error = script(dir.path(), "touch thing-1.2.4.whl").fetch(&wheel(), &into).unwrap_err();
    assert!(error.to_string().contains("left [thing-1.2.4.whl] instead of thing-1.2.3.whl"), "{error}");
}

#[test]
fn a_full_disk_is_called_so() {
    let dir = tempfile::tempdir().unwrap();
    let managers = says(dir.path(), "OSError: [Errno 28] No space left on device");
    let error = provision(&wheel(), dir.path(), &managers).unwrap_err();
    assert!(matches!(&error, ProvisionError::Io { .. }) && error.hint().contains("room"), "{error}");
    // Unpacking to a device that is always full, with the real Python.
    python("import zipfile; zipfile.ZipFile('a.whl', 'w').writestr('lib/libonnxruntime.so', 'a library')", dir.path());
    let real = PackageManagers { python: "python3".into(), ..managers };
    let error = real.extract(&dir.path().join("a.whl"), &wheel(), &wheel().member, Path::new("/dev/full")).unwrap_err();
    let full = |e: &ProvisionError| matches!(e, ProvisionError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull);
    assert!(full(&error), "{error}");
}
