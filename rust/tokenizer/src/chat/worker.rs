//! The thread that a template is compiled and rendered on.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::environment;
use super::limits::Budget;
use super::options::ChatOptions;
use crate::error::Error;
use crate::library::message;
use crate::special::SpecialTokens;

/// The stack that a template has within the limits of `limits.rs`, whatever its caller has. Only what is used takes memory.
const STACK: usize = 64 << 20;
/// How long the caller waits before it asks whether to go on.
const INTERVAL: Duration = Duration::from_millis(50);

/// Renders `template` for `messages` for as long as `go_on` says so. A render that is given up ends by itself soon after.
pub(crate) fn render(
    template: &str,
    special: &SpecialTokens,
    messages: &serde_json::Value,
    options: &ChatOptions,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<String, Error> {
    let context = environment::context(special, messages, options)?;
    let budget = Arc::new(Budget::new(&context));
    let (sender, receiver) = sync_channel(1);
    let (template, own) = (template.to_owned(), budget.clone());
    let work = move || {
        let result = catch_unwind(AssertUnwindSafe(|| environment::render(&template, context, &own)));
        // Nobody waits for a render that was given up.
        let _ = sender.send(result.unwrap_or_else(|panic| Err(panicked(&*panic))));
    };
    spawn(work)?;
    loop {
        match receiver.recv_timeout(INTERVAL) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) if go_on() => {}
            Err(_) => {
                budget.stop();
                return Err(Error::TemplateInterrupted);
            }
        }
    }
}

/// The names that `template` reads and does not set itself. The caller waits: it takes no longer than parsing.
pub(crate) fn variables(template: &str) -> Result<BTreeSet<String>, Error> {
    let template = template.to_owned();
    spawn(move || environment::variables(&template))?.join().unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Error> {
    let thread = thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK);
    thread.spawn(work).map_err(Error::TemplateThread)
}

/// A defect of the template engine, which is not to be the end of the program.
fn panicked(panic: &(dyn Any + Send)) -> Error {
    Error::Template { line: 0, message: format!("the template engine failed: {}", message(panic)) }
}
