//! An open GGUF file, or the files of a split model.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;
use crate::file_bytes::{FileBytes, FilePart};
use crate::metadata::Metadata;
use crate::shard::Shard;
use crate::split;
use crate::tensor::{TensorInfo, TensorView};

/// A GGUF model whose headers and tensor tables have been checked against the files' sizes.
///
/// Usually one file; the shards of a split model (`NAME-00001-of-0000N.gguf`) are one model too.
///
/// The data are mapped and read on first use. A mapped file must not be changed while it is open: tensors would change
/// with it, and touching a part that has been cut off ends the process (SIGBUS). [`check`](Self::check) asks the system
/// for the length and gives an error instead; only a file cut off between the check and the read is still fatal.
pub struct GgufFile {
    shards: Vec<Arc<FileBytes>>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
}

impl GgufFile {
    /// Opens and checks the file at `path` and, where its metadata make it a shard of a split model, all other shards.
    ///
    /// # Errors
    /// [`Error::InFile`], with the path and what is wrong: the file cannot be read, is not GGUF, or is malformed; a
    /// shard is missing ([`Error::MissingShard`]) or does not belong to the others ([`Error::SplitMismatch`],
    /// [`Error::DuplicateAcrossShards`]), or the file's name does not say where they are ([`Error::SplitName`]).
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::join(split::complete(path, Shard::open(path)?)?)
    }

    /// Checks a file that is already in memory. Of a split model it has the tensors of this shard alone.
    ///
    /// # Errors
    /// What is wrong, if the bytes are not a well-formed GGUF file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::join(vec![Shard::new(bytes.into())?])
    }

    /// Makes one model of its files: the version and metadata of the first, the tensors of all.
    fn join(shards: Vec<Shard>) -> Result<Self, Error> {
        let mut model = Self {
            shards: Vec::with_capacity(shards.len()),
            version: 0,
            metadata: Metadata::default(),
            tensors: Vec::new(),
            index: HashMap::new(),
        };
        for (number, Shard { bytes, header, table }) in shards.into_iter().enumerate() {
            if number == 0 {
                (model.version, model.metadata) = (header.version, header.metadata);
                (model.tensors, model.index) = (table.tensors, table.index);
            } else {
                model.add(number, &bytes, table.tensors)?;
            }
            model.shards.push(Arc::new(bytes));
        }
        Ok(model)
    }

    /// Adds the tensors of a shard after the first.
    fn add(&mut self, shard: usize, bytes: &FileBytes, tensors: Vec<TensorInfo>) -> Result<(), Error> {
        for info in tensors {
            let position = self.tensors.len();
            if let Some(first) = self.index.insert(info.name.clone(), position) {
                let other = self.shards[self.tensors[first].shard].path().to_owned();
                return Err(Error::DuplicateAcrossShards { name: info.name, other }.in_file(bytes.path()));
            }
            self.tensors.push(TensorInfo { shard, ..info });
        }
        Ok(())
    }

    /// The version of the format, 1, 2 or 3, of the first shard.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata of the first shard, which describe the whole model.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in file order, shard by shard.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`; its data are not read until touched.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.info(name)?;
        let data = self.shards.get(info.shard)?.get(info.offset..info.offset.checked_add(info.len)?)?;
        Some(TensorView { name: &info.name, dtype: info.dtype, dims: &info.dims, data })
    }

    /// The bytes of the tensor called `name`, which stay readable when this is dropped.
    pub fn part(&self, name: &str) -> Option<FilePart> {
        let info = self.info(name)?;
        FilePart::new(self.shards.get(info.shard)?, info.offset..info.offset.checked_add(info.len)?)
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.index.get(name)?)
    }

    /// Checks that the file that holds the tensor called `name` has not become shorter; to be called before its data
    /// are read. A name that no tensor has is no error.
    ///
    /// # Errors
    /// [`Error::InFile`] with [`Error::Shortened`], or [`Error::Io`].
    pub fn check(&self, name: &str) -> Result<(), Error> {
        match self.info(name).and_then(|info| self.shards.get(info.shard)) {
            Some(bytes) => bytes.check_length(),
            None => Ok(()),
        }
    }

    /// Tells the system that the pages of `view` are not needed for now, so that a model packed tensor by tensor does
    /// not sit in memory twice. The view stays valid: a page touched again is read again from the file.
    ///
    /// Does nothing for a view of another file, for a file held in memory, and where the system has no such call.
    pub fn release(&self, view: &TensorView<'_>) {
        let address = view.data.as_ptr().addr();
        for bytes in &self.shards {
            if let Some(start) = address.checked_sub(bytes.as_ptr().addr())
                && let Some(end) = start.checked_add(view.data.len())
            {
                bytes.release(start..end); // which ignores a range past its end
            }
        }
    }
}

/// Shows the version and the sizes, not the contents.
impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("version", &self.version)
            .field("bytes", &self.shards.iter().map(|bytes| bytes.len()).sum::<usize>())
            .field("metadata", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}
