//! Norms, rotation and gating of one row, generic over vectors.

use super::math::exp;
use super::simd::Simd;

/// `x / sqrt(mean(x^2) + eps)`: the factor that normalises `n` values.
///
/// # Safety
/// See [`Simd`]; `x` holds `n` values.
#[inline(always)]
unsafe fn rms_factor<S: Simd>(x: *const f32, n: usize, eps: f32) -> f32 {
    let lanes = S::LANES;
    // SAFETY: indices stay below `n`.
    unsafe {
        // Four chains hide the latency of the addition; their order is fixed by `n`.
        let mut sums = [S::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * lanes <= n {
            for (j, sum) in sums.iter_mut().enumerate() {
                let v = S::load(x.add(i + j * lanes));
                *sum = S::mul_add(v, v, *sum);
            }
            i += 4 * lanes;
        }
        while i < n {
            let v = S::load_first(x.add(i), lanes.min(n - i), 0.0);
            sums[0] = S::mul_add(v, v, sums[0]);
            i += lanes;
        }
        let sum = S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
        1.0 / (sum / n as f32 + eps).sqrt()
    }
}

/// `out = x * factor * weight`.
///
/// # Safety
/// See [`Simd`]; each pointer holds `n` values; `out` may be `x`.
#[inline(always)]
unsafe fn scale_row<S: Simd>(x: *const f32, factor: f32, weight: *const f32, out: *mut f32, n: usize) {
    // SAFETY: indices stay below `n`.
    unsafe {
        let factor = S::splat(factor);
        let mut i = 0;
        while i + S::LANES <= n {
            let v = S::mul(S::mul(S::load(x.add(i)), factor), S::load(weight.add(i)));
            S::store(out.add(i), v);
            i += S::LANES;
        }
        if i < n {
            let rest = n - i;
            let v = S::mul(S::load_first(x.add(i), rest, 0.0), factor);
            S::store_first(out.add(i), S::mul(v, S::load_first(weight.add(i), rest, 0.0)), rest);
        }
    }
}

/// `out = x / sqrt(mean(x^2) + eps) * weight`.
///
/// # Safety
/// See [`Simd`]; each pointer holds `n` values; `out` may be `x`.
#[inline(always)]
pub(crate) unsafe fn rms_norm<S: Simd>(x: *const f32, weight: *const f32, eps: f32, out: *mut f32, n: usize) {
    // SAFETY: by this function's contract.
    unsafe { scale_row::<S>(x, rms_factor::<S>(x, n, eps), weight, out, n) }
}

/// `x *= factor`.
///
/// # Safety
/// See [`Simd`]; `x` holds `n` values.
#[inline(always)]
unsafe fn scale_in_place<S: Simd>(x: *mut f32, factor: f32, n: usize) {
    // SAFETY: indices stay below `n`.
    unsafe {
        let factor = S::splat(factor);
        let mut i = 0;
        while i + S::LANES <= n {
            S::store(x.add(i), S::mul(S::load(x.add(i)), factor));
            i += S::LANES;
        }
        if i < n {
            S::store_first(x.add(i), S::mul(S::load_first(x.add(i), n - i, 0.0), factor), n - i);
        }
    }
}

/// `residual += x; out = rms_norm(residual)`.
///
/// # Safety
/// See [`Simd`]; each pointer holds `n` values.
#[inline(always)]
pub(crate) unsafe fn add_rms_norm<S: Simd>(
    x: *const f32,
    residual: *mut f32,
    weight: *const f32,
    eps: f32,
    out: *mut f32,
    n: usize,
) {
    // SAFETY: indices stay below `n`; the rest by this function's contract.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            S::store(residual.add(i), S::add(S::load(residual.add(i)), S::load(x.add(i))));
            i += S::LANES;
        }
        if i < n {
            let v = S::add(S::load_first(residual.add(i), n - i, 0.0), S::load_first(x.add(i), n - i, 0.0));
            S::store_first(residual.add(i), v, n - i);
        }
        rms_norm::<S>(residual, weight, eps, out, n);
    }
}

/// `out = gate * sigmoid(gate) * up`.
///
/// # Safety
/// See [`Simd`]; each pointer holds `n` values.
#[inline(always)]
pub(crate) unsafe fn silu_and_mul<S: Simd>(gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
    // SAFETY: indices stay below `n`.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            S::store(out.add(i), gated::<S>(S::load(gate.add(i)), S::load(up.add(i))));
            i += S::LANES;
        }
        if i < n {
            let v = gated::<S>(S::load_first(gate.add(i), n - i, 0.0), S::load_first(up.add(i), n - i, 0.0));
            S::store_first(out.add(i), v, n - i);
        }
    }
}

/// `gate * sigmoid(gate) * up`.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn gated<S: Simd>(gate: S::V, up: S::V) -> S::V {
    // SAFETY: by the caller's contract.
    unsafe {
        let denominator = S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), gate)));
        S::mul(S::div(gate, denominator), up)
    }
}

/// The norm of a head.
#[derive(Clone, Copy)]
pub(crate) struct Norm {
    /// A value for each of the head's.
    pub(crate) weight: Option<*const f32>,
    pub(crate) eps: f32,
}

/// The rotation of a head: of its first `width` dimensions `i` with `i + width / 2`, by the angle whose cosine and sine are
/// `row[i]` and `row[width / 2 + i]` (RoFormer, in GPT-NeoX's arrangement).
#[derive(Clone, Copy)]
pub(crate) struct Rotation {
    pub(crate) row: *const f32,
    pub(crate) width: usize,
}

/// Norms each of `count` heads, then rotates it.
///
/// # Safety
/// See [`Simd`]; `heads` holds `count * dim` values, the norm's weight `dim` and the rotation's row `width`, which is even and
/// at most `dim`.
#[inline(always)]
pub(crate) unsafe fn norm_rope<S: Simd>(
    heads: *mut f32,
    count: usize,
    dim: usize,
    norm: Option<Norm>,
    rotation: Option<Rotation>,
) {
    // SAFETY: indices stay below each head's `dim`.
    unsafe {
        for h in 0..count {
            let x = heads.add(h * dim);
            match norm {
                Some(Norm { weight: Some(weight), eps }) => rms_norm::<S>(x, weight, eps, x, dim),
                Some(Norm { weight: None, eps }) => scale_in_place::<S>(x, rms_factor::<S>(x, dim, eps), dim),
                None => {}
            }
            if let Some(Rotation { row, width }) = rotation {
                rotate_head::<S>(x, row, width / 2);
            }
        }
    }
}

/// Turns the `half` dimensions at `x` with the `half` that follow.
///
/// # Safety
/// See [`Simd`]; both pointers hold `2 * half` values.
#[inline(always)]
unsafe fn rotate_head<S: Simd>(x: *mut f32, rope: *const f32, half: usize) {
    // SAFETY: indices stay below `2 * half`.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= half {
            let (a, b) = (S::load(x.add(i)), S::load(x.add(half + i)));
            let (a, b) = rotate::<S>(a, b, S::load(rope.add(i)), S::load(rope.add(half + i)));
            S::store(x.add(i), a);
            S::store(x.add(half + i), b);
            i += S::LANES;
        }
        if i < half {
            let n = half - i;
            let (a, b) = (S::load_first(x.add(i), n, 0.0), S::load_first(x.add(half + i), n, 0.0));
            let (cos, sin) = (S::load_first(rope.add(i), n, 0.0), S::load_first(rope.add(half + i), n, 0.0));
            let (a, b) = rotate::<S>(a, b, cos, sin);
            S::store_first(x.add(i), a, n);
            S::store_first(x.add(half + i), b, n);
        }
    }
}

/// The pairs (`a`, `b`) turned by the angles.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn rotate<S: Simd>(a: S::V, b: S::V, cos: S::V, sin: S::V) -> (S::V, S::V) {
    // SAFETY: by the caller's contract.
    unsafe {
        let minus_b = S::sub(S::splat(0.0), b);
        (S::mul_add(minus_b, sin, S::mul(a, cos)), S::mul_add(a, sin, S::mul(b, cos)))
    }
}
