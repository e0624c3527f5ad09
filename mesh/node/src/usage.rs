//! What tenants, and the subjects of their tokens that have budgets, have used of those, kept over restarts.
//!
//! Owns a file of lines in the data folder, apart from the records: a line for each tenant or subject whose use has changed, written every
//! [`KEEP_EVERY`] and when the node stops, never on a request's way. The newest line of each counts. A file that has grown to several
//! times what it holds is written anew beside itself and takes its own place in one step.
//!
//! Invariants: a crash loses at most what was used in the last [`KEEP_EVERY`]; a line carries its checksum, so half a line at the end, or
//! a damaged one, is left out and told, and stops no start; what cannot be written is tried again with the next.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_actors::Tasks;
use mesh_policies::limits::{Limiter, TenantUsage, TokenSubject, Usage};
use mesh_types::{Clock, TenantId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    data::{DataError, DataFolder},
    whole::{OWNER_ONLY, write_whole},
};

/// How often use is kept; a crash loses no more than this.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// A file smaller than this is not written anew.
const SMALL: u64 = 1 << 20;
/// A file is written anew when it is so many times as large as it was after that was done last.
const GROWTH: u64 = 4;
/// The longest line that is read; what we write is shorter, whatever issuers and their subjects are called.
const MAX_LINE: u64 = 8_192;

/// Whose use a line tells.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Whose {
    /// A tenant's.
    Tenant(TenantId),
    /// A subject's of a tenant's tokens: with its issuer in the middle. No tenant is named as one, so that what does not know subjects
    /// takes none of their lines for their tenant's.
    Subject(TenantId, String, String),
}

/// One line.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    whose: Whose,
    day: i64,
    month: i64,
    daily: [u64; 4],
    monthly: [u64; 4],
}

fn written(usage: &TenantUsage) -> Option<String> {
    let TenantUsage { tenant, subject, usage } = usage;
    let line = Line {
        whose: match subject {
            None => Whose::Tenant(tenant.clone()),
            Some(TokenSubject { issuer, subject }) => {
                Whose::Subject(tenant.clone(), issuer.to_string(), subject.to_string())
            }
        },
        day: usage.day,
        month: usage.month,
        daily: usage.daily,
        monthly: usage.monthly,
    };
    let text = serde_json::to_string(&line).ok()?;
    Some(format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes())))
}

fn read(line: &str) -> Option<TenantUsage> {
    let (sum, text) = line.strip_suffix('\n')?.split_once(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(text.as_bytes()) {
        return None;
    }
    let line: Line = serde_json::from_str(text).ok()?;
    let (tenant, subject) = match line.whose {
        Whose::Tenant(tenant) => (tenant, None),
        Whose::Subject(tenant, issuer, subject) => {
            let (issuer, subject) = (issuer.into(), subject.into());
            (tenant, Some(TokenSubject { issuer, subject }))
        }
    };
    Some(TenantUsage {
        tenant,
        subject,
        usage: Usage {
            day: line.day,
            month: line.month,
            daily: line.daily,
            monthly: line.monthly,
        },
    })
}

/// The file, and what it holds.
#[derive(Debug)]
struct Book {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Its size after it was last written anew, or read.
    settled: u64,
    newest: BTreeMap<Key, Usage>,
    /// Whether a write has failed: half a line may lie at the end.
    torn: bool,
}

/// A tenant, or a subject of its tokens.
type Key = (TenantId, Option<TokenSubject>);

fn all(newest: &BTreeMap<Key, Usage>) -> impl Iterator<Item = TenantUsage> {
    newest.iter().map(|((tenant, subject), usage)| TenantUsage {
        tenant: tenant.clone(),
        subject: subject.clone(),
        usage: *usage,
    })
}

impl Book {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(OWNER_ONLY)
            .open(path)?;
        let mut book = Self {
            path: path.to_path_buf(),
            file,
            bytes: 0,
            settled: 0,
            newest: BTreeMap::new(),
            torn: false,
        };
        let damaged = book.read_all()?;
        if damaged > 0 {
            tracing::warn!(
                lines = damaged,
                "lines of the tenants' use cannot be read and are left out"
            );
        }
        // Half a line must not become the beginning of the next.
        book.write_anew()?;
        Ok(book)
    }

    fn read_all(&mut self) -> io::Result<usize> {
        let mut reader = BufReader::new(&self.file);
        let (mut bytes, mut damaged) = (Vec::new(), 0);
        loop {
            bytes.clear();
            if io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
                return Ok(damaged);
            }
            match std::str::from_utf8(&bytes).ok().and_then(read) {
                Some(TenantUsage { tenant, subject, usage }) => drop(self.newest.insert((tenant, subject), usage)),
                None => damaged += 1,
            }
        }
    }

    fn keep(&mut self, usages: &[TenantUsage]) -> io::Result<()> {
        let text: String = usages.iter().filter_map(written).collect();
        if std::mem::replace(&mut self.torn, true) {
            self.write_anew()?;
        }
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.torn = false;
        self.bytes += text.len() as u64;
        for TenantUsage { tenant, subject, usage } in usages {
            self.newest.insert((tenant.clone(), subject.clone()), *usage);
        }
        if self.bytes > SMALL.max(self.settled.saturating_mul(GROWTH)) {
            self.write_anew()?;
        }
        Ok(())
    }

    fn write_anew(&mut self) -> io::Result<()> {
        let text: String = all(&self.newest).filter_map(|usage| written(&usage)).collect();
        // What comes after this is appended to the new file: a power loss must not bring the former one back.
        self.file = write_whole(&self.path, text.as_bytes())?;
        (self.bytes, self.settled) = (text.len() as u64, text.len() as u64);
        Ok(())
    }

    /// Leaves out those that are gone. Their lines go with the next that are kept: who comes by an old name inherits nothing.
    fn retain(&mut self, keep: impl Fn(&TenantId, Option<&TokenSubject>) -> bool) {
        let before = self.newest.len();
        self.newest
            .retain(|(tenant, subject), _| keep(tenant, subject.as_ref()));
        self.torn |= self.newest.len() < before;
    }
}

/// Keeps use. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct UsageKeeper(Arc<Mutex<Book>>);

impl UsageKeeper {
    /// Opens the file and takes over what it holds.
    pub(crate) fn open(path: &Path, limiter: &Limiter) -> io::Result<Self> {
        let book = Book::open(path)?;
        limiter.restore_usage(all(&book.newest));
        Ok(Self(Arc::new(Mutex::new(book))))
    }

    /// Keeps what has changed. Blocks on the disk.
    pub(crate) fn keep(&self, limiter: &Limiter) {
        // Asked first: what is forgotten from now on is found the next time.
        let forgot = limiter.take_forgot();
        let changed = limiter.changed_usage();
        if changed.is_empty() && !forgot {
            return;
        }
        let mut book = self.0.lock();
        // Those that are gone and forgotten take no room.
        book.retain(|tenant, subject| limiter.is_counted(tenant, subject));
        if let Err(error) = book.keep(&changed) {
            tracing::error!(%error, "what tenants have used cannot be kept: it is tried again");
            limiter.keep_again(&changed);
        }
    }

    /// Keeps what changes from now on, and once more at the end.
    pub(crate) fn follow(&self, limiter: Arc<Limiter>, tasks: &Tasks) {
        let keeper = self.clone();
        tasks.spawn("usage", move |mut signal| async move {
            let mut ended = false;
            while !ended {
                tokio::select! {
                    () = signal.ended() => ended = true,
                    () = tokio::time::sleep(KEEP_EVERY) => {}
                }
                let (keeper, limiter) = (keeper.clone(), limiter.clone());
                if tokio::task::spawn_blocking(move || keeper.keep(&limiter))
                    .await
                    .is_err()
                {
                    tracing::error!("keeping what tenants have used panicked");
                }
            }
        });
    }
}

/// The limiter, with what was used before; what is used from now on is kept until the tasks end.
pub(crate) fn limiter(data: &Path, clock: Arc<dyn Clock>, tasks: &Tasks) -> Result<Arc<Limiter>, DataError> {
    let limiter = Arc::new(Limiter::new(clock));
    let path = DataFolder::open(data)?.usage();
    let keeper = UsageKeeper::open(&path, &limiter).map_err(|source| DataError::Usage {
        path: path.display().to_string(),
        source,
    })?;
    keeper.follow(limiter.clone(), tasks);
    Ok(limiter)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mesh_policies::limits::{Budgets, Charge, Limits, TenantLimits, Who};
    use mesh_types::{ManualClock, ModelId};

    use super::*;

    fn limiter() -> Limiter {
        Limiter::new(Arc::new(ManualClock::at(1_000_000)))
    }

    fn ask(limiter: &Limiter, tenant: &str) {
        let who = Who {
            credential: "",
            subject: "",
        };
        ask_as(limiter, tenant, who);
    }

    fn ask_as(limiter: &Limiter, tenant: &str, who: Who<'_>) {
        let (tenant, model) = (TenantId::parse(tenant).unwrap(), ModelId::parse("m").unwrap());
        let charge = Charge {
            endpoint: None,
            model: (&tenant, &model),
            rows: 2,
            input_bytes: 3,
        };
        let mut budgets = Budgets::default();
        budgets.monthly[0].hard = Some(100);
        let limits = TenantLimits::default().with_token_subjects(Limits::default(), budgets);
        let caller = limiter.caller(&tenant, &limits, who).unwrap();
        let admission = caller.admit(limiter.now()).unwrap();
        drop(admission.charge(&charge, limiter.now()).unwrap());
    }

    fn used(limiter: &Limiter, tenant: &str) -> Option<[u64; 4]> {
        let usage = limiter.usage(&TenantId::parse(tenant).unwrap())?;
        Some(usage.daily)
    }

    #[test]
    fn use_is_taken_over_and_counted_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        for round in 1..=3 {
            let limiter = limiter();
            let keeper = UsageKeeper::open(&path, &limiter).unwrap();
            ask(&limiter, "acme");
            keeper.keep(&limiter);
            assert_eq!(used(&limiter, "acme"), Some([round, 2 * round, 3 * round, 0]));
            ask(&limiter, "globex");
            // What was not kept is lost, and nothing else.
        }
        assert_eq!(used(&limiter(), "globex"), None);
    }

    #[test]
    fn a_write_that_fails_half_way_spoils_nothing_that_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        let limiter = limiter();
        let keeper = UsageKeeper::open(&path, &limiter).unwrap();
        ask(&limiter, "acme");
        let good = std::mem::replace(&mut keeper.0.lock().file, File::open(&path).unwrap());
        // Only open for reading: it fails.
        keeper.keep(&limiter);
        keeper.0.lock().file = good;
        fs::write(&path, "1 {\"half a li").unwrap();
        ask(&limiter, "globex");
        keeper.keep(&limiter);
        let book = Book::open(&path).unwrap();
        let there: Vec<_> = book.newest.keys().map(|(tenant, _)| tenant.as_str()).collect();
        assert_eq!(there, ["acme", "globex"]);
    }

    #[test]
    fn what_is_kept_of_a_tenant_goes_with_it_though_nobody_uses_anything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        let before = limiter();
        let keeper = UsageKeeper::open(&path, &before).unwrap();
        ask(&before, "acme");
        ask(&before, "globex");
        keeper.keep(&before);
        before.renew(|tenant| tenant.as_str() == "acme");
        keeper.keep(&before);
        let after = limiter();
        UsageKeeper::open(&path, &after).unwrap();
        assert_eq!(used(&after, "acme"), None);
        assert!(used(&after, "globex").is_some());
    }

    #[test]
    fn what_subjects_of_tokens_have_used_is_kept_by_name_and_apart_from_their_tenants() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        let clock = Arc::new(ManualClock::at(1_000_000));
        // The longest that there are, and what JSON writes at the greatest length.
        let (plain, long, issuer) = ("ann", "\u{1}".repeat(255), "\u{1}".repeat(512));
        let credential = format!("jwt:{issuer}");
        for round in 1..=2 {
            let limiter = Limiter::new(clock.clone());
            let keeper = UsageKeeper::open(&path, &limiter).unwrap();
            for subject in [plain, &long] {
                let credential = &credential;
                let who = Who { credential, subject };
                ask_as(&limiter, "acme", who);
            }
            keeper.keep(&limiter);
            assert_eq!(used(&limiter, "acme"), Some([2 * round, 4 * round, 6 * round, 0]));
            let of_subjects = limiter.usage_of_subjects(&TenantId::parse("acme").unwrap());
            assert_eq!(of_subjects.len(), 2);
            for (name, usage) in of_subjects {
                assert_eq!(*name.issuer, *issuer);
                assert_eq!(usage.daily, [round, 2 * round, 3 * round, 0]);
            }
        }
        // A month later nothing of theirs is left, in the file neither.
        clock.advance(Duration::from_secs(31 * 86_400));
        let limiter = Limiter::new(clock);
        let keeper = UsageKeeper::open(&path, &limiter).unwrap();
        assert_eq!(limiter.usage_of_subjects(&TenantId::parse("acme").unwrap()), []);
        ask(&limiter, "acme");
        keeper.keep(&limiter);
        assert_eq!(keeper.0.lock().newest.len(), 1);
    }

    #[test]
    fn a_line_of_before_there_were_subjects_is_read() {
        let text = r#"{"tenant":"acme","day":11,"month":0,"daily":[1,2,3,0],"monthly":[1,2,3,0]}"#;
        let line = format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()));
        let usage = read(&line).unwrap();
        assert_eq!((usage.tenant.as_str(), usage.subject.is_none()), ("acme", true));
        assert_eq!(written(&usage), Some(line));
    }

    #[test]
    fn a_torn_or_damaged_line_is_left_out_and_the_rest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        let first = limiter();
        let keeper = UsageKeeper::open(&path, &first).unwrap();
        ask(&first, "acme");
        ask(&first, "globex");
        keeper.keep(&first);
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        let acme = lines.iter().find(|line| line.contains("acme")).unwrap();
        let damaged = lines
            .iter()
            .find(|line| line.contains("globex"))
            .unwrap()
            .replace("[1,2,3,0]", "[0,2,3,0]");
        let torn = &acme[..acme.len() / 2];
        fs::write(&path, format!("{acme}{damaged}{}\n{torn}", "x".repeat(10_000))).unwrap();
        let second = limiter();
        let keeper = UsageKeeper::open(&path, &second).unwrap();
        assert_eq!(
            (used(&second, "acme"), used(&second, "globex")),
            (Some([1, 2, 3, 0]), None)
        );
        ask(&second, "acme");
        keeper.keep(&second);
        let third = limiter();
        UsageKeeper::open(&path, &third).unwrap();
        assert_eq!(used(&third, "acme"), Some([2, 4, 6, 0]));
    }

    #[test]
    fn the_file_is_written_anew_once_it_has_grown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        let limiter = limiter();
        let keeper = UsageKeeper::open(&path, &limiter).unwrap();
        let mut largest = 0;
        for _ in 0..10 {
            let mut book = keeper.0.lock();
            let usages: Vec<TenantUsage> = (0..2_000)
                .map(|index| TenantUsage {
                    tenant: TenantId::parse(&format!("tenant-{index}")).unwrap(),
                    subject: None,
                    usage: Usage::default(),
                })
                .collect();
            book.keep(&usages).unwrap();
            largest = largest.max(fs::metadata(&path).unwrap().len());
        }
        assert!(largest <= SMALL + 300_000, "{largest}");
        assert!(fs::metadata(&path).unwrap().len() < SMALL);
    }
}
