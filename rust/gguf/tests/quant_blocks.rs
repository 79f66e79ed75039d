//! What holds for every type, whatever the bytes or values. `tests/test_gguf_quants.py` checks exact values.
#![allow(clippy::unwrap_used)] // tests

use nanovllm_gguf::{
    BlockIQ4_XS, BlockQ3_K, BlockQ4_K, Error, GgmlType, can_quantize, dequantize, is_supported, quantize,
};
use proptest::prelude::*;

fn written() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL.iter().copied().filter(|&dtype| can_quantize(dtype))
}

fn encode(dtype: GgmlType, x: &[f32]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    quantize(dtype, x, &mut out).map(|()| out)
}

fn decode(dtype: GgmlType, data: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; data.len() / dtype.type_size() * dtype.block_size()];
    dequantize(dtype, data, &mut out).unwrap();
    out
}

#[test]
fn every_type_is_read_and_says_whether_it_is_written() {
    for &dtype in GgmlType::ALL {
        assert!(is_supported(dtype));
        // These take an importance matrix to make, or are no floats.
        let codebook = ["IQ1", "IQ2", "IQ3"].iter().any(|family| dtype.name().starts_with(family));
        assert_eq!(can_quantize(dtype), !codebook && !dtype.is_integer(), "{dtype}");
        match encode(dtype, &vec![0.0; dtype.block_size()]) {
            Ok(block) => assert!(can_quantize(dtype) && block.len() == dtype.type_size(), "{dtype}"),
            Err(error) => {
                assert!(!can_quantize(dtype), "{dtype}");
                assert!(matches!(error, Error::UnsupportedType { what: "quantisation", .. }), "{error:?}");
                assert!(error.to_string().contains(dtype.name()), "{error}");
            }
        }
    }
}

#[test]
fn zeros_stay_zeros() {
    for dtype in written() {
        let back = decode(dtype, &encode(dtype, &[0.0; 512]).unwrap());
        assert_eq!(back, [0.0; 512], "{dtype}");
    }
}

#[test]
fn values_no_block_can_hold() {
    for dtype in written().filter(|dtype| dtype.block_size() > 1) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 1024];
            x[600] = bad;
            let mut out = vec![7];
            let error = quantize(dtype, &x, &mut out).unwrap_err();
            let expected = 600 / dtype.block_size();
            assert!(
                matches!(error, Error::Unquantisable { block, .. } if block == expected),
                "{dtype} {bad}: {error:?}"
            );
            assert_eq!(out, [7], "{dtype}: nothing is left behind");
        }
        // No f16 scale reaches these: they are refused, or a format with a wider scale keeps them about as they are.
        let wide = [GgmlType::Q8_K, GgmlType::MXFP4].contains(&dtype);
        for big in [1e10, 1e12, 1e15, 1e20, 1e30, 3e38] {
            let mut x = [1.0; 256];
            x[100] = big;
            let blocks = encode(dtype, &x);
            assert!(blocks.is_ok() || !wide, "{dtype} {big}");
            if let Ok(blocks) = blocks {
                let back = decode(dtype, &blocks)[100];
                assert!((0.5..2.0).contains(&(back / big)), "{dtype}: {big} as {back}");
            }
        }
    }
}

#[test]
fn packed_scales_of_the_super_blocks() {
    // The magnitudes of the groups are 1, 2, 3... steps of the largest scale.
    let x: Vec<f32> = (0..256).map(|i| (1 + i / 32) as f32 * if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let q4 = encode(GgmlType::Q4_K, &x).unwrap();
    let (scales, mins) = bytemuck::from_bytes::<BlockQ4_K>(&q4).scales.unpack();
    let expected = [1, 2, 3, 4, 5, 6, 7, 8].map(|i| (63.0 * i as f32 / 8.0).round_ties_even() as u8);
    assert_eq!((scales, mins), (expected, expected));
    let iq4 = encode(GgmlType::IQ4_XS, &x).unwrap();
    let scales = bytemuck::from_bytes::<BlockIQ4_XS>(&iq4).unpacked_scales();
    assert_eq!(scales.map(i8::abs), [4, 8, 12, 16, 20, 24, 28, 32]);
    let x: Vec<f32> = (0..256).map(|i| (1 + i / 16) as f32 * if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let q3 = encode(GgmlType::Q3_K, &x).unwrap();
    let scales = bytemuck::from_bytes::<BlockQ3_K>(&q3).unpacked_scales();
    assert_eq!(scales.map(i8::abs), std::array::from_fn(|i| 2 * (i as i8 + 1)));
}

/// Rows of two super-blocks of any finite values, of like or of unlike magnitude.
fn finite() -> impl Strategy<Value = Vec<f32>> {
    let any = any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite());
    let alike = (-140i32..127).prop_flat_map(|exponent| {
        let scale = 2f32.powi(exponent);
        prop::collection::vec((-1.0f32..=1.0).prop_map(move |v| v * scale), 512)
    });
    prop_oneof![prop::collection::vec(any, 512), alike]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_read(data in prop::collection::vec(any::<u8>(), 2 * 292)) {
        for &dtype in GgmlType::ALL {
            let size = dtype.type_size();
            let data = &data[..data.len() / size * size];
            let whole = decode(dtype, data);
            // A block depends on its own bytes alone.
            let blocks: Vec<f32> = data.chunks(size).flat_map(|block| decode(dtype, block)).collect();
            prop_assert!(whole.iter().zip(&blocks).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()));
        }
    }

    #[test]
    fn any_finite_values_are_written_or_refused(x in finite()) {
        for dtype in written() {
            let Ok(blocks) = encode(dtype, &x) else { continue };
            prop_assert_eq!(blocks.len(), dtype.bytes_for(x.len()).unwrap());
            let narrow = dtype.block_size() == 1 && dtype.type_size() < 4; // floats that round to infinity
            prop_assert!(narrow || decode(dtype, &blocks).iter().all(|v| v.is_finite()), "{dtype}");
            // A block depends on its own elements alone.
            let halves = [encode(dtype, &x[..256]).unwrap(), encode(dtype, &x[256..]).unwrap()].concat();
            prop_assert_eq!(blocks, halves, "{}", dtype);
        }
    }
}
