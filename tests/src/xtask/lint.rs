//! `cargo xtask lint`: what no compiler checks.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

/// Directories of the crates.
const CRATES: [&str; 6] = ["models", "export", "runtime", "runtime/kernels", "targets", "tests"];
/// Largest source file written by hand.
const MAX_LINES: usize = 1000;
/// Files that may hold unsafe code, each with its reason in its docs.
const MAY_BE_UNSAFE: [&str; 3] = ["runtime/src/arena/register.rs", "runtime/src/main.rs", "tests/tests/allocations.rs"];
/// The keyword, and the lint that a file would have to lift. Spelt so that this file does not hold them.
const UNSAFE_WORDS: [&str; 2] = [concat!("un", "safe"), concat!("un", "safe_code")];

/// Checks every crate below `root`.
///
/// # Errors
/// All problems, a line each.
pub fn run(root: &Path) -> Result<()> {
    let (files, problems) = check(root, &CRATES, &MAY_BE_UNSAFE)?;
    ensure!(files > 20, "only {files} source files were found");
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    println!("{files} source files are in order");
    Ok(())
}

/// How many source files there are, and what is wrong with them.
fn check(root: &Path, crates: &[&str], may_be_unsafe: &[&str]) -> Result<(usize, Vec<String>)> {
    let mut problems = Vec::new();
    let mut unused = may_be_unsafe.to_vec();
    let mut left = Vec::new();
    for name in crates {
        // What is below the directory of another is looked at with it.
        if !crates.iter().any(|other| name.starts_with(&format!("{other}/"))) {
            left.push(root.join(name));
        }
        let manifest = root.join(name).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
        if !text.contains("[lints]\nworkspace = true") {
            problems.push(format!("{name}/Cargo.toml does not take the workspace's lints"));
        }
    }
    let mut files = 0;
    while let Some(path) = left.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
                left.push(entry?.path());
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            files += 1;
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let lines = text.lines().count();
            if lines > MAX_LINES && !text.starts_with("// @generated") {
                problems.push(format!("{name} has {lines} lines; {MAX_LINES} are the most"));
            }
            let mut found = text.lines().enumerate().filter(|(_, line)| is_unsafe(line)).peekable();
            if let Some(i) = unused.iter().position(|n| *n == name && found.peek().is_some()) {
                unused.remove(i);
            } else if !may_be_unsafe.contains(&name.as_str()) {
                problems.extend(
                    found.map(|(i, _)| format!("{name}:{}: `{}` has no leave to be here", i + 1, UNSAFE_WORDS[0])),
                );
            }
        }
    }
    problems.extend(unused.iter().map(|name| format!("{name} does not use its leave: take it off the list")));
    problems.sort();
    Ok((files, problems))
}

/// Whether a line has the keyword or lifts the lint, comments aside.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| UNSAFE_WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn problems(source: &str, manifest: &str, may_be_unsafe: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("one/src")).unwrap();
        fs::write(dir.path().join("one/Cargo.toml"), manifest).unwrap();
        fs::write(dir.path().join("one/src/lib.rs"), source).unwrap();
        let (files, problems) = check(dir.path(), &["one"], may_be_unsafe).unwrap();
        assert_eq!(files, 1);
        problems
    }

    const MANIFEST: &str = "[package]\n\n[lints]\nworkspace = true\n";

    #[test]
    fn unsafe_code_is_found_outside_the_list_only() {
        let [keyword, lint] = UNSAFE_WORDS;
        let listed = ["one/src/lib.rs"];
        for line in
            [format!("    {keyword} {{ f() }}"), format!("#![allow({lint})]"), format!("#[{keyword}(no_mangle)]")]
        {
            let found = problems(&format!("fn f() {{}}\n{line}\n"), MANIFEST, &[]);
            assert_eq!(found, [format!("one/src/lib.rs:2: `{keyword}` has no leave to be here")], "{line}");
            assert!(problems(&line, MANIFEST, &listed).is_empty());
        }
        assert!(problems(&format!("// {keyword}\nfn not_{keyword}() {{}}\n"), MANIFEST, &[]).is_empty());
        assert_eq!(problems("", MANIFEST, &listed), ["one/src/lib.rs does not use its leave: take it off the list"]);
    }

    #[test]
    fn long_files_and_missing_lints_are_found() {
        assert!(problems(&"\n".repeat(MAX_LINES), MANIFEST, &[]).is_empty());
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(problems(&long, MANIFEST, &[]), ["one/src/lib.rs has 1001 lines; 1000 are the most"]);
        assert!(problems(&format!("// @generated\n{long}"), MANIFEST, &[]).is_empty());
        assert_eq!(problems("", "[package]\n", &[]), ["one/Cargo.toml does not take the workspace's lints"]);
    }

    #[test]
    fn the_project_is_in_order() {
        run(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()).unwrap();
    }
}
