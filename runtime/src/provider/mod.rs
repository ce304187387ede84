//! Which provider runs the graphs: chosen by a policy, proved to work, and never silently another.
//!
//! ONNX Runtime goes on with the CPU when a provider does not start, and runs single nodes there that a provider does not
//! know. Here a provider that was asked for by name runs a probe, or it is an error ([`resolve`]); where nodes of a
//! model ran is read from ONNX Runtime's profile ([`Placement`]).

mod cache;
mod error;
mod placement;
mod probe;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path};

use clap::ValueEnum;
use ort::{
    environment::Environment,
    ep::{self, ExecutionProvider, ExecutionProviderDispatch},
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
};
use serde::Serialize;

pub use cache::EngineCache;
pub use error::ProviderError;
pub use placement::{Placement, PlacementError, SCRATCH, measure, read_profile};
pub use probe::{model as probe_model, probe};

/// Number of the GPU that is used: the first that the process sees, which is what providers take, too.
const DEVICE: i32 = 0;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// The fastest that works and is ready at once: cuda, else cpu
    #[default]
    Auto,
    /// The CPU
    Cpu,
    /// NVIDIA GPUs, or an error
    Cuda,
    /// NVIDIA GPUs through TensorRT, which builds an engine for every graph, or an error
    #[value(name = "tensorrt")]
    TensorRt,
}

/// What runs the graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The CPU.
    Cpu,
    /// CUDA.
    Cuda,
    /// TensorRT.
    TensorRt,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::TensorRt];

    /// Whether the loaded library was built with it; whether it works is another thing ([`probe()`]).
    pub fn is_built_in(self) -> bool {
        let there = match self {
            Self::Cpu => ep::CPU::is_available(),
            Self::Cuda => ep::CUDA::is_available(),
            Self::TensorRt => ep::TensorRT::is_available(),
        };
        matches!(there, Ok(true))
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        })
    }
}

/// Numbers that are computed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats
    #[default]
    Fp32,
    /// 16-bit floats where TensorRT finds them faster
    Fp16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
        })
    }
}

/// Where sessions run.
#[derive(Clone)]
pub struct Backend {
    /// The process's environment.
    pub environment: Environment,
    /// What runs the graphs.
    pub provider: Provider,
    /// Numbers that inference is computed with. What trains and differentiates is computed with fp32.
    pub precision: Precision,
    /// Where TensorRT's engines are kept.
    pub cache: Option<EngineCache>,
    /// Whether graphs are run as for a provider with memory of its own, even if it has none: the same code then runs on the
    /// CPU, with the same results.
    pub bound: bool,
}

impl From<Environment> for Backend {
    /// The CPU.
    fn from(environment: Environment) -> Self {
        Self { environment, provider: Provider::Cpu, precision: Precision::Fp32, cache: None, bound: false }
    }
}

impl Backend {
    /// The CPU in the same environment.
    pub fn on_cpu(&self) -> Self {
        self.environment.clone().into()
    }

    /// Whether what graphs hand to each other is bound to the provider's memory.
    pub fn is_bound(&self) -> bool {
        self.bound || self.provider != Provider::Cpu
    }

    /// The memory that the provider computes in. TensorRT's is CUDA's.
    ///
    /// # Errors
    /// If ONNX Runtime cannot describe it.
    pub fn memory(&self) -> ort::Result<MemoryInfo<'static>> {
        let device = match self.provider {
            Provider::Cpu => AllocationDevice::CPU,
            Provider::Cuda | Provider::TensorRt => AllocationDevice::CUDA,
        };
        MemoryInfo::new(device, DEVICE, AllocatorType::Device, MemoryType::Default)
    }

    /// What runs graphs that only copy from that memory: TensorRT would build engines for them.
    pub(crate) fn of_copies(&self) -> Self {
        let provider = if self.provider == Provider::TensorRt { Provider::Cuda } else { self.provider };
        Self { provider, precision: Precision::Fp32, cache: None, ..self.clone() }
    }

    /// Providers in the order in which nodes are given to them: what one does not know goes to the next. All but the CPU
    /// must start. `engines` is where TensorRT keeps those of the model, and `precision` what it computes with.
    pub(crate) fn providers(&self, engines: Option<&Path>, precision: Precision) -> Vec<ExecutionProviderDispatch> {
        let cpu = ep::CPU::default().with_arena_allocator(false).build();
        // Hundreds of small sessions, each with an arena of its own: doubled, they would not fit.
        let cuda = ep::CUDA::default().with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested);
        let cuda = || cuda.clone().build().error_on_failure();
        match self.provider {
            Provider::Cpu => vec![cpu],
            Provider::Cuda => vec![cuda(), cpu],
            Provider::TensorRt => vec![self.tensorrt(engines, precision).build().error_on_failure(), cuda(), cpu],
        }
    }

    fn tensorrt(&self, engines: Option<&Path>, precision: Precision) -> ep::TensorRT {
        tensorrt(precision, self.cache.as_ref().zip(engines).map(|(cache, engines)| (cache.timing(), engines)))
    }
}

/// TensorRT with its precision and, where there is a cache, the directories of the timing cache and of a model's engines.
fn tensorrt(precision: Precision, cache: Option<(&Path, &Path)>) -> ep::TensorRT {
    let provider = ep::TensorRT::default().with_fp16(precision == Precision::Fp16);
    match cache {
        None => provider,
        Some((timing, engines)) => provider
            .with_engine_cache(true)
            .with_engine_cache_path(engines.display())
            .with_timing_cache(true)
            .with_timing_cache_path(timing.display()),
    }
}

/// What a choice came to.
#[derive(Debug)]
pub struct Resolved {
    /// What runs the graphs.
    pub provider: Provider,
    /// Why it is not what was asked for or, of [`Choice::Auto`], would be better.
    pub problem: Option<ProviderError>,
}

/// The provider for a choice. `works` says whether one runs a graph here ([`probe()`] does).
///
/// `Auto` never takes TensorRT, whose engines may take minutes, and passes over CUDA where that is not installed without a word.
///
/// # Errors
/// If a provider asked for by name does not work, unless `allow_cpu_fallback`.
pub fn resolve(
    choice: Choice,
    allow_cpu_fallback: bool,
    mut works: impl FnMut(Provider) -> Result<(), ProviderError>,
) -> Result<Resolved, ProviderError> {
    let on = |provider| Resolved { provider, problem: None };
    let fallback = |problem| Resolved { provider: Provider::Cpu, problem: Some(problem) };
    let named = match choice {
        Choice::Cpu => return Ok(on(Provider::Cpu)),
        Choice::Auto => {
            return Ok(match works(Provider::Cuda) {
                Ok(()) => on(Provider::Cuda),
                Err(problem) if problem.is_absent() => on(Provider::Cpu),
                Err(problem) => fallback(problem),
            });
        }
        Choice::Cuda => Provider::Cuda,
        Choice::TensorRt => Provider::TensorRt,
    };
    match works(named) {
        Ok(()) => Ok(on(named)),
        Err(problem) if allow_cpu_fallback => Ok(fallback(problem)),
        Err(problem) => Err(problem),
    }
}
