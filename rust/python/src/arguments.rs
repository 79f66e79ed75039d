//! Arguments: Python values to Rust's. Every refusal names the argument and the limit.

use nanovllm_engine::{FieldSource, PoolingKind, SamplingParams, SamplingParamsError, SchedulingPolicy};
use nanovllm_service::OutputOptions;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFrozenSet, PyMapping, PyMemoryView, PySet, PyString};

use crate::errors::engine_error;

/// Refuses True and False, which Python counts as 1 and 0.
fn no_boolean(value: &Bound<'_, PyAny>, name: &str, kind: &str) -> PyResult<()> {
    if value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(format!("{name} must be {kind}, got {value}")));
    }
    Ok(())
}

/// Reads an integer in `0..2**64`; a boolean is not one.
pub(crate) fn unsigned(value: &Bound<'_, PyAny>, name: &str) -> PyResult<u64> {
    no_boolean(value, name, "an integer")?;
    value.extract().map_err(|e| argument_error(value, e, name, "an integer", "0 to 2**64 - 1"))
}

/// Reads a number of things: an integer in `0..2**64` that fits this machine's memory.
pub(crate) fn count(value: &Bound<'_, PyAny>, name: &str) -> PyResult<usize> {
    usize::try_from(unsigned(value, name)?).map_err(|e| PyValueError::new_err(format!("{name}: {e}")))
}

/// Reads an integer in `-2**63..2**63`.
pub(crate) fn signed(value: &Bound<'_, PyAny>, name: &str) -> PyResult<i64> {
    value.extract().map_err(|e| argument_error(value, e, name, "an integer", "-2**63 to 2**63 - 1"))
}

/// Reads a text.
pub(crate) fn text(value: &Bound<'_, PyAny>, name: &str) -> PyResult<String> {
    value.extract().map_err(|e| argument_error(value, e, name, "a text", "Unicode"))
}

/// Reads how steps are composed.
pub(crate) fn scheduling_policy(value: &Bound<'_, PyAny>) -> PyResult<SchedulingPolicy> {
    let name = text(value, "scheduling_policy")?;
    SchedulingPolicy::from_name(&name).ok_or_else(|| {
        let names = SchedulingPolicy::ALL.map(|policy| format!("'{}'", policy.as_str())).join(", ");
        PyValueError::new_err(format!("scheduling_policy must be None or one of {names}, got '{name}'"))
    })
}

/// Reads which hidden states make an embedding.
pub(crate) fn pooling(value: &Bound<'_, PyAny>) -> PyResult<PoolingKind> {
    match text(value, "pooling")?.as_str() {
        "last" => Ok(PoolingKind::Last),
        "mean" => Ok(PoolingKind::Mean),
        other => Err(PyValueError::new_err(format!("pooling must be 'last' or 'mean', got '{other}'"))),
    }
}

/// Reads True or False, numpy's included. (Before Python 3.11, pyo3's own refusal lacks the argument's name.)
pub(crate) fn boolean(value: &Bound<'_, PyAny>, name: &str) -> PyResult<bool> {
    value.extract().map_err(|e| argument_error(value, e, name, "a bool", "True and False"))
}

/// Reads any iterable of integers that fit a token id, in order; the engine knows which of them are in the vocabulary.
pub(crate) fn token_ids(value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    ids(value, "token_ids", "token_ids must be a list of integers", false)
}

/// Reads the token ids of a prompt that is no text.
pub(crate) fn prompt(value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    ids(value, "token_ids", "a prompt must be text or a list of token ids", false)
}

/// Reads token ids. `rule` begins the refusal of what is no list of them: texts and bytes, whose items only look like ids,
/// dicts and, where the order matters, sets, and what cannot be iterated. `name` is that of the list in the refusal of an item.
fn ids(value: &Bound<'_, PyAny>, name: &str, rule: &str, any_order: bool) -> PyResult<Vec<u32>> {
    let is_text = value.is_instance_of::<PyString>();
    let is_bytes = value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || (value.is_instance_of::<PyMemoryView>() && value.getattr("itemsize")?.extract::<usize>()? == 1);
    let is_set = value.is_instance_of::<PySet>() || value.is_instance_of::<PyFrozenSet>();
    let is_unordered = is_set && !any_order || value.is_instance_of::<PyDict>();
    let is_iterable = value.hasattr("__iter__")? || value.hasattr("__getitem__")?;
    if is_text || is_bytes || is_unordered || !is_iterable {
        return Err(PyTypeError::new_err(format!("{rule}, not {}", value.get_type().name()?)));
    }
    items(value, name)
}

/// Reads any iterable of integers that fit a token id, a set as well.
pub(crate) fn ids_in_any_order(value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    items(value, "token_ids")
}

fn items(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<u32>> {
    let mut ids = Vec::with_capacity(value.len().unwrap_or(0).min(1 << 20));
    for (position, item) in value.try_iter()?.enumerate() {
        let item = item?;
        if item.is_instance_of::<PyBool>() {
            no_boolean(&item, &format!("{name}[{position}]"), "an integer")?;
        }
        ids.push(item.extract().map_err(|e| id_error(&item, e, &format!("{name}[{position}]")))?);
    }
    Ok(ids)
}

/// The refusal of the item at `position` of a list of token ids.
pub(crate) fn token_error(item: &Bound<'_, PyAny>, error: PyErr, position: usize) -> PyErr {
    id_error(item, error, &format!("token_ids[{position}]"))
}

fn id_error(item: &Bound<'_, PyAny>, error: PyErr, name: &str) -> PyErr {
    argument_error(item, error, name, "an integer", "the range of token ids")
}

/// The refusal of a text that is no token id, among the keys of a dict.
fn token_error_in(key: &Bound<'_, PyAny>, field: &str) -> PyErr {
    PyValueError::new_err(format!("{field} has the key {key:?}, which is no token id"))
}

/// Reads an integer in `0..=max`.
pub(crate) fn unsigned_below(value: &Bound<'_, PyAny>, name: &str, max: u32) -> PyResult<u32> {
    match u32::try_from(unsigned(value, name)?) {
        Ok(number) if number <= max => Ok(number),
        _ => Err(PyValueError::new_err(format!("{name} is {value}, outside 0 to {max}"))),
    }
}

/// Reads a number, which may have to be rounded to float32 later.
pub(crate) fn number(value: &Bound<'_, PyAny>, name: &str) -> PyResult<f64> {
    no_boolean(value, name, "a number")?;
    value.extract().map_err(|e| argument_error(value, e, name, "a number", "float32"))
}

/// An object whose attributes are options.
pub(crate) struct Attributes<'a, 'py>(pub(crate) &'a Bound<'py, PyAny>);

impl<'py> Attributes<'_, 'py> {
    /// Gives what `read` makes of an attribute, or None where the object has no such attribute.
    pub(crate) fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<T>,
    ) -> PyResult<Option<T>> {
        self.0.getattr_opt(name)?.map(|value| read(&value)).transpose()
    }
}

impl<'py> Attributes<'_, 'py> {
    /// As [`read`](Self::read) of an attribute that may be None; gives `default` where the object has no such attribute.
    fn read_or<T>(
        &self,
        name: &str,
        default: Option<T>,
        read: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<T>,
    ) -> PyResult<Option<T>> {
        let Some(value) = self.0.getattr_opt(name)? else { return Ok(default) };
        if value.is_none() { Ok(None) } else { read(&value).map(Some) }
    }
}

/// Why an object's options are refused.
pub(crate) struct Refused(PyErr);

impl From<PyErr> for Refused {
    fn from(error: PyErr) -> Self {
        Self(error)
    }
}

impl From<SamplingParamsError> for Refused {
    fn from(error: SamplingParamsError) -> Self {
        Self(engine_error(error.into()))
    }
}

impl FieldSource for Attributes<'_, '_> {
    type Error = Refused;

    fn number(&self, field: &'static str, default: f64) -> Result<f64, Refused> {
        Ok(self.read(field, |value| number(value, field))?.unwrap_or(default))
    }

    fn optional_count(
        &self,
        field: &'static str,
        least: usize,
        default: Option<usize>,
    ) -> Result<Option<usize>, Refused> {
        let read = |value: &Bound<'_, PyAny>| {
            count(value, field).map_err(|error| {
                if error.is_instance_of::<PyValueError>(value.py()) {
                    PyValueError::new_err(format!("{field} must be between {least} and 2**64 - 1, got {value}"))
                } else {
                    error
                }
            })
        };
        Ok(self.read_or(field, default, read)?)
    }

    fn boolean(&self, field: &'static str, default: bool) -> Result<bool, Refused> {
        Ok(self.read(field, |value| boolean(value, field))?.unwrap_or(default))
    }

    fn optional_unsigned(&self, field: &'static str, default: Option<u64>) -> Result<Option<u64>, Refused> {
        let read = |value: &Bound<'_, PyAny>| {
            // As vLLM takes it.
            let is_nothing = value.extract::<i64>().is_ok_and(|value| value == -1);
            if is_nothing { Ok(None) } else { unsigned(value, field).map(Some) }
        };
        Ok(self.read_or(field, default.map(Some), read)?.flatten())
    }

    fn optional_integer(&self, field: &'static str, default: Option<i64>) -> Result<Option<i64>, Refused> {
        let read = |value: &Bound<'_, PyAny>| {
            no_boolean(value, field, "an integer")?;
            signed(value, field)
        };
        Ok(self.read_or(field, default, read)?)
    }

    fn token_ids(&self, field: &'static str) -> Result<Option<Vec<u32>>, Refused> {
        let read = |value: &Bound<'_, PyAny>| ids(value, field, &format!("{field} must be a list of integers"), true);
        Ok(self.read_or(field, None, read)?)
    }

    fn token_numbers(&self, field: &'static str) -> Result<Option<Vec<(u32, f32)>>, Refused> {
        let read = |value: &Bound<'_, PyAny>| {
            let Ok(numbers) = value.cast::<PyMapping>() else {
                let type_name = value.get_type().name()?;
                return Err(PyTypeError::new_err(format!(
                    "{field} must be a dict of numbers by token id, not {type_name}"
                )));
            };
            let item = |item: Bound<'_, PyAny>| {
                let (id, bias): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
                // A body in JSON has texts for keys.
                let id = match id.cast::<PyString>() {
                    Ok(text) => text.to_str()?.parse().map_err(|_| token_error_in(&id, field))?,
                    Err(_) => unsigned_below(&id, &format!("a token id of {field}"), u32::MAX)?,
                };
                Ok((id, number(&bias, &format!("{field}[{id}]"))? as f32))
            };
            numbers.items()?.iter().map(item).collect()
        };
        Ok(self.read_or(field, None, read)?)
    }

    fn texts(&self, field: &'static str) -> Result<Option<Vec<String>>, Refused> {
        let read = |value: &Bound<'_, PyAny>| {
            if value.is_instance_of::<PyString>() {
                return Ok(vec![text(value, field)?]);
            }
            let items = value.try_iter().map_err(|_| {
                let name = value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string());
                PyTypeError::new_err(format!("{field} must be a text or a list of texts, not {name}"))
            })?;
            items.enumerate().map(|(i, item)| text(&item?, &format!("{field}[{i}]"))).collect()
        };
        Ok(self.read_or(field, None, read)?)
    }

    fn optional_boolean(&self, field: &'static str) -> Result<Option<bool>, Refused> {
        Ok(self.read_or(field, None, |value| boolean(value, field))?)
    }
}

/// The options of one request, in range: those of any object with nano-vLLM's three attributes and perhaps ours.
pub(crate) struct Params {
    pub(crate) sampling: SamplingParams,
    pub(crate) output: OutputOptions,
}

impl Params {
    /// Those of a sequence that a program steps by hand, of which no text is made.
    pub(crate) fn by_hand(self) -> PyResult<SamplingParams> {
        self.check_no_logprobs("a Sequence")?;
        let OutputOptions { n, stop, bad_words, .. } = &self.output;
        for (field, is_given) in [("n", *n > 1), ("stop", !stop.is_empty()), ("bad_words", !bad_words.is_empty())] {
            if is_given {
                return Err(PyValueError::new_err(format!("{field} is for LLM.generate: a Sequence makes no text")));
            }
        }
        Ok(self.sampling)
    }

    /// Refuses to say how likely tokens are where nobody would hear of it.
    pub(crate) fn check_no_logprobs(&self, of: &str) -> PyResult<()> {
        let SamplingParams { logprobs, prompt_logprobs, .. } = &self.sampling;
        for (field, is_given) in [("logprobs", logprobs.is_some()), ("prompt_logprobs", prompt_logprobs.is_some())] {
            if is_given {
                return Err(PyValueError::new_err(format!("{field} is for LLM.generate: {of} hands none out")));
            }
        }
        Ok(())
    }
}

impl<'py> FromPyObject<'_, 'py> for Params {
    type Error = PyErr;

    fn extract(params: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        for required in ["temperature", "max_tokens", "ignore_eos"] {
            params.getattr(required)?;
        }
        let read = || {
            let sampling = SamplingParams::read(&Attributes(&params))?;
            let output = OutputOptions::read(&Attributes(&params), &sampling)?;
            Ok(Self { sampling, output })
        };
        read().map_err(|Refused(error)| error)
    }
}

/// Raises what `Engine.add_request` would for these options.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // extracting them is the check
pub(crate) fn check_sampling_params(params: Params) {
    let Params { .. } = params;
}

/// Every option of a request by name with its default.
#[pyfunction]
pub(crate) fn sampling_defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let defaults = Defaults(PyDict::new(py));
    let read = || OutputOptions::read(&defaults, &SamplingParams::read(&defaults)?);
    read().map_err(|Refused(error)| error)?;
    Ok(defaults.0)
}

/// A source without fields, which notes the defaults that it is asked for.
struct Defaults<'py>(Bound<'py, PyDict>);

impl Defaults<'_> {
    fn note<'py, T: IntoPyObject<'py> + Copy>(&'py self, field: &str, default: T) -> Result<T, Refused> {
        self.0.set_item(field, default)?;
        Ok(default)
    }

    fn nothing<T>(&self, field: &str) -> Result<Option<T>, Refused> {
        self.0.set_item(field, None::<u32>)?;
        Ok(None)
    }
}

impl FieldSource for Defaults<'_> {
    type Error = Refused;

    fn number(&self, field: &'static str, default: f64) -> Result<f64, Refused> {
        self.note(field, default)
    }

    fn optional_count(
        &self,
        field: &'static str,
        _least: usize,
        default: Option<usize>,
    ) -> Result<Option<usize>, Refused> {
        self.note(field, default)
    }

    fn boolean(&self, field: &'static str, default: bool) -> Result<bool, Refused> {
        self.note(field, default)
    }

    fn optional_unsigned(&self, field: &'static str, default: Option<u64>) -> Result<Option<u64>, Refused> {
        self.note(field, default)
    }

    fn optional_integer(&self, field: &'static str, default: Option<i64>) -> Result<Option<i64>, Refused> {
        self.note(field, default)
    }

    fn token_ids(&self, field: &'static str) -> Result<Option<Vec<u32>>, Refused> {
        self.nothing(field)
    }

    fn token_numbers(&self, field: &'static str) -> Result<Option<Vec<(u32, f32)>>, Refused> {
        self.nothing(field)
    }

    fn texts(&self, field: &'static str) -> Result<Option<Vec<String>>, Refused> {
        self.nothing(field)
    }

    fn optional_boolean(&self, field: &'static str) -> Result<Option<bool>, Refused> {
        self.nothing(field)
    }
}

/// The exception for an argument that cannot be read: a ValueError where it is out of range, a TypeError where it has
/// another type, both with its name. Anything else was raised by its `__index__` or `__float__`, and is raised again.
fn argument_error(value: &Bound<'_, PyAny>, error: PyErr, name: &str, kind: &str, range: &str) -> PyErr {
    let py = value.py();
    if error.is_instance_of::<PyOverflowError>(py) {
        PyValueError::new_err(format!("{name} is {value}, outside {range}"))
    } else if error.is_instance_of::<PyTypeError>(py) {
        match value.get_type().name() {
            Ok(type_name) => PyTypeError::new_err(format!("{name} must be {kind}, not {type_name}")),
            Err(error) => error,
        }
    } else {
        error
    }
}
