//! Compares block formats with the bytes of an independent implementation, with a naive decoder, and with the largest
//! error that each may make.
#![allow(clippy::unwrap_used)] // tests

use nanovllm_gguf::{BlockQ4_0, BlockQ4_1, BlockQ8_0, Error, GgmlType, LeF16, can_quantize, dequantize, quantize};
use proptest::prelude::*;

fn encode(dtype: GgmlType, x: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    quantize(dtype, x, &mut out).unwrap();
    out
}

fn decode(dtype: GgmlType, data: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; data.len() / dtype.type_size() * dtype.block_size()];
    dequantize(dtype, data, &mut out).unwrap();
    out
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The bits of floats, with one pattern for every NaN.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
}

/// The value of a 16-bit float, by the definition of the format.
fn half_value(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// Element `i` of `data`, read by the format's description; `None` for types that are not described here.
fn naive(dtype: GgmlType, data: &[u8], i: usize) -> Option<f32> {
    let half = |at: usize| half_value(u16::from_le_bytes([data[at], data[at + 1]])) as f32;
    let (block, k) = (i / 32 * dtype.type_size(), i % 32);
    let nibble = |at: usize| f32::from(data[at + k % 16] >> (k / 16 * 4) & 15);
    Some(match dtype {
        GgmlType::F32 => f32s(&data[4 * i..4 * i + 4])[0],
        GgmlType::F16 => half(2 * i),
        GgmlType::Bf16 => f32::from_le_bytes([0, 0, data[2 * i], data[2 * i + 1]]),
        GgmlType::Q8_0 => half(block) * f32::from(data[block + 2 + k] as i8),
        GgmlType::Q4_0 => half(block) * (nibble(block + 2) - 8.0),
        GgmlType::Q4_1 => half(block) * nibble(block + 4) + half(block + 2),
        _ => return None,
    })
}

/// The types that [`naive`] reads.
fn described() -> Vec<GgmlType> {
    GgmlType::ALL.iter().copied().filter(|&dtype| naive(dtype, &[0; 64], 0).is_some()).collect()
}

#[test]
fn golden_bytes_of_another_implementation() {
    let input = f32s(include_bytes!("golden/input.bin"));
    let golden: [(GgmlType, &[u8], &[u8]); 5] = [
        (GgmlType::F16, include_bytes!("golden/f16.bin"), include_bytes!("golden/f16_f32.bin")),
        (GgmlType::Bf16, include_bytes!("golden/bf16.bin"), include_bytes!("golden/bf16_f32.bin")),
        (GgmlType::Q8_0, include_bytes!("golden/q8_0.bin"), include_bytes!("golden/q8_0_f32.bin")),
        (GgmlType::Q4_0, include_bytes!("golden/q4_0.bin"), include_bytes!("golden/q4_0_f32.bin")),
        (GgmlType::Q4_1, include_bytes!("golden/q4_1.bin"), include_bytes!("golden/q4_1_f32.bin")),
    ];
    for (dtype, encoded, decoded) in golden {
        let ours = encode(dtype, &input);
        let size = dtype.bytes_for(32).unwrap();
        for (block, (ours, theirs)) in ours.chunks(size).zip(encoded.chunks(size)).enumerate() {
            assert_eq!(ours, theirs, "{dtype} block {block}: {:?}", &input[block * 32..block * 32 + 32]);
        }
        assert_eq!(ours.len(), encoded.len());
        assert_eq!(bits(&decode(dtype, encoded)), bits(&f32s(decoded)), "{dtype}");
    }
}

#[test]
fn every_half() {
    for pattern in 0..=u16::MAX {
        let half = LeF16(pattern.to_le_bytes());
        assert_eq!(bits(&[half.to_f32()]), bits(&[half_value(pattern) as f32]), "{pattern:#06x}");
        if !half.to_f32().is_nan() {
            assert_eq!(LeF16::from_f32(half.to_f32()), half);
        }
    }
}

#[test]
fn blocks_are_read_in_place() {
    let x: Vec<f32> = (0..64).map(|i| i as f32 - 20.0).collect();
    // The blocks begin one byte past any alignment.
    let shifted = |dtype| [vec![0], encode(dtype, &x)].concat();
    let q8 = shifted(GgmlType::Q8_0);
    let blocks: &[BlockQ8_0] = bytemuck::cast_slice(&q8[1..]);
    assert_eq!((blocks.len(), blocks[1].qs[31]), (2, 127));
    let q4 = shifted(GgmlType::Q4_0);
    let blocks: &[BlockQ4_0] = bytemuck::cast_slice(&q4[1..]);
    assert_eq!((blocks.len(), blocks[1].d.to_f32()), (2, LeF16::from_f32(-43.0 / 8.0).to_f32()));
    let q4 = shifted(GgmlType::Q4_1);
    let blocks: &[BlockQ4_1] = bytemuck::cast_slice(&q4[1..]);
    assert_eq!((blocks.len(), blocks[0].m.to_f32(), blocks[0].qs[15] >> 4), (2, -20.0, 15));
}

#[test]
fn wrong_sizes() {
    for &dtype in GgmlType::ALL {
        let block = dtype.block_size();
        let mut out = vec![0.0; 2 * block];
        for bytes in [0, 1, 2 * dtype.type_size() - 1, 2 * dtype.type_size() + 1, 3 * dtype.type_size()] {
            let error = dequantize(dtype, &vec![0; bytes], &mut out).unwrap_err();
            assert!(matches!(error, Error::Length { .. }) && error.to_string().contains(dtype.name()), "{error}");
        }
        dequantize(dtype, &[], &mut []).unwrap();
        if block > 1 {
            assert!(dequantize(dtype, &vec![0; dtype.type_size()], &mut out[..block - 1]).is_err());
        }
        if can_quantize(dtype) {
            quantize(dtype, &[], &mut Vec::new()).unwrap();
            if block > 1 {
                let error = quantize(dtype, &vec![0.0; block + 1], &mut Vec::new()).unwrap_err();
                assert!(matches!(error, Error::Length { got, .. } if got == block + 1), "{error}");
            }
        }
    }
}

#[test]
fn values_a_block_cannot_hold() {
    for dtype in [GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q4_1] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN] {
            let mut x = vec![1.0; 96];
            x[40] = bad;
            let mut out = vec![7];
            let error = quantize(dtype, &x, &mut out).unwrap_err();
            assert!(matches!(error, Error::Unquantisable { block: 1, .. }), "{dtype} {bad}: {error:?}");
            assert_eq!(out, [7], "nothing is left behind");
        }
    }
    // The minimum is past f16, although the range is not.
    assert!(quantize(GgmlType::Q4_1, &[1e5; 32], &mut Vec::new()).is_err());
    // Dense types hold any float.
    for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::Bf16] {
        let back = decode(dtype, &encode(dtype, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]));
        assert!(back[0].is_nan());
        assert_eq!(bits(&back[1..]), bits(&[f32::INFINITY, f32::NEG_INFINITY, -0.0]));
    }
}

fn a_described_type() -> impl Strategy<Value = GgmlType> {
    prop::sample::select(described())
}

fn any_f32() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits)
}

/// Rows of 1 to 4 blocks at a random scale, some with repeated or zero values.
fn weights() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![6 => -1.0f32..1.0, 1 => Just(0.0), 1 => Just(1.0), 1 => Just(-1.0)];
    (1usize..=4, -30i32..10).prop_flat_map(move |(blocks, exponent)| {
        let scale = 2f32.powi(exponent);
        prop::collection::vec(value.clone().prop_map(move |v| v * scale), blocks * 32)
    })
}

/// Whether `encoded` is the pattern whose value is nearest to `x`, and of two as near the even one.
fn is_nearest(x: f32, encoded: u16, value: impl Fn(u16) -> f64) -> bool {
    let distance = |pattern| (value(pattern) - f64::from(x)).abs();
    [encoded.wrapping_sub(1), encoded.wrapping_add(1)].into_iter().filter(|&p| value(p).is_finite()).all(|neighbour| {
        let (ours, theirs) = (distance(encoded), distance(neighbour));
        ours < theirs || ours <= theirs && encoded.is_multiple_of(2)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn decoding_follows_the_description(dtype in a_described_type(), data in prop::collection::vec(any::<u8>(), 4 * 40)) {
        let data = &data[..data.len() / dtype.type_size() * dtype.type_size()];
        let elements = data.len() / dtype.type_size() * dtype.block_size();
        let expected: Vec<_> = (0..elements).filter_map(|i| naive(dtype, data, i)).collect();
        prop_assert_eq!(bits(&decode(dtype, data)), bits(&expected));
    }

    #[test]
    fn encoding_appends_whole_blocks(dtype in a_described_type(), x in weights(), before in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut out = before.clone();
        quantize(dtype, &x, &mut out).unwrap();
        prop_assert_eq!(&out[..before.len()], &before[..]);
        prop_assert_eq!(&out[before.len()..], &encode(dtype, &x)[..]);
        prop_assert_eq!(out.len() - before.len(), dtype.bytes_for(x.len()).unwrap());
        // A block depends on its own elements alone.
        let halves = [encode(dtype, &x[..32]), encode(dtype, &x[32..])].concat();
        prop_assert_eq!(&out[before.len()..], &halves[..]);
    }

    #[test]
    fn f32_is_lossless(x in prop::collection::vec(any_f32(), 0..40)) {
        prop_assert_eq!(bits(&decode(GgmlType::F32, &encode(GgmlType::F32, &x))), bits(&x));
    }

    #[test]
    fn halves_are_the_nearest(x in any_f32().prop_filter("finite", |x| x.is_finite())) {
        let pattern = |dtype| { let b = encode(dtype, &[x]); u16::from_le_bytes([b[0], b[1]]) };
        let half = pattern(GgmlType::F16);
        if x.abs() < 65520.0 {
            prop_assert!(is_nearest(x, half, half_value), "{x} as {half:#06x}");
        } else {
            prop_assert_eq!(half & 0x7fff, 0x7c00);
        }
        let brain = pattern(GgmlType::Bf16);
        let value = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
        prop_assert!(value(brain).is_infinite() || is_nearest(x, brain, value), "{x} as {brain:#06x}");
    }

    /// The error of an element is at most half a step (a whole one where Q4_0's 7 stands for 8), plus what rounding
    /// the scale and the minimum to f16 adds.
    #[test]
    fn quantisation_error_is_bounded(x in weights()) {
        let f16_error = |v: f32| (v.abs() / 2048.0).max(2f32.powi(-25));
        for (row, q8, q4_0, q4_1) in x.chunks(32).map(|row| {
            let through = |dtype| decode(dtype, &encode(dtype, row));
            (row, through(GgmlType::Q8_0), through(GgmlType::Q4_0), through(GgmlType::Q4_1))
        }) {
            let most = row.iter().fold(0f32, |m, v| m.max(v.abs()));
            let (low, high) = row.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            let (d8, d40, d41) = (most / 127.0, most / 8.0, (high - low) / 15.0);
            for (i, &v) in row.iter().enumerate() {
                let slack = 1e-5 * most; // f32 rounding of the products
                prop_assert!((q8[i] - v).abs() <= d8 / 2.0 + 127.0 * f16_error(d8) + slack, "Q8_0 {v} as {}", q8[i]);
                prop_assert!((q4_0[i] - v).abs() <= d40 + 8.0 * f16_error(d40) + slack, "Q4_0 {v} as {}", q4_0[i]);
                let bound = d41 / 2.0 + 15.0 * f16_error(d41) + f16_error(low) + slack;
                prop_assert!((q4_1[i] - v).abs() <= bound, "Q4_1 {v} as {}", q4_1[i]);
            }
        }
    }
}
