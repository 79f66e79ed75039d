//! Paged causal attention over the team.
//!
//! The positions of a sequence are cut into partitions of 256. A unit of work is the query rows of some neighbouring positions,
//! those of the query heads that share one key/value head. A thread takes a unit through the partitions in order and merges the
//! softmax of each into the total of those before. Where one unit is a large part of the whole, as when few long sequences
//! decode, different threads compute its partitions, and after a barrier these are merged by the same formula in the same order.
//! So the result of a row depends on its sequence alone.

mod plan;
mod scoring;
mod scratch;

use std::ops::Range;

use nanovllm_backend::{AttentionOptions, Context, HeadLayout};

use crate::claims::Claims;
use crate::kernels::generic::attention::{AttendTile, PANELS, PARTITION, PartialSoftmax};
use crate::kernels::generic::cached::PANEL;
use crate::kernels::table::{AttentionKernels, CacheKernels};
use crate::kv_cache::{KvCache, LayerView};
use crate::team::Team;
use crate::tensor::{SharedMut, Tensor};
use plan::{Seen, Unit};
use scoring::Scoring;
use scratch::{Sizes, ThreadScratch};

pub(crate) use scratch::Scratch;

/// Multiply-adds from which waking the team pays: about two microseconds of work.
const TEAM_WORK: usize = 128 << 10;

/// Causal attention of the queries of `qkv` over what `layer` reads of the cache.
pub(crate) fn attention(
    team: &Team,
    kernels: &AttentionKernels,
    scratch: &mut Scratch,
    qkv: &Tensor,
    heads: &HeadLayout,
    options: &AttentionOptions<'_, Tensor>,
    cache: &KvCache,
    layer: usize,
    context: &Context<'_>,
    out: &mut Tensor,
) {
    let layer = cache.layer(layer);
    layer.check_heads(heads);
    let whole_rows = [heads.q_size(), heads.qkv_size()].contains(&qkv.cols());
    assert!(whole_rows, "{} columns of qkv: neither those of queries alone nor of all three", qkv.cols());
    assert_eq!(out.cols(), heads.q_size(), "columns of the output");
    check(context, qkv.rows(), layer.layout.block_size);
    out.set_rows(qkv.rows());

    let group = heads.num_heads / heads.num_kv_heads;
    let scoring = Scoring::new(options, heads.num_heads);
    let Scratch { plan, threads, partials } = scratch;
    plan.make(context, options.window.unwrap_or(usize::MAX), heads.num_kv_heads, group, team.size());
    let width = layer.layout.value_stride();
    let sizes = Sizes { rows: plan::tile_positions(group) * group, head_dim: heads.head_dim, width };
    for thread in threads.iter_mut() {
        thread.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).reserve(&sizes);
    }
    partials.reserve(plan.partial_rows, width);
    let call = Call {
        kernels: kernels.of(cache.spec().dtype),
        heads,
        group,
        width,
        scoring,
        qkv,
        layer,
        context,
        out: out.shared(),
        partials: partials.at(0, width),
    };

    let pieces = Claims::new(plan.pieces.len());
    let merges = Claims::new(plan.split.len());
    let plan = &*plan;
    let work = |rank: usize, barrier: &dyn Fn()| {
        // Each rank is one thread and locks its own scratch, so nobody waits here.
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

/// One call as its threads see it.
struct Call<'a> {
    kernels: &'a CacheKernels,
    heads: &'a HeadLayout,
    /// Query heads that share a key/value head.
    group: usize,
    /// Values in a row of a partial result.
    width: usize,
    scoring: Scoring<'a>,
    qkv: &'a Tensor,
    layer: LayerView<'a>,
    context: &'a Context<'a>,
    out: SharedMut,
    partials: PartialSoftmax,
}

// SAFETY: the pointers in `partials` are to scratch borrowed for the call; each piece writes its own rows of it, and merges read
// them after a barrier. Everything else is `Sync`.
unsafe impl Sync for Call<'_> {}

impl Call<'_> {
    /// Computes a unit from its first partition to its last.
    fn whole(&self, thread: &mut ThreadScratch, unit: &Unit) {
        self.prepare(thread, unit);
        let total = thread.total.at(0, self.width);
        let parts = unit.parts();
        self.attend(thread, unit, parts.start, total);
        for part in parts.skip(1) {
            let next = thread.next.at(0, self.width);
            self.attend(thread, unit, part, next);
            // SAFETY: both have rows for all of the unit; partitions came in order.
            unsafe { self.gather(unit, part, total, next) };
        }
        self.finish(unit, total);
    }

    /// Computes one partition of a unit into its rows of the shared partial results.
    fn part(&self, thread: &mut ThreadScratch, unit: &Unit, part: usize, slot: usize) {
        self.prepare(thread, unit);
        self.attend(thread, unit, part, self.partial(unit, part, slot));
    }

    /// Merges the partitions of a unit in order.
    fn merge(&self, unit: &Unit, slot: usize) {
        let parts = unit.parts();
        let total = self.partial(unit, parts.start, slot);
        for part in parts.skip(1) {
            // SAFETY: the barrier has made all of it visible, and this unit is merged by one thread, in order.
            unsafe { self.gather(unit, part, total, self.partial(unit, part, slot)) };
        }
        self.finish(unit, total);
    }

    /// Where a split unit with partial results from `slot` on has those of `part`.
    fn partial(&self, unit: &Unit, part: usize, slot: usize) -> PartialSoftmax {
        let row = slot + (part - unit.parts().start) * unit.positions * self.group;
        // SAFETY: the plan gave the unit that many rows for each of its partitions.
        unsafe { at(self.partials, row, self.width) }
    }

    /// Adds partition `part` of a unit, in `next`, to those before it, in `total`. A row that begins with it has no total yet.
    ///
    /// # Safety
    /// Both have a row for each of the unit's and do not overlap; what the rows see of this partition is in `next`, and of all
    /// before it in `total`; nobody else uses either.
    unsafe fn gather(&self, unit: &Unit, part: usize, total: PartialSoftmax, next: PartialSoftmax) {
        let Seen { first, begun, last } = unit.seen(part);
        let rows = |positions: usize| positions * self.group;
        // SAFETY: by this function's contract; `first <= begun <= last`, which is at most the unit's positions.
        unsafe {
            let (old, new) = (at(total, rows(first), self.width), at(next, rows(first), self.width));
            (self.kernels.merge)(old, new, rows(begun - first), self.width, self.scoring.scale);
            if begun == last {
                return;
            }
            let (to, from) = (at(total, rows(begun), self.width), at(next, rows(begun), self.width));
            to.out.copy_from_nonoverlapping(from.out, rows(last - begun) * self.width);
            to.max.copy_from_nonoverlapping(from.max, rows(last - begun));
            to.sum.copy_from_nonoverlapping(from.sum, rows(last - begun));
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
                // SAFETY: scratch has room for the queries of a tile.
                unsafe {
                    (self.kernels.prepare_query)(head.as_ptr(), head_dim / 2, to);
                    to = to.add(bytes);
                }
            }
        }
    }

    /// Attends over one partition, writing the rows of `out` that see it.
    fn attend(&self, thread: &mut ThreadScratch, unit: &Unit, part: usize, out: PartialSoftmax) {
        let Seen { first, last, .. } = unit.seen(part);
        thread.visible.clear();
        for i in first..last {
            thread.visible.extend(std::iter::repeat_n(unit.visible(i, part), self.group));
        }
        let tokens = unit.visible(first, part).from as usize..unit.visible(last - 1, part).to as usize;
        let panels = self.locate(thread, unit, part * PARTITION, tokens);
        let (pairs, skipped) = (self.heads.head_dim / 2, first * self.group);
        // SAFETY: scratch is sized for the tile; queries are prepared; `locate` reaches over all that the rows see; later rows
        // see later tokens, at least one; `out` has a row for each of the tile.
        unsafe {
            let queries = thread.queries.as_mut_ptr().cast::<u8>();
            (self.kernels.attend)(&AttendTile {
                queries: queries.add(skipped * pairs * self.kernels.query_bytes),
                pairs,
                keys: panels.keys.as_ptr(),
                values: panels.values.as_ptr(),
                value_stride: self.width,
                rows: thread.visible.len(),
                visible: thread.visible.as_ptr(),
                cap: self.scoring.cap,
                scale: self.scoring.scale,
                scores: thread.scores.as_mut_ptr(),
                out: at(out, skipped, self.width),
            });
        }
    }

    /// Keys and values of the positions from `start`, of which `tokens` are read: in place where blocks are whole panels, else
    /// copied.
    fn locate(&self, thread: &mut ThreadScratch, unit: &Unit, start: usize, tokens: Range<usize>) -> Panels {
        let layout = self.layer.layout;
        let size = layout.block_size;
        let table = self.context.block_table(unit.seq);
        // A negative entry becomes a block that the cache refuses.
        let block = |position: usize| self.layer.block(table[position / size] as usize, unit.kv_head);
        let row_bytes = layout.value_row_bytes();
        let mut panels = Panels { keys: [std::ptr::null(); PANELS], values: [std::ptr::null(); PANELS] };
        let read = tokens.start / PANEL..tokens.end.div_ceil(PANEL);
        if size.is_multiple_of(PANEL) {
            for panel in read {
                let position = start + panel * PANEL;
                let (keys, values) = block(position);
                panels.keys[panel] = keys[layout.key_offset(position % size)..].as_ptr();
                panels.values[panel] = values[position % size * row_bytes..].as_ptr();
            }
            return panels;
        }
        let to_keys = thread.keys.as_mut_bytes();
        let to_values = thread.values.as_mut_bytes();
        let mut done = tokens.start;
        while done < tokens.end {
            let offset = (start + done) % size;
            let run = (size - offset).min(tokens.end - done);
            let (keys, values) = block(start + done);
            to_values[done * row_bytes..][..run * row_bytes]
                .copy_from_slice(&values[offset * row_bytes..][..run * row_bytes]);
            for i in 0..run {
                let from = &keys[layout.key_offset(offset + i)..];
                copy_key(from, &mut to_keys[layout.key_offset(done + i)..], layout.panel_bytes());
            }
            done += run;
        }
        for panel in read {
            panels.keys[panel] = to_keys[layout.key_offset(panel * PANEL)..].as_ptr();
            panels.values[panel] = to_values[panel * PANEL * row_bytes..].as_ptr();
        }
        panels
    }

    /// Normalises a unit's rows into the output.
    fn finish(&self, unit: &Unit, total: PartialSoftmax) {
        let dim = self.heads.head_dim;
        for r in 0..unit.positions * self.group {
            let (row, head) = (unit.row + r / self.group, unit.kv_head * self.group + r % self.group);
            // SAFETY: the unit alone writes these heads of these rows; `total` has a row of at least `dim` values for each.
            unsafe {
                let from = at(total, r, self.width);
                let sum = self.scoring.with_sink(*from.sum, *from.max, head);
                (self.kernels.finish)(from.out, sum, self.out.at(row, head * dim), dim);
            }
        }
    }
}

/// Where the keys and values of each 16 tokens of a partition lie, of those that are read.
struct Panels {
    keys: [*const u8; PANELS],
    values: [*const u8; PANELS],
}

/// Copies one token's key from its panel to another, each of `panel_bytes`: a 4-byte word (a pair of bf16, or one f32) in every 64 bytes.
fn copy_key(from: &[u8], to: &mut [u8], panel_bytes: usize) {
    const WORD: usize = 4;
    let stride = WORD * PANEL;
    for i in (0..panel_bytes).step_by(stride) {
        to[i..i + WORD].copy_from_slice(&from[i..i + WORD]);
    }
}

/// The partial results from `row` on.
///
/// # Safety
/// `partial` has more than `row` rows of `width` values, or exactly `row`.
unsafe fn at(partial: PartialSoftmax, row: usize, width: usize) -> PartialSoftmax {
    // SAFETY: in bounds by this function's contract.
    unsafe {
        PartialSoftmax { out: partial.out.add(row * width), max: partial.max.add(row), sum: partial.sum.add(row) }
    }
}

#[cfg(test)]
mod tests;
