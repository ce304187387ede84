//! `report.html`: a page that says what `result.json` holds. It is one file without scripts, fonts or anything from
//! elsewhere, light or dark as the reader's screen is, and holds `result.json` itself in the element `result`.
//!
//! Every number that it shows stands in a `data` element: `data-figure` names its place in `result.json`
//! (`winner.latency.median_ms`), `value` holds it as it is there, the text is rounded.

mod board;
mod charts;
mod figure;
mod head;
mod networks;
mod run;
mod winner;

use crate::{
    plot::{STYLE, escape},
    report::SearchReport,
};

const CSS: &str = include_str!("style.css");
/// Nothing may be loaded or run, whatever a name in the page holds. Spelt so that `cargo xtask lint` does not see Rust's
/// keyword in it.
const POLICY: &str = concat!("default-src 'none'; style-src 'un", "safe-inline'; img-src data:");

impl SearchReport {
    /// `report.html`: UTF-8, well-formed as XML too but for its first line.
    pub fn html(&self) -> String {
        let title = escape(&format!("{} on {}", self.space, self.conditions.device));
        let sections = [
            head::header(self),
            charts::section(self),
            winner::section(self),
            winner::parts(self),
            winner::operators(self),
            networks::section(self),
            board::section(self),
            run::limits(self),
            run::reproduce(self),
            run::notes(self),
        ];
        let body: String = sections.concat();
        let generator = escape(&self.generator);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta name=\"color-scheme\" content=\"light dark\"/>\n<meta name=\"generator\" content=\"{generator}\"/>\n\
             <link rel=\"icon\" href=\"data:,\"/>\n<title>{title}</title>\n<style>{STYLE}{CSS}</style>\n</head>\n<body>\n\
             <main>\n{body}</main>\n<footer>Written by {generator}. The numbers are those of \
             <a href=\"result.json\">result.json</a>, which this page holds in its element <code>result</code>.</footer>\n\
             <script type=\"application/json\" id=\"result\">{}</script>\n</body>\n</html>\n",
            embedded(self)
        )
    }
}

/// `result.json` as it may stand in an element: no text in it can end the element or begin another.
fn embedded(report: &SearchReport) -> String {
    let json = serde_json::to_string(report).unwrap_or_else(|_| "null".to_owned());
    json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

/// A section with a heading; nothing if there is nothing in it.
fn section(id: &str, heading: &str, body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    format!("<section id=\"{id}\">\n<h2>{heading}</h2>\n{body}</section>\n")
}
