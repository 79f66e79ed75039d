//! How far each matmul kernel is from exact arithmetic: prints, as one line of JSON, the NMSE of a product over the dequantised
//! weights by element type, instruction set and bits of the activations.
//!
//! `cargo run --release -p nanovllm-cpu --example kernel_error`

use std::error::Error;

use nanovllm_backend::{Backend, DType, WeightPart};
use nanovllm_cpu::{ActivationBits, CpuBackend, CpuOptions, Isa};

const ROWS: usize = 512;
const COLS: usize = 1024;
const BATCH: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let x = normal(BATCH * COLS, 1);
    let weights = normal(ROWS * COLS, 2);
    let mut lines = Vec::new();
    for &dtype in DType::ALL.iter().filter(|dtype| !dtype.is_integer()) {
        let mut data = Vec::new();
        if nanovllm_gguf::can_quantize(dtype) {
            nanovllm_gguf::quantize(dtype, &weights, &mut data)?;
        } else {
            data = random_blocks(dtype);
        }
        let mut values = vec![0.0; ROWS * COLS];
        nanovllm_gguf::dequantize(dtype, &data, &mut values)?;
        let expected = product(&x, &values);
        let mut figures = Vec::new();
        for isa in Isa::available() {
            for (bits, activation_bits) in [(8, ActivationBits::Eight), (16, ActivationBits::Sixteen)] {
                let backend = CpuBackend::new(CpuOptions { num_threads: Some(1), isa: Some(isa), activation_bits })?;
                let weight = backend.pack(&WeightPart { dtype, rows: ROWS, cols: COLS, data: &data })?;
                let input = backend.upload(&x, BATCH, COLS)?;
                let mut out = backend.tensor(BATCH, ROWS)?;
                backend.linear(&input, &weight, None, &mut out);
                figures.push(format!("\"{isa}/{bits}\": {:e}", nmse(&expected, &backend.download(&out))));
            }
        }
        lines.push(format!("\"{dtype}\": {{{}}}", figures.join(", ")));
    }
    println!("{{{}}}", lines.join(", "));
    Ok(())
}

/// Normal values by the sum of twelve uniform ones, from a fixed seed.
fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

/// Any codes, and one small scale in each block.
fn random_blocks(dtype: DType) -> Vec<u8> {
    let bytes = ROWS * COLS / dtype.block_size() * dtype.type_size();
    let mut data: Vec<u8> = normal(bytes, 3).iter().map(|x| x.to_bits() as u8).collect();
    // f16 0.001. IQ1_M's is spread over the high nibbles of four 16-bit words at the end of a block.
    let scale = 0x1419_u16;
    for block in data.chunks_exact_mut(dtype.type_size()) {
        if dtype == DType::IQ1_M {
            for (i, word) in block.rchunks_exact_mut(2).take(4).enumerate() {
                word[1] = word[1] & 15 | ((scale >> (4 * (3 - i))) as u8 & 15) << 4;
            }
        } else {
            block[..2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    data
}

fn product(x: &[f32], weights: &[f32]) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
    x.chunks_exact(COLS).flat_map(|x| weights.chunks_exact(COLS).map(move |w| dot(x, w))).collect()
}

fn nmse(expected: &[f64], got: &[f32]) -> f64 {
    let error: f64 = expected.iter().zip(got).map(|(e, &g)| (e - f64::from(g)).powi(2)).sum();
    error / expected.iter().map(|e| e * e).sum::<f64>()
}
