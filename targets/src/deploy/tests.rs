//! What needs no server; `tests/deploy.rs` has one.
#![allow(clippy::unwrap_used)]

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Output},
};

use super::*;

fn remote() -> Remote {
    Remote::new("me@board", None, &[]).unwrap()
}

fn failure(code: i32, stderr: &str) -> DeployError {
    remote().failure(&output(code, stderr))
}

fn output(code: i32, stderr: &str) -> Output {
    // Exit statuses are in the second byte of what `wait` gives.
    Output { status: ExitStatus::from_raw(code << 8), stdout: Vec::new(), stderr: stderr.into() }
}

#[test]
fn each_failure_of_ssh_has_its_own_words_and_hint() {
    for (stderr, words, hint) in [
        ("ssh: Could not resolve hostname board: Name or service not known", "has no address", "check the name"),
        ("ssh: connect to host board port 22: Connection refused", "no ssh server", "--port"),
        ("ssh: connect to host board port 22: Connection timed out", "does not answer", "is on"),
        ("ssh: connect to host board port 22: No route to host", "does not answer", "is on"),
        ("No ED25519 host key is known for board.\nHost key verification failed.", "not known here", "ssh me@board"),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "another than",
            "ssh-keygen -R",
        ),
        ("me@board: Permission denied (publickey,password).", "does not let you in", "ssh-copy-id me@board"),
        ("kex_exchange_identification: banner line contains invalid characters", "failed: kex", "ssh me@board true"),
    ] {
        let error = failure(255, stderr);
        assert!(error.to_string().contains(words) && error.hint().contains(hint), "{error}: {}", error.hint());
        assert_eq!(error.exit_status(), 3);
    }
    // What is to be done by hand is done at the same port.
    let there = Remote::new("me@board", Some(2222), &[]).unwrap();
    for (stderr, hint) in [
        ("Host key verification failed.", "`ssh -p 2222 me@board`"),
        ("REMOTE HOST IDENTIFICATION HAS CHANGED", "`ssh-keygen -R '[board]:2222'`"),
        ("me@board: Permission denied (publickey).", "`ssh-copy-id -p 2222 me@board`"),
        ("kex_exchange_identification: x", "`ssh -p 2222 me@board true`"),
    ] {
        let error = there.failure(&output(255, stderr));
        assert!(error.hint().contains(hint), "{error}: {}", error.hint());
    }
    // The connection may have ended in the midst of all: nobody knows what is there.
    for stderr in ["", "Connection to board closed by remote host.", "Timeout, server board not responding."] {
        let hint = failure(255, stderr).hint();
        assert!(!hint.to_lowercase().contains("nothing was left"), "{hint}");
    }
    // A mistake in the user's own file is not the command line's.
    let error = failure(
        255,
        "/home/me/.ssh/config: line 3: Bad configuration option: nonsense\n/home/me/.ssh/config: terminating, 1 bad configuration options",
    );
    assert!(matches!(&error, DeployError::Config { .. }) && error.to_string().contains("config: line 3"), "{error}");
    for said in ["command-line: line 0: Bad configuration option: nonsense", "command-line line 0: invalid time value."]
    {
        let error = failure(255, said);
        assert!(matches!(&error, DeployError::Option { .. }) && error.exit_status() == 2, "{error}");
    }
    // What is passed over is not what it failed of.
    let warning = "command-line line 0: Unsupported option \"rsaauthentication\"\n";
    let refused = format!("{warning}ssh: connect to host board port 22: Connection refused");
    assert!(matches!(failure(255, &refused), DeployError::NoServer { .. }));
    assert!(matches!(failure(255, warning), DeployError::Ssh { .. }));
}

#[test]
fn failures_on_the_board_are_told_in_its_words() {
    let error = failure(92, "tar: x: Cannot write: No space left on device\ntar: Exiting with failure status\n");
    assert!(error.to_string().contains("too little room") && error.hint().contains("nothing was left"), "{error}");
    let error = failure(91, "mkdir: cannot create directory '/x': Permission denied\n");
    assert!(error.to_string().contains("could not put the package there: mkdir"), "{error}");
    for (code, said, words, hint) in [
        (94, "/a/b is not of the package there, and you cannot move it", "you cannot move it", "nothing was changed"),
        (95, "what was put into /a is in /.a.nasbn-1/old", "is in /.a.nasbn-1/old", "moves it back"),
        (95, "No space left on device\nwhat was put into /a is in /b/old", "is in /b/old", "make room"),
        (96, "", "was stopped on me@board", "run the same command again"),
        (97, "process 7 (nasbn adapt) runs in /a", "process 7 (nasbn adapt)", "has ended"),
    ] {
        let error = failure(code, said);
        assert!(error.to_string().contains(words) && error.hint().contains(hint), "{error}: {}", error.hint());
        assert!(!error.hint().contains("nothing was left"));
    }
    assert!(matches!(failure(93, "bin/nasbn: FAILED\n"), DeployError::Damaged { .. }));
    assert!(failure(92, "").to_string().contains("exit status: 92"));
}

#[test]
fn odd_hosts_settings_and_directories_are_refused_before_anything_runs() {
    for host in ["", "-oProxyCommand=x", "a b", "a\nb"] {
        let error = Remote::new(host, None, &[]).unwrap_err();
        assert!(matches!(&error, DeployError::Host { .. }) && error.exit_status() == 2, "{error}");
    }
    let error = Remote::new("board", None, &["Compression".into()]).unwrap_err();
    assert!(error.to_string().contains("`Compression`") && error.hint().contains("KEY=VALUE"), "{error}");
    for directory in ["", "/", "..", "a/..", ".", "-x", "~other/x", "a\nb"] {
        let error = place(directory).unwrap_err();
        assert!(matches!(&error, DeployError::Directory { .. }) && error.exit_status() == 2, "{directory}");
    }
    assert_eq!((place("~/a/").unwrap(), place("/srv/a").unwrap(), place("it's").unwrap()), ("a", "/srv/a", "it's"));
}

#[test]
fn what_a_board_says_is_read_among_a_login_shell_s_words() {
    let look = Look::parse(
        "Welcome to board\nnasbn: machine aarch64\nnasbn: model quill\nnasbn: libc glibc 2.31\nnasbn: has tar\nnasbn: there other\nnasbn: free 1024\n",
    );
    let expected = Look {
        machine: "aarch64".into(),
        model: Some("quill".into()),
        glibc: Some(GlibcVersion::new(2, 31)),
        tar: true,
        occupied: true,
        free: Some(1 << 20),
    };
    assert_eq!(look, expected);
    // busybox has neither getconf nor, without a place, sizes.
    assert_eq!(
        Look::parse("nasbn: machine armv7l\nnasbn: libc \nnasbn: free \n"),
        Look { machine: "armv7l".into(), ..Look::default() }
    );
}
