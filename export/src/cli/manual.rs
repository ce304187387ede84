//! `nasbn-export completions` and `nasbn-export man`: what the program says of itself, in other forms.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory};

use super::{Cli, Failure, output};
use crate::manual::{self, Shell};

#[derive(Args)]
#[command(before_help = "Example:
  nasbn-export completions bash > ~/.local/share/bash-completion/completions/nasbn-export")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Args)]
#[command(before_help = "Example:
  nasbn-export man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Directory for nasbn-export.1 and a page of every command
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let script = manual::completions(Cli::command(), args.shell).map_err(|e| Failure::stdout(&e))?;
    io::stdout().lock().write_all(&script).map_err(|e| Failure::stdout(&e))
}

pub fn man(args: &ManArgs) -> Result<(), Failure> {
    let failed = |path: &Path, error: &io::Error| {
        Failure::new(format!("{}: {error}", path.display()), Some("name a directory that can be written"))
    };
    let pages = manual::pages(Cli::command()).map_err(|e| failed(&args.out, &e))?;
    fs::create_dir_all(&args.out).map_err(|e| failed(&args.out, &e))?;
    for page in pages {
        let file = args.out.join(page.file);
        write(&args.out, &file, &page.text).map_err(|e| failed(&file, &e))?;
        output::line(format!("wrote {}", file.display()))?;
    }
    Ok(())
}

/// Writes a file whole or not at all.
fn write(directory: &Path, file: &Path, contents: &[u8]) -> io::Result<()> {
    let readable = Permissions::from_mode(0o666);
    let mut temporary = tempfile::Builder::new().permissions(readable).tempfile_in(directory)?;
    temporary.write_all(contents)?;
    temporary.persist(file).map(|_| ()).map_err(|e| e.error)
}
