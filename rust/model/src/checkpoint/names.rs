//! How a checkpoint's tensors are called here, and which stored tensor each is, or is a part of.

use std::collections::HashMap;

/// A module of each layer that a family stores as one, and the modules that decoders know, of equal rows, in its order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FusedModule {
    pub(crate) stored: &'static str,
    pub(crate) parts: &'static [&'static str],
}

/// The experts of each layer in files that have those of a layer in one tensor, `[experts, rows, cols]`, which is called by a
/// module, alone or with `.weight`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StackedExperts {
    /// How many a layer has.
    pub(crate) count: usize,
    /// The modules, and their parts, of equal rows, in their order: what decoders know as `mlp.experts.EXPERT.PART.weight`.
    pub(crate) modules: &'static [FusedModule],
}

/// What the names of other parts than the decoder begin with, after an optional `model.`: towers for images and sound,
/// and what brings their outputs to the width of the decoder.
const OTHER_PARTS: [&str; 8] = [
    "vision_tower.",
    "vision_model.",
    "vision_embedder.",
    "audio_tower.",
    "multi_modal_projector.",
    "embed_vision.",
    "embed_audio.",
    "image_newline",
];

/// Where a tensor lies: in the one that is stored under this name, as part `part` of `parts` equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stored: String,
    pub(super) part: usize,
    pub(super) parts: usize,
}

/// The tensors of a decoder by name.
#[derive(Debug, Default)]
pub(super) struct TensorNames {
    /// In the order of the files.
    names: Vec<String>,
    places: HashMap<String, Place>,
    /// How many tensors belong to other parts of the model.
    pub(super) skipped: usize,
}

impl TensorNames {
    /// Sorts the names that files have, given with how many matrices of some size each tensor stacks. `has_other_parts` says
    /// whether they are those of a model of text, images and sound; one that is neither the decoder's nor known as another part's
    /// keeps its name.
    pub(super) fn new<'a>(
        stored: impl Iterator<Item = (&'a str, usize)>,
        has_other_parts: bool,
        fused: &[FusedModule],
        experts: Option<StackedExperts>,
    ) -> Self {
        let mut found = Self::default();
        for (stored, stacked) in stored {
            let name = if has_other_parts { decoder_name(stored) } else { Some(stored.to_owned()) };
            let Some(name) = name else {
                found.skipped += 1;
                continue;
            };
            let parts = parts(&name, fused)
                .or_else(|| expert_parts(&name, experts.filter(|experts| experts.count == stacked)?))
                .unwrap_or_else(|| vec![name]);
            // Two spellings of one name: the second keeps its own, by which it is refused as nobody's.
            let is_taken = parts.iter().any(|name| found.places.contains_key(name));
            let parts = if is_taken {
                let mut own = stored.to_owned();
                while found.places.contains_key(&own) {
                    own.push_str(", again");
                }
                vec![own]
            } else {
                parts
            };
            for (part, name) in parts.iter().enumerate() {
                let place = Place { stored: stored.to_owned(), part, parts: parts.len() };
                found.places.insert(name.clone(), place);
            }
            found.names.extend(parts);
        }
        found
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
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

/// The names of the tensors that `name` is made of, if it is a fused module's.
fn parts(name: &str, fused: &[FusedModule]) -> Option<Vec<String>> {
    let (path, kind) = name.rsplit_once('.')?;
    let found = fused.iter().find_map(|module| Some((path.strip_suffix(module.stored)?, module.parts)));
    let (layer, parts) = found.filter(|(layer, _)| layer.ends_with('.'))?;
    Some(parts.iter().map(|part| format!("{layer}{part}.{kind}")).collect())
}

/// The names of the tensors that `name` is made of, if it is that of a layer's experts.
fn expert_parts(name: &str, experts: StackedExperts) -> Option<Vec<String>> {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    let found = experts.modules.iter().find_map(|module| Some((name.strip_suffix(module.stored)?, module)));
    let (layer, module) = found.filter(|(layer, _)| layer.ends_with('.'))?;
    let parts = |expert| module.parts.iter().map(move |part| format!("{layer}mlp.experts.{expert}.{part}.weight"));
    Some((0..experts.count).flat_map(parts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of tensors that stack two matrices.
    fn sized<'a>(names: &'a [&'a str]) -> impl Iterator<Item = (&'a str, usize)> {
        names.iter().map(|name| (*name, 2))
    }

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
        let names = TensorNames::new(sized(&stored), true, &[], None);
        assert_eq!(names.skipped, 2);
        let expected = [
            "model.embed_tokens.weight",
            "model.layers.3.mlp.up_proj.weight",
            "lm_head.weight",
            "model.layers.0.unheard_of",
        ];
        assert_eq!(names.names(), expected);
        let place = Place { stored: stored[1].to_owned(), part: 0, parts: 1 };
        assert_eq!(names.place("model.layers.3.mlp.up_proj.weight"), Some(&place));
        assert_eq!(names.place(stored[3]), None);
        assert_eq!(TensorNames::new(sized(&stored), false, &[], None).names(), stored);
        let twice = ["model.norm.weight", "language_model.model.norm.weight"];
        assert_eq!(TensorNames::new(sized(&twice), true, &[], None).names(), twice, "none hides another");
        let twice = [twice[1], twice[0]];
        let names = TensorNames::new(sized(&twice), true, &[], None);
        assert_eq!(names.names(), [twice[1], "model.norm.weight, again"], "in either order");
        assert_eq!(names.place(twice[1]).map(|place| place.stored.as_str()), Some(twice[0]));
    }

    #[test]
    fn fused_modules_are_several() {
        let fused = [FusedModule { stored: "shared_mlp.input_linear", parts: &["mlp.gate_proj", "mlp.up_proj"] }];
        let stored =
            ["model.layers.7.shared_mlp.input_linear.weight", "model.layers.7.unshared_mlp.input_linear.weight"];
        let names = TensorNames::new(sized(&stored), false, &fused, None);
        let expected = ["model.layers.7.mlp.gate_proj.weight", "model.layers.7.mlp.up_proj.weight", stored[1]];
        assert_eq!(names.names(), expected);
        assert_eq!(names.place(expected[1]), Some(&Place { stored: stored[0].to_owned(), part: 1, parts: 2 }));
    }

    #[test]
    fn stacked_experts_are_each_ones_own() {
        const MODULES: &[FusedModule] = &[
            FusedModule { stored: "mlp.experts.gate_up_proj", parts: &["gate_proj", "up_proj"] },
            FusedModule { stored: "mlp.experts.down_proj", parts: &["down_proj"] },
        ];
        let stored = ["model.layers.3.mlp.experts.gate_up_proj", "model.layers.3.mlp.experts.down_proj"];
        let experts = StackedExperts { count: 2, modules: MODULES };
        let names = TensorNames::new(sized(&stored), false, &[], Some(experts));
        let expected = ["0.gate_proj", "0.up_proj", "1.gate_proj", "1.up_proj", "0.down_proj", "1.down_proj"]
            .map(|part| format!("model.layers.3.mlp.experts.{part}.weight"));
        assert_eq!(names.names(), expected);
        let place = Place { stored: stored[0].to_owned(), part: 2, parts: 4 };
        assert_eq!(names.place("model.layers.3.mlp.experts.1.gate_proj.weight"), Some(&place));
        let many = StackedExperts { count: 65, modules: MODULES };
        assert_eq!(TensorNames::new(sized(&stored), false, &[], Some(many)).names(), stored, "another number");
    }
}
