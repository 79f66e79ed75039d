//! Elementary functions on vectors.

use super::simd::Simd;

/// `(2^f - 1) / f` on [-1/2, 1/2], lowest power first: interpolated at Chebyshev nodes, then rounded to f32. With the last
/// addition of 1 the error of `2^f` is 1.2 * 2^-24.
const EXP2: [f32; 6] =
    [std::f32::consts::LN_2, 0.240_226_5, 0.055_503_57, 0.009_618_083, 0.001_339_086_3, 0.000_154_531_63];

/// ln 2 in two parts; the first has few enough bits that its products with exponents are exact (Cody and Waite 1980).
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `2^f` for `|f| <= 1/2`.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn exp2_fraction<S: Simd>(f: S::V) -> S::V {
    // SAFETY: by this function's contract.
    unsafe {
        let mut p = S::splat(EXP2[5]);
        p = S::mul_add(p, f, S::splat(EXP2[4]));
        p = S::mul_add(p, f, S::splat(EXP2[3]));
        p = S::mul_add(p, f, S::splat(EXP2[2]));
        p = S::mul_add(p, f, S::splat(EXP2[1]));
        p = S::mul_add(p, f, S::splat(EXP2[0]));
        S::mul_add(p, f, S::splat(1.0))
    }
}

/// `2^x` for `x < 127.5`, within 2 ulp; 0 below -126 (no subnormals) and where `x` is NaN.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp2<S: Simd>(x: S::V) -> S::V {
    // SAFETY: by this function's contract.
    unsafe {
        let lowest = S::splat(-126.0);
        let bounded = S::max(x, lowest);
        let n = S::round(bounded);
        S::zero_below(S::scale2(exp2_fraction::<S>(S::sub(bounded, n)), n), x, lowest)
    }
}

/// `e^x` within 2 ulp for `|x| <= 87`; beyond, the value at that bound.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: by this function's contract.
    unsafe {
        let x = S::min(S::max(x, S::splat(-87.0)), S::splat(87.0));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::mul_add(n, S::splat(-LN2[0]), x);
        let r = S::mul_add(n, S::splat(-LN2[1]), r);
        S::scale2(exp2_fraction::<S>(S::mul(r, S::splat(std::f32::consts::LOG2_E))), n)
    }
}
