//! Tables over (choice, candidate): a number for every path as a sum of one number a choice.
//!
//! Indicators are nearly additive over a path's operators. A table that is fitted to a few hundred measured
//! paths therefore stands for measuring all of them, with the noise of single measurements averaged away, and
//! ranks millions of paths a second.

use nasbn_models::{Path, Selection, Supernet};
use serde::{Deserialize, Serialize};

/// A sum over the choices of a path: `intercept + sum_c values[c][path_c]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathTable {
    intercept: f64,
    /// Where the candidates of each choice start in `values`.
    offsets: Vec<u32>,
    values: Vec<f64>,
}

/// A table and how well it stands for what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The table.
    pub table: PathTable,
    /// Share of the variance that the table explains of paths left out of the fit, one at a time
    /// (1 - PRESS / total sum of squares; Allen 1974). At most 1; below 0 if the table is worse than the mean.
    /// Not a number where all values are equal.
    pub explained: f64,
}

/// Why no table can be fitted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Too few paths.
    #[error("{0} measured paths are too few for a table; at least {MIN_PATHS} are needed")]
    TooFew(usize),
    /// A value that cannot be fitted.
    #[error("the value of path {index} is {value}, which no table stands for")]
    NotFinite {
        /// Index of the path.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// A path that the space does not have.
    #[error("path {0} is not one of the space")]
    Path(usize),
}

/// Fewest paths that a table is fitted to.
pub const MIN_PATHS: usize = 8;

impl PathTable {
    /// A table of given numbers: one list a choice of the supernet, one number a candidate.
    /// `None` if there are more or fewer.
    pub fn new(supernet: &Supernet, intercept: f64, values: &[Vec<f64>]) -> Option<Self> {
        let fits = values.len() == supernet.choices.len()
            && values.iter().zip(&supernet.choices).all(|(values, choice)| values.len() == choice.candidates.len());
        fits.then(|| Self { intercept, offsets: offsets(supernet), values: values.concat() })
    }

    /// The table of a sum over the edges of a path: `entry` gives what an operator on an edge adds. What fixed edges add is
    /// the intercept; edges that share a choice are added up.
    pub fn of_edges(supernet: &Supernet, entry: impl Fn(usize, u8) -> f64) -> Self {
        let offsets = offsets(supernet);
        let columns = supernet.choices.iter().map(|choice| choice.candidates.len()).sum();
        let mut table = Self { intercept: 0.0, offsets, values: vec![0.0; columns] };
        for (e, edge) in supernet.edges.iter().enumerate() {
            match edge.selection {
                Selection::Fixed(operator) => table.intercept += entry(e, operator),
                Selection::Mixed(choice) => {
                    let values = &mut table.values[table.offsets[usize::from(choice)] as usize..];
                    for (value, &operator) in values.iter_mut().zip(supernet.candidates(edge)) {
                        *value += entry(e, operator);
                    }
                }
            }
        }
        table
    }

    /// The number of a path of the space. Unknown candidates count nothing.
    pub fn value(&self, path: &Path) -> f64 {
        let entry = |(&offset, &choice): (&u32, &u8)| self.values.get(offset as usize + usize::from(choice));
        self.intercept + self.offsets.iter().zip(path.choices()).filter_map(entry).sum::<f64>()
    }

    /// What a candidate of a choice adds; 0 if there is no such candidate.
    pub fn entry(&self, choice: usize, candidate: u8) -> f64 {
        let offset = self.offsets.get(choice).map(|&offset| offset as usize + usize::from(candidate));
        let end = self.offsets.get(choice + 1).map_or(self.values.len(), |&next| next as usize);
        offset.filter(|&at| at < end).and_then(|at| self.values.get(at)).copied().unwrap_or(0.0)
    }

    /// The path of the least value, the first candidates of equal ones; every combination of candidates is looked at, connected or
    /// not. None if the table is of more choices than a path has.
    pub fn lowest(&self) -> Option<Path> {
        let ends = self.offsets.iter().skip(1).map(|&end| end as usize).chain([self.values.len()]);
        let least = |(&start, end): (&u32, usize)| -> Option<u8> {
            let values = self.values.get(start as usize..end)?.iter().enumerate();
            let (least, _) = values.min_by(|a, b| a.1.total_cmp(b.1))?;
            u8::try_from(least).ok()
        };
        let choices: Option<Vec<u8>> = self.offsets.iter().zip(ends).map(least).collect();
        Path::new(&choices?)
    }

    /// The table of `shift + scale * value`.
    pub fn affine(&self, shift: f64, scale: f64) -> Self {
        let values = self.values.iter().map(|value| scale * value).collect();
        Self { intercept: shift + scale * self.intercept, offsets: self.offsets.clone(), values }
    }

    /// The table of the sum of both values. `None` if they are of different spaces.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        if self.offsets != other.offsets || self.values.len() != other.values.len() {
            return None;
        }
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a + b).collect();
        Some(Self { intercept: self.intercept + other.intercept, offsets: self.offsets.clone(), values })
    }

    /// The table whose sums begin with `intercept` more.
    pub fn raised(&self, intercept: f64) -> Self {
        Self { intercept: self.intercept + intercept, ..self.clone() }
    }

    /// Whether it is a table over the choices of `supernet`.
    pub fn fits(&self, supernet: &Supernet) -> bool {
        let columns: usize = supernet.choices.iter().map(|choice| choice.candidates.len()).sum();
        self.offsets == offsets(supernet) && self.values.len() == columns
    }

    /// Whether all of its numbers are finite.
    pub fn is_finite(&self) -> bool {
        self.intercept.is_finite() && self.values.iter().all(|value| value.is_finite())
    }

    /// The mean of tables over one supernet. `None` if there is none, or they are of different spaces.
    pub fn mean(tables: &[Self]) -> Option<Self> {
        let mut mean = tables.first()?.clone();
        if tables.iter().any(|table| table.offsets != mean.offsets || table.values.len() != mean.values.len()) {
            return None;
        }
        let count = tables.len() as f64;
        mean.intercept = tables.iter().map(|table| table.intercept).sum::<f64>() / count;
        for (i, value) in mean.values.iter_mut().enumerate() {
            *value = tables.iter().map(|table| table.values[i]).sum::<f64>() / count;
        }
        Some(mean)
    }

    /// Least squares with a ridge: minimises `sum_i (y_i - b - sum_c v[c][path_ic])^2 + ridge |v|^2`, the
    /// intercept b unpenalised (Hoerl & Kennard 1970). `ridge` above 0 makes the table unique: a candidate that
    /// no path takes gets 0, the mean of its choice.
    ///
    /// # Errors
    /// See [`FitError`].
    pub fn fit(supernet: &Supernet, paths: &[Path], y: &[f64], ridge: f64) -> Result<Fit, FitError> {
        let n = paths.len().min(y.len());
        if n < MIN_PATHS {
            return Err(FitError::TooFew(n));
        }
        if let Some(index) = paths.iter().position(|path| !supernet.contains(path)) {
            return Err(FitError::Path(index));
        }
        if let Some((index, &value)) = y.iter().enumerate().find(|(_, y)| !y.is_finite()) {
            return Err(FitError::NotFinite { index, value });
        }
        let offsets = offsets(supernet);
        let columns: usize = supernet.choices.iter().map(|choice| choice.candidates.len()).sum();
        let mut x = vec![0.0; n * columns];
        for (row, path) in x.chunks_exact_mut(columns.max(1)).zip(paths) {
            for (&offset, &choice) in offsets.iter().zip(path.choices()) {
                row[offset as usize + usize::from(choice)] = 1.0;
            }
        }
        let mean_y = y[..n].iter().sum::<f64>() / n as f64;
        let Ridge { intercept, coefficients: values, centred: x, factor } = Ridge::fit(x, columns, &y[..n], ridge);
        let table = Self { intercept, offsets, values };
        let (mut press, mut total) = (0.0, 0.0);
        for ((row, path), &y) in x.chunks_exact(columns.max(1)).zip(paths).zip(y) {
            let solved = factor.solve(row.to_vec());
            let leverage = 1.0 / n as f64 + row.iter().zip(&solved).map(|(a, b)| a * b).sum::<f64>();
            let left_out = (y - table.value(path)) / (1.0 - leverage).max(f64::EPSILON);
            press += left_out * left_out;
            total += (y - mean_y) * (y - mean_y);
        }
        Ok(Fit { table, explained: if total > 0.0 { 1.0 - press / total } else { f64::NAN } })
    }
}

fn offsets(supernet: &Supernet) -> Vec<u32> {
    let mut next = 0;
    let start = |choice: &nasbn_models::Choice| {
        let start = next;
        next += choice.candidates.len() as u32;
        start
    };
    supernet.choices.iter().map(start).collect()
}

/// Least squares with a ridge: minimises `sum_i w_i (y_i - b - x_i . c)^2 + ridge |c|^2`, the intercept b unpenalised
/// (Hoerl & Kennard 1970).
pub(crate) struct Ridge {
    /// b.
    pub intercept: f64,
    /// c.
    pub coefficients: Vec<f64>,
    /// Rows of x, the (weighted) mean of each column taken away.
    centred: Vec<f64>,
    factor: Cholesky,
}

impl Ridge {
    /// Fits `y` to as many rows of `columns` numbers each, all weighing 1. `ridge` must be above 0.
    pub fn fit(x: Vec<f64>, columns: usize, y: &[f64], ridge: f64) -> Self {
        Self::weighted(x, columns, y, &vec![1.0; y.len()], ridge)
    }

    /// Fits `y` to as many rows of `columns` numbers each, with a weight above 0 for each. `ridge` must be above 0.
    pub fn weighted(mut x: Vec<f64>, columns: usize, y: &[f64], weights: &[f64], ridge: f64) -> Self {
        let total: f64 = weights.iter().sum();
        let total = if total > 0.0 { total } else { 1.0 };
        let mean_y = y.iter().zip(weights).map(|(y, w)| w * y).sum::<f64>() / total;
        // Centred, so that the intercept is the mean.
        let mean = |c: usize| x.iter().skip(c).step_by(columns.max(1)).zip(weights).map(|(x, w)| w * x).sum::<f64>();
        let means: Vec<f64> = (0..columns).map(|c| mean(c) / total).collect();
        for row in x.chunks_exact_mut(columns.max(1)) {
            row.iter_mut().zip(&means).for_each(|(x, mean)| *x -= mean);
        }
        let mut gram = vec![0.0; columns * columns];
        let mut right = vec![0.0; columns];
        for ((row, &y), &weight) in x.chunks_exact(columns.max(1)).zip(y).zip(weights) {
            for (a, xa) in row.iter().map(|xa| weight * xa).enumerate() {
                right[a] += xa * (y - mean_y);
                for (g, &xb) in gram[a * columns..][..columns].iter_mut().zip(row) {
                    *g += xa * xb;
                }
            }
        }
        for a in 0..columns {
            gram[a * columns + a] += ridge;
        }
        let factor = Cholesky::new(gram, columns);
        let coefficients = factor.solve(right);
        let intercept = mean_y - means.iter().zip(&coefficients).map(|(mean, c)| mean * c).sum::<f64>();
        Self { intercept, coefficients, centred: x, factor }
    }
}

/// Lower triangle of a positive definite matrix `A = L L^T`, row by row.
struct Cholesky {
    lower: Vec<f64>,
    n: usize,
}

impl Cholesky {
    /// Factors `a` (`n x n`), which must be positive definite: a Gram matrix with a ridge is.
    fn new(mut a: Vec<f64>, n: usize) -> Self {
        for j in 0..n {
            for i in j..n {
                let dot: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
                let rest = a[i * n + j] - dot;
                a[i * n + j] = if i == j { rest.max(f64::MIN_POSITIVE).sqrt() } else { rest / a[j * n + j] };
            }
        }
        Self { lower: a, n }
    }

    fn solve(&self, mut b: Vec<f64>) -> Vec<f64> {
        let (l, n) = (&self.lower, self.n);
        for i in 0..n {
            let dot: f64 = (0..i).map(|k| l[i * n + k] * b[k]).sum();
            b[i] = (b[i] - dot) / l[i * n + i];
        }
        for i in (0..n).rev() {
            let dot: f64 = (i + 1..n).map(|k| l[k * n + i] * b[k]).sum();
            b[i] = (b[i] - dot) / l[i * n + i];
        }
        b
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::composite::testing::{random_paths, space};

    /// Differences that rounding explains.
    const EXACT: f64 = 1e-9;
    /// Left over by a ridge that is not quite zero.
    const SMALL_RIDGE: f64 = 1e-8;

    #[test]
    fn an_additive_function_is_found_again() {
        let supernet = space();
        let truth: Vec<Vec<f64>> =
            (0..8).map(|c| (0..3).map(|o| (c as f64 - 3.0) * f64::from(o * o)).collect()).collect();
        let truth = PathTable::new(&supernet, 5.0, &truth).unwrap();
        let paths = random_paths(&supernet, 60, 1);
        let y: Vec<f64> = paths.iter().map(|p| truth.value(p)).collect();
        let fit = PathTable::fit(&supernet, &paths, &y, SMALL_RIDGE).unwrap();
        for path in random_paths(&supernet, 50, 2) {
            assert!((fit.table.value(&path) - truth.value(&path)).abs() < 1e3 * SMALL_RIDGE);
        }
        assert!(fit.explained > 1.0 - SMALL_RIDGE);
    }

    #[test]
    fn the_share_explained_is_that_of_fits_without_each_path() {
        let supernet = space();
        let paths = random_paths(&supernet, 30, 3);
        let y: Vec<f64> =
            paths.iter().enumerate().map(|(i, p)| f64::from(p.choices()[0]) + ((i * 37) % 11) as f64).collect();
        let fit = PathTable::fit(&supernet, &paths, &y, 1.0).unwrap();
        let mean = y.iter().sum::<f64>() / y.len() as f64;
        let press: f64 = (0..paths.len())
            .map(|left_out| {
                let without = |v: &[f64]| [&v[..left_out], &v[left_out + 1..]].concat();
                let others: Vec<Path> = [&paths[..left_out], &paths[left_out + 1..]].concat();
                let table = PathTable::fit(&supernet, &others, &without(&y), 1.0).unwrap().table;
                (y[left_out] - table.value(&paths[left_out])).powi(2)
            })
            .sum();
        let total: f64 = y.iter().map(|y| (y - mean).powi(2)).sum();
        assert!((fit.explained - (1.0 - press / total)).abs() < EXACT, "{}", fit.explained);
    }

    #[test]
    fn the_fit_is_the_least_of_its_neighbours() {
        let supernet = space();
        let paths = random_paths(&supernet, 20, 4);
        let y: Vec<f64> = (0..20).map(|i| ((i * 13) % 7) as f64).collect();
        let table = PathTable::fit(&supernet, &paths, &y, 0.5).unwrap().table;
        let cost = |t: &PathTable| {
            let errors: f64 = paths.iter().zip(&y).map(|(p, y)| (y - t.value(p)).powi(2)).sum();
            errors + 0.5 * t.values.iter().map(|v| v * v).sum::<f64>()
        };
        let least = cost(&table);
        for i in 0..=table.values.len() {
            for step in [-1e-3, 1e-3] {
                let mut other = table.clone();
                *other.values.get_mut(i).unwrap_or(&mut other.intercept) += step;
                assert!(cost(&other) > least);
            }
        }
    }

    #[test]
    fn the_mean_of_tables_is_the_table_of_means() {
        let supernet = space();
        let of = |factor: f64| {
            let values: Vec<Vec<f64>> = (0..8).map(|c| (0..3).map(|o| factor * (c + o) as f64).collect()).collect();
            PathTable::new(&supernet, factor, &values).unwrap()
        };
        let mean = PathTable::mean(&[of(1.0), of(4.0)]).unwrap();
        for path in random_paths(&supernet, 20, 6) {
            assert!((mean.value(&path) - 0.5 * (of(1.0).value(&path) + of(4.0).value(&path))).abs() < EXACT);
        }
        assert_eq!(PathTable::mean(&[]), None);
    }

    #[test]
    fn entries_are_what_candidates_add() {
        let supernet = space();
        let values: Vec<Vec<f64>> = (0..8).map(|c| (0..3).map(|o| f64::from(10 * c + o)).collect()).collect();
        let table = PathTable::new(&supernet, 5.0, &values).unwrap();
        assert_eq!((table.entry(2, 1), table.entry(7, 2)), (21.0, 72.0));
        // Not those of the next choice.
        assert_eq!((table.entry(2, 3), table.entry(7, 3), table.entry(8, 0)), (0.0, 0.0, 0.0));
        assert_eq!(table.lowest(), Path::new(&[0; 8]));
        assert_eq!(table.affine(0.0, -1.0).lowest(), Path::new(&[2; 8]));
    }

    #[test]
    fn a_weight_counts_as_so_many_rows() {
        let x = [1.0, 0.0, 0.5, 2.0, -1.0, 3.0, 0.0, 1.0];
        let y = [1.0, -2.0, 4.0, 0.5];
        let weighted = Ridge::weighted(x.to_vec(), 2, &y, &[1.0, 3.0, 1.0, 2.0], 0.5);
        let rows = [0, 1, 1, 1, 2, 3, 3];
        let repeated: Vec<f64> = rows.iter().flat_map(|&r| x[2 * r..2 * r + 2].to_vec()).collect();
        let repeated = Ridge::fit(repeated, 2, &rows.map(|r| y[r]), 0.5);
        let all = |fit: &Ridge| [fit.intercept, fit.coefficients[0], fit.coefficients[1]];
        for (a, b) in all(&weighted).into_iter().zip(all(&repeated)) {
            assert!((a - b).abs() < EXACT, "{a} {b}");
        }
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        let supernet = space();
        let paths = random_paths(&supernet, 10, 5);
        assert_eq!(PathTable::fit(&supernet, &paths[..3], &[0.0; 3], 1.0), Err(FitError::TooFew(3)));
        let mut y = vec![1.0; 10];
        assert!(PathTable::fit(&supernet, &paths, &y, 1.0).unwrap().explained.is_nan());
        y[4] = f64::INFINITY;
        assert_eq!(
            PathTable::fit(&supernet, &paths, &y, 1.0),
            Err(FitError::NotFinite { index: 4, value: f64::INFINITY })
        );
        let foreign = vec![Path::new(&[9; 8]).unwrap(); 10];
        assert_eq!(PathTable::fit(&supernet, &foreign, &[0.0; 10], 1.0), Err(FitError::Path(0)));
    }
}
