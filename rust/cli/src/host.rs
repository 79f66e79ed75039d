//! What a command leaves to its caller.

use std::path::PathBuf;

/// What the command asks of the process it runs in.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// From what a user calls a model to a directory or file; the text of an error is shown as it is.
    pub resolve: &'a dyn Fn(&str) -> Result<PathBuf, String>,
    /// Whether the user wants the command to end; asked between pieces of work.
    pub interrupted: &'a dyn Fn() -> bool,
}
