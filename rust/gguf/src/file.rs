//! An open GGUF file.

use std::fmt;
use std::path::Path;

use crate::header::{self, Header};
use crate::reader::Reader;
use crate::source::Source;
use crate::table::{self, Table};
use crate::{Error, Metadata, TensorInfo, TensorView};

/// The most a header may take, in bytes. The largest known (vocabularies of 256k tokens with merges) are under 32 MiB;
/// the limit keeps a crafted sparse file from being parsed into memory.
pub(crate) const HEADER_LIMIT: usize = 256 << 20;

/// A GGUF file whose header and tensor table have been checked against its size.
///
/// The data are mapped and read on first use. A mapped file must not be changed while it is open: tensors would change
/// with it, and a file that becomes shorter ends the process (SIGBUS).
pub struct GgufFile {
    source: Source,
    version: u32,
    metadata: Metadata,
    table: Table,
}

impl GgufFile {
    /// Opens and checks the file at `path`.
    ///
    /// # Errors
    /// [`Error::InFile`], with the path and what is wrong: the file cannot be read, is not GGUF, or is malformed.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Source::open(path).and_then(Self::new).map_err(|error| error.in_file(path))
    }

    /// Checks a file that is already in memory.
    ///
    /// # Errors
    /// What is wrong, if the bytes are not a well-formed GGUF file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::new(Source::Owned(bytes))
    }

    fn new(source: Source) -> Result<Self, Error> {
        let (header, table) = parse(&source, HEADER_LIMIT)?;
        Ok(Self { source, version: header.version, metadata: header.metadata, table })
    }

    /// The version of the format: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensor table, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.table.tensors
    }

    /// The tensor called `name`; its data are not read until touched.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.table.tensors.get(*self.table.index.get(name)?)?;
        let data = self.source.get(info.offset..info.offset.checked_add(info.len)?)?;
        Some(TensorView { name: &info.name, dtype: info.dtype, dims: &info.dims, data })
    }

    /// Tells the system that the pages of `view` are not needed for now, so that a model packed tensor by tensor does
    /// not sit in memory twice. The view stays valid: a page touched again is read again from the file.
    ///
    /// Does nothing for a view of another file, for a file held in memory, and where the system has no such call.
    pub fn release(&self, view: &TensorView<'_>) {
        let base = self.source.as_ptr().addr();
        if let Some(start) = view.data.as_ptr().addr().checked_sub(base)
            && let Some(end) = start.checked_add(view.data.len())
        {
            self.source.release(start..end);
        }
    }
}

/// The version and the sizes, not the contents.
impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("version", &self.version)
            .field("bytes", &self.source.len())
            .field("metadata", &self.metadata.len())
            .field("tensors", &self.table.tensors.len())
            .finish()
    }
}

fn parse(bytes: &[u8], limit: usize) -> Result<(Header, Table), Error> {
    let head = &bytes[..bytes.len().min(limit)];
    let mut reader = Reader::new(head);
    header::parse(&mut reader)
        .and_then(|header| {
            let table = table::parse(&mut reader, header.tensors, &header.metadata, bytes.len())?;
            Ok((header, table))
        })
        .map_err(|error| match error {
            // It is the limit that was hit, not the end of the file.
            Error::Truncated { .. } | Error::Count { .. } if head.len() < bytes.len() => {
                Error::HeaderTooLarge { limit }
            }
            error => error,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of 24 bytes, and one pair of 13.
    fn bytes() -> Vec<u8> {
        let counts = [0u64, 1].map(u64::to_le_bytes).concat();
        let pair = [&1u64.to_le_bytes()[..], b"k", &0u32.to_le_bytes(), b"v"].concat();
        [&b"GGUF\x03\0\0\0"[..], &counts, &pair].concat()
    }

    #[test]
    fn headers_are_limited() {
        let bytes = bytes();
        assert!(parse(&bytes, bytes.len()).is_ok());
        for limit in [8, 24, bytes.len() - 1] {
            let error = parse(&bytes, limit).err();
            assert!(matches!(error, Some(Error::HeaderTooLarge { limit: l }) if l == limit), "{error:?}");
        }
    }

    #[test]
    fn a_limit_past_the_end_changes_nothing() {
        let bytes = bytes();
        let error = parse(&bytes[..bytes.len() - 1], bytes.len()).err();
        assert!(matches!(error, Some(Error::Count { .. })), "{error:?}");
    }
}
