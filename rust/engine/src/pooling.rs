//! Pooling: from the hidden states of a prompt's tokens to one vector, its embedding.

use std::ops::Range;

/// Which hidden states make an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolingKind {
    /// That of the last token, as decoders are trained for (E5-Mistral, Qwen3-Embedding).
    Last,
    /// The mean of all.
    Mean,
}

/// How a prompt is embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pooling {
    /// Which hidden states.
    pub kind: PoolingKind,
    /// Scale the result to a Euclidean length of 1.
    pub normalize: bool,
}

/// The embedding of one prompt while it is computed. Rows come in the order of their positions, and are added in it in f64, so that
/// the result depends on no chunking.
#[derive(Debug, Clone)]
pub(crate) struct Pooler {
    pooling: Pooling,
    /// The positions before this one need not come any more.
    next: usize,
    sum: Vec<f64>,
}

impl Pooler {
    pub(crate) fn new(pooling: Pooling) -> Self {
        Self { pooling, next: 0, sum: Vec::new() }
    }

    /// Whether rows are wanted that lie before the last one of a prompt.
    pub(crate) fn wants_all(&self) -> bool {
        self.pooling.kind == PoolingKind::Mean
    }

    /// Of the positions that a step computes of a prompt of `len` tokens, those whose rows are wanted.
    pub(crate) fn wanted(&self, computed: Range<usize>, len: usize) -> Range<usize> {
        let first = if self.wants_all() { self.next } else { len - 1 };
        let start = computed.start.max(first);
        start..computed.end.max(start)
    }

    /// Takes the row of a position that is [`wanted`](Self::wanted).
    pub(crate) fn take(&mut self, position: usize, row: &[f32]) {
        if self.wants_all() && position != self.next {
            return; // rows before it were computed without being taken: there is no result
        }
        self.sum.resize(row.len(), 0.0);
        self.sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        self.next = position + 1;
    }

    /// The embedding of a prompt of `len` tokens; none where rows did not come.
    pub(crate) fn finish(self, len: usize) -> Option<Vec<f32>> {
        if self.next != len {
            return None;
        }
        let count = if self.wants_all() { len as f64 } else { 1.0 };
        let length = self.sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        // The zero vector has no direction, and stays.
        let divisor = if self.pooling.normalize && length > 0.0 { length } else { count };
        Some(self.sum.iter().map(|x| (x / divisor) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [[f32; 2]; 3] = [[1.0, 2.0], [3.0, -2.0], [5.0, 12.0]];

    fn embed(kind: PoolingKind, normalize: bool, chunks: &[(usize, usize)]) -> Option<Vec<f32>> {
        let mut pooler = Pooler::new(Pooling { kind, normalize });
        for &(start, end) in chunks {
            for position in pooler.wanted(start..end, 3) {
                pooler.take(position, &ROWS[position]);
            }
        }
        pooler.finish(3)
    }

    #[test]
    fn rows_are_pooled_in_any_chunks() {
        for chunks in [&[(0, 3)][..], &[(0, 1), (1, 2), (2, 3)], &[(0, 2), (0, 1), (1, 3)]] {
            assert_eq!(embed(PoolingKind::Mean, false, chunks), Some(vec![3.0, 4.0]));
            assert_eq!(embed(PoolingKind::Mean, true, chunks), Some(vec![0.6, 0.8]));
            assert_eq!(embed(PoolingKind::Last, false, chunks), Some(vec![5.0, 12.0]));
            assert_eq!(embed(PoolingKind::Last, true, chunks), Some(vec![5.0 / 13.0, 12.0 / 13.0]));
        }
    }

    #[test]
    fn rows_that_did_not_come_are_no_result() {
        assert_eq!(embed(PoolingKind::Mean, false, &[(1, 3)]), None);
        assert_eq!(embed(PoolingKind::Mean, false, &[(0, 1)]), None);
        assert_eq!(embed(PoolingKind::Last, false, &[(0, 2)]), None);
        assert_eq!(embed(PoolingKind::Last, false, &[(2, 3)]), Some(vec![5.0, 12.0]), "those before it may be cached");
    }

    #[test]
    fn the_zero_vector_stays() {
        let mut pooler = Pooler::new(Pooling { kind: PoolingKind::Mean, normalize: true });
        pooler.take(0, &[0.0, 0.0]);
        assert_eq!(pooler.finish(1), Some(vec![0.0, 0.0]));
    }
}
