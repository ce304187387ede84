//! Latencies that were measured elsewhere, as CSV.
//!
//! Blocks: columns `layer` (number of the choice in a path, from 0, or `base`), `operator` (its name; empty for `base`) and
//! `latency_ms`. The line `base` is what every network takes besides its choices. Networks: columns `path` and `latency_ms`.

use std::collections::BTreeMap;

use nasbn_models::{Supernet, canonical::CanonicalTable};

use super::{correction::Measured, table::MOST_NETWORKS};
use crate::{
    path_table::PathTable,
    table::{Table, TableError},
};

/// Why latencies are not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is no table of the columns.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A line that is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Lines that are missing.
    #[error("{count} of the space's operators are missing, the first of them `{operator}` of layer {layer}")]
    Missing {
        /// How many.
        count: usize,
        /// Number of the first one's choice.
        layer: usize,
        /// Its operator.
        operator: String,
    },
    /// A network without a latency.
    #[error("the fastest network of these latencies would take {least} ms; more than 0 is possible")]
    Senseless {
        /// Its latency.
        least: f64,
    },
    /// More networks than a table holds.
    #[error("there are {0} different networks; {MOST_NETWORKS} is most")]
    TooMany(usize),
    /// Neither a base nor any line.
    #[error("there is no line `base`, which tells what all networks take besides their choices")]
    NoBase,
}

impl ImportError {
    /// What a user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Table(error) => error.hint(),
            Self::Line { .. } => "see docs/latency.md for the columns".into(),
            Self::Missing { .. } => {
                "give a line for every operator of every layer; 0 for one that takes no time".into()
            }
            Self::Senseless { .. } => {
                "blocks may be negative, as differences are, but with the base no network may be".into()
            }
            Self::TooMany(_) => "leave some out: an error is told as well on a few thousand".into(),
            Self::NoBase => "add the line `base,,LATENCY`; with the latency 0 if it is in the others".into(),
        }
    }
}

/// Largest latency, milliseconds: a quarter of an hour. Sums and squares of such are finite.
const MOST_MS: f64 = 1e6;
/// Least latency of a whole network, milliseconds: a nanosecond.
const LEAST_MS: f64 = 1e-6;

fn number(line: u64, field: Option<&str>) -> Result<f64, ImportError> {
    let field = field.unwrap_or("");
    let value = field.parse::<f64>().ok().filter(|value| value.abs() <= MOST_MS);
    let problem = || format!("`{field}` is no latency in milliseconds, {MOST_MS} at most");
    value.ok_or_else(|| ImportError::Line { line, problem: problem() })
}

/// The table of block latencies, milliseconds.
///
/// # Errors
/// See [`ImportError`].
pub fn blocks(supernet: &Supernet, text: &str) -> Result<PathTable, ImportError> {
    let table = Table::parse(text)?;
    let (layer, operator) = (table.column("layer")?, table.column("operator")?);
    let latency = table.column("latency_ms")?;
    let mut base = None;
    let mut found: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    for row in table.rows() {
        let line = row.line;
        let wrong = |problem: String| ImportError::Line { line, problem };
        let field = |column: usize| row.fields.get(column);
        let ms = number(line, field(latency))?;
        let (layer, name) = (field(layer).unwrap_or(""), field(operator).unwrap_or(""));
        if layer == "base" {
            if ms < 0.0 {
                return Err(wrong(format!("a base of {ms} ms is not possible; 0 or more is")));
            }
            if base.replace(ms).is_some() {
                return Err(wrong("`base` stands here for the second time".into()));
            }
            continue;
        }
        let last = supernet.choices.len().saturating_sub(1);
        let choice = layer.parse::<usize>().ok().filter(|&choice| choice <= last);
        let Some(choice) = choice.filter(|_| !supernet.choices.is_empty()) else {
            return Err(wrong(format!("`{layer}` is no layer; 0 to {last} and `base` are")));
        };
        let candidates = &supernet.choices[choice].candidates;
        let named = |&o: &u8| supernet.operators[usize::from(o)].name.as_str();
        let Some(candidate) = candidates.iter().position(|o| named(o) == name) else {
            let names: Vec<&str> = candidates.iter().map(named).collect();
            return Err(wrong(format!("`{name}` is no operator of layer {choice}; {} are", names.join(", "))));
        };
        if found.insert((choice, candidate), ms).is_some() {
            return Err(wrong(format!("`{name}` of layer {choice} stands here for the second time")));
        }
    }
    let all =
        supernet.choices.iter().enumerate().flat_map(|(c, choice)| (0..choice.candidates.len()).map(move |o| (c, o)));
    let missing: Vec<(usize, usize)> = all.filter(|entry| !found.contains_key(entry)).collect();
    if let Some(&(layer, candidate)) = missing.first() {
        let operator = usize::from(supernet.choices[layer].candidates[candidate]);
        let operator = supernet.operators[operator].name.clone();
        return Err(ImportError::Missing { count: missing.len(), layer, operator });
    }
    let base = base.ok_or(ImportError::NoBase)?;
    let of = |c: usize, o: usize| found.get(&(c, o)).copied().unwrap_or(0.0);
    let values: Vec<Vec<f64>> = (supernet.choices.iter().enumerate())
        .map(|(c, choice)| (0..choice.candidates.len()).map(|o| of(c, o)).collect())
        .collect();
    let least = base + values.iter().map(|of| of.iter().copied().fold(f64::INFINITY, f64::min)).sum::<f64>();
    if least <= 0.0 {
        return Err(ImportError::Senseless { least });
    }
    PathTable::new(supernet, base, &values).ok_or(ImportError::NoBase)
}

/// Whole networks, equal ones once, with the mean of their latencies.
///
/// # Errors
/// See [`ImportError`].
pub fn networks(supernet: &Supernet, text: &str) -> Result<Vec<Measured>, ImportError> {
    let table = Table::parse(text)?;
    let (path, latency) = (table.column("path")?, table.column("latency_ms")?);
    let canonical = CanonicalTable::new(supernet);
    let mut order = Vec::new();
    let mut found: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for row in table.rows() {
        let line = row.line;
        let field = row.fields.get(path).unwrap_or("");
        let path = supernet.parse_path(field).map_err(|e| ImportError::Line { line, problem: e.to_string() })?;
        let ms = number(line, row.fields.get(latency))?;
        if ms < LEAST_MS {
            let text = row.fields.get(latency).unwrap_or("");
            let problem = format!("a latency of {text} ms is not possible; {LEAST_MS} and above is");
            return Err(ImportError::Line { line, problem });
        }
        let path = canonical.of(&path);
        let times = found.entry(path.clone()).or_default();
        if times.is_empty() {
            order.push(path);
        }
        times.push(ms);
    }
    if order.len() > MOST_NETWORKS {
        return Err(ImportError::TooMany(order.len()));
    }
    let mean = |path: nasbn_models::Path| {
        let times = found.get(&path).map_or(&[][..], Vec::as_slice);
        Measured { ms: times.iter().sum::<f64>() / times.len().max(1) as f64, path }
    };
    Ok(order.into_iter().map(mean).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::chain;

    const HEAD: &str = "layer,operator,latency_ms\n";

    #[test]
    fn a_sum_of_lines_is_the_latency() {
        let supernet = chain(2);
        let rows = "base,,0.5\n0,identity,0\n0,one,0.1\n0,three,0.3\n1,identity,0\n1,three,0.35\n1,one,-0.01\n";
        let table = blocks(&supernet, &format!("{HEAD}{rows}")).unwrap();
        let of = |text: &str| table.value(&supernet.parse_path(text).unwrap());
        // The second layer has its candidates in another order; paths count operators, whatever their order.
        for (path, expected) in [("00", 0.5), ("10", 0.6), ("22", 1.15), ("21", 0.79)] {
            assert!((of(path) - expected).abs() < 1e-12, "{path}: {}", of(path));
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_by_its_line() {
        let supernet = chain(1);
        let all = "base,,0.5\n0,identity,0\n0,one,0.1\n";
        for (rows, expected) in [
            (format!("{all}0,three,x\n"), "line 5: `x` is no latency in milliseconds"),
            (format!("{all}0,three,inf\n"), "line 5: `inf`"),
            (format!("{all}0,three,1e308\n"), "line 5: `1e308` is no latency in milliseconds, 1000000 at most"),
            (format!("{all}0,three,-1e308\n"), "line 5: `-1e308`"),
            ("base,,1e7\n".to_owned(), "line 2: `1e7`"),
            (format!("{all}1,three,1\n"), "line 5: `1` is no layer; 0 to 0 and `base` are"),
            (format!("{all}0,four,1\n"), "line 5: `four` is no operator of layer 0; identity, one, three are"),
            (format!("{all}0,one,1\n"), "line 5: `one` of layer 0 stands here for the second time"),
            (format!("{all}base,,1\n"), "line 5: `base` stands here"),
            (all.to_owned(), "1 of the space's operators are missing, the first of them `three` of layer 0"),
            ("0,identity,0\n0,one,0.1\n0,three,1\n".to_owned(), "no line `base`"),
            ("base,,-1\n".to_owned(), "line 2: a base of -1 ms"),
            (String::new(), "no rows"),
        ] {
            let error = blocks(&supernet, &format!("{HEAD}{rows}")).unwrap_err();
            assert!(error.to_string().contains(expected), "{rows}: {error}");
            assert!(!error.hint().is_empty());
        }
        assert!(blocks(&supernet, "layer,latency\n").is_err());
    }

    #[test]
    fn equal_networks_are_one() {
        let supernet = chain(2);
        let found = networks(&supernet, "path,latency_ms\n12,1.0\n00,0.4\n12,2.0\n").unwrap();
        let text: Vec<(String, f64)> = found.iter().map(|m| (supernet.format_path(&m.path), m.ms)).collect();
        assert_eq!(text, [("12".to_owned(), 1.5), ("00".to_owned(), 0.4)]);
        for (rows, expected) in [
            ("19,1\n", "line 2"),
            ("12,0\n", "0.000001 and above"),
            ("12,1e-300\n", "1e-300 ms is not"),
            ("12,1e308\n", "no latency"),
            ("12,\n", "no latency"),
        ] {
            let error = networks(&supernet, &format!("path,latency_ms\n{rows}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
