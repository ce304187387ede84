//! Score over latency, and latency as predicted over latency as measured.

use super::figure::{count, figure, legend, number, percent, score_decimals};
use crate::{
    indicators::catalogue::Direction,
    latency::PredictionError,
    plot::{Labels, Mark, Marked, Spot, Tone, Upright, escape, inlined, key, marked},
    report::{MeasuredNetwork, SearchReport},
};

pub fn section(report: &SearchReport) -> String {
    format!("<div class=\"pair\">\n{}{}</div>\n", front(report), predictions(report))
}

fn chart(id: &str, heading: &str, picture: &str, keys: &[(String, String)], words: &str) -> String {
    format!(
        "<section id=\"{id}\">\n<h2>{heading}</h2>\n{}<figure>\n{}<figcaption>{words}</figcaption>\n</figure>\n</section>\n",
        legend(keys),
        inlined(picture)
    )
}

fn spot((x, y): (f64, f64), what: &str, network: &MeasuredNetwork) -> Spot {
    let says = format!(
        "{what} {}: {} ms measured, {} ms predicted, score {}",
        network.path,
        number(network.latency.median_ms, 3),
        number(network.predicted_ms, 3),
        number(network.score, score_decimals(network.score))
    );
    Spot { x, y, says }
}

fn bare((x, y): (f64, f64)) -> Spot {
    Spot { x, y, says: String::new() }
}

fn series(mark: Mark, tone: Tone, spots: Vec<Spot>) -> Marked {
    Marked { mark, tone, spots, word: String::new() }
}

fn front(report: &SearchReport) -> String {
    let place = |network: &MeasuredNetwork| (network.latency.median_ms, network.score);
    let of = |networks: &[MeasuredNetwork], what: &str, fault: Option<Fault>| -> Vec<Spot> {
        let what = fault.map_or_else(|| what.to_owned(), |fault| format!("{}: {what}", fault.words()));
        let drawn = networks.iter().filter(|network| Fault::of(report, network) == fault);
        drawn.map(|network| spot(place(network), &what, network)).collect()
    };
    let (mut faulty, mut faults) = (Vec::new(), Vec::new());
    for fault in [Fault::OverEnergy, Fault::UnknownEnergy] {
        let lists = [(&report.finalists, "finalist"), (&report.random, "random search")];
        let spots: Vec<Spot> = lists.into_iter().flat_map(|(list, what)| of(list, what, Some(fault))).collect();
        if !spots.is_empty() {
            faults.push(format!("{} ({})", fault.words(), spots.len()));
        }
        faulty.extend(spots);
    }
    let fitted = report.front.iter().map(|p| bare((p.predicted_ms, p.fitted_score))).collect();
    let mut winner = series(Mark::Star, Tone::Ink, vec![spot(place(&report.winner), "winner", &report.winner)]);
    winner.word = "winner".to_owned();
    let all = [
        series(Mark::Dashes, Tone::Faint, fitted),
        series(Mark::Steps, Tone::Faint, best(report).into_iter().map(bare).collect()),
        series(Mark::Disc, Tone::Faint, faulty),
        series(Mark::Diamond, Tone::Orange, of(&report.random, "random search", None)),
        series(Mark::Disc, Tone::Blue, of(&report.finalists, "finalist", None)),
        winner,
    ];
    let labels = Labels {
        title: "Score over measured latency".to_owned(),
        x: "latency, ms (marks: measured, dashes: predicted)".to_owned(),
        y: format!("{} (dashes: fitted)", report.objective),
        ..Labels::default()
    };
    let upright = Upright {
        x: report.limits.latency_ms,
        // As it was given: a budget of microseconds has more decimals than the axis.
        label: format!("budget {} ms", report.limits.latency_ms),
    };
    let mut keys = vec![
        (key(Mark::Star, Tone::Ink), "winner, measured".to_owned()),
        (key(Mark::Disc, Tone::Blue), format!("finalists, measured ({})", report.finalists.len())),
        (key(Mark::Diamond, Tone::Orange), format!("random search, measured ({})", report.random.len())),
        (key(Mark::Steps, Tone::Faint), "best as measured".to_owned()),
        (key(Mark::Dashes, Tone::Faint), "not measured: front by fitted score and predicted latency".to_owned()),
    ];
    if !faults.is_empty() {
        keys.push((key(Mark::Disc, Tone::Faint), format!("of these, {}", faults.join(", "))));
    }
    let words = format!(
        "{} networks were looked at, {} measured end to end on the device. Further {} and to the left is better. Marks and the \
         steps are networks with their {} score and measured latency; the dashed line is what the tables promised before \
         anything was measured. Fitted and measured scores are on scales of their own: marks off the dashed line \
         are no error of the search.",
        count("looked_at", report.looked_at as u64),
        count("measured", report.measured as u64),
        if report.direction == Direction::Lower { "down" } else { "up" },
        measured_or_computed(report)
    );
    chart("front", "Pareto front", &marked(&labels, &all, Some(&upright)), &keys, &words)
}

/// Where the scores of marks come from: those that are not measured are read from the same tables as the fitted ones.
fn measured_or_computed(report: &SearchReport) -> &'static str {
    if report.decided_by_measurement { "measured" } else { "computed" }
}

/// Why a network that keeps the latency budget is no choice, which no axis shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    OverEnergy,
    UnknownEnergy,
}

impl Fault {
    /// That of a network, if it has any.
    fn of(report: &SearchReport, network: &MeasuredNetwork) -> Option<Self> {
        if network.within_budget || report.is_over_latency(network) {
            return None;
        }
        Some(if report.energy_is_unknown(network) { Self::UnknownEnergy } else { Self::OverEnergy })
    }

    fn words(self) -> &'static str {
        match self {
            Self::OverEnergy => "over the energy budget",
            Self::UnknownEnergy => "energy not measured",
        }
    }
}

/// Measured networks that no other beats in both, the fastest first: latency and score. Those with a fault aside.
fn best(report: &SearchReport) -> Vec<(f64, f64)> {
    let all = report.finalists.iter().chain(&report.random).filter(|network| Fault::of(report, network).is_none());
    let all = all.map(|n| (n.latency.median_ms, n.score));
    let mut all: Vec<_> = all.filter(|(ms, score)| ms.is_finite() && score.is_finite()).collect();
    let by_score = |a: f64, b: f64| report.direction.score(b).total_cmp(&report.direction.score(a));
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(by_score(a.1, b.1)));
    let mut highest = f64::NEG_INFINITY;
    all.retain(|&(_, score)| {
        let score = report.direction.score(score);
        let better = score > highest;
        highest = highest.max(score);
        better
    });
    all
}

fn predictions(report: &SearchReport) -> String {
    let table = &report.table;
    let checked: Vec<Spot> = table.checked.iter().map(|&(predicted, measured)| bare((measured, predicted))).collect();
    let place = |network: &MeasuredNetwork| (network.latency.statistic(table.statistic), network.predicted_ms);
    let spots = |networks: &[MeasuredNetwork], what: &str| -> Vec<Spot> {
        networks.iter().map(|network| spot(place(network), what, network)).collect()
    };
    let others = [spots(&report.random, "random search"), spots(&report.finalists, "finalist")];
    let star = series(Mark::Star, Tone::Ink, vec![spot(place(&report.winner), "winner", &report.winner)]);
    let numbers = || {
        let all = checked.iter().chain(others.iter().flatten()).chain(&star.spots);
        all.flat_map(|s| [s.x, s.y]).filter(|v| v.is_finite())
    };
    let ends = [numbers().fold(f64::INFINITY, f64::min), numbers().fold(f64::NEG_INFINITY, f64::max)];
    let keys = [
        (key(Mark::Star, Tone::Ink), "winner".to_owned()),
        (key(Mark::Disc, Tone::Blue), "finalists".to_owned()),
        (key(Mark::Diamond, Tone::Orange), "random search".to_owned()),
        (key(Mark::Dust, Tone::Faint), format!("networks of the table's check ({})", checked.len())),
        (key(Mark::Line, Tone::Faint), "prediction = measurement".to_owned()),
    ];
    let [random, finalists] = others;
    let all = [
        series(Mark::Line, Tone::Faint, ends.map(|v| bare((v, v))).to_vec()),
        series(Mark::Dust, Tone::Faint, checked),
        series(Mark::Diamond, Tone::Orange, random),
        series(Mark::Disc, Tone::Blue, finalists),
        star,
    ];
    let labels = Labels {
        title: "Predicted over measured latency".to_owned(),
        x: format!("{} as measured, ms", table.statistic),
        y: "predicted, ms".to_owned(),
        ..Labels::default()
    };
    chart("predictions", "Latency: predicted against measured", &marked(&labels, &all, None), &keys, &words(report))
}

fn words(report: &SearchReport) -> String {
    let Some(error) = &report.table.error else {
        return escape("The table says no error: it was not checked on networks that were not in its fit.");
    };
    let sums =
        report.table.error_of_sums.as_ref().map_or_else(String::new, |sums| {
            format!(" Plain sums of blocks: {}.", of_error("table.error_of_sums", sums))
        });
    format!(
        "On {} networks that were not in the fit: {}; within 5 %: {}, within 10 %: {}.{sums}",
        count("table.error.networks", u64::from(error.networks)),
        of_error("table.error", error),
        percent("table.error.within_5", error.within_5, 0),
        percent("table.error.within_10", error.within_10, 0)
    )
}

fn of_error(key: &str, error: &PredictionError) -> String {
    format!(
        "mean absolute error (MAPE) {}, Kendall's tau {}",
        percent(&format!("{key}.mape"), error.mape, 2),
        figure(&format!("{key}.kendall_tau"), error.kendall_tau, 3)
    )
}
