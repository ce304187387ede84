//! CSV files with a header, as text: every row knows its line, so that errors can name it.

use csv::StringRecord;

/// Why a CSV file is not a table, or lacks a column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The file has no header.
    #[error("the file is empty")]
    Empty,
    /// The file has a header and nothing else.
    #[error("the file has a header and no rows")]
    NoRows,
    /// Not CSV.
    #[error("{0}")]
    Csv(String),
    /// A quote that is opened and not closed before the end of the file.
    #[error("a quote in the row of line {0} is not closed")]
    OpenQuote(u64),
    /// A row with another number of fields than the header.
    #[error("line {line} has {fields} fields, the header has {header}")]
    Ragged {
        /// Line, from 1.
        line: u64,
        /// Fields of the row.
        fields: usize,
        /// Fields of the header.
        header: usize,
    },
    /// A column that is not there.
    #[error("there is no column `{name}`; there is {}", listed(available))]
    NoColumn {
        /// The column asked for.
        name: String,
        /// The column that is most like it, if one is.
        nearest: Option<String>,
        /// All columns.
        available: Vec<String>,
    },
    /// A column that is there twice.
    #[error("the column `{0}` is there more than once")]
    Twice(String),
}

impl TableError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Empty | Self::NoRows => "a CSV file has a header and a row a network".into(),
            Self::Csv(_) => "CSV in UTF-8 is wanted: commas between fields, quotes around fields with commas".into(),
            Self::OpenQuote(_) => "close it; within quotes, a quote is written twice".into(),
            Self::NoColumn { available, .. } if separator(available).is_some() => {
                let what = separator(available).unwrap_or_default();
                format!("fields are separated by commas; this file seems to have {what}")
            }
            Self::Ragged { .. } => "put quotes around fields with commas, and write empty fields as nothing".into(),
            Self::NoColumn { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            Self::NoColumn { .. } => "name one of these".into(),
            Self::Twice(_) => "rename or remove all but one".into(),
        }
    }
}

/// What may separate the fields of a file that seems to have one column only.
fn separator(header: &[String]) -> Option<&'static str> {
    let [only] = header else { return None };
    [(';', "semicolons"), ('\t', "tabs"), ('|', "bars")].iter().find(|(c, _)| only.contains(*c)).map(|&(_, name)| name)
}

/// Names in back quotes; of very many, the first.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 30;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// A row and where it stands.
#[derive(Clone, Debug)]
pub struct Row {
    /// Line of the file on which the row begins, from 1.
    pub line: u64,
    /// Fields, without white space around them.
    pub fields: StringRecord,
}

/// A header and rows of as many fields.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Row>,
}

impl Table {
    /// Reads CSV text. A byte order mark and empty lines are passed over; white space around fields does not count.
    ///
    /// # Errors
    /// If there is no header or no row, a quote is not closed, or a row has another number of fields than the header.
    pub fn parse(text: &str) -> Result<Self, TableError> {
        let rows = rows(text).collect::<Result<Vec<Row>, _>>()?;
        // An open quote swallows what comes after it.
        let unpaired = text.matches('"').count() % 2 == 1;
        if let Some(Row { line, .. }) = rows.last().filter(|r| unpaired && r.fields.iter().any(|f| f.contains('\n'))) {
            return Err(TableError::OpenQuote(*line));
        }
        let mut rows = rows.into_iter();
        let header = rows.next().ok_or(TableError::Empty)?;
        let header: Vec<String> = header.fields.iter().map(str::to_owned).collect();
        let rows = rows
            .map(|row| match row {
                Row { line, fields } if fields.len() != header.len() => {
                    Err(TableError::Ragged { line, fields: fields.len(), header: header.len() })
                }
                row => Ok(row),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() { Err(TableError::NoRows) } else { Ok(Self { header, rows }) }
    }

    /// Names of the columns.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The index of a column.
    ///
    /// # Errors
    /// If it is not there, or there twice.
    pub fn column(&self, name: &str) -> Result<usize, TableError> {
        let mut found = self.header.iter().enumerate().filter(|(_, column)| *column == name);
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Ok(index),
            (Some(_), Some(_)) => Err(TableError::Twice(name.into())),
            (None, _) => Err(TableError::NoColumn {
                name: name.into(),
                nearest: nearest(name, self.header.iter().map(String::as_str)).map(str::to_owned),
                available: self.header.clone(),
            }),
        }
    }
}

/// Rows of CSV text with their lines, the header among them; rows may differ in length.
pub fn rows(text: &str) -> impl Iterator<Item = Result<Row, TableError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    reader.into_records().enumerate().map(move |(row, record)| {
        let fields = record.map_err(|e| TableError::Csv(e.to_string()))?;
        // A record's position is before the empty lines that stand in front of it.
        let position = fields.position().map_or((0, row as u64 + 1), |p| (p.byte() as usize, p.line()));
        let ahead = text.get(position.0..).unwrap_or("");
        let empty = &ahead[..ahead.len() - ahead.trim_start_matches(['\n', '\r']).len()];
        Ok(Row { line: position.1 + empty.matches('\n').count() as u64, fields })
    })
}

/// The candidate that is most like `name` (Jaro-Winkler), if any is like it at all.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Similarity, 0 to 1, from which a name may have been meant.
    const LIKE: f64 = 0.75;
    let like = |candidate: &'a str| (strsim::jaro_winkler(name, candidate), candidate);
    let best = candidates.into_iter().map(like).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= LIKE).then_some(best.1)
}

/// A cell that should hold a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// A finite number.
    Number(f64),
    /// Empty, not finite, or a word for "nothing" (`nan`, `na`, `n/a`, `null`, `none`).
    Missing,
    /// Something else.
    Text,
}

impl Cell {
    /// Reads a field.
    pub fn parse(field: &str) -> Self {
        const NOTHING: [&str; 5] = ["", "na", "n/a", "null", "none"];
        match field.parse::<f64>() {
            Ok(value) if value.is_finite() => Self::Number(value),
            Ok(_) => Self::Missing,
            Err(_) if NOTHING.iter().any(|word| field.eq_ignore_ascii_case(word)) => Self::Missing,
            Err(_) => Self::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_is_read_whatever_wrote_it() {
        let table =
            Table::parse("\u{feff}arch,\"mean, of 3\",n\r\n\r\n001, 2.5 ,\"x\ny\"\r\n\"0\"\"2\",nan,\r\n").unwrap();
        assert_eq!(table.header(), ["arch", "mean, of 3", "n"]);
        let rows: Vec<_> = table.rows().iter().map(|r| (r.line, r.fields.iter().collect::<Vec<_>>())).collect();
        assert_eq!(rows, [(3, vec!["001", "2.5", "x\ny"]), (5, vec!["0\"2", "nan", ""])]);
        assert_eq!(table.column("mean, of 3"), Ok(1));
    }

    #[test]
    fn what_is_no_table_is_said_with_its_line() {
        let error = |text: &str| Table::parse(text).unwrap_err();
        assert_eq!(error(""), TableError::Empty);
        assert_eq!(error("\u{feff}\n\n"), TableError::Empty);
        assert_eq!(error("a,b\n"), TableError::NoRows);
        assert_eq!(error("a,b\n1,2\n\n3\n"), TableError::Ragged { line: 4, fields: 1, header: 2 });
        assert_eq!(error("a,b\n1,2,3\n"), TableError::Ragged { line: 2, fields: 3, header: 2 });
    }

    #[test]
    fn an_open_quote_is_told_wherever_it_is() {
        for (text, line) in [
            ("a,b\n1,2\n\"3,4\n5,6\n", 3),
            ("a,b\n1,\"2\n3,4\n", 2),
            ("a,\"b\n1,2\n", 1),
            ("a,b\n\"1\",\"x \"\" y\n3,4", 2),
        ] {
            assert_eq!(Table::parse(text).unwrap_err(), TableError::OpenQuote(line), "{text}");
        }
        for fine in ["a,b\n1,5\" pipe\n2,3\n", "a,b\n1,\"x\ny\"\n", "a,b\n1,\"x\ny\"\n2,5\" pipe\n"] {
            assert!(Table::parse(fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn other_separators_are_told() {
        for (text, words) in [("path;acc\n01;2\n", "semicolons"), ("path\tacc\n01\t2\n", "tabs")] {
            let hint = Table::parse(text).unwrap().column("acc").unwrap_err().hint();
            assert!(hint.contains("commas") && hint.contains(words), "{hint}");
        }
    }

    #[test]
    fn a_missing_column_gets_the_nearest_one() {
        let table = Table::parse("arch,mean_acc,x,x\n1,2,3,4\n").unwrap();
        let error = table.column("mean_ac").unwrap_err();
        assert_eq!(error.to_string(), "there is no column `mean_ac`; there is `arch`, `mean_acc`, `x`, `x`");
        assert_eq!(error.hint(), "did you mean `mean_acc`?");
        assert_eq!(table.column("zzz").unwrap_err().hint(), "name one of these");
        assert_eq!(table.column("x"), Err(TableError::Twice("x".into())));
    }

    #[test]
    fn cells_are_numbers_nothing_or_text() {
        assert_eq!(["1e3", "-0.5", "007"].map(Cell::parse), [1000.0, -0.5, 7.0].map(Cell::Number));
        assert!(["", "NaN", "-inf", "NA", "n/a", "None"].iter().all(|c| Cell::parse(c) == Cell::Missing));
        assert!(["1,5", "3 %", "MB3"].iter().all(|c| Cell::parse(c) == Cell::Text));
    }
}
