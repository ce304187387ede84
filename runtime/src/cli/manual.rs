//! `nasbn completions` and `nasbn man`: what the program says of itself, in other forms.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, CommandFactory};
use nasbn_export::manual::{self, Shell};

use super::{Cli, Exit, Failure, args::OutputArgs, output};
use crate::atomic;

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn completions bash > ~/.local/share/bash-completion/completions/nasbn
  nasbn completions zsh > ~/.zfunc/_nasbn
  nasbn completions fish > ~/.config/fish/completions/nasbn.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Args)]
#[command(after_help = "Example:
  nasbn man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Directory for nasbn.1 and a page of every command
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let script = manual::completions(Cli::command(), args.shell).map_err(|e| Failure::stdout(&e))?;
    io::stdout().lock().write_all(&script).map_err(|e| Failure::stdout(&e))?;
    Ok(Exit::Done)
}

pub fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let pages = manual::pages(Cli::command()).map_err(|e| Failure::usage(format!("the pages: {e}")))?;
    fs::create_dir_all(&args.out).map_err(|e| Failure::file(&args.out, &e))?;
    let mut written = Vec::new();
    for page in pages {
        let file = args.out.join(page.file);
        atomic::write(&file, &page.text).map_err(|e| Failure::file(&file, &e))?;
        written.push(file);
    }
    if args.output.json {
        output::json(&serde_json::json!({ "files": written }))?;
    } else if !args.output.quiet {
        written.iter().try_for_each(|file| output::line(format!("wrote {}", file.display())))?;
    }
    Ok(Exit::Done)
}
