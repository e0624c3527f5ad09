//! What loading a model came to, as admins see it: the runtime, what it tried, what it kept, and why not the others.

use mesh_types::{LoadReport, VariantReport, Verdict};
use serde::Serialize;
use utoipa::ToSchema;

/// What loading a version came to.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LoadView {
    /// The runtime and its version.
    runtime: String,
    /// The form of the model that runs: `original`, `frozen`, `optimized for inference`, `BF16` or `FP16`.
    chosen: String,
    /// Why nothing was compared, where that needs a word.
    remark: Option<String>,
    /// The forms that were tried, the original first.
    variants: Vec<VariantView>,
}

/// One form of a model that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct VariantView {
    /// Which.
    variant: String,
    /// `chosen`, `slower`, `differs` or `failed`.
    verdict: String,
    /// Why it failed.
    reason: Option<String>,
    /// The largest difference of an output from the original's.
    absolute_difference: Option<f64>,
    /// The same in parts of the value, absolutely below 1: what the tolerance bounds.
    relative_difference: Option<f64>,
    /// The largest difference that is borne.
    tolerance: Option<f64>,
    /// How long it took, by batch size.
    times: Vec<TimeView>,
}

/// How long one batch size took.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct TimeView {
    /// Rows.
    rows: u32,
    /// The median of several executions.
    milliseconds: f64,
}

impl LoadView {
    /// None where nothing has been loaded yet.
    pub(crate) fn of(report: &LoadReport) -> Option<Self> {
        (!report.runtime.is_empty()).then(|| Self {
            runtime: report.runtime.clone(),
            chosen: report.chosen.to_string(),
            remark: (!report.remark.is_empty()).then(|| report.remark.clone()),
            variants: report.variants.iter().map(VariantView::from).collect(),
        })
    }
}

impl From<&VariantReport> for VariantView {
    fn from(report: &VariantReport) -> Self {
        let (verdict, reason) = match &report.verdict {
            Verdict::Chosen => ("chosen", None),
            Verdict::Slower => ("slower", None),
            Verdict::Differs => ("differs", None),
            Verdict::Failed(why) => ("failed", Some(why.clone())),
        };
        let times = report.times.iter().map(|time| TimeView {
            rows: time.rows,
            milliseconds: time.took.as_secs_f64() * 1_000.0,
        });
        Self {
            variant: report.variant.to_string(),
            verdict: verdict.to_owned(),
            reason,
            absolute_difference: report.difference.map(|found| found.absolute),
            relative_difference: report.difference.map(|found| found.relative),
            tolerance: report.tolerance,
            times: times.collect(),
        }
    }
}
