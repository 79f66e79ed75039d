//! What there is to do in one call of attention, and in which order threads take it.

use std::ops::Range;

use nanovllm_backend::Context;

use crate::kernels::generic::attention::{PARTITION, Visible};

/// Query rows of a unit, positions times heads, unless a single position has more. They are four times the rows that a kernel
/// scores together, so that a strip of keys is loaded into the first-level cache once for all of them.
const TILE_ROWS: usize = 24;
/// A unit is split by partition when it is more work than a thread's fair share divided by this.
const SPLIT_SHARE: usize = 3;

/// Positions of a unit where `group` query heads share a key/value head.
pub(super) fn tile_positions(group: usize) -> usize {
    (TILE_ROWS / group).max(1)
}

/// Neighbouring positions of a sequence, for one key/value head and the query heads that share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) seq: usize,
    pub(super) kv_head: usize,
    /// Which row of the batch the first position is.
    pub(super) row: usize,
    /// The first position, counted from the start of the sequence.
    pub(super) position: usize,
    /// How many positions.
    pub(super) positions: usize,
    /// How many positions each of them sees at most, its own included; at least 1.
    pub(super) window: usize,
}

/// Which of a unit's positions, counted from its first, see a partition: `first..last`. Those from `begun` on have seen none
/// before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) first: usize,
    pub(super) begun: usize,
    pub(super) last: usize,
}

impl Unit {
    /// The first position that any of the unit's sees.
    fn start(&self) -> usize {
        (self.position + 1).saturating_sub(self.window)
    }

    /// The position after its last, where what they see ends.
    fn end(&self) -> usize {
        self.position + self.positions
    }

    /// Partitions that any of its positions sees.
    pub(super) fn parts(&self) -> Range<usize> {
        self.start() / PARTITION..self.end().div_ceil(PARTITION)
    }

    /// Which of its positions see partition `part`, one of [`parts`](Self::parts).
    pub(super) fn seen(&self, part: usize) -> Seen {
        let start = part * PARTITION;
        let begun = if start == 0 { 0 } else { self.see_before(start) };
        Seen { first: start.saturating_sub(self.position), begun, last: self.see_before(start + PARTITION) }
    }

    /// How many of its positions see one before `limit`, which is not 0: a window begins before it.
    fn see_before(&self, limit: usize) -> usize {
        (self.window - 1).saturating_add(limit).saturating_sub(self.position).min(self.positions)
    }

    /// What its position `i`, which sees partition `part`, sees of that.
    pub(super) fn visible(&self, i: usize, part: usize) -> Visible {
        let (start, end) = (part * PARTITION, self.position + i + 1);
        let from = end.saturating_sub(self.window).saturating_sub(start);
        Visible { from: from as u32, to: (end - start).min(PARTITION) as u32 }
    }

    /// Roughly proportional to its time.
    fn cost(&self) -> usize {
        self.positions * (self.end() - self.start())
    }
}

/// What a thread claims at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) unit: Unit,
    /// One partition of the unit, or all of it.
    pub(super) part: Option<usize>,
    /// Where the partial results of the unit begin, in rows, if it is split.
    pub(super) slot: usize,
    cost: usize,
}

/// The work of a call; its memory is kept from call to call.
#[derive(Default)]
pub(super) struct Plan {
    /// The most work comes first, so that no thread begins a large piece when the others are done.
    pub(super) pieces: Vec<Piece>,
    /// Units whose partitions are merged at the end, with their slots.
    pub(super) split: Vec<(Unit, usize)>,
    /// Rows of partial results that split units need.
    pub(super) partial_rows: usize,
    /// Query-key pairs, masked ones of tiles included.
    pub(super) cost: usize,
}

impl Plan {
    /// Plans the rows of `context`, of which each sees `window` positions at most, for `threads` threads.
    pub(super) fn make(&mut self, context: &Context<'_>, window: usize, kv_heads: usize, group: usize, threads: usize) {
        self.pieces.clear();
        self.split.clear();
        self.partial_rows = 0;
        let tile = tile_positions(group);
        for seq in 0..context.num_seqs() {
            let (first, last) = (context.cu_seqlens_q[seq] as usize, context.cu_seqlens_q[seq + 1] as usize);
            let position = context.context_lens[seq] as usize - (last - first);
            for row in (first..last).step_by(tile) {
                for kv_head in 0..kv_heads {
                    let positions = tile.min(last - row);
                    let position = position + row - first;
                    let unit = Unit { seq, kv_head, row, position, positions, window };
                    self.pieces.push(Piece { unit, part: None, slot: 0, cost: unit.cost() });
                }
            }
        }
        let total: usize = self.pieces.iter().map(|piece| piece.cost).sum();
        self.cost = total * group;
        if threads > 1 {
            self.split_heavy(total / (SPLIT_SHARE * threads), group);
        }
        self.pieces.sort_unstable_by_key(|piece| std::cmp::Reverse(piece.cost));
    }

    /// Splits the units above `limit` by partition.
    fn split_heavy(&mut self, limit: usize, group: usize) {
        for i in 0..self.pieces.len() {
            let Piece { unit, cost, .. } = self.pieces[i];
            let mut parts = unit.parts();
            let cost_of_part = cost.div_ceil(parts.len());
            if cost <= limit || parts.len() == 1 {
                continue;
            }
            let slot = self.partial_rows;
            self.partial_rows += parts.len() * unit.positions * group;
            self.split.push((unit, slot));
            let first = Piece { unit, part: parts.next(), slot, cost: cost_of_part };
            self.pieces[i] = first;
            self.pieces.extend(parts.map(|part| Piece { part: Some(part), ..first }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Every (row, head, partition) is planned once, whatever is split, and a row begins with the first partition it sees.
    #[test]
    fn pieces_cover_the_work_once() {
        let (kv_heads, group) = (2, 3);
        let cu_seqlens_q = [0, 1, 40, 140, 141];
        let context_lens = [50_000, 300, 700, 1];
        let slot_mapping = [-1; 141];
        let context = Context {
            cu_seqlens_q: &cu_seqlens_q,
            context_lens: &context_lens,
            slot_mapping: &slot_mapping,
            block_tables: &[],
            table_stride: 0,
        };
        let position = |row: usize| match row {
            0 => 49_999,
            1..40 => 261 + row - 1,
            40..140 => 600 + row - 40,
            _ => 0,
        };
        let mut plan = Plan::default();
        let windows = [1, 2, 5, 100, 255, 256, 257, 300, 513, 3000, 50_000, usize::MAX];
        for (threads, window) in [1, 2, 8].into_iter().flat_map(|threads| windows.map(|window| (threads, window))) {
            plan.make(&context, window, kv_heads, group, threads);
            let mut seen = HashMap::new();
            for piece in &plan.pieces {
                let unit = piece.unit;
                for part in piece.part.map_or(unit.parts(), |part| part..part + 1) {
                    let Seen { first, begun, last } = unit.seen(part);
                    assert!(first < last && last <= unit.positions, "partition {part} of {unit:?}");
                    for i in first..last {
                        let what = (i < begun, unit.visible(i, part));
                        assert!(seen.insert((unit.row + i, unit.kv_head, part), what).is_none());
                    }
                }
            }
            let mut expected = HashMap::new();
            for (row, kv_head) in (0..141).flat_map(|row| [(row, 0), (row, 1)]) {
                let end = position(row) + 1;
                let start = end.saturating_sub(window);
                for part in start / PARTITION..end.div_ceil(PARTITION) {
                    let within = |position: usize| (position - part * PARTITION).min(PARTITION) as u32;
                    let visible = Visible { from: within(start.max(part * PARTITION)), to: within(end) };
                    expected.insert((row, kv_head, part), (start < part * PARTITION, visible));
                }
            }
            assert!(seen == expected, "window {window}");
            assert!(threads > 1 || plan.split.is_empty());
            assert!(threads == 1 || window < 50_000 || !plan.split.is_empty(), "{threads} threads, window {window}");
            assert!(plan.pieces.is_sorted_by_key(|piece| std::cmp::Reverse(piece.cost)));
        }
    }
}
