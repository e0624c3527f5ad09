//! The arm of an endpoint that a call goes to: the version that it pins, or the choice of the split by its unit.

use std::sync::Arc;

use mesh_policies::{
    snapshot::{TenantEntry, VersionEntry},
    traffic::{Route, unit_text},
};
use mesh_types::{CorrelationId, Fault, FaultSource, VersionSelector};

use crate::Call;

/// The version and the arm that answer a call of an endpoint.
pub(super) fn of_route(
    route: &Route,
    tenant: &TenantEntry,
    call: &Call,
    sequence: Option<&CorrelationId>,
) -> Result<(Arc<VersionEntry>, Arc<str>), Fault> {
    let unknown = || Fault::unknown_model(&call.request.model);
    if call.request.version != VersionSelector::Default {
        let (arm, entry) = route.pinned(&call.request.version).ok_or_else(unknown)?;
        return Ok((entry.clone(), arm.name.clone()));
    }
    let unit = unit_of(route, call);
    // A sequence is a unit of its own: all of it has one arm.
    let point = sequence.map(|id| route.point(&tenant.id, "sequence_id", &id.to_string()));
    let arm = route.choose(&tenant.id, unit.as_deref(), point.unwrap_or_else(rand::random));
    let arm = arm.ok_or_else(|| Fault::internal("the endpoint's weights do not sum to 100"))?;
    let entry = arm.version.clone().ok_or_else(|| {
        Fault::unavailable(
            FaultSource::Model,
            format!("arm '{}' has no version to answer with", arm.name),
        )
    })?;
    Ok((entry, arm.name.clone()))
}

/// The unit of a sticky route: the request's parameter of that name, else what came in the header.
fn unit_of(route: &Route, call: &Call) -> Option<String> {
    let name = route.unit.as_deref()?;
    let parameter = call.request.parameter(name).map(unit_text);
    parameter.or_else(|| call.unit.clone())
}
