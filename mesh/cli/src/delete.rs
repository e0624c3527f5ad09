//! `delete`: one resource, or all that files name, dependents first.

use mesh_resources::{Kind, ResourceKey};

use crate::{DeleteArgs, Failure, Terminal, client::AdminClient, files, paths};

pub(crate) async fn delete(
    client: &AdminClient,
    args: &DeleteArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let keys = keys(args, terminal)?;
    if !args.yes {
        confirm(&keys, terminal)?;
    }
    for key in &keys {
        client.delete(&paths::of(key), None).await?;
        writeln!(terminal.out, "deleted   {key}")?;
    }
    Ok(())
}

fn keys(args: &DeleteArgs, terminal: &mut Terminal<'_>) -> Result<Vec<ResourceKey>, Failure> {
    if let (Some(kind), Some(name)) = (args.kind, &args.name) {
        return Ok(vec![paths::key(kind, name, args.tenant.as_ref())?]);
    }
    let mut keys = Vec::new();
    for written in files::read_all(&args.files, terminal)? {
        let key = written.resource.key();
        keys.push(key.map_err(|error| Failure::refused(format!("{}: {error}", written.place)))?);
    }
    keys.sort_by_key(|key| std::cmp::Reverse(standing(key.kind)));
    keys.dedup();
    Ok(keys)
}

/// What stands on what: the higher goes first.
fn standing(kind: Kind) -> usize {
    Kind::ALL.iter().position(|known| *known == kind).unwrap_or(0)
}

fn confirm(keys: &[ResourceKey], terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    if !terminal.interactive {
        return Err(Failure::refused(
            "nothing was deleted: nobody is there to be asked, give --yes",
        ));
    }
    for key in keys {
        writeln!(terminal.err, "  {key}")?;
    }
    write!(
        terminal.err,
        "delete {}? [y/N] ",
        if keys.len() == 1 { "it" } else { "them all" }
    )?;
    terminal.err.flush()?;
    let mut answer = String::new();
    terminal.input.read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::refused("nothing was deleted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(answer: &str, interactive: bool) -> Result<(), Failure> {
        let mut terminal = Terminal {
            out: &mut Vec::new(),
            err: &mut Vec::new(),
            input: &mut answer.as_bytes(),
            interactive,
        };
        confirm(&["Tenant/acme".parse().unwrap()], &mut terminal)
    }

    #[test]
    fn only_a_yes_deletes_and_nobody_there_is_a_no() {
        assert!(ask("y\n", true).is_ok());
        assert!(ask("\n", true).is_err());
        assert!(ask("", true).is_err());
        assert!(ask("y\n", false).unwrap_err().to_string().contains("--yes"));
    }

    #[test]
    fn dependents_stand_above_what_they_need() {
        assert!(standing(Kind::Endpoint) > standing(Kind::ModelVersion));
        assert!(standing(Kind::ModelVersion) > standing(Kind::Model));
        assert!(standing(Kind::Model) > standing(Kind::Tenant));
        assert!(standing(Kind::ApiKey) > standing(Kind::Tenant));
    }
}
