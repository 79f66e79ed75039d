//! What one call of a matmul kernel works on.

use super::codes::Rows;

/// Computes a tile.
///
/// # Safety
/// Weight, rows and outputs of the tile are in bounds, its rows are converted for the kernel's type of weights, and nothing else
/// touches the outputs meanwhile.
pub(crate) type TileKernel = unsafe fn(&Tile);

/// Converts a row for quantised or bf16 weights.
///
/// # Safety
/// `row` is one of `rows`, and nothing else touches its converted forms meanwhile.
pub(crate) type ConvertKernel = unsafe fn(rows: &Rows, row: usize);

/// What one call of a matmul kernel computes: one group of outputs for consecutive rows.
pub(crate) struct Tile {
    /// The group's packed bytes.
    pub(crate) weight: *const u8,
    /// What the codes of a layout with a table stand for, and what its scales are multiplied with.
    pub(crate) table: (&'static [i8; 16], f32),
    /// All rows of the matmul.
    pub(crate) rows: Rows,
    /// The first row to compute.
    pub(crate) first: usize,
    /// How many rows to compute.
    pub(crate) count: usize,
    /// Where the outputs of row `first` go.
    pub(crate) out: *mut f32,
    /// Distance from one row of outputs to the next, in values.
    pub(crate) stride: usize,
    /// Outputs of this group that exist: fewer than lanes in the last group of a weight.
    pub(crate) lanes: usize,
}
