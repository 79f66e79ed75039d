//! `Tokenizer`: text to ids and back, and chat templates.

use std::collections::BTreeSet;
use std::sync::Arc;

use nanovllm_service::bad_word_tokens;
use nanovllm_tokenizer::{ChatOptions, Cut, Side, Truncation};
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

    /// The runs of tokens that spell words which an answer must not have.
    pub(crate) fn bad_words(&self, words: &[String]) -> PyResult<Vec<Vec<u32>>> {
        bad_word_tokens(&self.inner, words).map_err(|e| tokenizer_error(&e))
    }
}

#[pymethods]
impl Tokenizer {
    /// Rebuilds a tokenizer from what `__getnewargs__` gave.
    #[new]
    fn from_state(py: Python<'_>, state: &str) -> PyResult<Self> {
        let inner = py.detach(|| nanovllm_tokenizer::Tokenizer::from_state(state)).map_err(|e| tokenizer_error(&e))?;
        Ok(Self::new(Arc::new(inner)))
    }

    /// The state, for pickle.
    fn __getnewargs__(&self, py: Python<'_>) -> PyResult<(String,)> {
        py.detach(|| self.inner.to_state()).map(|state| (state,)).map_err(|e| tokenizer_error(&e))
    }

    /// The same object, for it never changes.
    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// The same object, for it never changes.
    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    /// Token ids of `text`.
    fn encode(&self, py: Python<'_>, text: &str, add_special_tokens: bool) -> PyResult<Vec<u32>> {
        py.detach(|| self.inner.encode(text, add_special_tokens)).map_err(|e| tokenizer_error(&e))
    }

    /// Ids and type ids of each text, or pair of texts. `truncation` is a length, a strategy and a side, as transformers
    /// names them.
    #[pyo3(signature = (texts, add_special_tokens, truncation))]
    fn encode_batch(
        &self,
        py: Python<'_>,
        texts: Vec<(String, Option<String>)>,
        add_special_tokens: bool,
        truncation: Option<(usize, String, String)>,
    ) -> PyResult<Vec<(Vec<u32>, Vec<u32>)>> {
        let truncation = truncation.map(|(length, cut, side)| self::truncation(length, &cut, &side)).transpose()?;
        py.detach(|| {
            let encode = |(text, pair): (String, Option<String>)| {
                let encoded = self.inner.encode_pair(&text, pair.as_deref(), add_special_tokens, truncation)?;
                Ok((encoded.ids().to_vec(), encoded.type_ids().to_vec()))
            };
            texts.into_iter().map(encode).collect::<Result<_, _>>()
        })
        .map_err(|e| tokenizer_error(&e))
    }

    /// The tokens of a text, or of a pair of texts, as the vocabulary writes them.
    #[pyo3(signature = (text, pair, add_special_tokens))]
    fn tokenize(
        &self,
        py: Python<'_>,
        text: &str,
        pair: Option<&str>,
        add_special_tokens: bool,
    ) -> PyResult<Vec<String>> {
        py.detach(|| self.inner.tokenize(text, pair, add_special_tokens)).map_err(|e| tokenizer_error(&e))
    }

    /// How many tokens are put around and between the texts of a sequence.
    fn num_special_tokens_to_add(&self, pair: bool) -> usize {
        self.inner.num_special_tokens_to_add(pair)
    }

    /// The text of tokens as the vocabulary writes them.
    fn convert_tokens_to_string(&self, py: Python<'_>, tokens: Vec<String>) -> PyResult<String> {
        py.detach(|| self.inner.convert_tokens_to_string(tokens)).map_err(|e| tokenizer_error(&e))
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

    /// The tokens with a role that are in the vocabulary, by transformers' names of the roles.
    #[getter]
    fn special_tokens(&self) -> Vec<(&str, &str)> {
        self.inner.special_tokens()
    }

    /// Further special tokens that the model's files list.
    #[getter]
    fn additional_special_tokens(&self) -> Vec<&str> {
        self.inner.additional_special_tokens()
    }

    /// The most tokens of a sequence, if the model's files say so.
    #[getter]
    fn model_max_length(&self) -> Option<u64> {
        self.inner.settings().model_max_length
    }

    /// Where shorter sequences are filled up: `left` or `right`.
    #[getter]
    fn padding_side(&self) -> &'static str {
        self.inner.settings().padding_side.name()
    }

    /// Where longer sequences are cut: `left` or `right`.
    #[getter]
    fn truncation_side(&self) -> &'static str {
        self.inner.settings().truncation_side.name()
    }

    /// Whether decoded text loses spaces before punctuation.
    #[getter]
    fn clean_up_tokenization_spaces(&self) -> bool {
        self.inner.settings().clean_up_tokenization_spaces
    }

    /// What encoding returns unless it is told.
    #[getter]
    fn model_input_names(&self) -> Vec<String> {
        self.inner.settings().model_input_names.clone()
    }

    /// Whether the model is byte-pair encoding.
    #[getter]
    fn is_bpe(&self) -> bool {
        self.inner.is_bpe()
    }

    /// The model's chat template.
    #[getter]
    fn chat_template(&self) -> Option<&str> {
        self.inner.chat_template()
    }
}

fn truncation(max_length: usize, cut: &str, side: &str) -> PyResult<Truncation> {
    let cut = match cut {
        "longest_first" => Some(Cut::LongestFirst),
        "only_first" => Some(Cut::OnlyFirst),
        "only_second" => Some(Cut::OnlySecond),
        _ => None,
    };
    let refuse = || PyValueError::new_err("truncation is none that there is");
    Ok(Truncation { max_length, cut: cut.ok_or_else(refuse)?, side: Side::named(side).ok_or_else(refuse)? })
}

/// Python wrote this JSON; only NaN and infinity, which JSON does not have, can be wrong with it.
fn parse<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|e| PyValueError::new_err(format!("{what} is not JSON: {e}")))
}
