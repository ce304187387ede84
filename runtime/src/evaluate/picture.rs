//! Scores against truth, drawn.

use super::{
    Estimate, Report,
    groups::{by_quantile, by_value},
    join::{Column, Population},
};
use crate::plot::{Labels, Series, scatter};

/// Most depths with a colour each; of more, neighbours share one.
const MOST_COLOURS: usize = 9;

/// A scatter plot of a column against the truth, coloured by depth, as SVG.
pub fn picture(population: &Population, column: &Column, truth_column: &str, report: &Report) -> String {
    let point = |i: usize| Some((column.values[i]?, population.truth[i]));
    let whole = |value: f64| format!("{value}");
    let series = match &population.depth {
        None => vec![Series { points: (0..population.truth.len()).filter_map(point).collect(), ..Series::default() }],
        Some(depth) => {
            let groups = by_value(depth);
            let groups = if groups.len() > MOST_COLOURS { by_quantile(depth, MOST_COLOURS) } else { groups };
            let series = groups.iter().map(|group| Series {
                name: if group.min == group.max {
                    whole(group.min)
                } else {
                    format!("{} to {}", whole(group.min), whole(group.max))
                },
                points: group.members.iter().filter_map(|&i| point(i)).collect(),
                dashed: false,
            });
            series.collect()
        }
    };
    let labels = Labels {
        title: format!("{}: Kendall tau {}", column.name, with_interval(&report.kendall_tau)),
        subtitle: format!(
            "{} networks, Spearman {}, tau within MACs {}, within depth {}",
            report.networks,
            short(&report.spearman),
            short(&report.kendall_within_macs.mean),
            short(&report.kendall_within_depth.mean)
        ),
        x: column.name.clone(),
        y: truth_column.to_owned(),
        legend: "depth".into(),
    };
    scatter(&labels, &series)
}

fn short(estimate: &Estimate) -> String {
    match (estimate.value, estimate.undefined) {
        (Some(value), _) => format!("{value:.3}"),
        (None, Some(why)) => format!("undefined ({why})"),
        (None, None) => "undefined".into(),
    }
}

/// An estimate in words: `0.670 [0.651, 0.688]`, or why there is none.
pub fn with_interval(estimate: &Estimate) -> String {
    match (estimate.low, estimate.high) {
        (Some(low), Some(high)) => format!("{} [{low:.3}, {high:.3}]", short(estimate)),
        _ => short(estimate),
    }
}
