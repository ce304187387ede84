//! The latency table: what was measured, on what, and what is predicted from it. A file that another device refuses.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path as FsPath,
};

use nasbn_models::{Path, Supernet};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    correction::{Correction, Measured},
    error::PredictionError,
    fit::Method,
    timing::{Statistic, Timing},
};
use crate::{atomic, board::Board, bounded, path_table::PathTable, provider::Placement};

/// First bytes of a table's file.
const MAGIC: [u8; 8] = *b"NASBNLAT";
/// Version of the format.
const FORMAT_VERSION: u32 = 4;
/// Bytes of the SHA-256 that a table ends with.
const DIGEST_BYTES: usize = 32;
/// Largest table that is read, bytes: room for all networks that can be asked for.
const MAX_BYTES: u64 = 32 << 20;
/// Most blocks of a table that is read.
const MOST_BLOCKS: usize = 1 << 16;
/// Most networks of a table that is read.
pub(super) const MOST_NETWORKS: usize = 200_000;
/// What stands for the provider of latencies that were measured elsewhere.
pub const IMPORTED: &str = "imported";
/// Most images in a batch.
pub const MOST_IMAGES: u32 = 4096;

/// Under what conditions latencies hold: those by which a table is told from another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Space of the bundle.
    pub space: String,
    /// SHA-256 of the bundle's manifest, hexadecimal.
    pub bundle: String,
    /// What the device is.
    pub device: String,
    /// Power mode of the board, where it has some.
    pub power_mode: Option<String>,
    /// Governors and highest clocks that are allowed ([`Board::clocks`]), where the machine tells them.
    pub clocks: Option<String>,
    /// Provider that ran the graphs: `cpu`, `cuda`, `tensorrt`; [`IMPORTED`] for latencies that were measured elsewhere.
    pub provider: String,
    /// Numbers that the graphs were run with: `fp32`, `fp16`.
    pub precision: String,
    /// Images in a batch.
    pub batch: u32,
    /// Threads.
    pub threads: u32,
    /// Version of ONNX Runtime.
    pub onnxruntime: String,
}

/// Latency of an operator on an edge by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockTime {
    /// Index of the edge.
    pub edge: u16,
    /// Index of the operator.
    pub operator: u8,
    /// Name of both, as weights have it: `e03.mb6k5`.
    pub key: String,
    /// Its times. Edges with equal blocks share one measurement.
    pub timing: Timing,
}

/// Latency of a whole network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkTime {
    /// Its canonical path, as text.
    pub path: String,
    /// Its times.
    pub timing: Timing,
    /// What the table predicts, milliseconds.
    pub predicted_ms: f64,
    /// Whether the correction was fitted to it.
    pub in_fit: bool,
    /// Energy of one run, millijoules, where the board's rails tell.
    pub energy_mj: Option<f64>,
}

/// A latency table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyTable {
    /// Program and version that wrote it.
    pub generator: String,
    /// Under what conditions it holds.
    pub conditions: Conditions,
    /// The board before the measurement.
    pub before: Board,
    /// The board after it.
    pub after: Board,
    /// Rounds that were thrown away because the device throttled.
    pub throttled_rounds: u32,
    /// Which of the run times of blocks and networks is predicted.
    pub statistic: Statistic,
    /// Where nodes ran: those of one network and, with another provider than the CPU, of every block. None for latencies that
    /// were measured elsewhere, and where no profile could be read.
    pub placement: Option<Placement>,
    /// Every block.
    #[serde(deserialize_with = "bounded::list::<MOST_BLOCKS, _, _>")]
    pub blocks: Vec<BlockTime>,
    /// Every whole network.
    #[serde(deserialize_with = "bounded::list::<MOST_NETWORKS, _, _>")]
    pub networks: Vec<NetworkTime>,
    /// Sums of block latencies, milliseconds.
    pub sums: PathTable,
    /// The corrected prediction of latency, milliseconds.
    pub correction: Correction,
    /// How well plain sums hold on networks that were not in the fit.
    pub error_of_sums: Option<PredictionError>,
    /// How well the corrected prediction holds on them.
    pub error: Option<PredictionError>,
    /// Prediction of the energy of one run, millijoules, where whole networks have some.
    pub energy: Option<Correction>,
    /// How well that holds on networks that were not in the fit.
    pub energy_error: Option<PredictionError>,
}

/// Why a table is not read or not used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It cannot be read or written.
    #[error("{source}")]
    Io {
        /// What the system says.
        source: io::Error,
    },
    /// Not a latency table.
    #[error("it is no latency table of nasbn: it does not start with NASBNLAT")]
    Foreign,
    /// Another format.
    #[error("it has format {0}, this program reads format {FORMAT_VERSION}")]
    Version(u32),
    /// Cut off or altered.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// More than any table has.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// Measured on another space.
    #[error("it is of the space `{found}`, the bundle's is `{wanted}`, or their operators differ")]
    Space {
        /// Space of the table.
        found: String,
        /// Space of the bundle.
        wanted: String,
    },
    /// Measured under other conditions.
    #[error("it was measured under other conditions: {0}")]
    Conditions(String),
}

impl TableError {
    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { source } if source.kind() == io::ErrorKind::NotFound => {
                "measure one with `nasbn latency --bundle DIR --out FILE`"
            }
            Self::Io { .. } => "check that the file can be read and the directory written",
            Self::Foreign | Self::Version(_) | Self::Damaged(_) => {
                "measure it again with `nasbn latency --bundle DIR --out FILE`"
            }
            Self::TooLarge => "measure a table of fewer --networks and --check with `nasbn latency`",
            Self::Space { .. } => "measure a table for this bundle with `nasbn latency`",
            Self::Conditions(_) => {
                "measure a table here with `nasbn latency`, or use this one all the same with --force"
            }
        }
    }
}

/// Networks for the fit, and others for the check.
pub type FitAndCheck = (Vec<Measured>, Vec<Measured>);

impl LatencyTable {
    /// A table of sums that nothing corrects yet.
    pub fn new(conditions: Conditions, before: Board, after: Board, sums: PathTable) -> Self {
        Self {
            generator: format!("nasbn {}", env!("CARGO_PKG_VERSION")),
            conditions,
            before,
            after,
            throttled_rounds: 0,
            statistic: Statistic::default(),
            placement: None,
            blocks: Vec::new(),
            networks: Vec::new(),
            correction: Correction::none(&sums),
            sums,
            error_of_sums: None,
            error: None,
            energy: None,
            energy_error: None,
        }
    }

    /// Fits the corrections to whole networks and states their errors on others: of latency, milliseconds, and of energy,
    /// millijoules, whose blocks are those of the latency.
    pub fn fit(&mut self, supernet: &Supernet, fit: &[Measured], check: &[Measured], energies: FitAndCheck) {
        self.correction = Correction::fit(supernet, &self.sums, fit);
        self.error_of_sums = PredictionError::of(&self.sums, check);
        self.error = PredictionError::of(&self.correction.table, check);
        let (fit, check) = energies;
        let energy = Correction::fit(supernet, &self.sums, &fit);
        // Without networks there is nothing that turns milliseconds into millijoules.
        self.energy = (energy.method != Method::Sum).then_some(energy);
        self.energy_error = self.energy.as_ref().and_then(|energy| PredictionError::of(&energy.table, &check));
    }

    /// The latency that is predicted for a canonical path, milliseconds.
    pub fn latency(&self, path: &Path) -> f64 {
        self.correction.table.value(path)
    }

    /// The energy of one run that is predicted for a canonical path, millijoules, if the table has any.
    pub fn energy(&self, path: &Path) -> Option<f64> {
        self.energy.as_ref().map(|energy| energy.table.value(path))
    }

    /// The bytes of a table's file: magic, version (u32, little endian), postcard, and the SHA-256 of all that.
    ///
    /// # Errors
    /// Postcard's own; and if the table is too large to be read again.
    pub fn encode(&self) -> Result<Vec<u8>, TableError> {
        let body = postcard::to_allocvec(self).map_err(|e| TableError::Damaged(e.to_string()))?;
        let mut bytes = [&MAGIC[..], &FORMAT_VERSION.to_le_bytes(), &body].concat();
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        if bytes.len() as u64 > MAX_BYTES {
            return Err(TableError::TooLarge);
        }
        Ok(bytes)
    }

    /// Reads a table from untrusted bytes.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(TableError::Foreign)?;
        let damaged = |problem: &str| TableError::Damaged(problem.into());
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("it ends within its version"))?;
        let version = u32::from_le_bytes(*version);
        if version != FORMAT_VERSION {
            return Err(TableError::Version(version));
        }
        let (body, digest) =
            rest.split_last_chunk::<DIGEST_BYTES>().ok_or_else(|| damaged("it ends before its SHA-256"))?;
        if Sha256::digest(&bytes[..bytes.len() - DIGEST_BYTES])[..] != digest[..] {
            return Err(damaged("its SHA-256 is not the one that it ends with"));
        }
        let (table, left): (Self, _) =
            postcard::take_from_bytes(body).map_err(|e| TableError::Damaged(e.to_string()))?;
        if !left.is_empty() {
            return Err(damaged("bytes follow its end"));
        }
        if !(1..=MOST_IMAGES).contains(&table.conditions.batch) {
            let problem =
                format!("a batch of {} images is not possible; 1 to {MOST_IMAGES} is", table.conditions.batch);
            return Err(TableError::Damaged(problem));
        }
        Ok(table)
    }

    /// Reads a table's file. What is no regular file (a device, a pipe) may have no end and is not opened.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn read(file: &FsPath) -> Result<Self, TableError> {
        let io = |source| TableError::Io { source };
        if !fs::metadata(file).map_err(io)?.is_file() {
            return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
        }
        let mut bytes = Vec::new();
        File::open(file).map_err(io)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(TableError::TooLarge);
        }
        Self::decode(&bytes)
    }

    /// Writes a table's file, whole or not at all.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn write(&self, file: &FsPath) -> Result<(), TableError> {
        atomic::write(file, &self.encode()?).map_err(|source| TableError::Io { source })
    }

    /// Checks that the table is one over the choices of `supernet`, and all its predictions are numbers.
    ///
    /// # Errors
    /// [`TableError::Space`] or [`TableError::Damaged`].
    pub fn check_space(&self, supernet: &Supernet) -> Result<(), TableError> {
        let energies = self.energy.iter().map(|energy| &energy.table);
        let tables: Vec<&PathTable> = [&self.sums, &self.correction.table].into_iter().chain(energies).collect();
        if !tables.iter().all(|table| table.is_finite()) {
            return Err(TableError::Damaged("what it predicts is not a number".into()));
        }
        let known = |block: &BlockTime| {
            let (edge, operator) = (usize::from(block.edge), block.operator);
            let there = edge < supernet.edges.len() && usize::from(operator) < supernet.operators.len();
            there && supernet.key(edge, operator) == block.key
        };
        let same = self.conditions.space == supernet.name && self.blocks.iter().all(known);
        if !same || !tables.iter().all(|table| table.fits(supernet)) {
            return Err(TableError::Space { found: self.conditions.space.clone(), wanted: supernet.name.clone() });
        }
        Ok(())
    }

    /// Checks that the table holds under the conditions `now`.
    ///
    /// # Errors
    /// [`TableError::Conditions`] with everything that differs, by name.
    pub fn check_conditions(&self, now: &Conditions) -> Result<(), TableError> {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
        let Conditions { space, bundle, device, power_mode, clocks, provider, precision, batch, threads, onnxruntime } =
            &self.conditions;
        let compared = [
            ("space", space.clone(), now.space.clone()),
            ("bundle", bundle.clone(), now.bundle.clone()),
            ("device", device.clone(), now.device.clone()),
            ("power mode", show(power_mode), show(&now.power_mode)),
            ("clocks", show(clocks), show(&now.clocks)),
            ("provider", provider.clone(), now.provider.clone()),
            ("precision", precision.clone(), now.precision.clone()),
            ("batch", batch.to_string(), now.batch.to_string()),
            ("threads", threads.to_string(), now.threads.to_string()),
            ("ONNX Runtime", onnxruntime.clone(), now.onnxruntime.clone()),
        ];
        let differ = compared.iter().filter(|(_, then, now)| then != now);
        let differ: Vec<String> =
            differ.map(|(name, then, now)| format!("{name} was {}, is {}", short(then), short(now))).collect();
        if differ.is_empty() { Ok(()) } else { Err(TableError::Conditions(differ.join("; "))) }
    }
}

/// The beginning of a digest, other texts whole.
fn short(text: &str) -> &str {
    if text.len() == 64 { text.get(..12).unwrap_or(text) } else { text }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::chain;

    /// A table over the choices of `supernet`, in which a network takes 1 ms and 1 ms more for every first candidate that it
    /// does not take.
    pub(crate) fn table(supernet: &Supernet) -> LatencyTable {
        let values: Vec<Vec<f64>> = (supernet.choices.iter())
            .map(|choice| (0..choice.candidates.len()).map(|c| f64::from(u8::from(c > 0))).collect())
            .collect();
        let sums = PathTable::new(supernet, 1.0, &values).unwrap();
        let timing = Timing::of(&[1_000_000; 10]).unwrap();
        let conditions = Conditions {
            space: supernet.name.clone(),
            bundle: "00".repeat(32),
            device: "a board".into(),
            power_mode: Some("MAXN".into()),
            clocks: Some("policy0 performance to 1479 MHz".into()),
            provider: "cpu".into(),
            precision: "fp32".into(),
            batch: 1,
            threads: 2,
            onnxruntime: "1.32".into(),
        };
        let mut table = LatencyTable::new(conditions, Board::default(), Board::default(), sums);
        table.blocks.push(BlockTime { edge: 0, operator: 0, key: "e00.stem".into(), timing: timing.clone() });
        let path = "000".into();
        table.networks.push(NetworkTime { path, timing, predicted_ms: 1.0, in_fit: false, energy_mj: Some(4.5) });
        table
    }

    #[test]
    fn a_table_is_read_as_it_was_written_and_no_flipped_bit_passes() {
        let supernet = chain(3);
        let written = table(&supernet);
        let bytes = written.encode().unwrap();
        let read = LatencyTable::decode(&bytes).unwrap();
        // Not a number is not equal to itself.
        assert_eq!(format!("{read:?}"), format!("{written:?}"));
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(LatencyTable::decode(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(LatencyTable::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        assert!(LatencyTable::read(&file).unwrap_err().hint().contains("nasbn latency"));
        written.write(&file).unwrap();
        assert_eq!(LatencyTable::read(&file).unwrap().networks, written.networks);
    }

    #[test]
    fn a_table_of_elsewhere_is_refused_by_name() {
        let supernet = chain(3);
        let table = table(&supernet);
        assert!(table.check_space(&supernet).is_ok() && table.check_conditions(&table.conditions).is_ok());
        assert!(matches!(table.check_space(&chain(4)), Err(TableError::Space { .. })));
        let mut other = table.clone();
        other.correction.table = other.correction.table.affine(f64::NAN, 1.0);
        let error = other.check_space(&supernet).unwrap_err();
        assert!(matches!(error, TableError::Damaged(_)), "{error}");
        let mut now = table.conditions.clone();
        (now.device, now.threads, now.power_mode, now.clocks) = ("another".into(), 1, None, None);
        let error = table.check_conditions(&now).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("device was a board, is another"), "{text}");
        assert!(text.contains("threads was 2, is 1") && text.contains("power mode was MAXN, is none"), "{text}");
        assert!(text.contains("clocks was policy0 performance to 1479 MHz, is none"), "{text}");
        assert!(!text.contains("provider") && error.hint().contains("--force"), "{text}");
        now = Conditions { bundle: "ff".repeat(32), ..table.conditions.clone() };
        let text = table.check_conditions(&now).unwrap_err().to_string();
        assert!(text.contains("bundle was 000000000000, is ffffffffffff"), "{text}");
    }

    /// What postcard makes of a table's parts, with the magic, version and digest of a whole one.
    fn sealed(body: &[u8]) -> Vec<u8> {
        let bytes = [&MAGIC[..], &FORMAT_VERSION.to_le_bytes(), body].concat();
        [&bytes[..], &Sha256::digest(&bytes)[..]].concat()
    }

    #[test]
    fn what_a_table_says_of_itself_is_bounded() {
        let supernet = chain(3);
        for batch in [0, MOST_IMAGES + 1, 300_000] {
            let mut hostile = table(&supernet);
            hostile.conditions.batch = batch;
            let error = LatencyTable::decode(&hostile.encode().unwrap()).unwrap_err().to_string();
            assert!(error.contains(&format!("a batch of {batch} images")), "{error}");
        }
        // Empty strings: a byte each in the file, and many in memory.
        let mut hostile = table(&supernet);
        hostile.before.notes = vec![String::new(); 1 << 20];
        assert!(matches!(LatencyTable::decode(&hostile.encode().unwrap()), Err(TableError::Damaged(_))));
        hostile.before.notes.truncate(1 << 16);
        assert!(LatencyTable::decode(&hostile.encode().unwrap()).is_ok());
        let mut large = table(&supernet);
        large.generator = "x".repeat(MAX_BYTES as usize);
        assert!(matches!(large.encode(), Err(TableError::TooLarge)));
        // The same in a file that something else has written.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        fs::write(&file, sealed(&postcard::to_allocvec(&large).unwrap())).unwrap();
        assert!(matches!(LatencyTable::read(&file), Err(TableError::TooLarge)));
    }

    #[test]
    fn what_has_no_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        for place in [dir.path(), FsPath::new("/dev/zero")] {
            let error = LatencyTable::read(place).unwrap_err().to_string();
            assert_eq!(error, "it is no regular file", "{}", place.display());
        }
    }

    #[test]
    fn where_nodes_ran_is_in_the_table() {
        let profile = r#"[{"cat":"Node","name":"a","args":{"op_name":"Conv","provider":"CUDAExecutionProvider"}}]"#;
        let mut written = table(&chain(3));
        written.placement = Some(Placement::parse(profile).unwrap());
        let read = LatencyTable::decode(&written.encode().unwrap()).unwrap();
        assert_eq!(read.placement, written.placement);
        // Formats without such a field, and formats to come, are refused by their version.
        for version in [FORMAT_VERSION as u8 - 1, FORMAT_VERSION as u8 + 1] {
            let mut other = written.encode().unwrap();
            other[MAGIC.len()] = version;
            let wrong = LatencyTable::decode(&other).unwrap_err();
            assert!(matches!(wrong, TableError::Version(found) if found == u32::from(version)), "{wrong}");
        }
    }

    #[test]
    fn methods_keep_their_numbers() {
        let mut written = table(&chain(3));
        for (number, method) in
            [Method::Sum, Method::Line, Method::LineAndTable(4.0), Method::Slopes(0.25)].iter().enumerate()
        {
            assert_eq!(usize::from(postcard::to_allocvec(method).unwrap()[0]), number);
            written.correction.method = *method;
            assert_eq!(LatencyTable::decode(&written.encode().unwrap()).unwrap().correction.method, *method);
        }
    }
}
