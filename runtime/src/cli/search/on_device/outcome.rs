//! What a latency-aware search has found, said and written.

use std::collections::HashSet;

use nasbn_models::{Path, Supernet, cost::CostTable};

use super::{
    Objective, ReportImages, SearchArgs,
    demands::{Demand, Demands},
};
use crate::{
    atomic,
    board::Board,
    cli::{
        Exit, Failure,
        budget::{Planned, say_json},
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
        FoundBy, Method,
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
        let distinct: HashSet<&Path> = found.measured().map(|finalist| &finalist.path).collect();
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
            measured: distinct.len(),
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
        files.write(out, "winner")?;
        let csv = report.pareto_csv().map_err(|e| Failure::usage(format!("pareto.csv: {e}")))?;
        let json = serde_json::to_string_pretty(report).map_err(Failure::usage)?;
        let html = report.html();
        for (name, bytes) in
            [("pareto.csv", csv), ("result.json", json.into_bytes()), ("report.html", html.into_bytes())]
        {
            let file = out.join(name);
            atomic::write(&file, &bytes).map_err(|e| Failure::file(&file, &e))?;
        }
        Ok(())
    }

    /// That no network keeps the limits, for JSON.
    pub fn infeasible(&self) -> serde_json::Value {
        let (fastest, nearest) = (self.found.fastest(), self.found.nearest.as_ref());
        serde_json::json!({
            "feasible": false,
            "limits": self.limits,
            "fastest": fastest.map(|f| self.supernet.format_path(&f.path)),
            "fastest_ms": fastest.map(|f| f.dear.latency_ms),
            "gap_ms": fastest.map(|f| f.dear.latency_ms - self.limits.latency_ms),
            "nearest": nearest.map(|n| self.supernet.format_path(&n.path)),
            "nearest_predicted_ms": nearest.map(|n| n.assessed.cost),
            "nearest_excess": nearest.map(|n| n.assessed.excess),
        })
    }

    /// Why there is no winner.
    pub fn nothing_fits(&self) -> Failure {
        let budget = self.limits.latency_ms;
        let message = match (self.found.fastest(), &self.found.nearest) {
            (Some(fastest), _) if fastest.dear.latency_ms > budget => format!(
                "no network keeps the latency budget of {budget} ms: the fastest measured, {}, takes {:.3} ms, {:.3} ms \
                 ({:.1} %) more",
                self.supernet.format_path(&fastest.path),
                fastest.dear.latency_ms,
                fastest.dear.latency_ms - budget,
                100.0 * (fastest.dear.latency_ms / budget - 1.0)
            ),
            (Some(fastest), _) if !fastest.keeps(&self.budget()) => format!(
                "no network that was measured keeps the energy budget of {} mJ; the fastest, {}, takes {:.2} mJ a run",
                self.limits.energy_mj.unwrap_or(f64::INFINITY),
                self.supernet.format_path(&fastest.path),
                fastest.dear.energy_mj.unwrap_or(f64::NAN)
            ),
            (None, Some(nearest)) => format!(
                "no network is within the limits: the nearest found, {}, does not keep {}",
                self.supernet.format_path(&nearest.path),
                self.demands.of(&nearest.path).iter().filter_map(Demand::over).collect::<Vec<_>>().join("; ")
            ),
            _ => "no network within the limits has a score that is a number".to_owned(),
        };
        let hint = match self.found.fastest() {
            Some(fastest) if !fastest.keeps(&self.budget()) => {
                "raise the budget by that much, or export a smaller space (--width, --image-size)"
            }
            Some(_) => "search for another --objective: this one is not a number here",
            None => "raise that limit, or export a smaller space (--width, --image-size)",
        };
        Failure::usage(message).with_exit(Exit::Infeasible).hint(hint)
    }
}

/// Says what was found.
pub fn say(args: &SearchArgs, report: &SearchReport, planned: Option<&Planned>) -> Result<(), Failure> {
    let memory = planned.map(Planned::end);
    if args.output.json {
        return say_json(report, memory);
    }
    if args.output.quiet {
        return Ok(());
    }
    let method = match report.method {
        Method::Exhaustive => "every network of the space",
        Method::Evolution => "NSGA-II",
    };
    output::line(format!("looked at     {} networks ({method})", report.looked_at))?;
    output::line(format!("measured      {} networks, random search's among them", report.measured))?;
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
