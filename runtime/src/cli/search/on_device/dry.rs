//! `--dry-run`: what a search would look at and measure, and whether its limits are possible as far as is predicted.

use nasbn_models::{Path, Supernet, canonical::CanonicalTable};
use serde_json::json;

use crate::{
    cli::{Exit, Failure, output, search::SearchArgs},
    indicators::catalogue::Measurement,
    search::{ENUMERABLE, finalists::Plan},
};

use super::{
    Objective,
    demands::{Demands, Judged},
};

/// What is known before a search.
pub struct Dry<'a> {
    pub args: &'a SearchArgs,
    pub objective: &'a Objective,
    pub plan: &'a Plan,
    pub demands: Demands<'a>,
    pub supernet: &'a Supernet,
    /// The only networks to search among, if some are given.
    pub among: Option<&'a [Path]>,
}

impl Dry<'_> {
    /// Says it; nothing else is done.
    pub fn say(&self) -> Result<Exit, Failure> {
        let Self { args, objective, plan, .. } = *self;
        let looked_at = self.looked_at();
        let composite = objective.indicator.measurement == Measurement::Composite;
        let options = args.reference.options();
        let [reference, draws] = if composite { [options.paths, options.draws] } else { [0, 0] };
        let measured = 2 * plan.finalists;
        let at_most = measured * (1 + plan.replacements);
        // Random search runs as many; of a list, or a space that is looked at as a whole, it draws from what was run.
        let run = if plan.free {
            0
        } else if args.paths.is_some() {
            looked_at
        } else {
            2 * looked_at
        };
        let seconds = measured as f64 * args.min_time.as_secs_f64();
        let Judged { fastest, nearest, unjudged } = self.demands.judged(self.supernet, self.among);
        let budget = plan.budget.latency_ms;
        let gap = fastest.as_ref().map(|(_, ms)| ms - budget).filter(|&gap| gap > 0.0);
        if args.output.json {
            output::json(&json!({
                "reference_paths": reference, "reference_draws": draws, "looked_at_at_most": looked_at as f64, "run_at_most": run as f64,
                "measured": measured, "measured_at_most": at_most, "measuring_seconds": seconds,
                "fastest": fastest.as_ref().map(|(path, _)| self.supernet.format_path(path)),
                "fastest_predicted_ms": fastest.as_ref().map(|(_, ms)| ms), "gap_ms": gap,
                "nearest": nearest.as_ref().map(|(path, _)| self.supernet.format_path(path)),
                "over": nearest.as_ref().map_or(&[][..], |(_, over)| over), "not_looked_at": unjudged,
            }))?;
            return Ok(Exit::Done);
        }
        if composite {
            output::line(format!("composite     measured on {reference} reference paths in {draws} draws of images"))?;
        }
        let free = match plan.free {
            true => "without running one".to_owned(),
            false => format!("{run} runs of networks, random search's among them"),
        };
        output::line(format!("look at       up to {looked_at} networks, {free}"))?;
        let energy = if plan.budget.energy_mj.is_some() { ", energy" } else { "" };
        output::line(format!(
            "measure       {} finalists and as many of random search: {}{energy} of each, {} of latency at least; where some do \
             not keep the budget, up to {at_most} networks in all",
            plan.finalists,
            if composite { "composite and latency" } else { "objective and latency" },
            in_words(seconds)
        ))?;
        if let Some((path, over)) = nearest {
            let path = self.supernet.format_path(&path);
            output::line(format!("limits        impossible: of the nearest network, {path}, {}", over.join("; ")))?;
        }
        if !unjudged.is_empty() {
            let options = unjudged.join(", ");
            output::line(format!("limits        not looked at, as there are too many networks to list: {options}"))?;
        }
        let Some((path, ms)) = fastest else { return Ok(Exit::Done) };
        let path = self.supernet.format_path(&path);
        let judged = unjudged.is_empty() && self.demands.has_others();
        let within = if judged { " within the other limits" } else { "" };
        match gap {
            Some(gap) => output::line(format!(
                "budget        impossible as predicted: the fastest network{within}, {path}, would take {ms:.3} ms, {gap:.3} ms ({:.1} %) \
                 more than {budget} ms{}",
                100.0 * gap / budget,
                self.error()
            ))?,
            None => output::line(format!(
                "budget        {budget} ms; the fastest network{within}, {path}, would take {ms:.3} ms{}",
                self.error()
            ))?,
        }
        Ok(Exit::Done)
    }

    /// How far off predictions are, in words.
    fn error(&self) -> String {
        let error = self
            .demands
            .table
            .error
            .map(|error| format!(" (predictions are off by {:.1} % on average)", 100.0 * error.mape));
        error.unwrap_or_default()
    }

    /// Networks that the first step looks at, at most.
    fn looked_at(&self) -> u128 {
        match self.among {
            Some(among) => among.len() as u128,
            None if self.plan.free && self.supernet.path_count() <= ENUMERABLE => {
                CanonicalTable::new(self.supernet).count(self.supernet)
            }
            None => self.plan.evaluations as u128,
        }
    }
}

/// Seconds in words, to two digits where they are few.
fn in_words(seconds: f64) -> String {
    match seconds {
        s if s >= 9.5 => format!("{s:.0} s"),
        s if s >= 0.95 => format!("{s:.1} s"),
        s => format!("{:.0} ms", 1000.0 * s),
    }
}
