//! `Engine`: nanovllm_service's Service for Python. Every method releases the GIL before it waits, so threads that share an
//! engine never wait for each other crosswise.

use std::sync::Arc;

use nanovllm_engine::{EngineStats, LlmEngine, Pooling, SamplingParams};
use nanovllm_service::{BOUNDS, Request, Service, Watch};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{self, Params, prompt, signed, unsigned};
use crate::by_hand::model_runner::ModelRunner;
use crate::call::Call;
use crate::config::{Checkpoint, Loaded, Setup};
use crate::door::Door;
use crate::errors::{closed, engine_error, of_item, service_error};
use crate::guarded::Turns;
use crate::hub::Hub;
use crate::outcome::{finished, step_error};
use crate::signals::Signals;
use crate::tokenizer::Tokenizer;

/// A loaded model with its scheduler and KV cache. Any thread may call any method.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Engine {
    door: Arc<Door>,
    tokenizer: Py<Tokenizer>,
    description: String,
    notes: Vec<String>,
    kv_cache_bytes: usize,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (config, checkpoint = None))]
    fn new(py: Python<'_>, config: &Bound<'_, PyAny>, checkpoint: Option<&Bound<'_, Checkpoint>>) -> PyResult<Self> {
        let mut setup = Setup::read(config)?;
        let Loaded { model, memory, tokenizer } = setup.load(py, checkpoint.map(Bound::get))?;
        setup.engine.eos = tokenizer.eos_token_ids().to_vec();
        let (description, notes) = (model.describe(), model.notes().to_vec());
        let engine = py.detach(|| LlmEngine::new(model, setup.engine, memory)).map_err(engine_error)?;
        let kv_cache_bytes = {
            let spec = engine.model_runner().kv_cache_spec();
            spec.block_bytes().saturating_mul(spec.num_blocks)
        };
        let tokenizer = Arc::new(tokenizer);
        let service = Service::new(engine, Some(Arc::clone(&tokenizer)));
        let door = Door::new(service);
        Ok(Self { door, tokenizer: Py::new(py, Tokenizer::new(tokenizer))?, description, notes, kv_cache_bytes })
    }

    /// The model's tokenizer.
    #[getter]
    fn tokenizer(&self, py: Python<'_>) -> Py<Tokenizer> {
        self.tokenizer.clone_ref(py)
    }

    /// Architecture, device, instruction set and threads, for logs.
    #[getter]
    fn description(&self) -> &str {
        &self.description
    }

    /// What a user should know of how the weights were loaded, one line each.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// Bytes of the KV cache.
    #[getter]
    fn kv_cache_bytes(&self) -> usize {
        self.kv_cache_bytes
    }

    /// The model runner, for steps by hand.
    #[getter]
    fn model_runner(&self, py: Python<'_>) -> PyResult<ModelRunner> {
        ModelRunner::of(py, &self.door)
    }

    /// Queues prompts, each `(seq_ids, token_ids, sampling_params, priority)` with an id for each of its answers that no queued
    /// sequence has: all, or none. The lower the priority, the sooner it is computed. Their answers are the call's, and what is left of them is
    /// dropped with it. The refusal of one of several says which it is, as `prompts[3]`. Special tokens are left out of their
    /// text if `skip_special_tokens` is true, unless a request says otherwise.
    #[pyo3(signature = (requests, skip_special_tokens, is_watched = false))]
    fn submit(
        &self,
        py: Python<'_>,
        requests: &Bound<'_, PyAny>,
        skip_special_tokens: bool,
        is_watched: bool,
    ) -> PyResult<Call> {
        let read = self.read_requests(py, requests, skip_special_tokens, is_watched)?;
        self.call(py, read)
    }

    /// Queues prompts to be embedded, each `(seq_id, token_ids, priority)` with an id that no queued sequence has, as `submit` does. An embedding
    /// is the hidden state of the last token, or the mean of all tokens' (`pooling` is `last` or `mean`), and is scaled to a length
    /// of 1 if `normalize` is true.
    fn embed(
        &self,
        py: Python<'_>,
        requests: &Bound<'_, PyAny>,
        pooling: &Bound<'_, PyAny>,
        normalize: bool,
    ) -> PyResult<Call> {
        let read = self.read_embeddings(py, requests, pooling, normalize)?;
        self.call(py, read)
    }

    /// A hub for the requests of asynchronous callers.
    fn hub(slf: &Bound<'_, Self>) -> PyResult<Hub> {
        let door = &slf.get().door;
        let hub = door.service().hub().map_err(|error| service_error(&error))?;
        Ok(Hub::new(hub, slf.clone().unbind(), Arc::clone(door)))
    }

    /// Drives the engine on this thread until `end` is called; callers then only wait.
    fn drive(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.service().drive()).map_err(|error| service_error(&error))
    }

    /// Has `drive` return.
    fn end(&self) -> PyResult<()> {
        self.service().end().map_err(|error| service_error(&error))
    }

    /// Queues a prompt under an id that no queued sequence has; `step` hands out its answer.
    fn add_request(
        &self,
        py: Python<'_>,
        seq_id: &Bound<'_, PyAny>,
        token_ids: &Bound<'_, PyAny>,
        sampling_params: Params,
    ) -> PyResult<()> {
        if sampling_params.output.n > 1 {
            return Err(PyValueError::new_err("n must be 1 in add_request, which queues one answer: call generate"));
        }
        sampling_params.check_no_logprobs("LLM.step")?;
        let request = self.request(seq_id, token_ids, sampling_params, false)?;
        let result = py.detach(|| self.service().add(request)).map_err(|error| service_error(&error));
        self.door.release_ended();
        result
    }

    /// Puts the sequences that have finished and that no call waits for into `finished` by id, before Python's signal
    /// handlers can run again; where there are none, after one step. Returns the number of prompt tokens computed, or minus
    /// the number of tokens decoded. Python's signal handlers run between slices; what they raise ends the step, which is
    /// rolled back.
    fn step(&self, py: Python<'_>, finished: &Bound<'_, PyDict>) -> PyResult<i64> {
        let mut signals = Signals::default();
        let result = py.detach(|| self.service().step(&mut || signals.interrupted()));
        let (events, num_tokens) = result.map_err(|error| step_error(&error, &mut signals))?;
        for sequence in self::finished(events)? {
            finished.set_item(sequence.seq_id_of(), sequence)?;
        }
        self.door.release_ended();
        Ok(num_tokens)
    }

    /// Whether no sequence waits, runs, or is finished without having been handed out to whoever added it.
    fn is_finished(&self, py: Python<'_>) -> PyResult<bool> {
        let result = py.detach(|| self.service().is_finished()).map_err(|error| service_error(&error));
        self.door.release_ended();
        result
    }

    /// Drops a sequence and frees its cache; False when there is none of that id.
    fn abort(&self, py: Python<'_>, seq_id: u64) -> PyResult<bool> {
        let result = py.detach(|| self.service().abort(seq_id)).map_err(|error| service_error(&error));
        self.door.release_ended();
        result
    }

    /// Frees the model and its cache; every later call is refused. Sequences that are queued go back to their handles.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let engine = py.detach(|| self.service().close()).map_err(|error| service_error(&error))?;
        py.detach(|| {
            if let (Some(mut engine), Some(home)) = (engine, self.door.home()) {
                home.give_all_back(engine.scheduler_mut());
            }
        });
        self.door.release_ended();
        Ok(())
    }

    /// What the engine has done and how fast, as of its last step: this waits for nothing. `stats` with `num_stopped`, `num_cut_off`
    /// and `num_aborted` requests, and `time_to_first_token`, `inter_token_latency` and `request_latency`: each the sum of
    /// durations in seconds, and how many were at most each of `bounds`, then in all.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let metrics = self.service().metrics().map_err(|error| service_error(&error))?;
        let dict = stats(py, &metrics.engine)?;
        dict.set_item("num_stopped", metrics.endings.stop)?;
        dict.set_item("num_cut_off", metrics.endings.length)?;
        dict.set_item("num_aborted", metrics.endings.abort)?;
        for (name, histogram) in [
            ("time_to_first_token", &metrics.time_to_first_token),
            ("inter_token_latency", &metrics.inter_token_latency),
            ("request_latency", &metrics.request_latency),
        ] {
            dict.set_item(name, (histogram.sum(), histogram.cumulative()))?;
        }
        dict.set_item("bounds", BOUNDS)?;
        Ok(dict)
    }

    /// Counters since the engine was made, and the state of queues and KV cache.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.service().engine().with(py, |driver| driver.as_mut().map(|d| d.engine().stats()))?;
        self.door.release_ended();
        self::stats(py, &stats.ok_or_else(closed)?)
    }
}

fn stats<'py>(py: Python<'py>, stats: &EngineStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("num_requests", stats.requests)?;
    dict.set_item("num_steps", stats.steps)?;
    dict.set_item("num_prefilled_tokens", stats.prefilled_tokens)?;
    dict.set_item("num_cached_tokens", stats.cached_tokens)?;
    dict.set_item("num_generated_tokens", stats.generated_tokens)?;
    dict.set_item("num_preemptions", stats.preemptions)?;
    dict.set_item("num_waiting", stats.num_waiting)?;
    dict.set_item("num_running", stats.num_running)?;
    dict.set_item("num_free_blocks", stats.free_blocks)?;
    dict.set_item("num_kvcache_blocks", stats.total_blocks)?;
    Ok(dict)
}

impl Engine {
    /// The way to its scheduler, for programs that step by hand.
    pub(crate) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    fn call(&self, py: Python<'_>, requests: Vec<Request>) -> PyResult<Call> {
        let before = self.service().computed().map_err(|error| service_error(&error))?;
        let call = py.detach(|| self.service().submit(requests)).map_err(|error| service_error(&error));
        self.door.release_ended();
        Ok(Call::new(call?, Arc::clone(&self.door), before))
    }

    /// Reads the requests of a call. The refusal of one of several says which it is.
    pub(crate) fn read_requests(
        &self,
        py: Python<'_>,
        requests: &Bound<'_, PyAny>,
        skip_special_tokens: bool,
        is_watched: bool,
    ) -> PyResult<Vec<Request>> {
        let mut read = Vec::new();
        for_each_prompt(py, requests, |request| {
            self.read_request(request, skip_special_tokens, is_watched, &mut read)
        })?;
        Ok(read)
    }

    /// Reads the prompts of a call that are to be embedded. The refusal of one of several says which it is.
    pub(crate) fn read_embeddings(
        &self,
        py: Python<'_>,
        requests: &Bound<'_, PyAny>,
        pooling: &Bound<'_, PyAny>,
        normalize: bool,
    ) -> PyResult<Vec<Request>> {
        let pooling = Some(Pooling { kind: arguments::pooling(pooling)?, normalize });
        let mut read = Vec::new();
        for_each_prompt(py, requests, |request| {
            type Fields<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);
            let (seq_id, token_ids, priority): Fields<'_> = request.extract()?;
            let (seq_id, token_ids) = (self::seq_id(&seq_id)?, prompt(&token_ids)?);
            let priority = signed(&priority, "priority")?;
            let request = Request { pooling, priority, ..Request::new(seq_id, token_ids, SamplingParams::default()) };
            let limits = self.service().limits();
            limits.check_request(&request.token_ids, &request.params, pooling).map_err(engine_error)?;
            read.push(request);
            Ok(())
        })?;
        Ok(read)
    }

    /// Reads one of the prompts of a call, a request for each of its answers, and checks it as the service will check them all.
    fn read_request(
        &self,
        request: &Bound<'_, PyAny>,
        skip_special_tokens: bool,
        is_watched: bool,
        read: &mut Vec<Request>,
    ) -> PyResult<()> {
        type Fields<'py> = (Vec<Bound<'py, PyAny>>, Bound<'py, PyAny>, Params, Bound<'py, PyAny>);
        let (seq_ids, token_ids, params, priority): Fields<'_> = request.extract()?;
        let Some((first, others)) = seq_ids.split_first() else { return Ok(()) };
        let watch = match (is_watched, params.output.detokenize) {
            (false, _) => Watch::Result,
            (true, false) => Watch::Tokens,
            (true, true) => Watch::Text,
        };
        let mut request = self.request(first, &token_ids, params, skip_special_tokens)?;
        request.watch = watch;
        request.priority = signed(&priority, "priority")?;
        self.service().limits().check(&request.token_ids, &request.params).map_err(engine_error)?;
        let twin_of = Some(request.seq_id);
        read.push(request);
        let first = read.len() - 1;
        for (index, seq_id) in (1..).zip(others) {
            let mut request = Request { seq_id: self::seq_id(seq_id)?, twin_of, ..read[first].clone() };
            request.params.index = index;
            // What the prompt's tokens are like one of them tells.
            request.params.prompt_logprobs = None;
            read.push(request);
        }
        Ok(())
    }

    /// Reads one request.
    fn request(
        &self,
        seq_id: &Bound<'_, PyAny>,
        token_ids: &Bound<'_, PyAny>,
        params: Params,
        skip_special_tokens: bool,
    ) -> PyResult<Request> {
        let Params { sampling, output } = params;
        let text = output.text(skip_special_tokens);
        let mut request = Request::new(self::seq_id(seq_id)?, prompt(token_ids)?, sampling);
        request.params.bad_words = self.tokenizer.get().bad_words(&output.bad_words)?;
        Ok(Request { text, ..request })
    }

    fn service(&self) -> &Arc<Service> {
        self.door.service()
    }
}

fn seq_id(seq_id: &Bound<'_, PyAny>) -> PyResult<u64> {
    unsigned(seq_id, "Sequence.counter's next id")
}

/// Has each of the prompts of a call read. The refusal of one of several says which it is.
fn for_each_prompt(
    py: Python<'_>,
    requests: &Bound<'_, PyAny>,
    mut read: impl FnMut(&Bound<'_, PyAny>) -> PyResult<()>,
) -> PyResult<()> {
    let number = requests.len().unwrap_or(0);
    for (at, request) in requests.try_iter()?.enumerate() {
        read(&request?)
            .map_err(|error| if number == 1 { error } else { of_item(py, error, &format!("prompts[{at}]")) })?;
    }
    Ok(())
}
