//! Writes a bundle: all or nothing, and the same bytes from the same input.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use nasbn_models::{
    Combine, Manifest, Supernet,
    manifest::{FileEntry, Graph, Lowering, MANIFEST_FILE, ManifestError, Owner},
    program::ProgramError,
    supernet::SupernetError,
};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    GRAPHS, INITIAL, WEIGHTS,
    source::{SourceError, WeightSource},
    staging::{Staging, is_cache, restore},
};
use crate::{
    ir::GraphError,
    onnx::{ExternalError, PRODUCER, resolve_external},
    operator_graphs::{BuiltGraph, concat_graphs, loss_graph, operator_graphs, role_name, sum_graph},
    tensors::TensorLayout,
    weights::{WeightSpec, initial_bn, weights},
};

/// Epsilon of every BatchNorm (that of PyTorch and of BN-NAS).
pub const EPSILON: f32 = 1e-5;

/// What to build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// Seed of the weights.
    pub seed: u64,
    /// Take the weights from this safetensors file instead.
    pub weights: Option<PathBuf>,
    /// Replace a bundle that is there already.
    pub force: bool,
}

/// Why no bundle was written. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The supernet is not consistent.
    #[error("the space is not valid: {0}")]
    Supernet(#[from] SupernetError),
    /// The output exists and is not to be replaced.
    #[error("{} exists already and is {what}", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The output is a bundle with files in it that are none of its own.
    #[error("{} holds what is not part of the bundle: {}", path.display(), list(files))]
    Foreign {
        /// The output.
        path: PathBuf,
        /// Those files, relative to it.
        files: Vec<PathBuf>,
    },
    /// The weights cannot be had.
    #[error(transparent)]
    Weights(#[from] SourceError),
    /// A file cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A graph could not be derived or lowered.
    #[error("no graph could be made for {place}: {source}")]
    Graph {
        /// Key of the operator.
        place: String,
        /// Why.
        source: GraphError,
    },
    /// A graph and the weights do not fit.
    #[error("graph {name}: {source}")]
    External {
        /// Name of the graph's file.
        name: String,
        /// Why.
        source: ExternalError,
    },
    /// The manifest cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl WriteError {
    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        /// For what cannot happen with a space that was read from a file.
        const REPORT: &str = "this space cannot be exported: report it with its file as an error of nasbn-export";
        match self {
            Self::Exists { what, .. } if *what == BUNDLE => "replace it with --force, or name another directory",
            Self::Foreign { .. } => "move these files elsewhere, or name another directory with --out",
            Self::Exists { .. } => "name a directory that does not exist yet",
            Self::Weights(SourceError::Tensors { .. }) => {
                "`nasbn-export build` without --weights writes graphs/weights.safetensors as an example"
            }
            Self::Weights(SourceError::File(_)) => "name a safetensors file that this user may read with --weights",
            Self::Weights(SourceError::NotFinite { .. }) => {
                "weights must be numbers: save them again from a network whose training did not diverge"
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    "make room and try again; nothing was left behind"
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "name a directory that you may write to with --out"
                }
                _ => "check that --out names a place for a new directory; what was there is as it was",
            },
            Self::Supernet(_) => "docs/spaces.md says what a space may be",
            Self::Manifest(_) => "make the space smaller: fewer layers, candidates or nodes",
            Self::Graph { .. } | Self::External { .. } => REPORT,
        }
    }

    /// With the file's place in `out` instead of the directory `staged`, which is gone.
    fn placed(self, staged: &Path, out: &Path) -> Self {
        match self {
            Self::Io { path, source } => match path.strip_prefix(staged) {
                Ok(name) => Self::Io { path: out.join(name), source },
                Err(_) => Self::Io { path, source },
            },
            other => other,
        }
    }
}

const BUNDLE: &str = "a bundle";

/// The first few files, then a count of the rest.
fn list(files: &[PathBuf]) -> String {
    const LISTED: usize = 5;
    let names: Vec<String> = files.iter().take(LISTED).map(|f| f.display().to_string()).collect();
    match files.len().saturating_sub(LISTED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Operators whose graphs are written.
    pub done: usize,
    /// All operators on all edges.
    pub total: usize,
}

/// Writes the bundle of `supernet` to the directory `out` and returns its manifest.
///
/// Everything is written beside `out` under a temporary name, synced, and renamed last.
///
/// # Errors
/// See [`WriteError`]; `out` is then as it was, and nothing is left beside it.
pub fn write(
    supernet: &Supernet,
    options: &BuildOptions,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, WriteError> {
    supernet.validate()?;
    restore(out).map_err(|source| WriteError::Io { path: out.to_owned(), source })?;
    may_write(out, options.force)?;
    let specs = weights(supernet);
    let source = match &options.weights {
        None => WeightSource::Seed(options.seed),
        Some(path) => WeightSource::file(path, &specs)?,
    };
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::Io { path, source }
    };
    let staging = Staging::new(out).map_err(at(out))?;
    let manifest = fill(staging.path(), supernet, options, (&specs, &source), progress)
        .map_err(|error| error.placed(staging.path(), out))?;
    let mut files: Vec<PathBuf> = manifest.files.iter().map(|f| f.name.clone().into()).collect();
    files.extend([MANIFEST_FILE.into(), GRAPHS.into()]);
    // Once more: files may have come in the meantime.
    may_write(out, options.force)?;
    staging.publish(&files, options.force).map_err(at(out))?;
    Ok(manifest)
}

/// Writes everything to the directory `root`, the manifest last.
fn fill(
    root: &Path,
    supernet: &Supernet,
    options: &BuildOptions,
    (specs, source): (&[WeightSpec], &WeightSource),
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, WriteError> {
    let mut writer = Writer::new(root).map_err(|source| WriteError::Io { path: root.to_owned(), source })?;
    let (weights_file, layout) = writer.weights(specs, source)?;
    let initial_file = writer.initial(supernet)?;
    let graphs = writer.graphs(supernet, &layout, progress)?;
    let manifest = Manifest {
        generator: format!("{PRODUCER} {}", env!("CARGO_PKG_VERSION")),
        supernet: supernet.clone(),
        seed: options.seed,
        weights: source.describe()?,
        epsilon_bits: EPSILON.to_bits(),
        files: writer.files,
        weights_file,
        initial_file,
        graphs,
    };
    let bytes = manifest.encode()?;
    // What is written can be read: a manifest that this program would refuse is never published.
    Manifest::decode(&bytes)?;
    let path = root.join(MANIFEST_FILE);
    fs::write(&path, &bytes).map_err(|source| WriteError::Io { path, source })?;
    Ok(manifest)
}

/// Whether `out` is free, or a bundle that may be replaced.
fn may_write(out: &Path, force: bool) -> Result<(), WriteError> {
    let exists = |what| Err(WriteError::Exists { path: out.to_owned(), what });
    match fs::symlink_metadata(out) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(WriteError::Io { path: out.to_owned(), source }),
        Ok(metadata) if !metadata.is_dir() => exists("no directory"),
        Ok(_) if out.join(MANIFEST_FILE).exists() => match force {
            true => match foreign(out).map_err(|source| WriteError::Io { path: out.to_owned(), source })? {
                files if files.is_empty() => Ok(()),
                files => Err(WriteError::Foreign { path: out.to_owned(), files }),
            },
            false => exists(BUNDLE),
        },
        Ok(_) => match out.read_dir().map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => exists("no bundle, so it is not replaced"),
            Err(source) => Err(WriteError::Io { path: out.to_owned(), source }),
        },
    }
}

/// What stands in the directory of a bundle and is no part of it: files that its manifest does not name or, if that
/// cannot be read, that no bundle has. Sorted.
fn foreign(out: &Path) -> io::Result<Vec<PathBuf>> {
    let manifest = fs::read(out.join(MANIFEST_FILE)).ok().and_then(|bytes| Manifest::decode(&bytes).ok());
    let own: Option<HashSet<PathBuf>> = manifest.map(|m| m.files.into_iter().map(|f| f.name.into()).collect());
    let is_own = |file: &Path| match &own {
        _ if file == Path::new(MANIFEST_FILE) => true,
        Some(own) => own.contains(file),
        None if file == Path::new(INITIAL) => true,
        None => {
            let (graphs, weights) = (file.parent() == Some(Path::new(GRAPHS)), file.ends_with(WEIGHTS));
            graphs && (weights || file.extension().is_some_and(|extension| extension == "onnx"))
        }
    };
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(directory) = open.pop() {
        let mut empty = true;
        for entry in out.join(&directory).read_dir()? {
            let entry = entry?;
            let name = directory.join(entry.file_name());
            empty = false;
            match entry.file_type()?.is_dir() {
                // What the runtime can make again; it is of the bundle that is replaced.
                true if is_cache(&name) => {}
                true => open.push(name),
                false if is_own(&name) => {}
                false => found.push(name),
            }
        }
        // An empty directory is somebody's too.
        if empty && directory != Path::new(GRAPHS) {
            found.push(directory);
        }
    }
    found.sort();
    Ok(found)
}

struct Writer<'a> {
    root: &'a Path,
    files: Vec<FileEntry>,
    /// Graphs by contents: equal ones share a file.
    known: HashMap<[u8; 32], u32>,
}

impl<'a> Writer<'a> {
    fn new(root: &'a Path) -> io::Result<Self> {
        fs::create_dir(root.join(GRAPHS))?;
        Ok(Self { root, files: Vec::new(), known: HashMap::new() })
    }

    fn add(&mut self, name: String, bytes: u64, sha256: [u8; 32]) -> u32 {
        self.files.push(FileEntry { name, bytes, sha256 });
        (self.files.len() - 1) as u32
    }

    fn tensors<E: From<io::Error>>(
        &mut self,
        name: String,
        layout: &TensorLayout,
        data: impl FnMut(&str) -> Result<Vec<f32>, E>,
        io: impl Fn(io::Error) -> E,
    ) -> Result<u32, E> {
        let file = File::create(self.root.join(&name)).map_err(&io)?;
        let mut out = Hashed { inner: BufWriter::new(file), hash: Sha256::new() };
        layout.write(&mut out, data)?;
        out.flush().map_err(&io)?;
        Ok(self.add(name, layout.bytes(), out.hash.finalize().into()))
    }

    fn weights(&mut self, specs: &[WeightSpec], source: &WeightSource) -> Result<(u32, TensorLayout), WriteError> {
        let layout = TensorLayout::new(specs.iter().map(|s| (s.name.clone(), s.dims.clone())));
        let name = format!("{GRAPHS}/{WEIGHTS}");
        let mut next = specs.iter();
        let file = self.tensors::<Failed>(
            name.clone(),
            &layout,
            // The layout and the specs are both in the order of names.
            |_| Ok(next.next().map_or(Ok(Vec::new()), |spec| source.values(spec))?),
            Failed::Io,
        );
        Ok((file.map_err(|e| e.at(self.root.join(name)))?, layout))
    }

    fn initial(&mut self, supernet: &Supernet) -> Result<u32, WriteError> {
        let all = initial_bn(supernet);
        let values: HashMap<&str, (u32, f32)> = all.iter().map(|(name, c, v)| (name.as_str(), (*c, *v))).collect();
        let layout = TensorLayout::new(all.iter().map(|(name, c, _)| (name.clone(), vec![u64::from(*c)])));
        let fill = |name: &str| {
            let &(channels, value) = values.get(name).unwrap_or(&(0, 0.0));
            Ok(vec![value; channels as usize])
        };
        let file = self.tensors::<Failed>(INITIAL.to_owned(), &layout, fill, Failed::Io);
        file.map_err(|e| e.at(self.root.join(INITIAL)))
    }

    /// All graphs: those of every operator on every edge, of nodes that concatenate, of the network.
    fn graphs(
        &mut self,
        supernet: &Supernet,
        layout: &TensorLayout,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Graph>, WriteError> {
        let total = supernet.edges.iter().map(|e| supernet.candidates(e).len()).sum();
        let mut done = 0;
        let mut graphs = Vec::new();
        for (e, edge) in supernet.edges.iter().enumerate() {
            for &operator in supernet.candidates(edge) {
                progress(Progress { done, total });
                done += 1;
                let key = supernet.key(e, operator);
                let failed = |source| WriteError::Graph { place: key.clone(), source };
                let program = |program: Result<_, ProgramError>| {
                    let operator = key.clone();
                    program.map_err(|source| SupernetError::Operator { edge: e, operator, source })
                };
                let (trained, deployed) =
                    (program(supernet.program(e, operator))?, program(supernet.deployed_program(e, operator))?);
                let built = operator_graphs(&trained, &deployed, &key, edge.from == 0, EPSILON).map_err(failed)?;
                let owner = Owner::Operator { edge: e as u16, operator };
                for graph in built {
                    graphs.push(self.graph(owner, &format!("{key}."), layout, graph)?);
                }
            }
        }
        for (n, node) in supernet.nodes.iter().enumerate() {
            let incoming = supernet.edges.iter().filter(|e| usize::from(e.to) == n);
            let channels: Vec<u32> = incoming.map(|e| e.channels).collect();
            if node.combine == Combine::Concat && channels.len() > 1 {
                for graph in concat_graphs(&channels, node.shape.height, node.shape.width) {
                    graphs.push(self.graph(Owner::Node(n as u16), &format!("node{n:02}."), layout, graph)?);
                }
            }
        }
        let loss = loss_graph(supernet.classes());
        let loss = loss.map_err(|source| WriteError::Graph { place: "the loss".into(), source })?;
        for graph in [loss, sum_graph()] {
            graphs.push(self.graph(Owner::Network, "", layout, graph)?);
        }
        progress(Progress { done, total });
        Ok(graphs)
    }

    /// Writes a graph as `{prefix}{role}.onnx`; fused ones end in `.fused.onnx`.
    fn graph(
        &mut self,
        owner: Owner,
        prefix: &str,
        layout: &TensorLayout,
        graph: BuiltGraph,
    ) -> Result<Graph, WriteError> {
        let BuiltGraph { role, lowering, inputs, outputs, mut model } = graph;
        let suffix = if lowering == Lowering::Fused { ".fused" } else { "" };
        let name = format!("{GRAPHS}/{prefix}{}{suffix}.onnx", role_name(role));
        resolve_external(&mut model, WEIGHTS, |key| layout.place(key).map(|p| (p.offset, p.bytes)))
            .map_err(|source| WriteError::External { name: name.clone(), source })?;
        let bytes = model.encode_to_vec();
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let file = match self.known.get(&digest) {
            Some(&file) => file,
            None => {
                let path = self.root.join(&name);
                fs::write(&path, &bytes).map_err(|source| WriteError::Io { path, source })?;
                let file = self.add(name, bytes.len() as u64, digest);
                self.known.insert(digest, file);
                file
            }
        };
        Ok(Graph { owner, role, lowering, file, inputs, outputs })
    }
}

/// Why a safetensors file was not written, before its path is known.
enum Failed {
    Io(io::Error),
    Source(SourceError),
}

impl Failed {
    fn at(self, path: PathBuf) -> WriteError {
        match self {
            Self::Io(source) => WriteError::Io { path, source },
            Self::Source(source) => WriteError::Weights(source),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

/// Hashes what passes through.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_place_that_was_asked_for() {
        let io = |path: &str| WriteError::Io { path: path.into(), source: io::ErrorKind::StorageFull.into() };
        let placed = |path: &str| io(path).placed(Path::new("a/.b.partial-x"), Path::new("a/b")).to_string();
        assert_eq!(placed("a/.b.partial-x/graphs/w"), "a/b/graphs/w cannot be written: no storage space");
        assert!(placed("a/c").starts_with("a/c cannot"));
    }

    #[test]
    fn every_error_has_a_hint() {
        let io = |kind: io::ErrorKind| WriteError::Io { path: "b".into(), source: kind.into() };
        let structure = SupernetError::Structure { place: "p".into(), problem: "q".into() };
        let file = || PathBuf::from("w");
        let errors = [
            io(io::ErrorKind::StorageFull),
            io(io::ErrorKind::PermissionDenied),
            io(io::ErrorKind::NotADirectory),
            WriteError::Supernet(structure),
            WriteError::Exists { path: file(), what: BUNDLE },
            WriteError::Exists { path: file(), what: "no directory" },
            WriteError::Foreign { path: file(), files: Vec::new() },
            WriteError::Weights(SourceError::Tensors { path: file(), problems: Vec::new() }),
            WriteError::Weights(SourceError::NotFinite { path: file(), name: "n".into() }),
            WriteError::Manifest(ManifestError::Foreign),
        ];
        assert!(errors.iter().all(|error| error.hint().len() > 10));
    }
}
