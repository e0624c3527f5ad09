//! `mesh serve --compat triton`: this mesh in the place of Triton's server, for clients that were written for that one.
//!
//! Owns what the mode turns on, in one place, and what is done about it at the start: the tenant whom callers on this machine
//! are is made if it is not there, and both the audit log and the log say what is open. The ports are the same anyway.

use mesh_registry::{Author, RegistryError, RegistryHandle};
use mesh_types::TenantId;

use crate::{config::NodeConfig, repository::make_tenant};

/// What Triton's server calls itself.
const SERVER_NAME: &str = "triton";
/// Who writes, in the audit log.
const AUTHOR: &str = "compatibility mode";

/// Sets a configuration up for the mode, but for what was said otherwise. All that the mode turns on is turned on here.
pub(crate) fn turn_on(config: &mut NodeConfig, tenant: TenantId, name_said: bool) {
    if !name_said {
        SERVER_NAME.clone_into(&mut config.server_name);
    }
    config.local_tenant = Some(tenant);
    config.allow_client_settings = true;
}

/// Makes the tenant of callers on this machine, and says that they are let in.
pub(crate) async fn open(registry: &RegistryHandle, tenant: &TenantId) -> Result<(), RegistryError> {
    make_tenant(registry, tenant, AUTHOR).await?;
    let event = format!("callers on this machine who show no credential are tenant '{tenant}'");
    registry.note(Author::mesh(AUTHOR), &event).await?;
    tracing::warn!(
        %tenant,
        "compatibility mode: whoever calls from this machine without a credential is let in as this tenant, and so is whatever \
         passes calls on from here without saying so; callers from elsewhere need a credential"
    );
    Ok(())
}
