//! The bytes of a file, mapped where that is possible and read where it is not.

use std::fs::{self, File};
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::Error;

/// The bytes of a file, mapped or in memory.
///
/// A mapped file must not be changed while it is open: touching a part that has been cut off ends the process (SIGBUS).
/// [`check_length`](Self::check_length) turns that into an error for a file cut off before the check.
#[derive(Debug)]
pub struct FileBytes {
    bytes: Bytes,
    /// Empty for bytes that come from no file.
    path: PathBuf,
}

#[derive(Debug)]
enum Bytes {
    /// The file stays open so that its length can be asked for again.
    Mapped {
        map: Mmap,
        file: File,
    },
    Owned(Vec<u8>),
}

/// A part of a file that stays readable when whoever opened the file has gone.
#[derive(Debug, Clone)]
pub struct FilePart {
    file: Arc<FileBytes>,
    range: Range<usize>,
}

impl FilePart {
    /// The bytes of `file` in `range`; `None` where that is past its end.
    pub fn new(file: &Arc<FileBytes>, range: Range<usize>) -> Option<Self> {
        file.get(range.clone())?;
        Some(Self { file: Arc::clone(file), range })
    }

    /// The part's bytes.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn read(&self) -> Result<&[u8], Error> {
        self.check()?;
        Ok(self.bytes())
    }

    /// The same for who has called [`check`](Self::check) just before.
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }

    /// Refuses a file that has become shorter.
    ///
    /// # Errors
    /// Those of [`FileBytes::check_length`].
    pub fn check(&self) -> Result<(), Error> {
        self.file.check_length()
    }

    /// The part that `bytes` are of this one; `None` where they lie elsewhere.
    pub fn within(&self, bytes: &[u8]) -> Option<Self> {
        let (all, inner) = (self.bytes().as_ptr_range(), bytes.as_ptr_range());
        let is_within = all.start <= inner.start && inner.end <= all.end;
        let start = self.range.start + (inner.start as usize).checked_sub(all.start as usize)?;
        is_within.then(|| Self { file: Arc::clone(&self.file), range: start..start + bytes.len() })
    }

    /// Whether the system can give up the memory that the part takes, as it is mapped; otherwise the file was read whole.
    pub fn is_mapped(&self) -> bool {
        matches!(self.file.bytes, Bytes::Mapped { .. })
    }

    /// Whether both are of one file.
    pub fn is_of_same_file(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }
}

impl FileBytes {
    /// Maps the regular file at `path`, or reads it whole where its file system cannot map.
    ///
    /// # Errors
    /// [`Error::NotAFile`], [`Error::Io`], [`Error::OutOfMemory`]; none names the path.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Before opening: opening a pipe would wait for a writer, and a device has no end.
        if !fs::metadata(path)?.is_file() {
            return Err(Error::NotAFile);
        }
        let file = File::open(path)?;
        let bytes = match map(&file) {
            Ok(map) => Bytes::Mapped { map, file },
            Err(_) => Bytes::Owned(read(file)?),
        };
        Ok(Self { bytes, path: path.to_owned() })
    }

    /// The file's path; empty for bytes that come from no file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a file that has become shorter than what is mapped of it.
    ///
    /// # Errors
    /// [`Error::Shortened`] and [`Error::Io`], naming the path.
    pub fn check_length(&self) -> Result<(), Error> {
        let Bytes::Mapped { map, file } = &self.bytes else { return Ok(()) };
        let was = map.len() as u64;
        let now = file.metadata().map_err(|error| Error::from(error).in_file(&self.path))?.len();
        if now < was { Err(Error::Shortened { was, now }.in_file(&self.path)) } else { Ok(()) }
    }

    /// Tells the system that the bytes of `range` are not needed for now; a page touched again is read again.
    pub fn release(&self, range: Range<usize>) {
        if let Bytes::Mapped { map, .. } = &self.bytes
            && !range.is_empty()
            && range.end <= map.len()
        {
            drop_pages(map, range.start, range.len());
        }
    }
}

impl From<Vec<u8>> for FileBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: Bytes::Owned(bytes), path: PathBuf::new() }
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped { map, .. } => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// Reads the whole file into memory.
fn read(mut file: File) -> Result<Vec<u8>, Error> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|_| Error::OutOfMemory { what: "the whole file, which cannot be mapped".to_owned(), bytes: len })?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[allow(unsafe_code)] // mapping a file has no safe form
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is read-only. Should another process change the file, plain bytes change under plain byte
    // slices: whatever must stay valid (lengths, offsets, text) is copied before it is checked. Should it shorten
    // the file, a later access ends this process with SIGBUS, as in every reader of mapped weights; `check_length`
    // makes that a matter of the moment between the check and the access.
    unsafe { Mmap::map(file) }
}

#[cfg(unix)]
#[allow(unsafe_code)] // dropping pages is unchecked because an anonymous or writable mapping would lose data
fn drop_pages(map: &Mmap, start: usize, len: usize) {
    // SAFETY: the mapping is of a file and read-only, so a page dropped is read from the file again, with the same
    // bytes, when next touched; slices into it stay valid.
    let advised = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
    drop(advised); // a hint: where it is refused, the pages stay
}

#[cfg(not(unix))]
fn drop_pages(_: &Mmap, _: usize, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_gives_what_mapping_gives() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [vec![], vec![1], vec![7; 10_000]] {
            fs::write(file.path(), &bytes).unwrap();
            let mapped = FileBytes::open(file.path()).unwrap();
            let read = FileBytes::from(read(File::open(file.path()).unwrap()).unwrap());
            assert!(matches!((&mapped.bytes, &read.bytes), (Bytes::Mapped { .. }, Bytes::Owned(_))));
            assert_eq!((&mapped[..], &read[..]), (&bytes[..], &bytes[..]));
            mapped.release(0..bytes.len());
            read.release(0..bytes.len());
            mapped.release(0..bytes.len() + 1);
        }
    }

    #[test]
    fn a_part_knows_what_lies_within_it() {
        let written = tempfile::NamedTempFile::new().unwrap();
        fs::write(written.path(), [7; 100]).unwrap();
        let file = Arc::new(FileBytes::open(written.path()).unwrap());
        let part = FilePart::new(&file, 10..30).unwrap();
        for range in [10..30, 10..11, 29..30, 12..20, 10..10, 30..30] {
            let within = part.within(&file[range.clone()]).unwrap();
            assert!(within.range == range && within.is_of_same_file(&part) && within.is_mapped());
        }
        for range in [9..20, 20..31, 0..100, 9..9, 31..31] {
            assert!(part.within(&file[range.clone()]).is_none(), "{range:?}");
        }
        let copy = Arc::new(FileBytes::from(file.to_vec()));
        assert!(part.within(&copy[10..30]).is_none());
        let copied = FilePart::new(&copy, 10..30).unwrap();
        assert!(!copied.is_mapped() && !copied.is_of_same_file(&part));
        assert!(FilePart::new(&file, 90..101).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused_at_once() {
        for path in ["/dev/null", "/dev/zero", "/"] {
            assert!(matches!(FileBytes::open(Path::new(path)), Err(Error::NotAFile)), "{path}");
        }
    }
}
