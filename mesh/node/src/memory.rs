//! How much memory the machine has, and how people write amounts of it.

/// An amount of memory, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    Bytes(u64),
    /// Of what the machine has.
    Percent(u8),
}

/// Reads `512MiB`, `6GiB`, `1048576` or `60%`; none of anything else.
pub(crate) fn parse(text: &str) -> Option<Amount> {
    let text = text.trim();
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u8 = percent.trim().parse().ok()?;
        return (1..=100).contains(&percent).then_some(Amount::Percent(percent));
    }
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("", 1),
    ];
    let (number, unit) = units
        .into_iter()
        .find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)))?;
    let bytes = number.trim().parse::<u64>().ok()?.checked_mul(unit)?;
    (bytes > 0).then_some(Amount::Bytes(bytes))
}

/// What this process may use: the machine's memory, or its container's limit where that is less. None where the system does
/// not say.
pub(crate) fn of_machine() -> Option<u64> {
    let total = std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(total);
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limit = limits
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    total.into_iter().chain(limit).min()
}

/// The machine's memory, and how much of it is in use: what could not be had by whoever asks for it.
pub(crate) fn in_use() -> Option<(u64, u64)> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = total(&meminfo)?;
    Some((total, total.saturating_sub(line(&meminfo, "MemAvailable:")?)))
}

/// The line `MemTotal` of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    line(meminfo, "MemTotal:")
}

fn line(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them_and_nothing_else_is() {
        let cases = [
            ("60%", Some(Amount::Percent(60))),
            ("100 %", Some(Amount::Percent(100))),
            ("101%", None),
            ("0%", None),
            ("1048576", Some(Amount::Bytes(1 << 20))),
            ("6 GiB", Some(Amount::Bytes(6 << 30))),
            ("512MiB", Some(Amount::Bytes(512 << 20))),
            ("0", None),
            ("6GB", None),
            ("much", None),
            ("99999999999TiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_machines_memory_is_found_in_the_systems_words() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       16 kB\n"), Some(16_384));
        assert_eq!(total("MemTotal: lots"), None);
        if cfg!(target_os = "linux") {
            assert!(of_machine().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
