//! What layers may differ in between the projection to queries, keys and values and the projection back.

/// The heads in a row of queries, keys and values of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key heads, and of value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head, of queries, keys and values alike; even.
    pub head_dim: usize,
}

impl HeadLayout {
    /// Width of the queries of a row.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of the keys of a row, and of its values.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Width of a whole row, `[queries | keys | values]`.
    pub fn qkv_size(&self) -> usize {
        self.q_size() + 2 * self.kv_size()
    }
}

/// A root-mean-square norm of every head of a row: `x / sqrt(mean(x^2) + eps) * weight`.
#[derive(Debug)]
pub struct HeadNorm<'a, T> {
    /// What normed heads are multiplied by, `[1, head_dim]`, the same for each head; without one they stay as they are.
    pub weight: Option<&'a T>,
    /// Added to the mean square, so that a head of zeros can be normed.
    pub eps: f32,
}

/// Which heads of a row are normed before they are rotated and stored. Of a layer whose rows hold queries alone only
/// `q` counts.
#[derive(Debug)]
pub struct HeadNorms<'a, T> {
    /// The norm of query heads, if they have one.
    pub q: Option<HeadNorm<'a, T>>,
    /// The norm of key heads, if they have one.
    pub k: Option<HeadNorm<'a, T>>,
    /// The norm of value heads, if they have one.
    pub v: Option<HeadNorm<'a, T>>,
}

impl<T> HeadNorms<'_, T> {
    /// No heads are normed.
    pub const NONE: Self = Self { q: None, k: None, v: None };
}

/// Rotary position embedding of query and key heads (Su et al. 2021), in GPT-NeoX's arrangement.
///
/// A table of `width` columns rotates the first `width` dimensions of a head, dimension `i` together with
/// `i + width / 2`; those beyond stay as they are (partial rotary).
#[derive(Debug)]
pub struct Rope<'a, T> {
    /// `[max_position, width]`: a row has the cosines of a position's `width / 2` angles, then the sines. `width` is
    /// even, at least 2 and at most the head's.
    pub table: &'a T,
    /// Which row of the table rotates each row of the batch, `[rows]`.
    pub positions: &'a [u32],
}

/// How one layer attends.
#[derive(Debug)]
pub struct AttentionOptions<'a, T> {
    /// What products of queries and keys are multiplied by; finite and not negative. See [`default_scale`].
    pub scale: f64,
    /// The number of positions that a row sees at most, its own included; at least 1. Without one it sees all up to its
    /// own.
    pub window: Option<usize>,
    /// The bound of scores, positive: a scaled score `s` becomes `cap * tanh(s / cap)` (Gemma 2).
    pub soft_cap: Option<f32>,
    /// A logit for each query head, `[1, num_heads]`: it takes part in the softmax as it is, neither scaled nor capped, and
    /// adds no value (the learned sinks of gpt-oss).
    pub sinks: Option<&'a T>,
}

/// The usual [`AttentionOptions::scale`], `1 / sqrt(head_dim)` (Vaswani et al. 2017).
pub fn default_scale(head_dim: usize) -> f64 {
    (head_dim as f64).sqrt().recip()
}

impl<T> AttentionOptions<'_, T> {
    /// A row sees every position up to its own, and scores are scaled by [`default_scale`], with neither cap nor sinks.
    pub fn plain(head_dim: usize) -> Self {
        Self { scale: default_scale(head_dim), window: None, soft_cap: None, sinks: None }
    }
}

// Derived impls would hold only for tensors that can be copied themselves, but these only borrow theirs.
macro_rules! copies {
    ($($name:ident),*) => {
        $(
            impl<T> Clone for $name<'_, T> {
                fn clone(&self) -> Self {
                    *self
                }
            }

            impl<T> Copy for $name<'_, T> {}
        )*
    };
}

copies!(HeadNorm, HeadNorms, Rope, AttentionOptions);
