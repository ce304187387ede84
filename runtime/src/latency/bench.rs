//! Measures blocks and whole networks on this machine.

use std::{
    path::Path as FsPath,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nasbn_export::{bundle::Bundle, subnet::SubnetError};
use nasbn_models::{
    Path,
    manifest::{Lowering, Manifest, Owner, Role},
    sample,
};
use ort::session::Session;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    blocks::Block,
    energy::{Metered, Metering},
    record::Times,
    stopwatch::{Rules, Verdict, Visit, done, is_done, measure},
    subject::{GivenShape, Subject, SubjectError},
};
use crate::{
    board::{
        energy::{EnergyMeter, INTERVAL},
        power::Rails,
        throttle::Snapshot,
    },
    engine::Opener,
    journal::JournalError,
    parameters::Layout,
    subnet,
};

/// Networks whose sessions are open at once.
pub const GROUP: usize = 16;
/// Times that the networks are gone through, each time for a part of the time: what drifts in between falls on all.
const PASSES: u32 = 6;
/// Rounds one after another that may be lost to throttling before it is given up.
const PATIENCE: u32 = 20;
/// Time to cool down after a round in which the device throttled.
const COOL: Duration = Duration::from_secs(2);
/// Time that a network runs while its energy is measured.
const ENERGY_TIME: Duration = Duration::from_secs(1);

/// Why nothing is measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A graph does not load or run.
    #[error("{name}: {source}")]
    Subject {
        /// Which.
        name: String,
        /// Why.
        source: SubjectError,
    },
    /// A network cannot be made.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The bundle has no graph of a block.
    #[error("the bundle has no inference graph of {0}")]
    NoGraph(String),
    /// Times cannot be recorded.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The device throttles all the time.
    #[error("the device throttled in {rounds} rounds one after another: {reasons}")]
    Throttled {
        /// Rounds.
        rounds: u32,
        /// What tells so.
        reasons: String,
    },
    /// It was stopped.
    #[error("stopped; what was measured so far is kept")]
    Stopped,
}

impl BenchError {
    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Subject { source, .. } => source.hint(),
            Self::Subnet(error) => error.hint(),
            Self::NoGraph(_) => "the bundle is incomplete: build it again with `nasbn-export build`",
            Self::Journal(error) => error.hint(),
            Self::Throttled { .. } => {
                "cool the board, give it a stronger supply or a lower power mode, then go on with --resume"
            }
            Self::Stopped => "go on with the same command and --resume",
        }
    }
}

/// Where things are measured, and how.
pub struct Bench<'a> {
    /// Opens sessions.
    pub opener: &'a Opener,
    /// Where run times go.
    pub times: &'a mut Times,
    /// Root of the files that tell the board's state.
    pub root: &'a FsPath,
    /// Images in a batch.
    pub batch: u32,
    /// Set when it is to stop.
    pub interrupted: &'a AtomicBool,
}

/// Name under which a 1 stands for every round that was thrown away because the device throttled.
const THROTTLED: &str = "throttled rounds";

/// Name of a block's times.
pub fn block_name(bundle: &Bundle, block: &Block) -> String {
    let (edge, operator) = block.first();
    format!("block {}", bundle.manifest().supernet.key(edge, operator))
}

/// Name of a network's times.
pub fn network_name(bundle: &Bundle, path: &Path) -> String {
    format!("network {}", bundle.manifest().supernet.format_path(path))
}

/// Name of the times of a model in `file`: no file has the name of another record.
pub fn model_name(file: &str) -> String {
    format!("model {file}")
}

/// What the name of an energy begins with.
const ENERGY: &str = "energy ";

/// Name of a network's energy, in nanojoules a run; 0 where the rails told none.
fn energy_name(bundle: &Bundle, path: &Path) -> String {
    format!("{ENERGY}{}", bundle.manifest().supernet.format_path(path))
}

/// Energy of one run of a network, millijoules, if it was measured and the rails told some.
pub fn energy_of(times: &Times, bundle: &Bundle, path: &Path) -> Option<f64> {
    let nanojoules = times.of(&energy_name(bundle, path)).first().filter(|&&nanojoules| nanojoules > 0);
    nanojoules.map(|&nanojoules| nanojoules as f64 / 1e6)
}

/// Rounds that were thrown away because the device throttled, over all runs that the record is of.
pub fn throttled_rounds(times: &Times) -> u32 {
    u32::try_from(times.of(THROTTLED).len()).unwrap_or(u32::MAX)
}

/// Run times by name: everything in a record that is neither an energy nor a count.
pub fn run_times(times: &Times) -> impl Iterator<Item = (&String, &[u64])> {
    let all = times.all().iter().map(|(name, times)| (name, times.as_slice()));
    all.filter(|(name, _)| !name.starts_with(ENERGY) && *name != THROTTLED)
}

impl Bench<'_> {
    /// Measures blocks with their inference graphs. `progress` hears the share that is done, 0 to 1.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn blocks(
        &mut self,
        bundle: &Bundle,
        blocks: &[Block],
        rules: &Rules,
        mut progress: impl FnMut(f64),
    ) -> Result<(), BenchError> {
        let mut items = Vec::new();
        for block in blocks {
            let name = block_name(bundle, block);
            let file = graph_file(bundle.manifest(), block).ok_or_else(|| BenchError::NoGraph(name.clone()))?;
            let open = self.opener.file(&bundle.file_path(file)).map_err(SubjectError::from);
            let subject = open.and_then(|session| self.ready(session, &[]));
            items.push((name.clone(), subject.map_err(|source| BenchError::Subject { name, source })?));
        }
        self.measure(&mut items, rules, &mut progress)
    }

    /// Measures whole networks, as they would be deployed: a few at a time, all of them gone through several times; and,
    /// where the board has power rails, the energy of a run of each of them.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn networks(
        &mut self,
        bundle: &Bundle,
        layout: &Layout,
        paths: &[Path],
        rules: &Rules,
        mut progress: impl FnMut(f64),
    ) -> Result<(), BenchError> {
        let meter = Rails::find(self.root).and_then(|rails| EnergyMeter::new(rails, INTERVAL).ok());
        let groups = paths.chunks(GROUP).len().max(1) as f64;
        let mut paths: Vec<&Path> = paths.iter().collect();
        let mut rng = ChaCha8Rng::seed_from_u64(rules.seed);
        for pass in 1..=PASSES {
            // Other groups in every pass: those that are compared are not always measured at the same time.
            sample::shuffle(&mut rng, &mut paths);
            let part = |whole: u32| whole.saturating_mul(pass).div_ceil(PASSES);
            let rules = Rules {
                min_time: rules.min_time * pass / PASSES,
                min_runs: part(rules.min_runs),
                seed: rules.seed.wrapping_add(u64::from(pass)),
                ..*rules
            };
            for (number, group) in paths.chunks(GROUP).enumerate() {
                let before = f64::from(pass - 1) / f64::from(PASSES);
                let mut inner = |share: f64| progress(before + (number as f64 + share) / groups / f64::from(PASSES));
                let known = |path: &Path| {
                    let timed = is_done(self.times.of(&network_name(bundle, path)), &rules);
                    timed && (meter.is_none() || !self.times.of(&energy_name(bundle, path)).is_empty())
                };
                let left: Vec<&Path> = group.iter().copied().filter(|path| !known(path)).collect();
                let mut items = Vec::new();
                for path in &left {
                    let name = network_name(bundle, path);
                    let model = subnet::untrained(bundle, layout, path)?;
                    let subject = self.subject(&model, &[]);
                    items.push((name.clone(), subject.map_err(|source| BenchError::Subject { name, source })?));
                }
                self.measure(&mut items, &rules, &mut inner)?;
                if let Some(meter) = &meter {
                    for (path, (name, subject)) in left.iter().zip(&mut items) {
                        self.energy(&energy_name(bundle, path), (name.as_str(), subject), meter, rules.warmup)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A model in memory, ready to be measured.
    ///
    /// # Errors
    /// If it does not load, or its inputs cannot be made up.
    pub fn subject(&self, model: &[u8], given: &[GivenShape]) -> Result<Subject, SubjectError> {
        self.ready(self.opener.model(model)?, given)
    }

    fn ready(&self, session: Session, given: &[GivenShape]) -> Result<Subject, SubjectError> {
        Subject::new(session, self.batch, given)?.bound_to(self.opener.backend())
    }

    /// Measures named things; what an earlier run has of them counts.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn measure(
        &mut self,
        items: &mut [(String, Subject)],
        rules: &Rules,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(), BenchError> {
        let names: Vec<String> = items.iter().map(|(name, _)| name.clone()).collect();
        let mut times: Vec<Vec<u64>> = names.iter().map(|name| self.times.of(name).to_vec()).collect();
        let (root, interrupted, record) = (self.root, self.interrupted, &mut *self.times);
        let (mut before, mut lost) = (Snapshot::take(root), 0);
        let run = |i: usize| {
            // Heard between two runs, while it warms up as well.
            if interrupted.load(Ordering::SeqCst) {
                return Err(BenchError::Stopped);
            }
            let (name, subject) = &mut items[i];
            subject.run().map_err(|source| BenchError::Subject { name: name.clone(), source })
        };
        let judge = |visits: &[Visit]| {
            let after = Snapshot::take(root);
            let reasons = after.throttled_since(&before);
            before = after;
            if !reasons.is_empty() {
                lost += 1;
                record.add(THROTTLED, &[1])?;
                let reasons = reasons.join("; ");
                log::warn!("a round is measured again: {reasons}");
                if lost >= PATIENCE {
                    return Err(BenchError::Throttled { rounds: lost, reasons });
                }
                std::thread::sleep(COOL);
                before = Snapshot::take(root);
                return Ok(Verdict::Discard);
            }
            lost = 0;
            for visit in visits {
                record.add(&names[visit.item], &visit.times)?;
            }
            let so_far: Vec<&[u64]> = names.iter().map(|name| record.of(name)).collect();
            progress(done(&so_far, rules));
            Ok(Verdict::Keep)
        };
        measure(&mut times, rules, run, judge)
    }

    /// Measures the energy of one run, unless it is known already: or known that the rails tell none.
    fn energy(
        &mut self,
        key: &str,
        (name, subject): (&str, &mut Subject),
        meter: &EnergyMeter,
        warmup: Duration,
    ) -> Result<(), BenchError> {
        if !self.times.of(key).is_empty() {
            return Ok(());
        }
        let (root, interrupted, patience) = (self.root, self.interrupted, PATIENCE);
        let metering = Metering { meter, root, warmup, time: ENERGY_TIME, cool: COOL, patience, interrupted };
        let run = || {
            let ran = subject.run().map_err(|source| BenchError::Subject { name: name.to_owned(), source });
            ran.map(|_| ())
        };
        let record = &mut *self.times;
        let lost = |reasons: &str| {
            record.add(THROTTLED, &[1])?;
            log::warn!("an energy is measured again: {reasons}");
            Ok(())
        };
        let nanojoules = match metering.measure(run, lost)? {
            Metered::Nanojoules(nanojoules) => nanojoules,
            Metered::Nothing(why) => {
                log::warn!("{name} has no energy: {why}");
                0
            }
            Metered::Throttled(reasons) => return Err(BenchError::Throttled { rounds: PATIENCE, reasons }),
            Metered::Stopped => return Err(BenchError::Stopped),
        };
        Ok(self.times.add(key, &[nanojoules])?)
    }
}

/// The file of a block's inference graph, among the manifest's.
pub fn graph_file(manifest: &Manifest, block: &Block) -> Option<u32> {
    let (edge, operator) = block.first();
    let owner = Owner::Operator { edge: edge as u16, operator };
    let is = |graph: &&nasbn_models::manifest::Graph| {
        graph.owner == owner && graph.role == Role::Inference && graph.lowering == Lowering::Portable
    };
    manifest.graphs.iter().find(is).map(|graph| graph.file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Map;

    use super::*;

    #[test]
    fn energies_and_lost_rounds_are_no_run_times() {
        let dir = tempfile::tempdir().unwrap();
        let mut times = Times::create(&dir.path().join("r"), &Map::new()).unwrap();
        let models = [THROTTLED, "energy of run.onnx"].map(model_name);
        for (name, value) in [("network 01", 5), (THROTTLED, 1), ("energy 01", 7), (THROTTLED, 1)] {
            times.add(name, &[value]).unwrap();
        }
        for model in &models {
            times.add(model, &[3]).unwrap();
        }
        let names: Vec<&str> = run_times(&times).map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["model energy of run.onnx", "model throttled rounds", "network 01"]);
        assert_eq!(throttled_rounds(&times), 2);
    }
}
