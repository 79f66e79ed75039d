//! Ragged batches over a paged cache: prefill, chunks after a cached prefix and decode side by side.

use super::random::{Random, rounded, upload};
use super::reference::{self, Norm};
use super::shape::{BatchShape, NormKind, Options};
use crate::{
    AttentionOptions, Backend, Context, DType, HeadLayout, HeadNorm, HeadNorms, Inspect, KvCacheSpec, KvHeads,
    LayerCache, Rope, default_scale,
};

/// A batch on the host: what the device is given, and the cache before it.
pub(super) struct Batch {
    pub(super) heads: HeadLayout,
    pub(super) spec: KvCacheSpec,
    /// The layer that runs: [`LAYER`], or one that shares its cache.
    pub(super) layer: usize,
    /// `[rows, row_size]`.
    pub(super) qkv: Vec<f32>,
    /// Of query, key and value heads.
    norms: [Option<Norm>; 3],
    rope: Option<Rotary>,
    pub(super) options: Options,
    /// Keys and values of [`LAYER`] before the batch, in plain layout; NaN where nothing was stored or nothing looks.
    pub(super) cached: (Vec<f32>, Vec<f32>),
    cu_seqlens_q: Vec<u32>,
    context_lens: Vec<u32>,
    pub(super) slot_mapping: Vec<i32>,
    block_tables: Vec<i32>,
    table_stride: usize,
}

struct Rotary {
    /// `[longest, width]`: cosines, then sines.
    table: Vec<f32>,
    width: usize,
    positions: Vec<u32>,
}

/// Heads of a row of `qkv`.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Queries,
    Keys,
    Values,
}

/// The layer whose keys and values are used; there are others beside it, of other widths.
pub(super) const LAYER: usize = 1;
/// The layer that shares them.
const SHARED: usize = 4;

fn layers(heads: KvHeads, window: Option<usize>) -> Vec<LayerCache> {
    let other = KvHeads { num_kv_heads: heads.num_kv_heads + 1, head_dim: 10 };
    vec![
        LayerCache::Full(other),
        window.map_or(LayerCache::Full(heads), |window| LayerCache::SlidingWindow { heads, window }),
        LayerCache::SlidingWindow { heads: KvHeads { num_kv_heads: 1, head_dim: 4 }, window: 3 },
        LayerCache::Shared(0),
        LayerCache::Shared(LAYER),
    ]
}

impl Batch {
    pub(super) fn new(shape: &BatchShape, dtype: DType) -> Self {
        let BatchShape { heads, block_size, ref sequences, shared, sliding, norms, rotated, ref options, seed } =
            *shape;
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
        let stored = KvHeads { num_kv_heads: heads.num_kv_heads, head_dim: heads.head_dim };
        let layers = layers(stored, options.window.filter(|_| sliding));
        let spec = KvCacheSpec { num_blocks, block_size, dtype, layers };
        let width = heads.kv_size();
        let mut cached = (vec![f32::NAN; spec.layer_len(LAYER)], vec![f32::NAN; spec.layer_len(LAYER)]);
        let (mut cu_seqlens_q, mut positions, mut slot_mapping) = (vec![0], Vec::new(), Vec::new());
        for (s, &(before, new)) in sequences.iter().enumerate() {
            let table = &block_tables[s * table_stride..][..table_stride];
            for position in 0..before + new {
                let slot = table[position / block_size] as usize * block_size + position % block_size;
                // A row without a slot is one whose key and value are there already, as all are of a layer that shares.
                let skipped = position >= before && random.below(10) == 0;
                let stored = position >= before && !skipped && !shared;
                if !stored && position >= options.first_seen(before) {
                    for side in [&mut cached.0, &mut cached.1] {
                        side[slot * width..][..width].copy_from_slice(&rounded(dtype, &random.values(width)));
                    }
                }
                if position >= before {
                    positions.push(position as u32);
                    slot_mapping.push(if skipped { -1 } else { slot as i32 });
                }
            }
            cu_seqlens_q.push(positions.len() as u32);
        }
        let row_size = if shared { heads.q_size() } else { heads.qkv_size() };
        let qkv = random.values(positions.len() * row_size);
        let longest = lens.iter().copied().max().unwrap_or(0);
        Self {
            qkv,
            norms: drawn_norms(&mut random, norms, heads.head_dim),
            rope: rotated.map(|width| Rotary::new(&mut random, longest, width, positions)),
            options: drawn_options(&mut random, options, heads.num_heads),
            heads,
            spec,
            layer: if shared { SHARED } else { LAYER },
            cached,
            cu_seqlens_q,
            context_lens: lens.iter().map(|&len| len as u32).collect(),
            slot_mapping,
            block_tables,
            table_stride,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.slot_mapping.len()
    }

    /// Whether the batch brings keys and values.
    pub(super) fn stores(&self) -> bool {
        self.layer == LAYER
    }

    /// Width of a row of `qkv`.
    fn row_size(&self) -> usize {
        if self.stores() { self.heads.qkv_size() } else { self.heads.q_size() }
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

    /// The heads `part` of row `row` of `qkv`.
    pub(super) fn part<'a>(&self, qkv: &'a [f32], row: usize, part: Part) -> &'a [f32] {
        let (q, kv) = (self.heads.q_size(), self.heads.kv_size());
        let (start, width) = match part {
            Part::Queries => (0, q),
            Part::Keys => (q, kv),
            Part::Values => (q + kv, kv),
        };
        &qkv[row * self.row_size() + start..][..width]
    }

    /// The heads `part` of row `row` as they are attended with or stored.
    pub(super) fn normed_and_rotated(&self, row: usize, part: Part) -> Vec<f64> {
        let (norm, rope) = self.treatment(part);
        let rope = rope.map(|rope| rope.row(row));
        let heads = self.part(&self.qkv, row, part).chunks(self.heads.head_dim);
        heads.flat_map(|head| reference::norm_rope(head, norm, rope)).collect()
    }

    /// The first dimension of each head of `part` that is neither normed nor rotated.
    pub(super) fn first_untouched(&self, part: Part) -> usize {
        match self.treatment(part) {
            (Some(_), _) => self.heads.head_dim,
            (None, rope) => rope.map_or(0, |rope| rope.width),
        }
    }

    fn treatment(&self, part: Part) -> (Option<&Norm>, Option<&Rotary>) {
        let [q, k, v] = &self.norms;
        match part {
            Part::Queries => (q.as_ref(), self.rope.as_ref()),
            Part::Keys => (k.as_ref(), self.rope.as_ref()),
            Part::Values => (v.as_ref(), None),
        }
    }

    /// Stores the batch on the device: the new `qkv`, and the cache.
    pub(super) fn store<B: Inspect>(&self, backend: &B) -> (B::Tensor, B::KvCache) {
        let mut cache = backend.kv_cache(&self.spec).expect("a small cache");
        backend.write_kv_cache(&mut cache, LAYER, &self.cached.0, &self.cached.1).expect("of the right length");
        let mut qkv = upload(backend, &self.qkv, self.rows(), self.row_size());
        let weights = self.norms.each_ref().map(|norm| {
            let weight = norm.as_ref()?.weight.as_ref()?;
            Some(upload(backend, weight, 1, weight.len()))
        });
        let norm = |part: usize| {
            let Norm { eps, .. } = *self.norms[part].as_ref()?;
            Some(HeadNorm { weight: weights[part].as_ref(), eps })
        };
        let norms = HeadNorms { q: norm(0), k: norm(1), v: norm(2) };
        let tables = self.rope.as_ref().map(|rope| (rope, rope.upload(backend)));
        let rope = tables.as_ref().map(|(rope, table)| Rope { table, positions: &rope.positions });
        backend.norm_rope_store(&mut qkv, &self.heads, &norms, rope, &mut cache, self.layer, &self.context());
        (qkv, cache)
    }

    /// The batch's attention over `cache` on the device.
    pub(super) fn attention<B: Backend>(&self, backend: &B, qkv: &B::Tensor, cache: &B::KvCache, out: &mut B::Tensor) {
        let sinks = &self.options.sinks;
        let sinks = (!sinks.is_empty()).then(|| upload(backend, sinks, 1, sinks.len()));
        let options = AttentionOptions {
            scale: self.scale(),
            window: self.options.window,
            soft_cap: self.options.soft_cap,
            sinks: sinks.as_ref(),
        };
        backend.attention(qkv, &self.heads, &options, cache, self.layer, &self.context(), out);
    }

    pub(super) fn scale(&self) -> f64 {
        self.options.scale.unwrap_or_else(|| default_scale(self.heads.head_dim))
    }
}

/// Epsilons differ, and one of them is large, so that none is taken for another.
fn drawn_norms(random: &mut Random, kinds: [NormKind; 3], head_dim: usize) -> [Option<Norm>; 3] {
    let mut eps = [1e-6, 1e-2, 0.5];
    random.shuffle(&mut eps);
    let mut eps = eps.into_iter();
    kinds.map(|kind| {
        let eps = eps.next()?;
        match kind {
            NormKind::Absent => None,
            NormKind::Unweighted => Some(Norm { weight: None, eps }),
            NormKind::Weighted => Some(Norm { weight: Some(random.values(head_dim)), eps }),
        }
    })
}

fn drawn_options(random: &mut Random, options: &Options, num_heads: usize) -> Options {
    let levels = options.sinks.iter().cycle().take(if options.sinks.is_empty() { 0 } else { num_heads });
    Options { sinks: levels.map(|level| level + random.value()).collect(), ..options.clone() }
}

impl Rotary {
    /// Half of them look up other rows than those of the batch's positions: a device has only what it is given to go by.
    fn new(random: &mut Random, longest: usize, width: usize, mut positions: Vec<u32>) -> Self {
        if random.below(2) == 0 {
            random.shuffle(&mut positions);
        }
        Self { table: rope_table(longest, width), width, positions }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.table[self.positions[row] as usize * self.width..][..self.width]
    }

    fn upload<B: Backend>(&self, backend: &B) -> B::Tensor {
        upload(backend, &self.table, self.table.len() / self.width, self.width)
    }
}

fn rope_table(positions: usize, width: usize) -> Vec<f32> {
    let angle = |position: usize, i: usize| position as f64 * 10000f64.powf(-2.0 * i as f64 / width as f64);
    (0..positions)
        .flat_map(|position| {
            let cos = (0..width / 2).map(move |i| angle(position, i).cos() as f32);
            cos.chain((0..width / 2).map(move |i| angle(position, i).sin() as f32))
        })
        .collect()
}
