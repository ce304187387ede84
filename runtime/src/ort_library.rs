//! Finding and loading the ONNX Runtime library, and the one environment a process may have.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ort::environment::{Environment, GlobalThreadPoolOptions};

use crate::arena::{self, Registration, Usage};

/// Environment variable that names the library, shared with other users of the `ort` crate.
pub const ORT_DYLIB_PATH: &str = "ORT_DYLIB_PATH";
/// Directory of provisioned libraries: `onnxruntime/<triple>/<version>/libonnxruntime.so`, beside the
/// program or in any directory above it.
pub const PROVISIONED_DIR: &str = "onnxruntime";
/// File name of the library.
pub const LIBRARY_FILE: &str = "libonnxruntime.so";
/// Oldest minor version of ONNX Runtime 1.x that is spoken to.
pub const OLDEST_MINOR: u32 = 17;

/// What named the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// `--ort-library`.
    Option,
    /// [`ORT_DYLIB_PATH`].
    Environment,
    /// Provisioned beside the program.
    Provisioned,
    /// The system's loader.
    System,
}

/// A library that was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Library {
    /// Where it is; a bare file name if the system's loader finds it.
    pub path: PathBuf,
    /// What named it.
    pub origin: Origin,
    /// Minor version of ONNX Runtime 1.x.
    pub minor: u32,
}

/// Why no library can be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// None was found anywhere.
    #[error(
        "no ONNX Runtime library found (looked at --ort-library, {ORT_DYLIB_PATH}, {searched}, and the system's loader)"
    )]
    NotFound {
        /// Directories that were searched.
        searched: String,
    },
    /// The one that was named does not load.
    #[error("{} does not load as an ONNX Runtime 1.x library: {reason}", path.display())]
    Unusable {
        /// Its path.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// It is older than what the program speaks.
    #[error("{} is ONNX Runtime 1.{minor}; 1.{OLDEST_MINOR} or newer is needed", path.display())]
    TooOld {
        /// Its path.
        path: PathBuf,
        /// Its minor version.
        minor: u32,
    },
    /// Another library or thread count is already in use in this process.
    #[error("this process already runs ONNX Runtime from {} with {threads} threads", path.display())]
    AlreadyLoaded {
        /// Path of the library in use.
        path: PathBuf,
        /// Threads in use.
        threads: usize,
    },
    /// ONNX Runtime does not start.
    #[error("ONNX Runtime from {} does not start: {reason}", path.display())]
    Start {
        /// Path of the library.
        path: PathBuf,
        /// What it says.
        reason: String,
    },
}

impl LibraryError {
    /// What a user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => {
                "provision one with `cargo run -p nasbn-targets -- provision`, or name one with --ort-library FILE"
            }
            Self::Unusable { .. } => {
                "check that the file is libonnxruntime.so for this machine's architecture and glibc"
            }
            Self::TooOld { .. } => "provision a newer one with `cargo run -p nasbn-targets -- provision`",
            Self::AlreadyLoaded { .. } => "use one library and one thread count per process",
            Self::Start { .. } => "run `nasbn doctor` to see which library is used",
        }
    }
}

/// Finds the library by, in this order: `option`, [`ORT_DYLIB_PATH`], the provisioned one, the system's.
///
/// # Errors
/// If one is named but unusable (the next is *not* tried then), or none is found.
pub fn locate(option: Option<&Path>) -> Result<Library, LibraryError> {
    if let Some(path) = option {
        return probe(path.to_owned(), Origin::Option);
    }
    if let Some(path) = env::var_os(ORT_DYLIB_PATH).filter(|p| !p.is_empty()) {
        return probe(path.into(), Origin::Environment);
    }
    let program = env::current_exe().ok().and_then(|p| fs::canonicalize(p).ok());
    let directories: Vec<&Path> = program.as_deref().map(|p| p.ancestors().skip(1).collect()).unwrap_or_default();
    for directory in &directories {
        if let Some(path) = provisioned_in(directory) {
            return probe(path, Origin::Provisioned);
        }
    }
    let searched = directories
        .first()
        .map_or_else(|| format!("{PROVISIONED_DIR}/"), |d| format!("{PROVISIONED_DIR}/ in {} and above", d.display()));
    match ort::util::probe(LIBRARY_FILE) {
        Some(minor) => checked(Library { path: LIBRARY_FILE.into(), origin: Origin::System, minor }),
        None => Err(LibraryError::NotFound { searched }),
    }
}

/// `libonnxruntime.so` in the directory itself, or the newest provisioned one below it.
fn provisioned_in(directory: &Path) -> Option<PathBuf> {
    let beside = directory.join(LIBRARY_FILE);
    if beside.is_file() {
        return Some(beside);
    }
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let versions = fs::read_dir(directory.join(PROVISIONED_DIR).join(triple)).ok()?;
    let numbered = |path: &PathBuf| -> Option<Vec<u32>> {
        path.file_name()?.to_str()?.split('.').map(|part| part.parse().ok()).collect()
    };
    versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(LIBRARY_FILE).is_file())
        .filter_map(|path| Some((numbered(&path)?, path)))
        .max()
        .map(|(_, path)| path.join(LIBRARY_FILE))
}

fn probe(path: PathBuf, origin: Origin) -> Result<Library, LibraryError> {
    if let Err(error) = fs::File::open(&path) {
        return Err(LibraryError::Unusable { path, reason: error.to_string() });
    }
    match ort::util::probe(&path) {
        Some(minor) => checked(Library { path, origin, minor }),
        None => Err(LibraryError::Unusable { path, reason: "the dynamic loader or its version refuses it".into() }),
    }
}

fn checked(library: Library) -> Result<Library, LibraryError> {
    if library.minor < OLDEST_MINOR {
        return Err(LibraryError::TooOld { path: library.path, minor: library.minor });
    }
    Ok(library)
}

/// The environment of this process, and what it was made with.
struct Loaded {
    library: Library,
    threads: usize,
    environment: Environment,
    arena: Option<Registration>,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// How much memory activations have taken; none if nothing was loaded or there is no arena.
pub fn arena_usage() -> Option<Usage> {
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    loaded.as_ref()?.arena.map(|arena| arena.usage())
}

/// The library in use and its threads, in words; none if nothing was loaded. Two that differ may round otherwise.
pub fn in_use() -> Option<String> {
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let Loaded { library, threads, .. } = loaded.as_ref()?;
    Some(format!("ONNX Runtime 1.{} with {threads} threads on {}", library.minor, env::consts::ARCH))
}

/// Loads `library` and starts ONNX Runtime with one pool of `threads` threads for all sessions.
/// A process has one environment: a second call must name the same library and thread count.
///
/// # Errors
/// See [`LibraryError`].
pub fn load(library: &Library, threads: usize) -> Result<Environment, LibraryError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(present) = &*loaded {
        if present.library.path == library.path && present.threads == threads {
            return Ok(present.environment.clone());
        }
        return Err(LibraryError::AlreadyLoaded { path: present.library.path.clone(), threads: present.threads });
    }
    let start = |reason: String| LibraryError::Start { path: library.path.clone(), reason };
    let builder = ort::init_from(&library.path)
        .map_err(|e| LibraryError::Unusable { path: library.path.clone(), reason: e.to_string() })?;
    let pool = GlobalThreadPoolOptions::default()
        .with_intra_threads(threads)
        .and_then(|p| p.with_inter_threads(1))
        .map_err(|e| start(e.to_string()))?;
    let environment = builder
        .with_name("nasbn")
        .with_telemetry(false)
        .with_global_thread_pool(pool)
        .build()
        .map_err(|e| start(e.to_string()))?;
    let arena = arena::register(&environment).map_err(|e| log::warn!("activations have no arena: {e}")).ok();
    *loaded = Some(Loaded { library: library.clone(), threads, environment: environment.clone(), arena });
    Ok(environment)
}
