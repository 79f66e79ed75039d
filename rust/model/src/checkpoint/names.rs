//! How a checkpoint's tensors are called here, and which stored tensor each is, or is a part of.

use std::collections::{HashMap, HashSet};

use crate::checkpoint::place::{BLOCKS, Layout, Place, SCALES};

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
    /// Whether rows of the parts take turns and inputs come before outputs, as in gpt-oss, which has biases and blocks of
    /// MXFP4 under names of their own: `_bias`, `_blocks` and `_scales` after the module.
    pub(crate) in_turns: bool,
}

/// A tensor as files list it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) name: &'a str,
    /// Outermost first.
    pub(super) shape: &'a [usize],
    pub(super) bytes: usize,
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
    /// Sorts the names that files have. `has_other_parts` says whether they are those of a model of text, images and sound; one
    /// that is neither the decoder's nor known as another part's keeps its name.
    pub(super) fn new<'a>(
        stored: impl Iterator<Item = Listed<'a>>,
        has_other_parts: bool,
        fused: &[FusedModule],
        experts: Option<StackedExperts>,
    ) -> Self {
        let mut found = Self::default();
        let mut scales = Vec::new();
        for listed in stored {
            let stored = listed.name;
            let name = if has_other_parts { decoder_name(stored) } else { Some(stored.to_owned()) };
            let Some(name) = name else {
                found.skipped += 1;
                continue;
            };
            if let (Some(StackedExperts { in_turns: true, .. }), Some(module)) = (experts, stored.strip_suffix(SCALES))
            {
                scales.push((format!("{module}{BLOCKS}"), stored));
                continue;
            }
            let (parts, layout) = parts(&name, fused)
                .map(|parts| (parts, Layout::InOrder))
                .or_else(|| expert_parts(&name, listed, experts?))
                .unwrap_or_else(|| (vec![name], Layout::InOrder));
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
                let place = Place { stored: stored.to_owned(), part, parts: parts.len(), layout };
                found.places.insert(name.clone(), place);
            }
            found.names.extend(parts);
        }
        let in_blocks = |place: &Place| matches!(place.layout, Layout::Blocks { .. }).then(|| place.stored.clone());
        let blocks: HashSet<String> = found.places.values().filter_map(in_blocks).collect();
        // Exponents of no blocks are nobody's.
        let alone = scales.into_iter().filter(|(module, _)| !blocks.contains(module));
        found.names.extend(alone.map(|(_, scales)| scales.to_owned()));
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

/// The names of the tensors that `name` is made of, if it is that of a layer's experts, and how they lie in it.
fn expert_parts(name: &str, listed: Listed<'_>, experts: StackedExperts) -> Option<(Vec<String>, Layout)> {
    let find = |name: &str| {
        let found = experts.modules.iter().find_map(|module| Some((name.strip_suffix(module.stored)?, module.parts)));
        found.filter(|(layer, _)| layer.ends_with('.')).map(|(layer, parts)| (layer.to_owned(), parts))
    };
    let ends = |end: &str| name.strip_suffix(end).and_then(find);
    let ((layer, parts), kind, layout) = if !experts.in_turns {
        let found = ends(".weight").or_else(|| find(name))?;
        (matches!(listed.shape, [_, _, _])).then_some((found, "weight", Layout::InOrder))?
    } else if let Some(found) = ends("_bias") {
        let each = found.1.len();
        (matches!(listed.shape, [_, values] if values.is_multiple_of(each))).then_some((
            found,
            "bias",
            Layout::Values { each },
        ))?
    } else if let Some(found) = ends(BLOCKS) {
        let each = found.1.len();
        (matches!(listed.shape, [_, rows, _, 16] if rows.is_multiple_of(each))).then_some((
            found,
            "weight",
            Layout::Blocks { each },
        ))?
    } else {
        let found = find(name)?;
        let each = found.1.len();
        (matches!(listed.shape, [_, _, cols] if cols.is_multiple_of(each))).then_some((
            found,
            "weight",
            Layout::Columns { each },
        ))?
    };
    // A file must not name many tensors in little room.
    let least = if kind == "bias" { 16 } else { 64 };
    if listed.shape.first() != Some(&experts.count) || experts.count > listed.bytes / least {
        return None;
    }
    let of = |expert| parts.iter().map(move |part| (expert, part));
    let names = (0..experts.count).flat_map(of);
    Some((names.map(|(expert, part)| format!("{layer}mlp.experts.{expert}.{part}.{kind}")).collect(), layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tensors that stack two matrices.
    fn sized<'a>(names: &'a [&'a str]) -> impl Iterator<Item = Listed<'a>> {
        names.iter().map(|name| Listed { name, shape: &[2, 8, 8], bytes: 256 })
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
        let place = Place { stored: stored[1].to_owned(), part: 0, parts: 1, layout: Layout::InOrder };
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
        assert_eq!(
            names.place(expected[1]),
            Some(&Place { stored: stored[0].to_owned(), part: 1, parts: 2, layout: Layout::InOrder })
        );
    }

    #[test]
    fn stacked_experts_are_each_ones_own() {
        const MODULES: &[FusedModule] = &[
            FusedModule { stored: "mlp.experts.gate_up_proj", parts: &["gate_proj", "up_proj"] },
            FusedModule { stored: "mlp.experts.down_proj", parts: &["down_proj"] },
        ];
        let stored = ["model.layers.3.mlp.experts.gate_up_proj", "model.layers.3.mlp.experts.down_proj"];
        let experts = StackedExperts { count: 2, modules: MODULES, in_turns: false };
        let names = TensorNames::new(sized(&stored), false, &[], Some(experts));
        let expected = ["0.gate_proj", "0.up_proj", "1.gate_proj", "1.up_proj", "0.down_proj", "1.down_proj"]
            .map(|part| format!("model.layers.3.mlp.experts.{part}.weight"));
        assert_eq!(names.names(), expected);
        let place = Place { stored: stored[0].to_owned(), part: 2, parts: 4, layout: Layout::InOrder };
        assert_eq!(names.place("model.layers.3.mlp.experts.1.gate_proj.weight"), Some(&place));
        let many = StackedExperts { count: 65, modules: MODULES, in_turns: false };
        assert_eq!(TensorNames::new(sized(&stored), false, &[], Some(many)).names(), stored, "another number");
    }
    #[test]
    fn experts_in_turns_have_names_of_their_own() {
        const MODULES: &[FusedModule] =
            &[FusedModule { stored: "experts.gate_up_proj", parts: &["gate_proj", "up_proj"] }];
        let experts = StackedExperts { count: 2, modules: MODULES, in_turns: true };
        let names = |listed: &[(&str, &[usize])]| {
            let listed = listed.iter().map(|&(name, shape)| Listed { name, shape, bytes: 1024 });
            TensorNames::new(listed, false, &[], Some(experts))
        };
        let of = |kind: &str| {
            ["0.gate_proj", "0.up_proj", "1.gate_proj", "1.up_proj"].map(|part| format!("l.mlp.experts.{part}.{kind}"))
        };
        let quantised = names(&[
            ("l.experts.gate_up_proj_scales", &[2, 8, 1]),
            ("l.experts.gate_up_proj_blocks", &[2, 8, 1, 16]),
            ("l.experts.gate_up_proj_bias", &[2, 8]),
        ]);
        assert_eq!(quantised.names(), [of("weight"), of("bias")].concat());
        let layout = |name: &str| quantised.place(name).map(|place| (place.part, place.layout));
        assert_eq!(layout("l.mlp.experts.1.gate_proj.weight"), Some((2, Layout::Blocks { each: 2 })));
        assert_eq!(layout("l.mlp.experts.0.up_proj.bias"), Some((1, Layout::Values { each: 2 })));
        let dense = names(&[("l.experts.gate_up_proj", &[2, 4, 8])]);
        assert_eq!(dense.names(), of("weight"));
        // What fits nothing keeps its name, by which it is refused.
        for odd in [
            ("l.experts.gate_up_proj_scales", &[2, 8, 1][..]),
            ("l.experts.gate_up_proj_blocks", &[2, 8, 1, 15]),
            ("l.experts.gate_up_proj_blocks", &[2, 7, 1, 16]),
            ("l.experts.gate_up_proj_bias", &[3, 8]),
            ("l.experts.gate_up_proj", &[2, 4, 7]),
        ] {
            assert_eq!(names(&[odd]).names(), [odd.0]);
        }
    }
}
