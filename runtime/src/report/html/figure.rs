//! Numbers and words of the page.

use crate::{plot::escape, search::FoundBy};

/// A number of `result.json` at `key`, with so many decimals; a dash where it is no number.
pub fn figure(key: &str, value: f64, decimals: usize) -> String {
    scaled(key, value, 1.0, decimals)
}

/// A score: one that is a count has no decimals, a large one needs few.
pub fn score(key: &str, value: f64) -> String {
    figure(key, value, score_decimals(value))
}

/// Decimals of a score.
pub fn score_decimals(value: f64) -> usize {
    match value.abs() {
        size if size >= 10.0 && size.fract() == 0.0 => 0,
        size if size >= 1000.0 => 1,
        _ => 4,
    }
}

/// A share as percent.
pub fn percent(key: &str, value: f64, decimals: usize) -> String {
    format!("{}{}", scaled(key, value, 100.0, decimals), if value.is_finite() { " %" } else { "" })
}

/// A count in millions.
pub fn millions(key: &str, value: u64) -> String {
    format!("{} M", scaled(key, value as f64, 1e-6, 2))
}

/// Bytes in KiB.
pub fn kibibytes(key: &str, value: u64) -> String {
    format!("{} KiB", scaled(key, value as f64, 1.0 / 1024.0, 1))
}

/// A count as it is.
pub fn count(key: &str, value: u64) -> String {
    format!("<data data-figure=\"{key}\" value=\"{value}\">{value}</data>")
}

/// A number times `scale`.
pub fn scaled(key: &str, value: f64, scale: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return format!("<span class=\"none\" data-figure=\"{key}\" title=\"no number\">–</span>");
    }
    let shown = number(value * scale, decimals);
    let scale = if scale == 1.0 { String::new() } else { format!(" data-scale=\"{scale}\"") };
    format!("<data data-figure=\"{key}\" value=\"{value:?}\"{scale}>{shown}</data>")
}

/// A number as text, a dash for none; the very large and the very small as powers of ten.
pub fn number(value: f64, decimals: usize) -> String {
    let least = 0.5 * 10_f64.powi(-i32::try_from(decimals).unwrap_or(0));
    match value {
        v if !v.is_finite() => "–".to_owned(),
        v if v != 0.0 && !(least..1e9).contains(&v.abs()) => format!("{v:.2e}"),
        v => format!("{:.decimals$}", v + 0.0),
    }
}

/// A text in the letters of a typewriter.
pub fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// Who proposed a network.
pub fn found_by(found_by: FoundBy) -> &'static str {
    match found_by {
        FoundBy::Exhaustive => "look at every network",
        FoundBy::Evolution => "evolution",
        FoundBy::RandomSearch => "random search",
    }
}

/// A legend: pictures of marks and what they are, as markup.
pub fn legend(entries: &[(String, String)]) -> String {
    let entry = |(picture, words): &(String, String)| format!("<li>{picture}{words}</li>");
    format!("<ul class=\"keys\">{}</ul>\n", entries.iter().map(entry).collect::<String>())
}

/// A table, of headings and rows of cells, as markup; in a window that is too narrow it is moved sideways.
pub fn table(class: &str, headings: &[&str], rows: &str) -> String {
    let headings: String = headings.iter().map(|heading| format!("<th scope=\"col\">{heading}</th>")).collect();
    format!(
        "<div class=\"wide\"><table class=\"{class}\">\n<thead><tr>{headings}</tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n"
    )
}
