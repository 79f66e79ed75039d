//! The suite that every device runs: each method of [`Backend`](crate::Backend) and [`Inspect`], each data type, and ragged shapes
//! against plain f64 arithmetic.
//!
//! A device's crate has a test without the standard harness (`harness = false`) whose `main` is [`main`] with a [`Subject`] for
//! each way the device can be set up. Every test of the suite then is one of its own for every subject, and those of a subject
//! that this machine lacks show as ignored.

mod attention;
mod check;
mod embedding;
mod experts;
mod kv_cache;
mod linear;
mod promise;
mod ragged;
mod random;
mod reference;
mod rows;
mod sample;
mod shape;
mod store;
mod transfer;
mod weights;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::Inspect;
use attention::*;
use embedding::*;
use experts::*;
use kv_cache::*;
use linear::*;
use rows::*;
use sample::*;
use store::*;
use transfer::*;
use weights::*;

pub use promise::{ELEMENTWISE, PRODUCT, Promise, QUANTIZED};

/// A device in one way of setting it up.
pub struct Subject<B> {
    /// Names the tests.
    pub name: String,
    /// Whether this machine has what the device needs.
    pub available: bool,
    /// What is expected of it.
    pub promise: Promise,
    /// Sets it up; called once for each test, where it is available.
    pub open: Box<dyn Fn() -> B + Send + Sync>,
}

/// A test of the suite: panics with what differed.
type Test<B> = fn(&B, &Promise);

/// The tests, by name.
fn tests<B: Inspect>() -> Vec<(&'static str, Test<B>)> {
    macro_rules! suite {
        ($($name:ident)*) => { vec![$((stringify!($name), $name as Test<B>),)*] };
    }
    suite! {
        tensors_start_zeroed uploads_come_back wrong_lengths_are_refused
        weights_unpack_as_stored stacked_weights_keep_their_order impossible_weights_are_refused
        other_types_are_refused_or_right weights_in_files
        embedding_gathers_rows embedding_of_stacked_weights
        rms_norm_of_rows add_rms_norm_of_rows activations_of_rows norms_of_groups activations_of_columns rows_are_added rows_are_written rows_are_scaled rows_are_capped rows_are_gathered
        buffers_are_reused
        linear_of_every_type linear_of_odd_shapes linear_of_stacked_parts linear_adds_the_bias
        experts_of_every_type rows_of_experts_are_their_own
        kv_caches_come_back tokens_are_copied layers_are_apart wrong_caches_are_refused
        rows_are_stored_in_f32 rows_are_stored_in_bf16 norms_and_rotations_combine
        attention_over_an_f32_cache attention_over_a_bf16_cache attention_of_long_prompts
        attention_options_over_an_f32_cache attention_options_over_a_bf16_cache windows_of_long_prompts
        greedy_takes_the_first_of_the_largest what_is_not_a_number_is_never_chosen masks_leave_what_they_allow
        draws_are_the_formulas truncation_keeps_the_first
        nothing_failed
    }
}

/// Runs every test of the suite on every subject, as the command line says (it takes the standard harness's options).
pub fn main<B: Inspect>(subjects: Vec<Subject<B>>) -> ExitCode {
    let mut trials = Vec::new();
    for subject in subjects {
        let subject = Arc::new(subject);
        for (name, test) in tests::<B>() {
            let name = format!("{}::{name}", subject.name);
            let (ignored, subject) = (!subject.available, Arc::clone(&subject));
            let run = move || {
                if !subject.available {
                    return Err("this machine lacks what the device needs".into());
                }
                let backend = (subject.open)();
                test(&backend, &subject.promise);
                backend.synchronize().map_err(|error| format!("an operation failed: {error}").into())
            };
            trials.push(Trial::test(name, run).with_ignored_flag(ignored));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
