//! The names of the decoder's tensors in a model of text, images and sound.

use std::collections::HashMap;

/// What the names of other parts begin with, after an optional `model.`: towers for images and sound, and what brings
/// their outputs to the width of the decoder.
const OTHER_PARTS: [&str; 6] =
    ["vision_tower.", "vision_model.", "audio_tower.", "multi_modal_projector.", "embed_vision.", "embed_audio."];

/// The tensors of a model of several parts: the decoder's by the names that they have in a model of text alone.
#[derive(Debug, Default)]
pub(super) struct TextNames {
    /// The decoder's names, in the order of the files.
    names: Vec<String>,
    /// The stored name of each.
    stored: HashMap<String, String>,
    /// How many tensors belong to other parts.
    pub(super) skipped: usize,
}

impl TextNames {
    /// Sorts the names that files have. One that is neither the decoder's nor known as another part's keeps its name.
    pub(super) fn new<'a>(stored: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for stored in stored {
            match decoder_name(stored) {
                Some(name) => {
                    found.stored.insert(name.clone(), stored.to_owned());
                    found.names.push(name);
                }
                None => found.skipped += 1,
            }
        }
        found
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The stored name of the decoder's tensor `name`.
    pub(super) fn stored(&self, name: &str) -> Option<&str> {
        self.stored.get(name).map(String::as_str)
    }
}

/// The name that a stored tensor has in a model of text alone; `None` for one of another part.
fn decoder_name(stored: &str) -> Option<String> {
    let inner = stored.strip_prefix("model.").unwrap_or(stored);
    match inner.strip_prefix("language_model.") {
        // Transformers writes `language_model.model.layers`, and inside of the class it is `model.language_model.layers`.
        Some(name) if name.starts_with("model.") || name.starts_with("lm_head.") => Some(name.to_owned()),
        Some(name) => Some(format!("model.{name}")),
        None if OTHER_PARTS.iter().any(|part| inner.starts_with(part)) => None,
        None => Some(stored.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_have_the_names_of_models_of_text_alone() {
        let stored = [
            "language_model.model.embed_tokens.weight",
            "model.language_model.layers.3.mlp.up_proj.weight",
            "language_model.lm_head.weight",
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias",
            "model.multi_modal_projector.mm_soft_emb_norm.weight",
            "model.layers.0.unheard_of",
        ];
        let names = TextNames::new(stored.into_iter());
        assert_eq!(names.skipped, 2);
        let expected = [
            "model.embed_tokens.weight",
            "model.layers.3.mlp.up_proj.weight",
            "lm_head.weight",
            "model.layers.0.unheard_of",
        ];
        assert_eq!(names.names(), expected);
        assert_eq!(names.stored("model.layers.3.mlp.up_proj.weight"), Some(stored[1]));
        assert_eq!(names.stored("vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"), None);
    }
}
