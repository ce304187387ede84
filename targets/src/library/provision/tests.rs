#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use super::{
    super::{Manager, Package, catalog::Holder},
    *,
};
use crate::elf::GlibcVersion;

const CONTENTS: &[u8] = b"a library";
const NOTICES: &[u8] = b"licences";

fn pinned_file(name: &str, bytes: &[u8]) -> PinnedFile {
    let sha256 = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    PinnedFile { name: name.into(), bytes: bytes.len() as u64, sha256 }
}

fn library() -> Library {
    Library {
        version: "1.0.0".into(),
        triple: "test-machine".into(),
        glibc: GlibcVersion::new(2, 27),
        package: Package { manager: Manager::Pip, name: "thing".into(), version: "1.0.0".into(), platform: None },
        archive: pinned_file("thing.whl", b"archive"),
        member: pinned_file("lib/libonnxruntime.so", CONTENTS),
        notices: pinned_file("lib/notices.txt", NOTICES),
        notices_in: None,
    }
}

/// Gives an archive and a library with the given contents, and counts.
struct Fake {
    archive: &'static [u8],
    library: &'static [u8],
    fetched: AtomicU32,
    extracted: AtomicU32,
}

impl Fake {
    fn good() -> Self {
        Self { archive: b"archive", library: CONTENTS, fetched: 0.into(), extracted: 0.into() }
    }

    fn counts(&self) -> (u32, u32) {
        (self.fetched.load(Ordering::Relaxed), self.extracted.load(Ordering::Relaxed))
    }
}

impl Fetcher for Fake {
    fn fetch(&self, library: &Library, into: &Path) -> Result<PathBuf, ProvisionError> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let path = into.join(&library.archive.name);
        fs::write(&path, self.archive).map_err(io_error(&path))?;
        Ok(path)
    }

    fn extract(&self, _: &Path, _: &Library, member: &PinnedFile, to: &Path) -> Result<(), ProvisionError> {
        self.extracted.fetch_add(1, Ordering::Relaxed);
        let bytes = if member.name.ends_with(".so") { self.library } else { NOTICES };
        fs::write(to, bytes).map_err(io_error(to))
    }
}

/// What is in the machine's directory, the lock's file aside.
fn residue(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join(PROVISIONED_DIR).join("test-machine")).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|name| name != LOCK).collect()
}

#[test]
fn a_library_is_fetched_once_and_mended_if_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::good();
    let first = provision(&library(), dir.path(), &fake).unwrap();
    assert!(first.fetched);
    assert_eq!(first.path, dir.path().join("onnxruntime/test-machine/1.0.0/libonnxruntime.so"));
    assert_eq!(fs::read(&first.path).unwrap(), CONTENTS);
    assert!(!provision(&library(), dir.path(), &fake).unwrap().fetched);
    assert_eq!(fake.counts(), (1, 2));
    fs::write(&first.path, b"damaged").unwrap();
    assert!(provision(&library(), dir.path(), &fake).unwrap().fetched);
    assert_eq!(fs::read(&first.path).unwrap(), CONTENTS);
    assert_eq!(residue(dir.path()), ["1.0.0"]);
}

#[test]
fn another_digest_than_the_pinned_is_refused_and_nothing_stays() {
    let archive = Fake { archive: b"foreign", ..Fake::good() };
    let member = Fake { library: b"a libraru", ..Fake::good() };
    // Nothing is unpacked from an archive that is not the pinned one.
    for (fake, name, found, counts) in
        [(archive, "thing.whl", b"foreign".as_slice(), (1, 0)), (member, "lib/libonnxruntime.so", b"a libraru", (1, 1))]
    {
        let dir = tempfile::tempdir().unwrap();
        let error = provision(&library(), dir.path(), &fake).unwrap_err();
        assert!(matches!(&error, ProvisionError::Digest { what, .. } if what == name), "{error}");
        assert!(error.to_string().contains(&pinned_file("", found).sha256), "{error}");
        assert!(error.hint().contains("pinned"));
        assert_eq!(fake.counts(), counts);
        assert!(residue(dir.path()).is_empty());
    }
}

#[test]
fn a_library_in_place_outlives_a_failed_update() {
    let dir = tempfile::tempdir().unwrap();
    let first = provision(&library(), dir.path(), &Fake::good()).unwrap();
    let newer = Library { version: "2.0.0".into(), ..library() };
    let bad = Fake { library: b"other", ..Fake::good() };
    assert!(provision(&newer, dir.path(), &bad).is_err());
    assert_eq!(fs::read(first.path).unwrap(), CONTENTS);
    assert_eq!(residue(dir.path()), ["1.0.0"]);
}

#[test]
fn of_several_at_once_one_fetches() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::good();
    let start = Barrier::new(4);
    let fetched = thread::scope(|scope| {
        let run = || {
            start.wait();
            provision(&library(), dir.path(), &fake).unwrap().fetched
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|t| u32::from(t.join().unwrap())).sum::<u32>()
    });
    assert_eq!((fetched, fake.counts()), (1, (1, 2)));
    assert_eq!(residue(dir.path()), ["1.0.0"]);
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join(PROVISIONED_DIR).join("test-machine/.fetch-killed/download");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("half.whl"), b"arch").unwrap();
    assert!(provision(&library(), dir.path(), &Fake::good()).unwrap().fetched);
    assert_eq!(residue(dir.path()), ["1.0.0"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = provision(&library(), &file, &Fake::good()).unwrap_err();
    assert!(matches!(&error, ProvisionError::Io { path, .. } if path.starts_with(&file)), "{error}");
    assert!(error.hint().contains("writable"));
}

#[test]
fn notices_are_put_beside_the_library_and_are_no_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::good();
    let notices = |done: &Provisioned| done.path.with_file_name(NOTICES_FILE);
    let done = provision(&library(), dir.path(), &fake).unwrap();
    assert_eq!(fs::read(notices(&done)).unwrap(), NOTICES);
    // Without a network, a package can be made of what is there.
    assert!(!provision_with_notices(&library(), dir.path(), &fake).unwrap().fetched);
    assert_eq!(fake.counts(), (1, 2));
    // To run it, the library alone will do; to pass it on, it will not.
    fs::remove_file(notices(&done)).unwrap();
    assert!(!provision(&library(), dir.path(), &fake).unwrap().fetched);
    assert!(provision_with_notices(&library(), dir.path(), &fake).unwrap().fetched);
    assert_eq!((fs::read(notices(&done)).unwrap(), fake.counts()), (NOTICES.to_vec(), (2, 4)));
    // Another package may hold them, which is fetched for whoever passes the library on, and alone if that is there.
    let package = Package { name: "other".into(), ..library().package };
    let holder = Holder { package, archive: library().archive };
    let two = Library { notices_in: Some(holder), version: "2.0.0".into(), ..library() };
    let done = provision(&two, dir.path(), &fake).unwrap();
    assert!(done.path.is_file() && !notices(&done).exists());
    assert_eq!(fake.counts(), (3, 5));
    assert!(provision_with_notices(&two, dir.path(), &fake).unwrap().fetched);
    assert_eq!((fs::read(notices(&done)).unwrap(), fake.counts()), (NOTICES.to_vec(), (4, 6)));
    let three = Library { version: "3.0.0".into(), ..two };
    let done = provision_with_notices(&three, dir.path(), &fake).unwrap();
    assert!(done.path.is_file() && notices(&done).is_file());
    assert_eq!(fake.counts(), (6, 8));
}
