//! What is around the marks: titles, axes and the legend.

use super::{
    svg::{Anchor, Svg, fitted, width_of},
    ticks::{tick_labels, ticks},
};

/// Size of a chart, pixels.
pub const WIDTH: f64 = 760.0;
/// Size of a chart, pixels.
pub const HEIGHT: f64 = 480.0;

const FONT: f64 = 12.0;
/// Letters of a chart on a page, as large as the page makes them in a narrow window.
const PAGE_FONT: f64 = 15.0;
const TITLE_FONT: f64 = 16.0;
const EDGE: f64 = 18.0;
const LEGEND_WIDEST: f64 = 200.0;
const LEGEND_STEP: f64 = 18.0;

/// The sheet that a chart is drawn on.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    /// Size, pixels.
    pub width: f64,
    /// Size, pixels.
    pub height: f64,
    /// Height of the letters that there is room for, pixels.
    font: f64,
    /// Whether title and subtitle are drawn; a page has its own.
    headed: bool,
}

impl Sheet {
    /// A chart by itself.
    pub const DOCUMENT: Self = Self { width: WIDTH, height: HEIGHT, font: FONT, headed: true };
    /// A chart in a column of a page.
    pub const COLUMN: Self = Self { width: 540.0, height: 400.0, font: PAGE_FONT, headed: false };
}

/// What a chart says in words. Empty ones are left out.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// Title.
    pub title: String,
    /// A line below the title.
    pub subtitle: String,
    /// What is along x, with its unit.
    pub x: String,
    /// What is along y, with its unit.
    pub y: String,
    /// What the colours are.
    pub legend: String,
}

/// Along x: numbers, or names side by side.
pub enum AlongX<'a> {
    /// Numbers from the first to the second.
    Range(f64, f64),
    /// Names.
    Names(&'a [String]),
}

/// The place of the marks and the scales there.
pub struct Frame {
    /// Left and right end, pixels.
    pub x: (f64, f64),
    /// Lower and upper end, pixels; the first is the greater one.
    pub y: (f64, f64),
    from_x: (f64, f64),
    from_y: (f64, f64),
    sheet: Sheet,
}

impl Frame {
    /// Draws everything around the marks; `legend` has colours and names.
    pub fn draw(
        svg: &mut Svg,
        sheet: Sheet,
        labels: &Labels,
        along_x: &AlongX,
        along_y: (f64, f64),
        legend: &[(String, String)],
    ) -> Self {
        let y_ticks = ticks(along_y, 6);
        let y_labels = tick_labels(&y_ticks);
        let y_widest = y_labels.iter().map(|l| width_of(l, sheet.font)).fold(0.0, f64::max);
        let named = legend.iter().map(|(_, name)| width_of(name, FONT) + 18.0);
        let legend_width = named.fold(width_of(&labels.legend, FONT), f64::max).min(LEGEND_WIDEST);
        let left = EDGE + 12.0 + y_widest + 14.0;
        let right = sheet.width - EDGE - if legend.is_empty() { 0.0 } else { legend_width + 16.0 };
        let subtitle = if labels.subtitle.is_empty() { 0.0 } else { 20.0 };
        let top = EDGE + if sheet.headed { 26.0 + subtitle } else { 6.0 };
        let names: &[String] = if let AlongX::Names(names) = along_x { names } else { &[] };
        let slot = (right - left) / names.len().max(1) as f64;
        let widest = names.iter().map(|n| width_of(n, FONT)).fold(0.0, f64::max);
        let turned = widest > slot - 6.0;
        let below = if turned { 18.0 + (0.64 * widest).min(100.0) } else { 20.0 };
        let bottom = sheet.height - EDGE - below - if labels.x.is_empty() { 0.0 } else { 18.0 };
        let from_x = if let AlongX::Range(low, high) = along_x { (*low, *high) } else { (0.0, names.len() as f64) };
        let frame = Self { x: (left, right), y: (bottom, top), from_x, from_y: along_y, sheet };

        if sheet.headed {
            let room = sheet.width - 2.0 * EDGE;
            svg.label((EDGE, EDGE + 13.0), Anchor::Start, "title", &fitted(&labels.title, TITLE_FONT, room));
            svg.label((EDGE, EDGE + 34.0), Anchor::Start, "quiet", &fitted(&labels.subtitle, FONT, room));
        }
        for (&tick, label) in y_ticks.iter().zip(&y_labels) {
            let y = frame.at(0.0, tick).1;
            svg.line("grid", (left, y), (right, y));
            svg.label((left - 8.0, y + 4.0), Anchor::End, "quiet", label);
        }
        if names.is_empty() {
            frame.numbers_below(svg);
        }
        // Of very many names, as many as there is room for.
        let every = (14.0 / slot).ceil().max(1.0) as usize;
        for (i, name) in names.iter().enumerate().step_by(if turned { every } else { 1 }) {
            let x = left + (i as f64 + 0.5) * slot;
            if turned {
                svg.turned((x + 4.0, bottom + 14.0), -40.0, Anchor::End, &fitted(name, FONT, 150.0));
            } else {
                svg.label((x, bottom + 18.0), Anchor::Middle, "quiet", name);
            }
        }
        svg.line("axis", (left, bottom), (right, bottom));
        svg.line("axis", (left, bottom), (left, top));
        let x_label = fitted(&labels.x, sheet.font, right - left);
        svg.label(((left + right) / 2.0, sheet.height - EDGE + 4.0), Anchor::Middle, "", &x_label);
        let y_label = fitted(&labels.y, sheet.font, bottom - top);
        svg.turned((EDGE + 4.0, (top + bottom) / 2.0), -90.0, Anchor::Middle, &y_label);
        frame.legend(svg, labels, legend);
        frame
    }

    fn numbers_below(&self, svg: &mut Svg) {
        let x_ticks = ticks(self.from_x, if self.sheet.headed { 7 } else { 6 });
        for (&tick, label) in x_ticks.iter().zip(tick_labels(&x_ticks)) {
            let x = self.at(tick, 0.0).0;
            svg.line("grid", (x, self.y.0), (x, self.y.1));
            svg.label((x, self.y.0 + 18.0), Anchor::Middle, "quiet", &label);
        }
    }

    fn legend(&self, svg: &mut Svg, labels: &Labels, legend: &[(String, String)]) {
        if legend.is_empty() {
            return;
        }
        let left = self.x.1 + 16.0;
        let mut y = self.y.1 + 10.0;
        if !labels.legend.is_empty() {
            svg.label((left, y), Anchor::Start, "quiet", &fitted(&labels.legend, FONT, LEGEND_WIDEST));
            y += LEGEND_STEP;
        }
        let room = ((self.y.0 - y) / LEGEND_STEP).max(1.0) as usize;
        for (i, (colour, name)) in legend.iter().enumerate() {
            if i + 1 == room && legend.len() > room {
                let more = format!("and {} more", legend.len() - i);
                svg.label((left, y), Anchor::Start, "quiet", &more);
                break;
            }
            let top = y - 9.5;
            svg.element(format_args!(
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"11\" height=\"11\" rx=\"2\" fill=\"{colour}\"/>"
            ));
            svg.label((left + 18.0, y), Anchor::Start, "", &fitted(name, FONT, LEGEND_WIDEST - 18.0));
            y += LEGEND_STEP;
        }
    }

    /// Where a point is on the sheet; None if it is not finite.
    pub fn point(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        (x.is_finite() && y.is_finite()).then(|| self.at(x, y))
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let map = |v: f64, from: (f64, f64), to: (f64, f64)| {
            to.0 + (to.1 - to.0) * ((v - from.0) / (from.1 - from.0)).clamp(0.0, 1.0)
        };
        (map(x, self.from_x, self.x), map(y, self.from_y, self.y))
    }
}
