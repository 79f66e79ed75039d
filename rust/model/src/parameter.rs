//! A parameter of a layer on one rank: it collects the stored tensors it is made of, and is packed for a device once.
//!
//! Element types stay as they are stored, tensor by tensor (a GGUF file may mix them within q, k and v).

use std::borrow::Cow;
use std::sync::Arc;

use nanovllm_backend::{Backend, DType, FilePart, WeightPart};

use crate::error::ParameterError;
use crate::sharding::{Shard, Sharding};
use crate::stored_tensor::StoredTensor;

/// One rank's part of a stored tensor, row-major, in the type it is stored in.
#[derive(Debug, Clone)]
struct Piece<'a> {
    dtype: DType,
    data: Cow<'a, [u8]>,
}

/// A parameter of a layer on one rank: a matrix `[outputs, inputs]` or a vector `[outputs]`, made of one or more stored
/// tensors.
#[derive(Debug, Clone)]
pub struct Parameter<'a> {
    sharding: Sharding,
    /// One for each shard, `None` until it is loaded.
    pieces: Vec<Option<Piece<'a>>>,
}

impl<'a> Parameter<'a> {
    /// A parameter into which nothing is loaded yet.
    pub fn new(sharding: Sharding) -> Self {
        let pieces = sharding.shards().iter().map(|_| None).collect();
        Self { sharding, pieces }
    }

    /// The parameter's shape, and which parts of which stored tensors it is made of.
    pub fn sharding(&self) -> &Sharding {
        &self.sharding
    }

    /// The numbers of the stored tensors that were not loaded yet.
    pub fn unloaded(&self) -> impl Iterator<Item = usize> {
        self.pieces.iter().enumerate().filter_map(|(i, piece)| piece.is_none().then_some(i))
    }

    /// The element type; None where nothing is loaded. Tensors of several types count as F32, which
    /// [`to_f32`](Self::to_f32) widens them to.
    pub fn dtype(&self) -> Option<DType> {
        let mut types = self.pieces.iter().flatten().map(|piece| piece.dtype);
        let first = types.next()?;
        Some(if types.all(|dtype| dtype == first) { first } else { DType::F32 })
    }

    /// Takes this rank's part of the whole stored tensor `index`, in place of what was loaded there before. Rows are
    /// borrowed where the tensor is.
    ///
    /// # Errors
    /// [`ParameterError::Shard`], [`ParameterError::Shape`], [`ParameterError::Bytes`], [`ParameterError::Block`].
    pub fn load(&mut self, index: usize, tensor: StoredTensor<'a>) -> Result<(), ParameterError> {
        let shard = self.sharding.shard(index)?;
        if tensor.shape != shard.stored_shape {
            return Err(ParameterError::Shape { expected: shard.stored_shape.clone(), got: tensor.shape });
        }
        let dtype = tensor.dtype;
        let data = cut(tensor, shard)?;
        self.pieces[index] = Some(Piece { dtype, data });
        Ok(())
    }

    /// Takes the rank's whole parameter, in its own shape, in place of whatever was loaded.
    ///
    /// # Errors
    /// [`ParameterError::Shape`], [`ParameterError::Bytes`].
    pub fn set(&mut self, tensor: &StoredTensor<'_>) -> Result<(), ParameterError> {
        let expected = self.sharding.shape();
        if tensor.shape != expected {
            return Err(ParameterError::Shape { expected, got: tensor.shape.clone() });
        }
        let row = row_bytes(tensor, self.sharding.cols())?;
        for (shard, piece) in self.sharding.shards().iter().zip(&mut self.pieces) {
            let bytes = shard.offset * row..(shard.offset + shard.rows.len()) * row;
            *piece = Some(Piece { dtype: tensor.dtype, data: Cow::Owned(tensor.data[bytes].to_vec()) });
        }
        Ok(())
    }

    /// All elements in order, widened to f32; zeros where nothing is loaded.
    ///
    /// # Errors
    /// [`ParameterError::Gguf`] for a type that cannot be widened.
    pub fn to_f32(&self) -> Result<Vec<f32>, ParameterError> {
        let cols = self.sharding.cols();
        let mut out = zeros(self.sharding.rows() * cols)?;
        for (piece, shard) in self.pieces.iter().zip(self.sharding.shards()) {
            if let Some(piece) = piece {
                let rows = shard.offset * cols..(shard.offset + shard.rows.len()) * cols;
                nanovllm_gguf::dequantize(piece.dtype, &piece.data, &mut out[rows])?;
            }
        }
        Ok(out)
    }

    /// The part that came from the stored tensor `index`, packed for the device; without rows if it was not loaded.
    pub(crate) fn pack_shard<B: Backend>(
        &self,
        backend: &B,
        index: usize,
    ) -> Result<B::Weight, nanovllm_backend::Error> {
        let cols = self.sharding.cols();
        match &self.pieces[index] {
            Some(Piece { dtype, data }) => {
                let rows = self.sharding.shards()[index].rows.len();
                backend.pack(&WeightPart { dtype: *dtype, rows, cols, data })
            }
            None => backend.pack(&WeightPart { dtype: DType::F32, rows: 0, cols, data: &[] }),
        }
    }

    /// How many elements the part has that came from the stored tensor `index`.
    pub(crate) fn elements(&self, index: usize) -> u64 {
        (self.sharding.shards()[index].rows.len() as u64).saturating_mul(self.sharding.cols() as u64)
    }

    /// Where that part lies in a mapped file, of which `stored` has the tensor; `None` for what was put together when it was
    /// loaded, and for a file that was read whole.
    pub(crate) fn place_of_shard(&self, index: usize, stored: &FilePart) -> Option<FilePart> {
        stored.within(&self.pieces[index].as_ref()?.data).filter(FilePart::is_mapped)
    }

    /// The part that lies there, which stays, where the device can compute on it.
    pub(crate) fn map_shard<B: Backend>(
        &self,
        backend: &B,
        index: usize,
        file: &FilePart,
    ) -> Result<Option<B::Weight>, nanovllm_backend::Error> {
        let Some(Piece { dtype, data }) = &self.pieces[index] else { return Ok(None) };
        let (rows, cols) = (self.sharding.shards()[index].rows.len(), self.sharding.cols());
        backend.mapped(&WeightPart { dtype: *dtype, rows, cols, data }, file)
    }

    /// The matrix, packed in the device's layout.
    ///
    /// # Errors
    /// [`ParameterError::NotLoaded`]; [`ParameterError::Backend`] for a type the device has no kernel for, or one it
    /// cannot hold.
    pub fn pack<B: Backend>(&self, backend: &B) -> Result<Arc<B::Weight>, ParameterError> {
        self.check_loaded()?;
        let parts = (0..self.pieces.len()).map(|i| self.pack_shard(backend, i)).collect::<Result<_, _>>()?;
        Ok(Arc::new(backend.concat(parts)?))
    }

    /// The vector on the device, `[1, rows]` in f32.
    ///
    /// # Errors
    /// Those of [`pack`](Self::pack), and [`ParameterError::Gguf`].
    pub fn upload<B: Backend>(&self, backend: &B) -> Result<Arc<B::Tensor>, ParameterError> {
        self.check_loaded()?;
        let values = self.to_f32()?;
        Ok(Arc::new(backend.upload(&values, 1, values.len())?))
    }

    fn check_loaded(&self) -> Result<(), ParameterError> {
        match self.unloaded().next() {
            Some(index) => Err(ParameterError::NotLoaded { index, count: self.pieces.len() }),
            None => Ok(()),
        }
    }
}

/// `len` zeros; memory that is short is an error, as a configuration may ask for any size.
fn zeros(len: usize) -> Result<Vec<f32>, nanovllm_backend::Error> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|e| nanovllm_backend::Error::OutOfMemory {
        what: "the values of a parameter",
        bytes: len.saturating_mul(size_of::<f32>()),
        reason: e.to_string(),
    })?;
    values.resize(len, 0.0);
    Ok(values)
}

/// Bytes of a row of `cols` elements, checked against those the tensor has.
fn row_bytes(tensor: &StoredTensor<'_>, cols: usize) -> Result<usize, ParameterError> {
    let rows = tensor.shape.first().copied().unwrap_or(1);
    let row = tensor.dtype.bytes_for(cols);
    match row {
        Some(row) if row.checked_mul(rows) == Some(tensor.data.len()) => Ok(row),
        _ => Err(ParameterError::Bytes { shape: tensor.shape.clone(), dtype: tensor.dtype, bytes: tensor.data.len() }),
    }
}

/// The rows and columns of `tensor` that `shard` names.
fn cut<'a>(tensor: StoredTensor<'a>, shard: &Shard) -> Result<Cow<'a, [u8]>, ParameterError> {
    let cols = shard.stored_shape.get(1).copied().unwrap_or(1);
    let row = row_bytes(&tensor, cols)?;
    let (rows, part) = (shard.rows.clone(), shard.cols.clone());
    if part.len() == cols {
        let bytes = rows.start * row..rows.end * row;
        return Ok(match tensor.data {
            Cow::Borrowed(data) => Cow::Borrowed(&data[bytes]),
            Cow::Owned(data) if bytes.len() == data.len() => Cow::Owned(data),
            Cow::Owned(data) => Cow::Owned(data[bytes].to_vec()),
        });
    }
    let dtype = tensor.dtype;
    let at = |col: usize| dtype.bytes_for(col);
    let (Some(start), Some(end)) = (at(part.start), at(part.end)) else {
        return Err(ParameterError::Block { start: part.start, end: part.end, dtype });
    };
    Ok(Cow::Owned(rows.flat_map(|r| &tensor.data[r * row + start..r * row + end]).copied().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sharding::TpRank;

    fn tensor(dtype: DType, shape: &[usize], values: &[f32]) -> StoredTensor<'static> {
        let mut data = Vec::new();
        nanovllm_gguf::quantize(dtype, values, &mut data).unwrap();
        StoredTensor { name: "t", dtype, shape: shape.to_vec(), data: Cow::Owned(data) }
    }

    fn count(from: usize, len: usize) -> Vec<f32> {
        (from..from + len).map(|i| i as f32).collect()
    }

    #[test]
    fn shards_of_different_types_in_any_order() {
        let sharding = Sharding::by_rows(&[4, 2], Some(2), TpRank::new(1, 2).unwrap()).unwrap();
        let mut parameter = Parameter::new(sharding);
        assert_eq!((parameter.dtype(), parameter.unloaded().next()), (None, Some(0)));
        parameter.load(1, tensor(DType::Bf16, &[2, 2], &count(20, 4))).unwrap();
        assert_eq!((parameter.dtype(), parameter.unloaded().next()), (Some(DType::Bf16), Some(0)));
        assert_eq!(parameter.to_f32().unwrap(), [0.0, 0.0, 0.0, 0.0, 22.0, 23.0]);
        parameter.load(0, tensor(DType::F16, &[4, 2], &count(0, 8))).unwrap();
        assert_eq!((parameter.dtype(), parameter.unloaded().next()), (Some(DType::F32), None));
        assert_eq!(parameter.to_f32().unwrap(), [4.0, 5.0, 6.0, 7.0, 22.0, 23.0]);
    }

    #[test]
    fn rows_are_borrowed_where_the_tensor_is() {
        let data = [0u8, 1, 2, 3, 4, 5, 6, 7];
        let stored = StoredTensor { name: "t", dtype: DType::F16, shape: vec![4, 1], data: Cow::Borrowed(&data) };
        let mut parameter = Parameter::new(Sharding::by_rows(&[4], Some(1), TpRank::new(1, 4).unwrap()).unwrap());
        parameter.load(0, stored).unwrap();
        let Some(Piece { data: Cow::Borrowed(piece), .. }) = &parameter.pieces[0] else { panic!("copied") };
        assert!(std::ptr::eq(*piece, &raw const data[2..4]));
    }

    #[test]
    fn columns_are_cut_between_blocks_only() {
        let values = count(0, 2 * 64);
        for (ranks, cut) in [(2, true), (4, false)] {
            let sharding = Sharding::by_cols(2, 64, TpRank::new(1, ranks).unwrap()).unwrap();
            let mut parameter = Parameter::new(sharding);
            let loaded = parameter.load(0, tensor(DType::Q8_0, &[2, 64], &values));
            assert_eq!(loaded.is_ok(), cut);
            if cut {
                let whole = tensor(DType::Q8_0, &[2, 64], &values).to_f32().unwrap();
                assert_eq!(parameter.to_f32().unwrap(), [&whole[32..64], &whole[96..]].concat());
            } else {
                assert!(matches!(loaded, Err(ParameterError::Block { start: 16, end: 32, .. })));
            }
        }
    }

    #[test]
    fn a_whole_parameter_can_be_set_and_then_partly_replaced() {
        let sharding = Sharding::by_rows(&[1, 2], None, TpRank::SINGLE).unwrap();
        let mut parameter = Parameter::new(sharding);
        parameter.set(&tensor(DType::F32, &[3], &[1.0, 2.0, 3.0])).unwrap();
        parameter.load(0, tensor(DType::F32, &[1], &[9.0])).unwrap();
        assert_eq!(parameter.to_f32().unwrap(), [9.0, 2.0, 3.0]);
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let mut parameter = Parameter::new(Sharding::replicated(2, Some(2)).unwrap());
        let message = |result: Result<(), ParameterError>| result.unwrap_err().to_string();
        let f32s = |shape: &[usize]| tensor(DType::F32, shape, &count(0, shape.iter().product()));
        assert_eq!(message(parameter.load(0, f32s(&[2, 3]))), "expected a tensor of shape [2, 2], got [2, 3]");
        assert_eq!(message(parameter.load(1, f32s(&[2, 2]))), "shard 1 of a parameter that is made of 1");
        assert_eq!(message(parameter.set(&f32s(&[4]))), "expected a tensor of shape [2, 2], got [4]");
        let short = StoredTensor { data: Cow::Owned(vec![0; 12]), ..f32s(&[2, 2]) };
        assert_eq!(message(parameter.load(0, short)), "a tensor of shape [2, 2] and type F32 with 12 bytes");
        assert!(matches!(parameter.check_loaded(), Err(ParameterError::NotLoaded { index: 0, count: 1 })));
    }
}
