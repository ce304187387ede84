//! The scripts that run on a board, run here: above all what becomes of what somebody has put into the old package.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use support::{Ran, echo, names, package, place};
use tempfile::TempDir;

/// Who is no administrator.
const NOBODY: u32 = 65534;
/// A library of a GPU, put beside a package that has none.
const GPU: &str = "onnxruntime/gpu.so";

/// A package, and a board's home directory.
struct Board {
    package: TempDir,
    home: TempDir,
}

impl Board {
    fn new() -> Self {
        let board = Self { package: place(), home: tempfile::tempdir().unwrap() };
        package(board.package.path(), &echo(), &[]).ok();
        board
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("nasbn")
    }

    /// The package's files as an archive, with one more, of which `SHA256SUMS` tells.
    fn archive(&self, more: &[&str]) -> (Vec<u8>, usize) {
        let deploy = self.package.path().join("deploy");
        for name in more {
            fs::create_dir_all(deploy.join(name).parent().unwrap()).unwrap();
            fs::write(deploy.join(name), "new").unwrap();
            let sum = "sha256sum \"$1\" >> SHA256SUMS";
            Ran::of(Command::new("sh").args(["-c", sum, "sh", name]).current_dir(&deploy)).ok();
        }
        let opened = nasbn_targets::package::open(&deploy).unwrap();
        (opened.tar("top", Vec::new()).unwrap(), opened.files())
    }

    /// Takes an archive at a place, with words of a shell before the script.
    fn receive_at(&self, dir: &Path, (archive, files): &(Vec<u8>, usize), before: &str, user: &[&str]) -> Ran {
        let script = format!("{before}\n{}", include_str!("../data/deploy-receive.sh"));
        let words = [user, &["sh", "-c", &script, "sh"]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(dir).args(["top", &files.to_string()]).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A script that refuses before it reads closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(archive);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn receive(&self) -> Ran {
        self.receive_at(&self.dir(), &self.archive(&[]), "", &[])
    }

    /// Writes a file into the package there.
    fn put(&self, name: &str) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }

    fn has(&self, name: &str) -> bool {
        fs::read_to_string(self.dir().join(name)).is_ok_and(|text| text == "mine")
    }
}

#[test]
fn all_that_somebody_put_there_comes_to_the_new_package() {
    let board = Board::new();
    board.receive().ok();
    let mine = ["results.csv", "..notes", ".hidden/a", "bundle/cache/e", "bundle/graphs/m.onnx", GPU, "a\nrun.sh", "*"];
    mine.iter().for_each(|name| board.put(name));
    symlink("/nonexistent/disk", board.dir().join("dangling")).unwrap();
    fs::create_dir(board.dir().join("empty")).unwrap();
    assert_eq!(board.receive().ok().stderr, "");
    assert!(mine.iter().all(|name| board.has(name)), "{:?}", names(&board.dir()));
    assert!(board.dir().join("dangling").is_symlink() && board.dir().join("empty").is_dir());
    assert_eq!(names(board.home.path()), ["nasbn"]);
}

#[test]
fn what_the_new_package_has_no_place_for_is_told_and_nothing_changes() {
    let board = Board::new();
    board.receive().ok();
    board.put(GPU);
    // The new package has a library of its own, of the same name; or a file where the directory is.
    for more in [GPU, "dangling"] {
        symlink("/nonexistent/disk", board.dir().join("dangling")).unwrap();
        let ran = board.receive_at(&board.dir(), &board.archive(&[more]), "", &[]);
        assert_eq!(ran.status, Some(94), "{ran:?}");
        assert!(ran.stderr.contains(&format!("nasbn/{more} is not of the package there")), "{ran:?}");
        assert!(board.has(GPU) && board.dir().join("dangling").is_symlink());
        assert_eq!(names(board.home.path()), ["nasbn"]);
        fs::remove_file(board.dir().join("dangling")).unwrap();
        package(board.package.path(), &echo(), &["--force"]).ok();
    }
}

#[test]
fn a_directory_of_both_is_shared() {
    let board = Board::new();
    board.receive().ok();
    board.put(GPU);
    let archive = board.archive(&["onnxruntime/machine/cpu.so"]);
    board.receive_at(&board.dir(), &archive, "", &[]).ok();
    assert!(board.has(GPU) && board.dir().join("onnxruntime/machine/cpu.so").is_file());
    // And the other way round: the package that has it is replaced by one that has not.
    board.put("onnxruntime/machine/mine");
    package(board.package.path(), &echo(), &["--force"]).ok();
    board.receive().ok();
    assert!(board.has(GPU) && board.has("onnxruntime/machine/mine"));
    assert!(!board.dir().join("onnxruntime/machine/cpu.so").exists());
    assert_eq!(names(board.home.path()), ["nasbn"]);
}

#[test]
fn what_cannot_be_moved_is_told_before_anything_is() {
    let board = Board::new();
    let root = Ran::of(Command::new("id").arg("-u")).ok().stdout.trim() == "0";
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let user: &[&str] = if root { &nobody } else { &[] };
    if root {
        chown(board.home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    board.receive_at(&board.dir(), &board.archive(&[]), "", user).ok();
    board.put("checkpoint/state");
    fs::set_permissions(board.dir().join("checkpoint"), fs::Permissions::from_mode(0o555)).unwrap();
    let ran = board.receive_at(&board.dir(), &board.archive(&[]), "", user);
    assert_eq!(ran.status, Some(94), "{ran:?}");
    assert!(ran.stderr.contains("nasbn/checkpoint is not of the package there, and you cannot move it"), "{ran:?}");
    assert!(board.has("checkpoint/state"));
    assert_eq!(names(board.home.path()), ["nasbn"]);
    fs::set_permissions(board.dir().join("checkpoint"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_run_that_was_killed_is_finished_by_the_next() {
    for (at, status) in [("before", 0), ("after", 0)] {
        let board = Board::new();
        board.receive().ok();
        board.put("checkpoint/state");
        // Killed when the old package has been moved away, or when the new one is in its place.
        let last = if at == "before" { "*/old" } else { "*/nasbn" };
        let killed =
            format!("mv() {{ command mv \"$@\"; for to; do :; done; case $to in {last}) kill -9 $$ ;; esac; }}");
        let ran = board.receive_at(&board.dir(), &board.archive(&[]), &killed, &[]);
        assert_eq!(ran.status, None, "{ran:?}");
        assert!(!board.has("checkpoint/state"), "{at}");
        let left = names(board.home.path()).into_iter().find(|name| name.contains(".nasbn-")).unwrap();
        // A process of today has the number that the one that was killed had.
        let reused = left.rsplit_once('-').unwrap().0.to_owned() + &format!("-{}", std::process::id());
        fs::rename(board.home.path().join(&left), board.home.path().join(&reused)).unwrap();
        let ran = board.receive();
        assert_eq!(ran.status, Some(status), "{at}: {ran:?}");
        assert!(ran.stdout.starts_with("nasbn: note a run before this one was stopped"), "{at}: {ran:?}");
        assert!(board.has("checkpoint/state"), "{at}");
        assert_eq!(names(board.home.path()), ["nasbn"], "{at}");
    }
}

#[test]
fn what_could_not_be_moved_after_all_is_named_until_it_is_back() {
    let board = Board::new();
    board.receive().ok();
    board.put("checkpoint/state");
    let broken = "mv() { case $* in */checkpoint*) return 1 ;; *) command mv \"$@\" ;; esac; }";
    for _ in 0..2 {
        let ran = board.receive_at(&board.dir(), &board.archive(&[]), broken, &[]);
        assert_eq!(ran.status, Some(95), "{ran:?}");
        let said = ran.stderr.lines().last().unwrap();
        let place = said.rsplit_once(" is in ").unwrap().1;
        assert_eq!(fs::read_to_string(Path::new(place).join("checkpoint/state")).unwrap(), "mine");
        assert_eq!(names(board.home.path()).len(), 2);
    }
    assert!(board.receive().ok().stdout.contains("note"));
    assert!(board.has("checkpoint/state"));
    assert_eq!(names(board.home.path()), ["nasbn"]);
}

#[test]
fn a_package_in_which_something_runs_is_not_replaced() {
    let board = Board::new();
    board.receive().ok();
    fs::create_dir(board.dir().join("results")).unwrap();
    let mut run = Command::new("sleep").arg("600").current_dir(board.dir().join("results")).spawn().unwrap();
    let ran = board.receive();
    let id = run.id();
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(ran.status, Some(97), "{ran:?}");
    assert!(ran.stderr.starts_with(&format!("process {id} (sleep 600 ) runs in ")), "{ran:?}");
    assert_eq!(names(board.home.path()), ["nasbn"]);
    board.receive().ok();
}

#[test]
fn directories_that_were_made_for_nothing_go() {
    let board = Board::new();
    let (archive, files) = board.archive(&[]);
    let ran = board.receive_at(&board.home.path().join("a/b/nasbn"), &(archive, files + 1), "", &[]);
    assert_eq!(ran.status, Some(93), "{ran:?}");
    assert!(names(board.home.path()).is_empty());
}

#[test]
fn of_two_runs_at_once_one_is_refused_and_nothing_is_nested() {
    for there in [false, true] {
        let board = Board::new();
        if there {
            board.receive().ok();
            board.put("checkpoint/state");
        }
        let archive = board.archive(&[]);
        let second = tempfile::tempdir().unwrap();
        let file = |name: &str| second.path().join(name).display().to_string();
        fs::write(file("archive"), &archive.0).unwrap();
        fs::write(file("script"), include_str!("../data/deploy-receive.sh")).unwrap();
        // The second comes when the first has seen what is at the place and moves its own there.
        let before = format!(
            "mv() {{ for to; do :; done; case $to in */nasbn) sh {} \"$dir\" top {} < {}; echo \"second $?\" ;; esac; \
             command mv \"$@\"; }}",
            file("script"),
            archive.1,
            file("archive")
        );
        let ran = board.receive_at(&board.dir(), &archive, &before, &[]).ok();
        assert_eq!(ran.stdout, "second 97\n", "{ran:?}");
        assert!(ran.stderr.contains("is putting a package at"), "{ran:?}");
        assert!(board.dir().join("run.sh").is_file() && !board.dir().join("top").exists());
        assert_eq!(board.has("checkpoint/state"), there);
        assert_eq!(names(board.home.path()), ["nasbn"]);
    }
}

#[test]
fn room_is_read_whatever_the_disk_is_called() {
    for (line, free) in [
        ("/dev/sda1 1000 400 600 40% /", Some("600")),
        ("//host/my disk 9 1000 400 600 40% /mnt/7 8 9", Some("600")),
        ("overlay 0 0 0 - /", None),
    ] {
        let df =
            format!("df() {{ printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\\n%s\\n' '{line}'; }}");
        let script = format!("{df}\n{}", include_str!("../data/deploy-look.sh"));
        let said = Ran::of(Command::new("sh").args(["-c", &script, "sh", "/tmp"])).ok().stdout;
        let found = said.lines().find_map(|line| line.strip_prefix("nasbn: free "));
        assert_eq!(found, free, "{line}: {said}");
    }
}
