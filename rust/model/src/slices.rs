//! Cuts a step into slices of a bounded number of rows.
//!
//! Attention reads keys and values from the cache and a row's result does not depend on the rows beside it, so the cuts
//! do not show; they bound the activation buffers and the time between two looks at the interrupt flag.

use nanovllm_backend::Context;

use crate::causal_lm::ModelInput;

/// One slice of a step: what a decoder computes at once.
pub struct Slice<'a> {
    /// The token of each row, `[rows]`.
    pub input_ids: &'a [u32],
    /// Position of each row in its sequence, `[rows]`.
    pub positions: &'a [u32],
    /// The sequences that the rows belong to, those alone, with their part of the batch.
    pub context: Context<'a>,
}

/// The most rows a slice has; all but the last of a step have as many.
pub const SLICE_ROWS: usize = 512;

/// Makes slices, one at a time, and holds the offsets and lengths that the current one refers to.
#[derive(Default)]
pub(crate) struct Slicer {
    cu_seqlens_q: Vec<u32>,
    context_lens: Vec<u32>,
}

impl Slicer {
    /// The slice of rows `start..end` of `input`, at least one row.
    pub(crate) fn slice<'a>(&'a mut self, input: &'a ModelInput, start: usize, end: usize) -> Slice<'a> {
        let offsets = &input.cu_seqlens_q;
        // The sequence of a row: the last whose first row is not after it.
        let sequence = |row: usize| offsets.partition_point(|&o| o as usize <= row) - 1;
        let (first, last) = (sequence(start), sequence(end - 1));
        self.cu_seqlens_q.clear();
        self.context_lens.clear();
        self.cu_seqlens_q.push(0);
        for s in first..=last {
            let cut = (offsets[s + 1] as usize).min(end);
            let rows_after = offsets[s + 1] - cut as u32;
            self.cu_seqlens_q.push((cut - start) as u32);
            self.context_lens.push(input.context_lens[s] - rows_after);
        }
        let stride = input.table_stride;
        Slice {
            input_ids: &input.input_ids[start..end],
            positions: &input.positions[start..end],
            context: Context {
                cu_seqlens_q: &self.cu_seqlens_q,
                context_lens: &self.context_lens,
                slot_mapping: &input.slot_mapping[start..end],
                block_tables: &input.block_tables[first * stride..(last + 1) * stride],
                table_stride: stride,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_keep_each_row_at_its_position() {
        // Three sequences: rows at positions 4..7, 0..5 and 9..10.
        let input = ModelInput {
            input_ids: (0..9).collect(),
            positions: vec![4, 5, 6, 0, 1, 2, 3, 4, 9],
            cu_seqlens_q: vec![0, 3, 8, 9],
            context_lens: vec![7, 5, 10],
            slot_mapping: (0..9).collect(),
            block_tables: vec![0, -1, 1, -1, 2, 3],
            table_stride: 2,
        };
        let mut slicer = Slicer::default();
        for rows in 1..=9 {
            let mut seen = 0;
            for start in (0..9).step_by(rows) {
                let end = (start + rows).min(9);
                let slice = slicer.slice(&input, start, end);
                let context = slice.context;
                assert_eq!(context.num_rows(), end - start);
                for s in 0..context.num_seqs() {
                    for row in context.cu_seqlens_q[s]..context.cu_seqlens_q[s + 1] {
                        let position = context.context_lens[s] - (context.cu_seqlens_q[s + 1] - row);
                        assert_eq!(position, slice.positions[row as usize]);
                        assert_eq!(slice.input_ids[row as usize], seen);
                        seen += 1;
                    }
                }
            }
            assert_eq!(seen, 9);
        }
    }
}
