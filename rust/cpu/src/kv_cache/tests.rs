//! What is written and read back.

use nanovllm_backend::{DType, Error, KvCacheSpec, KvHeads, LayerCache};
use proptest::prelude::*;

use super::KvCache;
use crate::isa::Isa;
use crate::testing::{Random, kernels};

impl KvCache {
    /// Fills the cache with NaN: what unwritten slots may hold.
    pub(crate) fn poison(&mut self) {
        self.keys.as_mut_slice().fill(0xff);
        self.values.as_mut_slice().fill(0xff);
    }
}

/// Heads of any even width.
pub(crate) fn kv_heads() -> impl Strategy<Value = KvHeads> {
    (1usize..4, 1usize..70).prop_map(|(num_kv_heads, half)| KvHeads { num_kv_heads, head_dim: 2 * half })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn layers_are_read_as_they_were_written(
        heads in [kv_heads(), kv_heads(), kv_heads()], num_blocks in 0usize..5,
        block_size in prop_oneof![Just(16usize), Just(32), 1usize..40], bf16: bool, through_shared: bool, seed: u64,
    ) {
        let dtype = if bf16 { DType::Bf16 } else { DType::F32 };
        let window = LayerCache::SlidingWindow { heads: heads[1], window: 3 };
        let layers = vec![LayerCache::Full(heads[0]), window, LayerCache::Shared(1), LayerCache::Full(heads[2])];
        let spec = KvCacheSpec { num_blocks, block_size, dtype, layers };
        let mut random = Random::new(seed);
        let (keys, values) = (random.values(spec.layer_len(1)), random.values(spec.layer_len(1)));
        let rounded = |x: &[f32]| -> Vec<f32> {
            x.iter().map(|&x| if bf16 { half::bf16::from_f32(x).to_f32() } else { x }).collect()
        };
        let expected = (rounded(&keys), rounded(&values));
        for isa in Isa::available() {
            let mut cache = KvCache::new(&spec, &kernels(isa).attention).expect("small");
            cache.poison();
            cache.write_layer(if through_shared { 2 } else { 1 }, &keys, &values).expect("of the right length");
            for layer in [1, 2] {
                prop_assert_eq!(&cache.copy_layer(layer), &expected, "{}", isa);
            }
            for layer in [0, 3] {
                let (keys, values) = cache.copy_layer(layer);
                prop_assert_eq!((keys.len(), values.len()), (spec.layer_len(layer), spec.layer_len(layer)));
                prop_assert!(keys.iter().chain(&values).all(|x| x.is_nan()), "layer {layer} is untouched");
            }
            // Rounding what is rounded changes nothing.
            let (read_keys, read_values) = cache.copy_layer(2);
            cache.write_layer(1, &read_keys, &read_values).expect("of the right length");
            prop_assert_eq!(&cache.copy_layer(1), &expected, "{}", isa);
        }
    }

    /// Every layer of every block is written, then read: none overlaps another.
    #[test]
    fn layers_lie_apart(
        heads in prop::collection::vec(kv_heads(), 1..5), num_blocks in 1usize..5, block_size in 1usize..40, bf16: bool,
    ) {
        let dtype = if bf16 { DType::Bf16 } else { DType::F32 };
        let layers = heads.iter().copied().map(LayerCache::Full).collect();
        let spec = KvCacheSpec { num_blocks, block_size, dtype, layers };
        let mut cache = KvCache::new(&spec, &kernels(Isa::Scalar).attention).expect("small");
        for layer in 0..heads.len() {
            let data = vec![layer as f32 + 1.0; spec.layer_len(layer)];
            cache.write_layer(layer, &data, &data).expect("of the right length");
        }
        for layer in 0..heads.len() {
            let (keys, values) = cache.copy_layer(layer);
            prop_assert!(keys.iter().chain(&values).all(|&x| x == layer as f32 + 1.0), "layer {layer}");
        }
    }
}

const SMALL: KvHeads = KvHeads { num_kv_heads: 1, head_dim: 4 };

fn spec(num_blocks: usize, block_size: usize, layers: Vec<LayerCache>) -> KvCacheSpec {
    KvCacheSpec { num_blocks, block_size, dtype: DType::F32, layers }
}

#[test]
fn layers_of_another_length_are_refused_whole() {
    let spec = spec(2, 3, vec![LayerCache::Full(SMALL), LayerCache::Shared(0)]);
    let (right, zeros) = (vec![1.0; 24], vec![0.0; 24]);
    let mut cache = KvCache::new(&spec, &kernels(Isa::Scalar).attention).expect("small");
    for wrong in [vec![1.0; 23], vec![1.0; 25], vec![]] {
        let got = wrong.len();
        for (layer, keys, values) in [(0, &wrong, &right), (0, &right, &wrong), (1, &wrong, &wrong)] {
            let error = cache.write_layer(layer, keys, values).expect_err("of the wrong length");
            assert!(matches!(error, Error::Shape { expected: 24, got: g, .. } if g == got));
            assert_eq!(cache.copy_layer(0), (zeros.clone(), zeros.clone()));
        }
    }
}

#[test]
#[should_panic(expected = "block 2, head 0 of a layer of 2 and 1")]
fn a_block_beyond_the_cache_is_refused() {
    let cache =
        KvCache::new(&spec(2, 3, vec![LayerCache::Full(SMALL)]), &kernels(Isa::Scalar).attention).expect("small");
    cache.copy_block(0, 2);
}

#[test]
fn impossible_caches_are_errors() {
    let new = |spec: KvCacheSpec| KvCache::new(&spec, &kernels(Isa::Scalar).attention);
    let good = || spec(1, 16, vec![LayerCache::Full(SMALL)]);
    assert!(new(good()).is_ok());
    assert!(matches!(new(KvCacheSpec { dtype: DType::Q8_0, ..good() }), Err(Error::UnsupportedDType { .. })));
    for head_dim in [3, 0] {
        let odd = LayerCache::Full(KvHeads { head_dim, ..SMALL });
        assert!(matches!(new(spec(1, 16, vec![odd])), Err(Error::Shape { .. })));
    }
    assert!(matches!(new(spec(1, 16, vec![LayerCache::Shared(0)])), Err(Error::Shape { .. })));
    assert!(matches!(new(spec(1, 0, vec![LayerCache::Full(SMALL)])), Err(Error::Shape { .. })));
    for huge in [1 << 44, usize::MAX / 16 * 2, usize::MAX] {
        let many_heads = LayerCache::Full(KvHeads { num_kv_heads: huge, ..SMALL });
        for spec in [
            KvCacheSpec { num_blocks: huge, ..good() },
            KvCacheSpec { block_size: huge, num_blocks: 1 << 20, ..good() },
            spec(1 << 10, 16, vec![many_heads, LayerCache::Full(SMALL)]),
            spec(1 << 10, 16, vec![LayerCache::Full(SMALL), many_heads]),
        ] {
            assert!(matches!(new(spec), Err(Error::OutOfMemory { .. })));
        }
    }
}
