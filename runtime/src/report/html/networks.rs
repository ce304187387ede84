//! Every network that was measured, as a table.

use super::{
    figure::{code, count, figure, found_by, scaled, score, table},
    section as framed,
};
use crate::report::{MeasuredNetwork, SearchReport};

pub fn section(report: &SearchReport) -> String {
    let all = || report.finalists.iter().chain(&report.random);
    let energy = all().any(|network| network.energy_mj.is_some());
    let lists = [("finalists", &report.finalists), ("random", &report.random)];
    let rows: String = lists
        .into_iter()
        .flat_map(|(list, networks)| {
            networks.iter().enumerate().map(move |(i, network)| (format!("{list}.{i}"), network))
        })
        .map(|(key, network)| row(report, &key, network, energy))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut headings = vec![
        "path",
        "proposed by",
        "budget",
        "score",
        "fitted score",
        "latency, ms",
        "p95, ms",
        "predicted, ms",
        "MACs, M",
        "parameters, M",
        "depth",
        "memory, KiB",
    ];
    if energy {
        headings.push("energy, mJ");
    }
    let body = format!(
        "<p>The search's finalists first, then random search's. The winner's rows are marked. Depth counts layers that \
         compute; memory is the peak of one image's activations.</p>\n{}",
        table("numbers", &headings, &rows)
    );
    framed("networks", "Measured networks", &body)
}

fn row(report: &SearchReport, key: &str, network: &MeasuredNetwork, energy: bool) -> String {
    let at = |field: &str| format!("{key}.{field}");
    let class = if network.path == report.winner.path { " class=\"winner\"" } else { "" };
    let within = match network.within_budget {
        true => "kept",
        false if !report.is_over_latency(network) && report.energy_is_unknown(network) => "energy not measured",
        false => "<span class=\"over\">over</span>",
    };
    let energy = match network.energy_mj {
        Some(mj) => format!("<td>{}</td>", figure(&at("energy_mj"), mj, 2)),
        None if energy => "<td><span class=\"none\">–</span></td>".to_owned(),
        None => String::new(),
    };
    format!(
        "<tr{class}><td>{}</td><td>{}</td><td>{within}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td>{}</td><td>{}</td><td>{}</td>{energy}</tr>\n",
        code(&network.path),
        found_by(network.found_by),
        score(&at("score"), network.score),
        score(&at("fitted_score"), network.fitted_score),
        figure(&at("latency.median_ms"), network.latency.median_ms, 3),
        figure(&at("latency.p95_ms"), network.latency.p95_ms, 3),
        figure(&at("predicted_ms"), network.predicted_ms, 3),
        scaled(&at("macs"), network.macs as f64, 1e-6, 1),
        scaled(&at("params"), network.params as f64, 1e-6, 2),
        count(&at("depth"), u64::from(network.depth)),
        scaled(&at("peak_activation_bytes"), network.peak_activation_bytes as f64, 1.0 / 1024.0, 0)
    )
}
