//! Spans of finished requests and batches, built from measured times and handed to the exporter.
//!
//! Nothing is recorded while a request runs but the instants of its stages: its spans are made once it has ended, and only
//! if it is sampled. A batch is a span of its own with a link to each request in it, and each of those links back to it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_types::{StageTimings, TraceChange, TraceContext, TraceSettings};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks, SpanProcessor};

use crate::{
    AnswersSample, Stage,
    sampling::{Sampling, TraceChangeError},
};

/// The most requests that one batch's span is linked from; a batch may hold more.
pub const MAX_BATCH_LINKS: usize = 128;

/// Where finished spans go: to an exporter's bounded queue, or nowhere.
#[derive(Clone, Debug)]
pub struct SpanSink {
    exporter: Option<Arc<Exporter>>,
}

#[derive(Debug)]
struct Exporter {
    processor: Box<dyn SpanProcessor>,
    scope: InstrumentationScope,
    sampling: Sampling,
}

/// A finished request, to be told as spans.
#[derive(Debug, Clone)]
pub struct RequestSpan<'a> {
    /// The request's own span.
    pub context: TraceContext,
    /// The caller's span, if it sent one.
    pub parent: Option<TraceContext>,
    /// What was called, such as `digits`.
    pub target: &'a str,
    /// Who called.
    pub tenant: &'a str,
    /// The version that answered; 0 if none.
    pub version: u32,
    /// The mesh's number for the request.
    pub request_id: u128,
    /// When it ended.
    pub ended: SystemTime,
    /// How long it took.
    pub total: Duration,
    /// Where the time went.
    pub stages: &'a StageTimings,
    /// The answers of a decoupled model; none of any other.
    pub answers: Option<AnswersSample>,
    /// What went wrong, if anything.
    pub error: Option<&'a str>,
}

/// A finished batch.
#[derive(Debug, Clone)]
pub struct BatchSpan<'a> {
    /// The batch's own span.
    pub context: TraceContext,
    /// The model, as `tenant/model/version`.
    pub model: &'a str,
    /// The device.
    pub device: &'a str,
    /// Rows in it.
    pub rows: u32,
    /// When it ended.
    pub ended: SystemTime,
    /// How long the device was busy with it.
    pub busy: Duration,
    /// The requests in it.
    pub members: &'a [TraceContext],
}

/// A finished step of an ensemble.
#[derive(Debug, Clone)]
pub struct StepSpan<'a> {
    /// The step's own span.
    pub context: TraceContext,
    /// The request's span, or that of the step that the ensemble is.
    pub parent: TraceContext,
    /// The step's name.
    pub step: &'a str,
    /// The model that ran.
    pub model: &'a str,
    /// Its version.
    pub version: u32,
    /// When it ended.
    pub ended: SystemTime,
    /// How long it took.
    pub total: Duration,
    /// Where the time went.
    pub stages: &'a StageTimings,
    /// What went wrong, if anything.
    pub error: Option<&'a str>,
}

impl SpanSink {
    /// A sink that drops everything.
    pub fn disabled() -> Self {
        Self { exporter: None }
    }

    /// A sink into a processor. `sample_ratio` (0 to 1) is for requests whose caller has not decided.
    pub fn new(processor: Box<dyn SpanProcessor>, sample_ratio: f64) -> Self {
        let scope = InstrumentationScope::builder("mesh")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self {
            exporter: Some(Arc::new(Exporter {
                processor,
                scope,
                sampling: Sampling::new(true, sample_ratio),
            })),
        }
    }

    /// Begins a request's span: the caller's trace and decision if it sent one, else a new trace, sampled by the ratio.
    pub fn begin(&self, parent: Option<TraceContext>) -> TraceContext {
        let span_id = rand::random::<u64>().max(1);
        if let Some(parent) = parent {
            return TraceContext {
                sampled: parent.sampled && self.exporter.as_ref().is_some_and(|exporter| exporter.sampling.is_on()),
                ..parent.child(span_id)
            };
        }
        let trace_id = rand::random::<u128>().max(1);
        let sampled = self
            .exporter
            .as_ref()
            .is_some_and(|exporter| exporter.sampling.choose());
        TraceContext {
            trace_id,
            span_id,
            sampled,
        }
    }

    /// Whether a request is traced, now that its model is known by the name that its tenant uses. `chosen` is what
    /// [`SpanSink::begin`] has said.
    pub fn sampled(&self, (tenant, model): (&str, &str), chosen: bool, parent: Option<TraceContext>) -> bool {
        match &self.exporter {
            Some(exporter) if exporter.sampling.is_particular() => {
                let decided = parent.map(|parent| parent.sampled);
                exporter.sampling.choose_for(tenant, model, chosen, decided)
            }
            _ => chosen,
        }
    }

    /// What is traced: of a tenant's model, or of the server.
    pub fn settings(&self, of: Option<(&str, &str)>) -> TraceSettings {
        let nothing = TraceSettings {
            on: false,
            rate: 0,
            count: -1,
        };
        let settings = self.exporter.as_ref().map(|exporter| match of {
            Some((tenant, model)) => exporter.sampling.settings_of(tenant, model),
            None => exporter.sampling.settings(),
        });
        settings.unwrap_or(nothing)
    }

    /// Changes what is traced: of a tenant's model, or of the server.
    pub fn change(&self, of: Option<(&str, &str)>, change: &TraceChange) -> Result<(), TraceChangeError> {
        let exporter = self.exporter.as_ref().ok_or(TraceChangeError::Nowhere)?;
        match of {
            Some((tenant, model)) => exporter.sampling.change_of(tenant, model, change)?,
            None => exporter.sampling.change(change),
        }
        Ok(())
    }

    /// Forgets what was set for models whose tenants are gone.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        if let Some(exporter) = &self.exporter {
            exporter.sampling.retain(is_there);
        }
    }

    /// Begins a batch's span in a trace of its own; none if no member is sampled.
    pub fn begin_batch(&self, members: &[TraceContext]) -> Option<TraceContext> {
        let sampled = self.exporter.is_some() && members.iter().any(|member| member.sampled);
        sampled.then(|| TraceContext {
            trace_id: rand::random::<u128>().max(1),
            span_id: rand::random::<u64>().max(1),
            sampled: true,
        })
    }

    /// Tells a finished request: one span, and one within it for each stage it went through.
    pub fn request(&self, span: &RequestSpan<'_>) {
        let Some(exporter) = self.exporter.as_ref().filter(|_| span.context.sampled) else {
            return;
        };
        let started = span.ended.checked_sub(span.total).unwrap_or(span.ended);
        let mut data = exporter.span("infer".into(), span.context, span.parent.map(|parent| parent.span_id));
        data.span_kind = SpanKind::Server;
        data.parent_span_is_remote = span.parent.is_some();
        (data.start_time, data.end_time) = (started, span.ended);
        data.attributes = vec![
            KeyValue::new("mesh.endpoint", span.target.to_owned()),
            KeyValue::new("mesh.tenant", span.tenant.to_owned()),
            KeyValue::new("mesh.version", i64::from(span.version)),
            KeyValue::new("mesh.request_id", format!("{:032x}", span.request_id)),
            KeyValue::new("mesh.batch_rows", i64::from(span.stages.batch_rows)),
        ];
        if let Some(answers) = span.answers {
            let count = i64::try_from(answers.count).unwrap_or(i64::MAX);
            data.attributes.push(KeyValue::new("mesh.answers", count));
            let first = answers.first.map(|first| first.as_secs_f64());
            data.attributes
                .extend(first.map(|first| KeyValue::new("mesh.time_to_first_answer_s", first)));
        }
        if let Some(error) = span.error {
            data.status = Status::error(error.to_owned());
        }
        if let Some(batch) = span.stages.batch_trace {
            data.links.links.push(link(batch));
        }
        exporter.stages(span.context, started, span.ended, span.stages);
        exporter.processor.on_end(data);
    }

    /// Tells a finished step of an ensemble: a span, and one within it for each stage on its device.
    pub fn step(&self, span: &StepSpan<'_>) {
        let Some(exporter) = self.exporter.as_ref().filter(|_| span.context.sampled) else {
            return;
        };
        let started = span.ended.checked_sub(span.total).unwrap_or(span.ended);
        let mut data = exporter.span("step".into(), span.context, Some(span.parent.span_id));
        (data.start_time, data.end_time) = (started, span.ended);
        data.attributes = vec![
            KeyValue::new("mesh.step", span.step.to_owned()),
            KeyValue::new("mesh.model", span.model.to_owned()),
            KeyValue::new("mesh.version", i64::from(span.version)),
            KeyValue::new("mesh.batch_rows", i64::from(span.stages.batch_rows)),
        ];
        if let Some(error) = span.error {
            data.status = Status::error(error.to_owned());
        }
        if let Some(batch) = span.stages.batch_trace {
            data.links.links.push(link(batch));
        }
        exporter.stages(span.context, started, span.ended, span.stages);
        exporter.processor.on_end(data);
    }

    /// Tells a finished batch.
    pub fn batch(&self, span: &BatchSpan<'_>) {
        let Some(exporter) = self.exporter.as_ref().filter(|_| span.context.sampled) else {
            return;
        };
        let mut data = exporter.span("batch".into(), span.context, None);
        data.start_time = span.ended.checked_sub(span.busy).unwrap_or(span.ended);
        data.end_time = span.ended;
        data.attributes = vec![
            KeyValue::new("mesh.model", span.model.to_owned()),
            KeyValue::new("mesh.device", span.device.to_owned()),
            KeyValue::new("mesh.batch_rows", i64::from(span.rows)),
        ];
        let sampled = span.members.iter().filter(|member| member.sampled);
        data.links.links = sampled.take(MAX_BATCH_LINKS).map(|member| link(*member)).collect();
        exporter.processor.on_end(data);
    }

    /// Pushes what is pending and ends the exporter.
    pub(crate) fn flush(&self) {
        if let Some(exporter) = &self.exporter {
            // A collector that is gone must not keep the mesh from ending: the exporter logs its own failure.
            let _ = exporter.processor.force_flush();
            let _ = exporter.processor.shutdown();
        }
    }
}

impl Exporter {
    /// A span for each stage that took any time.
    fn stages(&self, within: TraceContext, started: SystemTime, ended: SystemTime, stages: &StageTimings) {
        let mut at = started;
        for stage in Stage::ALL {
            let duration = stage.of(stages);
            if duration.is_zero() {
                continue;
            }
            let context = within.child(rand::random::<u64>().max(1));
            let mut child = self.span(stage.as_str().into(), context, Some(within.span_id));
            // Stages follow one another; what lies between the last two is the way back from the device.
            let start = if stage == Stage::Encode {
                ended.checked_sub(duration).unwrap_or(at).max(at)
            } else {
                at
            };
            at = start + duration;
            (child.start_time, child.end_time) = (start, at);
            self.processor.on_end(child);
        }
    }

    fn span(&self, name: std::borrow::Cow<'static, str>, context: TraceContext, parent: Option<u64>) -> SpanData {
        SpanData {
            span_context: span_context(context),
            parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name,
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

fn span_context(context: TraceContext) -> SpanContext {
    let flags = if context.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    let (trace_id, span_id) = (TraceId::from(context.trace_id), SpanId::from(context.span_id));
    SpanContext::new(trace_id, span_id, flags, false, TraceState::default())
}

fn link(context: TraceContext) -> Link {
    Link::new(span_context(context), Vec::new(), 0)
}
