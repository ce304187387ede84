//! Expressivity: how many different linear regions a batch falls into.

use super::eigen::symmetric_eigenvalues;
use crate::network::SignAgreement;

/// Why an agreement has no log-determinant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignsError {
    /// Not a square matrix of at least one row.
    #[error("an agreement has as many rows as columns and at least one, not {rows} x {columns}")]
    Shape {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// There is nothing whose signs could agree.
    #[error("the path has no activations after a BatchNorm")]
    NoActivations,
    /// An entry that no count of agreeing activations can be.
    #[error("the agreement of samples {row} and {column} is not a number from 0 to {activations}")]
    OutOfRange {
        /// One sample.
        row: usize,
        /// The other.
        column: usize,
        /// Activations of a sample.
        activations: u64,
    },
}

impl SignsError {
    /// What can be done about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoActivations => "use a space with BatchNorms, or leave this indicator out",
            Self::Shape { .. } | Self::OutOfRange { .. } => {
                "give what `Network::sign_agreement` has found for one batch"
            }
        }
    }
}

/// `ln det(K / E)`, nats: K the agreement `[N, N]`, E the number of activations (Mellor et al. 2021, arXiv 2006.04647,
/// equation 3, who do not divide; by E the score is that of the mean activation, and does not grow with depth alone).
/// At most 0, and the more negative the more alike the samples are.
/// None if K is singular: two samples with one code, or more samples than codes tell apart.
///
/// # Errors
/// See [`SignsError`].
pub fn log_determinant(agreement: &SignAgreement) -> Result<Option<f64>, SignsError> {
    let SignAgreement { kernel, activations } = agreement;
    let (rows, columns) = kernel.dim();
    if rows != columns || rows == 0 {
        return Err(SignsError::Shape { rows, columns });
    }
    if *activations == 0 {
        return Err(SignsError::NoActivations);
    }
    let all = *activations as f64;
    if let Some(((row, column), _)) = kernel.indexed_iter().find(|(_, v)| !(0.0..=all).contains(*v)) {
        return Err(SignsError::OutOfRange { row, column, activations: *activations });
    }
    let eigenvalues = symmetric_eigenvalues(kernel.mapv(|v| v / all).view());
    let noise = rows as f64 * f64::EPSILON * eigenvalues[rows - 1];
    let regular = eigenvalues[0] > noise;
    Ok(regular.then(|| eigenvalues.iter().map(|v| v.ln()).sum()))
}

/// `ln det K`, nats: [`log_determinant`] without dividing by the number of activations, the score of Mellor et al.
/// (2021). Grows with the activations, as linear regions do.
///
/// # Errors
/// See [`SignsError`].
pub fn unscaled_log_determinant(agreement: &SignAgreement) -> Result<Option<f64>, SignsError> {
    Ok(log_determinant(agreement)?.map(|scaled| unscaled(agreement, scaled)))
}

/// [`unscaled_log_determinant`] from what [`log_determinant`] has found.
pub fn unscaled(agreement: &SignAgreement, scaled: f64) -> f64 {
    scaled + agreement.kernel.nrows() as f64 * (agreement.activations as f64).ln()
}

#[cfg(test)]
mod tests;
