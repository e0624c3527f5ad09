//! Files that are there whole or as they were before: written beside their place, synced, and put into it in one step.
//!
//! For what only its owner reads. Blocks on the disk. Two who write one file at once are not kept apart: each file has one writer.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What others may do with a file: nothing.
pub(crate) const OWNER_ONLY: u32 = 0o600;

/// Puts these bytes in the place of the file, whose folder is there; answers the new file, to which more can be appended. A power loss
/// after it brings the former one back no more.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_half_written_does_not_stand_in_the_way_and_more_can_follow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "former").unwrap();
        fs::write(folder.path().join("token.new"), "half").unwrap();
        let mut file = write_whole(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        file.write_all(b" and more").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole and more");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, OWNER_ONLY);
        assert!(!folder.path().join("token.new").exists());
    }

    #[test]
    fn a_file_in_the_folder_one_is_in_has_no_folder_in_its_name() {
        let name = format!("whole-{}.tmp", std::process::id());
        let path = Path::new(&name);
        write_whole(path, b"here").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"here");
        fs::remove_file(path).unwrap();
    }
}
