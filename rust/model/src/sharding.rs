//! Tensor parallelism's arithmetic: which part of a stored tensor belongs to a rank, and where it lies in the rank's
//! parameter.
//!
//! It knows sizes alone: no data, no files, no device. Megatron-LM (Shoeybi et al. 2019) cuts the first projection of a
//! pair by outputs and the second by inputs, so that one sum over ranks follows each pair.

use std::ops::Range;

/// Why a parameter cannot be cut as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The group has no such rank.
    #[error("tp_rank must be below tp_size, which must be positive; got tp_rank {rank}, tp_size {size}")]
    Rank {
        /// The rank asked for, counted from 0.
        rank: usize,
        /// The number of ranks there are.
        size: usize,
    },
    /// A size that cannot be split evenly.
    #[error("{size} is not divisible by {by}")]
    Indivisible {
        /// The size to be split: heads, outputs or inputs.
        size: usize,
        /// The number of equal parts asked for.
        by: usize,
    },
    /// The parameter has no such shard.
    #[error("shard {index} of a parameter that is made of {count}")]
    Index {
        /// The shard asked for, counted from 0.
        index: usize,
        /// The number of shards there are.
        count: usize,
    },
    /// The sizes multiply or add up to more than a machine can address.
    #[error("the sizes of the parameter overflow")]
    Overflow,
}

/// `numerator / denominator`, which must be exact.
///
/// # Errors
/// [`ShardError::Indivisible`], for a denominator of zero too.
pub fn divide(numerator: usize, denominator: usize) -> Result<usize, ShardError> {
    if denominator == 0 || !numerator.is_multiple_of(denominator) {
        return Err(ShardError::Indivisible { size: numerator, by: denominator });
    }
    Ok(numerator / denominator)
}

/// One rank of a tensor-parallel group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TpRank {
    rank: usize,
    size: usize,
}

impl TpRank {
    /// The only rank of a model that is not split.
    pub const SINGLE: Self = Self { rank: 0, size: 1 };

    /// Rank `rank` of `size`.
    ///
    /// # Errors
    /// [`ShardError::Rank`] unless `rank < size`.
    pub fn new(rank: usize, size: usize) -> Result<Self, ShardError> {
        if rank < size { Ok(Self { rank, size }) } else { Err(ShardError::Rank { rank, size }) }
    }

    /// The rank's number, below [`size`](Self::size).
    pub fn rank(self) -> usize {
        self.rank
    }

    /// Number of ranks in the group.
    pub fn size(self) -> usize {
        self.size
    }

    /// This rank's equal part of `0..total`.
    fn part(self, total: usize) -> Result<Range<usize>, ShardError> {
        let part = divide(total, self.size)?;
        Ok(self.rank * part..(self.rank + 1) * part)
    }
}

/// Where one stored tensor of a parameter goes on one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Shape of the whole stored tensor: `[rows, cols]`, or `[rows]` for a vector.
    pub stored_shape: Vec<usize>,
    /// Rows of the stored tensor that this rank has.
    pub rows: Range<usize>,
    /// Columns of the stored tensor that this rank has; `0..1` for a vector.
    pub cols: Range<usize>,
    /// The first row that they fill in the rank's parameter.
    pub offset: usize,
}

/// How a rank's parameter is made of stored tensors: they are stacked by rows, each cut on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharding {
    /// In the order of their rows.
    shards: Vec<Shard>,
    /// Rows of the rank's parameter.
    rows: usize,
    /// Columns of the rank's parameter; None for a vector.
    cols: Option<usize>,
}

impl Sharding {
    /// The whole of one tensor on every rank; `cols` is None for a vector.
    ///
    /// # Errors
    /// [`ShardError::Overflow`].
    pub fn replicated(rows: usize, cols: Option<usize>) -> Result<Self, ShardError> {
        Self::by_rows(&[rows], cols, TpRank::SINGLE)
    }

    /// Tensors of `parts` rows each, every one of them split by rows (outputs): a rank has its part of each, in order.
    ///
    /// # Errors
    /// [`ShardError::Indivisible`] for a tensor that cannot be split evenly; [`ShardError::Overflow`].
    pub fn by_rows(parts: &[usize], cols: Option<usize>, tp: TpRank) -> Result<Self, ShardError> {
        let mut shards = Vec::with_capacity(parts.len());
        let mut offset = 0usize;
        for &part in parts {
            let rows = tp.part(part)?;
            let len = rows.len();
            let stored_shape = std::iter::once(part).chain(cols).collect();
            shards.push(Shard { stored_shape, rows, cols: 0..cols.unwrap_or(1), offset });
            offset = offset.checked_add(len).ok_or(ShardError::Overflow)?;
        }
        Self { shards, rows: offset, cols }.checked()
    }

    /// The same parameter where the tensors it is stacked of are stored stacked too, as one: every shard is then a part of
    /// that tensor, which is loaded once for each.
    #[must_use]
    pub fn fused(mut self) -> Self {
        let whole: usize = self.shards.iter().map(|shard| shard.stored_shape[0]).sum();
        let mut before = 0;
        for shard in &mut self.shards {
            let part = std::mem::replace(&mut shard.stored_shape[0], whole);
            shard.rows = before + shard.rows.start..before + shard.rows.end;
            before += part;
        }
        self
    }

    /// One tensor `[rows, cols]` split by columns (inputs).
    ///
    /// # Errors
    /// [`ShardError::Indivisible`] when it cannot be split evenly; [`ShardError::Overflow`].
    pub fn by_cols(rows: usize, cols: usize, tp: TpRank) -> Result<Self, ShardError> {
        let part = tp.part(cols)?;
        let width = part.len();
        let shard = Shard { stored_shape: vec![rows, cols], rows: 0..rows, cols: part, offset: 0 };
        Self { shards: vec![shard], rows, cols: Some(width) }.checked()
    }

    /// Refuses sizes whose bytes could not be counted, so that nothing later overflows.
    fn checked(self) -> Result<Self, ShardError> {
        let stored = |s: &Shard| s.stored_shape.iter().try_fold(8usize, |bytes, &n| bytes.checked_mul(n.max(1)));
        let own = self.rows.checked_mul(self.cols.unwrap_or(1)).and_then(|n| n.checked_mul(8));
        if own.is_none() || self.shards.iter().any(|s| stored(s).is_none()) {
            return Err(ShardError::Overflow);
        }
        Ok(self)
    }

    /// The shape of the rank's parameter: `[rows, cols]`, or `[rows]` for a vector.
    pub fn shape(&self) -> Vec<usize> {
        std::iter::once(self.rows).chain(self.cols).collect()
    }

    /// Rows (outputs) of the rank's parameter.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns (inputs) of the rank's parameter; 1 for a vector.
    pub fn cols(&self) -> usize {
        self.cols.unwrap_or(1)
    }

    /// Where each stored tensor goes, in the order in which they are stacked.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Where stored tensor `index` goes.
    ///
    /// # Errors
    /// [`ShardError::Index`].
    pub fn shard(&self, index: usize) -> Result<&Shard, ShardError> {
        self.shards.get(index).ok_or(ShardError::Index { index, count: self.shards.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element of every stored tensor is on exactly one rank, and every rank's parameter is filled without a gap.
    fn check_partition(shardings: &[Sharding]) {
        for (index, shard) in shardings[0].shards().iter().enumerate() {
            let mut seen = vec![0; shard.stored_shape.iter().product()];
            let width = shard.stored_shape.get(1).copied().unwrap_or(1);
            for sharding in shardings {
                let shard = &sharding.shards()[index];
                for row in shard.rows.clone() {
                    for col in shard.cols.clone() {
                        seen[row * width + col] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|&n| n == 1));
        }
        for sharding in shardings {
            let mut next = 0;
            for shard in sharding.shards() {
                assert_eq!(shard.offset, next);
                assert_eq!(shard.cols.len(), sharding.cols());
                next += shard.rows.len();
            }
            assert_eq!(next, sharding.rows());
        }
    }

    #[test]
    fn ranks_partition_what_is_stored() {
        for size in [1, 2, 4, 8] {
            let ranks = || (0..size).map(|rank| TpRank::new(rank, size).unwrap());
            let qkv: Vec<_> = ranks().map(|tp| Sharding::by_rows(&[64, 16, 16], Some(5), tp).unwrap()).collect();
            check_partition(&qkv);
            let bias: Vec<_> = ranks().map(|tp| Sharding::by_rows(&[64, 16, 16], None, tp).unwrap()).collect();
            check_partition(&bias);
            let down: Vec<_> = ranks().map(|tp| Sharding::by_cols(7, 24, tp).unwrap()).collect();
            check_partition(&down);
        }
    }

    #[test]
    fn the_second_rank_of_grouped_queries() {
        let sharding = Sharding::by_rows(&[8, 4, 4], Some(3), TpRank::new(1, 2).unwrap()).unwrap();
        assert_eq!(sharding.shape(), [8, 3]);
        let places: Vec<_> = sharding.shards().iter().map(|s| (s.rows.clone(), s.offset)).collect();
        assert_eq!(places, [(4..8, 0), (2..4, 4), (2..4, 6)]);
    }

    #[test]
    fn a_fused_tensor_is_cut_where_its_parts_lie() {
        for rank in 0..2 {
            let apart = Sharding::by_rows(&[8, 4, 4], Some(3), TpRank::new(rank, 2).unwrap()).unwrap();
            let fused = apart.clone().fused();
            assert_eq!(fused.shape(), apart.shape());
            for ((shard, part), before) in fused.shards().iter().zip(apart.shards()).zip([0, 8, 12]) {
                assert_eq!(shard.stored_shape, [16, 3]);
                assert_eq!(shard.rows, before + part.rows.start..before + part.rows.end);
                assert_eq!((&shard.cols, shard.offset), (&part.cols, part.offset));
            }
        }
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        assert_eq!(divide(7, 2), Err(ShardError::Indivisible { size: 7, by: 2 }));
        assert_eq!(divide(7, 0), Err(ShardError::Indivisible { size: 7, by: 0 }));
        assert_eq!(TpRank::new(2, 2), Err(ShardError::Rank { rank: 2, size: 2 }));
        let two = TpRank::new(0, 2).unwrap();
        // The sum is even, the parts are not.
        assert_eq!(Sharding::by_rows(&[3, 5], Some(1), two), Err(ShardError::Indivisible { size: 3, by: 2 }));
        assert_eq!(Sharding::replicated(usize::MAX, Some(2)), Err(ShardError::Overflow));
        let sharding = Sharding::replicated(2, None).unwrap();
        assert_eq!(sharding.shard(1).unwrap_err(), ShardError::Index { index: 1, count: 1 });
    }
}
