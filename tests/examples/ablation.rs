//! The composite with parts left out, as columns that `nasbn evaluate` can look at.
//!
//!     nasbn score --indicators combination,relu_units --out scores.csv ...
//!     cargo run --profile quick -p nasbn-tests --example ablation -- scores.csv ablation.csv
//!     cargo run --profile quick -p nasbn-tests --example ablation -- scores.csv ablation-0.csv 0
//!
//! The second keeps one half of the networks, 0 or 1: that of the lowest bit of the first byte of the SHA-256 of a
//! network's canonical path as text. It depends on nothing else, so that halves are the same for every table.

use std::{collections::BTreeMap, env, path::Path};

use anyhow::{Context, Result, bail};
use nasbn_runtime::composite::{COLUMNS, PARTS, Ranks};
use sha2::{Digest, Sha256};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (from, to, kept) = match arguments[..] {
        [from, to] => (from, to, None),
        [from, to, "0"] => (from, to, Some(0)),
        [from, to, "1"] => (from, to, Some(1)),
        _ => bail!("usage: ablation SCORES.csv OUT.csv [0|1]"),
    };
    run(Path::new(from), Path::new(to), kept)
}

/// The half, 0 or 1, of a network.
fn half(canonical: &str) -> u8 {
    Sha256::digest(canonical)[0] & 1
}

/// Copies a table of scores that has the composite's fitted parts, depth and relu_units, with more columns: the
/// composite without each part, with equal weights, and what needs no image (ranks of relu_units and depth). With `kept`,
/// the rows of that half alone; ranks are among all.
fn run(from: &Path, to: &Path, kept: Option<u8>) -> Result<()> {
    let mut reader = csv::Reader::from_path(from).with_context(|| from.display().to_string())?;
    let header = reader.headers()?.clone();
    let rows = reader.records().collect::<Result<Vec<_>, _>>().with_context(|| from.display().to_string())?;
    let column = |name: &str| -> Result<Vec<f64>> {
        let index = header.iter().position(|column| column == name);
        let index = index.with_context(|| {
            format!("{} has no column `{name}`: score with --indicators combination,relu_units", from.display())
        })?;
        rows.iter().map(|row| Ok(row[index].parse()?)).collect()
    };
    let parts = COLUMNS.map(column).into_iter().collect::<Result<Vec<_>>>()?;
    let weighted = |weights: [f64; 3]| -> Vec<f64> {
        let sum = |row: usize| parts.iter().zip(weights).map(|(part, weight)| weight * part[row]).sum::<f64>();
        (0..rows.len()).map(|row| sum(row) / weights.iter().sum::<f64>()).collect()
    };
    let weights = PARTS.map(|(_, weight)| weight);
    let without = |left_out: usize| {
        let mut weights = weights;
        weights[left_out] = 0.0;
        weighted(weights)
    };
    // Ranks are among different networks.
    let canonical = column_of(&header, &rows, "canonical")?;
    let ranked = |name: &str| -> Result<Vec<f64>> {
        let values = column(name)?;
        let distinct: BTreeMap<&str, f64> = canonical.iter().copied().zip(values.iter().copied()).collect();
        let ranks = Ranks::new(distinct.into_values().collect());
        Ok(values.iter().map(|&value| ranks.of(value)).collect())
    };
    let (units, depth) = (ranked("relu_units")?, ranked("depth")?);
    let added = [
        ("without_expressivity", without(0)),
        ("without_trainability", without(1)),
        ("without_uncertainty", without(2)),
        ("equal_weights", weighted([1.0; 3])),
        ("relu_units_and_depth", units.iter().zip(&depth).map(|(a, b)| a + b).collect()),
    ];
    let mut writer = csv::Writer::from_path(to).with_context(|| to.display().to_string())?;
    writer.write_record(header.iter().chain(added.iter().map(|(name, _)| *name)))?;
    let is_kept = |&(i, _): &(usize, &csv::StringRecord)| kept.is_none_or(|kept| half(canonical[i]) == kept);
    for (i, row) in rows.iter().enumerate().filter(is_kept) {
        let cells = added.iter().map(|(_, values)| format!("{:?}", values[i]));
        writer.write_record(row.iter().map(str::to_owned).chain(cells))?;
    }
    writer.flush().with_context(|| to.display().to_string())
}

fn column_of<'a>(header: &csv::StringRecord, rows: &'a [csv::StringRecord], name: &str) -> Result<Vec<&'a str>> {
    let index = header.iter().position(|column| column == name).with_context(|| format!("no column `{name}`"))?;
    Ok(rows.iter().map(|row| &row[index]).collect())
}
