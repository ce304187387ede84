//! Opens sessions, all with the same options.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use ort::{
    operator::OperatorDomain,
    session::{Session, builder::GraphOptimizationLevel},
};

use crate::{
    arena::Lasting,
    kernels,
    provider::{Backend, Precision},
};

/// An ONNX model.
#[derive(Clone, Copy, Debug)]
pub enum Model<'a> {
    /// A file; its external data lies beside it.
    File(&'a Path),
    /// The bytes of a whole one.
    Bytes(&'a [u8]),
}

/// Opens sessions in one environment: all optimisations, the shared arena for the CPU's memory instead of one of their own (see
/// [`crate::arena`]), no memory pattern (batch sizes vary), and the fused operators registered, which the CPU alone runs.
pub struct Opener {
    backend: Backend,
    operators: Arc<OperatorDomain>,
}

impl Opener {
    /// An opener for a backend; an environment by itself is the CPU.
    ///
    /// # Errors
    /// If the fused operators cannot be registered.
    pub fn new(backend: impl Into<Backend>) -> ort::Result<Self> {
        // ONNX Runtime's wrapper shares domains by `Arc`, though they stay on this thread.
        #[allow(clippy::arc_with_non_send_sync)]
        let operators = Arc::new(kernels::operators::domain()?);
        Ok(Self { backend: backend.into(), operators })
    }

    /// Where sessions run.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// A session of an ONNX file; its external data lies beside it.
    ///
    /// # Errors
    /// What ONNX Runtime says against it.
    pub fn file(&self, file: &Path) -> ort::Result<Session> {
        self.open(Model::File(file), None, self.backend.precision)
    }

    /// A session of a whole ONNX model in memory.
    ///
    /// # Errors
    /// What ONNX Runtime says against it.
    pub fn model(&self, bytes: &[u8]) -> ort::Result<Session> {
        self.open(Model::Bytes(bytes), None, self.backend.precision)
    }

    /// A session that keeps a profile of its runs in a file whose name begins with `profile`, until it is asked to end it.
    ///
    /// # Errors
    /// What ONNX Runtime says against it.
    pub fn profiled(&self, model: Model<'_>, profile: &Path) -> ort::Result<Session> {
        self.open(model, Some(profile), self.backend.precision)
    }

    /// A session that computes with `precision`, whatever the backend's is, and keeps a profile if `profile` is given.
    pub(super) fn open(&self, model: Model<'_>, profile: Option<&Path>, precision: Precision) -> ort::Result<Session> {
        // ONNX Runtime must not meet a new domain of operators on two threads at once.
        static OPENING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let _what_is_allocated_lasts = Lasting::begin();
        let start = Instant::now();
        let engines = self.engines(model, precision);
        let directory = engines.as_ref().map(|(path, _)| path.as_path());
        let mut builder = Session::builder(&self.backend.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_memory_pattern(false)?
            .with_env_allocators()?
            .with_execution_providers(self.backend.providers(directory, precision))?
            .with_operators(Arc::clone(&self.operators))?;
        if let Some(profile) = profile {
            builder = builder.with_profiling(profile)?;
        }
        let session = match model {
            Model::File(file) => builder.commit_from_file(file)?,
            Model::Bytes(bytes) => builder.commit_from_memory(bytes)?,
        };
        if let Some((path, hit)) = engines {
            let (word, seconds) = (if hit { "hit" } else { "miss" }, start.elapsed().as_secs_f64());
            log::info!("TensorRT engine cache {}: {word}, a session after {seconds:.1} s", path.display());
        }
        Ok(session)
    }

    /// Where the TensorRT engines of the model with `precision` are kept, and whether there are some; none without a cache.
    fn engines(&self, model: Model<'_>, precision: Precision) -> Option<(PathBuf, bool)> {
        let cache = self.backend.cache.as_ref()?;
        let found = match model {
            Model::Bytes(bytes) => cache.of_model(bytes, precision),
            Model::File(file) => fs::read(file).and_then(|bytes| cache.of_model(&bytes, precision)),
        };
        // Without, it only takes longer; what is wrong with a model's file, ONNX Runtime says.
        found.map_err(|error| log::warn!("TensorRT's engines are not kept: {error}")).ok()
    }
}
