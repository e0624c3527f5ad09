//! Rows, medians, and the table.

use std::fmt::Write as _;

use serde::Serialize;

/// One figure beside another.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) row: String,
    /// What the mesh does.
    pub(crate) value: Option<f64>,
    /// Of both figures.
    pub(crate) unit: &'static str,
    /// What the least possible does.
    pub(crate) beside: Option<f64>,
    /// The first over the second.
    pub(crate) ratio: Option<f64>,
    /// What the second is, or why there is no figure.
    pub(crate) note: String,
}

impl Row {
    /// Two figures.
    pub(crate) fn pair(row: String, unit: &'static str, (value, beside): (f64, f64), note: &str) -> Self {
        Self {
            row,
            value: Some(value),
            unit,
            beside: Some(beside),
            ratio: (beside > 0.0).then(|| value / beside),
            note: note.to_owned(),
        }
    }

    /// One figure, with nothing to hold it against.
    pub(crate) fn single(row: String, unit: &'static str, value: f64, note: &str) -> Self {
        Self {
            row,
            value: Some(value),
            unit,
            beside: None,
            ratio: None,
            note: note.to_owned(),
        }
    }

    /// No figure, and why.
    pub(crate) fn missing(row: &str, unit: &'static str, note: &str) -> Self {
        Self {
            row: row.to_owned(),
            value: None,
            unit,
            beside: None,
            ratio: None,
            note: note.to_owned(),
        }
    }
}

/// The middle of the values; of two middles, their mean.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => at(middle),
        _ => f64::midpoint(at(middle - 1), at(middle)),
    }
}

/// The rows for people.
pub(crate) fn text(rows: &[Row]) -> String {
    let figure = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    };
    let mut text = format!(
        "{:34} {:>12} {:>12} {:>7}  {:10} {}\n",
        "row", "value", "beside", "ratio", "unit", "note"
    );
    for row in rows {
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:34} {:>12} {:>12} {ratio:>7}  {:10} {}",
            row.row,
            figure(row.value),
            figure(row.beside),
            row.unit,
            row.note
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_row_without_a_figure_says_why() {
        let rows = [
            Row::pair("a".into(), "requests/s", (50.0, 200.0), "empty handler"),
            Row::missing("b", "instructions", "valgrind is not installed"),
        ];
        let text = text(&rows);
        assert!(
            text.contains("0.25") && text.contains("valgrind is not installed"),
            "{text}"
        );
        let json = serde_json::to_value(&rows).unwrap();
        assert_eq!(json[0]["ratio"], 0.25);
        assert!(json[1]["value"].is_null());
    }
}
