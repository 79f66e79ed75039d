//! The KV cache in plain layout: written, read and refused.

use proptest::prelude::*;
use proptest::sample::Index;

use super::check::for_cases;
use super::promise::Promise;
use super::random::{Random, rounded};
use crate::{BlockCopy, DType, Error, Inspect, KvCacheSpec, KvHeads, LayerCache};

/// Block sizes that fill a device's groups and such that do not, also no block at all; layers of every kind and width.
fn spec() -> impl Strategy<Value = KvCacheSpec> {
    let block_size = prop_oneof![Just(16usize), Just(256), 1usize..40];
    let dtype = prop_oneof![Just(DType::F32), Just(DType::Bf16)];
    let heads = (1usize..4, 1usize..40).prop_map(|(num_kv_heads, half)| KvHeads { num_kv_heads, head_dim: 2 * half });
    let layer = (heads, prop::option::of(1usize..50), prop::option::of(any::<Index>()));
    (prop::collection::vec(layer, 1..6), 0usize..4, block_size, dtype).prop_map(
        |(kinds, num_blocks, block_size, dtype)| {
            let (mut layers, mut owners) = (Vec::new(), Vec::new());
            for (heads, window, shared) in kinds {
                let shared = shared.filter(|_| !owners.is_empty());
                layers.push(if let Some(with) = shared {
                    LayerCache::Shared(*with.get(&owners))
                } else {
                    owners.push(layers.len());
                    window.map_or(LayerCache::Full(heads), |window| LayerCache::SlidingWindow { heads, window })
                });
            }
            KvCacheSpec { num_blocks, block_size, dtype, layers }
        },
    )
}

type Sides = (Vec<f32>, Vec<f32>);

fn drawn(random: &mut Random, len: usize) -> Sides {
    (random.values(len), random.values(len))
}

/// What a cache of `spec` reads, layer by layer, once each layer that stores holds its entry of `stored`.
fn read_by_layers(spec: &KvCacheSpec, stored: &[Sides]) -> Vec<Sides> {
    let owner = |layer: &LayerCache, own: usize| if let LayerCache::Shared(with) = *layer { with } else { own };
    spec.layers.iter().enumerate().map(|(i, layer)| stored[owner(layer, i)].clone()).collect()
}

fn read<B: Inspect>(backend: &B, cache: &B::KvCache, spec: &KvCacheSpec) -> Vec<Sides> {
    (0..spec.layers.len()).map(|layer| backend.read_kv_cache(cache, layer)).collect()
}

/// A new cache is zeros; what is written is read, rounded once, by the layer and by those that share with it.
pub(super) fn kv_caches_come_back<B: Inspect>(backend: &B, _: &Promise) {
    for_cases(24, &(spec(), any::<u64>()), |(spec, seed)| {
        let mut random = Random::new(seed);
        let mut cache = backend.kv_cache(&spec).expect("a small cache");
        let zeros = |layer| vec![0.0; spec.layer_len(layer)];
        let mut stored: Vec<Sides> = (0..spec.layers.len()).map(|layer| (zeros(layer), zeros(layer))).collect();
        assert_eq!(read(backend, &cache, &spec), read_by_layers(&spec, &stored), "on {}", backend.describe());
        // Over every layer once, and over one of them again.
        let mut order: Vec<usize> = (0..spec.layers.len()).collect();
        random.shuffle(&mut order);
        order.push(order[0]);
        for layer in order {
            let (keys, values) = drawn(&mut random, spec.layer_len(layer));
            backend.write_kv_cache(&mut cache, layer, &keys, &values).expect("of the right length");
            let owner = if let LayerCache::Shared(with) = spec.layers[layer] { with } else { layer };
            stored[owner] = (rounded(spec.dtype, &keys), rounded(spec.dtype, &values));
        }
        assert_eq!(read(backend, &cache, &spec), read_by_layers(&spec, &stored), "on {}", backend.describe());
        // What is stored is what a block's bytes say, shared layers not counted.
        let stores = |layer: usize| !matches!(spec.layers[layer], LayerCache::Shared(_));
        let held = (0..spec.layers.len()).filter(|&layer| stores(layer)).map(|layer| 2 * stored[layer].0.len());
        let bytes = held.sum::<usize>() * spec.dtype.type_size();
        assert_eq!(spec.block_bytes() * spec.num_blocks, bytes, "{spec:?}");
    });
}

/// [`Backend::copy_blocks`](crate::Backend::copy_blocks): tokens come to their new block in every layer, in the order of the
/// copies, and all others stay.
pub(super) fn tokens_are_copied<B: Inspect>(backend: &B, _: &Promise) {
    let copies = prop::collection::vec((any::<Index>(), any::<Index>(), any::<Index>()), 0..6);
    for_cases(24, &(spec(), copies, any::<u64>()), |(spec, copies, seed)| {
        let spec = KvCacheSpec { num_blocks: spec.num_blocks + 2, ..spec };
        let (num_blocks, block_size) = (spec.num_blocks, spec.block_size);
        let mut copies: Vec<BlockCopy> = (copies.into_iter())
            .map(|(from, by, num_tokens)| {
                let from = from.index(num_blocks);
                let to = (from + 1 + by.index(num_blocks - 1)) % num_blocks;
                BlockCopy { from: from as u32, to: to as u32, num_tokens: num_tokens.index(block_size + 1) as u32 }
            })
            .collect();
        if let Some(&first) = copies.first() {
            // What came goes on, to where it came from.
            copies.push(BlockCopy { from: first.to, to: first.from, num_tokens: block_size as u32 });
        }
        let mut random = Random::new(seed);
        let mut cache = backend.kv_cache(&spec).expect("a small cache");
        let stores = |layer: &usize| !matches!(spec.layers[*layer], LayerCache::Shared(_));
        for layer in (0..spec.layers.len()).filter(stores) {
            let (keys, values) = drawn(&mut random, spec.layer_len(layer));
            backend.write_kv_cache(&mut cache, layer, &keys, &values).expect("of the right length");
        }
        // Of each slot the one whose token it holds in the end, if that is specified.
        let before = read(backend, &cache, &spec);
        let mut slots: Vec<Option<usize>> = (0..num_blocks * block_size).map(Some).collect();
        for &BlockCopy { from, to, num_tokens } in &copies {
            let (from, to, num_tokens) = (from as usize, to as usize, num_tokens as usize);
            slots.copy_within(from * block_size..from * block_size + num_tokens, to * block_size);
            slots[to * block_size + num_tokens..(to + 1) * block_size].fill(None);
        }
        backend.copy_blocks(&mut cache, &copies);
        for (layer, (before, after)) in before.iter().zip(read(backend, &cache, &spec)).enumerate() {
            let width = spec.heads(layer).map_or(0, |heads| heads.size());
            for (slot, from) in slots.iter().enumerate().filter_map(|(slot, from)| Some((slot, (*from)?))) {
                let (slot, from) = (slot * width..(slot + 1) * width, from * width..(from + 1) * width);
                let same = after.0[slot.clone()] == before.0[from.clone()] && after.1[slot] == before.1[from];
                assert!(same, "layer {layer} of {spec:?} after {copies:?} on {}", backend.describe());
            }
        }
    });
}

/// Writing one layer leaves the others, of whatever kind and width; writing again replaces.
pub(super) fn layers_are_apart<B: Inspect>(backend: &B, _: &Promise) {
    let heads = |num_kv_heads, head_dim| KvHeads { num_kv_heads, head_dim };
    let layers = vec![
        LayerCache::Full(heads(2, 6)),
        LayerCache::SlidingWindow { heads: heads(1, 34), window: 7 },
        LayerCache::Shared(0),
        LayerCache::Full(heads(2, 6)),
        LayerCache::Shared(1),
    ];
    let spec = KvCacheSpec { num_blocks: 4, block_size: 5, dtype: DType::F32, layers };
    let owners = [0, 1, 0, 3, 1];
    let mut random = Random::new(12);
    let mut cache = backend.kv_cache(&spec).expect("a small cache");
    let lens = owners.map(|layer| 4 * 5 * [12, 34, 0, 12][layer]);
    let mut stored: Vec<Sides> = lens.iter().map(|&len| (vec![0.0; len], vec![0.0; len])).collect();
    for layer in [1, 0, 3, 1, 2, 0, 4, 3] {
        let (keys, values) = drawn(&mut random, lens[layer]);
        backend.write_kv_cache(&mut cache, layer, &keys, &values).expect("of the right length");
        stored[owners[layer]] = (keys, values);
        let expected: Vec<Sides> = owners.iter().map(|&owner| stored[owner].clone()).collect();
        assert_eq!(read(backend, &cache, &spec), expected, "after layer {layer} on {}", backend.describe());
    }
}

/// Lengths that do not fit change nothing; types, layers and sizes that cannot be are errors of their own kind.
pub(super) fn wrong_caches_are_refused<B: Inspect>(backend: &B, _: &Promise) {
    const SMALL: KvHeads = KvHeads { num_kv_heads: 1, head_dim: 4 };
    let full = |heads| vec![LayerCache::Full(heads)];
    let layers = vec![LayerCache::Full(SMALL), LayerCache::Shared(0)];
    let spec = KvCacheSpec { num_blocks: 2, block_size: 3, dtype: DType::F32, layers };
    let mut cache = backend.kv_cache(&spec).expect("a small cache");
    let (right, zeros) = (vec![1.0; 24], vec![0.0; 24]);
    for (len, layer) in [0, 23, 25].into_iter().flat_map(|len| [(len, 0), (len, 1)]) {
        let wrong = vec![1.0; len];
        for (keys, values) in [(&wrong, &right), (&right, &wrong)] {
            let error = backend.write_kv_cache(&mut cache, layer, keys, values).expect_err("of the wrong length");
            assert!(matches!(error, Error::Shape { expected: 24, got, .. } if got == len), "{error}");
            let unchanged = (zeros.clone(), zeros.clone());
            assert_eq!(backend.read_kv_cache(&cache, layer), unchanged, "on {}", backend.describe());
        }
    }
    let refused = |spec: KvCacheSpec| backend.kv_cache(&spec).map(|_| ()).expect_err("of an impossible cache");
    let error = refused(KvCacheSpec { dtype: DType::Q8_0, ..spec.clone() });
    assert!(matches!(error, Error::UnsupportedDType { dtype: DType::Q8_0, .. }), "{error}");
    let error = refused(KvCacheSpec { block_size: 0, ..spec.clone() });
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    for impossible in [
        full(KvHeads { head_dim: 3, ..SMALL }),
        full(KvHeads { head_dim: 0, ..SMALL }),
        vec![LayerCache::Full(SMALL), LayerCache::SlidingWindow { heads: KvHeads { head_dim: 5, ..SMALL }, window: 2 }],
        vec![LayerCache::SlidingWindow { heads: SMALL, window: 0 }],
        vec![LayerCache::Shared(0)],
        vec![LayerCache::Shared(1), LayerCache::Full(SMALL)],
        vec![LayerCache::Full(SMALL), LayerCache::Shared(0), LayerCache::Shared(1)],
        vec![LayerCache::Full(SMALL), LayerCache::Shared(usize::MAX)],
    ] {
        let error = refused(KvCacheSpec { layers: impossible, ..spec.clone() });
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
    for dtype in [DType::F32, DType::Bf16] {
        for huge in [1 << 50, usize::MAX / 16 * 2, usize::MAX] {
            let heads = full(KvHeads { num_kv_heads: huge, ..SMALL });
            let beside = [full(SMALL), full(KvHeads { head_dim: huge / 2 * 2, ..SMALL })].concat();
            for too_large in [
                KvCacheSpec { num_blocks: huge, dtype, ..spec.clone() },
                KvCacheSpec { num_blocks: huge, layers: vec![LayerCache::Full(SMALL); 1 << 10], dtype, ..spec },
                KvCacheSpec { block_size: huge, num_blocks: 1 << 20, dtype, ..spec.clone() },
                KvCacheSpec { layers: heads, dtype, ..spec },
                KvCacheSpec { layers: beside, dtype, ..spec },
            ] {
                let error = refused(too_large);
                assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
            }
        }
    }
}
