//! The cache's layout, and norm, rotation and storing against a plain f64 reference.

use nanovllm_backend::{Context, DType, Error, HeadLayout, KvCacheSpec};
use proptest::prelude::*;

use super::{KvCache, norm_rope_store};
use crate::isa::Isa;
use crate::rows::RowKernels;
use crate::team::Team;
use crate::testing::{Random, nmse, tensor};

impl KvCache {
    /// Fills the cache with NaN: what unwritten slots may hold.
    pub(crate) fn poison(&mut self) {
        self.keys.as_mut_slice().fill(0xff);
        self.values.as_mut_slice().fill(0xff);
    }
}

/// Norm, when there are weights, and rotation of one head.
fn reference(x: &[f32], norm: Option<(&[f32], f32)>, rope: &[f32]) -> Vec<f64> {
    let dim = x.len();
    let mut x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    if let Some((weight, eps)) = norm {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / dim as f64;
        for (x, &w) in x.iter_mut().zip(weight) {
            *x *= f64::from(w) / (mean + f64::from(eps)).sqrt();
        }
    }
    (0..dim)
        .map(|d| {
            let i = d % (dim / 2);
            let (cos, sin) = (f64::from(rope[i]), f64::from(rope[dim / 2 + i]));
            if d < dim / 2 { x[d] * cos - x[d + dim / 2] * sin } else { x[d] * cos + x[d - dim / 2] * sin }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_are_normed_rotated_and_stored(
        kv_heads in 1usize..4, group in 1usize..4, half in 1usize..70, block_size in 1usize..40, bf16: bool, normed: bool,
        rows in 1usize..30, seed: u64,
    ) {
        let head_dim = 2 * half;
        let heads = HeadLayout { num_heads: kv_heads * group, num_kv_heads: kv_heads, head_dim };
        let dtype = if bf16 { DType::Bf16 } else { DType::F32 };
        let mut random = Random::new(seed);
        let num_blocks = rows.div_ceil(block_size) + 2;
        let spec = KvCacheSpec { num_layers: 2, num_blocks, block_size, num_kv_heads: kv_heads, head_dim, dtype };
        let data = random.values(rows * heads.qkv_size());
        let rope_data = random.values(50 * head_dim);
        let positions: Vec<u32> = (0..rows).map(|_| random.below(50) as u32).collect();
        let (q_weight, k_weight) = (random.values(head_dim), random.values(head_dim));
        // Every slot at most once, in any order; a third of the rows store nothing.
        let mut slots: Vec<i32> = (0..(num_blocks * block_size) as i32).collect();
        for i in (1..slots.len()).rev() {
            slots.swap(i, random.below(i + 1));
        }
        slots.truncate(rows);
        for slot in &mut slots {
            if random.below(3) == 0 {
                *slot = -1;
            }
        }
        let context =
            Context { cu_seqlens_q: &[], context_lens: &[], slot_mapping: &slots, block_tables: &[], table_stride: 0 };
        let (rope, q_norm, k_norm) =
            (tensor(&rope_data, 50, head_dim), tensor(&q_weight, 1, head_dim), tensor(&k_weight, 1, head_dim));
        let eps = 1e-6;
        let mut first: Option<Vec<u32>> = None;
        for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
            let team = Team::new(threads).expect("threads");
            let mut cache = KvCache::new(&spec, isa).expect("small");
            cache.poison();
            let mut qkv = tensor(&data, rows, heads.qkv_size());
            let qk_norm = normed.then_some((&q_norm, &k_norm, eps));
            let kernels = RowKernels::new(isa);
            norm_rope_store(&team, &kernels, &mut qkv, &heads, qk_norm, &rope, &positions, &mut cache, 1, &context);
            let bits: Vec<u32> = qkv.as_slice().iter().map(|x| x.to_bits()).collect();
            if threads == 1 { first = Some(bits) } else { prop_assert_eq!(Some(bits), first.take(), "{} threads", isa) }

            let stored = |x: f64| if bf16 { f64::from(half::bf16::from_f32(x as f32).to_f32()) } else { x };
            let blocks: Vec<_> = (0..num_blocks).map(|b| cache.copy_block(1, b)).collect();
            for row in 0..rows {
                let rope = &rope_data[positions[row] as usize * head_dim..][..head_dim];
                let source = &data[row * heads.qkv_size()..][..heads.qkv_size()];
                let q: Vec<f64> = source[..heads.q_size()]
                    .chunks(head_dim)
                    .flat_map(|x| reference(x, normed.then_some((&q_weight[..], eps)), rope))
                    .collect();
                prop_assert!(nmse(&qkv.row(row)[..heads.q_size()], &q) < 1e-10);
                let Ok(slot) = usize::try_from(slots[row]) else { continue };
                let k: Vec<f64> = source[heads.q_size()..][..heads.kv_size()]
                    .chunks(head_dim)
                    .flat_map(|x| reference(x, normed.then_some((&k_weight[..], eps)), rope))
                    .map(stored)
                    .collect();
                let v: Vec<f64> =
                    source[heads.q_size() + heads.kv_size()..].iter().map(|&x| stored(f64::from(x))).collect();
                let at = slot % block_size * heads.kv_size()..(slot % block_size + 1) * heads.kv_size();
                let (keys, values) = &blocks[slot / block_size];
                // A value next to a tie may round the other way.
                prop_assert!(nmse(&keys[at.clone()], &k) < if bf16 { 1e-5 } else { 1e-10 }, "{isa} keys");
                prop_assert_eq!(nmse(&values[at], &v), 0.0, "{} values", isa);
            }
            let written = slots.iter().filter(|&&slot| slot >= 0).count() * heads.kv_size();
            for side in [|b: &(Vec<f32>, Vec<f32>)| b.0.clone(), |b: &(Vec<f32>, Vec<f32>)| b.1.clone()] {
                let finite = blocks.iter().flat_map(side).filter(|x| !x.is_nan()).count();
                prop_assert_eq!(finite, written, "slots other than the rows' are untouched");
            }
            prop_assert!(cache.copy_block(0, 0).0.iter().all(|x| x.is_nan()), "the other layer is untouched");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn layers_are_read_as_they_were_written(
        num_kv_heads in 1usize..4, half in 1usize..40, num_blocks in 0usize..5,
        block_size in prop_oneof![Just(16usize), Just(32), 1usize..40], bf16: bool, seed: u64,
    ) {
        let dtype = if bf16 { DType::Bf16 } else { DType::F32 };
        let spec = KvCacheSpec { num_layers: 2, num_blocks, block_size, num_kv_heads, head_dim: 2 * half, dtype };
        let mut random = Random::new(seed);
        let (keys, values) = (random.values(spec.layer_len()), random.values(spec.layer_len()));
        let rounded = |x: &[f32]| -> Vec<f32> {
            x.iter().map(|&x| if bf16 { half::bf16::from_f32(x).to_f32() } else { x }).collect()
        };
        for isa in Isa::available() {
            let mut cache = KvCache::new(&spec, isa).expect("small");
            cache.poison();
            cache.write_layer(1, &keys, &values).expect("of the right length");
            prop_assert_eq!(cache.copy_layer(1), (rounded(&keys), rounded(&values)), "{}", isa);
            let (other, _) = cache.copy_layer(0);
            prop_assert!(other.iter().all(|x| x.is_nan()), "the other layer is untouched");
            // Rounding what is rounded changes nothing.
            let (read_keys, read_values) = cache.copy_layer(1);
            cache.write_layer(1, &read_keys, &read_values).expect("of the right length");
            prop_assert_eq!(cache.copy_layer(1), (read_keys, read_values), "{}", isa);
        }
    }
}

#[test]
fn layers_of_another_length_are_refused_whole() {
    let spec =
        KvCacheSpec { num_layers: 1, num_blocks: 2, block_size: 3, num_kv_heads: 1, head_dim: 4, dtype: DType::F32 };
    let (right, zeros) = (vec![1.0; 24], vec![0.0; 24]);
    let mut cache = KvCache::new(&spec, Isa::Scalar).expect("small");
    for wrong in [vec![1.0; 23], vec![1.0; 25], vec![]] {
        let got = wrong.len();
        for (keys, values) in [(&wrong, &right), (&right, &wrong)] {
            let error = cache.write_layer(0, keys, values).expect_err("of the wrong length");
            assert!(matches!(error, Error::Shape { expected: 24, got: g, .. } if g == got));
            assert_eq!(cache.copy_layer(0), (zeros.clone(), zeros.clone()));
        }
    }
}

#[test]
fn impossible_caches_are_errors() {
    let spec =
        KvCacheSpec { num_layers: 1, num_blocks: 1, block_size: 16, num_kv_heads: 1, head_dim: 4, dtype: DType::F32 };
    let new = |spec: KvCacheSpec| KvCache::new(&spec, Isa::Scalar);
    assert!(new(spec).is_ok());
    assert!(matches!(new(KvCacheSpec { dtype: DType::Q8_0, ..spec }), Err(Error::UnsupportedDType { .. })));
    assert!(matches!(new(KvCacheSpec { head_dim: 3, ..spec }), Err(Error::Shape { .. })));
    assert!(matches!(new(KvCacheSpec { head_dim: 0, ..spec }), Err(Error::Shape { .. })));
    assert!(matches!(new(KvCacheSpec { block_size: 0, ..spec }), Err(Error::Shape { .. })));
    for huge in [1 << 40, usize::MAX / 16 * 2, usize::MAX] {
        assert!(matches!(
            new(KvCacheSpec { num_blocks: huge, num_layers: 1 << 30, ..spec }),
            Err(Error::OutOfMemory { .. })
        ));
        assert!(matches!(
            new(KvCacheSpec { block_size: huge, num_blocks: 1 << 20, ..spec }),
            Err(Error::OutOfMemory { .. })
        ));
    }
}
