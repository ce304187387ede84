//! Man pages: programs for devices have none in them, so they come from the `nasbn` of this machine, without those of the
//! commands that programs for devices lack.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    PROGRAM, PackageError, Part,
    parts::{Contents, name_of},
};

/// Where they are in a package.
const MAN: &str = "man/man1";

/// Commands of a `nasbn` that writes pages, and of no other.
const OWN_COMMANDS: [&str; 2] = ["completions", "man"];

/// The pages in `from`; or those that the program that is packed writes, if it runs here (`packed`) and does; or those of the
/// `nasbn` beside this program, or else below `target_dir`, for a program that does not.
///
/// # Errors
/// [`PackageError::Manual`] if there are none.
pub fn parts(from: Option<&Path>, packed: Option<&Path>, target_dir: &Path) -> Result<Vec<Part>, PackageError> {
    if let Some(directory) = from {
        return pages(directory, |path| Ok(Contents::File(path.to_owned())));
    }
    if let Some(parts) = packed.and_then(|program| written_by(program).ok()) {
        return Ok(parts);
    }
    let mut failure = PackageError::Manual { reason: "no `nasbn` is built for this machine".to_owned() };
    for program in host_programs(target_dir) {
        match written_by(&program) {
            Ok(parts) => return Ok(without_own_commands(parts)),
            // It may be one that was built without them.
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Every `nasbn` for this machine: beside this program, or of a build.
fn host_programs(target_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let beside = env::current_exe().ok().map(|exe| exe.with_file_name(PROGRAM));
    let builds = ["release", "quick", "debug"].map(|profile| target_dir.join(profile).join(PROGRAM));
    beside.into_iter().chain(builds).filter(|path| path.is_file())
}

/// The pages that a program writes.
fn written_by(program: &Path) -> Result<Vec<Part>, PackageError> {
    let failed = |reason: String| PackageError::Manual { reason: format!("{} man: {reason}", program.display()) };
    let directory = tempfile::tempdir().map_err(|e| failed(e.to_string()))?;
    let ran = Command::new(program).args(["man", "--quiet", "--out"]).arg(directory.path()).output();
    let ran = ran.map_err(|e| failed(e.to_string()))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr).lines().next().unwrap_or_default().to_owned();
        return Err(failed(if said.is_empty() { ran.status.to_string() } else { said }));
    }
    pages(directory.path(), |path| {
        let text = fs::read_to_string(path).map_err(|source| PackageError::Io { path: path.to_owned(), source })?;
        Ok(Contents::Text(text))
    })
}

/// The pages of a program that writes none: without those of [`OWN_COMMANDS`], and without them in the list of commands.
fn without_own_commands(mut parts: Vec<Part>) -> Vec<Part> {
    for command in OWN_COMMANDS {
        parts.retain(|part| part.path != format!("{MAN}/{PROGRAM}-{command}.1"));
        let entry = format!(".TP\n{PROGRAM}\\-{command}(1)\n");
        for part in &mut parts {
            if let Contents::Text(text) = &mut part.contents
                && let Some((before, after)) = text.split_once(&entry)
            {
                // What it does is a line.
                *text = before.to_owned() + after.split_once('\n').map_or("", |(_, rest)| rest);
            }
        }
    }
    parts
}

/// The files of a directory that are man pages of section 1.
fn pages(
    directory: &Path,
    contents: impl Fn(&Path) -> Result<Contents, PackageError>,
) -> Result<Vec<Part>, PackageError> {
    let io = |source| PackageError::Io { path: directory.to_owned(), source };
    let mut parts = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "1") && path.is_file() {
            let name = name_of(Path::new(path.file_name().unwrap_or_default()), &path)?;
            parts.push(Part { path: format!("{MAN}/{name}"), contents: contents(&path)?, executable: false });
        }
    }
    if parts.iter().any(|part| part.path == format!("{MAN}/{PROGRAM}.1")) {
        return Ok(parts);
    }
    Err(PackageError::Manual { reason: format!("{} holds no {PROGRAM}.1", directory.display()) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Command as Cli;

    use super::*;

    /// A program of a directory that writes its pages, those of the commands that are told.
    fn program(directory: &Path, commands: &[&'static str]) -> PathBuf {
        let named = |name: &&'static str| Cli::new(*name).about(format!("Do {name}"));
        let cli = Cli::new(PROGRAM).version("1").subcommands(commands.iter().map(named));
        fs::create_dir_all(directory.join("pages")).unwrap();
        for page in nasbn_export::manual::pages(cli).unwrap() {
            fs::write(directory.join("pages").join(page.file), page.text).unwrap();
        }
        // Written by a process of its own: this one might still hold it open when another test's thread forks.
        let path = directory.join(PROGRAM);
        let write =
            "printf '#!/bin/sh\nfor out; do :; done; cp %s/pages/* \"$out\"\n' \"$2\" > \"$1\"; chmod +x \"$1\"";
        let mut command = Command::new("sh");
        assert!(command.args(["-c", write, "sh"]).arg(&path).arg(directory).status().unwrap().success());
        path
    }

    fn text_of(parts: &[Part], page: &str) -> Option<String> {
        let part = parts.iter().find(|part| part.path == format!("{MAN}/{page}"))?;
        let Contents::Text(text) = &part.contents else { return None };
        Some(text.clone())
    }

    #[test]
    fn pages_are_those_of_the_program_that_is_packed() {
        let dir = tempfile::tempdir().unwrap();
        let all = ["adapt", "completions", "man", "subnet"];
        let own = program(dir.path(), &all);
        let whole = parts(None, Some(&own), dir.path()).unwrap();
        assert!(text_of(&whole, "nasbn-man.1").is_some() && text_of(&whole, "nasbn.1").unwrap().contains("Do man"));
        // One that writes none, or is for another machine: it has the commands that no page needs.
        let less = without_own_commands(whole);
        let mut names: Vec<_> = less.iter().map(|part| part.path.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["man/man1/nasbn-adapt.1", "man/man1/nasbn-subnet.1", "man/man1/nasbn.1"]);
        program(&dir.path().join("other"), &["adapt", "subnet"]);
        let expected = fs::read_to_string(dir.path().join("other/pages/nasbn.1")).unwrap();
        assert_eq!(text_of(&less, "nasbn.1").unwrap(), expected);
    }
}
