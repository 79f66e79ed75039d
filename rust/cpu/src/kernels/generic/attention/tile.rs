//! What attention computes at a time, and where it leaves it.

use crate::kernels::generic::cached::PANEL;

/// Positions of a partition.
pub(crate) const PARTITION: usize = 256;

/// Panels of a partition.
pub(crate) const PANELS: usize = PARTITION / PANEL;

/// What a row attends to of a partition: its tokens `from..to`, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visible {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// Replaces a score `s` by `cap * tanh(s * factor)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SoftCap {
    pub(crate) factor: f32,
    pub(crate) cap: f32,
}

/// Query rows of one key/value head over one partition.
pub(crate) struct AttendTile {
    /// `[rows, head_dim / 2]` of [`Cached::Query`](crate::kernels::generic::cached::Cached::Query).
    pub(crate) queries: *const u8,
    /// `head_dim / 2`.
    pub(crate) pairs: usize,
    /// Where each 16 tokens' keys lie, `[16]`: a panel, `[pairs]`, each 32 cache elements.
    pub(crate) keys: *const *const u8,
    /// Where their values lie, `[16]`: `[16, value_stride]` cache elements.
    pub(crate) values: *const *const u8,
    /// Head dimension rounded up to 16.
    pub(crate) value_stride: usize,
    /// Rows, at least 1.
    pub(crate) rows: usize,
    /// What each row sees, `[rows]`; both ends ascend from row to row, up to 256.
    pub(crate) visible: *const Visible,
    /// Applied to the scores before anything else.
    pub(crate) cap: Option<SoftCap>,
    /// Scores are multiplied by this, which takes them to powers of two.
    pub(crate) scale: f32,
    /// Scratch, `[rows, 256]`.
    pub(crate) scores: *mut f32,
    /// The result.
    pub(crate) out: PartialSoftmax,
}

impl AttendTile {
    /// What `row` sees.
    ///
    /// # Safety
    /// `row` is one of the tile's, and `visible` is what its field says.
    #[inline(always)]
    pub(super) unsafe fn visible(&self, row: usize) -> std::ops::Range<usize> {
        // SAFETY: by this function's contract.
        let Visible { from, to } = unsafe { *self.visible.add(row) };
        from as usize..to as usize
    }
}

/// Softmax over a part of the positions, not yet normalised: with `p = 2^((s - max) * scale)` of the scores `s` before scaling,
/// `out = sum(p * v)` and `sum = sum(p)`. Subtracting first is exact near the maximum, however large that is.
#[derive(Clone, Copy)]
pub(crate) struct PartialSoftmax {
    /// `[rows, head_dim rounded up to 16]`.
    pub(crate) out: *mut f32,
    /// `[rows]`.
    pub(crate) max: *mut f32,
    /// `[rows]`.
    pub(crate) sum: *mut f32,
}
