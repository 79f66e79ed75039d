//! Models of text, images and sound: config.json then describes the decoder of text in an object of its own.

use serde_json::Value;

use crate::config::json::{COMMON, Object};
use crate::config::settings::{Group, Settings, Treatment};
use crate::error::{LoadError, Result};

/// The object that describes the decoder.
const TEXT: &str = "text_config";

/// The settings that stand beside it. They are those of the other parts, which are not loaded, and ids of tokens that
/// stand for their inputs.
const BESIDE: &[Group] = &[
    (Treatment::Read, &[TEXT]),
    (
        Treatment::Harmless,
        &[
            "vision_config",
            "audio_config",
            "image_token_id",
            "image_token_index",
            "video_token_id",
            "video_token_index",
            "audio_token_id",
            "boi_token_id",
            "boi_token_index",
            "eoi_token_id",
            "eoi_token_index",
            "boa_token_id",
            "boa_token_index",
            "eoa_token_id",
            "eoa_token_index",
            "mm_tokens_per_image",
            "vision_soft_tokens_per_image",
            "image_seq_length",
            "vision_feature_layer",
            "vision_feature_select_strategy",
            "projector_hidden_act",
            "multimodal_projector_bias",
            "spatial_merge_size",
        ],
    ),
];

/// The decoder's own config.json, if the model is one of several parts.
///
/// # Errors
/// [`LoadError::Config`] where the decoder's type is missing.
pub(crate) fn text_config(json: Object<'_>) -> Result<Option<Value>> {
    let Some(text) = json.object(TEXT)? else { return Ok(None) };
    let mut value = text.0.clone();
    if let Some(object) = value.as_object_mut() {
        // The class is that of the whole model, or none that is in the registry.
        object.remove("architectures");
        if !object.get("model_type").is_some_and(Value::is_string) {
            return Err(LoadError::Config(format!("{TEXT}.model_type is missing")));
        }
        for key in ["tie_word_embeddings", "quantization_config"] {
            if let Some(outer) = json.get(key) {
                object.insert(key.to_owned(), outer.clone());
            }
        }
    }
    Ok(Some(value))
}

/// Refuses what stands beside the decoder's object and there is no code for, and gives the names that nobody knows.
pub(crate) fn check_settings(json: Object<'_>) -> Result<Vec<String>> {
    Settings(&[BESIDE, COMMON]).check(json.pairs(), "")
}
