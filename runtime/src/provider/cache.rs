//! Where TensorRT's engines and timings are kept: beside the bundle.
//!
//! ```text
//! BUNDLE/cache/tensorrt-1.23.2/                      the timing cache, which all engines share
//! BUNDLE/cache/tensorrt-1.23.2/<bundle>-fp16/<graph>/  engines of one graph, computed with fp16
//! BUNDLE/cache/tensorrt-1.23.2/<bundle>-fp32/<graph>/  with fp32, as what trains and differentiates always is
//! ```
//!
//! ONNX Runtime names engine files by the names in a graph, not by its weights or attributes: a kernel of 3 and one of 5
//! would share theirs. So every graph has a directory, named by its SHA-256, below one named by the bundle's SHA-256 (its weights)
//! and the precision of the session.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nasbn_export::bundle::CACHE_DIR;
use sha2::{Digest, Sha256};

use super::Precision;

/// Bytes of a SHA-256 that name a directory.
const NAME_BYTES: usize = 8;
/// What the names of engine files end in.
const ENGINE: &str = "engine";
/// Directories that are looked through for engines, one below the other.
const DEPTH: usize = 2;

/// Directories of a bundle's engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineCache {
    timing: PathBuf,
    bundle: String,
    /// What inference is computed with; all else is with fp32.
    precision: Precision,
}

impl EngineCache {
    /// The cache in `directory` (a bundle's) for a version of ONNX Runtime, the bundle's SHA-256 and the precision of inference.
    /// Its directories are made, and a file is written and removed to see that it can be.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn open(directory: &Path, onnxruntime: &str, bundle: &[u8], precision: Precision) -> io::Result<Self> {
        let timing = directory.join(CACHE_DIR).join(format!("tensorrt-{onnxruntime}"));
        let cache = Self { timing, bundle: name(bundle), precision };
        let engines = cache.of_precision(precision);
        fs::create_dir_all(&engines)?;
        drop(tempfile::tempfile_in(&engines)?);
        Ok(cache)
    }

    /// Directory of the timing cache.
    pub fn timing(&self) -> &Path {
        &self.timing
    }

    /// Directory of the engines that compute with a precision.
    fn of_precision(&self, precision: Precision) -> PathBuf {
        self.timing.join(format!("{}-{precision}", self.bundle))
    }

    /// Number of engines that are kept: those of inference, and those of what is computed with fp32.
    pub fn engines(&self) -> usize {
        let of_inference = engines(&self.of_precision(self.precision), DEPTH);
        match self.precision {
            Precision::Fp32 => of_inference,
            Precision::Fp16 => of_inference + engines(&self.of_precision(Precision::Fp32), DEPTH),
        }
    }

    /// The directory for the engines of a model of these bytes in sessions that compute with `precision`, made if it is not
    /// there, and whether it holds some.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn of_model(&self, model: &[u8], precision: Precision) -> io::Result<(PathBuf, bool)> {
        let directory = self.of_precision(precision).join(name(&Sha256::digest(model)));
        fs::create_dir_all(&directory)?;
        let hit = engines(&directory, 1) > 0;
        Ok((directory, hit))
    }
}

/// The start of a digest, hexadecimal.
fn name(digest: &[u8]) -> String {
    digest.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// Engine files in `directory`, `depth` directories deep. What cannot be read holds none.
fn engines(directory: &Path, depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => engines(&entry.path(), depth - 1),
        Ok(kind) if kind.is_file() => usize::from(entry.path().extension().is_some_and(|e| e == ENGINE)),
        _ => 0,
    };
    fs::read_dir(directory).into_iter().flatten().flatten().map(count).sum()
}
