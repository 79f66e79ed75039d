//! Weight matrices: dense in f32, or in candle's own quantised blocks.
//!
//! Every dense type is widened to f32 at load. candle's CPU products know no bf16, and round inputs and results to f16
//! for f16 weights, whose range the inputs of `down_proj` can leave.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use nanovllm_backend::{DType, Error, Result, WeightPart};

use crate::error::{NAME, device_error};
use crate::memory::{probe, tensor, zeroed_vec};

/// A weight matrix: one or more parts stacked by rows, possibly of different types.
pub struct Weight {
    /// At least one; all have the same number of columns.
    parts: Vec<Part>,
}

enum Part {
    /// `[rows, cols]` in f32.
    Dense(Tensor),
    /// Blocks as the file stores them; in products of few rows candle rounds the inputs to 8 bits.
    Quantized(QTensor),
}

/// From this many rows on a weight of a type that candle has no vector kernel for is widened for the product: it takes as long as
/// a few rows of candle's plain loop.
const WIDENED_ROWS: usize = 8;
/// No weight of more elements is widened for a product (256 MiB in f32): it would take memory that nobody has planned for.
const WIDENED_LEN: usize = 1 << 26;

impl Weight {
    /// Puts `part` on `device`. Blocks are kept if `quantized` is set and candle has the type, else widened to f32.
    pub(crate) fn pack(device: &Device, part: &WeightPart<'_>, quantized: bool) -> Result<Self> {
        let WeightPart { dtype, rows, cols, data } = *part;
        let kept = if quantized && rows > 0 { candle_dtype(dtype, cols) } else { None };
        let integer = matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64);
        if kept.is_none() && (integer || !nanovllm_gguf::is_supported(dtype)) {
            return Err(Error::UnsupportedDType { device: NAME, what: "a weight", dtype });
        }
        let row_bytes = dtype.bytes_for(cols).ok_or(Error::Shape {
            what: "columns of a quantised weight, to be a multiple of its block",
            expected: cols.checked_next_multiple_of(dtype.block_size()).unwrap_or(usize::MAX),
            got: cols,
        })?;
        if row_bytes.checked_mul(rows) != Some(data.len()) {
            let expected = row_bytes.saturating_mul(rows);
            return Err(Error::Shape { what: "bytes of a weight", expected, got: data.len() });
        }
        let part = match kept {
            Some(dtype) => Part::Quantized(blocks(device, dtype, rows, cols, data)?),
            None => Part::Dense(dense(device, dtype, rows, cols, data)?),
        };
        Ok(Self { parts: vec![part] })
    }

    /// Stacks `weights` by rows, in order.
    pub(crate) fn concat(weights: Vec<Self>) -> Result<Self> {
        let parts: Vec<Part> = weights.into_iter().flat_map(|w| w.parts).collect();
        let Some(first) = parts.first() else {
            return Err(Error::Shape { what: "parts of a weight", expected: 1, got: 0 });
        };
        let expected = first.cols();
        if let Some(other) = parts.iter().find(|p| p.cols() != expected) {
            return Err(Error::Shape { what: "columns of a weight's parts", expected, got: other.cols() });
        }
        Ok(Self { parts })
    }

    /// The number of outputs.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(Part::rows).sum()
    }

    /// The number of inputs.
    pub fn cols(&self) -> usize {
        self.parts.first().map_or(0, Part::cols)
    }

    /// The matrix in f32, `[rows, cols]`.
    pub(crate) fn dequantize(&self, device: &Device) -> candle_core::Result<Tensor> {
        let parts = self.parts.iter().map(|part| match part {
            Part::Dense(weight) => Ok(weight.clone()),
            Part::Quantized(weight) => weight.dequantize(device),
        });
        Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)
    }

    /// `x @ weight^T`, `[n, cols] -> [n, rows]`.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let parts = self.parts.iter().map(|part| match part {
            Part::Dense(weight) => x.matmul(&weight.t()?),
            Part::Quantized(weight) if is_widened_for(weight, x.dims()[0]) => {
                x.matmul(&weight.dequantize(x.device())?.t()?)
            }
            Part::Quantized(weight) => x.apply_op1_no_bwd(weight),
        });
        Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 1)
    }

    /// The rows that `ids` name, `[ids.len(), cols]`.
    pub(crate) fn embedding(&self, device: &Device, ids: &[u32]) -> candle_core::Result<Tensor> {
        if let [part] = &self.parts[..] {
            return part.embedding(&Tensor::new(ids, device)?);
        }
        // Each part looks up its own rows, which are then put in the order of `ids`.
        let (mut found, mut order) = (Vec::new(), vec![0u32; ids.len()]);
        let (mut first, mut count) = (0, 0);
        for part in &self.parts {
            let rows = first..first + part.rows();
            let mut local = Vec::new();
            for (place, &id) in order.iter_mut().zip(ids).filter(|(_, id)| rows.contains(&(**id as usize))) {
                *place = count;
                count += 1;
                local.push(id - rows.start as u32);
            }
            if !local.is_empty() {
                found.push(part.embedding(&Tensor::new(local, device)?)?);
            }
            first = rows.end;
        }
        Tensor::cat(&found, 0)?.index_select(&Tensor::new(&order[..], device)?, 0)
    }
}

impl Part {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Quantized(weight) => weight.shape().dims(),
        }
    }

    fn rows(&self) -> usize {
        self.shape()[0]
    }

    fn cols(&self) -> usize {
        self.shape()[1]
    }

    fn embedding(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(weight) => weight.index_select(ids, 0),
            Self::Quantized(weight) => weight.embedding(ids),
        }
    }
}

/// Whether products of `n` rows widen the weight.
fn is_widened_for(weight: &QTensor, n: usize) -> bool {
    let len = weight.shape().elem_count();
    let is_slow = matches!(weight.dtype(), GgmlDType::Q4_1 | GgmlDType::Q5_0 | GgmlDType::Q5_1);
    let fits = || len <= WIDENED_LEN && probe(len * size_of::<f32>(), "a widened weight").is_ok();
    is_slow && n >= WIDENED_ROWS && fits()
}

/// The type in which a weight of type `dtype` is kept where blocks are: f32 for blocks that candle does not multiply
/// with. Dense types are widened without loss, which users need not be told.
pub(crate) fn stored_as(dtype: DType, cols: usize) -> DType {
    let widened = dtype.block_size() > 1 && candle_dtype(dtype, cols).is_none();
    if widened { DType::F32 } else { dtype }
}

/// candle's name for a block type, if it can multiply with rows of `cols` elements of it.
fn candle_dtype(dtype: DType, cols: usize) -> Option<GgmlDType> {
    let blocks = cols / dtype.block_size();
    // candle's kernels for these take their blocks in pairs.
    let whole = blocks > 0 && (blocks.is_multiple_of(2) || !matches!(dtype, DType::Q4_1 | DType::Q5_0 | DType::Q5_1));
    Some(match dtype {
        _ if !whole => return None,
        DType::Q4_0 => GgmlDType::Q4_0,
        DType::Q4_1 => GgmlDType::Q4_1,
        DType::Q5_0 => GgmlDType::Q5_0,
        DType::Q5_1 => GgmlDType::Q5_1,
        DType::Q8_0 => GgmlDType::Q8_0,
        DType::Q2_K => GgmlDType::Q2K,
        DType::Q3_K => GgmlDType::Q3K,
        DType::Q4_K => GgmlDType::Q4K,
        DType::Q5_K => GgmlDType::Q5K,
        DType::Q6_K => GgmlDType::Q6K,
        _ => return None,
    })
}

/// A weight in candle's blocks, which are those of the file.
fn blocks(device: &Device, dtype: GgmlDType, rows: usize, cols: usize, data: &[u8]) -> Result<QTensor> {
    probe(data.len(), "a weight")?;
    // candle asserts the alignment of its blocks, which hold f16 scales; a file's tensors may lie anywhere.
    let mut words;
    let mut aligned = data;
    if data.as_ptr().align_offset(align_of::<u32>()) != 0 {
        words = zeroed_vec::<u32>(data.len().div_ceil(4), "a weight")?;
        let bytes = &mut bytemuck::cast_slice_mut::<u32, u8>(&mut words)[..data.len()];
        bytes.copy_from_slice(data);
        aligned = bytes;
    }
    let storage = QStorage::from_data(Cow::Borrowed(aligned), device, dtype).map_err(|e| device_error(&e))?;
    QTensor::new(storage, (rows, cols)).map_err(|e| device_error(&e))
}

/// A weight widened to f32.
fn dense(device: &Device, dtype: DType, rows: usize, cols: usize, data: &[u8]) -> Result<Tensor> {
    let mut values = zeroed_vec::<f32>(rows.saturating_mul(cols), "a weight")?;
    let failed = |e: nanovllm_gguf::Error| Error::Device { device: NAME, reason: e.to_string() };
    nanovllm_gguf::dequantize(dtype, data, &mut values).map_err(failed)?;
    tensor(device, values, (rows, cols))
}
