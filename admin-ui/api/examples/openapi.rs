//! Prints the OpenAPI document; `admin-ui/api/openapi.json` is its output, kept so that the web app's types can be made
//! without building the mesh.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(&mesh_admin_api::openapi_document())?;
    writeln!(std::io::stdout(), "{text}")
}
