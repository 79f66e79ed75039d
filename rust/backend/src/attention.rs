//! What layers may differ in between the projection of queries, keys and values and the projection of the result.

/// The attention heads of one layer on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
}

impl HeadLayout {
    /// Width of the query part of a qkv row.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of the key part of a qkv row, and of the value part.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Width of a qkv row.
    pub fn qkv_size(&self) -> usize {
        self.q_size() + 2 * self.kv_size()
    }
}

/// A root-mean-square norm of every head of a row: `x / sqrt(mean(x^2) + eps) * weight`.
#[derive(Debug)]
pub struct HeadNorm<'a, T> {
    /// `[1, head_dim]`, the same for each head; without one the norm alone.
    pub weight: Option<&'a T>,
    /// Added to the mean square.
    pub eps: f32,
}

/// Which heads of a row are normed before they are rotated and stored. Rows that hold queries alone have no other heads to norm.
#[derive(Debug)]
pub struct HeadNorms<'a, T> {
    /// Query heads.
    pub q: Option<HeadNorm<'a, T>>,
    /// Key heads.
    pub k: Option<HeadNorm<'a, T>>,
    /// Value heads.
    pub v: Option<HeadNorm<'a, T>>,
}

impl<T> HeadNorms<'_, T> {
    /// Heads as they are.
    pub const NONE: Self = Self { q: None, k: None, v: None };
}

/// Rotary position embedding of query and key heads (Su et al. 2021), in GPT-NeoX's arrangement.
///
/// Of a table of `width` columns the first `width` dimensions of a head are rotated, dimension `i` with `i + width / 2`; those
/// beyond stay as they are (partial rotary).
#[derive(Debug)]
pub struct Rope<'a, T> {
    /// `[max_position, width]`: cosines of each position, then sines. `width` is even, at least 2 and at most the head's.
    pub table: &'a T,
    /// The table's row for each row of the batch, in range, `[rows]`.
    pub positions: &'a [u32],
}

/// How one layer attends.
#[derive(Debug)]
pub struct AttentionOptions<'a, T> {
    /// Products of queries and keys are multiplied by it; finite and not negative. See [`default_scale`].
    pub scale: f64,
    /// Positions a row sees at most, its own included; at least 1. Without one it sees all up to its own.
    pub window: Option<usize>,
    /// A scaled score `s` becomes `cap * tanh(s / cap)` (Gemma 2); positive.
    pub soft_cap: Option<f32>,
    /// A logit for each query head, `[1, num_heads]`: it takes part in the softmax as it is, neither scaled nor capped, and
    /// adds no value (the learned sinks of gpt-oss).
    pub sinks: Option<&'a T>,
}

/// `1 / sqrt(head_dim)`, of which [`AttentionOptions::scale`] is usually made (Vaswani et al. 2017).
pub fn default_scale(head_dim: usize) -> f64 {
    (head_dim as f64).sqrt().recip()
}

impl<T> AttentionOptions<'_, T> {
    /// Every position up to a row's own, scaled by [`default_scale`].
    pub fn plain(head_dim: usize) -> Self {
        Self { scale: default_scale(head_dim), window: None, soft_cap: None, sinks: None }
    }
}

// Derived, these would ask the same of the tensor, which is only borrowed.
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
