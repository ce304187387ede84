//! The winner: its blocks, the parts of its score, and its operators among those of the front.

use super::{
    figure::{figure, legend, millions, number, scaled, table},
    section as framed,
};
use crate::{
    plot::{Block, distinct_colour, escape, inlined, row},
    report::{BlockOfWinner, LayerShares, PartOfScore, SearchReport},
};

/// Colour of operators that no path chooses.
const FIXED: &str = "#8b949e";

/// Operators that paths choose, in the order in which layers name them.
fn names(report: &SearchReport) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in report.operators.iter().flat_map(|layer| &layer.shares) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// The operator's colour: that of a fixed one where no layer names it.
fn colour(report: &SearchReport, operator: &str) -> &'static str {
    names(report).into_iter().position(|name| name == operator).map_or(FIXED, distinct_colour)
}

fn does_nothing(operator: &str) -> bool {
    matches!(operator, "identity" | "skip" | "none")
}

/// The row of blocks, and a table of them.
pub fn section(report: &SearchReport) -> String {
    if report.blocks.is_empty() {
        return String::new();
    }
    // Heights are latencies if all that compute have one.
    let timed = report.blocks.iter().all(|block| block.macs == 0 || block.latency_ms.is_some());
    let drawn = |block: &BlockOfWinner| {
        let value = if timed { block.latency_ms.unwrap_or(0.0) } else { block.macs as f64 / 1e6 };
        // Two significant digits are what there is room for.
        let decimals = if value >= 10.0 { 0 } else { 1 + usize::from(value < 1.0) + usize::from(value < 0.1) };
        let thin = does_nothing(&block.operator) && block.macs == 0;
        let layer = block.layer.map_or_else(|| "fixed".to_owned(), |layer| format!("layer {}", layer + 1));
        let [channels, height, width] = block.output;
        let time = block.latency_ms.map_or_else(String::new, |ms| format!(", {} ms", number(ms, 4)));
        Block {
            name: block.operator.clone(),
            value: if thin { 0.0 } else { value },
            shown: if thin || value <= 0.0 { String::new() } else { number(value, decimals) },
            colour: if block.layer.is_some() { colour(report, &block.operator) } else { FIXED }.to_owned(),
            says: format!(
                "{layer}: {}, to {channels} x {height} x {width}, {:.3} M MACs{time}",
                block.operator,
                block.macs as f64 / 1e6
            ),
        }
    };
    let blocks: Vec<Block> = report.blocks.iter().map(drawn).collect();
    let what = if timed { "latency by itself, ms" } else { "multiply-accumulates, millions" };
    let picture = row("The winner's blocks", &format!("Heights are {what}."), &blocks);
    let body = format!(
        "<p>From the image on the left to the classes on the right. Heights and numbers are each block's {what}; thin bars are \
         layers that pass on what they get; grey blocks are the same in every network.</p>\n<figure class=\"wide row\">\n{}\
         </figure>\n<details><summary>The blocks as a table</summary>\n{}</details>\n",
        inlined(&picture),
        listed(report)
    );
    framed("winner", "The winner, block by block", &body)
}

fn listed(report: &SearchReport) -> String {
    let line = |(i, block): (usize, &BlockOfWinner)| {
        let [channels, height, width] = block.output;
        let layer = block.layer.map_or_else(|| "fixed".to_owned(), |layer| (layer + 1).to_string());
        let time = block.latency_ms.map_or_else(
            || "<span class=\"none\">–</span>".to_owned(),
            |ms| figure(&format!("blocks.{i}.latency_ms"), ms, 4),
        );
        format!(
            "<tr><td>{layer}</td><td>{}</td><td>{channels} × {height} × {width}</td><td>{}</td><td>{time}</td></tr>\n",
            escape(&block.operator),
            millions(&format!("blocks.{i}.macs"), block.macs)
        )
    };
    let rows: String = report.blocks.iter().enumerate().map(line).collect();
    table("numbers", &["layer", "operator", "output", "MACs", "latency by itself, ms"], &rows)
}

/// Ranks in the composite's parts.
pub fn parts(report: &SearchReport) -> String {
    let others = report.random_search.iter().flat_map(|random| &random.ranks);
    let ranks = report.winner.ranks.iter().chain(others).filter(|rank| rank.is_finite());
    let longest = ranks.fold(1.0_f64, |most, &rank| most.max(rank));
    let bar = |class: &str, key: &str, rank: f64| {
        let width = 100.0 * if rank.is_finite() { rank.max(0.0) / longest } else { 0.0 };
        format!(
            "<div class=\"bar {class}\"><span class=\"track\"><i style=\"width:{width:.1}%\"></i></span>{}</div>",
            figure(key, rank, 3)
        )
    };
    let part = |(i, part): (usize, &PartOfScore)| {
        let of = |ranks: &[f64]| ranks.get(i).copied().unwrap_or(f64::NAN);
        let random = report
            .random_search
            .as_ref()
            .map_or_else(String::new, |random| bar("orange", &format!("random_search.ranks.{i}"), of(&random.ranks)));
        format!(
            "<div class=\"part\"><p>{}<small>weight {}</small></p><div>{}{random}</div></div>\n",
            escape(&part.indicator),
            figure(&format!("parts.{i}.weight"), part.weight, 3),
            bar("blue", &format!("winner.ranks.{i}"), of(&report.winner.ranks))
        )
    };
    let parts: String = report.parts.iter().enumerate().map(part).collect();
    if parts.is_empty() {
        return String::new();
    }
    let keys = [("blue", "winner"), ("orange", "random search's best")];
    let keys = &keys[..if report.random_search.is_some() { 2 } else { 1 }];
    let keys: Vec<_> =
        keys.iter().map(|(class, words)| (format!("<i class=\"swatch {class}\"></i>"), (*words).to_owned())).collect();
    let body = format!(
        "<p>Fitted rank of the network in each part: 0 is about the worst, 1 the best of the reference networks; the best may \
         go beyond. The composite is their mean with these weights.</p>\n{}{parts}",
        legend(&keys)
    );
    framed("parts", "What the score is made of", &body)
}

/// Rows of the table below.
fn shares(report: &SearchReport, names: &[&str]) -> String {
    let cell = |name: &str, l: usize, layer: &LayerShares| {
        let Some(s) = layer.shares.iter().position(|(operator, _)| operator == name) else {
            return "<td class=\"not\"></td>".to_owned();
        };
        let share = layer.shares[s].1;
        let won = if layer.winner == name { " class=\"won\"" } else { "" };
        let depth = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let shown = scaled(&format!("operators.{l}.shares.{s}.1"), share, 100.0, 0);
        let says = escape(&format!("{}: {name}, {} % of the front", layer.layer, number(100.0 * share, 1)));
        format!("<td{won} style=\"--share:{depth:.3}\" title=\"{says}\">{shown}</td>")
    };
    let line = |name: &&str| {
        let cells: String = report.operators.iter().enumerate().map(|(l, layer)| cell(name, l, layer)).collect();
        let swatch = format!("<i class=\"swatch\" style=\"background:{}\"></i>", colour(report, name));
        format!("<tr><th scope=\"row\">{swatch}{}</th>{cells}</tr>\n", escape(name))
    };
    names.iter().map(line).collect()
}

/// Shares of operators, layer by layer.
pub fn operators(report: &SearchReport) -> String {
    let names = names(report);
    if names.is_empty() {
        return String::new();
    }
    let numbers: Vec<String> = (1..=report.operators.len()).map(|l| l.to_string()).collect();
    let headings: Vec<&str> = std::iter::once("").chain(numbers.iter().map(String::as_str)).collect();
    let body = format!(
        "<p>Percent of the front's {} networks that take an operator in a layer; the winner's are framed. Empty fields: not to \
         be had in that layer.</p>\n{}",
        report.front.len(),
        table("shares", &headings, &shares(report, &names))
    );
    framed("operators", "Operators of the front, layer by layer", &body)
}
