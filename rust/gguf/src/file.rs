//! An open GGUF file, or the files of a split model.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use crate::header::{self, Header};
use crate::reader::Reader;
use crate::source::FileBytes;
use crate::table::{self, Table};
use crate::{Error, Metadata, TensorInfo, TensorView, split};

/// The most a header may take, in bytes. The largest known (vocabularies of 256k tokens with merges) are under 32 MiB;
/// the limit keeps a crafted sparse file from being parsed into memory.
pub(crate) const HEADER_LIMIT: usize = 256 << 20;

/// A GGUF model whose headers and tensor tables have been checked against the files' sizes.
///
/// Usually one file; the shards of a split model (`NAME-00001-of-0000N.gguf`) are one model too.
///
/// The data are mapped and read on first use. A mapped file must not be changed while it is open: tensors would change
/// with it, and touching a part that has been cut off ends the process (SIGBUS). [`check`](Self::check) asks the system
/// for the length and gives an error instead; only a file cut off between the check and the read is still fatal.
pub struct GgufFile {
    shards: Vec<FileBytes>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
}

/// One file, parsed.
pub(crate) struct Part {
    source: FileBytes,
    header: Header,
    table: Table,
}

impl Part {
    /// Opens and checks one file; errors name it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        FileBytes::open(path).and_then(Self::new).map_err(|error| error.in_file(path))
    }

    fn new(source: FileBytes) -> Result<Self, Error> {
        let (header, table) = parse(&source, HEADER_LIMIT)?;
        Ok(Self { source, header, table })
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// How many tensors the file has.
    pub(crate) fn tensors(&self) -> usize {
        self.table.tensors.len()
    }
}

impl GgufFile {
    /// Opens and checks the file at `path`; where its metadata make it a shard of a split model, any one of them, all the
    /// others too.
    ///
    /// # Errors
    /// [`Error::InFile`], with the path and what is wrong: the file cannot be read, is not GGUF, or is malformed; a shard
    /// is missing ([`Error::MissingShard`]) or does not belong to the others ([`Error::SplitMismatch`],
    /// [`Error::DuplicateAcrossShards`]), or the file's name does not say where they are ([`Error::SplitName`]).
    pub fn open(path: &Path) -> Result<Self, Error> {
        let parts = split::complete(path, Part::open(path)?)?;
        Self::join(parts)
    }

    /// Checks a file that is already in memory. A shard of a split model stands for itself.
    ///
    /// # Errors
    /// What is wrong, if the bytes are not a well-formed GGUF file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::join(vec![Part::new(bytes.into())?])
    }

    /// One model of its files: the first one's version and metadata, the tensors of all.
    fn join(parts: Vec<Part>) -> Result<Self, Error> {
        let mut model = Self {
            shards: Vec::with_capacity(parts.len()),
            version: 0,
            metadata: Metadata::default(),
            tensors: Vec::new(),
            index: HashMap::new(),
        };
        for (shard, Part { source, header, table }) in parts.into_iter().enumerate() {
            if shard == 0 {
                (model.version, model.metadata) = (header.version, header.metadata);
                (model.tensors, model.index) = (table.tensors, table.index);
            } else {
                model.add(shard, &source, table.tensors)?;
            }
            model.shards.push(source);
        }
        Ok(model)
    }

    fn add(&mut self, shard: usize, source: &FileBytes, tensors: Vec<TensorInfo>) -> Result<(), Error> {
        for info in tensors {
            let position = self.tensors.len();
            if let Some(first) = self.index.insert(info.name.clone(), position) {
                let other = self.shards[self.tensors[first].shard].path().to_owned();
                return Err(Error::DuplicateAcrossShards { name: info.name, other }.in_file(source.path()));
            }
            self.tensors.push(TensorInfo { shard, ..info });
        }
        Ok(())
    }

    /// The version of the format: 1, 2 or 3; the first shard's.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata; the first shard's.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensor table, in file order, shard by shard.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`; its data are not read until touched.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.info(name)?;
        let data = self.shards.get(info.shard)?.get(info.offset..info.offset.checked_add(info.len)?)?;
        Some(TensorView { name: &info.name, dtype: info.dtype, dims: &info.dims, data })
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.index.get(name)?)
    }

    /// Checks that the file that holds the tensor called `name` is still as long as when it was opened; to be called before
    /// the data are read. Nothing is wrong with a tensor that is not there.
    ///
    /// # Errors
    /// [`Error::InFile`] with [`Error::Shortened`], or [`Error::Io`].
    pub fn check(&self, name: &str) -> Result<(), Error> {
        match self.info(name).and_then(|info| self.shards.get(info.shard)) {
            Some(source) => source.check_length(),
            None => Ok(()),
        }
    }

    /// Tells the system that the pages of `view` are not needed for now, so that a model packed tensor by tensor does
    /// not sit in memory twice. The view stays valid: a page touched again is read again from the file.
    ///
    /// Does nothing for a view of another file, for a file held in memory, and where the system has no such call.
    pub fn release(&self, view: &TensorView<'_>) {
        let address = view.data.as_ptr().addr();
        for source in &self.shards {
            if let Some(start) = address.checked_sub(source.as_ptr().addr())
                && let Some(end) = start.checked_add(view.data.len())
            {
                source.release(start..end); // which ignores a range past its end
            }
        }
    }
}

/// The version and the sizes, not the contents.
impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("version", &self.version)
            .field("bytes", &self.shards.iter().map(|source| source.len()).sum::<usize>())
            .field("metadata", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
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
