//! What is traced and logged, as callers ask and change it.
//!
//! These settings are the server's, and so every tenant's: who may call may look, and may change something only where the
//! operator lets callers. A model's settings are those of a name of the caller's, and one that is not there is unknown.

use mesh_telemetry::TraceChangeError;
use mesh_types::{Fault, FaultClass, FaultSource, LogChange, LogSettings, LogTimes, TraceChange, TraceSettings};

use crate::{Credential, RouterHandle, keys};

fn refused(what: &str) -> Fault {
    Fault::new(
        FaultClass::PermissionDenied,
        FaultSource::Client,
        format!(
            "changing {what} is not allowed: it is every caller's, so the operator must allow it with --allow-client-settings"
        ),
    )
}

impl RouterHandle {
    /// What is traced, of the server or of a model, once it is changed; a change of nothing asks.
    pub fn trace_settings(
        &self,
        credential: &Credential,
        model: Option<&str>,
        change: &TraceChange,
    ) -> Result<TraceSettings, Fault> {
        let parts = self.parts();
        let snapshot = parts.snapshots.load();
        let (principal, tenant) = keys::caller(&snapshot, parts, credential)?;
        let of = match model {
            Some(name) if snapshot.callable(&principal, tenant, name).is_none() => {
                return Err(Fault::unknown_model(name));
            }
            model => model.map(|name| (tenant.id.as_str(), name)),
        };
        let spans = parts.telemetry.spans();
        if change.is_change() {
            if !parts.client_settings {
                return Err(refused("trace settings"));
            }
            spans.change(of, change).map_err(|error| {
                let class = match error {
                    TraceChangeError::Nowhere => FaultClass::Unsupported,
                    TraceChangeError::TooMany => FaultClass::InvalidArgument,
                };
                Fault::new(class, FaultSource::Client, error.to_string())
            })?;
            tracing::info!(tenant = %tenant.id, ?model, ?change, "a caller changed what is traced");
        }
        Ok(spans.settings(of))
    }

    /// What is logged, once it is changed; a change of nothing asks.
    pub fn log_settings(&self, credential: &Credential, change: &LogChange) -> Result<LogSettings, Fault> {
        let parts = self.parts();
        let snapshot = parts.snapshots.load();
        let (_, tenant) = keys::caller(&snapshot, parts, credential)?;
        let logs = mesh_telemetry::logs();
        if change.is_change() {
            if !parts.client_settings {
                return Err(refused("log settings"));
            }
            let Some(logs) = logs else {
                let text = "what is logged is not this server's to change: it runs within another program";
                return Err(Fault::new(FaultClass::Unsupported, FaultSource::Client, text));
            };
            // Told before, because it may be the last that is logged.
            tracing::info!(tenant = %tenant.id, ?change, "a caller changes what is logged");
            return logs
                .change(*change)
                .map_err(|error| Fault::new(FaultClass::Unsupported, FaultSource::Client, error.to_string()));
        }
        let nothing = LogSettings {
            info: false,
            warning: false,
            error: false,
            verbose_level: 0,
            times: LogTimes::default(),
        };
        Ok(logs.map_or(nothing, mesh_telemetry::Logs::settings))
    }
}
