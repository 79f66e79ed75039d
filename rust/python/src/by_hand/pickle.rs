//! Pickling in nano-vLLM's form, which has what another process needs to compute a step.

use nanovllm_engine::{Sequence, SequenceState, StateTokens};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::arguments::{count, token_ids, unsigned_below};
use crate::errors::engine_error;

/// `(num_tokens, num_prompt_tokens, num_cached_tokens, num_scheduled_tokens, block_table, token_ids or last_token)`
pub(crate) type State<'py> =
    (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// A state as Python pickles it.
pub(crate) fn get(py: Python<'_>, state: SequenceState) -> PyResult<State<'_>> {
    let number = |n: usize| Ok::<_, PyErr>(n.into_pyobject(py)?.into_any());
    let tokens = match state.tokens {
        StateTokens::All(token_ids) => PyList::new(py, token_ids)?.into_any(),
        StateTokens::Last(token_id) => token_id.into_pyobject(py)?.into_any(),
    };
    Ok((
        number(state.num_tokens)?,
        number(state.num_prompt_tokens)?,
        number(state.num_cached_tokens)?,
        number(state.num_scheduled_tokens)?,
        PyList::new(py, state.block_table)?.into_any(),
        tokens,
    ))
}

/// The sequence that a state of Python's describes.
pub(crate) fn set(state: State<'_>, block_size: usize) -> PyResult<Sequence> {
    let (num_tokens, num_prompt_tokens, num_cached_tokens, num_scheduled_tokens, block_table, tokens) = state;
    let tokens = if tokens.is_instance_of::<PyList>() {
        StateTokens::All(token_ids(&tokens)?)
    } else {
        StateTokens::Last(unsigned_below(&tokens, "last_token", u32::MAX)?)
    };
    let state = SequenceState {
        num_tokens: count(&num_tokens, "num_tokens")?,
        num_prompt_tokens: count(&num_prompt_tokens, "num_prompt_tokens")?,
        num_cached_tokens: count(&num_cached_tokens, "num_cached_tokens")?,
        num_scheduled_tokens: count(&num_scheduled_tokens, "num_scheduled_tokens")?,
        block_table: block_ids(&block_table)?,
        tokens,
    };
    Sequence::from_state(state, block_size).map_err(engine_error)
}

/// Reads a block table: any iterable of block ids.
pub(crate) fn block_ids(value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let id = |(at, item): (usize, PyResult<Bound<'_, PyAny>>)| {
        unsigned_below(&item?, &format!("block_table[{at}]"), i32::MAX as u32)
    };
    value.try_iter()?.enumerate().map(id).collect()
}
