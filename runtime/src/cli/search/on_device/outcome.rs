//! What a latency-aware search has found, said and written.

use std::collections::HashSet;

use nasbn_models::{Path, Supernet, cost::CostTable};

use super::{
    Objective, ReportImages, SearchArgs,
    demands::{Demand, Demands},
};
use crate::{
    board::Board,
    cli::{
        Exit, Failure,
        budget::{Report as Memory, say_json},
        output,
        search::measure,
        setup,
    },
    composite::Composite,
    data::Normaliser,
    indicators::catalogue::{Direction, Measurement},
    latency::{
        Conditions, LatencyTable, Statistic, Timing,
        bench::{network_name, throttled_rounds},
        record::Times,
    },
    parameters::BnParameters,
    report::{self, BudgetLimits, MeasuredNetwork, PartOfScore, PointOfFront, SearchReport, TableSummary},
    search::{
        FoundBy,
        finalists::{Budget, Finalist, Found},
    },
    subnet,
    validation::recalibrate,
};

/// Files that are written into --out.
const FILES: [&str; 6] =
    ["winner.onnx", "winner.safetensors", "winner.json", "pareto.csv", "result.json", "report.html"];

/// What was found, and what it takes to tell it.
pub struct Outcome<'a> {
    pub args: &'a SearchArgs,
    pub objective: &'a Objective,
    pub table: &'a LatencyTable,
    pub demands: Demands<'a>,
    pub limits: BudgetLimits,
    pub supernet: &'a Supernet,
    pub costs: &'a CostTable,
    pub times: &'a Times,
    pub composite: Option<&'a Composite>,
    pub found: &'a Found,
    /// Under what conditions finalists were measured.
    pub conditions: Conditions,
    pub before: Board,
}

impl Outcome<'_> {
    /// The report of a search that has a winner.
    pub fn report(
        &self,
        session: &mut setup::Session,
        parameters: &BnParameters,
        images: &ReportImages,
        winner: &Finalist,
    ) -> Result<SearchReport, Failure> {
        let Self { args, found, supernet, table, .. } = *self;
        let budget = self.budget();
        let mut best = |finalist: &Finalist| -> Result<MeasuredNetwork, Failure> {
            let validation = measure(&mut session.network, &finalist.path, parameters, images)?;
            Ok(MeasuredNetwork { validation: Some(validation), ..self.network(&session.bundle, finalist)? })
        };
        let winning = best(winner)?;
        let random_search = match found.best_of_random(&budget) {
            Some(random) if random.path == winner.path => Some(winning.clone()),
            Some(random) => Some(best(random)?),
            None => None,
        };
        let all = |finalists: &[Finalist]| -> Result<Vec<MeasuredNetwork>, Failure> {
            finalists.iter().map(|finalist| self.network(&session.bundle, finalist)).collect()
        };
        let paths: Vec<Path> = found.front.iter().map(|entry| entry.path.clone()).collect();
        // Searches maximise: its negative brings a lower one back.
        let direction = self.objective.indicator.direction;
        let point = |entry: &crate::search::archive::Entry| PointOfFront {
            path: supernet.format_path(&entry.path),
            fitted_score: direction.score(entry.assessed.score),
            predicted_ms: entry.assessed.cost,
        };
        let part =
            |part: &crate::composite::Part| PartOfScore { indicator: part.indicator.clone(), weight: part.weight };
        let composite = self.objective.indicator.measurement == Measurement::Composite;
        Ok(SearchReport {
            schema: report::SCHEMA,
            generator: format!("nasbn {}", env!("CARGO_PKG_VERSION")),
            command: std::env::args().collect(),
            space: supernet.name.clone(),
            seed: args.seed,
            objective: self.objective.name.clone(),
            direction,
            decided_by_measurement: composite || !self.objective.is_cheap(),
            parts: self.composite.map_or_else(Vec::new, |c| c.parts().iter().map(part).collect()),
            limits: self.limits,
            method: found.method,
            looked_at: found.looked_at,
            measured: self.measured(),
            margins: found.margins,
            throttled_rounds: throttled_rounds(self.times),
            conditions: self.conditions.clone(),
            report_images: winning.validation.map_or(0, |validation| validation.images),
            winner: winning,
            blocks: report::blocks(supernet, self.costs, table, &winner.path),
            random_search,
            finalists: all(&found.finalists)?,
            random: all(&found.random)?,
            front: found.front.iter().map(point).collect(),
            operators: report::shares(supernet, &paths, &winner.path),
            table: TableSummary::of(table),
            before: self.before.clone(),
            after: Board::read(&args.root),
            files: FILES.map(str::to_owned).to_vec(),
        })
    }

    fn budget(&self) -> Budget {
        Budget { latency_ms: self.limits.latency_ms, energy_mj: self.limits.energy_mj }
    }

    fn network(&self, bundle: &nasbn_export::bundle::Bundle, finalist: &Finalist) -> Result<MeasuredNetwork, Failure> {
        let path = self.supernet.format_path(&finalist.path);
        let latency = Timing::of(self.times.of(&network_name(bundle, &finalist.path))).ok_or_else(|| {
            Failure::usage(format!("{path} was not measured")).hint("go on with the same command and --resume")
        })?;
        let cost = self.costs.cost(&finalist.path);
        let direction = self.objective.indicator.direction;
        Ok(MeasuredNetwork {
            path,
            found_by: finalist.found_by,
            within_budget: finalist.keeps(&self.budget()),
            score: direction.score(finalist.dear.score),
            fitted_score: direction.score(finalist.cheap_score),
            ranks: self.composite.map_or_else(Vec::new, |composite| composite.ranks(&finalist.path).collect()),
            predicted_ms: finalist.predicted_ms,
            latency,
            energy_mj: finalist.dear.energy_mj,
            macs: cost.macs,
            params: cost.params,
            depth: cost.depth,
            peak_activation_bytes: cost.peak_activation_bytes,
            validation: None,
        })
    }

    /// Writes the winner and what is said of it.
    pub fn write(
        &self,
        session: &mut setup::Session,
        parameters: &BnParameters,
        (images, normaliser): (&ReportImages, &Normaliser),
        winner: &Finalist,
        report: &SearchReport,
    ) -> Result<(), Failure> {
        let (path, out) = (&winner.path, &self.args.out);
        let statistics = recalibrate(&mut session.network, path, parameters, images.training)?;
        let conditions = &report.conditions;
        let extra = [
            ("objective".to_owned(), report.objective.clone()),
            ("score".to_owned(), report.winner.score.to_string()),
            ("macs".to_owned(), report.winner.macs.to_string()),
            ("latency_ms".to_owned(), report.winner.latency.median_ms.to_string()),
            ("latency_budget_ms".to_owned(), self.limits.latency_ms.to_string()),
            ("latency_device".to_owned(), conditions.device.clone()),
            ("latency_provider".to_owned(), conditions.provider.clone()),
        ];
        let layout = session.network.layout();
        let files = subnet::files(&session.bundle, layout, path, parameters, &statistics, normaliser, &extra)?;
        let csv = report.pareto_csv().map_err(|e| Failure::usage(format!("pareto.csv: {e}")))?;
        let json = serde_json::to_string_pretty(report).map_err(Failure::usage)?;
        let html = report.html();
        let said = [
            ("pareto.csv", csv.as_slice()),
            ("report.html", html.as_bytes()),
            // The last, so that a result that says how to use the other files is not there without them.
            ("result.json", json.as_bytes()),
        ];
        // Scores and times are on file.
        files.write(out, "winner", &said).map_err(|error| Failure::from(error).resumable())?;
        Ok(())
    }

    /// That no network keeps the limits, for JSON.
    pub fn infeasible(&self) -> serde_json::Value {
        let (fastest, frugal, nearest) = (self.found.fastest(), self.frugal(), self.found.nearest.as_ref());
        let (latency, energy) = (self.limits.latency_ms, self.limits.energy_mj);
        let name = |finalist: &Finalist| self.supernet.format_path(&finalist.path);
        let over = |gap: f64| Some(gap).filter(|&gap| gap > 0.0);
        let energy_gap = || over(frugal?.dear.energy_mj? - energy?);
        serde_json::json!({
            "feasible": false,
            "limits": self.limits,
            "measured": self.measured(),
            "fastest": fastest.map(name),
            "fastest_ms": fastest.map(|f| f.dear.latency_ms),
            "gap_ms": fastest.and_then(|f| over(f.dear.latency_ms - latency)),
            "least_energy": frugal.map(name),
            "least_energy_mj": frugal.and_then(|f| f.dear.energy_mj),
            "energy_gap_mj": energy_gap(),
            "nearest": nearest.map(|n| self.supernet.format_path(&n.path)),
            "nearest_predicted_ms": nearest.map(|n| n.assessed.cost),
            "nearest_excess": nearest.map(|n| n.assessed.excess),
        })
    }

    /// How many different networks were measured.
    fn measured(&self) -> usize {
        self.found.measured().map(|finalist| &finalist.path).collect::<HashSet<_>>().len()
    }

    /// The measured network of the least energy, if any energy was measured.
    fn frugal(&self) -> Option<&Finalist> {
        let energies = self.found.measured().filter_map(|f| Some((f.dear.energy_mj?, f)));
        energies.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.path.cmp(&b.1.path))).map(|(_, finalist)| finalist)
    }

    /// Why there is no winner.
    pub fn nothing_fits(&self) -> Failure {
        let budget = self.budget();
        if self.found.measured().any(|finalist| finalist.keeps(&budget)) {
            let message = "no network within the limits has a score that is a number".to_owned();
            return failure(message, "search for another --objective: this one is not a number here");
        }
        let Some(fastest) = self.found.fastest() else {
            let Some(nearest) = &self.found.nearest else {
                return failure("there is no network to search among".to_owned(), "give --paths at least one network");
            };
            let message = format!(
                "no network is within the limits: the nearest found, {}, does not keep {}",
                self.supernet.format_path(&nearest.path),
                self.demands.of(&nearest.path).iter().filter_map(Demand::over).collect::<Vec<_>>().join("; ")
            );
            return failure(message, "raise that limit, or export a smaller space (--width, --image-size)");
        };
        let limit = budget.latency_ms;
        if fastest.dear.latency_ms > limit {
            let message = format!(
                "no network keeps the latency budget of {limit} ms: the fastest measured, {}, takes {:.3} ms, {:.3} ms \
                 ({:.1} %) more",
                self.supernet.format_path(&fastest.path),
                fastest.dear.latency_ms,
                fastest.dear.latency_ms - limit,
                100.0 * (fastest.dear.latency_ms / limit - 1.0)
            );
            return failure(message, RAISE);
        }
        self.no_energy_fits(fastest)
    }

    /// Why there is no winner where the fastest network keeps the latency budget.
    fn no_energy_fits(&self, fastest: &Finalist) -> Failure {
        let (budget, measured) = (self.budget(), self.measured());
        let limit = budget.energy_mj.unwrap_or(f64::INFINITY);
        let Some((frugal, energy)) = self.frugal().and_then(|f| Some((f, f.dear.energy_mj?))) else {
            let message = format!(
                "an energy budget of {limit} mJ cannot be kept: no energy of the {measured} networks was measured"
            );
            return failure(message, "see the warnings above: the power rails have to be read while networks run");
        };
        let name = |finalist: &Finalist| self.supernet.format_path(&finalist.path);
        if frugal.keeps_energy(&budget) {
            let takes = fastest.dear.energy_mj.map_or_else(|| "?".to_owned(), |energy| format!("{energy:.3}"));
            let message = format!(
                "none of the {measured} networks that were measured keeps both {} ms and {limit} mJ: the fastest, {}, takes \
                 {:.3} ms and {takes} mJ, that of the least energy, {}, {:.3} ms and {energy:.3} mJ",
                budget.latency_ms,
                name(fastest),
                fastest.dear.latency_ms,
                name(frugal),
                frugal.dear.latency_ms
            );
            return failure(message, "raise one of the budgets, or export a smaller space (--width, --image-size)");
        }
        let message = format!(
            "none of the {measured} networks that were measured keeps the energy budget of {limit} mJ: that of the least, {}, \
             takes {energy:.3} mJ, {:.3} mJ ({:.1} %) more",
            name(frugal),
            energy - limit,
            100.0 * (energy / limit - 1.0)
        );
        failure(message, RAISE)
    }
}

/// What to do about a budget that none keeps.
const RAISE: &str = "raise the budget by that much, or export a smaller space (--width, --image-size)";

/// A search without a winner.
fn failure(message: String, hint: &str) -> Failure {
    Failure::usage(message).with_exit(Exit::Infeasible).hint(hint)
}

/// Says what was found.
pub fn say(args: &SearchArgs, report: &SearchReport, memory: Option<Memory>) -> Result<(), Failure> {
    if args.output.json {
        return say_json(report, memory);
    }
    if args.output.quiet {
        return Ok(());
    }
    output::line(format!("looked at     {} networks ({})", report.looked_at, report.method.words()))?;
    output::line(format!("measured      {} networks, random search's among them", report.measured))?;
    if let Some(words) = report.far_off() {
        output::line(format!("              ({words})"))?;
    }
    let (score, better) = match report.direction {
        Direction::Higher => ("score", ""),
        Direction::Lower => (report.objective.as_str(), " (lower is better)"),
    };
    let of = match report.table.statistic {
        Statistic::Median => String::new(),
        other => format!("{other} "),
    };
    let row = |name: &str, network: &MeasuredNetwork| {
        let accuracy = network.validation.map_or(String::new(), |v| format!("  accuracy {:.2} %", 100.0 * v.accuracy));
        format!(
            "{name:<13} {}  {:.3} ms (predicted {of}{:.3})  {score} {:.4}{better}  {:.2} M MACs{accuracy}",
            network.path,
            network.latency.median_ms,
            network.predicted_ms,
            network.score,
            network.macs as f64 / 1e6
        )
    };
    output::line(row("winner", &report.winner))?;
    if report.winner.found_by == FoundBy::RandomSearch {
        output::line("              (random search met it; the search proposed none as good)")?;
    }
    if report.random.len() < report.finalists.len() {
        output::line(format!(
            "              (random search met only {} networks within the limits, against {} finalists)",
            report.random.len(),
            report.finalists.len()
        ))?;
    }
    match &report.random_search {
        Some(random) => output::line(row("random search", random))?,
        None => output::line("random search none: not one of its networks keeps the budget as measured")?,
    }
    output::line(format!(
        "(accuracy with inherited BatchNorm, statistics recalibrated, on {} validation images that the search did not see)",
        report.report_images
    ))?;
    for file in &report.files {
        output::line(format!("wrote         {}", args.out.join(file).display()))?;
    }
    Ok(())
}
