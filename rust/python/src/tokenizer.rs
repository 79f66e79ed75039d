//! `Tokenizer`: text to ids and back, and chat templates.

use std::collections::BTreeSet;
use std::sync::Arc;

use nanovllm_tokenizer::ChatOptions;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::{Map, Value};

use crate::arguments::{token_ids, unsigned_below};
use crate::errors::tokenizer_error;
use crate::signals::Signals;

/// A model's tokenizer.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Tokenizer {
    inner: Arc<nanovllm_tokenizer::Tokenizer>,
}

impl Tokenizer {
    pub(crate) fn new(inner: Arc<nanovllm_tokenizer::Tokenizer>) -> Self {
        Self { inner }
    }
}

#[pymethods]
impl Tokenizer {
    /// Token ids of `text`.
    fn encode(&self, py: Python<'_>, text: &str, add_special_tokens: bool) -> PyResult<Vec<u32>> {
        py.detach(|| self.inner.encode(text, add_special_tokens)).map_err(|e| tokenizer_error(&e))
    }

    /// Text of `token_ids`. An id no token has adds nothing: models pad their vocabulary, and may choose such an id.
    fn decode(&self, py: Python<'_>, token_ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
        let mut ids = self::token_ids(token_ids)?;
        py.detach(|| {
            ids.retain(|&id| self.inner.id_to_token(id).is_some());
            self.inner.decode(&ids, skip_special_tokens)
        })
        .map_err(|e| tokenizer_error(&e))
    }

    /// The prompt text of `messages`. All but the flag and the template are JSON texts. Python's signal handlers run
    /// meanwhile.
    #[pyo3(signature = (messages, add_generation_prompt, tools, documents, template, extra))]
    fn apply_chat_template(
        &self,
        py: Python<'_>,
        messages: &str,
        add_generation_prompt: bool,
        tools: Option<&str>,
        documents: Option<&str>,
        template: Option<String>,
        extra: &str,
    ) -> PyResult<String> {
        let messages: Value = parse("conversation", messages)?;
        let tools = tools.map(|text| parse("tools", text)).transpose()?;
        let documents = documents.map(|text| parse("documents", text)).transpose()?;
        let extra: Map<String, Value> = parse("the template's variables", extra)?;
        let options = ChatOptions { add_generation_prompt, tools, documents, template, extra };
        let mut signals = Signals::default();
        let text =
            py.detach(|| self.inner.apply_chat_template_while(&messages, &options, &mut || !signals.interrupted()));
        text.map_err(|error| signals.take().unwrap_or_else(|| tokenizer_error(&error)))
    }

    /// The names that the template which a chat would use reads and does not set itself.
    #[pyo3(signature = (template, has_tools))]
    fn chat_template_variables(&self, template: Option<String>, has_tools: bool) -> PyResult<BTreeSet<String>> {
        let options = ChatOptions { template, tools: has_tools.then_some(Value::Null), ..ChatOptions::default() };
        self.inner.chat_template_variables(&options).map_err(|e| tokenizer_error(&e))
    }

    /// The id of a token as the vocabulary writes it.
    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id as the vocabulary writes it.
    fn id_to_token(&self, token_id: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
        Ok(self.inner.id_to_token(unsigned_below(token_id, "token_id", u32::MAX)?))
    }

    /// The text of a tokenizer.json that describes this tokenizer.
    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.inner.to_json()).map_err(|e| tokenizer_error(&e))
    }

    /// Tokens in the vocabulary, added ones included.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    /// Every id that ends a generation, the tokenizer's own first.
    #[getter]
    fn eos_token_ids(&self) -> Vec<u32> {
        self.inner.eos_token_ids().to_vec()
    }

    /// Id of the token that starts a sequence.
    #[getter]
    fn bos_token_id(&self) -> Option<u32> {
        self.inner.bos_token_id()
    }

    /// Id of the padding token.
    #[getter]
    fn pad_token_id(&self) -> Option<u32> {
        self.inner.pad_token_id()
    }

    /// The model's chat template.
    #[getter]
    fn chat_template(&self) -> Option<&str> {
        self.inner.chat_template()
    }
}

/// Python wrote this JSON; only NaN and infinity, which JSON does not have, can be wrong with it.
fn parse<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|e| PyValueError::new_err(format!("{what} is not JSON: {e}")))
}
