//! Attention of a tile of query rows over one partition of the cache, generic over vectors and cache types.
//!
//! A row's scores, its softmax and its weighted sum go through the same operations in the same order whichever rows share the
//! tile: sharing only saves loads.

mod heads;
mod score;
mod softmax;
mod tile;
mod weigh;

pub(crate) use heads::{prepare_query, store_key, store_value};
pub(crate) use softmax::{finish, merge};
pub(crate) use tile::{AttendTile, PANELS, PARTITION, PartialSoftmax, SoftCap, Visible};

use super::cached::Cached;

/// Scores, softmax and weighted values of a tile.
///
/// # Safety
/// Everything in `tile` is what its fields say and in bounds, keys and values reach over what the rows see (keys in whole
/// panels), and nothing else touches scratch and result.
#[inline(always)]
pub(crate) unsafe fn attend<C: Cached>(c: C, tile: &AttendTile) {
    // SAFETY: by this function's contract.
    unsafe {
        score::score(c, tile);
        for r in 0..tile.rows {
            let (scores, visible) = (tile.scores.add(r * PARTITION), tile.visible(r));
            if let Some(cap) = tile.cap {
                softmax::soft_cap(c.simd(), scores, visible.clone(), cap);
            }
            let (max, sum) = softmax::softmax(c.simd(), scores, visible, tile.scale);
            *tile.out.max.add(r) = max;
            *tile.out.sum.add(r) = sum;
        }
        weigh::weigh(c, tile);
    }
}
