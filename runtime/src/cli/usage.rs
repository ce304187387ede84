//! Arguments as clap reads them, and its refusals as this program says them: `error:` and `hint:`.

use std::ffi::{OsStr, OsString};

use clap::{Command, CommandFactory, Error, FromArgMatches, error::ErrorKind};

use super::{Exit, Failure};

/// The arguments, which begin with the program's name. Otherwise help, version or what is wrong with them has been said,
/// and the program ends with the status.
pub fn parse<C: CommandFactory + FromArgMatches>(arguments: &[OsString]) -> Result<C, Exit> {
    let matches = with_negative_numbers(C::command()).try_get_matches_from(arguments);
    let parsed = matches.and_then(|mut matches| C::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nobody listening is no failure.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
        _ => failure(&error, &name(C::command(), arguments)).report(),
    })
}

/// Options of a command and those below it take numbers below 0, which their own checks can then refuse by name.
fn with_negative_numbers(command: Command) -> Command {
    let take = |argument: clap::Arg| match argument.get_action().takes_values() {
        true => argument.allow_negative_numbers(true),
        false => argument,
    };
    command.mut_args(take).mut_subcommands(with_negative_numbers)
}

/// The command that the arguments name: `nasbn analyze ntk-drift`.
fn name(program: Command, arguments: &[OsString]) -> String {
    let (mut name, mut command) = (program.get_name().to_owned(), &program);
    let words = arguments.iter().skip(1).map(OsString::as_os_str);
    for word in words.filter_map(OsStr::to_str).filter(|word| !word.starts_with('-')) {
        let Some(below) = command.find_subcommand(word) else { break };
        name += &format!(" {}", below.get_name());
        command = below;
    }
    name
}

/// A refusal in this program's words: clap's message and usage, its tips as a hint.
fn failure(error: &Error, command: &str) -> Failure {
    let text = error.render().to_string();
    let (mut message, mut hints) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("For more information")) {
        match line.trim_start().strip_prefix("tip: ") {
            Some(tip) => hints.push(tip.to_owned()),
            None => message.push(line.strip_prefix("error: ").unwrap_or(line)),
        }
    }
    hints.push(format!("`{command} --help` lists what there is"));
    Failure::usage(message.join("\n")).hint(hints.join("; "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use clap::{Parser, Subcommand, ValueEnum};

    use super::*;

    #[derive(Parser, Debug)]
    #[command(name = "program", version)]
    struct Cli {
        #[command(subcommand)]
        command: Commands,
    }

    #[derive(Subcommand, Debug)]
    enum Commands {
        #[command(subcommand)]
        Outer(Inner),
    }

    #[derive(Subcommand, Debug)]
    enum Inner {
        Inner {
            #[arg(long)]
            rate: Option<f32>,
            #[arg(long, value_enum)]
            colour: Option<Colour>,
            #[arg(long, required = true)]
            file: String,
            #[arg(long)]
            quiet: bool,
        },
    }

    #[derive(Clone, Copy, Debug, ValueEnum)]
    enum Colour {
        Red,
        Green,
    }

    fn arguments(words: &str) -> Vec<OsString> {
        words.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_clap_refuses_is_an_error_with_a_hint_that_keeps_its_tips() {
        for (words, error, hint) in [
            ("program outer inner --rat 1", "unexpected argument '--rat' found", "'--rate'"),
            ("program outer inner --file f --colour rod", "invalid value 'rod' for '--colour", "'red'"),
            ("program outer inner --file f --rate x", "invalid value 'x' for '--rate", "`program outer inner --help`"),
            ("program outer inner", "--file <FILE>", "`program outer inner --help`"),
            ("program outer iner", "unrecognized subcommand 'iner'", "'inner'"),
            ("program -- outer", "unexpected argument 'outer' found", "`program outer --help`"),
        ] {
            let refused = with_negative_numbers(Cli::command()).try_get_matches_from(arguments(words)).unwrap_err();
            let failure = failure(&refused, &name(Cli::command(), &arguments(words)));
            let (message, advice) = (failure.message(), failure.advice().unwrap());
            assert!(message.contains(error), "{words}: {message}");
            assert!(advice.contains(hint) && advice.contains("--help` lists"), "{words}: {advice}");
            let said = |part: &str| message.contains(part) || message.starts_with("error");
            assert!(!said("tip:") && !said("For more information") && !message.contains("\n\n"), "{words}: {message}");
            assert_eq!(parse::<Cli>(&arguments(words)).unwrap_err(), Exit::Usage);
        }
    }

    #[test]
    fn numbers_below_0_are_values_and_not_options() {
        let Commands::Outer(Inner::Inner { rate, quiet, colour, .. }) =
            parse::<Cli>(&arguments("program outer inner --file -7 --quiet --rate -1.5")).unwrap().command;
        assert_eq!((rate, quiet, colour.is_none()), (Some(-1.5), true, true));
        assert!(parse::<Cli>(&arguments("program outer inner --file f --quiet -1")).is_err());
    }
}
