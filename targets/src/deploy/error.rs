//! Why a package is not on a board.

use std::io;

use crate::elf::GlibcVersion;

/// Why a package is not on a board.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The name of the host cannot be one.
    #[error("`{host}` is no name of a host")]
    Host {
        /// What was given.
        host: String,
    },
    /// A setting of ssh is not one, or ssh does not know it.
    #[error("`{option}` is no setting of ssh{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    Option {
        /// What was given.
        option: String,
        /// What ssh says.
        reason: Option<String>,
    },
    /// A file of ssh's settings has a mistake.
    #[error("ssh cannot read its settings: {said}")]
    Config {
        /// What ssh says.
        said: String,
    },
    /// The directory cannot be one for a package.
    #[error("`{directory}` cannot be the directory of a package")]
    Directory {
        /// What was given.
        directory: String,
    },
    /// There is no ssh here.
    #[error("{program} is needed to reach {host} and was not found")]
    MissingProgram {
        /// The program.
        program: String,
        /// The host.
        host: String,
    },
    /// The host has no address.
    #[error("{host} has no address: {said}")]
    NoAddress {
        /// The host.
        host: String,
        /// What ssh says.
        said: String,
    },
    /// Nobody answers.
    #[error("{host} does not answer: {said}")]
    NoAnswer {
        /// The host.
        host: String,
        /// What ssh says.
        said: String,
    },
    /// The host answers, and has no ssh server at the port.
    #[error("{host} has no ssh server there: {said}")]
    NoServer {
        /// The host.
        host: String,
        /// What ssh says.
        said: String,
    },
    /// The key of the host is not known here.
    #[error("the key of {host} is not known here, so it may be another machine")]
    UnknownKey {
        /// The host.
        host: String,
        /// Its port, if one was given.
        port: Option<u16>,
    },
    /// The key of the host is not the one that is known.
    #[error("the key of {host} is another than the one that is known here")]
    OtherKey {
        /// The host.
        host: String,
        /// Its port, if one was given.
        port: Option<u16>,
    },
    /// The user is not let in.
    #[error("{host} does not let you in: {said}")]
    NotLetIn {
        /// The host.
        host: String,
        /// Its port, if one was given.
        port: Option<u16>,
        /// What ssh says.
        said: String,
    },
    /// ssh failed otherwise.
    #[error("ssh to {host} failed: {said}")]
    Ssh {
        /// The host.
        host: String,
        /// Its port, if one was given.
        port: Option<u16>,
        /// What it says.
        said: String,
    },
    /// The package is for another processor.
    #[error("{host} is {found}, and the package is for {target} ({wanted})")]
    WrongMachine {
        /// The host.
        host: String,
        /// Its `uname -m`.
        found: String,
        /// The device of the package.
        target: String,
        /// What `uname -m` would say there.
        wanted: String,
    },
    /// The package needs a newer glibc.
    #[error("{host} has glibc {found}, and the package is for {wanted} and newer")]
    OldGlibc {
        /// The host.
        host: String,
        /// Its glibc.
        found: GlibcVersion,
        /// What the package was made for.
        wanted: GlibcVersion,
    },
    /// The host has no tar.
    #[error("{host} has no tar")]
    NoTar {
        /// The host.
        host: String,
    },
    /// The place is taken by something else.
    #[error("{directory} on {host} is there already and is no package")]
    Occupied {
        /// The host.
        host: String,
        /// The place.
        directory: String,
    },
    /// There is too little room.
    #[error("{host} has too little room for the package{}", room(*needed, *free))]
    NoRoom {
        /// The host.
        host: String,
        /// What the package needs, bytes, if that was compared.
        needed: Option<u64>,
        /// What there is, bytes, if that is known.
        free: Option<u64>,
    },
    /// The package came to the host damaged.
    #[error("the package did not come to {host} as it was sent: {said}")]
    Damaged {
        /// The host.
        host: String,
        /// What the host says.
        said: String,
    },
    /// The host could not write it.
    #[error("{host} could not put the package there: {said}")]
    Refused {
        /// The host.
        host: String,
        /// What the host says.
        said: String,
    },
    /// Something that somebody put into the old package cannot come to the new one.
    #[error("{host} keeps what is there: {said}")]
    InTheWay {
        /// The host.
        host: String,
        /// What the host says: what it is, and why.
        said: String,
    },
    /// Something runs in the old package.
    #[error("{host} keeps what is there: {said}")]
    Busy {
        /// The host.
        host: String,
        /// What the host says: the process, and where.
        said: String,
    },
    /// What somebody put into the old package could not be moved to the new one.
    #[error("{host} could not put everything in its place: {said}")]
    Stranded {
        /// The host.
        host: String,
        /// What the host says: where it is now.
        said: String,
    },
    /// The copying was stopped by a signal on the host.
    #[error("the copying was stopped on {host}")]
    Stopped {
        /// The host.
        host: String,
    },
    /// `nasbn doctor` crashed there.
    #[error("`nasbn doctor` was ended by signal {signal} on {host}")]
    Crashed {
        /// The host.
        host: String,
        /// The signal's number.
        signal: u8,
    },
    /// A file of the package cannot be read, or ssh not be started.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

impl DeployError {
    /// What a user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Host { .. } => "name it as for ssh: [USER@]HOST".into(),
            Self::Option { .. } => "settings are KEY=VALUE, as in `man ssh_config`".into(),
            Self::Directory { .. } => "name a directory below the home directory, or an absolute one; not the root".into(),
            Self::MissingProgram { .. } => {
                "install an ssh client (Debian: openssh-client), or name one with NASBN_SSH".into()
            }
            Self::NoAddress { .. } => "check the name; an address such as 192.168.55.1 (a Jetson by USB) will do, too".into(),
            Self::NoAnswer { .. } => {
                "check that the board is on and in this network; `--ssh-option ConnectTimeout=60` waits longer".into()
            }
            Self::NoServer { .. } => "start one on the board (`sudo systemctl start ssh`), or name its port with --port".into(),
            Self::UnknownKey { host, port } => {
                let to = by_hand(host, *port);
                format!("connect once by hand, `ssh {to}`, compare the key that it shows with the board's, and accept it")
            }
            Self::OtherKey { host, port } => {
                let (known, to) = (known_as(host, *port), by_hand(host, *port));
                format!("if the board was set up anew, `ssh-keygen -R {known}` and connect once by hand, `ssh {to}`; else beware")
            }
            Self::NotLetIn { host, port, .. } => {
                let to = by_hand(host, *port);
                format!("it never asks for a password: give the board your key with `ssh-copy-id {to}`")
            }
            Self::Ssh { host, port, .. } => {
                format!("see whether `ssh {} true` works, then run the same command again", by_hand(host, *port))
            }
            Self::Config { .. } => "mend that file; `man ssh_config` says what may stand in it".into(),
            Self::WrongMachine { .. } => "make a package for this board: `nasbn-targets list` names the devices".into(),
            Self::OldGlibc { .. } => "make the package for the JetPack of the board, with --jetpack, or without that option".into(),
            Self::NoTar { .. } => "install tar on the board".into(),
            Self::Occupied { .. } => "name another place with --dir, or move it away on the board".into(),
            Self::NoRoom { .. } => "make room on the board, or name a place with room with --dir; nothing was left there".into(),
            Self::Damaged { .. } => "run the same command again; nothing was left there".into(),
            Self::Refused { .. } => "name a place that may be written with --dir; what was there is as it was".into(),
            Self::InTheWay { .. } => "move it elsewhere on the board, or name another place with --dir; nothing was changed".into(),
            Self::Busy { .. } => "wait until it has ended, or end it; nothing was changed".into(),
            Self::Stranded { .. } => {
                "make room or mend the permissions there and run the same command again, which moves it back; or move it by hand".into()
            }
            Self::Stopped { .. } => "run the same command again; until then, what was put into the old package is where it was".into(),
            Self::Crashed { .. } => {
                "the package is in its place; run `./run.sh doctor` in it by hand, with another ONNX Runtime by ORT_DYLIB_PATH".into()
            }
            Self::Io { .. } => "check that the package can be read, then run the same command again".into(),
        }
    }

    /// Exit status: 2 for bad usage, 3 if the board is not to be had.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Host { .. } | Self::Option { .. } | Self::Config { .. } | Self::Directory { .. } => 2,
            _ => 3,
        }
    }
}

/// What `ssh` and `ssh-copy-id` take for a host.
fn by_hand(host: &str, port: Option<u16>) -> String {
    port.map_or_else(|| host.to_owned(), |port| format!("-p {port} {host}"))
}

/// What a host is called among the keys that are known, as a shell takes it.
fn known_as(host: &str, port: Option<u16>) -> String {
    /// The port without which keys are kept.
    const USUAL: u16 = 22;
    let name = host.rsplit('@').next().unwrap_or(host);
    port.filter(|port| *port != USUAL).map_or_else(|| name.to_owned(), |port| format!("'[{name}]:{port}'"))
}

fn room(needed: Option<u64>, free: Option<u64>) -> String {
    const MEGABYTE: u64 = 1_000_000;
    let needed = needed.map(|bytes| format!(": it needs {} MB", bytes.div_ceil(MEGABYTE))).unwrap_or_default();
    let free = free.map(|bytes| format!(", and {} MB are free", bytes / MEGABYTE)).unwrap_or_default();
    needed + &free
}
