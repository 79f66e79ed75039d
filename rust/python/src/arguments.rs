//! Python values to Rust numbers; every refusal names the argument and the limit.

use nanovllm_engine::SamplingParams;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::errors::engine_error;

/// An integer in `0..2**64`; booleans are none.
pub(crate) fn unsigned(value: &Bound<'_, PyAny>, name: &str) -> PyResult<u64> {
    if value.is_instance_of::<pyo3::types::PyBool>() {
        return Err(PyTypeError::new_err(format!("{name} must be an integer, got {value}")));
    }
    value.extract().map_err(|e| argument_error(value, e, name, "an integer", "0 to 2**64 - 1"))
}

/// As [`unsigned`], for a count.
pub(crate) fn count(value: &Bound<'_, PyAny>, name: &str) -> PyResult<usize> {
    usize::try_from(unsigned(value, name)?).map_err(|e| PyValueError::new_err(format!("{name}: {e}")))
}

/// True or false, numpy's included. (Before Python 3.11, pyo3's own refusal lacks the argument's name.)
pub(crate) fn boolean(value: &Bound<'_, PyAny>, name: &str) -> PyResult<bool> {
    value.extract().map_err(|e| argument_error(value, e, name, "a bool", "True and False"))
}

/// Any iterable of integers that fit a token id; the engine knows the vocabulary.
pub(crate) fn token_ids(value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let mut ids = Vec::with_capacity(value.len().unwrap_or(0).min(1 << 20));
    for (position, item) in value.try_iter()?.enumerate() {
        let item = item?;
        ids.push(item.extract().map_err(|e| token_error(&item, e, position))?);
    }
    Ok(ids)
}

/// The refusal of the item at `position` of a list of token ids.
pub(crate) fn token_error(item: &Bound<'_, PyAny>, error: PyErr, position: usize) -> PyErr {
    argument_error(item, error, &format!("token_ids[{position}]"), "an integer", "the range of token ids")
}

/// An integer in `0..=max`.
pub(crate) fn unsigned_below(value: &Bound<'_, PyAny>, name: &str, max: u32) -> PyResult<u32> {
    match u32::try_from(unsigned(value, name)?) {
        Ok(number) if number <= max => Ok(number),
        _ => Err(PyValueError::new_err(format!("{name} is {value}, outside 0 to {max}"))),
    }
}

/// A number that float32 may have to round.
pub(crate) fn number(value: &Bound<'_, PyAny>, name: &str) -> PyResult<f64> {
    value.extract().map_err(|e| argument_error(value, e, name, "a number", "float32"))
}

/// A block table: any iterable of block ids.
pub(crate) fn block_ids(value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let id = |(at, item): (usize, PyResult<Bound<'_, PyAny>>)| {
        unsigned_below(&item?, &format!("block_table[{at}]"), i32::MAX as u32)
    };
    value.try_iter()?.enumerate().map(id).collect()
}

/// The options of one request, in range.
pub(crate) fn sampling_params(
    temperature: &Bound<'_, PyAny>,
    max_tokens: &Bound<'_, PyAny>,
    ignore_eos: &Bound<'_, PyAny>,
    seed: Option<&Bound<'_, PyAny>>,
) -> PyResult<SamplingParams> {
    let params = SamplingParams {
        temperature: number(temperature, "temperature")?,
        max_tokens: count(max_tokens, "max_tokens")?,
        ignore_eos: boolean(ignore_eos, "ignore_eos")?,
        seed: seed.map(|seed| unsigned(seed, "seed")).transpose()?,
    };
    params.validate().map_err(|e| engine_error(e.into()))?;
    Ok(params)
}

/// Raises what `Engine.add_request` would for these options.
#[pyfunction]
#[pyo3(signature = (temperature, max_tokens, ignore_eos, seed))]
#[allow(clippy::needless_pass_by_value)] // pyo3 hands optional arguments over by value
pub(crate) fn check_sampling_params(
    temperature: &Bound<'_, PyAny>,
    max_tokens: &Bound<'_, PyAny>,
    ignore_eos: &Bound<'_, PyAny>,
    seed: Option<Bound<'_, PyAny>>,
) -> PyResult<()> {
    sampling_params(temperature, max_tokens, ignore_eos, seed.as_ref()).map(|_| ())
}

/// Out of range is a ValueError, another type a TypeError, both with the argument's name; what else `__index__` or
/// `__float__` raised goes through.
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
