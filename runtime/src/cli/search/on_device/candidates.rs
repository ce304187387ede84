//! What is asked of networks: cheaply of many, dearly of a few.

use std::{
    path::Path as FsPath,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nasbn_export::bundle::Bundle;
use nasbn_models::{Path, Supernet, cost::CostTable};

use crate::{
    cli::{Exit, Failure, budget::Planned, output, search::check_interrupted},
    composite::{self, Composite, CompositeError, ReferenceOptions},
    data::Dataset,
    engine::Opener,
    indicators::catalogue::{self, Indicator, Measurement},
    latency::{
        LatencyTable, Rules, Timing,
        bench::{Bench, energy_of, network_name},
        record::Times,
    },
    network::Network,
    parameters::{BnParameters, Layout},
    score::Scorer,
    search::{
        archive::Assessed,
        finalists::{Dear, Margins},
        record::Record,
    },
};

use super::demands::Demands;

/// Where scores come from.
pub enum Source<'a> {
    /// Tables of the composite filter; its parts, measured on the network itself, decide.
    Composite {
        network: &'a mut Network,
        composite: &'a Composite,
        initial: &'a BnParameters,
        data: &'a Dataset,
        options: ReferenceOptions,
    },
    /// One indicator filters and decides.
    Indicator(Box<Scorer<'a>>),
}

/// Everything that is asked of networks in a search.
pub struct Candidates<'a> {
    pub bundle: &'a Bundle,
    pub supernet: &'a Supernet,
    pub costs: &'a CostTable,
    pub table: &'a LatencyTable,
    pub demands: Demands<'a>,
    pub indicator: &'static Indicator,
    pub source: Source<'a>,
    pub record: &'a mut Record,
    pub times: &'a mut Times,
    pub opener: &'a Opener,
    pub root: &'a FsPath,
    pub min_time: Duration,
    pub seed: u64,
    pub interrupted: &'a AtomicBool,
    pub planned: Option<Planned>,
    pub quiet: bool,
}

impl Candidates<'_> {
    /// Score, predicted latency and excess over all limits with these margins; what is over them is not scored if that is
    /// dear.
    pub fn cheap(&mut self, path: &Path, margins: &Margins) -> Result<Assessed, Failure> {
        let excess = self.demands.excess(path, margins);
        let is_read =
            matches!(self.source, Source::Composite { .. }) || self.indicator.measurement == Measurement::Cost;
        let score = if excess > 0.0 && !is_read { f64::NAN } else { self.score(path)? };
        Ok(Assessed { score, cost: self.table.latency(path), excess })
    }

    /// The score that filters.
    fn score(&mut self, path: &Path) -> Result<f64, Failure> {
        let scorer = match &mut self.source {
            Source::Composite { composite, .. } => return Ok(composite.score(path)),
            Source::Indicator(scorer) => scorer,
        };
        if let Some(cost) = catalogue::cost(self.indicator, &self.costs.cost(path)) {
            return Ok(self.indicator.direction.score(cost));
        }
        let (indicator, interrupted, planned) = (self.indicator, self.interrupted, &mut self.planned);
        self.record.score(self.supernet, path, || {
            check_interrupted(interrupted)?;
            if let Some(planned) = planned {
                planned.look(scorer.network_mut())?;
            }
            let value = scorer.values(path)?.first().copied().unwrap_or(f64::NAN);
            Ok(indicator.direction.score(value))
        })
    }

    /// The score that decides, and the latency and energy as measured.
    pub fn dear(&mut self, paths: &[Path]) -> Result<Vec<Dear>, Failure> {
        let scores = self.scores(paths)?;
        self.planned.as_ref().map_or(Ok(()), Planned::check)?;
        self.measure(paths)?;
        self.planned.as_ref().map_or(Ok(()), Planned::check)?;
        let latency = |path: &Path| Timing::of(self.times.of(&network_name(self.bundle, path)));
        let dear = |(path, score): (&Path, f64)| Dear {
            score,
            latency_ms: latency(path).map_or(f64::NAN, |timing| timing.median_ms),
            energy_mj: energy_of(self.times, self.bundle, path),
            predicted_mj: self.table.energy(path),
        };
        Ok(paths.iter().zip(scores).map(dear).collect())
    }

    fn scores(&mut self, paths: &[Path]) -> Result<Vec<f64>, Failure> {
        if matches!(self.source, Source::Indicator(_)) {
            // Also of what is over a limit as predicted: here it is measured.
            return paths.iter().map(|path| self.score(path)).collect();
        }
        let Source::Composite { network, composite, initial, data, options } = &mut self.source else {
            return Ok(Vec::new());
        };
        let left: Vec<Path> = paths.iter().filter(|path| self.record.known(path).is_none()).cloned().collect();
        let bar = output::bar(0, self.quiet);
        bar.set_message("finalists: composite");
        let go_on = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            !self.interrupted.load(Ordering::SeqCst)
        };
        let scores = composite::score_candidates(network, data, initial, options, composite, &left, go_on);
        bar.finish_and_clear();
        let scores = scores.map_err(|error| match error {
            CompositeError::Engine(error) => error.into(),
            CompositeError::Stopped { done, all } => {
                let message = format!("stopped after {done} of {all} measurements of finalists, which are begun again");
                Failure::usage(message).with_exit(Exit::Stopped).hint("go on with the same command and --resume")
            }
            other => Failure::usage(&other).hint(other.hint()),
        })?;
        for (path, score) in left.iter().zip(scores) {
            self.record.score(self.supernet, path, || Ok::<_, Failure>(score))?;
        }
        Ok(paths.iter().map(|path| self.record.known(path).unwrap_or(f64::NAN)).collect())
    }

    fn measure(&mut self, paths: &[Path]) -> Result<(), Failure> {
        let bar = output::bar(1000, self.quiet);
        bar.set_message("finalists: latency");
        let rules = Rules {
            warmup: Duration::from_millis(100),
            min_time: self.min_time,
            min_runs: 10,
            visit: Duration::from_millis(30),
            seed: self.seed,
        };
        let mut bench = Bench {
            opener: self.opener,
            times: self.times,
            root: self.root,
            batch: self.table.conditions.batch,
            interrupted: self.interrupted,
        };
        let layout = Layout::new(self.supernet);
        let show = |share: f64| bar.set_position((1000.0 * share) as u64);
        let measured = bench.networks(self.bundle, &layout, paths, &rules, show);
        bar.finish_and_clear();
        Ok(measured?)
    }
}
