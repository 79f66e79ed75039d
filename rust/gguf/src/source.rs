//! The bytes of a file: mapped, or read where they cannot be.

use std::fs::{self, File};
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

use crate::Error;

/// A file's bytes.
#[derive(Debug)]
pub(crate) enum Source {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Source {
    /// Maps the regular file at `path`, or reads it whole where its file system cannot map.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        // Before opening: opening a pipe would wait for a writer, and a device has no end.
        if !fs::metadata(path)?.is_file() {
            return Err(Error::NotAFile);
        }
        let file = File::open(path)?;
        match map(&file) {
            Ok(map) => Ok(Self::Mapped(map)),
            Err(_) => Self::read(file),
        }
    }

    /// Reads the whole file.
    fn read(mut file: File) -> Result<Self, Error> {
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Error::OutOfMemory {
            what: "the whole file, which cannot be mapped".to_owned(),
            bytes: len,
        })?;
        file.read_to_end(&mut bytes)?;
        Ok(Self::Owned(bytes))
    }

    /// Tells the system that the bytes of `range` are not needed for now.
    pub(crate) fn release(&self, range: Range<usize>) {
        if let Self::Mapped(map) = self
            && !range.is_empty()
            && range.end <= map.len()
        {
            drop_pages(map, range.start, range.len());
        }
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

#[allow(unsafe_code)] // mapping a file has no safe form
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is read-only. Should another process change the file, plain bytes change under plain byte
    // slices: whatever must stay valid (lengths, offsets, text) was copied out before it was checked. Should it shorten
    // the file, a later access ends this process with SIGBUS, as in every reader of mapped weights.
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
#[allow(clippy::unwrap_used)] // tests
mod tests {
    use super::*;

    #[test]
    fn reading_gives_what_mapping_gives() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [vec![], vec![1], vec![7; 10_000]] {
            fs::write(file.path(), &bytes).unwrap();
            let mapped = Source::open(file.path()).unwrap();
            let read = Source::read(File::open(file.path()).unwrap()).unwrap();
            assert!(matches!((&mapped, &read), (Source::Mapped(_), Source::Owned(_))));
            assert_eq!((&mapped[..], &read[..]), (&bytes[..], &bytes[..]));
            mapped.release(0..bytes.len());
            read.release(0..bytes.len());
            mapped.release(0..bytes.len() + 1);
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused_at_once() {
        for path in ["/dev/null", "/dev/zero", "/"] {
            assert!(matches!(Source::open(Path::new(path)), Err(Error::NotAFile)), "{path}");
        }
    }
}
