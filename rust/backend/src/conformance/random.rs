//! Data to test on.

use crate::{Backend, DType};

/// A small deterministic generator (Marsaglia's xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize * n) >> 32
    }

    /// Roughly normal, of variance 1.
    pub(super) fn value(&mut self) -> f32 {
        let uniform = |bits: u64| (bits >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (uniform(self.next()) + uniform(self.next()) + uniform(self.next())) * 2.0
    }

    pub(super) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    /// Shuffles `items` (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// A matrix as a file stores it, and the values it stands for.
pub(super) struct StoredMatrix {
    pub(super) dtype: DType,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) data: Vec<u8>,
    pub(super) values: Vec<f32>,
}

impl StoredMatrix {
    /// A random matrix of type `dtype`.
    pub(super) fn new(random: &mut Random, dtype: DType, rows: usize, cols: usize) -> Self {
        let mut data = Vec::new();
        if nanovllm_gguf::quantize(dtype, &random.values(rows * cols), &mut data).is_err() {
            data.clear();
            for _ in 0..rows * cols / dtype.block_size() {
                data.extend(block(random, dtype));
            }
        }
        let mut values = vec![0.0; rows * cols];
        nanovllm_gguf::dequantize(dtype, &data, &mut values).expect("whole blocks of a readable type");
        Self { dtype, rows, cols, data, values }
    }

    pub(super) fn part(&self) -> crate::WeightPart<'_> {
        crate::WeightPart { dtype: self.dtype, rows: self.rows, cols: self.cols, data: &self.data }
    }

    pub(super) fn pack<B: Backend>(&self, backend: &B) -> B::Weight {
        backend.pack(&self.part()).unwrap_or_else(|e| panic!("{} on {}: {e}", self.dtype, backend.describe()))
    }

    pub(super) fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.cols..(i + 1) * self.cols]
    }
}

/// A block of a type that is only read: random bytes, until the values they stand for are of moderate size.
fn block(random: &mut Random, dtype: DType) -> Vec<u8> {
    let mut values = vec![0.0; dtype.block_size()];
    loop {
        let data: Vec<u8> = (0..dtype.type_size()).map(|_| random.next() as u8).collect();
        nanovllm_gguf::dequantize(dtype, &data, &mut values).expect("a block of a readable type");
        let largest = values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        if (0.1..10.0).contains(&largest) && values.iter().all(|x| x.is_finite()) {
            return data;
        }
    }
}

/// A matrix of `data` on the device.
pub(super) fn upload<B: Backend>(backend: &B, data: &[f32], rows: usize, cols: usize) -> B::Tensor {
    backend.upload(data, rows, cols).expect("a small matrix")
}

/// A matrix of random values on the device, and the values.
pub(super) fn random_tensor<B: Backend>(
    backend: &B,
    random: &mut Random,
    rows: usize,
    cols: usize,
) -> (B::Tensor, Vec<f32>) {
    let data = random.values(rows * cols);
    (upload(backend, &data, rows, cols), data)
}

/// Room for `rows` rows, with something in it that a result must replace.
pub(super) fn room<B: Backend>(backend: &B, rows: usize, cols: usize) -> B::Tensor {
    upload(backend, &vec![f32::NAN; rows * cols], rows, cols)
}

/// `x` as a cache of type `dtype` holds it.
pub(super) fn rounded(dtype: DType, x: &[f32]) -> Vec<f32> {
    let (mut data, mut out) = (Vec::new(), vec![0.0; x.len()]);
    nanovllm_gguf::quantize(dtype, x, &mut data).expect("a dense type");
    nanovllm_gguf::dequantize(dtype, &data, &mut out).expect("as encoded");
    out
}
