//! The codebooks of IQ1, IQ2 and IQ3: points of a lattice, with a coordinate for each of four or eight elements.
//!
//! A code is the rank of its point among the codebook's, ordered by their coordinates from the last to the first. The
//! files in `codebooks` are bitmaps over all points, made by `tests/tools/make_codebooks.py`; each format's file makes
//! its table of one at compile time.

/// The points whose bits are set in `members`. The digits of `n` in base `BASE`, the least significant first, choose
/// the coordinates of point `n` from `magnitudes`.
pub(super) const fn table<T: Copy, const BASE: usize, const LEN: usize, const POINTS: usize>(
    members: &[u8],
    magnitudes: [T; BASE],
) -> [[T; LEN]; POINTS] {
    let mut points = [[magnitudes[0]; LEN]; POINTS];
    let (mut rank, mut number) = (0, 0);
    while number < 8 * members.len() {
        if members[number / 8] >> (number % 8) & 1 == 1 {
            let (mut rest, mut i) = (number, 0);
            while i < LEN {
                points[rank][i] = magnitudes[rest % BASE];
                rest /= BASE;
                i += 1;
            }
            rank += 1;
        }
        number += 1;
    }
    assert!(rank == POINTS, "the codebook has as many points as codes");
    points
}

/// The signs of eight elements, a set bit for a negative one, from those of seven: the eighth makes their number even.
pub(super) const fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 0x7f) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Writes `scale` times the magnitudes, element `i` negated where bit `i` of `signs` is set.
pub(super) fn signed(out: &mut [f32], scale: f32, magnitudes: &[u8], signs: u8) {
    for (i, (out, &magnitude)) in out.iter_mut().zip(magnitudes).enumerate() {
        let value = scale * magnitude as f32;
        *out = if signs >> i & 1 == 1 { -value } else { value };
    }
}
