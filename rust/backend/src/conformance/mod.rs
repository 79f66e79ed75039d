//! The suite every device runs: each method of [`Backend`] and [`Inspect`](crate::Inspect), each data type and ragged shapes against plain f64 arithmetic.
//!
//! [`conformance_tests!`](crate::conformance_tests) turns it into named tests. A test is a generic function that panics with
//! what differed; it knows nothing of the device but what [`Claims`] say.

mod attention;
mod embedding;
mod kv_cache;
mod linear;
mod ragged;
mod random;
mod reference;
mod rows;
mod sample;
mod shape;
mod store;
mod transfer;
mod weights;

pub use attention::*;
pub use embedding::*;
pub use kv_cache::*;
pub use linear::*;
pub use rows::*;
pub use sample::*;
pub use store::*;
pub use transfer::*;
pub use weights::*;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};

use crate::{Backend, DType};

/// NMSE of f32 operations that work value by value or row by row.
pub const ELEMENTWISE: f64 = 1e-10;
/// NMSE of f32 products and attention.
pub const PRODUCT: f64 = 1e-9;
/// NMSE of products with bf16 or f16 on a device that rounds more than the inputs.
pub const HALF: f64 = 1e-5;
/// NMSE of products with quantised weights whose inputs are rounded to 8 bits.
pub const QUANTIZED: f64 = 5e-4;

/// What a device claims.
#[derive(Debug, Clone, Copy)]
pub struct Claims {
    /// Types of weights it takes. Any other it refuses with [`UnsupportedDType`](crate::Error::UnsupportedDType), or gets right.
    pub dtypes: &'static [DType],
    /// NMSE of products with F16 and BF16 weights and of attention over a BF16 cache. A device may round the inputs (the
    /// queries) to that type: the nearer of the two references counts.
    pub half: f64,
    /// NMSE of products with quantised weights.
    pub quantized: f64,
}

impl Claims {
    /// The threshold of a product with weights of type `dtype`.
    fn product(&self, dtype: DType) -> f64 {
        match dtype {
            DType::F32 => PRODUCT,
            DType::F16 | DType::Bf16 => self.half,
            _ => self.quantized,
        }
    }
}

/// Squared error over the squared magnitude of the expected values. Where nothing or zeros are expected, any error counts.
fn nmse(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "number of values");
    let error: f64 = got.iter().zip(expected).map(|(&g, &e)| (f64::from(g) - e).powi(2)).sum();
    if error == 0.0 { 0.0 } else { error / expected.iter().map(|e| e * e).sum::<f64>().max(f64::MIN_POSITIVE) }
}

/// Panics unless `got` is within `limit` of `expected`; a NaN is never within.
fn assert_close<B: Backend>(backend: &B, what: &str, got: &[f32], expected: &[f64], limit: f64) {
    let error = nmse(got, expected);
    assert!(error <= limit, "{what} on {}: NMSE {error:.2e}, limit {limit:.0e}", backend.describe());
}

/// As [`assert_close`], to the nearer of two references: the `exact` one, and one of inputs rounded to a smaller type.
fn assert_close_to_either<B: Backend>(
    backend: &B,
    what: &str,
    got: &[f32],
    exact: &[f64],
    rounded: &[f64],
    limit: f64,
) {
    let nearer = if nmse(got, rounded) < nmse(got, exact) { rounded } else { exact };
    assert_close(backend, what, got, nearer, limit);
}

/// Runs `test` on `cases` values of `strategy`, and on simpler ones once it fails.
fn for_cases<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Defines a test for each part of the suite.
///
/// The first expression gives the devices (an `Option`, a `Vec`: anything to iterate over), the second their [`Claims`]; each test
/// evaluates both anew and runs on every device.
#[macro_export]
macro_rules! conformance_tests {
    ($backends:expr, $claims:expr) => {
        $crate::conformance_tests! { @each $backends, $claims,
            tensors_start_zeroed uploads_come_back wrong_lengths_are_refused
            weights_unpack_as_stored stacked_weights_keep_their_order impossible_weights_are_refused
            other_types_are_refused_or_right
            embedding_gathers_rows embedding_of_stacked_weights
            rms_norm_of_rows add_rms_norm_of_rows silu_and_mul_of_rows rows_are_gathered buffers_are_reused
            linear_of_every_type linear_of_odd_shapes linear_of_stacked_parts linear_adds_the_bias
            kv_caches_come_back layers_are_apart wrong_caches_are_refused
            rows_are_stored_in_f32 rows_are_stored_in_bf16 norms_and_rotations_combine
            attention_over_an_f32_cache attention_over_a_bf16_cache attention_of_long_prompts
            attention_options_over_an_f32_cache attention_options_over_a_bf16_cache windows_of_long_prompts
            greedy_takes_the_first_of_the_largest what_is_not_a_number_is_never_chosen masks_leave_what_they_allow
            draws_are_the_formulas
            nothing_failed
        }
    };
    (@each $backends:expr, $claims:expr, $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                for backend in ::std::iter::IntoIterator::into_iter($backends) {
                    $crate::conformance::$name(&backend, &$claims);
                    $crate::Backend::synchronize(&backend).expect("no operation fails");
                }
            }
        )*
    };
}
