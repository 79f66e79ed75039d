//! Calls of the library `tokenizers` that a defect of it does not end the program in.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result of `call`, with its error in words. The library panics for some files that contradict themselves; that is an
/// error like any other.
pub(crate) fn guarded<T, E: ToString>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    caught(call)?.map_err(|error| error.to_string())
}

/// What `call` gives, or that the library panicked.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    let panicked = |panic: Box<dyn Any + Send>| format!("the library tokenizers failed: {}", message(&*panic));
    catch_unwind(AssertUnwindSafe(call)).map_err(panicked)
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default()
}
