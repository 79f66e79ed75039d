//! A model's configuration as a whole: what every decoder has, and what its family adds.

use nanovllm_backend::LayerCache;
use nanovllm_gguf::{GgufFile, Value as GgufValue};
use serde_json::{Value, json};

use crate::config::gguf::Keys;
use crate::config::json::{self, Object};
use crate::config::{BaseConfig, RopeConfig, wrapper};
use crate::error::Result;
use crate::models::registry::{self, Family};

/// How many unknown settings a note names.
const MAX_SHOWN: usize = 20;

/// A model's configuration: what nearly every decoder has, and what its family alone knows.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The hyperparameters of nearly every decoder.
    pub base: BaseConfig,
    /// The family, with the hyperparameters of its own.
    pub family: Family,
    /// config.json as it is, or its equivalent made from GGUF metadata.
    pub raw: Value,
    /// Whether the model has parts for images or sound too, of which nothing is known here.
    pub has_other_parts: bool,
    /// The settings in the model's files that nobody here knows, by name: they change nothing.
    pub unknown: Vec<String>,
}

impl ModelConfig {
    /// Reads the contents of config.json.
    ///
    /// # Errors
    /// [`LoadError::UnsupportedArchitecture`](crate::LoadError::UnsupportedArchitecture), [`LoadError::Unsupported`](crate::LoadError::Unsupported), and [`LoadError::Config`](crate::LoadError::Config) naming the key.
    pub fn from_json(raw: Value) -> Result<Self> {
        let text = wrapper::text_config(Object(&raw))?;
        let decoder = text.as_ref().unwrap_or(&raw);
        let row = registry::by_hugging_face_name(json::architecture(Object(decoder))?)?;
        let with_defaults = json::with_defaults(decoder, (row.json_defaults)(Object(decoder)));
        let json = Object(&with_defaults);
        json::check_quantization(json, (row.quant_methods)())?;
        let mut base = BaseConfig::from_json(json)?;
        let family = (row.from_json)(json, &mut base)?;
        base.check()?;
        let mut unknown = json::check_settings(json, (row.json_settings)())?;
        let has_other_parts = text.is_some();
        if has_other_parts {
            unknown.extend(wrapper::check_settings(Object(&raw))?);
        }
        Ok(Self { base, family, raw, has_other_parts, unknown })
    }

    /// Reads the metadata of a GGUF file; what it does not say (tied embeddings, biases) follows from its tensors.
    ///
    /// # Errors
    /// [`LoadError::UnsupportedArchitecture`](crate::LoadError::UnsupportedArchitecture), [`LoadError::Unsupported`](crate::LoadError::Unsupported), [`LoadError::Config`](crate::LoadError::Config), and
    /// [`LoadError::Gguf`](crate::LoadError::Gguf) naming the key.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let name = file.metadata().str("general.architecture")?;
        let row = registry::by_gguf_name(name)?;
        let keys = Keys::new(file, name);
        let mut base = BaseConfig::from_gguf(&keys)?;
        let family = (row.from_gguf)(&keys, &mut base)?;
        base.check()?;
        let unknown = keys.check_settings((row.gguf_settings)())?;
        let mut config = Self { base, family, raw: Value::Null, has_other_parts: false, unknown };
        config.raw = config.to_json();
        Ok(config)
    }

    /// What config.json would say of this model, but for a rotary scaling.
    pub fn to_json(&self) -> Value {
        let names = self.family.row().hugging_face;
        let mut json = json!({ "architectures": [names.class], "model_type": names.model_type });
        for (key, value) in self.base.to_json().into_iter().chain(self.family.config().to_json()) {
            json[key] = value;
        }
        json
    }

    /// The metadata of a GGUF file of this model, but for its name, its tokenizer and how it is quantised.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`](crate::LoadError::Unsupported) for what GGUF has no key for; [`LoadError::Config`](crate::LoadError::Config) for a number that does not fit 32
    /// bits.
    pub fn to_gguf(&self) -> Result<Vec<(String, GgufValue)>> {
        self.family.config().to_gguf(&self.base, self.family.row().gguf)
    }

    /// What a user should know of how the configuration was read, a line each.
    pub fn notes(&self) -> Vec<String> {
        if self.unknown.is_empty() {
            return Vec::new();
        }
        let shown = self.unknown.iter().take(MAX_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match self.unknown.len().saturating_sub(MAX_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        vec![format!("settings that are not known here and change nothing: {shown}{more}")]
    }

    /// What each layer keeps of the tokens it has seen, in the layers' order.
    pub fn cache_layers(&self) -> Vec<LayerCache> {
        self.family.config().cache_layers(&self.base)
    }

    /// How many experts a layer with experts has, and how many of them a token goes through; `None` in a model without.
    pub fn experts(&self) -> Option<(usize, usize)> {
        self.family.config().experts().map(|experts| (experts.num_experts, experts.experts_per_row))
    }

    /// The kinds of rotary embedding the layers have, [`BaseConfig::rope`] first.
    pub fn ropes(&self) -> Vec<&RopeConfig> {
        self.family.config().ropes(&self.base)
    }
}
