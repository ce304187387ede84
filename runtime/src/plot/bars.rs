//! Charts of numbers against names.

use super::{
    frame::{AlongX, Frame, HEIGHT, Labels, Sheet, WIDTH},
    svg::{Svg, distinct_colour},
    ticks::extent,
};

/// Bars of one colour.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    /// Name in the legend.
    pub name: String,
    /// A value a category; there is no bar where one is not finite or not there.
    pub values: Vec<f64>,
    /// How far a whisker goes to both sides of the end of each bar; none where it is not there, not finite or 0. For
    /// [`Arrangement::Grouped`].
    pub spread: Vec<f64>,
}

/// How the bars of a category stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// On top of each other: parts of a whole. Values below 0 go downwards.
    Stacked,
    /// Side by side.
    Grouped,
}

/// A bar chart; the axis begins at 0.
pub fn bars(labels: &Labels, categories: &[String], series: &[Bars], arrangement: Arrangement) -> String {
    /// Share of a category's room that bars take.
    const FILLED: f64 = 0.72;
    let mut svg = Svg::new(WIDTH, HEIGHT, &labels.title, &labels.subtitle);
    let spans = spans(categories.len(), series, arrangement);
    let whisker = |i: usize, category: usize| {
        let grouped = arrangement == Arrangement::Grouped;
        series[i].spread.get(category).copied().filter(|s| grouped && s.is_finite() && *s > 0.0)
    };
    let ends = spans.iter().enumerate().flat_map(|(i, bars)| {
        let end = move |(category, &(from, to)): (usize, &(f64, f64))| {
            let reach = whisker(i, category).unwrap_or(0.0);
            [from, to - reach, to + reach]
        };
        bars.iter().enumerate().flat_map(end)
    });
    let (low, high) = extent(ends.chain([0.0]));
    let air = if high > low { 0.04 * (high - low) } else { 1.0 };
    let range = (if low < 0.0 { low - air } else { 0.0 }, if high > 0.0 || low == 0.0 { high + air } else { 0.0 });
    let legend: Vec<_> =
        series.iter().enumerate().map(|(i, s)| (distinct_colour(i).to_owned(), s.name.clone())).collect();
    let named = series.iter().any(|s| !s.name.is_empty());
    let legend: &[_] = if named { &legend } else { &[] };
    let frame = Frame::draw(&mut svg, Sheet::DOCUMENT, labels, &AlongX::Names(categories), range, legend);
    let beside = if arrangement == Arrangement::Grouped { series.len().max(1) } else { 1 };
    for (i, bars) in spans.iter().enumerate() {
        let width = FILLED / beside as f64;
        let start = (1.0 - FILLED) / 2.0 + if arrangement == Arrangement::Grouped { i as f64 * width } else { 0.0 };
        svg.element(format_args!("<g fill=\"{}\">", distinct_colour(i)));
        for (category, &(from, to)) in bars.iter().enumerate() {
            let left = category as f64 + start;
            let corners = frame.point(left, from.max(to)).zip(frame.point(left + width, from.min(to)));
            let Some(((x1, y1), (x2, y2))) = corners.filter(|_| from != to) else { continue };
            let (width, height) = ((x2 - x1 - 1.0).max(0.5), y2 - y1);
            svg.element(format_args!(
                "<rect x=\"{x1:.1}\" y=\"{y1:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            ));
        }
        svg.element(format_args!("</g>"));
        for (category, &(_, end)) in bars.iter().enumerate() {
            let Some(reach) = whisker(i, category) else { continue };
            let middle = category as f64 + start + width / 2.0;
            if let Some((low, high)) = frame.point(middle, end - reach).zip(frame.point(middle, end + reach)) {
                // The middle of the bar as drawn, which is a pixel narrower than its room.
                let x = low.0 - 0.5;
                svg.line("whisker", (x, low.1), (x, high.1));
                for (_, y) in [low, high] {
                    svg.line("whisker", (x - 2.5, y), (x + 2.5, y));
                }
            }
        }
    }
    if let Some((x, y)) = frame.point(0.0, 0.0) {
        svg.line("axis", (x, y), (frame.x.1, y));
    }
    svg.finish()
}

/// From where to where every bar goes, a row a series; (0, 0) for none.
fn spans(categories: usize, series: &[Bars], arrangement: Arrangement) -> Vec<Vec<(f64, f64)>> {
    let mut tops = vec![(0.0, 0.0); categories];
    let span = |(above, below): &mut (f64, f64), value: f64| {
        let from = match arrangement {
            Arrangement::Grouped => &mut 0.0,
            Arrangement::Stacked if value < 0.0 => below,
            Arrangement::Stacked => above,
        };
        let start = *from;
        *from += value;
        (start, *from)
    };
    let value = |bars: &Bars, i: usize| bars.values.get(i).copied().filter(|v| v.is_finite()).unwrap_or(0.0);
    series.iter().map(|s| tops.iter_mut().enumerate().map(|(i, top)| span(top, value(s, i))).collect()).collect()
}
