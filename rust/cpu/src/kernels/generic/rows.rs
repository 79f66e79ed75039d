//! Norms, rotation and gating of one row, generic over vectors.

use nanovllm_backend::Activation;

use super::math::{exp, tanh};
use super::simd::Simd;

/// `x / sqrt(mean(x^2) + eps)`: the factor that normalises `n` values.
///
/// # Safety
/// `x` holds `n` values.
#[inline(always)]
unsafe fn rms_factor<S: Simd>(s: S, x: *const f32, n: usize, eps: f32) -> f32 {
    let lanes = S::LANES;
    // SAFETY: indices stay below `n`.
    unsafe {
        // Four chains hide the latency of the addition; their order is fixed by `n`.
        let mut sums = [s.splat(0.0); 4];
        let mut i = 0;
        while i + 4 * lanes <= n {
            for (j, sum) in sums.iter_mut().enumerate() {
                let v = s.load(x.add(i + j * lanes));
                *sum = s.mul_add(v, v, *sum);
            }
            i += 4 * lanes;
        }
        while i < n {
            let v = s.load_first(x.add(i), lanes.min(n - i), 0.0);
            sums[0] = s.mul_add(v, v, sums[0]);
            i += lanes;
        }
        let sum = s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])));
        1.0 / (sum / n as f32 + eps).sqrt()
    }
}

/// `out = x * factor * weight`.
///
/// # Safety
/// `n` values can be read from `x` and `weight` and written to `out`, which may be `x`.
#[inline(always)]
unsafe fn scale_row<S: Simd>(s: S, x: *const f32, factor: f32, weight: *const f32, out: *mut f32, n: usize) {
    // SAFETY: indices stay below `n`.
    unsafe {
        let factor = s.splat(factor);
        let mut i = 0;
        while i + S::LANES <= n {
            let v = s.mul(s.mul(s.load(x.add(i)), factor), s.load(weight.add(i)));
            s.store(out.add(i), v);
            i += S::LANES;
        }
        if i < n {
            let rest = n - i;
            let v = s.mul(s.load_first(x.add(i), rest, 0.0), factor);
            s.store_first(out.add(i), s.mul(v, s.load_first(weight.add(i), rest, 0.0)), rest);
        }
    }
}

/// `out = x / sqrt(mean(x^2) + eps) * weight`.
///
/// # Safety
/// `n` values can be read from `x` and `weight` and written to `out`, which may be `x`.
#[inline(always)]
pub(crate) unsafe fn rms_norm<S: Simd>(s: S, x: *const f32, weight: *const f32, eps: f32, out: *mut f32, n: usize) {
    // SAFETY: each pointer holds `n` values.
    unsafe { scale_row(s, x, rms_factor(s, x, n, eps), weight, out, n) }
}

/// `x *= factor`.
///
/// # Safety
/// `x` holds `n` values.
#[inline(always)]
unsafe fn scale_in_place<S: Simd>(s: S, x: *mut f32, factor: f32, n: usize) {
    // SAFETY: indices stay below `n`.
    unsafe {
        let factor = s.splat(factor);
        let mut i = 0;
        while i + S::LANES <= n {
            s.store(x.add(i), s.mul(s.load(x.add(i)), factor));
            i += S::LANES;
        }
        if i < n {
            s.store_first(x.add(i), s.mul(s.load_first(x.add(i), n - i, 0.0), factor), n - i);
        }
    }
}

/// `residual += x; out = rms_norm(residual)`.
///
/// # Safety
/// Each pointer holds `n` values.
#[inline(always)]
pub(crate) unsafe fn add_rms_norm<S: Simd>(
    s: S,
    x: *const f32,
    residual: *mut f32,
    weight: *const f32,
    eps: f32,
    out: *mut f32,
    n: usize,
) {
    // SAFETY: indices stay below `n`, and each pointer holds that many values.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            s.store(residual.add(i), s.add(s.load(residual.add(i)), s.load(x.add(i))));
            i += S::LANES;
        }
        if i < n {
            let v = s.add(s.load_first(residual.add(i), n - i, 0.0), s.load_first(x.add(i), n - i, 0.0));
            s.store_first(residual.add(i), v, n - i);
        }
        rms_norm(s, residual, weight, eps, out, n);
    }
}

/// `x = cap * tanh(x / cap)`.
///
/// # Safety
/// `x` holds `n` values.
#[inline(always)]
pub(crate) unsafe fn soft_cap<S: Simd>(s: S, x: *mut f32, cap: f32, n: usize) {
    let (factor, cap) = (s.splat(cap.recip()), s.splat(cap));
    let capped = |x| s.mul(tanh(s, s.mul(x, factor)), cap);
    // SAFETY: indices stay below `n`.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            s.store(x.add(i), capped(s.load(x.add(i))));
            i += S::LANES;
        }
        if i < n {
            s.store_first(x.add(i), capped(s.load_first(x.add(i), n - i, 0.0)), n - i);
        }
    }
}

/// What becomes of gates and the values that they gate. A trait and not closures, which compilers may leave as calls.
trait Gating {
    fn gated<S: Simd>(s: S, gate: S::V, up: S::V) -> S::V;
}

/// `gate * sigmoid(angle) * up`.
#[inline(always)]
fn by_sigmoid<S: Simd>(s: S, gate: S::V, angle: S::V, up: S::V) -> S::V {
    let denominator = s.add(s.splat(1.0), exp(s, s.sub(s.splat(0.0), angle)));
    s.mul(s.div(gate, denominator), up)
}

struct Silu;

impl Gating for Silu {
    #[inline(always)]
    fn gated<S: Simd>(s: S, gate: S::V, up: S::V) -> S::V {
        by_sigmoid(s, gate, gate, up)
    }
}

struct GeluTanh;

impl Gating for GeluTanh {
    #[inline(always)]
    fn gated<S: Simd>(s: S, gate: S::V, up: S::V) -> S::V {
        const TWICE_ROOT: f32 = 2.0 * 0.797_884_6; // 2 sqrt(2 / pi)
        let (linear, cubic) = (s.splat(TWICE_ROOT), s.splat(TWICE_ROOT * 0.044715));
        let twice_angle = s.mul(s.mul_add(s.mul(gate, gate), cubic, linear), gate);
        by_sigmoid(s, gate, twice_angle, up)
    }
}

struct SwigluOai;

impl Gating for SwigluOai {
    #[inline(always)]
    fn gated<S: Simd>(s: S, gate: S::V, up: S::V) -> S::V {
        let (limit, least) = (s.splat(Activation::SWIGLU_OAI_LIMIT), s.splat(-Activation::SWIGLU_OAI_LIMIT));
        // In this order a NaN stays one.
        let gate = s.min(limit, gate);
        let up = s.add(s.max(least, s.min(limit, up)), s.splat(1.0));
        by_sigmoid(s, gate, s.mul(gate, s.splat(Activation::SWIGLU_OAI_ALPHA)), up)
    }
}

/// `out = gate * sigmoid(gate) * up`.
///
/// # Safety
/// Each pointer holds `n` values.
#[inline(always)]
pub(crate) unsafe fn silu_and_mul<S: Simd>(s: S, gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's contract.
    unsafe { gate_rows::<S, Silu>(s, gate, up, out, n) }
}

/// `out = gate / 2 * (1 + tanh(angle)) * up` with `angle = sqrt(2 / pi) * (gate + 0.044715 * gate^3)`, which is `gate *
/// sigmoid(2 * angle) * up`.
///
/// # Safety
/// Each pointer holds `n` values.
#[inline(always)]
pub(crate) unsafe fn gelu_and_mul<S: Simd>(s: S, gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's contract.
    unsafe { gate_rows::<S, GeluTanh>(s, gate, up, out, n) }
}

/// `out = gate * sigmoid(alpha * gate) * (up + 1)` of gates of at most a limit and of values within it; a NaN stays one.
///
/// # Safety
/// Each pointer holds `n` values.
#[inline(always)]
pub(crate) unsafe fn swiglu_oai<S: Simd>(s: S, gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's contract.
    unsafe { gate_rows::<S, SwigluOai>(s, gate, up, out, n) }
}

/// `out = gated(gate, up)`.
///
/// # Safety
/// Each pointer holds `n` values.
#[inline(always)]
unsafe fn gate_rows<S: Simd, G: Gating>(s: S, gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
    // SAFETY: indices stay below `n`.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            s.store(out.add(i), G::gated(s, s.load(gate.add(i)), s.load(up.add(i))));
            i += S::LANES;
        }
        if i < n {
            let v = G::gated(s, s.load_first(gate.add(i), n - i, 0.0), s.load_first(up.add(i), n - i, 0.0));
            s.store_first(out.add(i), v, n - i);
        }
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
/// `heads` holds `count * dim` values, the norm's weight `dim` and the rotation's row `width`, which is even and
/// at most `dim`.
#[inline(always)]
pub(crate) unsafe fn norm_rope<S: Simd>(
    s: S,
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
                Some(Norm { weight: Some(weight), eps }) => rms_norm(s, x, weight, eps, x, dim),
                Some(Norm { weight: None, eps }) => scale_in_place(s, x, rms_factor(s, x, dim, eps), dim),
                None => {}
            }
            if let Some(Rotation { row, width }) = rotation {
                rotate_head(s, x, row, width / 2);
            }
        }
    }
}

/// Turns the `half` dimensions at `x` with the `half` that follow.
///
/// # Safety
/// Both pointers hold `2 * half` values.
#[inline(always)]
unsafe fn rotate_head<S: Simd>(s: S, x: *mut f32, rope: *const f32, half: usize) {
    // SAFETY: indices stay below `2 * half`.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= half {
            let (a, b) = (s.load(x.add(i)), s.load(x.add(half + i)));
            let (a, b) = rotate(s, a, b, s.load(rope.add(i)), s.load(rope.add(half + i)));
            s.store(x.add(i), a);
            s.store(x.add(half + i), b);
            i += S::LANES;
        }
        if i < half {
            let n = half - i;
            let (a, b) = (s.load_first(x.add(i), n, 0.0), s.load_first(x.add(half + i), n, 0.0));
            let (cos, sin) = (s.load_first(rope.add(i), n, 0.0), s.load_first(rope.add(half + i), n, 0.0));
            let (a, b) = rotate(s, a, b, cos, sin);
            s.store_first(x.add(i), a, n);
            s.store_first(x.add(half + i), b, n);
        }
    }
}

/// The pairs (`a`, `b`) turned by the angles.
#[inline(always)]
fn rotate<S: Simd>(s: S, a: S::V, b: S::V, cos: S::V, sin: S::V) -> (S::V, S::V) {
    let minus_b = s.sub(s.splat(0.0), b);
    (s.mul_add(minus_b, sin, s.mul(a, cos)), s.mul_add(a, sin, s.mul(b, cos)))
}
