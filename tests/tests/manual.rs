//! Completions and man pages: whole, valid, and of every command.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Write},
    path::Path,
    process::{Command, Stdio},
};

use nasbn_tests::{run, text};

const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "elvish", "powershell"];

/// Every command of a program, from its help: `["search"]`, `["analyze", "ntk-drift"]`.
fn commands(program: &str, above: &[String]) -> Vec<Vec<String>> {
    let mut arguments: Vec<&str> = above.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = run(program, &arguments).ok().stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let names = listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    let mut found = Vec::new();
    for name in names.filter(|name| *name != "help") {
        let path = [above, &[name.to_owned()]].concat();
        found.extend(commands(program, &path));
        found.push(path);
    }
    found
}

/// Words of a text, one space between two.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs a program that may be missing; `None` then.
fn outside(program: &str, arguments: &[&str], input: &str) -> Option<(bool, String, String)> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIPPED: {program} is missing");
            return None;
        }
        child => child.unwrap(),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((output.status.success(), said(&output.stdout), said(&output.stderr)))
}

#[test]
fn completions_hold_every_command_and_are_valid() {
    for (program, flags) in [
        ("nasbn", ["--provider", "--allow-cpu-fallback", "--max-macs", "--checkpoint"]),
        ("nasbn-export", ["--space", "--image-size", "--force", "--out"]),
    ] {
        let commands = commands(program, &[]);
        assert!(commands.len() >= 6, "{commands:?}");
        for shell in SHELLS {
            let script = run(program, &["completions", shell]).ok().stdout;
            for name in commands.iter().flatten() {
                assert!(script.contains(name.as_str()), "{program} {shell}: {name}");
            }
            for flag in flags {
                // Fish writes long flags without dashes.
                assert!(script.contains(flag) || script.contains(&format!("-l {}", &flag[2..])), "{shell}: {flag}");
            }
            let checked =
                if ["bash", "zsh", "fish"].contains(&shell) { outside(shell, &["-n"], &script) } else { None };
            if let Some((valid, _, problem)) = checked {
                assert!(valid && problem.is_empty(), "{program} {shell}: {problem}");
            }
        }
        assert_eq!(run(program, &["completions", "csh"]).status, Some(2));
    }
}

/// What bash offers after `nasbn search --provider `.
#[test]
fn bash_completes_values_and_commands() {
    let script = run("nasbn", &["completions", "bash"]).ok().stdout;
    let ask = |line: &str| {
        let count = line.split(' ').count() - 1;
        let typed: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        let previous = &typed[count - 1];
        format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={count}\n_nasbn nasbn {} {previous}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            typed.join(" "),
            typed[count]
        )
    };
    for (line, expected) in
        [("nasbn se", "search"), ("nasbn search --provider t", "tensorrt"), ("nasbn completions z", "zsh")]
    {
        let Some((_, offered, problem)) = outside("bash", &[], &ask(line)) else { return };
        assert_eq!(offered.trim(), expected, "{line}: {problem}");
    }
}

fn render(page: &str) -> Option<(String, String)> {
    let arguments = ["-K", "utf8", "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=200n"];
    outside("groff", &arguments, page).map(|(_, rendered, problems)| (rendered, problems))
}

#[test]
fn every_command_has_a_man_page_with_its_examples() {
    for program in ["nasbn", "nasbn-export"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("man/man1");
        run(program, &["man", "--out", text(&out)]).ok();
        let commands = commands(program, &[]);
        let mut expected: BTreeSet<String> = commands.iter().map(|c| format!("{program}-{}.1", c.join("-"))).collect();
        expected.insert(format!("{program}.1"));
        let found = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(expected, found);
        let mut with_examples = 0;
        for command in &commands {
            let page = fs::read_to_string(out.join(format!("{program}-{}.1", command.join("-")))).unwrap();
            let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
            let help = run(program, &arguments).ok().stdout;
            let examples = |line: &&str| line.starts_with(&format!("  {program} "));
            let Some((rendered, problems)) = render(&page) else { return };
            assert_eq!(problems, "", "{command:?}");
            let rendered = words(&rendered);
            assert!(rendered.contains(&format!("{program}-{}", command.join("-"))), "{rendered}");
            for example in help.lines().filter(examples) {
                assert!(rendered.contains(&words(example)), "{command:?}: {example}\n{rendered}");
                with_examples += 1;
            }
        }
        assert!(with_examples >= commands.len() - 1, "{with_examples} of {}", commands.len());
    }
}

#[test]
fn pages_are_not_written_where_they_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    for program in ["nasbn", "nasbn-export"] {
        run(program, &["man", "--out", text(&file)]).fails(2, "file");
        run(program, &["man", "--out", text(&Path::new(&file).join("below"))]).fails(2, "file");
    }
}
