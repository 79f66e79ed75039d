use proptest::prelude::*;

use super::*;
use crate::format::tests::{dense, quantized, random_weight, set_scales};

/// The values of `bytes` once packed.
fn packed(dtype: DType, rows: usize, cols: usize, bytes: &[u8], lanes: usize) -> Vec<f32> {
    let team = Team::new(1).expect("one");
    let packed =
        Packed::new(&WeightPart { dtype, rows, cols, data: bytes }, lanes, &Arena::default(), &team).expect("packs");
    let mut values = vec![0.0; rows * cols];
    for (i, row) in values.chunks_exact_mut(cols).enumerate() {
        packed.unpack_row(i, row);
    }
    values
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every quantised type keeps its values bit for bit, whatever the bytes.
    #[test]
    fn packing_loses_nothing(
        dtype in prop::sample::select(quantized()), rows in 1usize..40, blocks in 1usize..4, seed: u64,
        lanes in prop::sample::select(vec![8usize, 16]),
    ) {
        let cols = blocks * dtype.block_size();
        let (bytes, values) = random_weight(dtype, rows, cols, seed);
        prop_assert_eq!(packed(dtype, rows, cols, &bytes, lanes), values);
    }
}

#[test]
fn odd_columns_of_dense_types_pack() {
    for dtype in dense() {
        let (bytes, values) = random_weight(dtype, 5, 7, 3);
        assert_eq!(packed(dtype, 5, 7, &bytes, 8), values);
    }
}

#[test]
fn every_exponent_is_exact() {
    let mut bytes = Vec::new();
    for e in 0..=255 {
        bytes.push(e);
        bytes.extend((0..16).map(|i| i | (15 - i) << 4));
    }
    let mut values = vec![0.0; 256 * 32];
    nanovllm_gguf::dequantize(DType::MXFP4, &bytes, &mut values).expect("supported");
    assert_eq!(packed(DType::MXFP4, 256, 32, &bytes, 8), values);
}

#[test]
fn scales_that_are_not_finite_stay_so() {
    for dtype in quantized().into_iter().filter(|&dtype| dtype != DType::MXFP4) {
        for scale in [f32::NAN, f32::INFINITY] {
            let mut block = vec![0x5a; dtype.type_size()];
            if scale.is_infinite() && matches!(dtype, DType::TQ1_0 | DType::TQ2_0) {
                continue; // stored as a difference
            }
            set_scales(dtype, &mut block, scale, 0.5);
            let mut values = vec![0.0; dtype.block_size()];
            nanovllm_gguf::dequantize(dtype, &block, &mut values).expect("supported");
            let got = packed(dtype, 1, dtype.block_size(), &block, 16);
            assert!(got.iter().zip(&values).all(|(a, b)| a == b || a.is_nan() && b.is_nan()), "{dtype} {scale}");
        }
    }
}

#[test]
fn wrong_sizes_and_types_are_named() {
    let team = Team::new(1).expect("one");
    let pack = |dtype, rows, cols, data: &[u8]| {
        Packed::new(&WeightPart { dtype, rows, cols, data }, 8, &Arena::default(), &team)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    assert!(pack(DType::Q8_0, 1, 33, &[0; 34]).contains("64"));
    assert!(pack(DType::F32, 2, 2, &[0; 15]).contains("16"));
    assert!(pack(DType::I32, 1, 256, &[0; 1024]).contains("I32"));
}
