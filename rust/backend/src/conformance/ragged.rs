//! Ragged batches over a paged cache: prefill, chunks after a cached prefix and decode side by side.

use proptest::prelude::*;

use super::random::{Random, rounded, upload};
use crate::{Backend, Context, DType, HeadLayout, KvCacheSpec};

/// What to draw a batch from.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) heads: HeadLayout,
    pub(super) block_size: usize,
    /// Tokens in the cache before the batch, and tokens the batch brings, of each sequence.
    pub(super) sequences: Vec<(usize, usize)>,
    pub(super) normed: bool,
    pub(super) seed: u64,
}

impl Shape {
    /// Grouped heads, blocks that fill a device's groups and such that do not, decode and prefill in one batch.
    pub(super) fn strategy() -> impl Strategy<Value = Self> {
        let heads = (1usize..4, 1usize..5, prop::sample::select(vec![2usize, 6, 16, 34, 64, 80, 128])).prop_map(
            |(num_kv_heads, group, head_dim)| HeadLayout { num_heads: num_kv_heads * group, num_kv_heads, head_dim },
        );
        let sequence = prop_oneof![
            (1usize..70, Just(1usize)), // decode
            (Just(0usize), 1usize..40), // prefill
            (1usize..70, 1usize..40),   // a chunk after a prefix
        ];
        let block_size = prop_oneof![Just(16usize), Just(32), 1usize..20];
        (heads, block_size, prop::collection::vec(sequence, 1..6), any::<bool>(), any::<u64>()).prop_map(
            |(heads, block_size, sequences, normed, seed)| Self { heads, block_size, sequences, normed, seed },
        )
    }
}

/// A batch on the host: what the device is given, and the cache before it.
pub(super) struct Batch {
    pub(super) heads: HeadLayout,
    pub(super) spec: KvCacheSpec,
    /// `[rows, q + k + v]`.
    pub(super) qkv: Vec<f32>,
    /// Norm weights of a query and a key head, and epsilon.
    pub(super) qk_norm: Option<(Vec<f32>, Vec<f32>, f32)>,
    /// `[longest, head_dim]`: cosines, then sines.
    pub(super) rope: Vec<f32>,
    pub(super) positions: Vec<u32>,
    /// Keys and values before the batch, in plain layout; NaN where nothing was stored.
    pub(super) cached: (Vec<f32>, Vec<f32>),
    cu_seqlens_q: Vec<u32>,
    context_lens: Vec<u32>,
    pub(super) slot_mapping: Vec<i32>,
    block_tables: Vec<i32>,
    table_stride: usize,
}

/// The layer that is used; there are others beside it.
pub(super) const LAYER: usize = 1;

impl Batch {
    pub(super) fn new(shape: &Shape, dtype: DType) -> Self {
        let Shape { heads, block_size, ref sequences, normed, seed } = *shape;
        let mut random = Random::new(seed);
        let lens: Vec<usize> = sequences.iter().map(|(cached, new)| cached + new).collect();
        let counts: Vec<usize> = lens.iter().map(|len| len.div_ceil(block_size)).collect();
        let num_blocks = counts.iter().sum::<usize>() + 2;
        let mut free: Vec<i32> = (0..num_blocks as i32).collect();
        random.shuffle(&mut free);
        // Wider than any sequence needs.
        let table_stride = counts.iter().max().map_or(1, |n| n + 1);
        let mut block_tables = vec![-1; sequences.len() * table_stride];
        for (table, &count) in block_tables.chunks_mut(table_stride).zip(&counts) {
            table[..count].copy_from_slice(&free.split_off(free.len() - count));
        }
        let spec = KvCacheSpec {
            num_layers: 3,
            num_blocks,
            block_size,
            num_kv_heads: heads.num_kv_heads,
            head_dim: heads.head_dim,
            dtype,
        };
        let width = heads.kv_size();
        let mut cached = (vec![f32::NAN; spec.layer_len()], vec![f32::NAN; spec.layer_len()]);
        let (mut cu_seqlens_q, mut positions, mut slot_mapping) = (vec![0], Vec::new(), Vec::new());
        for (s, &(before, new)) in sequences.iter().enumerate() {
            let table = &block_tables[s * table_stride..][..table_stride];
            for position in 0..before + new {
                let slot = table[position / block_size] as usize * block_size + position % block_size;
                // A row without a slot is one whose key and value are there already.
                let stored = position >= before && random.below(10) > 0;
                if !stored {
                    for side in [&mut cached.0, &mut cached.1] {
                        side[slot * width..][..width].copy_from_slice(&rounded(dtype, &random.values(width)));
                    }
                }
                if position >= before {
                    positions.push(position as u32);
                    slot_mapping.push(if stored { slot as i32 } else { -1 });
                }
            }
            cu_seqlens_q.push(positions.len() as u32);
        }
        let mut vector = |n| random.values(n);
        Self {
            qkv: vector(positions.len() * heads.qkv_size()),
            qk_norm: normed.then(|| (vector(heads.head_dim), vector(heads.head_dim), 1e-6)),
            rope: rope_table(lens.iter().copied().max().unwrap_or(0), heads.head_dim),
            heads,
            spec,
            positions,
            cached,
            cu_seqlens_q,
            context_lens: lens.iter().map(|&len| len as u32).collect(),
            slot_mapping,
            block_tables,
            table_stride,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.positions.len()
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            cu_seqlens_q: &self.cu_seqlens_q,
            context_lens: &self.context_lens,
            slot_mapping: &self.slot_mapping,
            block_tables: &self.block_tables,
            table_stride: self.table_stride,
        }
    }

    /// The part of row `row` of `qkv` that starts at `start`, head `head` of it.
    pub(super) fn head<'a>(&self, qkv: &'a [f32], row: usize, start: usize, head: usize) -> &'a [f32] {
        let dim = self.heads.head_dim;
        &qkv[row * self.heads.qkv_size() + start + head * dim..][..dim]
    }

    /// The rotary table's row of `row`'s position.
    pub(super) fn rope_row(&self, row: usize) -> &[f32] {
        let dim = self.heads.head_dim;
        &self.rope[self.positions[row] as usize * dim..][..dim]
    }

    /// Stores the batch on the device: the new `qkv`, and the cache.
    pub(super) fn store<B: Backend>(&self, backend: &B) -> (B::Tensor, B::KvCache) {
        let dim = self.heads.head_dim;
        let mut cache = backend.kv_cache(&self.spec).expect("a small cache");
        backend.write_kv_cache(&mut cache, LAYER, &self.cached.0, &self.cached.1).expect("of the right length");
        let mut qkv = upload(backend, &self.qkv, self.rows(), self.heads.qkv_size());
        let rope = upload(backend, &self.rope, self.rope.len() / dim, dim);
        let norms =
            self.qk_norm.as_ref().map(|(q, k, eps)| (upload(backend, q, 1, dim), upload(backend, k, 1, dim), *eps));
        let norms = norms.as_ref().map(|(q, k, eps)| (q, k, *eps));
        backend.norm_rope_store(
            &mut qkv,
            &self.heads,
            norms,
            &rope,
            &self.positions,
            &mut cache,
            LAYER,
            &self.context(),
        );
        (qkv, cache)
    }
}

fn rope_table(positions: usize, head_dim: usize) -> Vec<f32> {
    let angle = |position: usize, i: usize| position as f64 * 10000f64.powf(-2.0 * i as f64 / head_dim as f64);
    (0..positions)
        .flat_map(|position| {
            let cos = (0..head_dim / 2).map(move |i| angle(position, i).cos() as f32);
            cos.chain((0..head_dim / 2).map(move |i| angle(position, i).sin() as f32))
        })
        .collect()
}
