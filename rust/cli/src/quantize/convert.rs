//! Converts one tensor to its new type; threads share the rows.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use nanovllm_gguf::{GgmlType, dequantize, quantize};

/// How far the new values are from the old ones.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Difference {
    squared_error: f64,
    squared_norm: f64,
    /// The largest absolute difference.
    pub(crate) largest: f32,
}

impl Difference {
    /// The squared error over the squared norm (NMSE); 0 for a tensor of zeros.
    pub(crate) fn nmse(&self) -> f64 {
        if self.squared_error == 0.0 { 0.0 } else { self.squared_error / self.squared_norm }
    }

    fn add(&mut self, old: &[f32], new: &[f32]) {
        for (&old, &new) in old.iter().zip(new) {
            let error = old - new;
            self.squared_error += f64::from(error) * f64::from(error);
            self.squared_norm += f64::from(old) * f64::from(old);
            self.largest = self.largest.max(error.abs());
        }
    }

    fn merge(&mut self, other: &Self) {
        self.squared_error += other.squared_error;
        self.squared_norm += other.squared_norm;
        self.largest = self.largest.max(other.largest);
    }
}

/// Elements that a thread claims and converts at a time: enough to be worth claiming, few enough to stay in its cache.
const CLAIM: usize = 1 << 16;

/// Converts `data`, rows of `cols` elements of type `from`, to `to`. The result does not depend on `threads`.
///
/// # Errors
/// What [`dequantize`] or [`quantize`] say of the first rows that cannot be converted, or that a value in them is not
/// finite in the new type.
pub(crate) fn convert(
    data: &[u8],
    from: GgmlType,
    to: GgmlType,
    cols: usize,
    threads: usize,
) -> Result<(Vec<u8>, Difference), Error> {
    let row_bytes = from.bytes_for(cols).unwrap_or(0).max(1);
    let rows = data.len() / row_bytes;
    let claim_rows = (CLAIM / cols.max(1)).max(1);
    let claims = rows.div_ceil(claim_rows);
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Converted>>> = Mutex::new((0..claims).map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(claims) {
            scope.spawn(|| {
                loop {
                    let claim = next.fetch_add(1, Ordering::Relaxed);
                    if claim >= claims {
                        break;
                    }
                    let first = claim * claim_rows;
                    let last = (first + claim_rows).min(rows);
                    let converted = convert_rows(&data[first * row_bytes..last * row_bytes], from, to);
                    if converted.is_err() {
                        // Ends the other threads too, which find nothing to claim.
                        next.store(claims, Ordering::Relaxed);
                    }
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[claim] = Some(converted);
                }
            });
        }
    });
    let mut out = Vec::new();
    let mut difference = Difference::default();
    for converted in results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_iter().flatten() {
        let (bytes, part) = converted?;
        out.extend_from_slice(&bytes);
        difference.merge(&part);
    }
    Ok((out, difference))
}

type Converted = Result<(Vec<u8>, Difference), Error>;

/// Why a tensor was not converted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The types or the sizes do not go together.
    #[error(transparent)]
    Gguf(#[from] nanovllm_gguf::Error),
    /// A value is not finite in the new type.
    #[error("the value {value} is not finite as {dtype}")]
    NotFinite { value: f32, dtype: GgmlType },
}

fn convert_rows(data: &[u8], from: GgmlType, to: GgmlType) -> Converted {
    let elements = data.len() / from.type_size() * from.block_size();
    let mut old = vec![0.0; elements];
    dequantize(from, data, &mut old)?;
    let mut bytes = Vec::new();
    quantize(to, &old, &mut bytes)?;
    let mut new = vec![0.0; elements];
    dequantize(to, &bytes, &mut new)?;
    // Dense types can hold infinities and NaN, but a model that has them answers nonsense.
    if let Some(at) = new.iter().position(|x| !x.is_finite()) {
        return Err(Error::NotFinite { value: old[at], dtype: to });
    }
    let mut difference = Difference::default();
    difference.add(&old, &new);
    Ok((bytes, difference))
}

#[cfg(test)]
mod tests {
    use super::super::mix::MIXES;
    use super::*;

    fn row(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 13.0).collect()
    }

    #[test]
    fn threads_do_not_change_the_result() {
        let data: Vec<u8> = row(300 * 512).iter().flat_map(|x| x.to_le_bytes()).collect();
        let (one, difference) = convert(&data, GgmlType::F32, GgmlType::Q8_0, 512, 1).unwrap();
        assert_eq!(one.len(), 300 * 512 / 32 * 34);
        assert!((1e-9..1e-4).contains(&difference.nmse()), "{difference:?}");
        assert!(difference.largest > 0.0 && difference.largest < 0.05);
        for threads in [2, 7] {
            assert_eq!(convert(&data, GgmlType::F32, GgmlType::Q8_0, 512, threads).unwrap().0, one);
        }
    }

    /// Values as those of weights, normally distributed: each is a sum of twelve uniform ones.
    fn normal(n: usize) -> Vec<f32> {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..n).map(|_| 0.02 * ((0..12).map(|_| uniform()).sum::<f32>() - 6.0)).collect()
    }

    /// No code of so many bits comes nearer to normal values than `4^-bits` (the rate-distortion bound), and zeros are at
    /// 1; every type stays within a few times the bound.
    #[test]
    fn every_mix_keeps_most_of_the_values() {
        let values = normal(256 * 256);
        let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        for mix in MIXES.iter().filter(|mix| mix.base.block_size() > 1) {
            let bits = 8.0 * mix.base.type_size() as f64 / mix.base.block_size() as f64;
            let bound = 4f64.powf(-bits);
            let (bytes, difference) = convert(&data, GgmlType::F32, mix.base, 256, 2).unwrap();
            // Ternary types are for weights that were trained so.
            let limit = if mix.name.starts_with("TQ") { 0.7 } else { 7.0 * bound };
            assert!((bound..limit).contains(&difference.nmse()), "{}: {}", mix.name, difference.nmse());
            // The difference is that of what is written.
            let mut stored = vec![0.0; values.len()];
            dequantize(mix.base, &bytes, &mut stored).unwrap();
            let mut again = Difference::default();
            again.add(&values, &stored);
            assert!((again.nmse() / difference.nmse() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_an_error() {
        let mut x = row(64);
        x[40] = f32::NAN;
        let data: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(convert(&data, GgmlType::F32, GgmlType::Q8_0, 64, 2).is_err());
        assert!(convert(&data, GgmlType::F32, GgmlType::Bf16, 64, 2).is_err());
        x[40] = 1e6;
        let data: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let error = convert(&data, GgmlType::F32, GgmlType::F16, 64, 2).unwrap_err();
        assert_eq!(error.to_string(), "the value 1000000 is not finite as F16");
    }

    #[test]
    fn nothing_converts_to_nothing() {
        let (bytes, difference) = convert(&[], GgmlType::F32, GgmlType::Q8_0, 32, 2).unwrap();
        assert!(bytes.is_empty());
        assert_eq!(difference.nmse(), 0.0);
    }
}
