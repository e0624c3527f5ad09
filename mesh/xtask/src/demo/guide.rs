//! What the demo tells its user: where things are, and lines to paste.

use crate::{
    demo::{Digits, ENDPOINT, TENANTS},
    node::Node,
};

/// Prints addresses, the admin token and lines to paste.
pub(crate) fn print(node: &Node, digits: &Digits, keys: &[String]) -> anyhow::Result<()> {
    let Some(key) = keys.first() else { return Ok(()) };
    let (_, label) = digits.digit(0);
    println!();
    println!("admin      {}/", node.admin_url());
    println!("  token    {}", node.admin_token()?);
    println!("inference  {}/v2/models/{ENDPOINT}/infer", node.url());
    println!("metrics    http://127.0.0.1:{}/metrics", node.ports.metrics);
    println!("log        {}", node.log().display());
    println!();
    println!("a handwritten {label}, as {}:", TENANTS[0]);
    println!();
    println!("{}", curl(node, digits, key));
    println!();
    println!("the same with the mesh's own command line:");
    println!();
    println!("{}", mesh_infer(node, digits, key));
    println!();
    Ok(())
}

fn curl(node: &Node, digits: &Digits, key: &str) -> String {
    let body = digits.request(0, "you");
    format!(
        "curl -s -H 'authorization: Bearer {key}' {}/v2/models/{ENDPOINT}/infer -d '{body}'",
        node.url()
    )
}

fn mesh_infer(node: &Node, digits: &Digits, key: &str) -> String {
    let (pixels, _) = digits.digit(0);
    let pixels: Vec<String> = pixels.iter().map(f32::to_string).collect();
    format!(
        "MESH_URL={} MESH_API_KEY={key} {} infer {ENDPOINT} --unit you --input 'pixels=[[{}]]'",
        node.url(),
        node.program().display(),
        pixels.join(",")
    )
}
