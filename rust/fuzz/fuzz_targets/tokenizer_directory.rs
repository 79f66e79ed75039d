#![no_main]
#![allow(missing_docs)] // a program

use std::panic::{catch_unwind, set_hook};
use std::process::abort;
use std::sync::Once;

static QUIET: Once = Once::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // A panic of the library `tokenizers` is caught and becomes an error, so it must not end the run where it begins.
    QUIET.call_once(|| set_hook(Box::new(|_| {})));
    if catch_unwind(|| nanovllm_fuzz::tokenizer_directory::run(data)).is_err() {
        abort();
    }
});
