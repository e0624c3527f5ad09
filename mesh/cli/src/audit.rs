//! `mesh audit`: the audit log checked, signed and taken elsewhere.
//!
//! Where no mesh runs, the program itself checks: see [`AuditVerifyArgs::is_offline`]. An export is written as the admin API
//! gives it, line by line: what is in it is for others to check, and is not looked into here.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use mesh_policies::PublicKey;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{Failure, Terminal, client::AdminClient};

/// So many entries are asked for at once.
const PAGE: usize = 500;

/// `mesh audit`.
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// Check that nothing in the audit log was changed, left out or added.
    #[command(after_help = "Examples:
  mesh audit verify                                    asks a mesh that is running
  mesh audit verify --data /var/lib/mesh               reads its data folder, running or not
  mesh audit verify --export audit.jsonl --public-key ed25519:d75a...

An error names the first record that does not hold. Exit codes: 0 it holds, 1 it does not.")]
    Verify(AuditVerifyArgs),
    /// Write the audit log as lines that anybody can check with the mesh's public key.
    #[command(after_help = "Examples:
  mesh audit export -o audit.jsonl
  mesh audit export --since 2030-01-01T00:00:00Z --until 2030-02-01T00:00:00Z -o january.jsonl

Nothing of what resources hold is in it, only digests. After --until it goes on to the next signature, which proves what is
before it.")]
    Export(AuditExportArgs),
    /// Sign the audit log as it is now; every hour and at each stop the mesh does that itself.
    Sign,
}

/// `mesh audit verify`.
#[derive(Debug, Clone, Args)]
pub struct AuditVerifyArgs {
    /// Check the log in this data folder.
    #[arg(long, value_name = "DIR", conflicts_with = "export")]
    pub data: Option<PathBuf>,
    /// Check a file that `mesh audit export` wrote.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// The key that signatures must be by; default: what the data folder has, or what the file names.
    #[arg(long, value_name = "KEY")]
    pub public_key: Option<PublicKey>,
}

impl AuditVerifyArgs {
    /// Whether no mesh is to be asked.
    pub fn is_offline(&self) -> bool {
        self.data.is_some() || self.export.is_some()
    }
}

/// `mesh audit export`.
#[derive(Debug, Clone, Args)]
pub struct AuditExportArgs {
    /// The file to write; - for the standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Entries from this time on, such as 2030-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Timestamp>,
    /// Entries up to this time.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    valid: bool,
    entries: u64,
    heads: u64,
    signed: Option<u64>,
    head: Option<String>,
    public_key: Option<PublicKey>,
    problem: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Part {
    header: Box<RawValue>,
    items: Vec<Item>,
    next: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Item {
    time: Timestamp,
    signs: bool,
    line: Box<RawValue>,
}

pub(crate) async fn audit(
    client: &AdminClient,
    command: &AuditCommand,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        AuditCommand::Verify(args) => {
            let verdict = client.get("/audit/verify").await?;
            tell(&verdict, args.public_key, terminal)
        }
        AuditCommand::Sign => {
            let verdict = client.post("/audit/heads", &json!({})).await?;
            tell(&verdict, None, terminal)
        }
        AuditCommand::Export(args) => export(client, args, terminal).await,
    }
}

fn tell(verdict: &Verdict, wanted: Option<PublicKey>, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    if !verdict.valid {
        let why = verdict.problem.as_deref().unwrap_or("no reason was given");
        return Err(Failure::refused(format!("the audit log does not hold: {why}")));
    }
    let key = verdict
        .public_key
        .map_or_else(|| "none".to_owned(), |key| key.to_string());
    if let Some(wanted) = wanted.filter(|wanted| Some(*wanted) != verdict.public_key) {
        let text = format!("the mesh signs its audit log with {key}, not with {wanted}");
        return Err(Failure::refused(text));
    }
    let signed = verdict
        .signed
        .map_or_else(|| "nothing yet".to_owned(), |revision| format!("revision {revision}"));
    writeln!(
        terminal.out,
        "the audit log holds: {} entries, {} signatures, signed up to {signed}\nhash {}\npublic key {key}",
        verdict.entries,
        verdict.heads,
        verdict.head.as_deref().unwrap_or("none"),
    )?;
    Ok(())
}

async fn export(client: &AdminClient, args: &AuditExportArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    if args.output.as_os_str() == "-" {
        let told = write_export(client, args, terminal.out).await?;
        return Ok(writeln!(terminal.err, "{told}")?);
    }
    let failed = |error: std::io::Error| Failure::refused(format!("cannot write {}: {error}", args.output.display()));
    let mut file = BufWriter::new(File::create(&args.output).map_err(failed)?);
    let told = write_export(client, args, &mut file).await?;
    file.flush().map_err(failed)?;
    Ok(writeln!(terminal.err, "{told}")?)
}

/// Writes the lines; answers what is to be said of them.
async fn write_export(client: &AdminClient, args: &AuditExportArgs, to: &mut dyn Write) -> Result<String, Failure> {
    let (mut after, mut entries, mut unsigned, mut begun) = (0, 0_u64, 0_u64, false);
    let since = args.since.map_or_else(String::new, |since| format!("&since={since}"));
    'pages: loop {
        let path = format!("/audit/export?limit={PAGE}&after={after}{since}");
        let part: Part = client.get(&path).await?;
        if !begun {
            writeln!(to, "{}", part.header)?;
            begun = true;
        }
        for item in part.items {
            let late = args.until.is_some_and(|until| item.time > until);
            if late && unsigned == 0 {
                break 'pages;
            }
            writeln!(to, "{}", item.line)?;
            entries += 1;
            unsigned = if item.signs { 0 } else { unsigned + 1 };
        }
        match part.next {
            Some(next) => after = next,
            None => break,
        }
    }
    let rest = match unsigned {
        0 => String::new(),
        more => format!(", the last {more} not signed yet: `mesh audit sign` signs them now"),
    };
    Ok(format!("exported {entries} entries{rest}"))
}
