//! One file of a model: all of it, or one of its shards.

use std::path::Path;

use crate::error::Error;
use crate::file_bytes::FileBytes;
use crate::header::{self, Header};
use crate::reader::Reader;
use crate::table::{self, Table};

/// A file with its header and tensor table, which have been checked against its size.
pub(crate) struct Shard {
    pub(crate) bytes: FileBytes,
    pub(crate) header: Header,
    pub(crate) table: Table,
}

impl Shard {
    /// Opens and checks the file at `path`, which errors name.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        FileBytes::open(path).and_then(Self::new).map_err(|error| error.in_file(path))
    }

    /// Checks a file that is open already.
    pub(crate) fn new(bytes: FileBytes) -> Result<Self, Error> {
        let (header, table) = parse(&bytes, header::LIMIT)?;
        Ok(Self { bytes, header, table })
    }
}

/// Parses a file whose header and table may take `limit` bytes.
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
