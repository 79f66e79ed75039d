//! Norms, rotation and storing against a plain f64 reference.

use nanovllm_backend::{Context, DType, HeadLayout, HeadNorm, HeadNorms, KvCacheSpec, KvHeads, LayerCache, Rope};
use proptest::prelude::*;

use super::norm_rope_store;
use crate::isa::Isa;
use crate::kv_cache::KvCache;
use crate::kv_cache::tests::kv_heads;
use crate::team::Team;
use crate::tensor::Tensor;
use crate::testing::{Random, kernels, nmse, tensor};

const POSITIONS: usize = 50;
/// The layer that is written, and the one that shares its storage.
const LAYER: usize = 1;
const SHARED: usize = 3;

/// The norm of a kind of head: its weight, if it has one, and its epsilon.
#[derive(Debug, Clone, Copy)]
struct Norm {
    weighed: bool,
    eps: f32,
}

fn norm() -> impl Strategy<Value = Option<Norm>> {
    prop::option::of((any::<bool>(), prop::sample::select(vec![1e-6f32, 1e-5, 0.1])))
        .prop_map(|norm| norm.map(|(weighed, eps)| Norm { weighed, eps }))
}

/// A norm as the reference takes it.
type Plain<'a> = Option<(Option<&'a [f32]>, f32)>;

/// Norm and rotation of one head; `rope` holds the cosines of its position, then the sines.
fn reference(x: &[f32], norm: Plain<'_>, rope: &[f32]) -> Vec<f64> {
    let dim = x.len();
    let mut x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    if let Some((weight, eps)) = norm {
        let factor = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / dim as f64 + f64::from(eps)).sqrt();
        for (d, x) in x.iter_mut().enumerate() {
            *x *= factor * weight.map_or(1.0, |weight| f64::from(weight[d]));
        }
    }
    let half = rope.len() / 2;
    let angle = |i: usize| (f64::from(rope[i]), f64::from(rope[half + i]));
    let rotated = |d: usize| match d {
        d if d < half => x[d] * angle(d).0 - x[d + half] * angle(d).1,
        d if d < 2 * half => x[d] * angle(d - half).0 + x[d - half] * angle(d - half).1,
        d => x[d],
    };
    (0..dim).map(rotated).collect()
}

/// A batch of rows with what is done to them.
struct Case {
    heads: HeadLayout,
    spec: KvCacheSpec,
    rows: usize,
    data: Vec<f32>,
    norms: [Option<Norm>; 3],
    /// Weights of the norms of query, key and value heads.
    weights: [Vec<f32>; 3],
    /// Columns of the rotary table and its values.
    rope: Option<(usize, Vec<f32>)>,
    positions: Vec<u32>,
    slots: Vec<i32>,
}

impl Case {
    fn new(
        (kv, others): (KvHeads, [KvHeads; 2]),
        group: usize,
        (block_size, dtype): (usize, DType),
        rows: usize,
        norms: [Option<Norm>; 3],
        width: Option<usize>,
        seed: u64,
    ) -> Self {
        let KvHeads { num_kv_heads, head_dim } = kv;
        let heads = HeadLayout { num_heads: num_kv_heads * group, num_kv_heads, head_dim };
        let mut random = Random::new(seed);
        let num_blocks = rows.div_ceil(block_size) + 2;
        let window = LayerCache::SlidingWindow { heads: others[1], window: 2 };
        let layers = vec![LayerCache::Full(others[0]), LayerCache::Full(kv), window, LayerCache::Shared(LAYER)];
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
        Self {
            heads,
            spec: KvCacheSpec { num_blocks, block_size, dtype, layers },
            rows,
            data: random.values(rows * heads.qkv_size()),
            norms,
            weights: [(); 3].map(|()| random.values(head_dim)),
            rope: width.map(|width| (width, random.values(POSITIONS * width))),
            positions: (0..rows).map(|_| random.below(POSITIONS) as u32).collect(),
            slots,
        }
    }

    /// Runs the operation on `layer`; the rows are those of the case, or their queries alone.
    fn run(&self, isa: Isa, threads: usize, cache: &mut KvCache, layer: usize) -> Tensor {
        let row = if layer == SHARED { self.heads.q_size() } else { self.heads.qkv_size() };
        let data: Vec<f32> = self.data.chunks(self.heads.qkv_size()).flat_map(|all| &all[..row]).copied().collect();
        let mut qkv = tensor(&data, self.rows, row);
        let weights = self.weights.each_ref().map(|weight| tensor(weight, 1, weight.len()));
        let norm = |i: usize| {
            let weight = |norm: Norm| norm.weighed.then_some(&weights[i]);
            self.norms[i].map(|norm| HeadNorm { weight: weight(norm), eps: norm.eps })
        };
        let norms = HeadNorms { q: norm(0), k: norm(1), v: norm(2) };
        let table = self.rope.as_ref().map(|(width, data)| tensor(data, POSITIONS, *width));
        let rope = table.as_ref().map(|table| Rope { table, positions: &self.positions });
        let context = Context {
            cu_seqlens_q: &[],
            context_lens: &[],
            slot_mapping: &self.slots,
            block_tables: &[],
            table_stride: 0,
        };
        let team = Team::new(threads).expect("threads");
        norm_rope_store(&team, &kernels(isa).rows, &mut qkv, &self.heads, &norms, rope, cache, layer, &context);
        qkv
    }

    /// What the reference makes of the query, key or value heads of a row: `kind` 0, 1 or 2.
    fn expected(&self, row: usize, kind: usize) -> Vec<f64> {
        let HeadLayout { head_dim, .. } = self.heads;
        let (from, len) = match kind {
            0 => (0, self.heads.q_size()),
            1 => (self.heads.q_size(), self.heads.kv_size()),
            _ => (self.heads.q_size() + self.heads.kv_size(), self.heads.kv_size()),
        };
        let norm = self.norms[kind].map(|norm| (norm.weighed.then_some(&self.weights[kind][..]), norm.eps));
        let rope = match &self.rope {
            Some((width, data)) if kind < 2 => &data[self.positions[row] as usize * width..][..*width],
            _ => &[],
        };
        let heads = self.data[row * self.heads.qkv_size() + from..][..len].chunks(head_dim);
        heads.flat_map(|head| reference(head, norm, rope)).collect()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_are_normed_rotated_and_stored(
        kv in kv_heads(), others in [kv_heads(), kv_heads()], group in 1usize..4, block_size in 1usize..40, bf16: bool,
        norms in [norm(), norm(), norm()], width in prop::option::weighted(0.8, prop_oneof![Just(1.0), 0f64..1.0]),
        rows in 1usize..30, seed: u64,
    ) {
        let dtype = if bf16 { DType::Bf16 } else { DType::F32 };
        let width = width.map(|part| ((kv.head_dim / 2) as f64 * part) as usize * 2);
        let case = Case::new((kv, others), group, (block_size, dtype), rows, norms, width, seed);
        let Case { heads, slots, .. } = &case;
        let mut first: Option<Vec<u32>> = None;
        for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
            let mut cache = KvCache::new(&case.spec, &kernels(isa).attention).expect("small");
            cache.poison();
            let qkv = case.run(isa, threads, &mut cache, LAYER);
            if threads == 1 {
                first = Some(bits(qkv.as_slice()));
            } else {
                prop_assert_eq!(Some(bits(qkv.as_slice())), first.take(), "{} threads", isa);
            }

            let stored = |x: f64| if bf16 { f64::from(half::bf16::from_f32(x as f32).to_f32()) } else { x };
            let blocks: Vec<_> = (0..case.spec.num_blocks).map(|b| cache.copy_block(LAYER, b)).collect();
            for (row, &slot) in slots.iter().enumerate() {
                prop_assert!(nmse(&qkv.row(row)[..heads.q_size()], &case.expected(row, 0)) < 1e-10, "{isa} queries");
                let Ok(slot) = usize::try_from(slot) else { continue };
                let k: Vec<f64> = case.expected(row, 1).into_iter().map(stored).collect();
                let v: Vec<f64> = case.expected(row, 2).into_iter().map(stored).collect();
                let at = slot % block_size * heads.kv_size()..(slot % block_size + 1) * heads.kv_size();
                let (keys, values) = &blocks[slot / block_size];
                // A value next to a tie may round the other way.
                let most = if bf16 { 1e-5 } else { 1e-10 };
                prop_assert!(nmse(&keys[at.clone()], &k) < most, "{isa} keys");
                prop_assert!(nmse(&values[at.clone()], &v) < most, "{isa} values");
                if norms[2].is_none() {
                    prop_assert_eq!(nmse(&values[at], &v), 0.0, "{} values as they are", isa);
                }
            }
            let written = slots.iter().filter(|&&slot| slot >= 0).count() * heads.kv_size();
            for side in [|b: &(Vec<f32>, Vec<f32>)| b.0.clone(), |b: &(Vec<f32>, Vec<f32>)| b.1.clone()] {
                let finite = blocks.iter().flat_map(side).filter(|x| !x.is_nan()).count();
                prop_assert_eq!(finite, written, "slots other than the rows' are untouched");
            }
            for layer in [0, 2] {
                let (keys, values) = cache.copy_layer(layer);
                prop_assert!(keys.iter().chain(&values).all(|x| x.is_nan()), "layer {layer} is untouched");
            }

            // A layer that shares the cache has queries alone, does the same with them and stores nothing.
            cache.poison();
            let queries = case.run(isa, threads, &mut cache, SHARED);
            for row in 0..rows {
                prop_assert_eq!(bits(queries.row(row)), bits(&qkv.row(row)[..heads.q_size()]), "{} shared", isa);
            }
            for layer in 0..case.spec.layers.len() {
                let (keys, values) = cache.copy_layer(layer);
                prop_assert!(keys.iter().chain(&values).all(|x| x.is_nan()), "layer {layer} is untouched");
            }
        }
    }
}
