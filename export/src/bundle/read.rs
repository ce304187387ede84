//! Opens bundles that nobody vouches for.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use nasbn_models::{
    Manifest,
    manifest::{FileEntry, MANIFEST_FILE, MAX_MANIFEST_BYTES},
};
use sha2::{Digest, Sha256};

use super::{
    BundleError,
    confined::{MAX_GRAPH_BYTES, confined},
};
use crate::{
    tensors::TensorFile,
    weights::{initial_bn, weights},
};

/// A bundle whose manifest was checked and whose files are there with the right sizes.
/// [`Bundle::verify`] also checks their contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    directory: PathBuf,
    manifest: Manifest,
    digest: [u8; 32],
}

impl Bundle {
    /// Reads the manifest in `directory` and checks that every file it names is a plain file of
    /// the right size inside the directory.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        let path = directory.join(MANIFEST_FILE);
        let size = match plain_file(&path) {
            Err(BundleError::Missing(_)) => return Err(BundleError::NoManifest(directory.to_owned())),
            other => other?,
        };
        if size > MAX_MANIFEST_BYTES {
            return Err(BundleError::ManifestSize { path, bytes: size, limit: MAX_MANIFEST_BYTES });
        }
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|f| f.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes));
        read.map_err(|source| BundleError::Io { path: path.clone(), source })?;
        let manifest = Manifest::decode(&bytes).map_err(|source| BundleError::Manifest { path, source })?;
        let digest = Sha256::digest(&bytes).into();
        let bundle = Self { directory: directory.to_owned(), manifest, digest };
        for entry in &bundle.manifest.files {
            let path = bundle.plain_path(entry)?;
            let found = plain_file(&path)?;
            if found != entry.bytes {
                return Err(BundleError::Size { path, found, expected: entry.bytes });
            }
        }
        Ok(bundle)
    }

    /// Checks the SHA-256 of every file, that every graph keeps to the bundle (its constants lie inside the
    /// weights' file), and that the weights and initial parameters are those of the supernet by name and shape.
    ///
    /// # Errors
    /// The first file that differs.
    pub fn verify(&self) -> Result<(), BundleError> {
        let graphs: BTreeSet<u32> = self.manifest.graphs.iter().map(|graph| graph.file).collect();
        for (file, entry) in (0..).zip(&self.manifest.files) {
            let path = self.directory.join(&entry.name);
            if graphs.contains(&file) {
                continue;
            }
            let digest = sha256_of(&path).map_err(|source| BundleError::Io { path: path.clone(), source })?;
            if digest != entry.sha256 {
                return Err(BundleError::Digest(path));
            }
        }
        let supernet = &self.manifest.supernet;
        let expected = weights(supernet).into_iter().map(|w| (w.name, w.dims));
        has_tensors(&self.weights_path(), &self.weights()?, expected)?;
        let expected = initial_bn(supernet).into_iter().map(|(name, channels, _)| (name, vec![u64::from(channels)]));
        has_tensors(&self.initial_path(), &TensorFile::open(&self.initial_path())?, expected)?;
        let mut graphs = graphs.iter().filter_map(|&file| self.manifest.files.get(file as usize));
        graphs.try_for_each(|entry| self.verify_graph(&self.directory.join(&entry.name), entry))
    }

    /// The bundle's directory.
    pub fn dir(&self) -> &Path {
        &self.directory
    }

    /// What the bundle holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the manifest, which names the bundle's whole contents.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Path of a file of the manifest; the bundle's directory for an index that it does not have.
    pub fn file_path(&self, file: u32) -> PathBuf {
        match self.manifest.files.get(file as usize) {
            Some(entry) => self.directory.join(&entry.name),
            None => self.directory.clone(),
        }
    }

    /// The weights' file.
    pub fn weights_path(&self) -> PathBuf {
        self.file_path(self.manifest.weights_file)
    }

    /// The initial BN parameters' file.
    pub fn initial_path(&self) -> PathBuf {
        self.file_path(self.manifest.initial_file)
    }

    /// Opens the weights.
    ///
    /// # Errors
    /// If the file is not a valid safetensors file.
    pub fn weights(&self) -> Result<TensorFile, BundleError> {
        Ok(TensorFile::open(&self.weights_path())?)
    }

    /// Checks a graph's file, read once.
    fn verify_graph(&self, path: &Path, entry: &FileEntry) -> Result<(), BundleError> {
        let wrong = |problem: String| BundleError::Graph { path: path.to_owned(), problem };
        if entry.bytes > MAX_GRAPH_BYTES {
            return Err(wrong(format!("has {} bytes; no graph has more than {MAX_GRAPH_BYTES}", entry.bytes)));
        }
        let mut data = Vec::new();
        let read = File::open(path).and_then(|f| f.take(MAX_GRAPH_BYTES).read_to_end(&mut data));
        read.map_err(|source| BundleError::Io { path: path.to_owned(), source })?;
        if Sha256::digest(&data)[..] != entry.sha256 {
            return Err(BundleError::Digest(path.to_owned()));
        }
        let weights = self.weights_path();
        if path.parent() != weights.parent() {
            return Err(wrong("does not stand beside the weights' file".into()));
        }
        let name = weights.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let bytes = self.manifest.files.get(self.manifest.weights_file as usize).map_or(0, |f| f.bytes);
        confined(&data, name, bytes).map_err(wrong)
    }

    /// The path of `entry`, whose directories are real directories: the manifest's names have no
    /// `..`, so without links they stay inside.
    fn plain_path(&self, entry: &FileEntry) -> Result<PathBuf, BundleError> {
        let mut path = self.directory.clone();
        let mut parts = entry.name.split('/').peekable();
        while let Some(part) = parts.next() {
            path.push(part);
            if parts.peek().is_some() && kind(&path)?.is_symlink() {
                return Err(BundleError::NotAFile { path, found: "a symbolic link" });
            }
        }
        Ok(path)
    }
}

fn has_tensors(
    path: &Path,
    file: &TensorFile,
    expected: impl Iterator<Item = (String, Vec<u64>)>,
) -> Result<(), BundleError> {
    for (name, dims) in expected {
        let problem = match file.place(&name) {
            None => "is missing".to_owned(),
            Some(place) if place.dims != dims => format!("has shape {:?} instead of {dims:?}", place.dims),
            Some(_) => continue,
        };
        return Err(BundleError::Tensor { path: path.to_owned(), name, problem });
    }
    Ok(())
}

fn kind(path: &Path) -> Result<fs::Metadata, BundleError> {
    fs::symlink_metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => BundleError::Missing(path.to_owned()),
        _ => BundleError::Io { path: path.to_owned(), source },
    })
}

/// Size of a plain file.
fn plain_file(path: &Path) -> Result<u64, BundleError> {
    let metadata = kind(path)?;
    let found = match metadata.file_type() {
        t if t.is_file() => return Ok(metadata.len()),
        t if t.is_symlink() => "a symbolic link",
        t if t.is_dir() => "a directory",
        _ => "a device or pipe",
    };
    Err(BundleError::NotAFile { path: path.to_owned(), found })
}

/// SHA-256 of a file, read through a buffer of fixed size.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
