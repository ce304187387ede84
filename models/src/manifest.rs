//! The manifest of a bundle: what the exporter writes and the device reads.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Supernet, signature, supernet::SupernetError};

/// Name of the manifest's file in a bundle.
pub const MANIFEST_FILE: &str = "manifest.postcard";
/// First bytes of a manifest, so that a foreign file is told apart from a damaged one.
pub const MAGIC: [u8; 8] = *b"NASBNBDL";
/// Version of the format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 2;
/// Bytes of the SHA-256 that a manifest ends with.
const DIGEST_BYTES: usize = 32;
/// Largest manifest that is read, bytes.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// How backward graphs get what they need of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemoryMode {
    /// The inputs of BatchNorms and their statistics are kept.
    Fast,
    /// Only the operator's input is kept; the rest is computed again.
    Lean,
}

/// What a graph computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Forward pass with batch statistics, keeping what [`MemoryMode`] asks for.
    Forward(MemoryMode),
    /// Gradients with respect to input, gamma and beta.
    Backward(MemoryMode),
    /// Forward pass with gamma, beta and statistics given.
    Evaluate,
    /// Inference with BN folded into the convolutions (constants from the initial BN).
    Inference,
    /// Mean softmax cross-entropy, its gradient, and the loss of every sample.
    Loss,
    /// Sum of two tensors.
    Sum,
    /// Concatenation of a node's incoming edges.
    Concat,
    /// Gradient of a concatenation: one slice per incoming edge.
    Split,
    /// Gradients with respect to input, and of every sample with respect to gamma and beta, with the statistics given
    /// and held constant. Takes what [`Role::Forward`] keeps in [`MemoryMode::Fast`].
    Jacobian,
    /// Agreement of activation signs after the operator's BNs, with the statistics given. Takes what [`Role::Forward`]
    /// keeps in [`MemoryMode::Fast`]. Operators without a BN have none.
    Signs,
    /// The operator made linear (weights by magnitude, no BatchNorms, ReLUs or gates), its gradient, and
    /// the flow through its layers (Tanaka et al. 2020).
    SynFlow,
}

/// Which nodes a graph is made of, and so in which layout its activations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lowering {
    /// Standard ONNX operators, activations `[N, C, H, W]`. Runs on every provider.
    Portable,
    /// Fused operators of the domain `nasbn` (registered by the runtime on the CPU),
    /// activations `[N, H, W, C]`. The image stays `[N, C, H, W]`.
    Fused,
}

/// Meaning of a graph's input or output. Indices count the operator's BatchNorms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Port {
    /// The operator's input.
    X,
    /// The operator's output.
    Y,
    /// Gradient of the loss with respect to the output.
    Dy,
    /// Gradient of the loss with respect to the input. Absent for edges from the image.
    Dx,
    /// A tensor kept from forward to backward ([`MemoryMode::Fast`]): input of this BN.
    Saved(u16),
    /// Scale of a BN, `[C]`.
    Gamma(u16),
    /// Shift of a BN, `[C]`.
    Beta(u16),
    /// Mean of a BN's input over batch and pixels, `[C]`.
    Mean(u16),
    /// Biased variance of a BN's input over batch and pixels, `[C]`.
    Var(u16),
    /// Gradient with respect to gamma, `[C]`.
    DGamma(u16),
    /// Gradient with respect to beta, `[C]`.
    DBeta(u16),
    /// Logits `[N, classes]`.
    Logits,
    /// Class indices `[N]`, i64.
    Labels,
    /// Mean loss, a scalar.
    Loss,
    /// Loss of every sample `[N]`.
    SampleLoss,
    /// Gradient of the mean loss with respect to the logits `[N, classes]`.
    DLogits,
    /// The n-th tensor to join, or to split into.
    Part(u16),
    /// Gradient of every sample with respect to gamma, `[N, C]`.
    SampleDGamma(u16),
    /// Gradient of every sample with respect to beta, `[N, C]`.
    SampleDBeta(u16),
    /// Number of equal activation signs of every two samples, `[N, N]`.
    Agreement,
    /// Output of the n-th convolution or linear layer times its gradient, summed over pixels:
    /// `[N, C, 1, 1]` or `[N, F]`.
    Flow(u16),
}

/// A port and its name in the ONNX graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPort {
    /// Meaning.
    pub port: Port,
    /// Name of the graph's input or output.
    pub name: String,
}

/// What a graph belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// An operator on an edge.
    Operator {
        /// Index of the edge.
        edge: u16,
        /// Index of the operator.
        operator: u8,
    },
    /// A node that joins edges.
    Node(u16),
    /// The network as a whole (loss, sum).
    Network,
}

/// One ONNX graph of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// What it belongs to.
    pub owner: Owner,
    /// What it computes.
    pub role: Role,
    /// What it is made of.
    pub lowering: Lowering,
    /// Index into [`Manifest::files`].
    pub file: u32,
    /// Inputs in order.
    pub inputs: Vec<NamedPort>,
    /// Outputs in order.
    pub outputs: Vec<NamedPort>,
}

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path relative to the bundle, `/` as separator, no `.` or `..`.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the contents.
    pub sha256: [u8; 32],
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Program and version that wrote it.
    pub generator: String,
    /// The supernet.
    pub supernet: Supernet,
    /// Seed of the weights.
    pub seed: u64,
    /// Where the weights come from: `he-normal` or the name and digest of a file.
    pub weights: String,
    /// Epsilon of every BatchNorm, as bits of an f32 (1e-5).
    pub epsilon_bits: u32,
    /// Every other file of the bundle.
    pub files: Vec<FileEntry>,
    /// Index of the weights' file (safetensors; the graphs' external data).
    pub weights_file: u32,
    /// Index of the initial BN parameters' file (safetensors).
    pub initial_file: u32,
    /// Every graph.
    pub graphs: Vec<Graph>,
}

/// What is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not a manifest at all.
    #[error("not a nasbn bundle: the manifest does not start with {:?}", core::str::from_utf8(&MAGIC).unwrap_or(""))]
    Foreign,
    /// Written by a program of another format, older or newer.
    #[error("the bundle has format {found}, this program reads format {FORMAT_VERSION}")]
    Version {
        /// Format of the bundle.
        found: u32,
    },
    /// Cut off or altered.
    #[error("the manifest is damaged: {0}")]
    Damaged(String),
    /// A file name that leaves the directory or is not plain.
    #[error("file {0:?} of the manifest is not a plain path inside the bundle")]
    FileName(String),
    /// A graph that refers to what is not there.
    #[error("graph {graph}: {problem}")]
    Graph {
        /// Index of the graph.
        graph: usize,
        /// What is wrong.
        problem: String,
    },
    /// The supernet is not consistent.
    #[error("the bundle's supernet is not valid: {0}")]
    Supernet(#[from] SupernetError),
}

impl Manifest {
    /// Bytes of the manifest's file: magic, version (u32, little endian), postcard, and the SHA-256 of all that.
    ///
    /// # Errors
    /// Never for a manifest whose parts fit in memory; postcard's own error otherwise.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        let body = postcard::to_allocvec(self).map_err(|e| ManifestError::Damaged(alloc::format!("{e}")))?;
        let mut bytes = Vec::with_capacity(12 + body.len() + DIGEST_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&body);
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        Ok(bytes)
    }

    /// Reads and checks a manifest from untrusted bytes.
    ///
    /// # Errors
    /// See [`ManifestError`]; nothing that passes refers outside of itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let Some(rest) = bytes.strip_prefix(&MAGIC) else {
            return Err(ManifestError::Foreign);
        };
        let Some((version, rest)) = rest.split_first_chunk::<4>() else {
            return Err(ManifestError::Damaged("it ends within its version".into()));
        };
        let found = u32::from_le_bytes(*version);
        if found != FORMAT_VERSION {
            return Err(ManifestError::Version { found });
        }
        let Some((body, digest)) = rest.split_last_chunk::<DIGEST_BYTES>() else {
            return Err(ManifestError::Damaged("it ends before its SHA-256".into()));
        };
        // What was altered by accident is told before any of it is believed; who alters it on purpose can make this fit.
        if Sha256::digest(&bytes[..bytes.len() - DIGEST_BYTES])[..] != digest[..] {
            return Err(ManifestError::Damaged("its SHA-256 is not the one that it ends with".into()));
        }
        let (manifest, left): (Self, _) =
            postcard::take_from_bytes(body).map_err(|e| ManifestError::Damaged(alloc::format!("{e}")))?;
        if !left.is_empty() {
            return Err(ManifestError::Damaged(alloc::format!("{} bytes follow its end", left.len())));
        }
        manifest.validate()?;
        Ok(manifest)
    }

    fn validate(&self) -> Result<(), ManifestError> {
        self.supernet.validate()?;
        let epsilon = self.epsilon();
        if !(epsilon > 0.0 && epsilon < 1.0) {
            let problem = format!("an epsilon of {epsilon} is not possible; above 0 and below 1 is");
            return Err(ManifestError::Damaged(problem));
        }
        let mut names = BTreeSet::new();
        for file in &self.files {
            if !is_plain(&file.name) || file.name == MANIFEST_FILE || !names.insert(&file.name) {
                return Err(ManifestError::FileName(file.name.clone()));
            }
        }
        let known = |file: u32| (file as usize) < self.files.len();
        if !known(self.weights_file) || !known(self.initial_file) {
            return Err(ManifestError::Damaged("it names no weights".into()));
        }
        let mut index = BTreeMap::new();
        for (i, graph) in self.graphs.iter().enumerate() {
            let problem = |problem| ManifestError::Graph { graph: i, problem };
            if !known(graph.file) {
                return Err(problem("its file is not in the manifest".into()));
            }
            if let Some(first) = index.insert((graph.owner, graph.role, graph.lowering), i) {
                return Err(problem(format!("graph {first} has the same owner, role and lowering")));
            }
            signature::check(&self.supernet, graph).map_err(problem)?;
        }
        for (i, graph) in self.graphs.iter().enumerate() {
            let Role::Backward(memory) = graph.role else { continue };
            let forward = index.get(&(graph.owner, Role::Forward(memory), graph.lowering));
            let kept = forward.map(|&forward| &self.graphs[forward].outputs);
            let given = |input: &NamedPort| match input.port {
                Port::Saved(_) => kept.is_some_and(|kept| kept.iter().any(|output| output.port == input.port)),
                _ => kept.is_some(),
            };
            if let Some(missing) = graph.inputs.iter().find(|input| !given(input)) {
                let problem = format!("no forward graph of its kind comes with it or keeps {:?}", missing.port);
                return Err(ManifestError::Graph { graph: i, problem });
            }
        }
        Ok(())
    }

    /// Epsilon of every BatchNorm.
    pub fn epsilon(&self) -> f32 {
        f32::from_bits(self.epsilon_bits)
    }
}

/// Relative, `/`-separated, no empty, `.` or `..` part, no backslash, colon or control character.
fn is_plain(name: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && p != "."
            && p != ".."
            && p.len() <= 255
            && !p.chars().any(|c| c.is_control() || "\\:".contains(c))
    };
    name.len() <= 1024 && name.split('/').all(part)
}
