//! Attention of a tile of query rows over one partition of the cache, generic over vectors and cache types.
//!
//! A row's scores, its softmax and its weighted sum go through the same operations in the same order whichever rows share the
//! tile: sharing only saves loads.

mod heads;
mod score;
mod softmax;
mod weigh;

pub(crate) use heads::{prepare_query, store_key, store_value};
pub(crate) use softmax::{finish, merge};

use super::cached::Cached;

/// Positions of a partition.
pub(crate) const PARTITION: usize = 256;

/// What a row attends to of a partition: the tokens `from..to`, at least one.
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
    /// `[rows, head_dim / 2]` of [`Cached::Query`].
    pub(crate) queries: *const u8,
    /// `head_dim / 2`.
    pub(crate) pairs: usize,
    /// `[group][pairs]`, each 32 cache elements.
    pub(crate) keys: *const u8,
    /// `[tokens, value_stride]` cache elements.
    pub(crate) values: *const u8,
    /// Head dimension rounded up to 16.
    pub(crate) value_stride: usize,
    /// Rows, at least 1.
    pub(crate) rows: usize,
    /// What each row sees; both ends ascend, up to 256.
    pub(crate) visible: *const Visible,
    /// Applied to the scores before anything else.
    pub(crate) cap: Option<SoftCap>,
    /// Scores are multiplied by this, which takes them to powers of two.
    pub(crate) scale: f32,
    /// Scratch, `[rows, 256]`.
    pub(crate) scores: *mut f32,
    /// The result.
    pub(crate) out: Partial,
}

impl AttendTile {
    /// What `row` sees.
    ///
    /// # Safety
    /// `row` is one of the tile's, and `visible` is what its field says.
    #[inline(always)]
    unsafe fn visible(&self, row: usize) -> std::ops::Range<usize> {
        // SAFETY: by this function's contract.
        let Visible { from, to } = unsafe { *self.visible.add(row) };
        from as usize..to as usize
    }
}

/// Softmax over a part of the positions, not yet normalised: with `p = 2^((s - max) * scale)` of the scores `s` before scaling,
/// `out = sum(p * v)` and `sum = sum(p)`. Subtracting first is exact near the maximum, however large that is.
#[derive(Clone, Copy)]
pub(crate) struct Partial {
    /// `[rows, head_dim rounded up to 16]`.
    pub(crate) out: *mut f32,
    /// `[rows]`.
    pub(crate) max: *mut f32,
    /// `[rows]`.
    pub(crate) sum: *mut f32,
}

/// Scores, softmax and weighted values of a tile.
///
/// # Safety
/// See [`Simd`](super::simd::Simd); everything in `tile` is in bounds of what its fields say, keys and values reach over what
/// the rows see (keys in whole groups), and nothing else touches scratch and result.
#[inline(always)]
pub(crate) unsafe fn attend<C: Cached>(tile: &AttendTile) {
    // SAFETY: by this function's contract.
    unsafe {
        score::score::<C>(tile);
        for r in 0..tile.rows {
            let (scores, visible) = (tile.scores.add(r * PARTITION), tile.visible(r));
            if let Some(cap) = tile.cap {
                softmax::soft_cap::<C::S>(scores, visible.clone(), cap);
            }
            let (max, sum) = softmax::softmax::<C::S>(scores, visible, tile.scale);
            *tile.out.max.add(r) = max;
            *tile.out.sum.add(r) = sum;
        }
        weigh::weigh::<C>(tile);
    }
}
