//! What there is to do in one call of attention, and in which order.

use nanovllm_backend::Context;

use crate::kernels::attention::PARTITION;

/// Query rows in a tile, positions times heads, where one position does not bring more: four times the rows that are scored
/// together, so that a strip of keys is loaded into the first-level cache once for all of them.
const TILE_ROWS: usize = 24;
/// A unit is split when it is more than this part of a thread's fair share.
const SPLIT_SHARE: usize = 3;

/// Positions in a tile of a key/value head with `group` query heads.
pub(super) fn tile_positions(group: usize) -> usize {
    (TILE_ROWS / group).max(1)
}

/// A tile of neighbouring positions of a sequence, for one key/value head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) seq: usize,
    pub(super) kv_head: usize,
    /// Row of the first position in the batch.
    pub(super) row: usize,
    /// The first position in its sequence.
    pub(super) position: usize,
    /// How many.
    pub(super) positions: usize,
}

impl Unit {
    /// Partitions that the last position reaches.
    pub(super) fn partitions(&self) -> usize {
        (self.position + self.positions).div_ceil(PARTITION)
    }

    /// The first of the unit's positions that reaches partition `part`.
    pub(super) fn first_row(&self, part: usize) -> usize {
        (part * PARTITION).saturating_sub(self.position)
    }

    /// Roughly proportional to its time.
    fn cost(&self) -> usize {
        self.positions * (self.position + self.positions)
    }
}

/// Something a thread claims.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) unit: Unit,
    /// One partition of the unit, or all of it.
    pub(super) part: Option<usize>,
    /// Where the unit's partial results begin, when it is split.
    pub(super) slot: usize,
    cost: usize,
}

/// The work of a call; its memory is kept from call to call.
#[derive(Default)]
pub(super) struct Plan {
    /// Heavy ones first.
    pub(super) pieces: Vec<Piece>,
    /// Units whose partitions are merged at the end, with their slots.
    pub(super) split: Vec<(Unit, usize)>,
    /// Rows of partial results that split units need.
    pub(super) partial_rows: usize,
    /// Query-key pairs, masked ones of tiles included.
    pub(super) cost: usize,
}

impl Plan {
    /// Plans the rows of `context` for `threads` threads.
    pub(super) fn make(&mut self, context: &Context<'_>, kv_heads: usize, group: usize, threads: usize) {
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
                    let unit = Unit { seq, kv_head, row, position: position + row - first, positions };
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
            let parts = unit.partitions();
            if cost <= limit || parts == 1 {
                continue;
            }
            let slot = self.partial_rows;
            self.partial_rows += parts * unit.positions * group;
            self.split.push((unit, slot));
            let first = Piece { unit, part: Some(0), slot, cost: cost.div_ceil(parts) };
            self.pieces[i] = first;
            self.pieces.extend((1..parts).map(|part| Piece { part: Some(part), ..first }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every (row, head, partition) is planned once, whatever is split.
    #[test]
    fn pieces_cover_the_work_once() {
        let (kv_heads, group) = (2, 3);
        let cu_seqlens_q = [0, 1, 40, 41];
        let context_lens = [20_000, 300, 1];
        let slot_mapping = [-1; 41];
        let context = Context {
            cu_seqlens_q: &cu_seqlens_q,
            context_lens: &context_lens,
            slot_mapping: &slot_mapping,
            block_tables: &[],
            table_stride: 0,
        };
        let mut plan = Plan::default();
        for threads in [1, 2, 8] {
            plan.make(&context, kv_heads, group, threads);
            let mut seen = std::collections::HashSet::new();
            for piece in &plan.pieces {
                let unit = piece.unit;
                for row in unit.row..unit.row + unit.positions {
                    for part in piece.part.map_or(0..unit.partitions(), |p| p..p + 1) {
                        assert!(seen.insert((row, unit.kv_head, part)));
                    }
                }
            }
            let parts = |row: usize| match row {
                0 => 79,
                40 => 1,
                _ => 2,
            };
            let expected: usize = (0..41).map(|row| kv_heads * parts(row)).sum();
            assert_eq!(seen.len(), expected);
            assert_eq!(plan.split.is_empty(), threads == 1);
            assert!(plan.pieces.is_sorted_by_key(|piece| std::cmp::Reverse(piece.cost)));
        }
    }
}
