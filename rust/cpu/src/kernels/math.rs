//! Elementary functions on vectors.

use super::simd::Simd;

/// `(2^f - 1) / f` on [-1/2, 1/2], lowest power first: interpolated at Chebyshev nodes, then rounded to f32. With the last
/// addition of 1 the error of `2^f` is 1.2 * 2^-24.
const EXP2: [f32; 6] =
    [std::f32::consts::LN_2, 0.240_226_5, 0.055_503_57, 0.009_618_083, 0.001_339_086_3, 0.000_154_531_63];

/// ln 2 in two parts; the first has few enough bits that its products with exponents are exact (Cody and Waite 1980).
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `(2^f - 1) / f` for `|f| <= 1/2`.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn exp2_slope<S: Simd>(f: S::V) -> S::V {
    // SAFETY: by this function's contract.
    unsafe {
        let mut p = S::splat(EXP2[5]);
        p = S::mul_add(p, f, S::splat(EXP2[4]));
        p = S::mul_add(p, f, S::splat(EXP2[3]));
        p = S::mul_add(p, f, S::splat(EXP2[2]));
        p = S::mul_add(p, f, S::splat(EXP2[1]));
        S::mul_add(p, f, S::splat(EXP2[0]))
    }
}

/// `2^f` for `|f| <= 1/2`.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn exp2_fraction<S: Simd>(f: S::V) -> S::V {
    // SAFETY: by this function's contract.
    unsafe { S::mul_add(exp2_slope::<S>(f), f, S::splat(1.0)) }
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

/// `f` and an integral `n` with `e^x = 2^(f + n)` and `|f| <= 1/2`, for `|x| <= 87`.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn as_power_of_two<S: Simd>(x: S::V) -> (S::V, S::V) {
    // SAFETY: by this function's contract.
    unsafe {
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::mul_add(n, S::splat(-LN2[0]), x);
        let r = S::mul_add(n, S::splat(-LN2[1]), r);
        (S::mul(r, S::splat(std::f32::consts::LOG2_E)), n)
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
        let (f, n) = as_power_of_two::<S>(x);
        S::scale2(exp2_fraction::<S>(f), n)
    }
}

/// `tanh(x)` within 4 ulp, however small `x`; NaN where `x` is.
///
/// With `e = e^2x - 1` it is `e / (e + 2)`. The 1 is taken from the power of two, not from the sum, so that nothing is lost
/// near 0.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
pub(crate) unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    // SAFETY: by this function's contract.
    unsafe {
        // From `tanh(10)` on the nearest f32 is 1. NaN is the second operand of both bounds, which they keep.
        let twice = S::min(S::splat(20.0), S::max(S::splat(-20.0), S::add(x, x)));
        let (f, n) = as_power_of_two::<S>(twice);
        let (one, power) = (S::splat(1.0), S::scale2(S::splat(1.0), n));
        let e = S::mul_add(S::mul(exp2_slope::<S>(f), f), power, S::sub(power, one));
        S::div(e, S::add(e, S::splat(2.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::kernels::scalar::simd::Scalar;
    use crate::kernels::table::compile;

    /// Replaces `n` values, a multiple of 16, by their hyperbolic tangents.
    ///
    /// # Safety
    /// See [`Simd`]; `x` holds `n` values.
    #[inline(always)]
    unsafe fn tanh_all<S: Simd>(x: *mut f32, n: usize) {
        let mut i = 0;
        while i < n {
            // SAFETY: `n` is a multiple of LANES, and `x` holds that many.
            unsafe { S::store(x.add(i), tanh::<S>(S::load(x.add(i)))) };
            i += S::LANES;
        }
    }

    fn kernel(isa: Isa) -> unsafe fn(*mut f32, usize) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => compile!(
                "avx512f,avx512bw,avx512dq,avx512vl",
                tanh_all::<crate::kernels::avx512::simd::Avx512> as fn(x: *mut f32, n: usize)
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => {
                compile!("avx2,fma", tanh_all::<crate::kernels::avx2::simd::Avx2> as fn(x: *mut f32, n: usize))
            }
            _ => compile!("sse2", tanh_all::<Scalar> as fn(x: *mut f32, n: usize)),
        }
    }

    #[test]
    fn tanh_is_accurate_in_every_value() {
        // Both signs of what is evenly spaced up to 12, and of magnitudes down to subnormals.
        let even = (0..60_000).map(|i| i as f32 / 5000.0);
        let small = (0..20_000).map(|i| 2f32.powf(-(i as f32) / 160.0));
        let x: Vec<f32> = even.chain(small).flat_map(|x| [x, -x]).collect();
        for isa in Isa::available() {
            let mut y = x.clone();
            // SAFETY: the machine has the set; the length is a multiple of 16.
            unsafe { kernel(isa)(y.as_mut_ptr(), y.len()) };
            let mut worst = 0f64;
            for (&x, &y) in x.iter().zip(&y) {
                let expected = f64::from(x).tanh();
                let ulp = f64::from((expected as f32).abs().next_up()) - f64::from((expected as f32).abs());
                worst = worst.max((f64::from(y) - expected).abs() / ulp);
            }
            assert!(worst <= 4.0, "{isa}: {worst} ulp");
            let mut far = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, 1.0].repeat(2);
            // SAFETY: as above.
            unsafe { kernel(isa)(far.as_mut_ptr(), far.len()) };
            assert!(far[0].is_nan(), "{isa}");
            assert_eq!(far[1..7], [1.0, -1.0, 1.0, -1.0, 0.0, 0.0], "{isa}");
        }
    }
}
