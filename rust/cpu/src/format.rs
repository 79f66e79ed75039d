//! How the weights of each GGUF type are stored once they are packed.

mod codebook;
mod coding;
mod read;
#[cfg(test)]
pub(crate) mod tests;

use nanovllm_backend::DType;
use nanovllm_gguf::{
    BlockIQ4_NL, BlockIQ4_XS, BlockMXFP4, BlockQ2_K, BlockQ3_K, BlockQ4_0, BlockQ4_1, BlockQ4_K, BlockQ5_0, BlockQ5_1,
    BlockQ5_K, BlockQ6_K, BlockQ8_0, BlockQ8_1, BlockQ8_K, IQ4_VALUES, MXFP4_VALUES,
};

use crate::layout::{BLOCK, Layout};
use read::stored;

pub(crate) use coding::Coding;

/// How a packed matrix stores its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Format {
    F32,
    F16,
    Bf16,
    Quantized(&'static Coding),
}

impl Format {
    /// How weights of type `dtype` are stored; `None` for a type that weights do not have.
    ///
    /// Every quantised type keeps its values exactly, but for the scale of Q8_K, which is rounded to f16. All but those with a
    /// codebook keep their codes too.
    pub(crate) const fn of(dtype: DType) -> Option<Self> {
        macro_rules! linear {
            ($layout:ident, $block:ty) => {
                const { &Coding::linear(Layout::$layout, stored::<$block>) }
            };
        }
        macro_rules! table {
            ($layout:ident, $table:expr, $block:ty) => {
                const { &Coding::table(Layout::$layout, $table, stored::<$block>) }
            };
        }
        Some(Self::Quantized(match dtype {
            DType::F32 | DType::F64 => return Some(Self::F32),
            DType::F16 => return Some(Self::F16),
            DType::Bf16 => return Some(Self::Bf16),
            DType::Q8_0 => linear!(Q8_0, BlockQ8_0),
            DType::Q8_1 => linear!(Q8_0, BlockQ8_1),
            DType::Q8_K => linear!(Q8_0, BlockQ8_K),
            DType::Q4_0 => linear!(Q4_0, BlockQ4_0),
            DType::Q4_1 => linear!(Q4_1, BlockQ4_1),
            DType::Q5_0 => linear!(Q5_0, BlockQ5_0),
            DType::Q5_1 => linear!(Q5_1, BlockQ5_1),
            DType::Q2_K => linear!(Q2_K, BlockQ2_K),
            DType::Q3_K => linear!(Q3_K, BlockQ3_K),
            DType::Q4_K => linear!(Q4_K, BlockQ4_K),
            DType::Q5_K => linear!(Q5_K, BlockQ5_K),
            DType::Q6_K => linear!(Q6_K, BlockQ6_K),
            DType::IQ4_NL => table!(Table4Half, IQ4_VALUES, BlockIQ4_NL),
            DType::IQ4_XS => table!(Table4Signed, IQ4_VALUES, BlockIQ4_XS),
            DType::MXFP4 => table!(Table4Exponent, MXFP4_VALUES, BlockMXFP4),
            _ => match codebook::coding(dtype) {
                Some(coding) => coding,
                None => return None,
            },
        }))
    }

    /// What the codes of a layout with a table stand for, and what its scales are multiplied with.
    pub(crate) const fn table(self) -> (&'static [i8; 16], f32) {
        match self {
            Self::Quantized(coding) => (&coding.table, coding.factor),
            _ => (&[0; 16], 1.0),
        }
    }

    /// Bytes of one group of rows of `cols` inputs.
    pub(crate) const fn group_bytes(self, lanes: usize, cols: usize) -> usize {
        match self {
            Self::F32 => cols * lanes * 4,
            Self::F16 => cols * lanes * 2,
            Self::Bf16 => cols.div_ceil(2) * lanes * 4,
            Self::Quantized(coding) => {
                let shape = coding.layout.shape();
                cols / (shape.blocks() * BLOCK) * shape.bytes(lanes)
            }
        }
    }
}

/// How many bytes a matrix of `elements` elements of type `dtype` takes once it is packed, the padding of its last group of rows
/// not counted; `None` for a type that weights do not have.
pub fn packed_bytes(dtype: DType, elements: u64) -> Option<u64> {
    // This many elements are whole blocks of every type, and whole pairs of bf16.
    const RUN: usize = 256;
    Some((u128::from(elements) * Format::of(dtype)?.group_bytes(1, RUN) as u128 / RUN as u128) as u64)
}

/// The type as which weights of type `dtype` are stored: `dtype` itself for most.
pub(crate) const fn stored_as(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F32,
        DType::Q8_1 | DType::Q8_K => DType::Q8_0,
        DType::TQ1_0 | DType::TQ2_0 => DType::Q2_K,
        other => other,
    }
}
