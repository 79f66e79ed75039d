//! Sliding windows: how many of the newest positions each layer of a model sees.

use nanovllm_gguf::{Array, Value as GgufValue};
use serde_json::Value;

use crate::config::base::BaseConfig;
use crate::config::gguf::{self, Keys};
use crate::config::json::Object;
use crate::error::{LoadError, Result};

/// What config.json calls a layer with a window, and one without.
const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

/// GGUF's keys of the window, and of the layers that have it.
const WINDOW: &str = "attention.sliding_window";
const PATTERN: &str = "attention.sliding_window_pattern";

/// For each layer the number of positions that a row sees at most, its own included; `None` for all up to its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Windows(Vec<Option<usize>>);

impl Windows {
    /// The layers for which `slides` holds see `window` positions, if that is a number; the others see all.
    ///
    /// # Errors
    /// [`LoadError::Config`] for a window of no positions, and where `base` is what no model can be.
    pub(crate) fn new(base: &BaseConfig, window: Option<usize>, slides: impl Fn(usize) -> bool) -> Result<Self> {
        base.check()?; // a number of layers that no model has must not make a long list
        if window == Some(0) {
            return Err(LoadError::Config("sliding_window must be at least 1, got 0".to_owned()));
        }
        Ok(Self((0..base.num_hidden_layers).map(|layer| window.filter(|_| slides(layer))).collect()))
    }

    /// The same, but config.json's `layer_types` say which layers slide, where it has them.
    ///
    /// # Errors
    /// Those of [`new`](Self::new); [`LoadError::Config`] where there is not a type for each layer, or a layer slides
    /// without a `sliding_window`; [`LoadError::Unsupported`] for a type there is no code for.
    pub(crate) fn from_json(
        json: Object<'_>,
        base: &BaseConfig,
        window: Option<usize>,
        slides: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let Some(kinds) = Self::kinds(json, base)? else { return Self::new(base, window, slides) };
        if window.is_none() && kinds.contains(&true) {
            return Err(LoadError::Config(
                "layer_types has sliding_attention, but sliding_window is missing".to_owned(),
            ));
        }
        Self::new(base, window, |layer| kinds[layer])
    }

    /// The same of GGUF metadata, which say which layers slide by a list, or by one layer of so many that does not: of
    /// `pattern`, where they say nothing.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`LoadError::Config`] for a list of another length than there are layers.
    pub(crate) fn from_gguf(keys: &Keys<'_>, base: &BaseConfig, pattern: usize) -> Result<Self> {
        let window = keys.opt(WINDOW)?.filter(|&window| window > 0);
        match keys.bools(PATTERN) {
            Some(slides) if slides.len() == base.num_hidden_layers => Self::new(base, window, |layer| slides[layer]),
            Some(slides) => {
                let (key, got, layers) = (keys.name(PATTERN), slides.len(), base.num_hidden_layers);
                Err(LoadError::Config(format!("{key} has {got} entries for {layers} layers")))
            }
            None => Self::new(base, window, Self::by_pattern(keys.opt(PATTERN)?.unwrap_or(pattern))),
        }
    }

    /// The GGUF metadata of a family whose readers take one layer of `pattern` not to slide, for keys that begin with `name`.
    ///
    /// # Errors
    /// [`LoadError::Config`] for a window that does not fit 32 bits.
    pub(crate) fn to_gguf(&self, base: &BaseConfig, name: &str, pattern: usize) -> Result<Vec<(String, GgufValue)>> {
        let mut pairs = vec![gguf::number(name, WINDOW, self.size().unwrap_or(0))?];
        let usual = Self::by_pattern(pattern);
        if (0..base.num_hidden_layers).any(|layer| self.of(layer).is_some() != usual(layer)) {
            pairs.push((format!("{name}.{PATTERN}"), self.listed()));
        }
        Ok(pairs)
    }

    /// The window of a layer.
    pub(crate) fn of(&self, layer: usize) -> Option<usize> {
        self.0[layer]
    }

    /// Which layers slide, as config.json's `layer_types` say.
    ///
    /// # Errors
    /// [`LoadError::Config`] where there is not a type for each layer; [`LoadError::Unsupported`] for one there is no code
    /// for.
    pub(crate) fn kinds(json: Object<'_>, base: &BaseConfig) -> Result<Option<Vec<bool>>> {
        let Some(types) = json.list("layer_types")? else { return Ok(None) };
        if types.len() != base.num_hidden_layers {
            let (got, expected) = (types.len(), base.num_hidden_layers);
            return Err(LoadError::Config(format!("layer_types has {got} entries for {expected} layers")));
        }
        types.iter().map(kind).collect::<Result<_>>().map(Some)
    }

    /// Which layers slide: those whose number, counted from 1, is no multiple of `pattern`. A pattern of 1 makes none
    /// slide, and one of 0 all.
    pub(crate) fn by_pattern(pattern: usize) -> impl Fn(usize) -> bool {
        move |layer| !(layer + 1).is_multiple_of(pattern)
    }

    /// The window, where all that slide have the same.
    pub(crate) fn size(&self) -> Option<usize> {
        self.0.iter().flatten().next().copied()
    }

    /// The `layer_types` of config.json.
    pub(crate) fn to_json(&self) -> Value {
        let kind = |window: &Option<usize>| if window.is_some() { SLIDING } else { FULL };
        self.0.iter().map(kind).collect()
    }

    /// Which layers slide, as GGUF lists them.
    pub(crate) fn listed(&self) -> GgufValue {
        GgufValue::Array(Array::Bool(self.0.iter().map(Option::is_some).collect()))
    }

    /// Refuses windows that hide anything from a sequence as long as the model allows, for a file that cannot say them.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`].
    pub(crate) fn check_none_in_gguf(&self, base: &BaseConfig, architecture: &str) -> Result<()> {
        match self.0.iter().flatten().find(|&&window| window < base.max_position_embeddings) {
            None => Ok(()),
            Some(window) => Err(LoadError::Unsupported(format!(
                "sliding_window of {window}: GGUF has no key for the windows of the architecture {architecture:?}"
            ))),
        }
    }
}

/// Whether a layer of this type slides.
fn kind(value: &Value) -> Result<bool> {
    match value.as_str() {
        Some(SLIDING) => Ok(true),
        Some(FULL) => Ok(false),
        _ => Err(LoadError::Unsupported(format!(
            "layer_types has {value}; supported: \"full_attention\", \"sliding_attention\""
        ))),
    }
}
