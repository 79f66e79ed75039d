use nanovllm_backend::{DType, WeightPart};
use proptest::prelude::*;

use super::*;
use crate::arena::Arena;
use crate::format::tests::{dense, quantized, random_weight, set_scales, weights};
use crate::isa::Isa;
use crate::testing::kernels;

/// A weight of random parts, with its values.
fn weight(parts: &[(DType, usize)], cols: usize, seed: u64, lanes: usize) -> (Weight, Vec<f32>) {
    let team = Team::new(1).expect("one");
    let mut values = Vec::new();
    let mut packed = Vec::new();
    for (i, &(dtype, rows)) in parts.iter().enumerate() {
        let (data, x) = random_weight(dtype, rows, cols, seed ^ i as u64);
        packed.push(
            Packed::new(&WeightPart { dtype, rows, cols, data: &data }, lanes, &Arena::default(), &team)
                .expect("packs"),
        );
        values.extend(x);
    }
    (Weight { parts: packed }, values)
}

fn tensor(rows: usize, cols: usize, data: &[f32]) -> Tensor {
    let mut t = Tensor::zeroed(rows, cols).expect("small");
    t.as_mut_slice().copy_from_slice(data);
    t
}

/// Values in [-1, 1) from a linear congruential generator, with an occasional outlier.
fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2862933555777941757).wrapping_add(3037000493);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            if (state >> 20).is_multiple_of(64) { x * 8.0 } else { x }
        })
        .collect()
}

/// A [`Matmul`] with its kernels.
struct Owned {
    kernels: MatmulKernels,
    bits: ActivationBits,
}

/// The kernels this machine can run, by name.
fn sets(bits: ActivationBits) -> Vec<(&'static str, Owned)> {
    let mut sets: Vec<_> = Isa::available().into_iter().map(|isa| (isa.name(), kernels(isa).matmul)).collect();
    #[cfg(target_arch = "x86_64")]
    sets.extend(crate::kernels::matmul_evex().map(|kernels| ("avx-vnni as evex", kernels)));
    sets.into_iter().map(|(name, kernels)| (name, Owned { kernels, bits })).collect()
}

fn run(matmul: &Owned, threads: usize, x: &Tensor, w: &Weight, bias: Option<&Tensor>) -> Vec<f32> {
    let team = Team::new(threads).expect("threads");
    let mut out = Tensor::zeroed(x.rows(), w.rows()).expect("small");
    out.as_mut_slice().fill(f32::NAN);
    let mut scratch = Activations::new().expect("empty");
    scratch.reserve(x.rows(), x.cols()).expect("small");
    linear(&team, Matmul { kernels: &matmul.kernels, bits: matmul.bits }, &mut scratch, x, w, bias, &mut out);
    out.as_slice().to_vec()
}

/// Squared error over the squared outputs, or over what these would be on average where terms cancel, or a large input meets a
/// small weight, by chance.
fn nmse(x: &[f32], w: &[f32], bias: &[f32], cols: usize, got: &[f32]) -> f64 {
    let (mut error, mut norm) = (0.0, 1e-30);
    for (i, x) in x.chunks_exact(cols).enumerate() {
        for (j, w) in w.chunks_exact(cols).enumerate() {
            let exact: f64 = x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let exact = exact + f64::from(bias[j]);
            error += (exact - f64::from(got[i * bias.len() + j])).powi(2);
            let energy = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            norm += (energy(x) * energy(w) / cols as f64).max(exact * exact);
        }
    }
    error / norm
}

const BITS: [ActivationBits; 2] = [ActivationBits::Eight, ActivationBits::Sixteen];

fn threshold(dtype: DType, bits: ActivationBits) -> f64 {
    match (dtype, bits) {
        (DType::F32 | DType::F64 | DType::F16, _) => 1e-9,
        (DType::Bf16, _) => 1e-5,
        (_, ActivationBits::Eight) => 5e-4,
        (_, ActivationBits::Sixteen) => 2e-8,
    }
}

/// A type, and columns for it: up to eight blocks of 32, or two of 256.
fn columns(dtype: DType, blocks: usize) -> usize {
    let blocks = if dtype.block_size() == 256 { 1 + blocks % 2 } else { blocks };
    blocks * dtype.block_size().max(32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every instruction set, type and shape against exact sums over the dequantised weights, and against portable code, which
    /// computes with the same codes.
    #[test]
    fn agrees_with_the_reference(
        dtype in prop::sample::select(weights()), n in 1usize..70, blocks in 1usize..9, m in 1usize..20, seed: u64,
        threads in 1usize..4, high: bool,
    ) {
        let bits = BITS[usize::from(high)];
        let cols = columns(dtype, blocks);
        let x = random(m * cols, !seed);
        let bias = random(n, seed ^ 7);
        let mut portable = None;
        for (set, matmul) in sets(bits) {
            let (w, values) = weight(&[(dtype, n)], cols, seed, matmul.kernels.lanes);
            let got = run(&matmul, threads, &tensor(m, cols, &x), &w, Some(&tensor(1, n, &bias)));
            let error = nmse(&x, &values, &bias, cols, &got);
            prop_assert!(error < threshold(dtype, bits), "{set} {dtype} {bits:?}: {error:e}");
            if dtype.block_size() > 1 {
                let expected: &Vec<f32> = portable.get_or_insert_with(|| got.clone());
                let expected: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
                let error = crate::testing::nmse(&got, &expected);
                prop_assert!(error < 1e-10, "{set} {dtype} {bits:?} beside portable code: {error:e}");
            }
        }
    }

    /// A row's result does not depend on the rows beside it nor on the threads, for weights of mixed types.
    #[test]
    fn rows_are_independent(
        which in 0..weights().len(), m in 1usize..24, n in 1usize..40, seed: u64, threads in 1usize..4,
        high: bool,
    ) {
        let cols = 256;
        let x = random(m * cols, !seed);
        let parts: Vec<_> = weights().into_iter().cycle().skip(which).take(5).map(|dtype| (dtype, n)).collect();
        for (set, matmul) in sets(BITS[usize::from(high)]) {
            let (w, _) = weight(&parts, cols, seed, matmul.kernels.lanes);
            let together = run(&matmul, threads, &tensor(m, cols, &x), &w, None);
            for (x, expected) in x.chunks_exact(cols).zip(together.chunks_exact(w.rows())) {
                let alone = run(&matmul, 1, &tensor(1, cols, x), &w, None);
                prop_assert!(alone.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{set} {parts:?}");
            }
        }
    }
}

/// The extremes of every code and inner scale, where 16-bit sums would saturate.
#[test]
fn extreme_codes_do_not_saturate() {
    let rows = 17;
    for dtype in quantized() {
        let cols = 2 * dtype.block_size();
        for code in [0x80u8, 0x7f, 0xff, 0x00, 0x81, 0x0f, 0xf0] {
            let mut data = vec![code; rows * 2 * dtype.type_size()];
            for block in data.chunks_exact_mut(dtype.type_size()) {
                set_scales(dtype, block, 0.01, -0.5);
            }
            let mut values = vec![0.0; rows * cols];
            nanovllm_gguf::dequantize(dtype, &data, &mut values).expect("supported");
            for (sign, bits) in [(1.0, BITS[0]), (-1.0, BITS[0]), (1.0, BITS[1]), (-1.0, BITS[1])] {
                let x: Vec<f32> = vec![sign; cols];
                for (set, matmul) in sets(bits) {
                    let team = Team::new(1).expect("one");
                    let part = WeightPart { dtype, rows, cols, data: &data };
                    let w = Weight {
                        parts: vec![Packed::new(&part, matmul.kernels.lanes, &Arena::default(), &team).expect("packs")],
                    };
                    let got = run(&matmul, 1, &tensor(1, cols, &x), &w, None);
                    let error = nmse(&x, &values, &[0.0; 17], cols, &got);
                    assert!(error < 1e-9, "{set} {dtype} {code:#x}: {error:e}");
                }
            }
        }
    }
}

/// Scales from the smallest subnormal to the largest.
#[test]
fn every_exponent_is_applied() {
    let data: Vec<u8> = (0..=255).flat_map(|e| [[e; 1].as_slice(), &[0x77; 16]].concat()).collect();
    let mut values = vec![0.0; 256 * 32];
    nanovllm_gguf::dequantize(DType::MXFP4, &data, &mut values).expect("supported");
    let x = [2f32.powi(-20); 32];
    for (set, matmul) in sets(BITS[0]) {
        let team = Team::new(1).expect("one");
        let part = WeightPart { dtype: DType::MXFP4, rows: 256, cols: 32, data: &data };
        let w =
            Weight { parts: vec![Packed::new(&part, matmul.kernels.lanes, &Arena::default(), &team).expect("packs")] };
        let got = run(&matmul, 1, &tensor(1, 32, &x), &w, None);
        // From 2^112 on, a scale times the integer sum is infinite.
        for (e, (got, values)) in got.iter().zip(values.chunks_exact(32)).enumerate().take(240) {
            let expected = values[0] * 2f32.powi(-15);
            // Small sums are subnormal and lose bits.
            let near = (got - expected).abs() <= expected * 1e-6 + f32::MIN_POSITIVE * 1e-6;
            assert!(near, "{set} {e}: {got:e}, not {expected:e}");
        }
    }
}

#[test]
fn odd_columns_of_dense_types() {
    for dtype in dense() {
        for (set, matmul) in sets(BITS[1]) {
            let (w, values) = weight(&[(dtype, 19)], 37, 5, matmul.kernels.lanes);
            let x = random(3 * 37, 1);
            let got = run(&matmul, 2, &tensor(3, 37, &x), &w, None);
            let error = nmse(&x, &values, &[0.0; 19], 37, &got);
            assert!(error < threshold(dtype, ActivationBits::Sixteen), "{set} {dtype}: {error:e}");
        }
    }
}
