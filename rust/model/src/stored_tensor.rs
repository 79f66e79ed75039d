//! Tensors as a checkpoint stores them, and where they are taken from.

use std::borrow::Cow;

use nanovllm_backend::DType;
use nanovllm_gguf::FilePart;

use crate::error::{LoadError, Result};

/// A stored tensor, borrowed from the mapped file where it can be.
#[derive(Debug, Clone)]
pub struct StoredTensor<'a> {
    /// The name that the file gives it.
    pub name: &'a str,
    /// The type of its elements; quantised types hold them in blocks.
    pub dtype: DType,
    /// The size of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The elements as stored: row-major, little-endian, at any address.
    pub data: Cow<'a, [u8]>,
}

impl StoredTensor<'_> {
    /// Refuses an element type that cannot be widened to f32.
    pub(crate) fn check_readable(&self) -> Result<()> {
        if nanovllm_gguf::is_supported(self.dtype) {
            Ok(())
        } else {
            Err(LoadError::unsupported_dtype(self.name, self.dtype))
        }
    }

    /// All elements, row-major, widened to f32.
    ///
    /// # Errors
    /// [`LoadError::UnsupportedDType`]; [`LoadError::Gguf`] when memory is short.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.check_readable()?;
        let mut out = vec![0.0; self.shape.iter().product()];
        nanovllm_gguf::dequantize(self.dtype, &self.data, &mut out)?;
        Ok(out)
    }
}

/// What tensors are taken from: a checkpoint, whichever files it is made of. Tensors go by their Hugging Face names;
/// one that has none goes by its own.
pub(crate) trait TensorSource {
    /// The names of all tensors.
    fn names(&self) -> Vec<String>;

    /// The tensor called `name` as layers use it; its data may be read.
    ///
    /// # Errors
    /// What is wrong with the file, where it is shorter than when it was opened: reading beyond the end of a mapped file
    /// would end the process.
    fn tensor(&self, name: &str) -> Result<Option<StoredTensor<'_>>>;

    /// The bytes of the tensor called `name` as its file has them, for those that stay there.
    fn part(&self, name: &str) -> Option<FilePart>;

    /// Tells the system that the pages of the tensor that its file calls `name` are not needed for now.
    fn release(&self, name: &str);
}
