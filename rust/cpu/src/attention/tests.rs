//! Attention through the paged cache against a plain f64 reference, and against itself in other batches.

use nanovllm_backend::{Context, DType, HeadLayout, KvCacheSpec};
use proptest::prelude::*;

use super::{AttentionKernels, Scratch, attention};
use crate::isa::Isa;
use crate::kv_cache::{KvCache, norm_rope_store};
use crate::rows::RowKernels;
use crate::team::Team;
use crate::tensor::Tensor;
use crate::testing::{Random, nmse, tensor};

/// A sequence with its rows `[queries | keys | values]` and its blocks.
struct Sequence {
    rows: Vec<f32>,
    tokens: usize,
    blocks: Vec<i32>,
}

/// Sequences in one cache, and where attention's results for them are collected.
struct World {
    isa: Isa,
    team: Team,
    scratch: Scratch,
    heads: HeadLayout,
    cache: KvCache,
    sequences: Vec<Sequence>,
    outputs: Vec<Vec<f32>>,
    done: Vec<usize>,
}

const LAYER: usize = 1;

impl World {
    /// Sequences with the given numbers of tokens; the data of sequence `s` depends on `seeds[s]` alone.
    fn new(
        isa: Isa,
        threads: usize,
        heads: HeadLayout,
        block_size: usize,
        dtype: DType,
        lens: &[(u64, usize)],
    ) -> Self {
        let num_blocks = lens.iter().map(|&(_, n)| n.div_ceil(block_size)).sum::<usize>() + 1;
        let HeadLayout { num_kv_heads, head_dim, .. } = heads;
        let spec = KvCacheSpec { num_layers: 2, num_blocks, block_size, num_kv_heads, head_dim, dtype };
        let mut cache = KvCache::new(&spec, isa).expect("a small cache");
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
            isa,
            team: Team::new(threads).expect("threads"),
            scratch: Scratch::new(threads),
            heads,
            cache,
            outputs: sequences.iter().map(|s| vec![f32::NAN; s.tokens * heads.q_size()]).collect(),
            done: vec![0; sequences.len()],
            sequences,
        }
    }

    /// Runs one step: the next `n` tokens of each listed sequence. Attention is skipped on request.
    fn step(&mut self, batch: &[(usize, usize)], attend: bool) {
        let (width, out_width) = (self.heads.qkv_size(), self.heads.q_size());
        let block_size = self.cache.spec().block_size;
        let stride = self.sequences.iter().map(|s| s.blocks.len()).max().unwrap_or(0) + 1;
        let (mut qkv, mut positions, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let (mut offsets, mut lens, mut tables) = (vec![0u32], Vec::new(), Vec::new());
        for &(s, n) in batch {
            let sequence = &self.sequences[s];
            let from = self.done[s];
            qkv.extend_from_slice(&sequence.rows[from * width..(from + n) * width]);
            for p in from..from + n {
                positions.push(p as u32);
                slots.push(sequence.blocks[p / block_size] * block_size as i32 + (p % block_size) as i32);
            }
            offsets.push(positions.len() as u32);
            lens.push((from + n) as u32);
            tables.extend_from_slice(&sequence.blocks);
            tables.resize(lens.len() * stride, -1);
            self.done[s] += n;
        }
        let rows = positions.len();
        let context = Context {
            cu_seqlens_q: &offsets,
            context_lens: &lens,
            slot_mapping: &slots,
            block_tables: &tables,
            table_stride: stride,
        };
        let mut qkv = tensor(&qkv, rows, width);
        let (half, positions_max) = (self.heads.head_dim / 2, *positions.iter().max().unwrap_or(&0) as usize + 1);
        let identity: Vec<f32> =
            (0..positions_max * 2 * half).map(|i| f32::from(u8::from(i % (2 * half) < half))).collect();
        let rope = tensor(&identity, positions_max, 2 * half);
        let row_kernels = RowKernels::new(self.isa);
        let (team, cache) = (&self.team, &mut self.cache);
        norm_rope_store(team, &row_kernels, &mut qkv, &self.heads, None, &rope, &positions, cache, LAYER, &context);
        if !attend {
            return;
        }
        let mut out = Tensor::zeroed(rows, out_width).expect("small");
        let kernels = AttentionKernels::new(self.isa);
        attention(team, &kernels, &mut self.scratch, &qkv, &self.heads, cache, LAYER, &context, &mut out);
        for (i, &(s, n)) in batch.iter().enumerate() {
            let from = offsets[i] as usize * out_width;
            let to = (self.done[s] - n) * out_width;
            self.outputs[s][to..to + n * out_width].copy_from_slice(&out.as_slice()[from..from + n * out_width]);
        }
    }

    /// Attention of position `p` of sequence `s`, in f64 over keys and values as the cache rounds them, and queries rounded
    /// to bf16 or not.
    fn reference(&self, s: usize, p: usize, round_queries: bool) -> Vec<f64> {
        let HeadLayout { num_heads, num_kv_heads, head_dim } = self.heads;
        let (width, rows) = (self.heads.qkv_size(), &self.sequences[s].rows);
        let bf16 = self.cache.spec().dtype == DType::Bf16;
        let rounded = |x: f32, to_bf16: bool| f64::from(if to_bf16 { half::bf16::from_f32(x).to_f32() } else { x });
        let stored = |x: f32| rounded(x, bf16);
        let mut out = Vec::new();
        for h in 0..num_heads {
            let q = &rows[p * width + h * head_dim..][..head_dim];
            let k_at = self.heads.q_size() + h / (num_heads / num_kv_heads) * head_dim;
            let v_at = k_at + self.heads.kv_size();
            let scores: Vec<f64> = (0..=p)
                .map(|t| {
                    let k = &rows[t * width + k_at..][..head_dim];
                    q.iter().zip(k).map(|(&q, &k)| rounded(q, round_queries) * stored(k)).sum::<f64>()
                        / (head_dim as f64).sqrt()
                })
                .collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            for d in 0..head_dim {
                let weighed = |(t, s): (usize, &f64)| (s - max).exp() * stored(rows[t * width + v_at + d]);
                out.push(scores.iter().enumerate().map(weighed).sum::<f64>() / sum);
            }
        }
        out
    }

    fn output(&self, s: usize, p: usize) -> &[f32] {
        let width = self.heads.q_size();
        &self.outputs[s][p * width..][..width]
    }
}

fn heads() -> impl Strategy<Value = HeadLayout> {
    let dims = prop::sample::select(vec![2usize, 6, 16, 32, 64, 80, 96, 128, 256]);
    (1usize..3, prop::sample::select(vec![1usize, 2, 3, 4, 7]), dims).prop_map(|(kv, group, head_dim)| HeadLayout {
        num_heads: kv * group,
        num_kv_heads: kv,
        head_dim,
    })
}

fn block_size() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![256usize, 512, 16, 48, 5, 1])
}

fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::F32, DType::Bf16])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Over a bf16 cache AVX-512 BF16 rounds the queries too: close to the reference that does so, and near the other one.
    #[test]
    fn attention_is_softmax_of_scaled_products(
        heads in heads(), block_size in block_size(), dtype in dtype(), seed: u64,
        before in 0usize..700, queries in 1usize..20,
    ) {
        for isa in Isa::available() {
            let mut world = World::new(isa, 2, heads, block_size, dtype, &[(seed, before + queries)]);
            if before > 0 {
                world.step(&[(0, before)], false);
            }
            world.step(&[(0, queries)], true);
            let rounds = isa == Isa::Avx512Bf16 && dtype == DType::Bf16;
            for p in before..before + queries {
                let error = nmse(world.output(0, p), &world.reference(0, p, rounds));
                prop_assert!(error < 1e-9, "{isa}, position {p}: {error:e}");
                if rounds && heads.head_dim >= 16 {
                    let error = nmse(world.output(0, p), &world.reference(0, p, false));
                    prop_assert!(error < 2e-5, "{isa}, position {p}, against exact queries: {error:e}");
                }
            }
        }
    }
}

/// The bits of what a schedule gives for sequence 0.
fn bits(world: &World) -> Vec<u32> {
    world.outputs[0].iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Prefilled whole, in chunks, decoded one by one, beside other sequences, on other threads and blocks: the same bits.
    #[test]
    fn a_result_depends_on_its_sequence_alone(
        group in 1usize..5, head_dim in prop::sample::select(vec![8usize, 40, 64]), dtype in dtype(),
        sizes in (block_size(), block_size()), seed: u64, tokens in 1usize..540, chunk in 1usize..200,
    ) {
        let heads = HeadLayout { num_heads: group, num_kv_heads: 1, head_dim };
        for isa in Isa::available() {
            let mut whole = World::new(isa, 1, heads, sizes.0, dtype, &[(seed, tokens)]);
            whole.step(&[(0, tokens)], true);
            let expected = bits(&whole);
            prop_assert!(whole.outputs[0].iter().all(|x| x.is_finite()));

            let mut one_by_one = World::new(isa, 2, heads, sizes.1, dtype, &[(seed, tokens)]);
            for _ in 0..tokens {
                one_by_one.step(&[(0, 1)], true);
            }
            prop_assert_eq!(&bits(&one_by_one), &expected, "{} one by one", isa);

            let others = [(seed, tokens), (seed ^ 1, 300), (seed ^ 2, tokens)];
            let mut batch = World::new(isa, 3, heads, sizes.1, dtype, &others);
            batch.step(&[(1, 290)], true);
            while batch.done[0] < tokens {
                let n = chunk.min(tokens - batch.done[0]);
                let mut rows = vec![(2, n), (0, n)];
                if batch.done[1] < 300 {
                    rows.insert(1, (1, 1));
                }
                batch.step(&rows, true);
            }
            prop_assert_eq!(&bits(&batch), &expected, "{} in chunks of {} beside others", isa, chunk);
        }
    }
}

#[test]
fn enormous_scores_stay_finite() {
    for isa in Isa::available() {
        let heads = HeadLayout { num_heads: 1, num_kv_heads: 1, head_dim: 4 };
        let mut world = World::new(isa, 1, heads, 16, DType::F32, &[(1, 600)]);
        for x in &mut world.sequences[0].rows {
            *x *= 1e6;
        }
        world.step(&[(0, 600)], true);
        assert!(world.outputs[0].iter().all(|x| x.is_finite()), "{isa}");
    }
}
