//! `Sequence`: nanovllm_engine's, looked at and set through a handle (see [`crate::by_hand::home`]).

use nanovllm_engine::{EngineError, SamplingParams, SequenceStatus};
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PySlice};

use crate::arguments::{Params, boolean, count, number, token_ids, unsigned, unsigned_below};
use crate::by_hand::handle::{PySequence, block_size, read_blocks};
use crate::by_hand::home::Place;
use crate::by_hand::pickle::{self, block_ids};
use crate::errors::engine_error;

#[pymethods]
impl PySequence {
    /// An object without a sequence; `_init`, `__setstate__` or a scheduler gives it one.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self::default()
    }

    /// Makes the sequence.
    #[pyo3(signature = (seq_id, token_ids, sampling_params, block_size))]
    fn _init(
        &self,
        seq_id: &Bound<'_, PyAny>,
        token_ids: &Bound<'_, PyAny>,
        sampling_params: Params,
        block_size: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let seq_id = unsigned(seq_id, "Sequence.counter's next id")?;
        let token_ids = self::token_ids(token_ids)?;
        let params = sampling_params.by_hand()?;
        let block_size = count(block_size, "Sequence.block_size")?;
        let seq = nanovllm_engine::Sequence::new(seq_id, token_ids, params, block_size).map_err(engine_error)?;
        self.bind_own(seq)
    }

    /// Number in the order of making; what `step` returns.
    #[getter]
    fn seq_id(&self, py: Python<'_>) -> PyResult<u64> {
        self.whole("seq_id")?;
        self.read(py, |seq| seq.seq_id)
    }

    /// 1, 2 or 3: waiting, running, finished.
    #[getter]
    fn _status(&self, py: Python<'_>) -> PyResult<u8> {
        self.whole("status")?;
        self.read(py, |seq| match seq.status {
            SequenceStatus::Waiting => 1,
            SequenceStatus::Running => 2,
            SequenceStatus::Finished => 3,
        })
    }

    /// Whether it is done.
    #[getter]
    fn is_finished(&self, py: Python<'_>) -> PyResult<bool> {
        self.whole("status")?;
        self.read(py, nanovllm_engine::Sequence::is_finished)
    }

    /// "stop" or "length" once it is finished.
    #[getter]
    fn finish_reason(&self, py: Python<'_>) -> PyResult<Option<&'static str>> {
        self.read(py, |seq| seq.finish_reason.map(nanovllm_engine::FinishReason::as_str))
    }

    /// Prompt and completion: a copy.
    #[getter]
    fn token_ids(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.read(py, |seq| seq.token_ids().to_vec())
    }

    /// The prompt: a copy.
    #[getter]
    fn prompt_token_ids(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.read(py, |seq| seq.prompt_token_ids().to_vec())
    }

    /// The tokens generated so far: a copy.
    #[getter]
    fn completion_token_ids(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.read(py, |seq| seq.completion_token_ids().to_vec())
    }

    /// The newest token.
    #[getter]
    fn last_token(&self, py: Python<'_>) -> PyResult<u32> {
        self.read(py, nanovllm_engine::Sequence::last_token)
    }

    /// Tokens in prompt and completion.
    #[getter]
    fn num_tokens(&self, py: Python<'_>) -> PyResult<usize> {
        self.read(py, nanovllm_engine::Sequence::num_tokens)
    }

    /// Tokens in the prompt.
    #[getter]
    fn num_prompt_tokens(&self, py: Python<'_>) -> PyResult<usize> {
        self.read(py, nanovllm_engine::Sequence::num_prompt_tokens)
    }

    /// Tokens generated so far.
    #[getter]
    fn num_completion_tokens(&self, py: Python<'_>) -> PyResult<usize> {
        self.read(py, nanovllm_engine::Sequence::num_completion_tokens)
    }

    /// Blocks its tokens fill, the last perhaps in part.
    #[getter]
    fn num_blocks(slf: &Bound<'_, Self>) -> PyResult<usize> {
        read_blocks(slf, nanovllm_engine::Sequence::num_blocks)
    }

    /// Tokens in the last block.
    #[getter]
    fn last_block_num_tokens(slf: &Bound<'_, Self>) -> PyResult<usize> {
        read_blocks(slf, nanovllm_engine::Sequence::last_block_num_tokens)
    }

    /// The tokens of block `i`.
    fn block(slf: &Bound<'_, Self>, i: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
        let (index, i) = (index(i)?, i.to_string());
        let block = read_blocks(slf, |seq| {
            let block = index.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < seq.num_blocks());
            block.map(|i| seq.block(i).to_vec()).ok_or_else(|| EngineError::Precondition {
                method: "block",
                needs: "an index of a block",
                got: format!("{i} of {}", seq.num_blocks()),
            })
        })?;
        block.map_err(engine_error)
    }

    #[setter]
    fn set_seq_id(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.whole("seq_id")?;
        let value = unsigned(value, "seq_id")?;
        self.write("seq_id", |seq| seq.seq_id = value)
    }

    #[setter(_status)]
    fn set_status(&self, value: u8) -> PyResult<()> {
        self.whole("status")?;
        let status = match value {
            1 => SequenceStatus::Waiting,
            2 => SequenceStatus::Running,
            3 => SequenceStatus::Finished,
            _ => return Err(PyValueError::new_err(format!("status must be a SequenceStatus, got {value}"))),
        };
        self.write("status", |seq| seq.status = status)
    }

    /// Tokens whose keys and values are in the cache.
    #[getter]
    fn num_cached_tokens(&self, py: Python<'_>) -> PyResult<usize> {
        self.read(py, |seq| seq.num_cached_tokens)
    }

    #[setter]
    fn set_num_cached_tokens(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = count(value, "num_cached_tokens")?;
        self.write("num_cached_tokens", |seq| seq.num_cached_tokens = value)
    }

    /// Tokens that the step under way computes.
    #[getter]
    fn num_scheduled_tokens(&self, py: Python<'_>) -> PyResult<usize> {
        self.read(py, |seq| seq.num_scheduled_tokens)
    }

    #[setter]
    fn set_num_scheduled_tokens(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = count(value, "num_scheduled_tokens")?;
        self.write("num_scheduled_tokens", |seq| seq.num_scheduled_tokens = value)
    }

    /// False once it has been scheduled for decoding, until it is preempted.
    #[getter]
    fn is_prefill(&self, py: Python<'_>) -> PyResult<bool> {
        self.read(py, |seq| seq.is_prefill)
    }

    #[setter]
    fn set_is_prefill(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = boolean(value, "is_prefill")?;
        self.write("is_prefill", |seq| seq.is_prefill = value)
    }

    /// Its blocks in order: a copy, which can be assigned back.
    #[getter]
    fn block_table(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.read(py, |seq| seq.block_table.clone())
    }

    #[setter]
    fn set_block_table(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = block_ids(value)?;
        self.write("block_table", |seq| seq.block_table = value)
    }

    /// Divides the logits; 0 is greedy.
    #[getter]
    fn temperature(&self, py: Python<'_>) -> PyResult<f64> {
        self.whole("temperature")?;
        self.read(py, |seq| seq.params.temperature)
    }

    #[setter]
    fn set_temperature(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let temperature = number(value, "temperature")?;
        self.write_params(py, "temperature", |params| SamplingParams { temperature, ..params })
    }

    /// Tokens to generate at most.
    #[getter]
    fn max_tokens(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        self.whole("max_tokens")?;
        self.read(py, |seq| Some(seq.params.max_tokens).filter(|&most| most < usize::MAX))
    }

    #[setter]
    fn set_max_tokens(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let max_tokens = if value.is_none() { usize::MAX } else { count(value, "max_tokens")? };
        self.write_params(py, "max_tokens", |params| SamplingParams { max_tokens, ..params })
    }

    /// Whether it goes on past an end-of-sequence token.
    #[getter]
    fn ignore_eos(&self, py: Python<'_>) -> PyResult<bool> {
        self.whole("ignore_eos")?;
        self.read(py, |seq| seq.params.ignore_eos)
    }

    #[setter]
    fn set_ignore_eos(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let ignore_eos = boolean(value, "ignore_eos")?;
        self.write_params(py, "ignore_eos", |params| SamplingParams { ignore_eos, ..params })
    }

    /// Appends a generated token.
    fn append_token(&self, token_id: &Bound<'_, PyAny>) -> PyResult<()> {
        let token_id = unsigned_below(token_id, "token_id", u32::MAX)?;
        self.write("its tokens", |seq| seq.append_by_hand(token_id))
    }

    fn __getstate__<'py>(&self, py: Python<'py>) -> PyResult<pickle::State<'py>> {
        pickle::get(py, self.read(py, nanovllm_engine::Sequence::state)?)
    }

    fn __setstate__(slf: &Bound<'_, Self>, state: pickle::State<'_>) -> PyResult<()> {
        slf.get().bind_pickled(pickle::set(state, block_size(slf)?)?)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.num_tokens(py)
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if key.is_instance_of::<PySlice>() {
            return PyList::new(py, self.token_ids(py)?)?.as_any().get_item(key);
        }
        let index = index(key)?;
        let token_id = self.read(py, |seq| {
            let token_ids = seq.token_ids();
            let at = index.and_then(|at| if at < 0 { at.checked_add_unsigned(token_ids.len()) } else { Some(at) });
            at.and_then(|at| usize::try_from(at).ok()).and_then(|at| token_ids.get(at).copied())
        })?;
        let token_id = token_id.ok_or_else(|| PyIndexError::new_err("sequence index out of range"))?;
        Ok(token_id.into_pyobject(py)?.into_any())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let name = slf.get_type().name()?;
        let Ok(whereabouts) = slf.get().whereabouts() else { return Ok(format!("<{name}, not initialised>")) };
        let in_home = matches!(*whereabouts.lock(), Place::Home(..));
        let place = if in_home { "in a scheduler" } else { "on its own" };
        let text = slf.get().read(slf.py(), |seq| {
            format!("{} {:?}, {} tokens ({} prompt)", seq.seq_id, seq.status, seq.num_tokens(), seq.num_prompt_tokens())
        })?;
        Ok(format!("<{name} {text}, {place}>"))
    }
}

/// An index; None for one beyond any sequence.
fn index(value: &Bound<'_, PyAny>) -> PyResult<Option<isize>> {
    match value.extract::<isize>() {
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Ok(None),
        index => index.map(Some),
    }
}
