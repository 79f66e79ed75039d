//! What commands leave to the program that runs them.

use std::path::PathBuf;

/// What a command asks of the program it runs in, which the Python package provides.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Turns what a user calls a model into a directory or file. The text of an error is shown as it is.
    pub resolve: &'a dyn Fn(&str) -> Result<PathBuf, String>,
    /// Whether the user wants the command to end, which is asked before each tensor.
    pub interrupted: &'a dyn Fn() -> bool,
}
