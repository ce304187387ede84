//! The top of the page: what was found, where, and how good it is.

use super::figure::{code, figure, found_by, millions, percent, score};
use crate::{indicators::catalogue::Direction, plot::escape, report::SearchReport, search::FoundBy};

pub fn header(report: &SearchReport) -> String {
    let conditions = &report.conditions;
    let threads = match conditions.threads {
        1 => "1 thread".to_owned(),
        threads => format!("{threads} threads"),
    };
    let mode = conditions.power_mode.as_ref().map_or_else(String::new, |mode| format!(" · power mode {mode}"));
    let under = escape(&format!(
        "{} · {} · {threads} · batch {}{mode} · ONNX Runtime {}",
        conditions.provider, conditions.precision, conditions.batch, conditions.onnxruntime
    ));
    format!(
        "<header>\n<p class=\"above\">Latency-aware search</p>\n<h1>{} on {}</h1>\n<p class=\"under\">{under}</p>\n\
         <p class=\"path\"><span>winner</span> {}</p>\n<div class=\"tiles\">\n{}</div>\n<p class=\"verdict\">{}</p>\n\
         </header>\n",
        escape(&report.space),
        escape(&conditions.device),
        code(&report.winner.path),
        tiles(report),
        verdict(report)
    )
}

fn tile(name: &str, value: &str, below: &str) -> String {
    format!("<div class=\"tile\"><h2>{name}</h2><p class=\"big\">{value}</p><p>{below}</p></div>\n")
}

fn tiles(report: &SearchReport) -> String {
    let winner = &report.winner;
    let timing = &winner.latency;
    let mut tiles = tile(
        "Measured latency",
        &format!("{} <small>ms</small>", figure("winner.latency.median_ms", timing.median_ms, 3)),
        &format!(
            "median; p95 {} ms; budget {} ms",
            figure("winner.latency.p95_ms", timing.p95_ms, 3),
            figure("limits.latency_ms", report.limits.latency_ms, 3)
        ),
    );
    let beside = report.random_search.as_ref().map_or_else(
        || "; random search kept the budget with none".to_owned(),
        |random| format!("; random search {}", score("random_search.score", random.score)),
    );
    tiles += &tile(
        "Score",
        &score("winner.score", winner.score),
        &format!("{}, {} is better{beside}", escape(&report.objective), better(report.direction)),
    );
    if let Some(validation) = winner.validation {
        tiles += &tile(
            "Accuracy",
            &percent("winner.validation.accuracy", validation.accuracy, 2),
            &format!("with inherited BatchNorm, before training; {} images", validation.images),
        );
    }
    tiles += &tile(
        "Multiply-accumulates",
        &millions("winner.macs", winner.macs),
        &format!("{} parameters; {} layers that compute", millions("winner.params", winner.params), winner.depth),
    );
    if let Some(energy) = winner.energy_mj {
        tiles += &tile(
            "Energy of a run",
            &format!("{} <small>mJ</small>", figure("winner.energy_mj", energy, 2)),
            "as measured at the board's power rails",
        );
    }
    tiles
}

/// Which values are better, in a word.
fn better(direction: Direction) -> &'static str {
    match direction {
        Direction::Higher => "larger",
        Direction::Lower => "lower",
    }
}

/// What to think of it, in words.
fn verdict(report: &SearchReport) -> String {
    let winner = &report.winner;
    let keeps = if winner.within_budget {
        "The winner keeps the budget as measured."
    } else {
        "<strong>The winner does not keep the budget as measured.</strong>"
    };
    let met = match (winner.found_by, &report.random_search) {
        (FoundBy::RandomSearch, _) => {
            "Random search met it; the search itself proposed none as good. The search has gained nothing over chance here."
                .to_owned()
        }
        (by, Some(random)) if random.path == winner.path => {
            format!("It was proposed by the {}, and random search met the same network.", found_by(by))
        }
        (by, Some(_)) => format!(
            "It was proposed by the {}; the best that random search found within the budget, with as many measurements, is \
             another network.",
            found_by(by)
        ),
        (by, None) => format!(
            "It was proposed by the {}; not one network of random search, with as many measurements, keeps the budget.",
            found_by(by)
        ),
    };
    format!("{keeps} {}", met.replace("the evolution", "evolution"))
}
