//! What loading a model came to: the forms that were tried, as a table.

use serde::Deserialize;

use crate::table;

/// What loading a version came to, as the admin API says it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Load {
    runtime: String,
    chosen: String,
    remark: Option<String>,
    variants: Vec<Variant>,
}

#[derive(Debug, Clone, Deserialize)]
struct Variant {
    variant: String,
    verdict: String,
    reason: Option<String>,
    absolute_difference: Option<f64>,
    relative_difference: Option<f64>,
    tolerance: Option<f64>,
    times: Vec<Time>,
}

#[derive(Debug, Clone, Deserialize)]
struct Time {
    rows: u32,
    milliseconds: f64,
}

fn small(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1e}"))
}

impl Load {
    /// A line for the runtime and what runs, and a table of what was tried.
    pub(crate) fn text(&self, of: &str) -> String {
        let mut text = format!("{of}: {}, runs {}\n", self.runtime, self.chosen);
        if let Some(remark) = &self.remark {
            text.push_str(&format!("  {remark}\n"));
        }
        if self.variants.is_empty() {
            return text;
        }
        let columns = ["tried", "verdict", "off by", "relative", "tolerance", "ms by rows"];
        let mut table = table::new(&columns);
        for tried in &self.variants {
            let verdict = match &tried.reason {
                Some(reason) => format!("{}: {reason}", tried.verdict),
                None => tried.verdict.clone(),
            };
            let times = tried
                .times
                .iter()
                .map(|time| format!("{}: {:.3}", time.rows, time.milliseconds));
            table.add_row([
                tried.variant.clone(),
                verdict,
                small(tried.absolute_difference),
                small(tried.relative_difference),
                small(tried.tolerance),
                times.collect::<Vec<_>>().join(", "),
            ]);
        }
        text + &table::text(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_line_and_a_table() {
        let json = r#"{"runtime": "libtorch 2.11.0, TorchScript", "chosen": "frozen", "remark": null, "variants": [
            {"variant": "frozen", "verdict": "chosen", "reason": null, "absolute_difference": 2e-7,
             "relative_difference": 1e-7, "tolerance": 1e-5, "times": [{"rows": 1, "milliseconds": 0.0123},
             {"rows": 8, "milliseconds": 0.5}]},
            {"variant": "BF16", "verdict": "failed", "reason": "no kernel", "absolute_difference": null,
             "relative_difference": null, "tolerance": 0.03, "times": []}]}"#;
        let load: Load = serde_json::from_str(json).unwrap();
        let text = load.text("acme/digits/1");
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some("acme/digits/1: libtorch 2.11.0, TorchScript, runs frozen")
        );
        assert!(text.contains("2.0e-7") && text.contains("1: 0.012, 8: 0.500"), "{text}");
        assert!(text.contains("failed: no kernel"), "{text}");
    }
}
