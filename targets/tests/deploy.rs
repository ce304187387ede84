//! `nasbn-targets deploy` against an ssh server of the test's own: an ordinary process at a port of the loopback, with
//! keys and settings in a temporary directory. Without `sshd` the tests are skipped, unless NASBN_REQUIRE_SSHD=1.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::{GRAPH, Ran, SECOND, bundle, echo, names, package, place, program, script};
use tempfile::TempDir;

/// Longest time for the server to come up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Ports that are tried.
const ATTEMPTS: usize = 5;

/// An ssh server, and one who may log in.
struct Sshd {
    dir: TempDir,
    port: u16,
    child: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sshd() -> Option<PathBuf> {
    let there =
        ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"].into_iter().map(PathBuf::from).find(|p| p.is_file());
    let client = Command::new("ssh").arg("-V").output().is_ok();
    if there.is_none() || !client {
        assert!(support::may_skip("NASBN_REQUIRE_SSHD", "sshd or ssh"));
        return None;
    }
    there
}

fn key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    assert!(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap().success());
}

impl Sshd {
    /// A server that starts commands after `first`, a shell's words; none if there is no `sshd`.
    fn start(first: &str) -> Option<Self> {
        let sshd = sshd()?;
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        for name in ["host", "user", "stranger"] {
            key(&file(name));
        }
        let user = fs::read_to_string(file("user.pub")).unwrap();
        let before = if first.is_empty() {
            String::new()
        } else {
            format!("command=\"{first}; exec sh -c \\\"$SSH_ORIGINAL_COMMAND\\\"\" ")
        };
        fs::write(file("authorized"), before + &user).unwrap();
        let host = fs::read_to_string(file("host.pub")).unwrap();
        // A port that was free may be taken before the server has it: then another is tried.
        for _ in 0..ATTEMPTS {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let path = |name: &str| file(name).display().to_string();
            let config = format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
                 UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n",
                path("host"),
                path("authorized")
            );
            fs::write(file("config"), config).unwrap();
            fs::write(file("known"), format!("[127.0.0.1]:{port} {host}")).unwrap();
            let log = fs::File::create(file("log")).unwrap();
            let mut command = Command::new(&sshd);
            command.args(["-D", "-e", "-f"]).arg(file("config")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let mut child = command.spawn().unwrap();
            let started = Instant::now();
            while child.try_wait().unwrap().is_none() && started.elapsed() < PATIENCE {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(Self { dir, port, child });
                }
                thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("sshd does not come up:\n{}", fs::read_to_string(file("log")).unwrap_or_default());
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Deploys `deploy` of a directory to a directory, with keys of files, and with `more`.
    fn deploy_with(&self, from: &Path, to: &Path, user: &str, known: &str, more: &[&str]) -> Command {
        let name = Ran::of(Command::new("id").arg("-un")).ok().stdout;
        let mut command = program(from);
        command.args(["deploy", "--host", &format!("{}@127.0.0.1", name.trim()), "--port", &self.port.to_string()]);
        for option in [
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            format!("IdentityFile={}", self.file(user)),
            format!("UserKnownHostsFile={}", self.file(known)),
        ] {
            command.args(["--ssh-option", &option]);
        }
        command.arg("--dir").arg(to).args(more).arg("deploy").env_remove("SSH_AUTH_SOCK");
        command
    }

    fn deploy(&self, from: &Path, to: &Path) -> Ran {
        Ran::of(&mut self.deploy_with(from, to, "user", "known", &[]))
    }
}

/// Files below a directory that a package made.
fn same(one: &Path, other: &Path) {
    let differ = Command::new("diff").args(["-r"]).arg(one).arg(other).output().unwrap();
    assert!(differ.status.success(), "{}", String::from_utf8_lossy(&differ.stdout));
}

#[test]
fn a_package_comes_to_a_board_and_a_newer_one_leaves_what_was_written_there() {
    let Some(board) = Sshd::start("") else { return };
    let (dir, home) = (place(), tempfile::tempdir().unwrap());
    package(dir.path(), &echo(), &[]).ok();
    let to = home.path().join("below/it's nasbn");
    let ran = board.deploy(dir.path(), &to).ok();
    // What `doctor` says there, here; the program is one that repeats its arguments.
    assert!(ran.stdout.starts_with("sent ") && ran.stdout.ends_with("\ndoctor\n"), "{ran:?}");
    assert_eq!(ran.stderr, "");
    same(&dir.path().join("deploy"), &to);
    assert_eq!(names(to.parent().unwrap()), ["it's nasbn"]);
    let mode = Ran::of(Command::new("stat").args(["-c", "%a"]).arg(to.join("run.sh"))).ok().stdout;
    assert_eq!(mode.trim(), "755");

    for (name, text) in [("checkpoint/state", "mine"), (".notes", "mine"), ("bundle/cache/engine", "of the GPU")] {
        fs::create_dir_all(to.join(name).parent().unwrap()).unwrap();
        fs::write(to.join(name), text).unwrap();
    }
    bundle::build(0, "b", &dir.path().join("bundle"));
    package(dir.path(), &echo(), &["--force"]).ok();
    // Of a run that was killed: no process has this number.
    let left = to.parent().unwrap().join(".it's nasbn.nasbn-99999999");
    fs::create_dir(&left).unwrap();
    // A link to another disk stays one.
    let link = home.path().join("link");
    std::os::unix::fs::symlink(&to, &link).unwrap();
    board.deploy(dir.path(), &link).ok();
    assert!(link.is_symlink() && to.join(GRAPH.replace(".a.", ".b.")).is_file() && !to.join(GRAPH).exists());
    for (name, text) in [("checkpoint/state", "mine"), (".notes", "mine"), ("bundle/cache/engine", "of the GPU")] {
        assert_eq!(fs::read_to_string(to.join(name)).unwrap(), text, "{name}");
    }
    assert_eq!(names(to.parent().unwrap()), ["it's nasbn"]);
}

#[test]
fn a_package_for_another_board_than_the_one_that_takes_it_is_told() {
    let dir = place();
    package(dir.path(), &echo(), &[]).ok();
    // An ssh that takes everything, and says what a board's look would.
    let board = "cat > /dev/null; printf 'nasbn: %s\\n' \"machine $(uname -m)\" 'model quill' 'has tar'";
    script(&dir.path().join("ssh"), board);
    let mut command = program(dir.path());
    command.args(["deploy", "--host", "board", "deploy"]).env("NASBN_SSH", dir.path().join("ssh"));
    let ran = Ran::of(&mut command).ok();
    assert!(
        ran.stderr.starts_with("note: board says that it is `quill`") && ran.stderr.contains("--target tx2"),
        "{ran:?}"
    );
}

#[test]
fn the_status_of_doctor_is_passed_on() {
    let Some(board) = Sshd::start("") else { return };
    let (dir, home) = (place(), tempfile::tempdir().unwrap());
    // This program knows no `doctor`, and says so with 2.
    package(dir.path(), Path::new(env!("CARGO_BIN_EXE_nasbn-targets")), &[]).ok();
    let ran = board.deploy(dir.path(), &home.path().join("nasbn"));
    assert_eq!(ran.status, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("unrecognized subcommand 'doctor'"), "{ran:?}");
    assert!(ran.stdout.starts_with("sent "), "{ran:?}");
}

#[test]
fn a_doctor_that_crashes_is_no_failure_of_ssh() {
    let Some(board) = Sshd::start("") else { return };
    let (dir, home) = (place(), tempfile::tempdir().unwrap());
    package(dir.path(), &echo(), &[]).ok();
    // The package's own script, so that `SHA256SUMS` still holds.
    let deploy = dir.path().join("deploy");
    for (body, status, words) in
        [("kill -SEGV $$", 3, "`nasbn doctor` was ended by signal 11 on"), ("exit 255", 254, ""), ("exit 1", 1, "")]
    {
        script(&deploy.join("run.sh"), body);
        let sums = "grep -v ' run.sh' SHA256SUMS > s; sha256sum run.sh >> s; mv s SHA256SUMS";
        Ran::of(Command::new("sh").args(["-c", sums]).current_dir(&deploy)).ok();
        let ran = board.deploy(dir.path(), &home.path().join("nasbn"));
        assert_eq!(ran.status, Some(status), "{ran:?}");
        assert!(ran.stderr.contains(words) && !ran.stderr.contains("nothing was left"), "{ran:?}");
        assert!(home.path().join("nasbn/run.sh").is_file());
    }
}

#[test]
fn what_a_board_refuses_is_told_and_nothing_is_left_there() {
    let Some(board) = Sshd::start("") else { return };
    let (dir, home) = (place(), tempfile::tempdir().unwrap());
    package(dir.path(), &echo(), &[]).ok();
    let occupied = home.path().join("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("thesis.tex"), "years").unwrap();
    board.deploy(dir.path(), &occupied).fails(3, "is there already and is no package");
    assert_eq!(names(&occupied), ["thesis.tex"]);
    board.deploy(dir.path(), Path::new("/proc/nasbn/deploy")).fails(3, "could not put the package there: mkdir");
    board.deploy(dir.path(), &occupied.join("thesis.tex/below")).fails(3, "could not put the package there: mkdir");

    // The same package, said to be for another machine, or for a newer glibc.
    let other = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
    let description = dir.path().join("deploy/target.json");
    let was = fs::read_to_string(&description).unwrap();
    let glibc = format!("\"glibc\": \"{}\"", support::glibc());
    for (now, words) in [
        (
            was.replace(std::env::consts::ARCH, other),
            format!("127.0.0.1 is {}, and the package is for", std::env::consts::ARCH),
        ),
        (was.replace(&glibc, "\"glibc\": \"2.98\""), "and the package is for 2.98 and newer".to_owned()),
    ] {
        assert_ne!(now, was);
        fs::write(&description, now).unwrap();
        let sums = "grep -v ' target.json' SHA256SUMS > s; sha256sum target.json >> s; mv s SHA256SUMS";
        assert!(
            Command::new("sh").args(["-c", sums]).current_dir(dir.path().join("deploy")).status().unwrap().success()
        );
        board.deploy(dir.path(), &home.path().join("nasbn")).fails(3, &words);
    }
    assert_eq!(names(home.path()), ["occupied"]);
}

#[test]
fn a_package_that_does_not_come_whole_leaves_the_old_one() {
    let (dir, home) = (place(), tempfile::tempdir().unwrap());
    let to = home.path().join("nasbn");
    // Files above 8 KiB cannot be written on this board, as if its disk were full.
    let Some(full) = Sshd::start("trap '' XFSZ; ulimit -f 16") else { return };
    package(dir.path(), &echo(), &[]).ok();
    full.deploy(dir.path(), &to).fails(3, "could not put the package there: tar");
    assert!(names(home.path()).is_empty(), "{:?}", names(home.path()));

    let board = Sshd::start("").unwrap();
    board.deploy(dir.path(), &to).ok();
    // The connection breaks after some bytes.
    script(&dir.path().join("broken"), "head -c 20000 | exec ssh \"$@\"");
    let manifest = || fs::read(to.join("bundle/manifest.postcard")).unwrap();
    let was = manifest();
    bundle::build(1, SECOND, &dir.path().join("bundle"));
    package(dir.path(), &echo(), &["--force"]).ok();
    let mut command = board.deploy_with(dir.path(), &to, "user", "known", &[]);
    let ran = Ran::of(command.env("NASBN_SSH", dir.path().join("broken")));
    assert_eq!(ran.status, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("\nhint: "), "{ran:?}");
    assert_eq!(manifest(), was);
    assert_eq!(names(home.path()), ["nasbn"]);

    // A file that is not what it was is not even sent.
    fs::write(dir.path().join("deploy").join(GRAPH), "another").unwrap();
    board.deploy(dir.path(), &to).fails(2, "is damaged");
}

#[test]
fn a_board_that_is_not_to_be_reached_is_one_clear_error() {
    let Some(board) = Sshd::start("") else { return };
    let (dir, home) = (place(), tempfile::tempdir().unwrap());
    package(dir.path(), &echo(), &[]).ok();
    let to = home.path().join("nasbn");
    let run =
        |user: &str, known: &str, more: &[&str]| Ran::of(&mut board.deploy_with(dir.path(), &to, user, known, more));
    let once = |ran: Ran| assert_eq!(ran.stderr.lines().count(), 2, "{ran:?}");
    once(run("stranger", "known", &[]).fails(3, "does not let you in"));
    fs::write(board.file("nobody"), "").unwrap();
    once(run("user", "nobody", &[]).fails(3, "is not known here"));
    let other = fs::read_to_string(board.file("stranger.pub")).unwrap();
    fs::write(board.file("another"), format!("[127.0.0.1]:{} {other}", board.port)).unwrap();
    once(run("user", "another", &[]).fails(3, "is another than the one that is known"));
    // Of all settings the one that is refused is named, though ssh itself names no setting here.
    for setting in ["Nonsense=1", "ConnectTimeout=soon"] {
        let ran = run("user", "known", &["--ssh-option", setting]);
        once(ran.fails(2, &format!("error: `{setting}` is no setting of ssh: ")));
    }

    // Somebody who listens and says nothing; nobody; no ssh.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
    let at = |port: &str, more: &[&str]| {
        let mut command = program(dir.path());
        command.args(["deploy", "--host", "127.0.0.1", "--port", port]).args(more).arg("deploy");
        command
    };
    once(Ran::of(&mut at(&port(&silent), &["--ssh-option", "ConnectTimeout=1"])).fails(3, "does not answer"));
    let closed = port(&silent);
    drop(silent);
    once(Ran::of(&mut at(&closed, &[])).fails(3, "has no ssh server there"));
    let old = ["--ssh-option", "RSAAuthentication=yes"];
    once(Ran::of(&mut at(&closed, &old)).fails(3, "has no ssh server there"));
    once(Ran::of(at(&closed, &[]).env("NASBN_SSH", "/nonexistent/ssh")).fails(3, "/nonexistent/ssh is needed"));
    assert!(names(home.path()).is_empty());
}
