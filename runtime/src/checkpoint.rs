//! Checkpoints: everything that an adaptation needs to go on to the same result.
//!
//! A directory with `checkpoint.postcard` (where the run stands; names the other file and its
//! SHA-256) and `parameters-<step>-<digest>.safetensors` (gamma, beta and the optimiser's state of every
//! BatchNorm). The parameters are written first, under a name that no other contents have, and the small
//! file renamed over the old one last, so that a kill at any moment leaves a checkpoint that is whole: the
//! old or the new.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    adapt::{AdaptOptions, Progress, optimizer::Optimizer},
    atomic,
    parameters::{BnParameters, Layout},
};

/// Name of the file that says where a run stands.
pub const STATE_FILE: &str = "checkpoint.postcard";
const MAGIC: [u8; 8] = *b"NASBNCKP";
const FORMAT_VERSION: u32 = 2;
/// Starts, and ends, the name of a file of parameters.
const PARAMETERS: (&str, &str) = ("parameters-", ".safetensors");
const MAX_STATE_BYTES: u64 = 1 << 20;
const MAX_PARAMETER_BYTES: u64 = 4 << 30;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is none.
    #[error("{} holds no checkpoint ({STATE_FILE} is missing)", .0.display())]
    Missing(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Written by another version of the program.
    #[error("{} has format {found}, this program reads format {FORMAT_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Format found.
        found: u32,
    },
    /// It belongs to another bundle.
    #[error("the checkpoint in {} was made with another bundle", .0.display())]
    OtherBundle(PathBuf),
    /// It holds numbers that no training gives.
    #[error("{}: {tensor} holds a value that is not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

impl CheckpointError {
    /// What a user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing(_) => "make one with `nasbn adapt --out DIR`, then name that directory with --checkpoint",
            Self::Io { .. } => {
                "check that the directory exists, is writable and has room; an older checkpoint is untouched"
            }
            Self::Damaged { .. } | Self::NotFinite { .. } => "run `nasbn adapt` again into a new directory",
            Self::Version { .. } => "use the program version that wrote it, or adapt again",
            Self::OtherBundle(_) => "name the bundle that it was adapted from with --bundle, or adapt this bundle",
        }
    }
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct State {
    bundle: [u8; 32],
    parameters_file: String,
    parameters_sha256: [u8; 32],
    options: AdaptOptions,
    progress: Progress,
    environment: String,
}

/// A checkpoint in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Options of the run.
    pub options: AdaptOptions,
    /// Where it stands.
    pub progress: Progress,
    /// What computed it, in words: library and threads. Others may round otherwise.
    pub environment: String,
    /// Gamma and beta.
    pub parameters: BnParameters,
    /// Momenta.
    pub optimizer: Optimizer,
}

impl Checkpoint {
    /// Writes the checkpoint to `directory`, which is made if need be; an older one there is
    /// replaced only once the new one is whole.
    ///
    /// # Errors
    /// If a file cannot be written; the older checkpoint is then intact.
    pub fn write(&self, directory: &Path, bundle: [u8; 32], layout: &Layout) -> Result<(), CheckpointError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| CheckpointError::Io { path, source }
        };
        fs::create_dir_all(directory).map_err(io(directory))?;
        let bytes = self.tensors(layout, directory)?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let name = parameters_name(self.progress.step, &digest);
        let parameters = directory.join(&name);
        // Equal parameters may be those of the older checkpoint.
        let new = !parameters.exists();
        atomic::write(&parameters, &bytes).map_err(io(&parameters))?;
        let state = State {
            bundle,
            parameters_file: name.clone(),
            parameters_sha256: digest,
            options: self.options.clone(),
            progress: self.progress.clone(),
            environment: self.environment.clone(),
        };
        let path = directory.join(STATE_FILE);
        let body = postcard::to_allocvec(&state)
            .map_err(|e| CheckpointError::Damaged { path: path.clone(), problem: e.to_string() })?;
        let mut contents = [MAGIC.as_slice(), &FORMAT_VERSION.to_le_bytes()].concat();
        contents.extend(body);
        if let Err(error) = atomic::write(&path, &contents) {
            // On a disk that is full they would keep it so.
            if new {
                let _ = fs::remove_file(&parameters);
            }
            return Err(io(&path)(error));
        }
        remove_older(directory, &name);
        Ok(())
    }

    fn tensors(&self, layout: &Layout, path: &Path) -> Result<Vec<u8>, CheckpointError> {
        let mut data: Vec<(String, Vec<u8>)> = Vec::new();
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let second = !self.optimizer.second.gamma.is_empty();
        for (i, slot) in layout.slots().iter().enumerate() {
            let (name, range) = (layout.name(i), slot.range.clone());
            let mut push =
                |suffix: &str, values: &[f32]| data.push((format!("{name}.{suffix}"), bytes(&values[range.clone()])));
            push("gamma", &self.parameters.gamma);
            push("beta", &self.parameters.beta);
            push("gamma.first", &self.optimizer.first.gamma);
            push("beta.first", &self.optimizer.first.beta);
            if second {
                push("gamma.second", &self.optimizer.second.gamma);
                push("beta.second", &self.optimizer.second.beta);
            }
        }
        let damaged = |e: safetensors::SafeTensorError| CheckpointError::Damaged {
            path: path.to_owned(),
            problem: e.to_string(),
        };
        let views = data
            .iter()
            .map(|(name, bytes)| TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map(|v| (name.as_str(), v)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(damaged)?;
        let steps = self.optimizer.steps.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>();
        let count = TensorView::new(Dtype::U32, vec![steps.len() / 4], &steps).map_err(damaged)?;
        let counts = second.then_some(("optimizer.steps", count));
        safetensors::serialize(views.into_iter().chain(counts), None).map_err(damaged)
    }

    /// Reads the checkpoint in `directory` for the bundle whose manifest has the SHA-256 `bundle`.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn read(directory: &Path, bundle: [u8; 32], layout: &Layout) -> Result<Self, CheckpointError> {
        /// Times that a run may replace its checkpoint while it is read.
        const TRIES: u32 = 20;
        for _ in 1..TRIES {
            match Self::read_once(directory, bundle, layout) {
                Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        Self::read_once(directory, bundle, layout)
    }

    fn read_once(directory: &Path, bundle: [u8; 32], layout: &Layout) -> Result<Self, CheckpointError> {
        let path = directory.join(STATE_FILE);
        let bytes = match read_bounded(&path, MAX_STATE_BYTES) {
            Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::Missing(directory.to_owned()));
            }
            other => other?,
        };
        let damaged = |path: &Path, problem: &str| CheckpointError::Damaged {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let rest = bytes.strip_prefix(&MAGIC).ok_or_else(|| damaged(&path, "it is not a checkpoint of nasbn"))?;
        let (version, body) = rest.split_first_chunk::<4>().ok_or_else(|| damaged(&path, "it is cut off"))?;
        let found = u32::from_le_bytes(*version);
        if found != FORMAT_VERSION {
            return Err(CheckpointError::Version { path, found });
        }
        let state: State = match postcard::take_from_bytes(body) {
            Ok((state, [])) => state,
            _ => return Err(damaged(&path, "it is cut off or altered")),
        };
        if state.bundle != bundle {
            return Err(CheckpointError::OtherBundle(directory.to_owned()));
        }
        if !is_parameters_name(&state.parameters_file) {
            return Err(damaged(&path, "it names a file that is not its own"));
        }
        let path = directory.join(&state.parameters_file);
        let bytes = read_bounded(&path, MAX_PARAMETER_BYTES)?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != state.parameters_sha256 {
            return Err(damaged(&path, "its SHA-256 is not the one that the checkpoint names"));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&path, &e.to_string()))?;
        let (parameters, optimizer) = read_tensors(&tensors, &state.options, layout, &path)?;
        let State { options, progress, environment, .. } = state;
        Ok(Self { options, progress, environment, parameters, optimizer })
    }
}

fn read_tensors(
    tensors: &SafeTensors<'_>,
    options: &AdaptOptions,
    layout: &Layout,
    path: &Path,
) -> Result<(BnParameters, Optimizer), CheckpointError> {
    let damaged = |problem: String| CheckpointError::Damaged { path: path.to_owned(), problem };
    let mut parameters = BnParameters::zeros(layout);
    let mut optimizer = Optimizer::new(options.rule, layout);
    let found: HashMap<String, TensorView<'_>> = tensors.tensors().into_iter().collect();
    for (i, slot) in layout.slots().iter().enumerate() {
        let read = |suffix: &str, to: &mut Vec<f32>| {
            let name = format!("{}.{suffix}", layout.name(i));
            let to = &mut to[slot.range.clone()];
            let tensor = found.get(&name).ok_or_else(|| damaged(format!("{name} is missing")))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != [to.len()] {
                return Err(damaged(format!("{name} is not {} numbers (f32)", to.len())));
            }
            for (value, bytes) in to.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
                if !value.is_finite() {
                    return Err(CheckpointError::NotFinite { path: path.to_owned(), tensor: name });
                }
            }
            Ok(())
        };
        read("gamma", &mut parameters.gamma)?;
        read("beta", &mut parameters.beta)?;
        read("gamma.first", &mut optimizer.first.gamma)?;
        read("beta.first", &mut optimizer.first.beta)?;
        if !optimizer.steps.is_empty() {
            read("gamma.second", &mut optimizer.second.gamma)?;
            read("beta.second", &mut optimizer.second.beta)?;
        }
    }
    if !optimizer.steps.is_empty() {
        let counts = found.get("optimizer.steps").ok_or_else(|| damaged("optimizer.steps is missing".into()))?;
        if counts.dtype() != Dtype::U32 || counts.shape() != [optimizer.steps.len()] {
            return Err(damaged("optimizer.steps has another length".into()));
        }
        for (count, bytes) in optimizer.steps.iter_mut().zip(counts.data().as_chunks::<4>().0) {
            *count = u32::from_le_bytes(*bytes);
        }
    }
    Ok((parameters, optimizer))
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(io)?.len();
    if size > limit {
        let problem = format!("it has {size} bytes, more than the {limit} that any checkpoint needs");
        return Err(CheckpointError::Damaged { path: path.to_owned(), problem });
    }
    fs::read(path).map_err(io)
}

/// Name of a file of parameters; other contents have another one.
fn parameters_name(step: u64, digest: &[u8; 32]) -> String {
    let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}{step}-{digest}{}", PARAMETERS.0, PARAMETERS.1)
}

/// Whether [`parameters_name`] gives such names.
fn is_parameters_name(name: &str) -> bool {
    let middle = name.strip_prefix(PARAMETERS.0).and_then(|rest| rest.strip_suffix(PARAMETERS.1));
    let parts = middle.and_then(|middle| middle.split_once('-'));
    parts.is_some_and(|(step, digest)| {
        !step.is_empty()
            && step.bytes().all(|b| b.is_ascii_digit())
            && digest.len() == 16
            && digest.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// Removes parameter files that no checkpoint names any more. One that cannot be removed only takes room.
fn remove_older(directory: &Path, current: &str) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_parameters_name(&name) && name != current {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parameters_are_told_from_a_users_own() {
        assert!(is_parameters_name(&parameters_name(22, &[0xab; 32])));
        assert_ne!(parameters_name(22, &[0xab; 32]), parameters_name(22, &[0xac; 32]));
        for name in ["parameters-best.safetensors", "parameters-22.safetensors", "parameters-22-0123.safetensors"] {
            assert!(!is_parameters_name(name), "{name}");
        }
        assert!(!is_parameters_name("parameters-2-../..aaaaaaaaaaa.safetensors"));
    }
}
