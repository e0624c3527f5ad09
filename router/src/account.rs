//! The account of a request: what is told about it once it has ended, exactly once.
//!
//! Filled in as the request goes through its stages, so that a refusal is counted under as much as was known by then. A
//! name that the caller made up never becomes a label.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use mesh_policies::{
    Principal, Target,
    limits::{Caller, LimitError, Notice, Now, Told},
};
use mesh_telemetry::{AnswersSample, LimitEffect, RequestSample, RequestSpan, Telemetry};
use mesh_types::{Clock, Fault, FaultClass, FaultSource, RequestId, StageTimings, TenantId, TraceContext};

use crate::RouterParts;

/// The account of one request. Dropping it unfinished counts the request as cancelled.
pub struct Account {
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    request_id: RequestId,
    received: Instant,
    parent: Option<TraceContext>,
    trace: TraceContext,
    pub(crate) tenant: Option<TenantId>,
    /// What the caller showed, by name: `key:<id>`, `jwt:<issuer>`, `cert:<name>`, `local`.
    pub(crate) caller: Option<Arc<str>>,
    /// The endpoint or model; none until it is known to exist for the caller.
    pub(crate) target: Option<Target>,
    pub(crate) arm: Option<Arc<str>>,
    pub(crate) version: u32,
    pub(crate) stages: StageTimings,
    /// Whether it is an ensemble's: its time on devices is told by its steps.
    pub(crate) composed: bool,
    /// The answers so far of a decoupled model; none of any other.
    pub(crate) answers: Option<AnswersSample>,
    /// What its answer tells of its caller's limits, if that has some.
    pub(crate) limited: Option<Box<Limited>>,
    fault: Option<Fault>,
    /// Whether dropping it tells.
    open: bool,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("request_id", &self.request_id)
            .field("tenant", &self.tenant)
            .field("target", &self.target_name())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// A caller with limits, and the rule that refused it, if one did.
pub(crate) struct Limited {
    pub(crate) caller: Caller,
    pub(crate) violated: Option<&'static str>,
}

/// Who and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) request_id: RequestId,
    pub(crate) received: Instant,
    pub(crate) decode: Duration,
    pub(crate) parent: Option<TraceContext>,
}

impl Account {
    /// Opens the account of a request.
    pub(crate) fn open(parts: &RouterParts, opening: Opening) -> Self {
        parts.telemetry.metrics().request_started();
        Self {
            trace: parts.telemetry.spans().begin(opening.parent),
            telemetry: parts.telemetry.clone(),
            clock: parts.clock.clone(),
            request_id: opening.request_id,
            received: opening.received,
            parent: opening.parent,
            tenant: None,
            caller: None,
            target: None,
            arm: None,
            version: 0,
            stages: StageTimings {
                decode: opening.decode,
                ..StageTimings::default()
            },
            composed: false,
            answers: None,
            limited: None,
            fault: None,
            open: true,
        }
    }

    /// Notes who is calling.
    pub(crate) fn known(&mut self, caller: &Principal) {
        if let Some(name) = caller.certificate() {
            let metrics = self.telemetry.metrics();
            metrics.known_by_certificate(caller.tenant.as_str(), name);
        }
        self.caller = Some(caller.credential.clone());
        self.tenant = Some(caller.tenant.clone());
    }

    /// The request's own span, for the answer's `traceparent` and the device's spans.
    pub fn trace(&self) -> TraceContext {
        self.trace
    }

    /// Decides whether it is traced, now that its model is known: it may have settings of its own.
    pub(crate) fn trace_as(&mut self, tenant: &TenantId, model: &str) {
        let spans = self.telemetry.spans();
        self.trace.sampled = spans.sampled((tenant.as_str(), model), self.trace.sampled, self.parent);
    }

    /// Notes why the call failed; a door says so when it cannot encode the answer as asked.
    pub fn failed(&mut self, fault: &Fault) {
        self.fault = Some(fault.clone());
    }

    /// The first of any number of answers is there.
    pub(crate) fn first_answer(&mut self) {
        let since = self.clock.now().saturating_duration_since(self.received);
        self.answers.get_or_insert_default().first = Some(since);
    }

    /// One of any number of answers is handed on.
    pub(crate) fn answered(&mut self) {
        self.answers.get_or_insert_default().count += 1;
    }

    /// A limit stands in the way: counts it, and keeps its name for the answer.
    pub(crate) fn limited_by(&mut self, error: LimitError) -> Fault {
        if let Some(rule) = error.rule() {
            if let Some(limited) = &mut self.limited {
                limited.violated = Some(rule.name());
            }
            self.count(rule.name(), LimitEffect::Refused);
        }
        error.into()
    }

    /// Counts and logs what limits say of a request that they let through.
    pub(crate) fn tell_limits(&self, told: &Told) {
        for rule in &told.shadowed {
            self.count(rule.name(), LimitEffect::Shadow);
            tracing::debug!(request = %self.request_id, tenant = ?self.tenant, %rule, "a limit in shadow would have refused");
        }
        for rule in &told.passed {
            self.count(rule.name(), LimitEffect::Warned);
            tracing::warn!(tenant = ?self.tenant, %rule, "the soft mark of a budget is passed");
        }
    }

    fn count(&self, rule: &'static str, effect: LimitEffect) {
        let tenant = self.tenant.as_ref().map_or("", TenantId::as_str);
        self.telemetry.metrics().limit(tenant, rule, effect);
    }

    /// What the answer says of its caller's limits, as they are now; none where the caller has none.
    pub fn limits(&self) -> Option<Notice> {
        let now = || Now {
            instant: self.clock.now(),
            unix_seconds: self.clock.unix_seconds(),
        };
        self.limited.as_ref().map(|limited| limited.caller.notice(now()))
    }

    /// The limit that refused the request, if one did.
    pub fn violated(&self) -> Option<&'static str> {
        self.limited.as_ref()?.violated
    }

    /// Closes the account: counts, times and traces the request. `encode` is how long encoding the answer took.
    pub fn finish(mut self, encode: Duration) {
        self.stages.encode = encode;
        self.close();
    }

    /// Empty until it is known to exist for the caller.
    fn target_name(&self) -> &str {
        match &self.target {
            Some(Target::Endpoint(route)) => route.endpoint.as_str(),
            Some(Target::Model(model)) => model.model.as_str(),
            None => "",
        }
    }

    fn close(&mut self) {
        self.open = false;
        let total = self.clock.now().saturating_duration_since(self.received);
        let metrics = self.telemetry.metrics();
        match &self.tenant {
            Some(tenant) => metrics.request_finished(&RequestSample {
                tenant: tenant.as_str(),
                target: self.target_name(),
                arm: self.arm.as_deref().unwrap_or_default(),
                version: self.version,
                fault: self.fault.as_ref().map(|fault| fault.source),
                total,
                stages: &self.stages,
                answers: self.answers,
            }),
            None => {
                metrics.request_abandoned();
                if let Some(fault) = &self.fault {
                    metrics.refused(reason(fault.class));
                }
            }
        }
        self.tell_span(total);
        self.log(total);
    }

    fn tell_span(&self, total: Duration) {
        if !self.trace.sampled {
            return;
        }
        let mut stages = self.stages;
        if self.composed {
            // Steps run side by side and have spans of their own: what is left are the stages at the door.
            let StageTimings {
                decode,
                authenticate,
                admit,
                choose,
                encode,
                ..
            } = stages;
            stages = StageTimings {
                decode,
                authenticate,
                admit,
                choose,
                encode,
                ..StageTimings::default()
            };
        }
        self.telemetry.spans().request(&RequestSpan {
            context: self.trace,
            parent: self.parent,
            target: self.target_name(),
            tenant: self.tenant.as_ref().map_or("", TenantId::as_str),
            version: self.version,
            request_id: self.request_id.0,
            ended: SystemTime::now(),
            total,
            stages: &stages,
            answers: self.answers,
            error: self.fault.as_ref().map(|fault| &*fault.message),
        });
    }

    // Ids and outcomes only: no body, no credential.
    fn log(&self, total: Duration) {
        let caller = self.caller.as_deref();
        let broken = self.fault.as_ref().filter(|fault| {
            // What the caller has done is nothing for an operator to look at.
            fault.class == FaultClass::Internal && fault.source != FaultSource::Client
        });
        if let Some(fault) = broken {
            tracing::warn!(
                request = %self.request_id, trace = %self.trace, tenant = ?self.tenant, caller, target = self.target_name(),
                version = self.version, source = fault.source.as_str(), error = %fault, "request failed"
            );
            return;
        }
        tracing::debug!(
            request = %self.request_id, trace = %self.trace, tenant = ?self.tenant, caller, target = self.target_name(),
            arm = ?self.arm, version = self.version, micros = total.as_micros(), error = ?self.fault, "request ended"
        );
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.open {
            let left = Fault::new(FaultClass::Cancelled, FaultSource::Client, "the caller left");
            self.fault.get_or_insert(left);
            self.close();
        }
    }
}

/// The reason for a refusal before there was a tenant: our own words, so a bounded label.
fn reason(class: FaultClass) -> &'static str {
    match class {
        FaultClass::Unauthenticated | FaultClass::MalformedCredential => "unauthenticated",
        FaultClass::PermissionDenied | FaultClass::InsufficientScope => "forbidden",
        FaultClass::Unavailable => "overloaded",
        FaultClass::Cancelled => "cancelled",
        FaultClass::DeadlineExceeded => "deadline",
        FaultClass::Internal => "internal",
        _ => "other",
    }
}
