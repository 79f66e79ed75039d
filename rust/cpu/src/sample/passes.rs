//! Passes over one row of logits, by one thread or by the team, each member over pieces of it. What comes of a pass does not depend
//! on how many there are.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::claims::Claims;
use crate::kernels::generic::sample::{Drawn, Stream};
use crate::kernels::generic::truncate::of_key;
use crate::kernels::table::RowKernels;
use crate::team::Team;

/// The most pieces of a row.
const MOST: usize = 32;

/// The fewest logits of a piece: looking at as many takes about as long as waking the team.
const LEAST: usize = 8 << 10;

/// Logits that are looked at between two looks at how many are kept.
const CHUNK: usize = 4096;

thread_local! {
    /// The keys of a piece.
    static KEYS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// How a row is passed over.
#[derive(Clone, Copy)]
pub(super) struct Passes<'a> {
    pub(super) kernels: &'a RowKernels,
    /// Those who share a row; none where each of them has rows of its own.
    pub(super) team: Option<&'a Team>,
}

impl Passes<'_> {
    /// Runs `pass` on pieces of `0..n` and folds what they give, in the order of the pieces.
    fn over<R: Send>(self, n: usize, pass: impl Fn(Range<usize>) -> R + Sync, fold: impl FnMut(R, R) -> R) -> R {
        let pieces = self.team.map_or(1, Team::size).min(n / LEAST).min(MOST);
        let Some(team) = self.team.filter(|_| pieces > 1) else { return pass(0..n) };
        let results: [Mutex<Option<R>>; MOST] = std::array::from_fn(|_| Mutex::new(None));
        let claims = Claims::new(pieces);
        team.run(|_| {
            while let Some(claimed) = claims.take(1) {
                for piece in claimed {
                    let result = pass(n * piece / pieces..n * (piece + 1) / pieces);
                    *results[piece].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }
            }
        });
        let results =
            results.into_iter().filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner));
        results.reduce(fold).unwrap_or_else(|| pass(0..n))
    }

    /// The lowest index of the largest logit, NaN aside; 0 when there is none.
    pub(super) fn arg_max(self, logits: &[f32]) -> u32 {
        let of_piece = |piece: Range<usize>| {
            let part = &logits[piece.clone()];
            // SAFETY: the pointer and the length are a slice's.
            piece.start as u32 + unsafe { (self.kernels.arg_max)(part.as_ptr(), part.len()) }
        };
        let number = |at: u32| logits.get(at as usize).copied().filter(|logit| !logit.is_nan());
        let best = self.over(logits.len(), of_piece, |a, b| match (number(a), number(b)) {
            (Some(first), Some(second)) if second > first => b,
            (None, Some(_)) => b,
            _ => a,
        });
        if number(best).is_some() { best } else { 0 }
    }

    /// The token of the highest score, the lowest of equals; the likeliest where the largest logit over the temperature is not
    /// finite.
    pub(super) fn draw(self, logits: &[f32], temperature: f32, stream: Stream) -> u32 {
        let of_piece = |piece: Range<usize>| {
            let first = piece.start as u32;
            let part = &logits[piece];
            // SAFETY: the pointer and the length are a slice's, and the temperature is above 0.
            unsafe { (self.kernels.draw)(part.as_ptr(), part.len(), first, temperature, stream) }
        };
        let drawn = self.over(logits.len(), of_piece, Drawn::or);
        if (drawn.largest / temperature).is_finite() { drawn.winner } else { self.arg_max(logits) }
    }

    /// The sum of the weights of the logits that are not further below `largest` than `least`, both over the temperature; it is
    /// exact in any order.
    pub(super) fn mass(self, logits: &[f32], largest: f32, temperature: f32, least: f32) -> f64 {
        let of_piece = |piece: Range<usize>| {
            let part = &logits[piece];
            // SAFETY: the pointer and the length are a slice's.
            unsafe { (self.kernels.mass)(part.as_ptr(), part.len(), largest, temperature, least) }
        };
        self.over(logits.len(), of_piece, |a, b| a + b)
    }

    /// How many logits come before that of `token` in their order.
    pub(super) fn ahead(self, logits: &[f32], token: u32) -> usize {
        let own = logits[token as usize];
        let of_piece = |piece: Range<usize>| {
            let before = (token as usize).clamp(piece.start, piece.end) - piece.start;
            let part = &logits[piece];
            // SAFETY: the pointer and the length are a slice's, which `before` is within.
            unsafe { (self.kernels.ahead)(part.as_ptr(), part.len(), own, before) }
        };
        self.over(logits.len(), of_piece, |a, b| a + b)
    }

    /// Leaves the keys of the first `wanted` tokens of the order of logits in `keys`, of those that are at least `least`; in no
    /// order.
    pub(super) fn first_keys(self, logits: &[f32], wanted: usize, least: f32, keys: &mut Vec<u64>) {
        keys.clear();
        if wanted == 0 {
            return;
        }
        let all = Mutex::new(keys);
        let of_piece = |piece: Range<usize>| {
            KEYS.with_borrow_mut(|own| {
                self.collect(&logits[piece.clone()], piece.start, wanted, least, own);
                all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(own);
            });
        };
        self.over(logits.len(), of_piece, |(), ()| ());
        let keys = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        if keys.len() > wanted {
            keys.select_nth_unstable_by(wanted - 1, |a, b| b.cmp(a));
            keys.truncate(wanted);
        }
    }

    /// The same for a piece, whose tokens begin at `first`.
    fn collect(self, logits: &[f32], first: usize, wanted: usize, mut least: f32, keys: &mut Vec<u64>) {
        keys.clear();
        for (at, chunk) in logits.chunks(CHUNK).enumerate() {
            let before = keys.len();
            keys.reserve(chunk.len());
            // SAFETY: the chunk is a slice of its length, and there is room for as many keys behind those that are there.
            unsafe {
                let room = keys.as_mut_ptr().add(before);
                let begin = (first + at * CHUNK) as u32;
                let found = (self.kernels.collect)(chunk.as_ptr(), chunk.len(), begin, least, room);
                keys.set_len(before + found);
            }
            let is_last = (at + 1) * CHUNK >= logits.len();
            if keys.len() > wanted && (is_last || keys.len() >= wanted.saturating_mul(2).max(256)) {
                let (_, &mut last, _) = keys.select_nth_unstable_by(wanted - 1, |a, b| b.cmp(a));
                keys.truncate(wanted);
                // Of equal logits later tokens come later.
                least = least.max(of_key(last).1.next_up());
            }
        }
    }
}
