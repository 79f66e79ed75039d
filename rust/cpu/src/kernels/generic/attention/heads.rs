//! Heads on their way into the kernels and into the cache.

use crate::kernels::generic::cached::{Cached, PANEL};
use crate::kernels::generic::simd::Simd;

/// Converts one query head, `2 * pairs` values, to the form [`attend`](super::attend) takes.
///
/// # Safety
/// `from` holds `2 * pairs` values and `to` room for `pairs` queries.
#[inline(always)]
pub(crate) unsafe fn prepare_query<C: Cached>(c: C, from: *const f32, pairs: usize, to: *mut u8) {
    let to = to.cast::<C::Query>();
    for i in 0..pairs {
        // SAFETY: by this function's contract.
        unsafe { to.add(i).write_unaligned(c.query(*from.add(2 * i), *from.add(2 * i + 1))) };
    }
}

/// Stores one key head; `to` is the token's place in the first pair of its panel.
///
/// # Safety
/// `from` holds `2 * pairs` values, `to` reaches over the panel's `pairs` of 32 elements.
#[inline(always)]
pub(crate) unsafe fn store_key<C: Cached>(c: C, from: *const f32, pairs: usize, to: *mut u8) {
    let to = to.cast::<C::Element>();
    // Where element 2i + 1 lies from element 2i.
    let odd = if C::TOKEN == 2 { 1 } else { PANEL };
    let lanes = C::S::LANES;
    const { assert!(PANEL.is_multiple_of(C::S::LANES)) };
    let mut staged = [const { std::mem::MaybeUninit::<C::Element>::uninit() }; PANEL];
    let mut done = 0;
    while done < 2 * pairs {
        let n = lanes.min(2 * pairs - done);
        // SAFETY: `n` values remain; a full vector fits `staged` (LANES <= 16) and initialises what is read; `done` and `n`
        // are even, so pair `done / 2 + i` is below `pairs`.
        unsafe {
            c.store(staged.as_mut_ptr().cast(), c.simd().load_first(from.add(done), n, 0.0));
            for i in 0..n / 2 {
                let pair = to.add((done / 2 + i) * (2 * PANEL));
                *pair = staged[2 * i].assume_init();
                *pair.add(odd) = staged[2 * i + 1].assume_init();
            }
        }
        done += lanes;
    }
}

/// Stores one value head, padded with zeros to a multiple of 16.
///
/// # Safety
/// `from` holds `dim` values, `to` room for `dim` rounded up to 16.
#[inline(always)]
pub(crate) unsafe fn store_value<C: Cached>(c: C, from: *const f32, dim: usize, to: *mut u8) {
    let to = to.cast::<C::Element>();
    let mut done = 0;
    while done < dim {
        // SAFETY: in bounds by this function's contract; LANES divides 16.
        unsafe {
            let n = C::S::LANES.min(dim - done);
            c.store(to.add(done), c.simd().load_first(from.add(done), n, 0.0));
        }
        done += C::S::LANES;
    }
}
