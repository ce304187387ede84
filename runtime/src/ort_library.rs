//! Finding and loading the ONNX Runtime library, and the one environment a process may have.

mod refusal;

use std::{
    env,
    fs::{self, File},
    io::Read,
    path::{self, Path, PathBuf},
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
                "start a board's package with its ./run.sh, which names its library; elsewhere `nasbn-targets provision` fetches \
                 one, or name one with --ort-library FILE"
            }
            Self::Unusable { reason, .. } => refusal::hint(reason),
            Self::TooOld { .. } => {
                "name a newer one with --ort-library FILE, or unset ORT_DYLIB_PATH: a board's package brings one, and on a \
                 desktop `nasbn-targets provision` fetches one"
            }
            Self::AlreadyLoaded { .. } => "use one library and one thread count per process",
            Self::Start { .. } => "name another one with --ort-library FILE",
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
    // The system's loader looks here first; what it would find is looked at before it does.
    let paths = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    if let Some(path) =
        env::split_paths(&paths).map(|directory| directory.join(LIBRARY_FILE)).find(|path| path.is_file())
    {
        return probe(path, Origin::System);
    }
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
    // The system's loader would look for a bare name elsewhere.
    let path = path::absolute(&path).unwrap_or(path);
    if let Some(reason) = refusal::seen(&path) {
        return Err(LibraryError::Unusable { path, reason });
    }
    match ort::util::probe(&path) {
        Some(minor) => checked(Library { path, origin, minor }),
        None => Err(LibraryError::Unusable { reason: refusal::loader(&path), path }),
    }
}

fn checked(library: Library) -> Result<Library, LibraryError> {
    if library.minor < OLDEST_MINOR {
        return Err(LibraryError::TooOld { path: library.path, minor: library.minor });
    }
    Ok(library)
}

/// The library's whole version, `1.23.2`; none if its file does not tell.
///
/// ONNX Runtime's API tells the minor version, and its build information only the branch that was built. But its
/// exported symbols carry the version (`OrtGetApiBase@@VERS_1.23.2`): the name is looked for in the file.
pub fn full_version(library: &Library) -> Option<String> {
    let path = if library.path.is_file() { library.path.clone() } else { mapped()? };
    version_in(File::open(path).ok()?, library.minor)
}

/// The file that the system's loader has mapped into this process.
fn mapped() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = |line: &str| line.find('/').map(|start| line[start..].to_owned());
    maps.lines().filter(|line| line.contains(LIBRARY_FILE)).find_map(path).map(PathBuf::from)
}

/// The first `VERS_1.MINOR.PATCH` in `file`. String tables are near the start of a library.
fn version_in(file: impl Read, minor: u32) -> Option<String> {
    /// Bytes that are searched.
    const MOST: u64 = 256 << 20;
    /// Bytes that are searched at a time.
    const CHUNK: u64 = 1 << 20;
    /// Bytes that a version may take.
    const LONGEST: usize = 32;
    let start = format!("VERS_1.{minor}.").into_bytes();
    let mut file = file.take(MOST);
    let mut window: Vec<u8> = Vec::new();
    loop {
        let read = file.by_ref().take(CHUNK).read_to_end(&mut window).ok()?;
        let found = window.windows(start.len()).position(|bytes| bytes == start).map(|at| &window[at + start.len()..]);
        // A name that the window's end cuts off is found again in the next.
        if let Some(rest) = found.filter(|rest| rest.len() >= LONGEST || read == 0) {
            let patch: Vec<u8> = rest.iter().copied().take(LONGEST).take_while(u8::is_ascii_digit).collect();
            let patch = String::from_utf8(patch).ok().filter(|patch| !patch.is_empty())?;
            return Some(format!("1.{minor}.{patch}"));
        }
        if read == 0 {
            return None;
        }
        window.drain(..window.len().saturating_sub(LONGEST + start.len()));
    }
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

/// Begins [`Usage::since_mark`] anew; nothing happens where there is no arena.
pub fn mark_arena() {
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arena) = loaded.as_ref().and_then(|loaded| loaded.arena) {
        arena.mark();
    }
}

/// Gives the arena's free memory back to the kernel; nothing happens where there is no arena.
pub fn trim_arena() {
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arena) = loaded.as_ref().and_then(|loaded| loaded.arena) {
        arena.trim();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_wherever_it_lies() {
        let library = |before: usize, name: &str, after: usize| {
            [vec![7; before], name.as_bytes().to_vec(), vec![0; after]].concat()
        };
        let version = |bytes: &[u8], minor| version_in(bytes, minor);
        let edge = 1 << 20;
        for before in [0, 1, edge - 12, edge - 5, edge - 1, edge, edge + 40] {
            for after in [0, 1, 100, edge] {
                let found = version(&library(before, "VERS_1.23.2", after), 23);
                assert_eq!(found.as_deref(), Some("1.23.2"), "{before} {after}");
            }
        }
        assert_eq!(version(&library(9, "VERS_1.23.2", 9), 2), None);
        assert_eq!(version(&library(9, "VERS_1.23.", 9), 23), None);
        assert_eq!(version(b"", 23), None);
    }
}
