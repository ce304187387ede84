//! Processes that run what is timed when they are asked to, so that peers can take turns.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
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
    /// The same in time of processors: on a machine with other work, what the process itself took.
    pub cpu_turns: Vec<f64>,
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
        let (turns, cpu_turns) = (Vec::new(), Vec::new());
        Ok(Self { name: name.into(), child, to, from, turns, cpu_turns, peak_mb: 0.0, before_mb: 0.0, about })
    }

    /// A turn of `count` runs.
    pub fn turn(&mut self, count: usize) -> Result<()> {
        let (start, cpu) = (Instant::now(), self.cpu_seconds()?);
        writeln!(self.to, "{count}")?;
        self.to.flush()?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("{}: {line}", self.name))?;
        let times = answer["times_ms"].as_array().context("times_ms")?;
        let time = median(&times.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
        self.turns.push(time);
        self.cpu_turns.push(time * (self.cpu_seconds()? - cpu) / start.elapsed().as_secs_f64());
        self.peak_mb = answer["peak_rss_mb"].as_f64().context("peak_rss_mb")?;
        self.before_mb = answer["rss_before_mb"].as_f64().context("rss_before_mb")?;
        Ok(())
    }

    /// Time of processors that the process has taken, in user and in system.
    fn cpu_seconds(&self) -> Result<f64> {
        /// Linux counts in hundredths of a second for programs, whatever the kernel's own clock.
        const TICKS: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in brackets, may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|f| f.parse::<f64>().ok()).context("/proc/PID/stat");
        Ok((ticks(11)? + ticks(12)?) / TICKS)
    }

    /// Cells of a table: time a turn, and how much faster than `reference`, turn by turn, each with its spread.
    pub fn cells(&self, reference: &Self) -> String {
        format!(
            "{} | {} | {:.0} | {:.0}",
            spread(&self.turns, 1, ""),
            spread(&ratios(&self.turns, &reference.turns), 2, " x as fast"),
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

/// How much less `turns` are than those of a reference, turn by turn.
pub fn ratios(turns: &[f64], reference: &[f64]) -> Vec<f64> {
    turns.iter().zip(reference).map(|(a, b)| b / a).collect()
}

/// Median, least and most.
pub fn spread(values: &[f64], digits: usize, unit: &str) -> String {
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    format!("{:.digits$}{unit} ({low:.digits$} to {high:.digits$})", median(values))
}
