//! What ragged batches are drawn from.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::HeadLayout;

/// A batch but for its numbers.
#[derive(Debug, Clone)]
pub(super) struct BatchShape {
    pub(super) heads: HeadLayout,
    pub(super) block_size: usize,
    /// Tokens in the cache before the batch, and tokens the batch brings, of each sequence.
    pub(super) sequences: Vec<(usize, usize)>,
    /// Whether the layer shares the cache of an earlier one.
    pub(super) shared: bool,
    /// Whether a window, where there is one, is the cache's as well.
    pub(super) sliding: bool,
    /// Of query, key and value heads.
    pub(super) norms: [NormKind; 3],
    /// Dimensions of a head that are rotated.
    pub(super) rotated: Option<usize>,
    pub(super) options: Options,
    pub(super) seed: u64,
}

/// Whether heads are normed.
#[derive(Debug, Clone, Copy)]
pub(super) enum NormKind {
    Absent,
    Unweighted,
    Weighted,
}

impl NormKind {
    pub(super) const ALL: [Self; 3] = [Self::Absent, Self::Unweighted, Self::Weighted];
}

/// How the batch attends.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    /// The default one where there is none.
    pub(super) scale: Option<f64>,
    pub(super) window: Option<usize>,
    pub(super) soft_cap: Option<f32>,
    /// A shape has a few, about which those of the query heads lie in turn; a batch has one a query head. Empty without sinks.
    pub(super) sinks: Vec<f32>,
}

impl BatchShape {
    /// Full layers of their own, heads rotated whole and not normed, every position seen.
    pub(super) fn plain(heads: HeadLayout, block_size: usize, sequences: Vec<(usize, usize)>, seed: u64) -> Self {
        Self {
            heads,
            block_size,
            sequences,
            shared: false,
            sliding: false,
            norms: [NormKind::Absent; 3],
            rotated: Some(heads.head_dim),
            options: Options::default(),
            seed,
        }
    }

    /// Grouped heads, blocks that fill a device's groups and such that do not, decode and prefill in one batch, and whatever
    /// layers differ in but [`Options`].
    pub(super) fn strategy() -> impl Strategy<Value = Self> {
        let heads = (1usize..4, 1usize..5, select(vec![2usize, 6, 16, 34, 64, 80, 128])).prop_map(
            |(num_kv_heads, group, head_dim)| HeadLayout { num_heads: num_kv_heads * group, num_kv_heads, head_dim },
        );
        let sequence = prop_oneof![
            (1usize..70, Just(1usize)), // decode
            (Just(0usize), 1usize..40), // prefill
            (1usize..70, 1usize..40),   // a chunk after a prefix
        ];
        let block_size = prop_oneof![Just(16usize), Just(32), 1usize..20];
        let batch = (heads, block_size, prop::collection::vec(sequence, 1..6), any::<u64>());
        let norms = || select(&NormKind::ALL);
        let layer = (prop::bool::weighted(0.3), any::<bool>(), [norms(), norms(), norms()], Rotated::strategy());
        (batch, layer).prop_map(|((heads, block_size, sequences, seed), (shared, sliding, norms, rotated))| Self {
            shared,
            sliding,
            norms,
            rotated: rotated.of(heads.head_dim),
            ..Self::plain(heads, block_size, sequences, seed)
        })
    }

    /// The same with options of attention.
    pub(super) fn with_options() -> impl Strategy<Value = Self> {
        (Self::strategy(), Options::strategy()).prop_map(|(shape, options)| Self { options, ..shape })
    }
}

impl Options {
    fn strategy() -> impl Strategy<Value = Self> {
        let scale = prop::option::of(prop_oneof![Just(1.0), 0.02f64..0.5]);
        let window = prop::option::weighted(0.8, prop_oneof![Just(1usize), 2usize..20, 20usize..110, Just(1 << 20)]);
        let soft_cap = prop::option::of(prop_oneof![Just(1f32), 1f32..60.0]);
        // Sinks that take nothing, some and nearly all of the softmax.
        let level = select(vec![-1e4f32, -20.0, 0.0, 5.0, 30.0]);
        let sinks = prop_oneof![Just(Vec::new()), prop::collection::vec(level, 1..3)];
        (scale, window, soft_cap, sinks).prop_map(|(scale, window, soft_cap, sinks)| Self {
            scale,
            window,
            soft_cap,
            sinks,
        })
    }

    /// The first position that the row at `position` sees.
    pub(super) fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// How much of a head is rotated, whatever its width.
#[derive(Debug, Clone, Copy)]
enum Rotated {
    Nothing,
    Some(Index),
    All,
}

impl Rotated {
    fn strategy() -> impl Strategy<Value = Self> {
        prop_oneof![
            1 => Just(Self::Nothing),
            2 => any::<Index>().prop_map(Self::Some),
            2 => Just(Self::All),
        ]
    }

    fn of(self, head_dim: usize) -> Option<usize> {
        match self {
            Self::Nothing => None,
            Self::Some(pairs) => Some(2 * (1 + pairs.index(head_dim / 2))),
            Self::All => Some(head_dim),
        }
    }
}
