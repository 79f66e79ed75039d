//! Elementary functions on vectors.

use super::simd::Simd;

/// `(2^f - 1) / f` on [-1/2, 1/2], lowest power first: interpolated at Chebyshev nodes, then rounded to f32. With the last
/// addition of 1 the error of `2^f` is 1.2 * 2^-24.
const EXP2: [f32; 6] =
    [std::f32::consts::LN_2, 0.240_226_5, 0.055_503_57, 0.009_618_083, 0.001_339_086_3, 0.000_154_531_63];

/// ln 2 in two parts; the first has few enough bits that its products with exponents are exact (Cody and Waite 1980).
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `(2^f - 1) / f` for `|f| <= 1/2`.
#[inline(always)]
fn exp2_slope<S: Simd>(s: S, f: S::V) -> S::V {
    let mut p = s.splat(EXP2[5]);
    p = s.mul_add(p, f, s.splat(EXP2[4]));
    p = s.mul_add(p, f, s.splat(EXP2[3]));
    p = s.mul_add(p, f, s.splat(EXP2[2]));
    p = s.mul_add(p, f, s.splat(EXP2[1]));
    s.mul_add(p, f, s.splat(EXP2[0]))
}

/// `2^f` for `|f| <= 1/2`.
#[inline(always)]
fn exp2_fraction<S: Simd>(s: S, f: S::V) -> S::V {
    s.mul_add(exp2_slope(s, f), f, s.splat(1.0))
}

/// `2^x` for `x < 127.5`, within 2 ulp; 0 below -126 (no subnormals) and where `x` is NaN.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    let lowest = s.splat(-126.0);
    let bounded = s.max(x, lowest);
    let n = s.round(bounded);
    s.zero_below(s.scale2(exp2_fraction(s, s.sub(bounded, n)), n), x, lowest)
}

/// `f` and an integral `n` with `e^x = 2^(f + n)` and `|f| <= 1/2`, for `|x| <= 87`.
#[inline(always)]
fn as_power_of_two<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN2[0]), x);
    let r = s.mul_add(n, s.splat(-LN2[1]), r);
    (s.mul(r, s.splat(std::f32::consts::LOG2_E)), n)
}

/// `e^x` within 2 ulp for `|x| <= 87`; beyond, the value at that bound.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.max(x, s.splat(-87.0)), s.splat(87.0));
    let (f, n) = as_power_of_two(s, x);
    s.scale2(exp2_fraction(s, f), n)
}

/// `tanh(x)` within 4 ulp, however small `x`; NaN where `x` is.
///
/// With `e = e^2x - 1` it is `e / (e + 2)`. The 1 is taken from the power of two, not from the sum, so that nothing is lost
/// near 0.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // From `tanh(10)` on the nearest f32 is 1. NaN is the second operand of both bounds, which they keep.
    let twice = s.min(s.splat(20.0), s.max(s.splat(-20.0), s.add(x, x)));
    let (f, n) = as_power_of_two(s, twice);
    let (one, power) = (s.splat(1.0), s.scale2(s.splat(1.0), n));
    let e = s.mul_add(s.mul(exp2_slope(s, f), f), power, s.sub(power, one));
    s.div(e, s.add(e, s.splat(2.0)))
}

#[cfg(test)]
mod tests {
    use crate::isa::Isa;
    use crate::testing::kernels;

    #[test]
    fn tanh_is_accurate_in_every_value() {
        // Both signs of what is evenly spaced up to 12, and of magnitudes down to subnormals.
        let even = (0..60_000).map(|i| i as f32 / 5000.0);
        let small = (0..20_000).map(|i| 2f32.powf(-(i as f32) / 160.0));
        let x: Vec<f32> = even.chain(small).flat_map(|x| [x, -x]).collect();
        for isa in Isa::available() {
            let soft_cap = kernels(isa).rows.soft_cap;
            let mut y = x.clone();
            // SAFETY: the pointer and the length are a vector's. A cap of 1 leaves the tangent as it is.
            unsafe { soft_cap(y.as_mut_ptr(), 1.0, y.len()) };
            for (&x, &y) in x.iter().zip(&y) {
                let expected = f64::from(x).tanh();
                let ulp = f64::from((expected as f32).abs().next_up()) - f64::from((expected as f32).abs());
                let error = (f64::from(y) - expected).abs() / ulp;
                assert!(error <= 4.0, "{isa}: tanh({x}) is off by {error} ulp");
            }
            let mut far = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, 1.0].repeat(2);
            // SAFETY: as above.
            unsafe { soft_cap(far.as_mut_ptr(), 1.0, far.len()) };
            assert!(far[0].is_nan(), "{isa}");
            assert_eq!(far[1..7], [1.0, -1.0, 1.0, -1.0, 0.0, 0.0], "{isa}");
        }
    }
}
