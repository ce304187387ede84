//! Why scores and truth cannot be brought together, in words.

use super::MIN_NETWORKS;
use crate::table::TableError;

/// Which file a problem is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The scores.
    Scores,
    /// The truth.
    Truth,
}

/// Why scores and truth cannot be brought together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{problem}")]
pub struct JoinError {
    /// The file.
    pub side: Side,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Two rows of one path or network that do not agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lines {} and {} are of one {what}, `{name}`, but `{column}` is {} and {}", lines.0, lines.1, values.0, values.1)]
pub struct Conflict {
    /// `path` or `network`.
    pub what: &'static str,
    /// Path or canonical path.
    pub name: String,
    /// Column.
    pub column: String,
    /// Lines, from 1.
    pub lines: (u64, u64),
    /// What each holds.
    pub values: (String, String),
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// It is no table, or lacks a column.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A row without a path.
    #[error("line {0} has no path")]
    NoPath(u64),
    /// A cell that should hold a number.
    #[error("line {line}, column `{column}`: `{text}` is not a number")]
    NotANumber {
        /// Line, from 1.
        line: u64,
        /// Column.
        column: String,
        /// What it holds.
        text: String,
    },
    /// One network with two values.
    #[error(transparent)]
    Conflict(#[from] Box<Conflict>),
    /// No column of numbers.
    #[error("no column holds numbers to evaluate")]
    NoScores,
    /// A column of paths where numbers are wanted.
    #[error("the column `{0}` names networks; it does not measure them")]
    Names(String),
    /// Too few networks have both a score row and a truth.
    #[error("{}", shortage(*joined, *scores, *truth, *no_value, column))]
    TooFew {
        /// Networks with both.
        joined: usize,
        /// Networks in the scores.
        scores: usize,
        /// Different paths in the truth.
        truth: usize,
        /// Rows of the truth whose path is in the scores, and that have no finite value.
        no_value: usize,
        /// Whether there would be enough networks if these rows had one.
        no_value_matters: bool,
        /// Column of the truth.
        column: String,
        /// A path of the scores and one of the truth that have no partner.
        apart: Option<(String, String)>,
    },
}

impl Problem {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Table(error) => error.hint(),
            Self::NoPath(_) => "every row names its network in the column of paths".into(),
            Self::NotANumber { .. } => {
                "numbers have a decimal point and no unit; leave the cell empty if there is none".into()
            }
            Self::Conflict(conflict) if conflict.what == "path" => "keep one of the rows".into(),
            Self::Conflict(_) => "scores of different runs cannot be mixed; keep those of one".into(),
            Self::NoScores => "`nasbn score` writes such a file".into(),
            Self::Names(_) => "name a column of numbers".into(),
            Self::TooFew { no_value_matters: true, column, .. } => {
                format!("fill in `{column}`, or name another column with --truth-column")
            }
            Self::TooFew { apart: Some((score, truth)), .. } => format!(
                "paths are compared as text, zeros in front count: `{score}` is only in the scores, `{truth}` only in the truth"
            ),
            Self::TooFew { .. } => format!("at least {MIN_NETWORKS} networks make a ranking"),
        }
    }
}

/// How few networks there are, and why.
fn shortage(joined: usize, scores: usize, truth: usize, no_value: usize, column: &str) -> String {
    let few = match joined == scores {
        true => format!("the scores have only {scores} different networks"),
        false => format!(
            "only {joined} of the {scores} networks in the scores have a truth; the truth has {truth} different paths"
        ),
    };
    let (rows, have) = if no_value == 1 { ("row", "has") } else { ("rows", "have") };
    if no_value == 0 { few } else { format!("{few}, and {no_value} {rows} of them {have} no finite `{column}`") }
}
