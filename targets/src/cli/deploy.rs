//! `nasbn-targets deploy`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use nasbn_targets::{
    deploy::{self, Remote, Sent},
    device::catalog,
    package,
};

#[derive(Args)]
#[command(after_help = "Examples:
  nasbn-targets deploy --host nvidia@192.168.55.1 deploy
  nasbn-targets deploy --host board --port 2222 --dir nasbn --ssh-option ConnectTimeout=30 deploy

Needs `ssh` here ($NASBN_SSH names another), and a shell, tar and a key that is let in there: it
never asks for a password. What you wrote into the directory there stays. Exit status: that of
`nasbn doctor` there, 2 bad usage or input, 3 the board is not to be reached, has no room, is another
machine, or keeps what is there because something runs in it or could not be moved.")]
pub struct DeployArgs {
    /// Board: [USER@]HOST, or a name of ~/.ssh/config
    #[arg(long, value_name = "HOST")]
    host: String,
    /// Port of its ssh server [default: as ssh is configured, else 22]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Directory there, from the home directory on [default: nasbn-TARGET]
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
    /// Setting of ssh, KEY=VALUE as in ssh_config; can be repeated. Else as ssh is configured, with BatchMode=yes,
    /// ConnectTimeout=10, ServerAliveInterval=15 and ServerAliveCountMax=3
    #[arg(long, value_name = "KEY=VALUE")]
    ssh_option: Vec<String>,
    /// Package that `nasbn-targets package` made
    #[arg(value_name = "PACKAGE")]
    package: PathBuf,
}

pub fn run(args: &DeployArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let catalog = catalog()?;
    let opened = package::open(&args.package)?;
    let remote = Remote::new(&args.host, args.port, &args.ssh_option)?;
    let directory = args.dir.clone().unwrap_or_else(|| format!("nasbn-{}", opened.description.target));
    let Sent { model, notes } = deploy::send(&remote, &opened, &directory)?;
    notes.iter().for_each(|note| eprintln!("note: {}: {note}", args.host));
    let other =
        model.as_ref().and_then(|model| catalog.find(model).ok()).filter(|d| d.name != opened.description.target);
    if let (Some(model), Some(device)) = (&model, other) {
        eprintln!(
            "note: {} says that it is `{model}`, and the package is for {}: `--target {}` would fit",
            args.host, opened.description.target, device.name
        );
    }
    writeln!(
        out,
        "sent     {} to {}:{directory}, {:.1} MB",
        args.package.display(),
        args.host,
        opened.bytes as f64 / 1e6
    )?;
    out.flush()?;
    let status = deploy::doctor(&remote, &directory)?;
    Ok(ExitCode::from(status))
}
