//! Sequences that attend through a paged cache step by step, and the same in plain f64.

use nanovllm_backend::{
    AttentionOptions, Context, DType, HeadLayout, HeadNorms, KvCacheSpec, KvHeads, LayerCache, default_scale,
};

use crate::attention::{Scratch, attention};
use crate::isa::Isa;
use crate::kv_cache::KvCache;
use crate::store::norm_rope_store;
use crate::team::Team;
use crate::tensor::Tensor;
use crate::testing::{Random, kernels, tensor};

/// How a world attends.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// The scale over the usual one.
    pub(super) scale: f64,
    pub(super) window: Option<usize>,
    pub(super) soft_cap: Option<f32>,
    /// Where the sinks of all heads lie, and the seed of their differences.
    pub(super) sinks: Option<(f32, u64)>,
}

impl Options {
    pub(super) const PLAIN: Self = Self { scale: 1.0, window: None, soft_cap: None, sinks: None };

    fn sinks(&self, heads: &HeadLayout) -> Option<Vec<f32>> {
        let (level, seed) = self.sinks?;
        Some(Random::new(seed).values(heads.num_heads).iter().map(|x| level + x).collect())
    }

    /// The first position that `p` sees.
    pub(super) fn first_seen(&self, p: usize) -> usize {
        (p + 1).saturating_sub(self.window.unwrap_or(usize::MAX))
    }
}

/// What the sequences of a world live in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) isa: Isa,
    pub(super) threads: usize,
    pub(super) block_size: usize,
    pub(super) dtype: DType,
    /// Read what the layer before has stored, with queries alone.
    pub(super) shared: bool,
}

/// A sequence with its rows `[queries | keys | values]` and its blocks.
pub(super) struct Sequence {
    pub(super) rows: Vec<f32>,
    tokens: usize,
    blocks: Vec<i32>,
}

/// Sequences in one cache, and where attention's results for them are collected.
pub(super) struct World {
    place: Place,
    team: Team,
    scratch: Scratch,
    heads: HeadLayout,
    options: Options,
    cache: KvCache,
    pub(super) sequences: Vec<Sequence>,
    pub(super) outputs: Vec<Vec<f32>>,
    pub(super) done: Vec<usize>,
}

/// The layer that stores, and the one that shares its storage.
const LAYER: usize = 1;
const SHARED: usize = 2;

impl World {
    /// Sequences with the given numbers of tokens; the data of sequence `s` depends on `lens[s]` alone.
    pub(super) fn new(place: Place, heads: HeadLayout, options: &Options, lens: &[(u64, usize)]) -> Self {
        let Place { isa, threads, block_size, dtype, .. } = place;
        let num_blocks = lens.iter().map(|&(_, n)| n.div_ceil(block_size)).sum::<usize>() + 1;
        let HeadLayout { num_kv_heads, head_dim, .. } = heads;
        let layers = vec![
            LayerCache::Full(KvHeads { num_kv_heads: 3, head_dim: 10 }),
            LayerCache::Full(KvHeads { num_kv_heads, head_dim }),
            LayerCache::Shared(LAYER),
        ];
        let mut cache = KvCache::new(&KvCacheSpec { num_blocks, block_size, dtype, layers }, &kernels(isa).attention)
            .expect("a small cache");
        cache.poison();
        // Blocks in an order that depends on the sequences.
        let mut free: Vec<i32> = (0..num_blocks as i32).collect();
        let mut random = Random::new(lens.iter().fold(0, |all, &(seed, _)| all ^ seed));
        for i in (1..free.len()).rev() {
            free.swap(i, random.below(i + 1));
        }
        let mut sequences = Vec::new();
        for &(seed, tokens) in lens {
            let rows = Random::new(seed).values(tokens * heads.qkv_size());
            let blocks = free.split_off(free.len() - tokens.div_ceil(block_size));
            sequences.push(Sequence { rows, tokens, blocks });
        }
        Self {
            place,
            team: Team::new(threads).expect("threads"),
            scratch: Scratch::new(threads),
            heads,
            options: options.clone(),
            cache,
            outputs: sequences.iter().map(|s| vec![f32::NAN; s.tokens * heads.q_size()]).collect(),
            done: vec![0; sequences.len()],
            sequences,
        }
    }

    /// Runs one step: the next `n` tokens of each listed sequence. Attention is skipped on request.
    pub(super) fn step(&mut self, batch: &[(usize, usize)], attend: bool) {
        let (width, out_width) = (self.heads.qkv_size(), self.heads.q_size());
        let block_size = self.place.block_size;
        let stride = self.sequences.iter().map(|s| s.blocks.len()).max().unwrap_or(0) + 1;
        let (mut qkv, mut slots) = (Vec::new(), Vec::new());
        let (mut offsets, mut lens, mut tables) = (vec![0u32], Vec::new(), Vec::new());
        for &(s, n) in batch {
            let sequence = &self.sequences[s];
            let from = self.done[s];
            qkv.extend_from_slice(&sequence.rows[from * width..(from + n) * width]);
            for p in from..from + n {
                slots.push(sequence.blocks[p / block_size] * block_size as i32 + (p % block_size) as i32);
            }
            offsets.push(slots.len() as u32);
            lens.push((from + n) as u32);
            tables.extend_from_slice(&sequence.blocks);
            tables.resize(lens.len() * stride, -1);
            self.done[s] += n;
        }
        let rows = slots.len();
        let context = Context {
            cu_seqlens_q: &offsets,
            context_lens: &lens,
            slot_mapping: &slots,
            block_tables: &tables,
            table_stride: stride,
        };
        let queries: Vec<f32> = qkv.chunks(width).flat_map(|row| &row[..out_width]).copied().collect();
        let mut qkv = tensor(&qkv, rows, width);
        let kernels = kernels(self.place.isa);
        let norms = HeadNorms::NONE;
        norm_rope_store(
            &self.team,
            &kernels.rows,
            &mut qkv,
            &self.heads,
            &norms,
            None,
            &mut self.cache,
            LAYER,
            &context,
        );
        if !attend {
            return;
        }
        let (qkv, layer) = if self.place.shared { (tensor(&queries, rows, out_width), SHARED) } else { (qkv, LAYER) };
        let sinks = self.options.sinks(&self.heads).map(|sinks| tensor(&sinks, 1, sinks.len()));
        let options = AttentionOptions {
            scale: self.options.scale * default_scale(self.heads.head_dim),
            window: self.options.window,
            soft_cap: self.options.soft_cap,
            sinks: sinks.as_ref(),
        };
        let mut out = Tensor::zeroed(rows, out_width).expect("small");
        attention(
            &self.team,
            &kernels.attention,
            &mut self.scratch,
            &qkv,
            &self.heads,
            &options,
            &self.cache,
            layer,
            &context,
            &mut out,
        );
        for (i, &(s, n)) in batch.iter().enumerate() {
            let from = offsets[i] as usize * out_width;
            let to = (self.done[s] - n) * out_width;
            self.outputs[s][to..to + n * out_width].copy_from_slice(&out.as_slice()[from..from + n * out_width]);
        }
    }

    /// Stores the next `tokens` of a sequence, of which the first `forgotten` become NaN, and takes the blocks that hold
    /// nothing else from its table.
    pub(super) fn store(&mut self, s: usize, tokens: usize, forgotten: usize) {
        let width = self.heads.qkv_size();
        self.sequences[s].rows[..forgotten * width].fill(f32::NAN);
        self.step(&[(s, tokens)], false);
        self.sequences[s].blocks[..forgotten / self.place.block_size].fill(-1);
    }

    /// Attention of position `p` of sequence `s`, in f64 over keys and values as the cache rounds them, and queries rounded
    /// to bf16 or not.
    pub(super) fn reference(&self, s: usize, p: usize, round_queries: bool) -> Vec<f64> {
        let HeadLayout { num_heads, num_kv_heads, head_dim } = self.heads;
        let (width, rows) = (self.heads.qkv_size(), &self.sequences[s].rows);
        let bf16 = self.place.dtype == DType::Bf16;
        let rounded = |x: f32, to_bf16: bool| f64::from(if to_bf16 { half::bf16::from_f32(x).to_f32() } else { x });
        let stored = |x: f32| rounded(x, bf16);
        let capped = |score: f64| self.options.soft_cap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh());
        let sinks = self.options.sinks(&self.heads);
        let mut out = Vec::new();
        for h in 0..num_heads {
            let q = &rows[p * width + h * head_dim..][..head_dim];
            let k_at = self.heads.q_size() + h / (num_heads / num_kv_heads) * head_dim;
            let v_at = k_at + self.heads.kv_size();
            let scores: Vec<(usize, f64)> = (self.options.first_seen(p)..=p)
                .map(|t| {
                    let k = &rows[t * width + k_at..][..head_dim];
                    let product: f64 = q.iter().zip(k).map(|(&q, &k)| rounded(q, round_queries) * stored(k)).sum();
                    (t, capped(product * self.options.scale / (head_dim as f64).sqrt()))
                })
                .collect();
            let sink = sinks.as_ref().map(|sinks| f64::from(sinks[h]));
            let max = scores.iter().map(|&(_, s)| s).chain(sink).fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|&(_, s)| s).chain(sink).map(|s| (s - max).exp()).sum();
            for d in 0..head_dim {
                let weighed = |&(t, s): &(usize, f64)| (s - max).exp() * stored(rows[t * width + v_at + d]);
                out.push(scores.iter().map(weighed).sum::<f64>() / sum);
            }
        }
        out
    }

    pub(super) fn output(&self, s: usize, p: usize) -> &[f32] {
        let width = self.heads.q_size();
        &self.outputs[s][p * width..][..width]
    }
}
