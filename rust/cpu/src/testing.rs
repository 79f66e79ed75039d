//! What the tests of this crate share.

use crate::isa::Isa;
use crate::kernels::table::Kernels;
use crate::tensor::Tensor;

/// The kernels of a set that the machine has.
pub(crate) fn kernels(isa: Isa) -> Kernels {
    Kernels::new(isa).expect("an available set")
}

/// A small deterministic generator (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize * n) >> 32
    }

    /// Roughly normal, of variance 1.
    pub(crate) fn value(&mut self) -> f32 {
        let uniform = |bits: u64| (bits >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (uniform(self.next()) + uniform(self.next()) + uniform(self.next())) * 2.0
    }

    pub(crate) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }
}

/// A matrix of `data`.
pub(crate) fn tensor(data: &[f32], rows: usize, cols: usize) -> Tensor {
    let mut x = Tensor::zeroed(rows, cols).expect("a small tensor");
    x.as_mut_slice().copy_from_slice(data);
    x
}

/// Squared error over the squared magnitude of the expected values.
pub(crate) fn nmse(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let error: f64 = got.iter().zip(expected).map(|(&g, &e)| (f64::from(g) - e).powi(2)).sum();
    error / expected.iter().map(|e| e * e).sum::<f64>().max(1e-30)
}
