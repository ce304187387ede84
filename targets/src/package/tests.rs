//! Packages of a small program, which stands for the library, too.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../tests/support/bundle.rs"]
mod a_bundle;
mod refusals;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, process::Command};

use tempfile::TempDir;

use super::*;
use crate::{
    device::catalog,
    library::{Manager, PinnedFile, ProvisionError, host_triple},
};

/// An operator of the bundle here.
const SECOND: &str = "a";
/// A graph of it.
const GRAPH: &str = "bundle/graphs/e01.a.inference.onnx";
/// What archives hold here.
const ARCHIVE: &str = "an archive";

/// A directory with a bundle and man pages, and what is known of a device like this machine.
struct Place {
    dir: TempDir,
    catalog: Catalog,
    device: Device,
    exe: PathBuf,
    /// What the library needs.
    glibc: GlibcVersion,
}

/// Gives the test's executable as the library.
struct Fake;

impl Fetcher for Fake {
    fn fetch(&self, library: &Library, into: &Path) -> Result<PathBuf, ProvisionError> {
        let path = into.join(&library.archive.name);
        fs::write(&path, ARCHIVE).unwrap();
        Ok(path)
    }

    fn extract(&self, _: &Path, _: &Library, member: &PinnedFile, to: &Path) -> Result<(), ProvisionError> {
        match member.name.as_str() {
            "notices" => fs::write(to, ARCHIVE).unwrap(),
            _ => fs::write(to, small_program()).unwrap(),
        }
        Ok(())
    }
}

/// A small program that is there on every machine, which stands for the library, too.
fn small_program() -> Vec<u8> {
    fs::read("/bin/echo").unwrap()
}

fn pinned_as(name: &str, contents: &Path) -> PinnedFile {
    let (sha256, bytes) = stage::measure(contents).unwrap();
    PinnedFile { name: name.into(), bytes, sha256 }
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        a_bundle::build(0, SECOND, &dir.path().join("bundle"));
        fs::create_dir_all(dir.path().join("bundle/cache/tensorrt-1.23")).unwrap();
        fs::create_dir(dir.path().join("pages")).unwrap();
        for file in ["bundle/notes.txt", "bundle/cache/tensorrt-1.23/a.engine", "pages/archive"] {
            fs::write(dir.path().join(file), ARCHIVE).unwrap();
        }
        for file in ["nasbn.1", "nasbn-adapt.1", "readme.txt"] {
            fs::write(dir.path().join("pages").join(file), format!("page {file}")).unwrap();
        }
        fs::write(dir.path().join("pages/program"), small_program()).unwrap();
        let catalog = catalog().unwrap();
        let mut device = catalog.devices.iter().find(|d| d.triple == host_triple()).unwrap().clone();
        // Newer than any that this test may have been built with.
        device.glibc = GlibcVersion::new(2, 99);
        let exe = dir.path().join("pages/program");
        Self { dir, catalog, device, exe, glibc: GlibcVersion::new(2, 28) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn library(&self) -> Library {
        let archive = self.path("pages/archive");
        Library {
            version: "1.99.0".into(),
            triple: self.device.triple.clone(),
            glibc: self.glibc,
            package: library::Package {
                manager: Manager::Pip,
                name: "thing".into(),
                version: "1".into(),
                platform: None,
            },
            archive: pinned_as("thing.whl", &archive),
            member: pinned_as("library", &self.exe),
            notices: pinned_as("notices", &archive),
            notices_in: None,
        }
    }

    fn make(&self, change: impl FnOnce(&mut Request<'_>)) -> Result<Packaged, PackageError> {
        let mut request = Request {
            device: &self.device,
            jetpack: None,
            glibc: None,
            binary: Some(self.exe.clone()),
            bundle: self.path("bundle"),
            out: self.path("deploy"),
            force: false,
            onnxruntime: None,
            library: true,
            manual: Some(self.path("pages")),
            with_manual: true,
            with_licences: false,
            target_dir: self.path("target"),
        };
        change(&mut request);
        package(&request, &self.catalog, &[self.library()], &Fake)
    }

    /// What is in the directory, target and inputs aside.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|n| !["bundle", "pages", "target"].contains(&n.as_str())).collect();
        names.sort();
        names
    }
}

/// Files below a directory: path, contents, mode.
fn tree(directory: &Path) -> BTreeMap<String, (Vec<u8>, u32)> {
    let mut files = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else {
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            files.insert(name, (fs::read(&path).unwrap(), path.metadata().unwrap().permissions().mode() & 0o777));
        }
    }
    files
}

#[test]
fn a_package_holds_all_that_a_board_needs_with_digests() {
    let place = Place::new();
    let made = place.make(|_| {}).unwrap();
    let files = tree(&made.directory);
    let library = format!("onnxruntime/{}/1.99.0/libonnxruntime.so", place.device.triple);
    let expected = [
        "README.md",
        "SHA256SUMS",
        "bin/nasbn",
        "licences/LICENSE-APACHE",
        "licences/LICENSE-MIT",
        "licences/onnxruntime/LICENSE",
        "licences/onnxruntime/ThirdPartyNotices.txt",
        "man/man1/nasbn-adapt.1",
        "man/man1/nasbn.1",
        &library,
        "run.sh",
        "target.json",
    ];
    let (bundle, others): (Vec<_>, Vec<_>) = files.keys().map(String::as_str).partition(|n| n.starts_with("bundle/"));
    assert_eq!(others, expected);
    // Neither a device's own nor what else lies there.
    let mut of_bundle = tree(&place.path("bundle"));
    of_bundle.retain(|name, _| !name.starts_with("cache/") && name != "notes.txt");
    assert!(bundle.contains(&GRAPH) && bundle.contains(&"bundle/manifest.postcard"));
    assert_eq!(bundle, of_bundle.keys().map(|name| format!("bundle/{name}")).collect::<Vec<_>>());
    for (name, (_, mode)) in &files {
        let program = ["bin/nasbn", "run.sh"].contains(&name.as_str());
        assert_eq!(*mode, if program { 0o755 } else { 0o644 }, "{name}");
    }
    assert_eq!(files["bin/nasbn"].0, fs::read(&place.exe).unwrap());
    assert_eq!(made.files, files.len());
    assert_eq!(made.bytes, files.values().map(|(bytes, _)| bytes.len() as u64).sum::<u64>());
    assert_eq!(stage::measure(&made.archive).unwrap(), (made.sha256.clone(), made.archive_bytes));
    let checked = Command::new("sha256sum").args(["-c", "--quiet", SUMS]).current_dir(&made.directory).status();
    assert!(checked.unwrap().success());
    // The archive is the directory, as `tar` sees it.
    let out = place.path("unpacked");
    fs::create_dir(&out).unwrap();
    assert!(Command::new("tar").arg("-xzf").arg(&made.archive).arg("-C").arg(&out).status().unwrap().success());
    assert_eq!(tree(&out.join(format!("nasbn-{}", place.device.name))), files);
    let description: Description = serde_json::from_slice(&files["target.json"].0).unwrap();
    assert_eq!(description, made.description);
    assert_eq!(description.onnxruntime.as_deref(), Some("1.99.0"));
}

#[test]
fn equal_inputs_give_equal_bytes_and_force_replaces_packages_only() {
    let place = Place::new();
    let first = place.make(|_| {}).unwrap();
    let error = place.make(|_| {}).unwrap_err();
    assert!(matches!(&error, PackageError::Exists { .. }) && error.hint().contains("--force"), "{error}");
    // Another place, another time of the inputs, another order of their making.
    let other = Place::new();
    let second = other.make(|r| r.force = true).unwrap();
    assert_eq!(fs::read(&first.archive).unwrap(), fs::read(&second.archive).unwrap());
    let again = place.make(|r| r.force = true).unwrap();
    assert_eq!(again.sha256, first.sha256);
    assert_eq!(place.left(), ["deploy", "deploy.tar.gz"]);
    // Whatever is no package stays.
    fs::remove_file(place.path("deploy/SHA256SUMS")).unwrap();
    let error = place.make(|r| r.force = true).unwrap_err();
    assert!(matches!(&error, PackageError::Foreign { .. }), "{error}");
    assert!(place.path("deploy/run.sh").exists());
}

#[test]
fn another_input_gives_other_bytes() {
    let place = Place::new();
    let first = place.make(|_| {}).unwrap();
    fs::remove_file(place.path("bundle/notes.txt")).unwrap();
    assert_eq!(place.make(|r| r.force = true).unwrap().sha256, first.sha256);
    a_bundle::build(1, SECOND, &place.path("bundle"));
    assert_ne!(place.make(|r| r.force = true).unwrap().sha256, first.sha256);
}

#[test]
fn pages_and_library_can_be_left_out_and_missing_pages_are_told() {
    let place = Place::new();
    let error = place.make(|r| r.manual = Some(place.path("bundle"))).unwrap_err();
    assert!(error.to_string().contains("holds no nasbn.1") && error.hint().contains("--no-man"), "{error}");
    let made = place.make(|r| (r.with_manual, r.library) = (false, false)).unwrap();
    let files = tree(&made.directory);
    assert!(!files.keys().any(|name| name.starts_with("man/") || name.contains("onnxruntime")), "{:?}", files.keys());
    assert!(String::from_utf8_lossy(&files["README.md"].0).contains("no ONNX Runtime library"));
    assert!(!place.path("target").exists());
}

#[test]
fn an_opened_package_is_whole_or_refused() {
    let place = Place::new();
    let made = place.make(|_| {}).unwrap();
    let opened = open(&made.directory).unwrap();
    assert_eq!((opened.bytes, &opened.description), (made.bytes, &made.description));
    // What else lies there is no part of it.
    fs::write(made.directory.join("notes.txt"), "mine").unwrap();
    let tar = |opened: &Opened| opened.tar("top", Vec::new()).unwrap();
    assert_eq!(tar(&open(&made.directory).unwrap()), tar(&opened));
    let graph = made.directory.join(GRAPH);
    fs::write(&graph, "another").unwrap();
    let error = open(&made.directory).unwrap_err();
    assert!(matches!(&error, PackageError::Damaged { path } if *path == graph), "{error}");
    fs::remove_file(&graph).unwrap();
    assert!(open(&made.directory).unwrap_err().to_string().contains(&format!("holds no file {GRAPH}")));
    for sums in
        ["", "nonsense\n", &format!("{}  ../x\n", "0".repeat(64)), &format!("{}  /etc/passwd\n", "0".repeat(64))]
    {
        fs::write(made.directory.join(SUMS), sums).unwrap();
        let error = open(&made.directory).unwrap_err();
        assert!(matches!(&error, PackageError::NotAPackage { .. } | PackageError::Name { .. }), "{error}");
    }
    let error = open(&place.path("pages")).unwrap_err();
    assert!(error.hint().contains("nasbn-targets package"), "{error}");
}

#[test]
fn every_board_has_a_page_that_names_its_modes_and_its_gpu_library() {
    let catalog = catalog().unwrap();
    for device in &catalog.devices {
        let description = Description {
            target: device.name.clone(),
            triple: device.triple.clone(),
            glibc: device.glibc,
            jetpack: None,
            onnxruntime: Some("1.32.0".into()),
        };
        let page = readme::of(&catalog, device, &description);
        assert!(page.starts_with(&format!("# nasbn on {}\n", device.title)) && page.contains("./run.sh doctor"));
        for (library, _) in catalog.gpu_libraries_of(device) {
            assert!(page.contains(&library.text), "{}", device.name);
        }
        // Whatever `--jetpack` takes finds its GPU library, and what is not known of it.
        let gpu = page.split("## The GPU").nth(1).unwrap().split("## Before measuring").next().unwrap();
        let (of_libraries, doubts): (Vec<_>, Vec<_>) = gpu.lines().partition(|line| line.starts_with("* "));
        let names = |lines: &[&str], begin: &str, version: &str| {
            let lists = lines.iter().filter_map(|line| line.strip_prefix(begin)?.split(": ").next());
            lists.flat_map(|list| list.split(", ")).any(|one| one == version)
        };
        for jetpack in catalog.jetpacks_of(device) {
            for (number, version) in jetpack.versions().enumerate() {
                assert!(names(&of_libraries, "* JetPack ", version), "{}: {version}: {gpu}", device.name);
                let doubted = number > 0 && jetpack.alike.as_ref().unwrap().unverified.is_some();
                assert_eq!(names(&doubts, "Not verified of JetPack ", version), doubted, "{version}: {gpu}");
            }
        }
        assert_eq!(page.contains("--max-memory 1GiB"), device.memory.is_some(), "{}", device.name);
        if let Some(power) = &device.power {
            assert!(page.contains(&format!("Best for measuring: `{}`", power.best)), "{}", device.name);
        }
        assert!(page.lines().all(|line| line.is_empty() || !line.ends_with(' ')), "{}", device.name);
    }
}
