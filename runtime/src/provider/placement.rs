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

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Provider, ProviderError};
use crate::{
    bounded,
    engine::{Model, Opener},
    latency::{GivenShape, Subject, SubjectError},
};

/// Largest profile that is read, bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Start of the operators that copy between devices: they compute nothing, wherever they run.
const COPIES: &str = "Memcpy";
/// What the names of providers end in.
const SUFFIX: &str = "ExecutionProvider";
/// Most pairs of provider and operator that are read from a file: far more than there are operators.
const MOST_PAIRS: usize = 4096;

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

/// What to do where no temporary file can be written.
pub const SCRATCH: &str = "check that the directory of temporary files (TMPDIR) can be written and has room";

impl PlacementError {
    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Subject(error) => error.hint(),
            Self::Io(_) => SCRATCH,
            Self::Format(_) | Self::Empty => {
                "try another version of ONNX Runtime (--ort-library); `nasbn doctor` names the one in use"
            }
        }
    }
}

/// Where the nodes of models ran, sorted by provider and operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Placement {
    #[serde(deserialize_with = "bounded::list::<MOST_PAIRS, _, _>")]
    placed: Vec<Placed>,
}

/// Nodes of one operator that one provider ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Placed {
    /// As [`Provider`] is written, lower case for others.
    provider: String,
    operator: String,
    nodes: u32,
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
                *nodes.entry((provider, operator.to_owned())).or_insert(0u32) += 1;
            }
        }
        if nodes.is_empty() { Err(PlacementError::Empty) } else { Ok(Self::of(nodes)) }
    }

    fn of(nodes: BTreeMap<(String, String), u32>) -> Self {
        let placed = |((provider, operator), nodes)| Placed { provider, operator, nodes };
        Self { placed: nodes.into_iter().map(placed).collect() }
    }

    /// Where the nodes of both ran.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let mut sum = BTreeMap::new();
        for Placed { provider, operator, nodes } in self.placed.into_iter().chain(other.placed) {
            let count: &mut u32 = sum.entry((provider, operator)).or_default();
            *count = count.saturating_add(nodes);
        }
        Self::of(sum)
    }

    /// Number of nodes by provider.
    pub fn nodes(&self) -> BTreeMap<&str, u32> {
        let mut by_provider: BTreeMap<&str, u32> = BTreeMap::new();
        for placed in &self.placed {
            let count = by_provider.entry(&placed.provider).or_default();
            *count = count.saturating_add(placed.nodes);
        }
        by_provider
    }

    /// Nodes that compute (and do not only copy) and that another than `provider` ran: their number by who did, and operator.
    pub fn left_by(&self, provider: Provider) -> BTreeMap<&str, BTreeMap<&str, u32>> {
        let mut left: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
        for placed in self.computing().filter(|placed| placed.provider != provider.to_string()) {
            left.entry(&placed.provider).or_default().insert(&placed.operator, placed.nodes);
        }
        left
    }

    /// Nodes that copy between the memories of providers: of a graph that one provider runs whole there is none.
    pub fn copies(&self) -> u32 {
        let copies = self.placed.iter().filter(|placed| placed.operator.starts_with(COPIES));
        copies.fold(0, |sum, placed| sum.saturating_add(placed.nodes))
    }

    fn computing(&self) -> impl Iterator<Item = &Placed> {
        self.placed.iter().filter(|placed| !placed.operator.starts_with(COPIES))
    }

    /// Whether `provider` is what runs the model `what`: of CUDA and TensorRT, that they themselves ran a node that computes.
    /// What TensorRT leaves to CUDA is not run by TensorRT.
    ///
    /// # Errors
    /// [`ProviderError::Unused`].
    pub fn check(&self, provider: Provider, what: &str) -> Result<(), ProviderError> {
        let named = provider.to_string();
        if provider == Provider::Cpu || self.computing().any(|placed| placed.provider == named) {
            return Ok(());
        }
        Err(ProviderError::Unused { provider, what: what.to_owned(), placement: self.clone() })
    }

    /// Nodes that `provider` left to others in words: `3 nodes to cpu (Gather 2, Shape 1)`; none if it left none.
    pub fn left_in_words(&self, provider: Provider) -> Option<String> {
        let said = |(by, operators): (&str, BTreeMap<&str, u32>)| {
            let count = operators.values().copied().fold(0, u32::saturating_add);
            let listed: Vec<String> = operators.iter().map(|(operator, count)| format!("{operator} {count}")).collect();
            format!("{} to {by} ({})", counted(count), listed.join(", "))
        };
        let left: Vec<String> = self.left_by(provider).into_iter().map(said).collect();
        (!left.is_empty()).then(|| left.join(", "))
    }
}

/// A number of nodes.
fn counted(nodes: u32) -> String {
    format!("{nodes} {}", if nodes == 1 { "node" } else { "nodes" })
}

impl fmt::Display for Placement {
    /// `40 nodes on cuda, 1 node on cpu`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nodes: Vec<(&str, u32)> = self.nodes().into_iter().collect();
        nodes.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let said = |(provider, count)| format!("{} on {provider}", counted(count));
        f.write_str(&nodes.into_iter().map(said).collect::<Vec<_>>().join(", "))
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
    read_profile(Path::new(&subject.end_profiling()?))
}

/// Reads a profile from its file.
///
/// # Errors
/// If it cannot be read, or is none.
pub fn read_profile(file: &Path) -> Result<Placement, PlacementError> {
    let bytes = fs::metadata(file)?.len();
    if bytes > MAX_BYTES {
        return Err(PlacementError::Format(format!("it has {bytes} bytes")));
    }
    Placement::parse(&fs::read_to_string(file)?)
}
