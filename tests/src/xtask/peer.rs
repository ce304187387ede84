//! Processes that run what is timed when they are asked to, so that peers can take turns.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A process that runs `N` times what it times for every line `N` on its standard input, and answers with a line of JSON.
pub struct Peer {
    /// Name in tables.
    pub name: String,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// Median time of every turn, ms.
    pub turns: Vec<f64>,
    /// The most memory that it has held, MiB.
    pub peak_mb: f64,
    /// What it held before its network was there, MiB.
    pub before_mb: f64,
    /// What it said when it was ready.
    pub about: Value,
}

impl Peer {
    /// Starts a peer and waits until it is ready.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| name.to_owned())?;
        let to = child.stdin.take().context("stdin")?;
        let mut from = BufReader::new(child.stdout.take().context("stdout")?);
        let mut ready = String::new();
        from.read_line(&mut ready)?;
        ensure!(ready.contains("ready"), "{name} did not start: {ready}");
        let about = serde_json::from_str(&ready)?;
        Ok(Self { name: name.into(), child, to, from, turns: Vec::new(), peak_mb: 0.0, before_mb: 0.0, about })
    }

    /// A turn of `count` runs.
    pub fn turn(&mut self, count: usize) -> Result<()> {
        writeln!(self.to, "{count}")?;
        self.to.flush()?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("{}: {line}", self.name))?;
        let times = answer["times_ms"].as_array().context("times_ms")?;
        self.turns.push(median(&times.iter().filter_map(Value::as_f64).collect::<Vec<_>>()));
        self.peak_mb = answer["peak_rss_mb"].as_f64().context("peak_rss_mb")?;
        self.before_mb = answer["rss_before_mb"].as_f64().context("rss_before_mb")?;
        Ok(())
    }

    /// Cells of a table: time a turn, and how much faster than `reference`, turn by turn, each with its spread.
    pub fn cells(&self, reference: &Self) -> String {
        let ratios: Vec<f64> = self.turns.iter().zip(&reference.turns).map(|(a, b)| b / a).collect();
        let (low, high) = bounds(&self.turns);
        let (least, most) = bounds(&ratios);
        format!(
            "{:.1} ({low:.1} to {high:.1}) | {:.2} x as fast ({least:.2} to {most:.2}) | {:.0} | {:.0}",
            median(&self.turns),
            median(&ratios),
            self.peak_mb,
            self.before_mb,
        )
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ends with its standard input; a peer that does not is killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value in the middle; of two, the greater. Not a number if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn bounds(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}
