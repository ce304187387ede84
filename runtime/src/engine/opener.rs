//! Opens sessions, all with the same options.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use ort::{
    environment::Environment,
    ep,
    operator::OperatorDomain,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};

use crate::kernels;

/// Opens sessions in one environment: all optimisations, the shared arena instead of one of their own (see
/// [`crate::arena`]), no memory pattern (batch sizes vary), and the fused operators registered.
pub struct Opener {
    environment: Environment,
    operators: Arc<OperatorDomain>,
}

impl Opener {
    /// An opener for the process's environment.
    ///
    /// # Errors
    /// If the fused operators cannot be registered.
    pub fn new(environment: Environment) -> ort::Result<Self> {
        // ONNX Runtime's wrapper shares domains by `Arc`, though they stay on this thread.
        #[allow(clippy::arc_with_non_send_sync)]
        let operators = Arc::new(kernels::operators::domain()?);
        Ok(Self { environment, operators })
    }

    /// The environment that sessions are opened in.
    pub fn environment(&self) -> Environment {
        self.environment.clone()
    }

    /// A session of an ONNX file; its external data lies beside it.
    ///
    /// # Errors
    /// What ONNX Runtime says against it.
    pub fn file(&self, file: &Path) -> ort::Result<Session> {
        self.open(|mut builder| builder.commit_from_file(file))
    }

    /// A session of a whole ONNX model in memory.
    ///
    /// # Errors
    /// What ONNX Runtime says against it.
    pub fn model(&self, bytes: &[u8]) -> ort::Result<Session> {
        self.open(|mut builder| builder.commit_from_memory(bytes))
    }

    fn open(&self, commit: impl FnOnce(SessionBuilder) -> ort::Result<Session>) -> ort::Result<Session> {
        // ONNX Runtime must not meet a new domain of operators on two threads at once.
        static OPENING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let builder = Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_memory_pattern(false)?
            .with_env_allocators()?
            .with_execution_providers([ep::CPU::default().with_arena_allocator(false).build()])?
            .with_operators(Arc::clone(&self.operators))?;
        commit(builder)
    }
}
