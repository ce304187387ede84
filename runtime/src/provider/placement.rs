//! Which provider ran which node, as ONNX Runtime's profile of a run tells.
//!
//! A profile is a JSON array of events as Chrome's tracing takes them. Nodes are those of the category `Node` whose `args`
//! name a `provider` and an `op_name` (ONNX Runtime, `sequential_executor.cc`); other events (of the session, of kernels on
//! a GPU) have none. They are the nodes that are left after ONNX Runtime's optimisations; what TensorRT runs in one
//! engine is one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::Path,
};

use serde::{Deserialize, Serialize, ser::SerializeStruct};
use serde_json::Value;

use super::{Provider, ProviderError};
use crate::{
    engine::{Model, Opener},
    latency::{GivenShape, Subject, SubjectError},
};

/// Largest profile that is read, bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Start of the operators that copy between devices: they compute nothing, wherever they run.
const COPIES: &str = "Memcpy";
/// What the names of providers end in.
const SUFFIX: &str = "ExecutionProvider";

/// Why it cannot be told where nodes ran.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The model does not load or run.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The profile cannot be written or read.
    #[error("the profile of a run cannot be written or read: {0}")]
    Io(#[from] io::Error),
    /// It is no profile.
    #[error("the profile of a run is not as expected: {0}")]
    Format(String),
    /// It names no node.
    #[error("the profile of a run names no node")]
    Empty,
}

impl PlacementError {
    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Subject(error) => error.hint(),
            Self::Io(_) => "check that the directory of temporary files (TMPDIR) can be written and has room",
            Self::Format(_) | Self::Empty => {
                "try another version of ONNX Runtime (--ort-library); `nasbn doctor` names the one in use"
            }
        }
    }
}

/// Where the nodes of a model ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Provider (as [`Provider`] is written, lower case for others) and operator, with the number of nodes.
    nodes: BTreeMap<(String, String), usize>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: Value,
}

impl Placement {
    /// Reads a profile. A node that ran several times counts once.
    ///
    /// # Errors
    /// If it is no profile, or names no node.
    pub fn parse(profile: &str) -> Result<Self, PlacementError> {
        let events: Vec<Event> =
            serde_json::from_str(profile).map_err(|error| PlacementError::Format(error.to_string()))?;
        let (mut nodes, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for event in events.iter().filter(|event| event.cat == "Node") {
            let text = |name: &str| event.args.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            let (Some(provider), Some(operator)) = (text("provider"), text("op_name")) else { continue };
            if seen.insert((event.name.as_str(), text("node_index"), provider)) {
                let provider = provider.strip_suffix(SUFFIX).unwrap_or(provider).to_lowercase();
                *nodes.entry((provider, operator.to_owned())).or_insert(0) += 1;
            }
        }
        if nodes.is_empty() { Err(PlacementError::Empty) } else { Ok(Self { nodes }) }
    }

    /// Number of nodes by provider.
    pub fn nodes(&self) -> BTreeMap<&str, usize> {
        let mut by_provider = BTreeMap::new();
        for ((provider, _), count) in &self.nodes {
            *by_provider.entry(provider.as_str()).or_insert(0) += count;
        }
        by_provider
    }

    /// Nodes that compute (and do not only copy) on the CPU: number by operator.
    pub fn on_cpu(&self) -> BTreeMap<&str, usize> {
        self.computing().filter(|(provider, ..)| *provider == "cpu").map(|(_, op, count)| (op, count)).collect()
    }

    fn computing(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        let all = self.nodes.iter().map(|((provider, op), &count)| (provider.as_str(), op.as_str(), count));
        all.filter(|(_, op, _)| !op.starts_with(COPIES))
    }

    /// Whether `provider` is what runs the model: of CUDA and TensorRT, that not every computing node ran on the CPU.
    ///
    /// # Errors
    /// [`ProviderError::AllOnCpu`].
    pub fn check(&self, provider: Provider) -> Result<(), ProviderError> {
        let accelerated = [Provider::Cuda, Provider::TensorRt].map(|p| p.to_string());
        let runs = |(name, ..): (&str, &str, usize)| accelerated.iter().any(|a| a == name);
        if provider == Provider::Cpu || self.computing().any(runs) {
            return Ok(());
        }
        Err(ProviderError::AllOnCpu { provider, placement: self.clone() })
    }

    /// Operators with their numbers, `Conv 2, Relu 1`.
    pub fn listed(operators: &BTreeMap<&str, usize>) -> String {
        operators.iter().map(|(op, count)| format!("{op} {count}")).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Placement {
    /// `40 nodes on cuda, 1 node on cpu`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nodes: Vec<(&str, usize)> = self.nodes().into_iter().collect();
        nodes.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let said = |(provider, count)| format!("{count} {} on {provider}", if count == 1 { "node" } else { "nodes" });
        f.write_str(&nodes.into_iter().map(said).collect::<Vec<_>>().join(", "))
    }
}

impl Serialize for Placement {
    /// `{"nodes": {"cuda": 40, "cpu": 1}, "cpu_operators": {"Shape": 1}}`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Placement", 2)?;
        object.serialize_field("nodes", &self.nodes())?;
        object.serialize_field("cpu_operators", &self.on_cpu())?;
        object.end()
    }
}

/// Runs a model once on made-up inputs, profiled, and reads where its nodes ran. The profile is written to a temporary
/// directory that is gone afterwards.
///
/// # Errors
/// See [`PlacementError`].
pub fn measure(
    opener: &Opener,
    model: Model<'_>,
    batch: u32,
    given: &[GivenShape],
) -> Result<Placement, PlacementError> {
    // Dropped after the session, which may write until then.
    let directory = tempfile::tempdir()?;
    let session = opener.profiled(model, &directory.path().join("profile")).map_err(SubjectError::from)?;
    let mut subject = Subject::new(session, batch, given)?;
    subject.run()?;
    read(Path::new(&subject.end_profiling()?))
}

fn read(file: &Path) -> Result<Placement, PlacementError> {
    let bytes = fs::metadata(file)?.len();
    if bytes > MAX_BYTES {
        return Err(PlacementError::Format(format!("it has {bytes} bytes")));
    }
    Placement::parse(&fs::read_to_string(file)?)
}
