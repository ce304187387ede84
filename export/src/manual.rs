//! Completions of shells and man pages, made from the definitions that a program reads its arguments by.

use std::io;

use clap::Command;
use clap_mangen::Man;

pub use clap_complete::Shell;

/// Heading of the lines that show how a command is used.
const EXAMPLES: [&str; 2] = ["Example:", "Examples:"];
/// What the manual calls itself.
const MANUAL: &str = "nasbn manual";

/// A man page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Name of its file, `nasbn-search.1`.
    pub file: String,
    /// Its text, roff.
    pub text: Vec<u8>,
}

/// The script that completes the arguments of `command` in `shell`.
///
/// # Errors
/// Those of writing to memory, of which there are none.
pub fn completions(mut command: Command, shell: Shell) -> io::Result<Vec<u8>> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    command.set_bin_name(name);
    command.build();
    clap_complete::Generator::try_generate(&shell, &command, &mut script)?;
    Ok(script)
}

/// A page of `command`, and one of each command below it.
///
/// # Errors
/// Those of writing to memory, of which there are none.
pub fn pages(command: Command) -> io::Result<Vec<Page>> {
    let version = command.get_version().unwrap_or_default().to_owned();
    let source = format!("{} {version}", command.get_name());
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &source, &mut pages)?;
    Ok(pages)
}

fn collect(command: &Command, source: &str, pages: &mut Vec<Page>) -> io::Result<()> {
    pages.push(page(command, source)?);
    command.get_subcommands().filter(|c| !c.is_hide_set()).try_for_each(|c| collect(c, source, pages))
}

fn page(command: &Command, source: &str) -> io::Result<Page> {
    let man = Man::new(command.clone()).source(source).manual(MANUAL);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.get_subcommands().any(|c| !c.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    let said: Vec<String> = command.get_before_help().into_iter().chain(after).map(ToString::to_string).collect();
    let said = said.join("\n");
    let (examples, notes) = split(&said);
    text.extend(as_it_stands("NOTES", &notes).bytes());
    text.extend(as_it_stands("EXAMPLES", &examples).bytes());
    Ok(Page { file: man.get_filename(), text })
}

/// The examples of a help text, which are indented below their heading, and what else it says; line by line.
fn split(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut examples, mut notes, mut within) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        if EXAMPLES.contains(&line.trim()) {
            within = true;
        } else if within && line.starts_with("  ") {
            examples.push(line.trim());
        } else {
            within = false;
            notes.push(line.trim_end());
        }
    }
    let start = notes.iter().position(|line| !line.is_empty()).unwrap_or(notes.len());
    let end = notes.iter().rposition(|line| !line.is_empty()).map_or(start, |last| last + 1);
    (examples, notes[start..end].to_vec())
}

/// A section of lines that are not filled; nothing without lines.
fn as_it_stands(heading: &str, lines: &[&str]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = lines.iter().map(|line| escaped(line)).collect();
    format!(".SH {heading}\n.nf\n{}\n.fi\n", lines.join("\n"))
}

/// A line that roff prints as it is: no escape, no request, hyphens that can be copied.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-").replace('`', "\\`").replace('\'', "\\(aq");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_told_from_the_rest() {
        let (examples, notes) = split("Indicators:\n  a  b\nExamples:\n  x --one\n  x --two\n\nMore.");
        assert_eq!(examples, ["x --one", "x --two"]);
        assert_eq!(notes, ["Indicators:", "  a  b", "", "More."]);
        assert_eq!(split("Example:\n  x"), (vec!["x"], vec![]));
        assert_eq!(split(""), (vec![], vec![]));
    }

    #[test]
    fn a_line_is_printed_as_it_is() {
        assert_eq!(escaped(".x \\ --a 'b'"), "\\&.x \\e \\-\\-a \\(aqb\\(aq");
        assert_eq!(as_it_stands("NOTES", &[]), "");
    }

    #[test]
    fn every_command_has_a_page() -> io::Result<()> {
        let command = || {
            let inner = Command::new("inner").about("Do one").after_help("Example:\n  outer inner --now");
            Command::new("outer").version("1.2").about("Do all").subcommand(inner)
        };
        let pages = pages(command())?;
        let files: Vec<&str> = pages.iter().map(|page| page.file.as_str()).collect();
        assert_eq!(files, ["outer.1", "outer-inner.1"]);
        let text = String::from_utf8_lossy(&pages[1].text);
        assert!(text.contains(".SH EXAMPLES\n.nf\nouter inner \\-\\-now\n.fi"), "{text}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = completions(command(), shell)?;
            assert!(String::from_utf8_lossy(&script).contains("inner"), "{shell}");
        }
        Ok(())
    }
}
