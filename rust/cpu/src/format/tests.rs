//! Blocks for the tests of this crate.

use half::f16;
use nanovllm_backend::DType;

use crate::testing::Random;

/// Every type a weight may have.
pub(crate) fn weights() -> Vec<DType> {
    DType::ALL.iter().copied().filter(|dtype| !dtype.is_integer()).collect()
}

/// Every dense type a weight may have.
pub(crate) fn dense() -> Vec<DType> {
    weights().into_iter().filter(|dtype| dtype.block_size() == 1).collect()
}

/// Every quantised type a weight may have.
pub(crate) fn quantized() -> Vec<DType> {
    weights().into_iter().filter(|dtype| dtype.block_size() > 1).collect()
}

/// Bytes of the halves in a block of `dtype`, scale first.
fn halves(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        DType::Q4_1 | DType::Q5_1 | DType::Q8_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::TQ1_0 => &[52],
        DType::TQ2_0 => &[64],
        DType::MXFP4 | DType::Q8_K | DType::IQ1_M => &[],
        _ => &[0],
    }
}

/// Replaces what a block of `dtype` has of scales outside its codes: `scale`, and `min` where it has one.
pub(crate) fn set_scales(dtype: DType, block: &mut [u8], scale: f32, min: f32) {
    for (&at, value) in halves(dtype).iter().zip([scale, min]) {
        block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
    }
    match dtype {
        DType::Q8_K => block[..4].copy_from_slice(&f16::from_f32(scale).to_f32().to_le_bytes()),
        DType::IQ1_M => {
            let bits = f16::from_f32(scale).to_bits();
            for (i, byte) in block[48..].iter_mut().skip(1).step_by(2).enumerate() {
                *byte = *byte & 15 | ((bits >> (4 * i) & 15) << 4) as u8;
            }
        }
        DType::MXFP4 => block[0] = (scale.abs().log2() + 128.0) as u8,
        _ => {}
    }
}

/// Stored bytes of a random matrix of `dtype`, all codes and inner scales drawn, and its values as GGUF's own dequantiser gives
/// them.
pub(crate) fn random_weight(dtype: DType, rows: usize, cols: usize, seed: u64) -> (Vec<u8>, Vec<f32>) {
    let mut random = Random::new(seed);
    let mut bytes = vec![0; dtype.bytes_for(cols).expect("whole blocks") * rows];
    for block in bytes.chunks_exact_mut(dtype.type_size()) {
        match dtype {
            DType::F64 => block.copy_from_slice(&f64::from(random.value()).to_le_bytes()),
            DType::F32 => block.copy_from_slice(&random.value().to_le_bytes()),
            DType::F16 => block.copy_from_slice(&f16::from_f32(random.value()).to_le_bytes()),
            DType::Bf16 => block.copy_from_slice(&half::bf16::from_f32(random.value()).to_le_bytes()),
            _ => {
                block.fill_with(|| (random.next() >> 32) as u8);
                set_scales(dtype, block, random.value() * 0.02, random.value() * 0.02);
            }
        }
    }
    let mut values = vec![0.0; rows * cols];
    nanovllm_gguf::dequantize(dtype, &bytes, &mut values).expect("supported");
    (bytes, values)
}
