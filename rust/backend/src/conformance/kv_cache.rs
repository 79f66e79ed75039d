//! The KV cache in plain layout: written, read and refused.

use proptest::prelude::*;

use super::random::{Random, rounded};
use super::{Claims, for_cases};
use crate::{Backend, DType, Error, KvCacheSpec};

/// Block sizes that fill a device's groups and such that do not; also no block at all.
fn spec() -> impl Strategy<Value = KvCacheSpec> {
    let block_size = prop_oneof![Just(16usize), Just(256), 1usize..40];
    let dtype = prop_oneof![Just(DType::F32), Just(DType::Bf16)];
    (1usize..4, 0usize..4, block_size, 1usize..4, 1usize..40, dtype).prop_map(
        |(num_layers, num_blocks, block_size, num_kv_heads, half, dtype)| KvCacheSpec {
            num_layers,
            num_blocks,
            block_size,
            num_kv_heads,
            head_dim: 2 * half,
            dtype,
        },
    )
}

/// A new cache is zeros; what is written is read, rounded once.
pub fn kv_caches_come_back<B: Backend>(backend: &B, _: &Claims) {
    for_cases(24, &(spec(), any::<u64>()), |(spec, seed)| {
        let mut random = Random::new(seed);
        let mut cache = backend.kv_cache(&spec).expect("a small cache");
        let zeros = vec![0.0; spec.layer_len()];
        assert_eq!(backend.read_kv_cache(&cache, 0), (zeros.clone(), zeros), "on {}", backend.describe());
        let (keys, values) = (random.values(spec.layer_len()), random.values(spec.layer_len()));
        let layer = random.below(spec.num_layers);
        backend.write_kv_cache(&mut cache, layer, &keys, &values).expect("of the right length");
        let expected = (rounded(spec.dtype, &keys), rounded(spec.dtype, &values));
        assert_eq!(backend.read_kv_cache(&cache, layer), expected, "on {}", backend.describe());
    });
}

/// Writing one layer leaves the others; writing again replaces.
pub fn layers_are_apart<B: Backend>(backend: &B, _: &Claims) {
    let spec =
        KvCacheSpec { num_layers: 3, num_blocks: 4, block_size: 5, num_kv_heads: 2, head_dim: 6, dtype: DType::F32 };
    let mut random = Random::new(12);
    let mut cache = backend.kv_cache(&spec).expect("a small cache");
    let mut expected = vec![(vec![0.0; spec.layer_len()], vec![0.0; spec.layer_len()]); 3];
    for layer in [1, 0, 1, 2, 0] {
        let (keys, values) = (random.values(spec.layer_len()), random.values(spec.layer_len()));
        backend.write_kv_cache(&mut cache, layer, &keys, &values).expect("of the right length");
        expected[layer] = (keys, values);
        let got: Vec<_> = (0..3).map(|layer| backend.read_kv_cache(&cache, layer)).collect();
        assert_eq!(got, expected, "after layer {layer} on {}", backend.describe());
    }
}

/// Lengths that do not fit change nothing; types and sizes that cannot be are errors of their own kind.
pub fn wrong_caches_are_refused<B: Backend>(backend: &B, _: &Claims) {
    let spec =
        KvCacheSpec { num_layers: 1, num_blocks: 2, block_size: 3, num_kv_heads: 1, head_dim: 4, dtype: DType::F32 };
    let mut cache = backend.kv_cache(&spec).expect("a small cache");
    let (right, zeros) = (vec![1.0; 24], vec![0.0; 24]);
    for len in [0, 23, 25] {
        let wrong = vec![1.0; len];
        for (keys, values) in [(&wrong, &right), (&right, &wrong)] {
            let error = backend.write_kv_cache(&mut cache, 0, keys, values).expect_err("of the wrong length");
            assert!(matches!(error, Error::Shape { expected: 24, got, .. } if got == len), "{error}");
            assert_eq!(backend.read_kv_cache(&cache, 0), (zeros.clone(), zeros.clone()), "on {}", backend.describe());
        }
    }
    let refused = |spec: KvCacheSpec| backend.kv_cache(&spec).map(|_| ()).expect_err("of an impossible cache");
    let error = refused(KvCacheSpec { dtype: DType::Q8_0, ..spec });
    assert!(matches!(error, Error::UnsupportedDType { dtype: DType::Q8_0, .. }), "{error}");
    for impossible in [
        KvCacheSpec { head_dim: 3, ..spec },
        KvCacheSpec { head_dim: 0, ..spec },
        KvCacheSpec { block_size: 0, ..spec },
    ] {
        let error = refused(impossible);
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
    for dtype in [DType::F32, DType::Bf16] {
        for huge in [1 << 50, usize::MAX / 16 * 2, usize::MAX] {
            for too_large in [
                KvCacheSpec { num_blocks: huge, num_layers: 1 << 30, dtype, ..spec },
                KvCacheSpec { block_size: huge, num_blocks: 1 << 20, dtype, ..spec },
                KvCacheSpec { num_kv_heads: huge, dtype, ..spec },
            ] {
                let error = refused(too_large);
                assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
            }
        }
    }
}
