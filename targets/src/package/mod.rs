//! Packages for a device: a directory, and the same as `.tar.gz`, that hold all that a board needs.
//!
//! Equal inputs give equal bytes. Everything is checked before anything is written; the package is made beside its
//! place and renamed.

mod archive;
mod bundle;
mod error;
mod licences;
mod manual;
mod opened;
mod parts;
mod readme;
mod replace;
mod stage;
mod work;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    device::{Catalog, Device},
    elf::{Elf, GlibcVersion, Machine},
    library::{self, Fetcher, LIBRARY_FILE, Library, NOTICES_FILE, PROVISIONED_DIR},
};

pub use error::PackageError;
pub use opened::{Opened, open};
pub use parts::Part;

/// Build profile of programs for devices: `target/jetson/<triple>/<profile>/nasbn`.
pub const DEVICE_PROFILE: &str = "device";
/// Target directory of cross builds, below the usual one.
pub const CROSS_DIR: &str = "jetson";
/// The program that is packed.
pub const PROGRAM: &str = "nasbn";
/// Where it is in a package.
pub const PROGRAM_PATH: &str = "bin/nasbn";
/// The script of a package that starts the program with its library and bundle.
pub const RUN: &str = "run.sh";
/// Digests of all other files of a package, as `sha256sum` writes them.
pub const SUMS: &str = "SHA256SUMS";
/// What a package is for, as JSON ([`Description`]).
pub const DESCRIPTION: &str = "target.json";
/// Directory of the bundle in a package.
pub const BUNDLE: &str = "bundle";

/// What a package is for, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Name of the device.
    pub target: String,
    /// Machine that the program is for.
    pub triple: String,
    /// The oldest glibc that the board may have.
    pub glibc: GlibcVersion,
    /// Release of JetPack that it was made for; none: any that the device runs.
    pub jetpack: Option<String>,
    /// Version of the ONNX Runtime library in it, if one is.
    pub onnxruntime: Option<String>,
}

/// What to pack.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The device.
    pub device: &'a Device,
    /// Release of JetPack on the board; none: any that the device runs.
    pub jetpack: Option<String>,
    /// glibc of the board, where that is known better; none: that of the JetPack, or the oldest that the device may have.
    pub glibc: Option<GlibcVersion>,
    /// The program; none: what was built for the device below `target_dir`.
    pub binary: Option<PathBuf>,
    /// The bundle.
    pub bundle: PathBuf,
    /// Where the package goes; its archive is put beside it.
    pub out: PathBuf,
    /// Whether a package that is there is replaced.
    pub force: bool,
    /// Version of the ONNX Runtime library; none: the preferred one that runs on the board.
    pub onnxruntime: Option<String>,
    /// Whether the ONNX Runtime library is packed.
    pub library: bool,
    /// Man pages; none: those of the program, or of the `nasbn` that was built for this machine.
    pub manual: Option<PathBuf>,
    /// Whether man pages are packed.
    pub with_manual: bool,
    /// Whether the licences of the crates that the program is made of are packed.
    pub with_licences: bool,
    /// Cargo's target directory.
    pub target_dir: PathBuf,
}

/// A package that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packaged {
    /// The directory.
    pub directory: PathBuf,
    /// The archive.
    pub archive: PathBuf,
    /// SHA-256 of the archive, lower-case hexadecimal.
    pub sha256: String,
    /// Files in it.
    pub files: usize,
    /// Their size together.
    pub bytes: u64,
    /// Size of the archive.
    pub archive_bytes: u64,
    /// What it is for.
    #[serde(flatten)]
    pub description: Description,
}

/// Makes a package.
///
/// # Errors
/// [`PackageError`]; what was at the place before is as it was then.
pub fn package(
    request: &Request<'_>,
    catalog: &Catalog,
    libraries: &[Library],
    fetcher: &dyn Fetcher,
) -> Result<Packaged, PackageError> {
    let device = request.device;
    let of_release = catalog.glibc(device, request.jetpack.as_deref())?;
    let glibc = request.glibc.unwrap_or(of_release);
    let outputs = stage::Outputs::new(&request.out, &request.bundle, request.force)?;
    let binary = match &request.binary {
        Some(path) => path.clone(),
        None => built(device, &request.target_dir)?,
    };
    if let Some(reason) = no_program(&fits(&binary, device, glibc)?) {
        return Err(PackageError::NoProgram { path: binary, reason });
    }
    let mut parts = bundle::parts(&request.bundle)?;
    // What is cheap to know comes before what is fetched.
    if request.with_manual {
        let packed = (device.triple == library::host_triple()).then_some(binary.as_path());
        parts.extend(manual::parts(request.manual.as_deref(), packed, &request.target_dir)?);
    }
    parts.extend(licences::own());
    if request.with_licences {
        parts.push(licences::of_crates(&binary, &device.triple)?);
    }
    let mut version = None;
    if request.library {
        let library = match request.onnxruntime.as_deref() {
            Some(named) => library::choose(libraries, &device.triple, Some(named))?,
            None => library::choose_for(libraries, &device.triple, glibc)?,
        };
        // Known before it is fetched; the file itself is looked at below.
        if library.glibc > glibc {
            return Err(PackageError::LibraryNeedsGlibc {
                version: library.version.clone(),
                needs: library.glibc,
                glibc,
                device: device.name.clone(),
            });
        }
        parts.extend(library_parts(library, &request.target_dir, fetcher, device, glibc)?);
        version = Some(library.version.clone());
    }
    let description = Description {
        target: device.name.clone(),
        triple: device.triple.clone(),
        glibc,
        jetpack: request.jetpack.clone(),
        onnxruntime: version,
    };
    parts.push(Part::program(PROGRAM_PATH, parts::Contents::File(binary)));
    parts.push(Part::program(RUN, parts::Contents::Text(include_str!("../../data/run.sh").to_owned())));
    parts.push(Part::text("README.md", readme::of(catalog, device, &description)));
    parts.push(Part::text(DESCRIPTION, stage::json(&description)));
    let packed = outputs.write(parts, &format!("nasbn-{}", device.name))?;
    Ok(Packaged {
        directory: request.out.clone(),
        archive: packed.archive,
        sha256: packed.sha256,
        files: packed.files,
        bytes: packed.bytes,
        archive_bytes: packed.archive_bytes,
        description,
    })
}

/// The program that was built for a device: by `cargo jetson`, or for this machine if the device is like it.
fn built(device: &Device, target_dir: &Path) -> Result<PathBuf, PackageError> {
    let cross = target_dir.join(CROSS_DIR).join(&device.triple).join(DEVICE_PROFILE).join(PROGRAM);
    let native = target_dir.join("release").join(PROGRAM);
    let like_this = device.triple == library::host_triple();
    let candidates: &[PathBuf] = if like_this { &[cross, native] } else { &[cross] };
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| PackageError::NotBuilt {
        looked_at: candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and "),
        cross: !like_this,
    })
}

/// Why a file is no program that boards start; none if it is one.
fn no_program(elf: &Elf) -> Option<String> {
    /// What the names of glibc's loaders begin with.
    const LOADER: &str = "ld-linux";
    match &elf.interpreter {
        None => Some("it names no loader, without which it can load no library".to_owned()),
        Some(path) if !path.rsplit('/').next().is_some_and(|name| name.starts_with(LOADER)) => {
            Some(format!("its loader is {path}, and boards have glibc's"))
        }
        Some(_) => None,
    }
}

/// Checks that a program or library runs on a device with a glibc; what it needs.
fn fits(path: &Path, device: &Device, glibc: GlibcVersion) -> Result<Elf, PackageError> {
    let elf = Elf::read(path)?;
    let wanted = Machine::of_triple(&device.triple);
    if wanted != Some(elf.machine) {
        return Err(PackageError::WrongMachine {
            path: path.to_owned(),
            found: elf.machine,
            device: device.name.clone(),
            triple: device.triple.clone(),
        });
    }
    match elf.glibc {
        Some(needs) if needs > glibc => {
            Err(PackageError::NeedsGlibc { path: path.to_owned(), needs, glibc, device: device.name.clone() })
        }
        _ => Ok(elf),
    }
}

/// The ONNX Runtime library with its licences, fetched if it is not there.
fn library_parts(
    library: &Library,
    target_dir: &Path,
    fetcher: &dyn Fetcher,
    device: &Device,
    glibc: GlibcVersion,
) -> Result<Vec<Part>, PackageError> {
    let done = library::provision_with_notices(library, target_dir, fetcher)?;
    fits(&done.path, device, glibc)?;
    // The place where `nasbn` looks for it by itself, too.
    let place = format!("{PROVISIONED_DIR}/{}/{}/{LIBRARY_FILE}", library.triple, library.version);
    let notices = done.path.with_file_name(NOTICES_FILE);
    let mut parts = vec![Part::file(place, done.path)];
    parts.extend(licences::of_onnxruntime(library, notices));
    Ok(parts)
}

#[cfg(test)]
mod tests;
