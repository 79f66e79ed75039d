//! Which part of a stored tensor a tensor of the decoder is.

use std::borrow::Cow;

/// Where a tensor lies: in the one that is stored under this name, as part `part` of `parts` equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stored: String,
    pub(super) part: usize,
    pub(super) parts: usize,
    pub(super) layout: Layout,
}

/// How parts lie in a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One after the other; matrices that are stacked are one of all their rows.
    InOrder,
    /// Those of each expert in turn: its first value is of the first part, its second of the second. The shape is `[experts,
    /// values]`, and an expert has `each` parts.
    Values { each: usize },
    /// The same of columns: `[experts, inputs, outputs]`, a matrix of `[outputs, inputs]` for each expert, whose rows take turns.
    Columns { each: usize },
    /// The same of rows in blocks of 32 elements of MXFP4, `[experts, outputs, blocks, 16]`, in which a byte holds two
    /// neighbours; the exponent of each block lies in a tensor of its own (`SCALES`), `[experts, outputs, blocks]`.
    Blocks { each: usize },
}

/// What the names of tensors in [`Layout::Blocks`] end with, and those of the exponents.
pub(super) const BLOCKS: &str = "_blocks";
pub(super) const SCALES: &str = "_scales";

/// Bytes of a block's elements.
const BLOCK_BYTES: usize = 16;

impl Place {
    /// The shape of the tensor in one that is stored in `shape`.
    pub(super) fn shape(&self, shape: &[usize]) -> Vec<usize> {
        match (self.layout, shape) {
            (Layout::Values { each }, &[_, values]) => vec![values / each],
            (Layout::Columns { each }, &[_, inputs, outputs]) => vec![outputs / each, inputs],
            (Layout::Blocks { each }, &[_, outputs, blocks, _]) => vec![outputs / each, blocks * 2 * BLOCK_BYTES],
            _ => {
                let mut shape = shape.to_vec();
                if let (true, &[matrices, rows, cols]) = (self.parts > 1, &shape[..])
                    && let Some(rows) = matrices.checked_mul(rows)
                {
                    shape = vec![rows, cols];
                }
                // One that is not made of so many parts is left as it is, for the shape check to report.
                if let Some(rows) = shape.first_mut().filter(|rows| rows.is_multiple_of(self.parts)) {
                    *rows /= self.parts;
                }
                shape
            }
        }
    }

    /// The elements of the tensor in `data`, stored in `shape` in elements of `size` bytes; `scales` are the exponents of
    /// blocks, one for each.
    pub(super) fn data<'a>(&self, shape: &[usize], data: &'a [u8], size: usize, scales: &[u8]) -> Cow<'a, [u8]> {
        match (self.layout, shape) {
            (Layout::Values { each }, &[_, values]) => {
                let (expert, part) = (self.part / each, self.part % each);
                let values = data[expert * values * size..][..values * size].chunks_exact(size);
                Cow::Owned(values.skip(part).step_by(each).flatten().copied().collect())
            }
            (Layout::Columns { each }, &[_, inputs, outputs]) => {
                let (expert, part) = (self.part / each, self.part % each);
                let matrix = &data[expert * inputs * outputs * size..][..inputs * outputs * size];
                Cow::Owned(transposed(matrix, outputs, size, part, each))
            }
            (Layout::Blocks { each }, &[_, outputs, blocks, _]) => {
                let (expert, part) = (self.part / each, self.part % each);
                let mut ours = Vec::with_capacity(outputs / each * blocks * (1 + BLOCK_BYTES));
                for row in (part..outputs).step_by(each) {
                    let first = (expert * outputs + row) * blocks;
                    for block in first..first + blocks {
                        ours.push(scales[block]);
                        ours.extend(in_halves(&data[block * BLOCK_BYTES..][..BLOCK_BYTES]));
                    }
                }
                Cow::Owned(ours)
            }
            _ => {
                let mut rows = shape.first().copied().unwrap_or(1);
                if self.parts > 1 && shape.len() == 3 {
                    rows = rows.saturating_mul(shape[1]);
                }
                if !rows.is_multiple_of(self.parts) {
                    return Cow::Borrowed(data);
                }
                let bytes = data.len() / self.parts;
                Cow::Borrowed(&data[self.part * bytes..(self.part + 1) * bytes])
            }
        }
    }
}

/// Every `each`-th column of a matrix of elements of `size` bytes with `cols` columns, from `first` on, as a row.
fn transposed(matrix: &[u8], cols: usize, size: usize, first: usize, each: usize) -> Vec<u8> {
    /// Rows that are read together: lines of a cache hold several columns, which are written one after the other.
    const TOGETHER: usize = 64;
    let rows = matrix.len() / (cols * size).max(1);
    let mut out = vec![0; rows * (cols / each) * size];
    for start in (0..rows).step_by(TOGETHER) {
        for (to, col) in (first..cols).step_by(each).enumerate() {
            for row in start..(start + TOGETHER).min(rows) {
                let from = &matrix[(row * cols + col) * size..][..size];
                out[(to * rows + row) * size..][..size].copy_from_slice(from);
            }
        }
    }
    out
}

/// The elements of a block as ggml has them: a byte holds two that are 16 apart, where a stored one holds two neighbours.
fn in_halves(block: &[u8]) -> impl Iterator<Item = u8> {
    let element = |i: usize| block[i / 2] >> (4 * (i % 2)) & 0xf;
    (0..BLOCK_BYTES).map(move |i| element(i) | element(i + BLOCK_BYTES) << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(part: usize, parts: usize, layout: Layout) -> Place {
        Place { stored: String::new(), part, parts, layout }
    }

    #[test]
    fn parts_lie_one_after_the_other() {
        let place = place(1, 4, Layout::InOrder);
        assert_eq!(place.shape(&[2, 2, 3]), [1, 3]);
        assert_eq!(&*place.data(&[2, 2, 3], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 1, &[]), [3, 4, 5]);
        assert_eq!(place.shape(&[3]), [3], "not four parts");
        assert_eq!(&*place.data(&[3], &[0, 1, 2], 1, &[]), [0, 1, 2]);
    }

    #[test]
    fn parts_take_turns() {
        let data: Vec<u8> = (0..24).collect();
        // Two experts of two parts each.
        let values = place(3, 4, Layout::Values { each: 2 });
        assert_eq!(values.shape(&[2, 6]), [3]);
        assert_eq!(&*values.data(&[2, 6], &data, 2, &[]), [14, 15, 18, 19, 22, 23]);
        let columns = place(2, 4, Layout::Columns { each: 2 });
        assert_eq!(columns.shape(&[2, 3, 4]), [2, 3]);
        assert_eq!(&*columns.data(&[2, 3, 4], &data, 1, &[]), [12, 16, 20, 14, 18, 22]);
    }

    #[test]
    fn every_column_becomes_a_row() {
        for (rows, cols) in [(1, 1), (63, 5), (64, 6), (200, 3)] {
            let matrix: Vec<u8> = (0..rows * cols).flat_map(|i| (i as u16).to_le_bytes()).collect();
            let out = transposed(&matrix, cols, 2, 0, 1);
            let expected = (0..cols).flat_map(|col| (0..rows).map(move |row| row * cols + col));
            assert_eq!(out, expected.flat_map(|i| (i as u16).to_le_bytes()).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn blocks_are_ggmls() {
        let neighbours: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let elements = |i: usize| if i.is_multiple_of(2) { i / 2 } else { 15 - i / 2 } as u8;
        let halves: Vec<u8> = (0..16).map(|i| elements(i) | elements(i + 16) << 4).collect();
        assert_eq!(in_halves(&neighbours).collect::<Vec<_>>(), halves);
        let rows: Vec<u8> = [neighbours.clone(), vec![7; 16]].concat();
        let blocks = place(1, 2, Layout::Blocks { each: 2 });
        assert_eq!(blocks.shape(&[1, 2, 1, 16]), [1, 32]);
        assert_eq!(&*blocks.data(&[1, 2, 1, 16], &rows, 1, &[3, 9]), [vec![9], [0x77, 0].repeat(8)].concat());
        let first = place(0, 2, Layout::Blocks { each: 2 });
        assert_eq!(&*first.data(&[1, 2, 1, 16], &rows, 1, &[3, 9]), [vec![3], halves].concat());
    }
}
