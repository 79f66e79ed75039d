//! What a template may cost: templates come with models, and models come from strangers.
//!
//! What stands in a template's source is bounded before it is parsed ([`MAX_SOURCE`], [`MAX_TAG_TOKENS`],
//! [`MAX_ELIFS`]). What it does is bounded while it runs by a [`Budget`] and by minijinja's own counts of instructions and
//! of calls within calls. Bounds on memory and instructions grow with what the caller gives the template to read.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use minijinja::value::{ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::repr::Printed;

/// The largest source, in bytes; the largest template known has 40 KiB.
pub(crate) const MAX_SOURCE: usize = 1 << 20;
/// The most tokens of one tag. An expression is parsed, compiled and freed by recursion, as deep as it has operators.
pub(crate) const MAX_TAG_TOKENS: usize = 4096;
/// The most `elif`s in all the `if`s that are open at one place: each is a level of recursion.
pub(crate) const MAX_ELIFS: usize = 500;
/// minijinja's own limits, for messages: brackets and blocks within each other, and loops, blocks and calls of macros.
pub(crate) const MAX_PARSE_DEPTH: usize = 150;
pub(crate) const MAX_CALL_DEPTH: usize = 500;
/// How deep values may lie within each other. JSON from the caller is at most 128 deep.
const MAX_VALUE_DEPTH: usize = 192;
/// The longest time a template may take.
const MAX_TIME: Duration = Duration::from_secs(30);
/// What a value weighs besides its text.
pub(crate) const EACH: usize = 16;
/// What an element of a new list costs, and a macro.
const ELEMENT: usize = 32;
const MACRO: usize = 1024;

/// A limit that a template has reached.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    /// What there is too much of.
    pub(crate) what: &'static str,
    /// How much there may be.
    pub(crate) limit: usize,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is limited to {}", self.what, self.limit)
    }
}

impl std::error::Error for Limit {}

impl From<Limit> for Error {
    fn from(limit: Limit) -> Self {
        Self::new(ErrorKind::InvalidOperation, "limit").with_source(limit)
    }
}

/// What is left to a render of the memory and time it may use.
pub(crate) struct Budget {
    /// The most that one value may weigh.
    single: usize,
    /// The most bytes that may be made in all, freed ones included.
    total: usize,
    fuel: usize,
    used: AtomicUsize,
    /// The most bytes of text that may be written, also into captures, and how many have been.
    text: usize,
    written: AtomicUsize,
    until: Instant,
    stopped: AtomicBool,
}

impl Budget {
    /// The budget for a template that reads `context`. Its weight is counted without a bound, for the caller made it.
    pub(crate) fn new(context: &Value) -> Self {
        let mut left = usize::MAX;
        // A context that is too deep is refused when the template touches it.
        let _ = weigh(context, 0, &mut left);
        let input = usize::MAX - left;
        Self {
            single: (2 << 20) + input.saturating_mul(4),
            total: (256 << 20) + input.saturating_mul(256),
            fuel: 2_000_000 + input.saturating_mul(64),
            used: AtomicUsize::new(0),
            text: (32 << 20) + input.saturating_mul(64),
            written: AtomicUsize::new(0),
            until: Instant::now() + MAX_TIME,
            stopped: AtomicBool::new(false),
        }
    }

    /// How many instructions may run.
    pub(crate) fn fuel(&self) -> usize {
        self.fuel.min(isize::MAX as usize)
    }

    /// Ends the render at its next loop, call or new value.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// An error once the render is to end.
    pub(crate) fn tick(&self) -> Result<(), Error> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::InvalidOperation, "stopped"));
        }
        if Instant::now() > self.until {
            return Err(Limit { what: "the time in seconds", limit: MAX_TIME.as_secs() as usize }.into());
        }
        Ok(())
    }

    /// An error where a value of `bytes` would be too large. Asked before anything is allocated.
    pub(crate) fn fits(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.single {
            return Err(Limit { what: "a value's size in bytes", limit: self.single }.into());
        }
        Ok(())
    }

    /// Counts the bytes of a value that is made.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), Error> {
        self.fits(bytes)?;
        self.count(bytes)
    }

    /// Counts the bytes of text that is written.
    pub(crate) fn emit(&self, bytes: usize) -> Result<(), Error> {
        self.tick()?;
        if self.written.fetch_add(bytes, Ordering::Relaxed) + bytes > self.text {
            return Err(Limit { what: "the bytes of text written", limit: self.text }.into());
        }
        Ok(())
    }

    fn count(&self, bytes: usize) -> Result<(), Error> {
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.total {
            return Err(Limit { what: "the bytes of all values made", limit: self.total }.into());
        }
        Ok(())
    }

    /// A value that the template has made or got, which must be of an acceptable size and depth. What is computed when
    /// it is read becomes a list, since such values nest without a trace.
    pub(crate) fn admit(&self, value: Value) -> Result<Value, Error> {
        self.tick()?;
        let Some(object) = value.as_object() else {
            self.charge(value.as_str().map_or(0, str::len))?;
            return Ok(value);
        };
        if object.type_name().ends_with("::Macro") {
            self.count(MACRO)?;
            return Ok(value);
        }
        let value = if value.kind() == ValueKind::Iterable { Value::from(self.items(&value)?) } else { value };
        let mut left = self.single;
        weigh(&value, 0, &mut left).map_err(|deep| self.too(deep))?;
        self.count(value.len().unwrap_or_default() * ELEMENT)?;
        Ok(value)
    }

    /// The items of a value, of which there may not be too many.
    pub(crate) fn items(&self, value: &Value) -> Result<Vec<Value>, Error> {
        let mut items = Vec::new();
        for item in value.try_iter()?.checked() {
            items.push(item?);
            self.fits(items.len() * EACH)?;
        }
        Ok(items)
    }

    /// A value that a namespace is to hold. A namespace holds neither another nor a loop: both change afterwards, and could
    /// come to hold themselves.
    pub(crate) fn keep(&self, value: &Value) -> Result<(), Error> {
        if changes(value, 0) {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "a namespace cannot hold a namespace or a loop, nor a list or mapping of them",
            ));
        }
        self.tick()
    }

    /// The text of what is written, up to the size of a value.
    pub(crate) fn text(&self, write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) -> Result<String, Error> {
        let mut bounded = Bounded { text: String::new(), limit: self.single };
        write(&mut bounded).map_err(|_| self.too(false))?;
        Ok(bounded.text)
    }

    /// How long the text of a value is.
    pub(crate) fn length(&self, value: &Value) -> Result<usize, Error> {
        if let Some(text) = value.as_str() {
            return Ok(text.len());
        }
        let mut counted = Counted { bytes: 0, limit: self.single };
        write!(counted, "{}", Printed(value)).map_err(|_| self.too(false))?;
        Ok(counted.bytes)
    }

    fn too(&self, deep: bool) -> Error {
        if deep {
            Limit { what: "the depth of values within values", limit: MAX_VALUE_DEPTH }.into()
        } else {
            Limit { what: "a value's size in bytes", limit: self.single }.into()
        }
    }
}

/// Takes the weight of a value from what is left; an error says whether the value is too deep rather than too heavy.
fn weigh(value: &Value, depth: usize, left: &mut usize) -> Result<(), bool> {
    let weight = EACH + value.as_str().map_or(0, str::len);
    *left = left.checked_sub(weight).ok_or(false)?;
    let Some(object) = value.as_object() else { return Ok(()) };
    if depth == MAX_VALUE_DEPTH {
        return Err(true);
    }
    match object.repr() {
        ObjectRepr::Map => {
            for (key, value) in object.try_iter_pairs().into_iter().flatten() {
                weigh(&key, depth + 1, left)?;
                weigh(&value, depth + 1, left)?;
            }
        }
        ObjectRepr::Seq | ObjectRepr::Iterable => {
            for item in object.try_iter().into_iter().flatten() {
                weigh(&item, depth + 1, left)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether there is a namespace or a loop in a value, whose depth has been checked.
fn changes(value: &Value, depth: usize) -> bool {
    let Some(object) = value.as_object() else { return false };
    let name = object.type_name();
    if name.ends_with("::Namespace") || name.ends_with("::Loop") || depth == MAX_VALUE_DEPTH {
        return true;
    }
    match object.repr() {
        ObjectRepr::Map => object.try_iter_pairs().into_iter().flatten().any(|(_, value)| changes(&value, depth + 1)),
        ObjectRepr::Seq | ObjectRepr::Iterable => {
            object.try_iter().into_iter().flatten().any(|item| changes(&item, depth + 1))
        }
        _ => false,
    }
}

/// Text that does not become longer than it may.
struct Bounded {
    text: String,
    limit: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() > self.limit {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// The length of text that is not kept.
struct Counted {
    bytes: usize,
    limit: usize,
}

impl fmt::Write for Counted {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes += text.len();
        if self.bytes > self.limit { Err(fmt::Error) } else { Ok(()) }
    }
}
