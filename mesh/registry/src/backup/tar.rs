//! The container of a backup: a POSIX archive (ustar) of plain files, as `tar tf` lists it.
//!
//! Only what a backup needs: names of at most 100 bytes, no folders and no links. A size that eight octal digits of gigabytes
//! do not hold is written in binary, as GNU tar does.

/// Everything in an archive comes in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;
/// Two blocks of zeros end an archive.
pub(super) const END: usize = 2 * BLOCK;
const NAME: Field = Field(0, 100);
const MODE: Field = Field(100, 8);
const OWNER: Field = Field(108, 8);
const GROUP: Field = Field(116, 8);
const SIZE: Field = Field(124, 12);
const TIME: Field = Field(136, 12);
const SUM: Field = Field(148, 8);
const TYPE: Field = Field(156, 1);
const MAGIC: Field = Field(257, 8);
const PREFIX: Field = Field(345, 155);
/// The first byte of a size in binary.
const BINARY: u8 = 0x80;

/// Where a field is: its first byte, and how many it has.
#[derive(Clone, Copy)]
struct Field(usize, usize);

impl Field {
    fn of(self, block: &[u8; BLOCK]) -> &[u8] {
        block.get(self.0..self.0 + self.1).unwrap_or_default()
    }

    fn put(self, block: &mut [u8; BLOCK], bytes: &[u8]) {
        for (to, from) in block.iter_mut().skip(self.0).take(self.1).zip(bytes) {
            *to = *from;
        }
    }
}

/// How many zeros follow so many bytes.
pub(super) fn padding(bytes: u64) -> usize {
    let over = usize::try_from(bytes % BLOCK as u64).unwrap_or(0);
    (BLOCK - over) % BLOCK
}

/// How much of the archive a file takes.
pub(super) fn taken(bytes: u64) -> u64 {
    BLOCK as u64 + bytes + padding(bytes) as u64
}

fn sum(block: &[u8; BLOCK]) -> u32 {
    let counted = |(at, byte): (usize, &u8)| {
        // The sum itself counts as spaces.
        let own = (SUM.0..SUM.0 + SUM.1).contains(&at);
        u32::from(if own { b' ' } else { *byte })
    };
    block.iter().enumerate().map(counted).sum()
}

/// The header of a file that only its owner reads.
pub(super) fn header(name: &str, bytes: u64, time: i64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    NAME.put(&mut block, name.as_bytes());
    MODE.put(&mut block, b"0000600\0");
    OWNER.put(&mut block, b"0000000\0");
    GROUP.put(&mut block, b"0000000\0");
    if bytes < 1 << 33 {
        SIZE.put(&mut block, format!("{bytes:011o}\0").as_bytes());
    } else {
        let mut binary = [0; 12];
        for (to, from) in binary.iter_mut().skip(4).zip(bytes.to_be_bytes()) {
            *to = from;
        }
        SIZE.put(&mut block, &binary);
        SIZE.put(&mut block, &[BINARY]);
    }
    let time = u64::try_from(time).unwrap_or(0).min((1 << 33) - 1);
    TIME.put(&mut block, format!("{time:011o}\0").as_bytes());
    TYPE.put(&mut block, b"0");
    MAGIC.put(&mut block, b"ustar\x0000");
    let sum = sum(&block);
    SUM.put(&mut block, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn octal(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    u64::from_str_radix(text.trim_matches(|char| char == ' ' || char == '\0'), 8).ok()
}

fn size(field: &[u8]) -> Option<u64> {
    match field.split_first() {
        Some((&BINARY, rest)) => {
            let (high, low) = rest.split_last_chunk::<8>()?;
            high.iter().all(|byte| *byte == 0).then(|| u64::from_be_bytes(*low))
        }
        _ => octal(field),
    }
}

/// The name and the size that a header says; none: the archive ends here.
pub(super) fn read(block: &[u8; BLOCK]) -> Result<Option<(String, u64)>, &'static str> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if SUM.of(block) != format!("{:06o}\0 ", sum(block)).as_bytes() {
        return Err("the checksum of its header is wrong");
    }
    if !MAGIC.of(block).starts_with(b"ustar") || PREFIX.of(block).iter().any(|byte| *byte != 0) {
        return Err("its header is not one that a backup has");
    }
    if !matches!(TYPE.of(block), b"0" | b"\0") {
        return Err("it is no plain file");
    }
    let name = NAME.of(block).split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| "its name is no text")?;
    let bytes = size(SIZE.of(block)).ok_or("its size cannot be read")?;
    Ok(Some((name.to_owned(), bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_any_flipped_bit_is_found() {
        for bytes in [0, 1, 511, 512, 513, (1 << 33) - 1, 1 << 33, u64::MAX >> 1] {
            let block = header("artifacts/abc", bytes, 1_790_000_000);
            assert_eq!(read(&block), Ok(Some(("artifacts/abc".to_owned(), bytes))));
            for bit in 0..BLOCK * 8 {
                let mut flipped = block;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(read(&flipped).is_err(), "bit {bit} of a header for {bytes} bytes");
            }
        }
        assert_eq!(read(&[0; BLOCK]), Ok(None));
    }

    #[test]
    fn a_file_is_padded_to_whole_blocks() {
        assert_eq!((padding(0), padding(1), padding(512), padding(513)), (0, 511, 0, 511));
        assert_eq!((taken(0), taken(1), taken(512)), (512, 1024, 1024));
    }

    #[test]
    fn tar_itself_lists_and_extracts_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = header("secrets/pepper", 3, 1_790_000_000).to_vec();
        archive.extend_from_slice(b"abc");
        archive.extend(vec![0; padding(3) + END]);
        std::fs::write(folder.path().join("a.tar"), archive).unwrap();
        let tar = std::process::Command::new("tar")
            .args(["xf", "a.tar"])
            .current_dir(folder.path())
            .status()
            .unwrap();
        assert!(tar.success());
        assert_eq!(std::fs::read(folder.path().join("secrets/pepper")).unwrap(), b"abc");
    }
}
