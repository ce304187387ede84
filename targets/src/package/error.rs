//! Why there is no package.

use std::{io, path::PathBuf};

use nasbn_export::bundle::check::CheckError;

use super::{DEVICE_PROFILE, RUN};
use crate::{
    device::DeviceError,
    elf::{ElfError, GlibcVersion, Machine},
    library::ProvisionError,
};

/// Why there is no package, or why one cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The device or its JetPack is not known.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The program or the library cannot be looked at.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The ONNX Runtime library is not to be had.
    #[error(transparent)]
    Library(#[from] ProvisionError),
    /// There is no program for the device.
    #[error("no `nasbn` is built for the device: there is no {looked_at}")]
    NotBuilt {
        /// Where it would be.
        looked_at: String,
        /// Whether the device is of another kind than this machine.
        cross: bool,
    },
    /// A program or library is for another processor.
    #[error("{} is for {found}, and {device} needs {triple}", path.display())]
    WrongMachine {
        /// The file.
        path: PathBuf,
        /// What it is for.
        found: Machine,
        /// The device.
        device: String,
        /// What that is.
        triple: String,
    },
    /// A file is no program that a board can start.
    #[error("{} is no program that boards start: {reason}", path.display())]
    NoProgram {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A program or library does not run with the glibc of the board.
    #[error("{} needs glibc {needs}, and {device} may have {glibc} only", path.display())]
    NeedsGlibc {
        /// The file.
        path: PathBuf,
        /// What it needs.
        needs: GlibcVersion,
        /// What the board has at least.
        glibc: GlibcVersion,
        /// The device.
        device: String,
    },
    /// The ONNX Runtime library that was asked for does not run with the glibc of the board.
    #[error("ONNX Runtime {version} needs glibc {needs}, and {device} may have {glibc} only")]
    LibraryNeedsGlibc {
        /// Its version.
        version: String,
        /// What it needs.
        needs: GlibcVersion,
        /// What the board has at least.
        glibc: GlibcVersion,
        /// The device.
        device: String,
    },
    /// The bundle is none, damaged, or not whole.
    #[error(transparent)]
    Bundle(#[from] CheckError),
    /// A file's name cannot stand in a package.
    #[error("{} has a name that cannot stand in a package: {reason}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// There are no man pages.
    #[error("there are no man pages: {reason}")]
    Manual {
        /// Why not.
        reason: String,
    },
    /// The licences of the crates are not known.
    #[error("the licences of the program's crates are not known: {reason}")]
    Licences {
        /// Why not.
        reason: String,
    },
    /// A package cannot be at a place.
    #[error("{} cannot be the place of a package: {reason}", path.display())]
    Place {
        /// The place.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// Something is at the package's place.
    #[error("{} is there already", path.display())]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// What is to be replaced is no package.
    #[error("{} is no package and is not replaced", path.display())]
    Foreign {
        /// The place.
        path: PathBuf,
    },
    /// A package that is to be replaced holds what somebody put there.
    #[error("{} holds what is no part of the package: {}", path.display(), first(others))]
    Holds {
        /// The package.
        path: PathBuf,
        /// What is there, from the package's directory on, in order.
        others: Vec<String>,
    },
    /// A directory is no package.
    #[error("{} is no package: {reason}", path.display())]
    NotAPackage {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file of a package is not what it was.
    #[error("{} is damaged: its SHA-256 is not that of SHA256SUMS", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl PackageError {
    /// What a user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Device(error) => error.hint().into(),
            Self::Elf(error) => error.hint().into(),
            Self::Library(error) => error.hint().into(),
            Self::NotBuilt { cross: true, .. } => {
                format!("build it with `cargo jetson` (profile {DEVICE_PROFILE}), or name it with --binary")
            }
            Self::NotBuilt { .. } => {
                "build it with `cargo build --release --bin nasbn`, or name it with --binary".into()
            }
            Self::WrongMachine { .. } => {
                "`cargo jetson` builds for 64-bit ARM boards, `cargo build --release` for machines like this one".into()
            }
            Self::NoProgram { .. } => "name the `nasbn` that `cargo jetson` built, which is linked with glibc".into(),
            Self::NeedsGlibc { .. } => {
                "`cargo jetson` builds a program for glibc 2.27; a board with a newer JetPack has a newer glibc: name the JetPack with --jetpack, or what `getconf GNU_LIBC_VERSION` says there with --glibc".into()
            }
            Self::LibraryNeedsGlibc { .. } => {
                "leave --ort-version out, which takes the newest that runs there; a board with a newer JetPack has a newer glibc: name the JetPack with --jetpack, or what `getconf GNU_LIBC_VERSION` says there with --glibc".into()
            }
            Self::Bundle(error) => error.hint().into(),
            Self::Name { .. } => "rename the file".into(),
            Self::Manual { .. } => {
                "build `nasbn` for this machine (`cargo build --release --bin nasbn`), name pages with --man DIR (`nasbn man --out DIR` writes them), or leave them out with --no-man".into()
            }
            Self::Licences { .. } => {
                "run it in a checkout of nasbn, with cargo at hand, or leave them out with --no-third-party".into()
            }
            Self::Place { .. } => "name a directory that is to be made, outside the bundle, such as `deploy`".into(),
            Self::Exists { .. } => "name another place, or replace the package with --force".into(),
            Self::Foreign { .. } => {
                "name another place, or move it away; --force replaces packages and their archives only".into()
            }
            Self::Holds { .. } => "move that elsewhere, or name another place; nothing was changed".into(),
            Self::NotAPackage { .. } => {
                format!("name the directory that `nasbn-targets package` made: it holds {RUN} and SHA256SUMS")
            }
            Self::Damaged { .. } => "make the package again".into(),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    "make room, or name a place that has some; nothing was changed".into()
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "name a place that may be read and written; nothing was changed".into()
                }
                _ => "check the path; the directory above the package must exist".into(),
            },
        }
    }

    /// Exit status: 3 if something is not to be had, 2 for bad usage or input.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Library(ProvisionError::NotPinned { .. }) => 2,
            Self::Library(_) => 3,
            _ => 2,
        }
    }
}

/// The first few of some names, and how many more there are.
fn first(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    names[..names.len().min(SHOWN)].join(", ") + &more
}
