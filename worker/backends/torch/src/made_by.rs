//! Which versions of libtorch a file may have been made by.
//!
//! A compiled package calls into libtorch by structures of the version that it was compiled with; another one reads them wrong.
//! A TorchScript archive is of a numbered format, which libtorch refuses in words about its own reader where it is newer.
//! Both are refused here first, in words of what to do. A package that does not say its version is left to what else is
//! checked of it.

use std::{fs::File, io::Read as _, ops::RangeInclusive, path::Path, str::FromStr};

use mesh_backend::BackendError;
use zip::ZipArchive;

/// The formats of TorchScript archives that this libtorch reads (`caffe2/serialize/versions.h`).
const FORMATS: RangeInclusive<u32> = 1..=10;
/// The most versions that are named.
const MAX_VERSIONS: usize = 16;
/// The format's number is a line of text.
const MAX_NUMBER_BYTES: u64 = 32;

/// What files may have been made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeBy {
    /// Versions of compiled packages: major and minor.
    pub packages: Vec<(u32, u32)>,
    /// Formats of TorchScript archives.
    pub archives: RangeInclusive<u32>,
}

/// Why a text says no versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MadeByError {
    /// Not versions.
    #[error("versions of libtorch with commas between them, such as 2.11 or 2.10,2.11; at most {MAX_VERSIONS}")]
    Packages,
    /// Not formats.
    #[error("the first and last format of archives within 1-10, such as 3-10")]
    Archives,
}

fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.splitn(3, '.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Default for MadeBy {
    /// The libtorch that is here, and what it reads.
    fn default() -> Self {
        Self {
            packages: Vec::from_iter(minor(crate::LIBTORCH_VERSION)),
            archives: FORMATS,
        }
    }
}

impl MadeBy {
    /// The same with these versions of packages, written `2.10,2.11`.
    pub fn with_packages(self, text: &str) -> Result<Self, MadeByError> {
        let packages: Option<Vec<_>> = text.split(',').map(|version| minor(version.trim())).collect();
        let packages = packages.filter(|packages| packages.len() <= MAX_VERSIONS);
        Ok(Self {
            packages: packages.ok_or(MadeByError::Packages)?,
            ..self
        })
    }

    /// The same with these formats of archives, written `3-10`.
    pub fn with_archives(self, text: &str) -> Result<Self, MadeByError> {
        let number = |text: &str| {
            u32::from_str(text.trim())
                .ok()
                .filter(|number| FORMATS.contains(number))
        };
        let ends = text
            .split_once('-')
            .and_then(|(first, last)| number(first).zip(number(last)));
        let (first, last) = ends
            .filter(|(first, last)| first <= last)
            .ok_or(MadeByError::Archives)?;
        Ok(Self {
            archives: first..=last,
            ..self
        })
    }

    /// Refuses a package that was compiled with another version.
    pub(crate) fn check_package(&self, version: Option<&str>) -> Result<(), BackendError> {
        let Some(version) = version else { return Ok(()) };
        if minor(version).is_some_and(|its| self.packages.contains(&its)) {
            return Ok(());
        }
        let ours: Vec<String> = self
            .packages
            .iter()
            .map(|(major, minor)| format!("{major}.{minor}"))
            .collect();
        let (version, ours): (String, _) = (version.chars().take(32).collect(), ours.join(" or "));
        Err(BackendError::Load(format!(
            "the package was compiled for libtorch {version}, and this mesh takes packages for {ours}: compile it again with that"
        )))
    }

    /// Refuses an archive of a format that is not read here; what is no archive is left to libtorch.
    pub(crate) fn check_archive(&self, path: &Path) -> Result<(), BackendError> {
        let Some(format) = format_of(path) else { return Ok(()) };
        if self.archives.contains(&format) {
            return Ok(());
        }
        let (first, last) = (self.archives.start(), self.archives.end());
        Err(BackendError::Load(format!(
            "the TorchScript archive is of format {format}, and this mesh takes formats {first} to {last}: save it again with \
             libtorch {}",
            crate::LIBTORCH_VERSION
        )))
    }
}

/// The number in an archive's entry `version`.
fn format_of(path: &Path) -> Option<u32> {
    let mut zip = ZipArchive::new(File::open(path).ok()?).ok()?;
    let is_it = |name: &str| name == "version" || name.split_once('/').is_some_and(|(_, rest)| rest == "version");
    let place = (0..zip.len()).find(|place| zip.name_for_index(*place).is_some_and(is_it))?;
    let mut text = String::new();
    zip.by_index(place)
        .ok()?
        .take(MAX_NUMBER_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn archive(folder: &Path, version: &str) -> std::path::PathBuf {
        let path = folder.join("m.pt");
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        for (name, content) in [("m/constants.pkl", "x"), ("m/version", version)] {
            writer.start_file(name, options).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn archives_of_formats_at_the_ends_are_read_and_those_beyond_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let made_by = MadeBy::default().with_archives("3-10").unwrap();
        for (format, passes) in [("2", false), ("3\n", true), ("10\n", true), ("11\n", false)] {
            let checked = made_by.check_archive(&archive(folder.path(), format));
            assert_eq!(checked.is_ok(), passes, "{format}: {checked:?}");
        }
        let refused = MadeBy::default().check_archive(&archive(folder.path(), "11"));
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("format 11") && text.contains("1 to 10") && text.contains("libtorch 2.11"),
            "{text}"
        );
        std::fs::write(folder.path().join("m.pt"), "no archive").unwrap();
        assert_eq!(made_by.check_archive(&folder.path().join("m.pt")), Ok(()));
    }

    #[test]
    fn packages_of_named_versions_are_taken_and_others_are_not() {
        let made_by = MadeBy::default();
        for (version, passes) in [
            ("2.11.0+cpu", true),
            ("2.11", true),
            ("2.10.1", false),
            ("2.12.0", false),
            ("x", false),
        ] {
            assert_eq!(made_by.check_package(Some(version)).is_ok(), passes, "{version}");
        }
        assert_eq!(made_by.check_package(None), Ok(()));
        let text = made_by.check_package(Some("2.9.1")).unwrap_err().to_string();
        assert!(
            text.contains("compiled for libtorch 2.9.1") && text.contains("for 2.11:"),
            "{text}"
        );
        let wider = made_by.with_packages("2.10, 2.11").unwrap();
        assert_eq!(wider.check_package(Some("2.10.1")), Ok(()));
    }

    #[test]
    fn what_says_no_versions_is_refused_with_what_would() {
        for text in ["", "two", "2", "2.11,", &vec!["2.11"; MAX_VERSIONS + 1].join(",")] {
            assert_eq!(
                MadeBy::default().with_packages(text),
                Err(MadeByError::Packages),
                "{text}"
            );
        }
        assert!(
            MadeBy::default()
                .with_packages(&vec!["2.11"; MAX_VERSIONS].join(","))
                .is_ok()
        );
        for text in ["", "3", "0-10", "3-11", "5-4", "a-b"] {
            assert_eq!(
                MadeBy::default().with_archives(text),
                Err(MadeByError::Archives),
                "{text}"
            );
        }
    }
}
