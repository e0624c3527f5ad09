//! The second step of limits: what a request is, once its rows and its model are known.

use std::time::Instant;

use mesh_policies::limits::{Charge, Now};
use mesh_types::{EndpointId, Fault, Tensor};

use super::{Checked, Versioned};
use crate::Account;

impl Checked {
    /// Takes from the limits what the request is, now that it is known.
    pub(super) fn charge(mut self, instant: Instant, account: &mut Account) -> Result<Self, Fault> {
        let versioned = self.versioned;
        let (permit, admission) = versioned.permits;
        let key = &versioned.entry.key;
        let charge = Charge {
            endpoint: versioned.endpoint.as_ref().map(EndpointId::as_str),
            model: (&key.tenant, &key.model),
            rows: self.rows,
            input_bytes: bytes_of(&versioned.call.request.inputs),
        };
        if let Some(limited) = &mut account.limited {
            limited.caller.meets(charge.endpoint, charge.model);
        }
        let now = Now {
            instant,
            unix_seconds: versioned.unix_seconds,
        };
        let admission = admission
            .charge(&charge, now)
            .map_err(|error| account.limited_by(error))?;
        account.tell_limits(admission.told());
        self.versioned = Versioned {
            permits: (permit, admission),
            ..versioned
        };
        Ok(self)
    }
}

fn bytes_of(inputs: &[Tensor]) -> u64 {
    inputs.iter().map(|input| input.data.len() as u64).sum()
}
