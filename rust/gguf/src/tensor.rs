//! A tensor: its entry in a file's table, the view of its data, and what a writer needs to know of it.

use crate::error::Error;
use crate::quantize::dequantize;
use crate::types::GgmlType;

/// An entry of the tensor table, checked against the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// The name, unique in the file.
    pub name: String,
    /// The shape in ggml's order, innermost first; 1 to 4 dimensions, none zero.
    pub dims: Vec<usize>,
    /// The element type.
    pub dtype: GgmlType,
    /// Which file of a split model holds the data, counted from 0; 0 for a model in one file.
    pub shard: usize,
    /// Where the data begin, in bytes from the start of that file.
    pub offset: usize,
    /// The size of the data in bytes.
    pub len: usize,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product() // checked when the table was read
    }
}

/// A tensor that a [`GgufWriter`](crate::GgufWriter) is to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name: 1 to 63 bytes, as llama.cpp wants it, and unique.
    pub name: String,
    /// Its shape in ggml's order, innermost first; 1 to 4 dimensions, none zero, the first whole blocks of `dtype`.
    pub dims: Vec<usize>,
    /// Its element type.
    pub dtype: GgmlType,
}

/// A tensor's data, borrowed from the file.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// The name, unique in the file.
    pub name: &'a str,
    /// The element type.
    pub dtype: GgmlType,
    /// The shape in ggml's order, innermost first.
    pub dims: &'a [usize],
    /// The rows one after the other, each whole blocks of `dtype`. The data may begin at any address, aligned or not.
    pub data: &'a [u8],
}

impl TensorView<'_> {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product() // checked when the table was read
    }

    /// All elements as f32, in storage order.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] and [`Error::OutOfMemory`].
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        let elements = self.elements();
        let mut out = Vec::new();
        out.try_reserve_exact(elements).map_err(|_| Error::OutOfMemory {
            what: format!("tensor {:?} as f32", self.name),
            bytes: elements.saturating_mul(size_of::<f32>()),
        })?;
        out.resize(elements, 0.0);
        dequantize(self.dtype, self.data, &mut out)?;
        Ok(out)
    }
}
