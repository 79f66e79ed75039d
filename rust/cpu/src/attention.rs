//! Paged causal attention over the team.
//!
//! The positions of a sequence are cut into fixed partitions of 256. A unit of work is a tile of query rows (neighbouring
//! positions times the query heads of one key/value head); it goes through the partitions in order and merges their softmaxes
//! in order. Where one unit is a large part of the whole, as in decoding few long sequences, its partitions are computed by
//! different threads and merged after a barrier, by the same formula in the same order. So a row's result depends on its
//! sequence alone.

mod plan;
mod scratch;

use nanovllm_backend::{Context, HeadLayout};

use crate::claims::Claims;
use crate::kernels::attention::{AttendTile, PARTITION, Partial};
use crate::kernels::cached::GROUP;
use crate::kernels::table::CacheKernels;
use crate::kv_cache::KvCache;
use crate::team::Team;
use crate::tensor::{SharedMut, Tensor};
use plan::Unit;
use scratch::{Sizes, ThreadScratch};

pub(crate) use crate::kernels::table::AttentionKernels;
pub(crate) use scratch::Scratch;

/// Multiply-adds from which waking the team pays: about two microseconds of work.
const TEAM_WORK: usize = 128 << 10;

/// Causal attention of the queries of `qkv` over the cached keys and values of `layer`.
pub(crate) fn attention(
    team: &Team,
    kernels: &AttentionKernels,
    scratch: &mut Scratch,
    qkv: &Tensor,
    heads: &HeadLayout,
    cache: &KvCache,
    layer: usize,
    context: &Context<'_>,
    out: &mut Tensor,
) {
    let spec = cache.spec();
    assert_eq!((qkv.cols(), out.cols()), (heads.qkv_size(), heads.q_size()), "columns of qkv and of the output");
    assert_eq!((spec.num_kv_heads, spec.head_dim), (heads.num_kv_heads, heads.head_dim), "heads of the KV cache");
    check(context, qkv.rows(), spec.block_size);
    out.set_rows(qkv.rows());

    let group = heads.num_heads / heads.num_kv_heads;
    let Scratch { plan, threads, partials } = scratch;
    plan.make(context, heads.num_kv_heads, group, team.size());
    let width = cache.layout().value_stride();
    let sizes = Sizes { rows: plan::tile_positions(group) * group, head_dim: heads.head_dim, width };
    for thread in threads.iter_mut() {
        thread.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).reserve(&sizes);
    }
    partials.reserve(plan.partial_rows, width);
    let call = Call {
        kernels: kernels.of(spec.dtype),
        heads,
        group,
        width,
        scale: std::f32::consts::LOG2_E / (heads.head_dim as f32).sqrt(),
        qkv,
        cache,
        layer,
        context,
        out: out.shared(),
        partials: partials.at(0, width),
    };

    let pieces = Claims::new(plan.pieces.len());
    let merges = Claims::new(plan.split.len());
    let plan = &*plan;
    let work = |rank: usize, barrier: &dyn Fn()| {
        // A rank is one thread, so nobody waits here.
        let mut guard = threads[rank].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while let Some(range) = pieces.take(1) {
            for piece in &plan.pieces[range] {
                match piece.part {
                    None => call.whole(&mut guard, &piece.unit),
                    Some(part) => call.part(&mut guard, &piece.unit, part, piece.slot),
                }
            }
        }
        if plan.split.is_empty() {
            return;
        }
        barrier();
        while let Some(range) = merges.take(1) {
            for (unit, slot) in &plan.split[range] {
                call.merge(unit, *slot);
            }
        }
    };
    if team.size() == 1 || plan.cost * heads.head_dim < TEAM_WORK {
        work(0, &|| ());
    } else {
        team.run(|me| work(me.rank, &|| me.barrier()));
    }
}

/// Panics unless the context describes `rows` rows and its tables reach over the sequences.
fn check(context: &Context<'_>, rows: usize, block_size: usize) {
    let offsets = context.cu_seqlens_q;
    assert_eq!(offsets.len(), context.num_seqs() + 1, "length of cu_seqlens_q");
    assert_eq!((offsets[0], offsets[offsets.len() - 1] as usize), (0, rows), "ends of cu_seqlens_q");
    for (s, &tokens) in context.context_lens.iter().enumerate() {
        assert!(offsets[s] <= offsets[s + 1], "cu_seqlens_q falls at sequence {s}");
        assert!(offsets[s + 1] - offsets[s] <= tokens, "sequence {s} has more rows than tokens");
        assert!((tokens as usize).div_ceil(block_size) <= context.block_table(s).len(), "block table of sequence {s}");
    }
}

/// What the threads share.
struct Call<'a> {
    kernels: &'a CacheKernels,
    heads: &'a HeadLayout,
    /// Query heads of a key/value head.
    group: usize,
    /// Values in a row of a partial result.
    width: usize,
    scale: f32,
    qkv: &'a Tensor,
    cache: &'a KvCache,
    layer: usize,
    context: &'a Context<'a>,
    out: SharedMut,
    partials: Partial,
}

// SAFETY: the pointers in `partials` are to scratch borrowed for the call; each piece writes its own rows of it, and merges read
// them after a barrier. Everything else is `Sync`.
unsafe impl Sync for Call<'_> {}

impl Call<'_> {
    /// Computes a unit from its first partition to its last.
    fn whole(&self, thread: &mut ThreadScratch, unit: &Unit) {
        let rows = unit.positions * self.group;
        self.prepare(thread, unit);
        let total = thread.total.at(0, self.width);
        self.attend(thread, unit, 0, total);
        for part in 1..unit.partitions() {
            let next = thread.next.at(0, self.width);
            let first = self.attend(thread, unit, part, next);
            // SAFETY: rows `first..rows` of both were written by partitions up to this one; the two do not overlap.
            unsafe {
                let (total, next) = (at(total, first, self.width), at(next, first, self.width));
                (self.kernels.merge)(total, next, rows - first, self.width, self.scale);
            }
        }
        self.finish(unit, total);
    }

    /// Computes one partition of a unit into its rows of the shared partial results.
    fn part(&self, thread: &mut ThreadScratch, unit: &Unit, part: usize, slot: usize) {
        self.prepare(thread, unit);
        let rows = unit.positions * self.group;
        // SAFETY: the plan gave the unit `rows` rows for each partition from `slot` on.
        let out = unsafe { at(self.partials, slot + part * rows, self.width) };
        self.attend(thread, unit, part, out);
    }

    /// Merges the partitions of a unit in order.
    fn merge(&self, unit: &Unit, slot: usize) {
        let rows = unit.positions * self.group;
        // SAFETY: as in `part`; the barrier has made all of it visible, and this unit is merged by one thread.
        unsafe {
            let total = at(self.partials, slot, self.width);
            for part in 1..unit.partitions() {
                let first = unit.first_row(part) * self.group;
                let next = at(self.partials, slot + part * rows + first, self.width);
                (self.kernels.merge)(at(total, first, self.width), next, rows - first, self.width, self.scale);
            }
            self.finish(unit, total);
        }
    }

    /// Converts the unit's queries.
    fn prepare(&self, thread: &mut ThreadScratch, unit: &Unit) {
        let HeadLayout { head_dim, .. } = *self.heads;
        let bytes = head_dim / 2 * self.kernels.query_bytes;
        let mut to = thread.queries.as_mut_ptr().cast::<u8>();
        for i in 0..unit.positions {
            let row = &self.qkv.row(unit.row + i)[unit.kv_head * self.group * head_dim..][..self.group * head_dim];
            for head in row.chunks_exact(head_dim) {
                // SAFETY: scratch has room for the queries of a tile; the kernels are for this machine.
                unsafe {
                    (self.kernels.prepare_query)(head.as_ptr(), head_dim / 2, to);
                    to = to.add(bytes);
                }
            }
        }
    }

    /// Attends over one partition, writing the rows of `out` that reach it; returns the first of them.
    fn attend(&self, thread: &mut ThreadScratch, unit: &Unit, part: usize, out: Partial) -> usize {
        let start = part * PARTITION;
        let first = unit.first_row(part);
        thread.valid.clear();
        for i in first..unit.positions {
            let n = (unit.position + i + 1 - start).min(PARTITION) as u32;
            thread.valid.extend(std::iter::repeat_n(n, self.group));
        }
        let tokens = (unit.position + unit.positions - start).min(PARTITION);
        let (keys, values) = self.locate(thread, unit, start, tokens);
        let (pairs, skipped) = (self.heads.head_dim / 2, first * self.group);
        // SAFETY: scratch is sized for the tile; queries are prepared; `locate` reaches over `tokens`, the largest of `valid`,
        // which ascends from at least 1; `out` has a row for each of the tile.
        unsafe {
            let queries = thread.queries.as_mut_ptr().cast::<u8>();
            (self.kernels.attend)(&AttendTile {
                queries: queries.add(skipped * pairs * self.kernels.query_bytes),
                pairs,
                keys,
                values,
                value_stride: self.width,
                rows: thread.valid.len(),
                valid: thread.valid.as_ptr(),
                scale: self.scale,
                scores: thread.scores.as_mut_ptr(),
                out: at(out, skipped, self.width),
            });
        }
        skipped
    }

    /// Keys and values of the `tokens` positions from `start`: in place where a partition lies within a block, else copied.
    fn locate(&self, thread: &mut ThreadScratch, unit: &Unit, start: usize, tokens: usize) -> (*const u8, *const u8) {
        let layout = self.cache.layout();
        let size = layout.spec.block_size;
        let table = self.context.block_table(unit.seq);
        // A negative entry becomes a block that the cache refuses.
        let block = |position: usize| table[position / size] as usize;
        let row_bytes = layout.value_row_bytes();
        if size.is_multiple_of(PARTITION) {
            let (block, offset) = (block(start), start % size);
            let keys = &self.cache.keys(block, self.layer, unit.kv_head)[layout.key_offset(offset)..];
            let values = &self.cache.values(block, self.layer, unit.kv_head)[offset * row_bytes..];
            return (keys.as_ptr(), values.as_ptr());
        }
        let to_keys = thread.keys.as_mut_bytes();
        let to_values = thread.values.as_mut_bytes();
        let mut done = 0;
        while done < tokens {
            let offset = (start + done) % size;
            let run = (size - offset).min(tokens - done);
            let keys = self.cache.keys(block(start + done), self.layer, unit.kv_head);
            let values = self.cache.values(block(start + done), self.layer, unit.kv_head);
            to_values[done * row_bytes..][..run * row_bytes]
                .copy_from_slice(&values[offset * row_bytes..][..run * row_bytes]);
            if offset.is_multiple_of(GROUP) && done.is_multiple_of(GROUP) {
                let bytes = run.div_ceil(GROUP) * layout.group_bytes();
                to_keys[layout.key_offset(done)..][..bytes]
                    .copy_from_slice(&keys[layout.key_offset(offset)..][..bytes]);
            } else {
                for i in 0..run {
                    let from = &keys[layout.key_offset(offset + i)..];
                    copy_key(from, &mut to_keys[layout.key_offset(done + i)..], layout.group_bytes());
                }
            }
            done += run;
        }
        (to_keys.as_ptr(), to_values.as_ptr())
    }

    /// Normalises a unit's rows into the output.
    fn finish(&self, unit: &Unit, total: Partial) {
        let dim = self.heads.head_dim;
        for r in 0..unit.positions * self.group {
            let (row, head) = (unit.row + r / self.group, unit.kv_head * self.group + r % self.group);
            // SAFETY: the unit alone writes these heads of these rows; `total` has a row of at least `dim` values for each.
            unsafe {
                let from = at(total, r, self.width);
                (self.kernels.finish)(from.out, *from.sum, self.out.at(row, head * dim), dim);
            }
        }
    }
}

/// Copies one token's key within groups of `group_bytes`: a 4-byte word (a pair of bf16, or one f32) in every 64 bytes.
fn copy_key(from: &[u8], to: &mut [u8], group_bytes: usize) {
    const WORD: usize = 4;
    let stride = WORD * GROUP;
    for i in (0..group_bytes).step_by(stride) {
        to[i..i + WORD].copy_from_slice(&from[i..i + WORD]);
    }
}

/// The partial results from `row` on.
///
/// # Safety
/// `partial` has more than `row` rows of `width` values, or exactly `row`.
unsafe fn at(partial: Partial, row: usize, width: usize) -> Partial {
    // SAFETY: in bounds by this function's contract.
    unsafe { Partial { out: partial.out.add(row * width), max: partial.max.add(row), sum: partial.sum.add(row) } }
}

#[cfg(test)]
mod tests;
