//! Writing a file: header and table first, then the data of each tensor in order.

mod header;
mod pending;

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;

pub use self::pending::PendingFile;
use crate::error::Error;
use crate::file::GgufFile;
use crate::metadata::Metadata;
use crate::tensor::TensorSpec;
use crate::{split, table};

/// A tensor whose data are not complete.
struct Remaining {
    name: String,
    len: usize,
    written: usize,
}

/// Writes a GGUF file of version 3 into `W`, with no more than the header in memory.
///
/// The constructors write the header and the table, which need every tensor's name, shape and type beforehand; the data
/// follow in the same order, whole ([`tensor`](Self::tensor)) or in pieces ([`append`](Self::append)). After an error
/// from the sink the file is lost; after any other the writer is as it was before the call.
pub struct GgufWriter<W: Write> {
    sink: W,
    alignment: usize,
    /// Tensors not yet complete, the current one in front.
    remaining: VecDeque<Remaining>,
}

impl GgufWriter<PendingFile> {
    /// Begins the file at `path`, which appears there when [`finish`](Self::finish) succeeds and not before: until then
    /// the data are in a temporary file beside it.
    ///
    /// # Errors
    /// [`Error::InFile`] with the path and what [`new`](GgufWriter::new) would say.
    pub fn create(path: &Path, metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Self, Error> {
        PendingFile::create(path)
            .and_then(|file| GgufWriter::new(file, metadata, tensors))
            .map_err(|error| error.in_file(path))
    }

    /// Checks that every tensor is complete, and gives the file its name, replacing any file of that name.
    ///
    /// # Errors
    /// [`Error::InFile`] with the path and [`Error::Unfinished`] or [`Error::Write`]; the temporary file is then gone.
    pub fn finish(self) -> Result<(), Error> {
        let path = self.sink.path().to_owned();
        self.into_inner().and_then(PendingFile::publish).map_err(|error| error.in_file(&path))
    }
}

impl<W: Write> GgufWriter<W> {
    /// Writes the header and the table of a file with these metadata, in their order, and these tensors, in theirs.
    /// `general.alignment`, where the metadata have it, aligns the data; 32 bytes otherwise.
    ///
    /// # Errors
    /// Whatever the reader would refuse: [`Error::EmptyName`], [`Error::NameTooLong`], [`Error::Alignment`],
    /// [`Error::DuplicateTensor`], [`Error::Dimensions`], [`Error::ZeroDimension`], [`Error::TensorTooLarge`],
    /// [`Error::PartialBlock`], [`Error::HeaderTooLarge`]; [`Error::Write`] from the sink.
    pub fn new(mut sink: W, metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Self, Error> {
        let alignment = table::alignment(metadata)?;
        let (header, sizes) = header::encode(metadata, tensors, alignment)?;
        sink.write_all(&header).map_err(Error::Write)?;
        if !tensors.is_empty() {
            pad(&mut sink, header.len(), alignment)?;
        }
        let remaining = tensors
            .iter()
            .zip(sizes)
            .map(|(spec, len)| Remaining { name: spec.name.clone(), len, written: 0 })
            .collect();
        Ok(Self { sink, alignment, remaining })
    }

    /// Writes all data of the next tensor, which must be `name`.
    ///
    /// # Errors
    /// [`Error::WriteOrder`], [`Error::WriteSize`] unless `data` complete the tensor, [`Error::Write`].
    pub fn tensor(&mut self, name: &str, data: &[u8]) -> Result<(), Error> {
        self.write(name, data, true)
    }

    /// Writes a piece of the next tensor's data, which must be `name`. With the piece that completes it, it is the next
    /// tensor's turn.
    ///
    /// # Errors
    /// [`Error::WriteOrder`], [`Error::WriteSize`] when the tensor has no room for the piece, [`Error::Write`].
    pub fn append(&mut self, name: &str, piece: &[u8]) -> Result<(), Error> {
        self.write(name, piece, false)
    }

    fn write(&mut self, name: &str, piece: &[u8], whole: bool) -> Result<(), Error> {
        let Some(next) = self.remaining.front_mut().filter(|next| next.name == name) else {
            let expected = self.remaining.front().map(|next| next.name.clone());
            return Err(Error::WriteOrder { expected, got: name.to_owned() });
        };
        let written = next.written.saturating_add(piece.len());
        if written > next.len || (whole && written < next.len) {
            return Err(Error::WriteSize { tensor: name.to_owned(), expected: next.len, got: written });
        }
        self.sink.write_all(piece).map_err(Error::Write)?;
        next.written = written;
        if written == next.len {
            pad(&mut self.sink, next.len, self.alignment)?;
            self.remaining.pop_front();
        }
        Ok(())
    }

    /// Checks that every tensor is complete, and gives the sink back, flushed.
    ///
    /// # Errors
    /// [`Error::Unfinished`] and [`Error::Write`].
    pub fn into_inner(mut self) -> Result<W, Error> {
        if let Some(next) = self.remaining.front() {
            return Err(Error::Unfinished { tensor: next.name.clone(), missing: self.remaining.len() });
        }
        self.sink.flush().map_err(Error::Write)?;
        Ok(self.sink)
    }
}

/// Fills up to the alignment with zeros after `len` bytes. ggml does so after the last tensor too.
fn pad(sink: &mut impl Write, len: usize, alignment: usize) -> Result<(), Error> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut left = len.wrapping_neg() & (alignment - 1); // the alignment is a power of two
    while left > 0 {
        let some = left.min(ZEROS.len());
        sink.write_all(&ZEROS[..some]).map_err(Error::Write)?;
        left -= some;
    }
    Ok(())
}

impl GgufFile {
    /// Writes this model as one file of version 3 at `path`, with the same metadata and tensors in the same order. A
    /// split model is merged and loses its `split.*` keys.
    ///
    /// # Errors
    /// What [`GgufWriter::create`] refuses; [`Error::Shortened`]; [`Error::Write`]. What was at `path` then stays.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut metadata = self.metadata().clone();
        for key in split::KEYS {
            metadata.remove(key);
        }
        let specs: Vec<TensorSpec> = self
            .tensors()
            .iter()
            .map(|info| TensorSpec { name: info.name.clone(), dims: info.dims.clone(), dtype: info.dtype })
            .collect();
        let mut writer = GgufWriter::create(path, &metadata, &specs)?;
        for spec in &specs {
            self.check(&spec.name)?;
            if let Some(view) = self.tensor(&spec.name) {
                writer.tensor(view.name, view.data).map_err(|error| error.in_file(path))?;
                self.release(&view);
            }
        }
        writer.finish()
    }
}
