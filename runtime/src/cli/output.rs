//! Progress on stderr, data on stdout.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;

/// Prints a line of data.
pub fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}").map_err(|e| Failure::stdout(&e))
}

/// Prints a table, columns as wide as their widest cell.
pub fn table(heads: &[String], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let all = || std::iter::once(heads).chain(rows.iter().map(Vec::as_slice));
    let widths: Vec<usize> = (0..heads.len())
        .map(|i| all().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in all() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Prints a value as JSON.
pub fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(value).map_err(|e| Failure::usage(format!("the result is not JSON: {e}")))?)
}

/// A progress bar on stderr; hidden unless that is a terminal and words are wanted.
pub fn bar(length: u64, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden());
    if !quiet && io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta} left") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
    }
    bar
}

/// Says a line on stderr; nobody listening is no failure.
pub fn words(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says a line on stderr above the bar.
pub fn say(bar: &ProgressBar, quiet: bool, text: &str) {
    if !quiet {
        bar.suspend(|| words(text));
    }
}
