//! Points of several kinds, told apart by shape as well as by colour, with lines among them; for a column of a page.

use super::{
    frame::{AlongX, Frame, Labels, Sheet},
    svg::{Anchor, Svg, escape, width_of},
    ticks::{extent, padded},
};

/// How the points of a series are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Filled circles.
    Disc,
    /// Small filled circles that show each other through.
    Dust,
    /// Empty diamonds.
    Diamond,
    /// Filled stars.
    Star,
    /// A line through the points, in their order.
    Line,
    /// A dashed line through the points, in their order.
    Dashes,
    /// A line that keeps its height up to the next point: the best that is to be had up to there.
    Steps,
}

/// Colours that differ in brightness too, each with a shade for light and for dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Blue.
    Blue,
    /// Orange.
    Orange,
    /// As text.
    Ink,
    /// Grey.
    Faint,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Orange => "orange",
            Self::Ink => "ink",
            Self::Faint => "faint",
        }
    }
}

/// A point and what is said of it where a pointer rests on it (nothing if empty).
#[derive(Clone, Debug, Default)]
pub struct Spot {
    /// Along x.
    pub x: f64,
    /// Along y.
    pub y: f64,
    /// What is said.
    pub says: String,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Marked {
    /// How they are drawn.
    pub mark: Mark,
    /// Their colour.
    pub tone: Tone,
    /// Points; those that are not finite are left out, and part a line.
    pub spots: Vec<Spot>,
    /// A word beside the first of them; none if empty.
    pub word: String,
}

/// A vertical line from bottom to top.
#[derive(Clone, Debug)]
pub struct Upright {
    /// Where; it is left out if not finite.
    pub x: f64,
    /// What is said above it.
    pub label: String,
}

/// A chart of such points. Later series are drawn over earlier ones; `upright` is always within the range of x.
pub fn marked(labels: &Labels, series: &[Marked], upright: Option<&Upright>) -> String {
    let sheet = Sheet::COLUMN;
    let mut svg = Svg::new(sheet.width, sheet.height, &labels.title, &labels.subtitle);
    let spots = || series.iter().flat_map(|s| &s.spots).filter(|s| s.x.is_finite() && s.y.is_finite());
    let x = padded(extent(spots().map(|s| s.x).chain(upright.map(|u| u.x))));
    let y = padded(extent(spots().map(|s| s.y)));
    let frame = Frame::draw(&mut svg, sheet, labels, &AlongX::Range(x.0, x.1), y, &[]);
    if let Some((upright, (at, _))) = upright.and_then(|u| Some((u, frame.point(u.x, y.0)?))) {
        svg.line("upright", (at, frame.y.0), (at, frame.y.1));
        let half = width_of(&upright.label, 15.0) / 2.0;
        let middle = at.min(sheet.width - half - 4.0).max(half + 4.0);
        svg.label((middle, frame.y.1 - 7.0), Anchor::Middle, "quiet", &upright.label);
    }
    for one in series {
        svg.element(format_args!("<g class=\"{}\">", one.tone.class()));
        let placed: Vec<_> = one.spots.iter().map(|s| frame.point(s.x, s.y)).collect();
        match one.mark {
            Mark::Line | Mark::Dashes | Mark::Steps => line(&mut svg, one.mark, &placed),
            mark => {
                for (spot, at) in one.spots.iter().zip(&placed) {
                    let Some(at) = at else { continue };
                    let shape = shape(mark, *at);
                    let says = escape(&spot.says);
                    svg.element(format_args!("<g>{shape}<title>{says}</title></g>"));
                }
            }
        }
        svg.element(format_args!("</g>"));
    }
    for one in series.iter().filter(|s| !s.word.is_empty()) {
        let first = one.spots.iter().find_map(|s| frame.point(s.x, s.y));
        let Some((x, y)) = first else { continue };
        // To the left, where a budget does not stand in the way, if there is room.
        let left = x - frame.x.0 > width_of(&one.word, 15.0) + 14.0;
        let (x, anchor) = if left { (x - 12.0, Anchor::End) } else { (x + 12.0, Anchor::Start) };
        svg.label((x, y + 4.0), anchor, "halo", &one.word);
    }
    svg.finish()
}

/// A small picture of a mark, for a legend.
pub fn key(mark: Mark, tone: Tone) -> String {
    let mut svg = Svg { text: String::new() };
    match mark {
        Mark::Line | Mark::Dashes | Mark::Steps => line(&mut svg, mark, &[Some((1.0, 7.0)), Some((23.0, 7.0))]),
        mark => svg.element(format_args!("{}", shape(mark, (12.0, 7.0)))),
    }
    let (class, shape) = (tone.class(), svg.text.trim_end());
    format!(
        "<svg class=\"{class}\" width=\"24\" height=\"14\" viewBox=\"0 0 24 14\" aria-hidden=\"true\">{shape}</svg>"
    )
}

fn line(svg: &mut Svg, mark: Mark, placed: &[Option<(f64, f64)>]) {
    for piece in placed.split(Option::is_none).filter(|piece| piece.len() > 1) {
        let mut corners = Vec::new();
        let mut before = None;
        for &(x, y) in piece.iter().flatten() {
            if let Some(height) = before.filter(|_| mark == Mark::Steps) {
                corners.push(format!("{x:.1},{height:.1}"));
            }
            corners.push(format!("{x:.1},{y:.1}"));
            before = Some(y);
        }
        let (class, corners) = (if mark == Mark::Dashes { "line dashed" } else { "line" }, corners.join(" "));
        svg.element(format_args!("<polyline class=\"{class}\" stroke=\"currentColor\" points=\"{corners}\"/>"));
    }
}

/// A filled or empty shape around a point.
fn shape(mark: Mark, (x, y): (f64, f64)) -> String {
    let polygon = |corners: &mut dyn Iterator<Item = (f64, f64)>, paint: &str| {
        let corners: Vec<String> = corners.map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        format!("<polygon points=\"{}\" {paint}/>", corners.join(" "))
    };
    match mark {
        Mark::Diamond => {
            let corners = [(0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0)];
            let paint = "fill=\"none\" pointer-events=\"all\" stroke=\"currentColor\" stroke-width=\"1.6\"";
            polygon(&mut corners.into_iter(), paint)
        }
        Mark::Star => {
            let corner = |i: u32| {
                let (angle, radius) =
                    (std::f64::consts::PI * f64::from(i) / 5.0, if i.is_multiple_of(2) { 9.0 } else { 4.0 });
                (radius * angle.sin(), -radius * angle.cos())
            };
            polygon(&mut (0..10).map(corner), "fill=\"currentColor\"")
        }
        Mark::Dust => {
            format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"currentColor\" fill-opacity=\"0.6\"/>")
        }
        _ => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.4\" fill=\"currentColor\"/>"),
    }
}
