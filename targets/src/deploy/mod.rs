//! Putting a package on a board, with nothing but `ssh` here and a shell and tar there.

mod error;
mod ssh;

use crate::{
    elf::{GlibcVersion, Machine},
    package::Opened,
};

pub use error::DeployError;
pub use ssh::{Remote, SSH};

/// What a board says of itself and of the place for a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    /// `uname -m`.
    machine: String,
    /// What stands in its `/proc/device-tree/model`, if it has one.
    model: Option<String>,
    /// Its glibc, if it says so.
    glibc: Option<GlibcVersion>,
    /// Whether it has tar.
    tar: bool,
    /// Whether something that is no package is at the place.
    occupied: bool,
    /// Room at the place, bytes, if it is known.
    free: Option<u64>,
}

impl Look {
    /// Reads what `data/deploy-look.sh` says; other lines are of a login shell.
    fn parse(text: &str) -> Self {
        let mut look = Self::default();
        for line in text.lines().filter_map(|line| line.strip_prefix("nasbn: ")) {
            match line.split_once(' ') {
                Some(("machine", machine)) => look.machine = machine.trim().to_owned(),
                Some(("model", model)) => look.model = Some(model.trim().to_owned()),
                Some(("libc", libc)) => look.glibc = libc.strip_prefix("glibc ").and_then(|v| v.trim().parse().ok()),
                Some(("has", "tar")) => look.tar = true,
                Some(("there", what)) => look.occupied = what == "other",
                Some(("free", kib)) => look.free = kib.trim().parse::<u64>().ok().map(|kib| kib.saturating_mul(1024)),
                _ => {}
            }
        }
        look
    }

    /// Whether a package can go there.
    fn check(&self, remote: &Remote, package: &Opened, directory: &str) -> Result<(), DeployError> {
        let host = remote.host().to_owned();
        let description = &package.description;
        let wanted = Machine::of_triple(&description.triple).map(Machine::uname);
        if wanted.as_ref() != Some(&self.machine) {
            return Err(DeployError::WrongMachine {
                host,
                found: self.machine.clone(),
                target: description.target.clone(),
                wanted: wanted.unwrap_or_else(|| description.triple.clone()),
            });
        }
        if let Some(found) = self.glibc.filter(|found| *found < description.glibc) {
            return Err(DeployError::OldGlibc { host, found, wanted: description.glibc });
        }
        if !self.tar {
            return Err(DeployError::NoTar { host });
        }
        if self.occupied {
            return Err(DeployError::Occupied { host, directory: directory.to_owned() });
        }
        match self.free {
            Some(free) if free < package.bytes => {
                Err(DeployError::NoRoom { host, needed: Some(package.bytes), free: Some(free) })
            }
            _ => Ok(()),
        }
    }
}

/// The directory on a board, as the scripts take it: not empty, without `~/`, and not an option or the root.
///
/// # Errors
/// [`DeployError::Directory`].
fn place(directory: &str) -> Result<&str, DeployError> {
    // The commands start in the home directory.
    let place = directory.strip_prefix("~/").unwrap_or(directory).trim_end_matches('/');
    let last = place.rsplit('/').next().unwrap_or_default();
    let odd = ["", ".", ".."].contains(&last) || place.starts_with(['-', '~']) || place.chars().any(char::is_control);
    if odd { Err(DeployError::Directory { directory: directory.to_owned() }) } else { Ok(place) }
}

/// What a board said when it had taken a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// What stands in its `/proc/device-tree/model`, if it has one.
    pub model: Option<String>,
    /// What its user should know.
    pub notes: Vec<String>,
}

/// Copies a package to `directory` on a board. There it is whole or not at all: what was there before is replaced when all
/// has come, but for files that are not of a package, which come to the new one.
///
/// # Errors
/// [`DeployError`].
pub fn send(remote: &Remote, package: &Opened, directory: &str) -> Result<Sent, DeployError> {
    let place = place(directory)?;
    let top = format!("nasbn-{}", package.description.target);
    let said = remote.run(include_str!("../../data/deploy-look.sh"), &[place], None)?;
    let look = Look::parse(&said);
    look.check(remote, package, directory)?;
    let files = package.files().to_string();
    let arguments = [place, top.as_str(), files.as_str()];
    let receive = include_str!("../../data/deploy-receive.sh");
    let said = remote.run(receive, &arguments, Some(&|out| package.tar(&top, out).map(drop)))?;
    let notes = said.lines().filter_map(|line| line.strip_prefix("nasbn: note ")).map(ToOwned::to_owned).collect();
    Ok(Sent { model: look.model, notes })
}

/// Runs `nasbn doctor` of a package on a board; what it says goes to this program's outputs. Its exit status.
///
/// # Errors
/// [`DeployError`]; [`DeployError::Crashed`] if a signal ended it.
pub fn doctor(remote: &Remote, directory: &str) -> Result<u8, DeployError> {
    /// A shell's status of a program that a signal ended, less the signal's number.
    const SIGNAL: u8 = 128;
    /// Most signals that a machine has.
    const SIGNALS: u8 = 64;
    // Of a command that a signal ends, ssh says 255, as it does when it fails itself. A shell says something else.
    let script = "cd -- \"$1\" || exit; ./run.sh doctor; status=$?; [ $status -ne 255 ] || status=254; exit $status";
    match remote.show(script, &[place(directory)?])? {
        status if (SIGNAL + 1..=SIGNAL + SIGNALS).contains(&status) => {
            Err(DeployError::Crashed { host: remote.host().to_owned(), signal: status - SIGNAL })
        }
        status => Ok(status),
    }
}

#[cfg(test)]
mod tests;
