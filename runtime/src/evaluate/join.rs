//! Scores and truth brought together: one entry a network.

mod problem;

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::table::{Cell, Row, Table, TableError};

pub use problem::{Conflict, JoinError, Problem, Side};

/// Fewest networks that a ranking is looked at for.
pub const MIN_NETWORKS: usize = 3;

/// Columns that name a network rather than measure it.
const NAMES: [&str; 3] = ["path", "arch", "canonical"];

/// Relative difference up to which two numbers are the same one, written differently.
const SAME: f64 = 1e-9;

/// How many rows there were and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// Rows of the scores.
    pub scores: usize,
    /// Different networks in the scores.
    pub scores_networks: usize,
    /// Rows of the scores whose network has a truth.
    pub scores_joined: usize,
    /// Rows of the scores whose network has none.
    pub scores_without_truth: usize,
    /// Rows of the truth.
    pub truth: usize,
    /// Rows of the truth that are part of the result.
    pub truth_joined: usize,
    /// Rows of the truth whose path is not in the scores.
    pub truth_without_scores: usize,
    /// Rows of the truth that repeat a path with the same value; counted once.
    pub truth_repeated: usize,
    /// Rows of the truth without a finite value.
    pub truth_without_value: usize,
}

/// Paths of one network whose truths differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differing {
    /// Networks for which they do.
    pub networks: usize,
    /// Greatest difference, in units of the truth.
    pub most: f64,
    /// Lines of the truth with that difference.
    pub lines: (u64, u64),
}

/// A column of scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// A value a network of the population, where it has one.
    pub values: Vec<Option<f64>>,
}

/// Networks with scores and truth, each once, in the order of their canonical paths: figures, those of resamples among
/// them, do not depend on how rows are sorted.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    /// Canonical paths.
    pub names: Vec<String>,
    /// Truths, finite; the mean over the rows of a network.
    pub truth: Vec<f64>,
    /// Columns that are evaluated.
    pub columns: Vec<Column>,
    /// Multiply-accumulates, if the scores have them all.
    pub macs: Option<Vec<f64>>,
    /// Layers, if the scores have them all.
    pub depth: Option<Vec<f64>>,
    /// What became of the rows.
    pub rows: Rows,
    /// Networks whose paths have different truths, if there are any.
    pub differing: Option<Differing>,
    /// Columns that were not evaluated, or grouped by, because they hold text: name, line and what it holds.
    pub text_columns: Vec<(String, u64, String)>,
    /// Whether the scores say which paths are equal networks.
    pub canonical: bool,
}

/// Brings the tables together.
///
/// A path of the truth finds its network by `path` or by `canonical` of the scores; rows of the scores with one
/// `canonical` are one network. Without that column every path is a network of its own. Several rows of truth
/// for one path must agree; different paths of one network may differ and are averaged.
///
/// `wanted` are the columns to evaluate, all numeric ones if it is empty. `path_column` is that of the truth,
/// `path` or `arch` if it is None.
///
/// # Errors
/// See [`Problem`].
pub fn join(
    scores: &Table,
    truth: &Table,
    truth_column: &str,
    path_column: Option<&str>,
    wanted: &[String],
) -> Result<Population, JoinError> {
    let in_scores = |problem| JoinError { side: Side::Scores, problem };
    let in_truth = |problem| JoinError { side: Side::Truth, problem };
    let networks = Networks::read(scores).map_err(in_scores)?;
    let (columns, mut text_columns) = columns(scores, &networks, wanted).map_err(in_scores)?;
    let mut rows = Rows {
        scores: scores.rows().len(),
        scores_networks: networks.first.len(),
        truth: truth.rows().len(),
        ..Rows::default()
    };
    let truths = Truths::read(truth, truth_column, path_column, &networks, &mut rows).map_err(in_truth)?;
    let mut joined: Vec<usize> = (0..networks.first.len()).filter(|i| !truths.of[*i].is_empty()).collect();
    joined.sort_by(|&a, &b| networks.names[a].cmp(&networks.names[b]));
    rows.scores_joined = networks.of_row.iter().filter(|i| !truths.of[**i].is_empty()).count();
    rows.scores_without_truth = rows.scores - rows.scores_joined;
    if joined.len() < MIN_NETWORKS {
        let alone = (0..networks.first.len()).find(|i| truths.of[*i].is_empty() && !truths.valueless.contains(i));
        let valueless = truths.valueless.iter().filter(|&&i| truths.of[i].is_empty()).count();
        return Err(in_truth(Problem::TooFew {
            joined: joined.len(),
            scores: networks.first.len(),
            truth: truths.paths,
            no_value: rows.truth_without_value,
            no_value_matters: joined.len() + valueless >= MIN_NETWORKS,
            column: truth_column.to_owned(),
            apart: alone.map(|i| networks.names[i].clone()).zip(truths.unknown),
        }));
    }
    let keep = |values: &[Option<f64>]| joined.iter().map(|&i| values[i]).collect::<Vec<_>>();
    // What is grouped by, though it may not be evaluated.
    let mut whole = |name: &str| -> Result<Option<Vec<f64>>, Problem> {
        let index = match scores.column(name) {
            Err(TableError::NoColumn { .. }) => return Ok(None),
            found => found?,
        };
        match values(scores, &networks, index) {
            Ok(values) => Ok(keep(&values).into_iter().collect()),
            Err(Problem::NotANumber { line, column, text }) => {
                if text_columns.iter().all(|(known, ..)| *known != column) {
                    text_columns.push((column, line, text));
                }
                Ok(None)
            }
            Err(problem) => Err(problem),
        }
    };
    let (macs, depth) = (whole("macs").map_err(in_scores)?, whole("depth").map_err(in_scores)?);
    Ok(Population {
        names: joined.iter().map(|&i| networks.names[i].clone()).collect(),
        truth: joined.iter().map(|&i| mean(&truths.of[i])).collect(),
        columns: columns.into_iter().map(|c| Column { values: keep(&c.values), ..c }).collect(),
        macs,
        depth,
        rows,
        differing: differing(joined.iter().map(|&i| &truths.of[i][..])),
        text_columns,
        canonical: networks.canonical,
    })
}

/// The networks of the scores.
struct Networks {
    /// Canonical path of each.
    names: Vec<String>,
    /// Index of the first row of each.
    first: Vec<usize>,
    /// Network of every row.
    of_row: Vec<usize>,
    /// Network of every path and canonical path, and the row that said so.
    by_path: HashMap<String, (usize, usize)>,
    canonical: bool,
}

impl Networks {
    fn read(scores: &Table) -> Result<Self, Problem> {
        let path = path_column(scores, None)?;
        let canonical = match scores.column("canonical") {
            Ok(index) => Some(index),
            Err(TableError::NoColumn { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let mut networks = Self {
            names: Vec::new(),
            first: Vec::new(),
            of_row: Vec::new(),
            by_path: HashMap::new(),
            canonical: canonical.is_some(),
        };
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for (i, row) in scores.rows().iter().enumerate() {
            let path = name(row, path)?;
            let canonical = canonical.map_or(Ok(path), |index| name(row, index))?;
            let network = *by_name.entry(canonical).or_insert_with(|| {
                networks.names.push(canonical.to_owned());
                networks.first.push(i);
                networks.first.len() - 1
            });
            networks.of_row.push(network);
            for name in [path, canonical] {
                let (known, row_before) = *networks.by_path.entry(name.to_owned()).or_insert((network, i));
                if known != network {
                    return Err(Problem::Conflict(Box::new(Conflict {
                        what: "path",
                        name: name.to_owned(),
                        column: "canonical".into(),
                        lines: (scores.rows()[row_before].line, row.line),
                        values: (networks.names[known].clone(), networks.names[network].clone()),
                    })));
                }
            }
        }
        Ok(networks)
    }
}

/// The truth of every network.
struct Truths {
    /// Lines and values of each network of the scores.
    of: Vec<Vec<(u64, f64)>>,
    /// Different paths.
    paths: usize,
    /// A path that the scores do not have.
    unknown: Option<String>,
    /// Networks of which a row has no finite value.
    valueless: HashSet<usize>,
}

impl Truths {
    fn read(
        truth: &Table,
        column: &str,
        path: Option<&str>,
        networks: &Networks,
        rows: &mut Rows,
    ) -> Result<Self, Problem> {
        let (path, index) = (path_column(truth, path)?, truth.column(column)?);
        if path == index || NAMES.contains(&column) {
            return Err(Problem::Names(column.to_owned()));
        }
        let of = vec![Vec::new(); networks.first.len()];
        let mut truths = Self { of, paths: 0, unknown: None, valueless: HashSet::new() };
        let mut seen: HashMap<&str, (u64, f64)> = HashMap::new();
        let mut paths: HashSet<&str> = HashSet::new();
        for row in truth.rows() {
            let path = name(row, path)?;
            paths.insert(path);
            let network = networks.by_path.get(path).map(|&(network, _)| network);
            if network.is_none() {
                rows.truth_without_scores += 1;
                truths.unknown.get_or_insert_with(|| path.to_owned());
            }
            let Some(value) = number(row, index, column)? else {
                rows.truth_without_value += usize::from(network.is_some());
                truths.valueless.extend(network);
                continue;
            };
            if let Some(&(line, before)) = seen.get(path) {
                if !same(before, value) {
                    return Err(Problem::Conflict(Box::new(Conflict {
                        what: "path",
                        name: path.to_owned(),
                        column: column.to_owned(),
                        lines: (line, row.line),
                        values: (before.to_string(), value.to_string()),
                    })));
                }
                rows.truth_repeated += usize::from(network.is_some());
                continue;
            }
            seen.insert(path, (row.line, value));
            if let Some(network) = network {
                truths.of[network].push((row.line, value));
                rows.truth_joined += 1;
            }
        }
        // Means are sums, whose last bits would tell in which order rows stand.
        truths.of.iter_mut().for_each(|of| of.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0))));
        truths.paths = paths.len();
        Ok(truths)
    }
}

/// Columns that were left out, with the cell that made them text.
type TextColumns = Vec<(String, u64, String)>;

/// The columns asked for, or all that hold numbers.
fn columns(scores: &Table, networks: &Networks, wanted: &[String]) -> Result<(Vec<Column>, TextColumns), Problem> {
    let (mut columns, mut text): (Vec<Column>, _) = (Vec::new(), Vec::new());
    let all: Vec<&String> = if wanted.is_empty() {
        scores.header().iter().filter(|h| !NAMES.contains(&h.as_str())).collect()
    } else {
        wanted.iter().collect()
    };
    for name in all {
        if columns.iter().any(|c| c.name == *name) && !wanted.is_empty() {
            continue;
        }
        if NAMES.contains(&name.as_str()) {
            return Err(Problem::Names(name.clone()));
        }
        match values(scores, networks, scores.column(name)?) {
            // Indicators that were not asked for are empty columns.
            Ok(values) if wanted.is_empty() && values.iter().all(Option::is_none) => {}
            Ok(values) => columns.push(Column { name: name.clone(), values }),
            Err(Problem::NotANumber { line, column, text: cell }) if wanted.is_empty() => {
                text.push((column, line, cell))
            }
            Err(problem) => return Err(problem),
        }
    }
    if columns.is_empty() { Err(Problem::NoScores) } else { Ok((columns, text)) }
}

/// A value a network: that of its first row that has one; the others must agree.
fn values(scores: &Table, networks: &Networks, index: usize) -> Result<Vec<Option<f64>>, Problem> {
    let column = &scores.header()[index];
    let mut values: Vec<Option<(u64, f64)>> = vec![None; networks.first.len()];
    for (row, &network) in scores.rows().iter().zip(&networks.of_row) {
        let Some(value) = number(row, index, column)? else { continue };
        let (line, first) = *values[network].get_or_insert((row.line, value));
        if !same(first, value) {
            return Err(Problem::Conflict(Box::new(Conflict {
                what: "network",
                name: networks.names[network].clone(),
                column: column.clone(),
                lines: (line, row.line),
                values: (first.to_string(), value.to_string()),
            })));
        }
    }
    Ok(values.into_iter().map(|value| value.map(|(_, value)| value)).collect())
}

/// The column of paths: that of the name, or `path` or `arch`.
fn path_column(table: &Table, name: Option<&str>) -> Result<usize, TableError> {
    match name {
        Some(name) => table.column(name),
        None => table.column("path").or_else(|error| match error {
            TableError::NoColumn { .. } => table.column("arch").map_err(|other| match other {
                TableError::NoColumn { available, .. } => {
                    TableError::NoColumn { name: "path".into(), nearest: None, available }
                }
                other => other,
            }),
            other => Err(other),
        }),
    }
}

fn name(row: &Row, index: usize) -> Result<&str, Problem> {
    row.fields.get(index).filter(|name| !name.is_empty()).ok_or(Problem::NoPath(row.line))
}

fn number(row: &Row, index: usize, column: &str) -> Result<Option<f64>, Problem> {
    let text = row.fields.get(index).unwrap_or_default();
    match Cell::parse(text) {
        Cell::Number(value) => Ok(Some(value)),
        Cell::Missing => Ok(None),
        Cell::Text => Err(Problem::NotANumber { line: row.line, column: column.to_owned(), text: text.to_owned() }),
    }
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= SAME * a.abs().max(b.abs())
}

fn mean(truths: &[(u64, f64)]) -> f64 {
    match truths {
        // Equal ones have no rounding.
        [(_, first), rest @ ..] if rest.iter().all(|(_, value)| value == first) => *first,
        _ => truths.iter().map(|(_, value)| value).sum::<f64>() / truths.len() as f64,
    }
}

fn differing<'a>(networks: impl Iterator<Item = &'a [(u64, f64)]>) -> Option<Differing> {
    let mut found: Option<Differing> = None;
    for truths in networks {
        let least = truths.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let most = truths.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((least, most)) = least.zip(most) else { continue };
        if same(least.1, most.1) {
            continue;
        }
        let spread = most.1 - least.1;
        let lines = (least.0.min(most.0), least.0.max(most.0));
        let entry = found.get_or_insert(Differing { networks: 0, most: 0.0, lines });
        entry.networks += 1;
        if spread > entry.most {
            (entry.most, entry.lines) = (spread, lines);
        }
    }
    found
}
