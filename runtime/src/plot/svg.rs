//! A document of scalable vector graphics, with the styles that all charts share.

use std::fmt::Write;

/// What all charts look like: light by default, dark where the reader's screen is.
pub const STYLE: &str = "
.paper{fill:#ffffff}
text{fill:#1f2328;font:12px system-ui,'Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif}
.title{font-size:16px;font-weight:600}
.quiet{fill:#59636e}
.grid{stroke:#d8dee4;stroke-width:1}
.axis{stroke:#59636e;stroke-width:1}
.whisker{stroke:#1f2328;stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.dashed{stroke-dasharray:6 4}
.upright{stroke:#59636e;stroke-width:1.5;stroke-dasharray:3 3}
.halo{font-weight:600;paint-order:stroke;stroke:#ffffff;stroke-width:4px;stroke-linejoin:round}
.value{font-size:11px}
.blue{color:#1f6fbf}
.orange{color:#c85f0b}
.ink{color:#1f2328}
.faint{color:#7d8793}
@media screen and (prefers-color-scheme:dark){
.paper{fill:#0d1117}
text{fill:#e6edf3}
.quiet{fill:#9198a1}
.grid{stroke:#2a313c}
.axis{stroke:#9198a1}
.whisker{stroke:#e6edf3}
.upright{stroke:#9198a1}
.halo{stroke:#0d1117}
.blue{color:#6cb0f2}
.orange{color:#f2a359}
.ink{color:#e6edf3}
.faint{color:#9aa4b0}
}
";

/// Where a text stands from its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// To the right of it.
    Start,
    /// Around it.
    Middle,
    /// To the left of it.
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A document that is being drawn. Lengths are pixels, y points down.
pub struct Svg {
    pub(super) text: String,
}

impl Svg {
    /// An empty sheet. `title` and `description` are what a screen reader says.
    pub fn new(width: f64, height: f64, title: &str, description: &str) -> Self {
        let mut svg = Self { text: String::new() };
        svg.element(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">"
        ));
        svg.element(format_args!("<title>{}</title>", escape(title)));
        svg.element(format_args!("<desc>{}</desc>", escape(description)));
        svg.element(format_args!("<style>{STYLE}</style>"));
        svg.element(format_args!("<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>"));
        svg
    }

    /// Adds markup on a line of its own; texts in it must be [`escape`]d.
    pub fn element(&mut self, markup: std::fmt::Arguments) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{markup}");
    }

    /// Adds a text with a class of the style sheet, `""` for none.
    pub fn label(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let (anchor, text) = (anchor.name(), escape(text));
        self.element(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// Adds a text that is turned by `degrees` about its point.
    pub fn turned(&mut self, (x, y): (f64, f64), degrees: f64, anchor: Anchor, text: &str) {
        let (anchor, text) = (anchor.name(), escape(text));
        self.element(format_args!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate({degrees})\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// Adds a straight line with a class of the style sheet.
    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.element(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// The finished document.
    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

/// A chart without its own styles, for a page that holds [`STYLE`] once.
pub fn inlined(chart: &str) -> String {
    chart.replacen(&format!("<style>{STYLE}</style>\n"), "", 1)
}

/// Text as it stands in XML. Characters that XML cannot hold become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// About how wide a text is, pixels: no font is asked, wide letters are reckoned with.
pub fn width_of(text: &str, font_size: f64) -> f64 {
    text.chars().map(|c| if c.is_ascii() { 0.6 } else { 1.0 }).sum::<f64>() * font_size
}

/// The text, or its beginning and an ellipsis if it is wider than `width` pixels.
pub fn fitted(text: &str, font_size: f64, width: f64) -> String {
    if width_of(text, font_size) <= width {
        return text.to_owned();
    }
    let mut fitted = String::new();
    for c in text.chars() {
        fitted.push(c);
        if width_of(&fitted, font_size) + font_size > width {
            fitted.pop();
            break;
        }
    }
    fitted.push('…');
    fitted
}

/// A colour of a scale from blue to red, for ordered series: number `index` of `count`.
pub fn ordered_colour(index: usize, count: usize) -> String {
    const STOPS: [[f64; 3]; 5] =
        [[66.0, 99.0, 235.0], [16.0, 152.0, 173.0], [47.0, 158.0, 68.0], [232.0, 133.0, 12.0], [214.0, 51.0, 72.0]];
    let place = index as f64 / (count.max(2) - 1) as f64 * (STOPS.len() - 1) as f64;
    let low = (place as usize).min(STOPS.len() - 2);
    let mixed = |part: usize| {
        let share = (place - low as f64).clamp(0.0, 1.0);
        (STOPS[low][part] + (STOPS[low + 1][part] - STOPS[low][part]) * share).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", mixed(0), mixed(1), mixed(2))
}

/// A colour for a series without order; after eight they begin again.
pub fn distinct_colour(index: usize) -> &'static str {
    const COLOURS: [&str; 8] = ["#3b82c4", "#e07b26", "#2f9e6b", "#c2539b", "#8a6fd1", "#b08a1e", "#d64545", "#6b7785"];
    COLOURS[index % COLOURS.len()]
}
