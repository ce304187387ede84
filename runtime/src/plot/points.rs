//! Charts of numbers against numbers.

use super::{
    frame::{AlongX, Frame, HEIGHT, Labels, Sheet, WIDTH},
    svg::{Svg, distinct_colour, ordered_colour},
    ticks::{extent, padded},
};

/// Points that belong together.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Name in the legend; without any, there is no legend.
    pub name: String,
    /// Points (x, y); those that are not finite are left out, and part a line.
    pub points: Vec<(f64, f64)>,
    /// A line drawn dashed, in the colour of the series before it and without a place in the legend: what goes with
    /// that one.
    pub dashed: bool,
}

/// A scatter plot. Series have an order (few to many, shallow to deep): colours go from blue to red.
pub fn scatter(labels: &Labels, series: &[Series]) -> String {
    let colour = |i: usize| ordered_colour(i, series.len());
    let (mut svg, frame) = begin(labels, series, &colour);
    for (i, one) in series.iter().enumerate() {
        svg.element(format_args!("<g fill=\"{}\" fill-opacity=\"0.55\">", colour(i)));
        for (x, y) in one.points.iter().filter_map(|&(x, y)| frame.point(x, y)) {
            svg.element(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"));
        }
        svg.element(format_args!("</g>"));
    }
    svg.finish()
}

/// A line chart with a mark at every point, in the order of the points.
pub fn lines(labels: &Labels, series: &[Series]) -> String {
    let solid = |i: usize| series.iter().take(i + 1).filter(|s| !s.dashed).count().saturating_sub(1);
    let colour = |i: usize| distinct_colour(solid(i)).to_owned();
    let (mut svg, frame) = begin(labels, series, &colour);
    for (i, one) in series.iter().enumerate() {
        let placed: Vec<_> = one.points.iter().map(|&(x, y)| frame.point(x, y)).collect();
        for piece in placed.split(Option::is_none).filter(|piece| piece.len() > 1) {
            let corners: Vec<String> = piece.iter().flatten().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let (corners, colour) = (corners.join(" "), colour(i));
            let class = if one.dashed { "line dashed" } else { "line" };
            svg.element(format_args!("<polyline class=\"{class}\" stroke=\"{colour}\" points=\"{corners}\"/>"));
        }
        for (x, y) in placed.into_iter().flatten() {
            svg.element(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{}\"/>", colour(i)));
        }
    }
    svg.finish()
}

fn begin(labels: &Labels, series: &[Series], colour: &dyn Fn(usize) -> String) -> (Svg, Frame) {
    let mut svg = Svg::new(WIDTH, HEIGHT, &labels.title, &labels.subtitle);
    let seen = || series.iter().flat_map(|s| &s.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let x = padded(extent(seen().map(|p| p.0)));
    let y = padded(extent(seen().map(|p| p.1)));
    let named = series.iter().any(|s| !s.name.is_empty());
    let legend = series.iter().enumerate().filter(|(_, s)| !s.dashed).map(|(i, s)| (colour(i), s.name.clone()));
    let legend: Vec<_> = legend.collect();
    let legend: &[_] = if named { &legend } else { &[] };
    let frame = Frame::draw(&mut svg, Sheet::DOCUMENT, labels, &AlongX::Range(x.0, x.1), y, legend);
    (svg, frame)
}
