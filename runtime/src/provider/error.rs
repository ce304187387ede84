//! Why a provider does not run, and what is missing.

use super::{Placement, PlacementError, Provider};

/// Longest reason that is told, characters.
const LONGEST_REASON: usize = 240;

/// Why a provider does not run what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The library was built without it.
    #[error("{provider} is not built into this ONNX Runtime library")]
    NotBuiltIn {
        /// The provider.
        provider: Provider,
    },
    /// The library was built with it, but the file that it is in is not there.
    #[error("{provider} is not there: {reason}")]
    Missing {
        /// The provider.
        provider: Provider,
        /// What ONNX Runtime says, shortened.
        reason: String,
    },
    /// It does not start, or does not run a graph of two nodes.
    #[error("{provider} does not work: {reason}")]
    Refused {
        /// The provider.
        provider: Provider,
        /// What ONNX Runtime says, shortened.
        reason: String,
    },
    /// It started, but every node that computes ran elsewhere.
    #[error("{provider} ran no node of {what} that computes: {placement}")]
    Unused {
        /// The provider.
        provider: Provider,
        /// Of what it ran nothing: a network, a block, a model.
        what: String,
        /// Where nodes ran.
        placement: Placement,
    },
    /// Where nodes ran cannot be told.
    #[error("{provider} cannot be tried: {source}")]
    Untold {
        /// The provider.
        provider: Provider,
        /// Why.
        source: PlacementError,
    },
}

/// What a message of ONNX Runtime tells (any of these, in lower case), and what to do then.
const SIGNS: [(&[&str], &str); 6] = [
    (
        &["libnvinfer", "libnvonnxparser"],
        "TensorRT's libraries are missing: put the directory of libnvinfer and libnvonnxparser of the version that the message \
         names into LD_LIBRARY_PATH",
    ),
    (
        &["libcublas", "libcudnn", "libcudart", "libcufft", "libcurand", "libnvrtc"],
        "CUDA's libraries are missing: install CUDA and cuDNN of the version that the message names, and put their directories \
         into LD_LIBRARY_PATH",
    ),
    (
        &["no cuda-capable device", "failure 100", "libcuda.so", "device(s)"],
        "no GPU is there for this process: check `nvidia-smi` (on a Jetson: /dev/nvhost-gpu and the group `video`)",
    ),
    (
        &["driver version is insufficient", "failure 35"],
        "the driver is older than this library's CUDA: take a library built for the CUDA that `nvidia-smi` names",
    ),
    (
        &["no kernel image", "failure 209", "unsupported toolchain"],
        "the library has no code for this GPU: take one that has (the package's README.md says which one a Jetson's JetPack \
         wants, if there is one), or --provider cpu",
    ),
    (
        &["libonnxruntime_providers"],
        "the provider's library is missing: put libonnxruntime_providers_shared.so and the provider's \
         (libonnxruntime_providers_cuda.so, _tensorrt.so) beside libonnxruntime.so, all of one build",
    ),
];

/// What files of providers begin with.
const PROVIDER_FILES: &str = "libonnxruntime_providers_";
/// What the loader says of a file that is not there, after its name.
const NO_FILE: &str = ": cannot open shared object file";

impl ProviderError {
    /// What ONNX Runtime says against a provider.
    pub(super) fn said(provider: Provider, message: &str) -> Self {
        let reason = shortened(message);
        let file = message.split_once(NO_FILE).map(|(before, _)| before.rsplit([' ', '/']).next().unwrap_or_default());
        match file.is_some_and(|file| file.starts_with(PROVIDER_FILES)) {
            true => Self::Missing { provider, reason },
            false => Self::Refused { provider, reason },
        }
    }

    /// Whether it was never installed, so that nobody who does not ask for it need be told.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NotBuiltIn { .. } | Self::Missing { .. })
    }

    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotBuiltIn { .. } => {
                "name a library built with it with --ort-library (onnxruntime-gpu; for a Jetson the package's README.md says by \
                 JetPack which one has code for its GPU), or take --provider cpu"
            }
            Self::Missing { reason, .. } | Self::Refused { reason, .. } => {
                let reason = reason.to_lowercase();
                let told = SIGNS.iter().find(|(signs, _)| signs.iter().any(|sign| reason.contains(sign)));
                told.map_or("name another library with --ort-library, or take --provider cpu", |(_, hint)| hint)
            }
            Self::Unused { .. } => "the provider knows none of the operators; take another --provider, such as cpu",
            Self::Untold { source, .. } => source.hint(),
        }
    }
}

/// A message of ONNX Runtime without the place in its source, on one line, not too long.
pub(super) fn shortened(message: &str) -> String {
    // `/src/provider_bridge_ort.cc:1426 Provider& Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load ...`
    let told = message.rsplit_once("[ONNXRuntimeError] : ").map_or(message, |(_, told)| told);
    let told = match told.split_once(" : ") {
        Some((code, rest)) if code.parse::<u32>().is_ok() => rest.split_once(" : ").map_or(rest, |(_, told)| told),
        _ => told,
    };
    let line = told.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason was given");
    match line.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}
