//! The rotary embedding in config.json, as transformers 4 and 5 write it.

use serde_json::Value;

use crate::config::json::object::{Object, missing};
use crate::config::rope::{RopeConfig, RopeScaling};
use crate::error::{LoadError, Result};

impl RopeConfig {
    /// Reads what config.json says of rotary embeddings: `rope_parameters`, or `rope_theta` beside `rope_scaling`; and
    /// `max_position_embeddings` where a scaling does not say what the model was trained on.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] for a scaling there is no code for, and [`LoadError::Config`] naming the key.
    pub fn from_json(raw: &Value) -> Result<Self> {
        check_whole_heads(Object(raw))?;
        rope(Object(raw))
    }
}

/// The object in which config.json describes rotary embeddings, if it has one, with its name. Where there are two, the
/// one of transformers 5 is read, and the other may say nothing else.
pub(crate) fn rope_object(json: Object<'_>) -> Result<Option<(&'static str, Object<'_>)>> {
    let (new, old) = (json.object("rope_parameters")?, json.object("rope_scaling")?);
    if let (Some(new), Some(old)) = (new, old)
        && let Some((key, _)) =
            old.0.as_object().into_iter().flatten().find(|(key, value)| new.0.get(key) != Some(value))
    {
        let reason = format!("rope_parameters and rope_scaling do not agree: they differ in {key:?}");
        return Err(LoadError::Config(reason));
    }
    Ok(new.map(|new| ("rope_parameters", new)).or(old.map(|old| ("rope_scaling", old))))
}

/// The kind of scaling that such an object describes.
pub(super) fn rope_kind(rope: Object<'_>) -> Result<&str> {
    match rope.str("rope_type")? {
        Some(kind) => Ok(kind),
        None => Ok(rope.str("type")?.unwrap_or("default")),
    }
}

/// Refuses heads that are rotated in part.
pub(crate) fn check_whole_heads(json: Object<'_>) -> Result<()> {
    let rope = rope_object(json)?.map(|(_, rope)| rope);
    for object in [Some(json), rope].into_iter().flatten() {
        if let Some(factor) = object.f64("partial_rotary_factor")?.filter(|&factor| factor != 1.0) {
            return Err(LoadError::Unsupported(format!("partial_rotary_factor {factor}: heads rotated in part")));
        }
    }
    Ok(())
}

/// Reads the rotary embedding: transformers 4 writes `rope_theta` and `rope_scaling` side by side, transformers 5 both
/// under `rope_parameters`.
pub(super) fn rope(json: Object<'_>) -> Result<RopeConfig> {
    let theta = json.f64("rope_theta")?.unwrap_or(10000.0);
    match rope_object(json)? {
        Some((name, rope)) => rope_of(json, name, rope, theta),
        None => Ok(RopeConfig { theta, scaling: RopeScaling::None, dims: None }),
    }
}

/// The description of the rotary embedding of layers of one kind, such as `sliding_attention`, in a config.json that has
/// one for each.
pub(crate) fn rope_of_kind<'a>(json: Object<'a>, kind: &str) -> Result<Option<Object<'a>>> {
    Ok(json.object("rope_parameters")?.map(|rope| rope.object(kind)).transpose()?.flatten())
}

/// Reads such a description, `rope`, which config.json calls `name`; `theta` is its base where it does not say.
pub(crate) fn rope_of(json: Object<'_>, name: &str, rope: Object<'_>, theta: f64) -> Result<RopeConfig> {
    let number = |key: &str| rope.f64(key)?.ok_or_else(|| missing(&format!("{name}.{key}")));
    let original = || -> Result<usize> {
        // As in transformers the one outside counts, which Phi-3 has.
        for object in [json, rope] {
            if let Some(n) = object.opt_usize("original_max_position_embeddings")? {
                return Ok(n);
            }
        }
        json.usize("max_position_embeddings")
    };
    // One for a kind of layers says by itself how much of heads turns.
    if rope_kind(rope)? != "default"
        && name.contains('.')
        && let Some(factor) = rope.f64("partial_rotary_factor")?.filter(|&factor| factor != 1.0)
    {
        let reason = format!("{name}.partial_rotary_factor {factor}: heads rotated in part");
        return Err(LoadError::Unsupported(reason));
    }
    let scaling = match rope_kind(rope)? {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: number("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position: original()?,
        },
        // Early files of Phi-3 call it so.
        "longrope" | "su" => long_rope(json, name, rope, original()?)?,
        "yarn" if rope.has("short_factor") => long_rope(json, name, rope, original()?)?,
        "yarn" => RopeScaling::Yarn {
            factor: number("factor")?,
            original_max_position: original()?,
            beta_fast: rope.f64("beta_fast")?.unwrap_or(32.0),
            beta_slow: rope.f64("beta_slow")?.unwrap_or(1.0),
            truncate: rope.bool("truncate", true)?,
            attention_factor: yarn_attention_factor(rope, number("factor")?)?,
        },
        other => {
            return Err(LoadError::Unsupported(format!(
                "rope scaling {other:?}; supported: default, linear, llama3, longrope, yarn"
            )));
        }
    };
    Ok(RopeConfig { theta: rope.f64("rope_theta")?.unwrap_or(theta), scaling, dims: None })
}

/// LongRoPE; what does not say how attention is scaled is scaled by how much longer its context became.
fn long_rope(json: Object<'_>, name: &str, rope: Object<'_>, original: usize) -> Result<RopeScaling> {
    let factors = |key: &str| -> Result<Vec<f32>> {
        let list = rope.list(key)?.ok_or_else(|| missing(&format!("{name}.{key}")))?;
        let number = |value: &Value| value.as_f64().map(|number| number as f32);
        let bad = || LoadError::Config(format!("{name}.{key} must be a list of numbers"));
        list.iter().map(|value| number(value).ok_or_else(bad)).collect()
    };
    let longer = match rope.f64("factor")? {
        Some(factor) => factor,
        None => json.usize("max_position_embeddings")? as f64 / original as f64,
    };
    let attention_factor = match rope.f64("attention_factor")? {
        Some(given) => given,
        None if longer <= 1.0 => 1.0,
        None => (1.0 + longer.ln() / (original as f64).ln()).sqrt(),
    };
    let (short, long) = (factors("short_factor")?, factors("long_factor")?);
    Ok(RopeScaling::LongRope { short, long, original_max_position: original, attention_factor })
}

/// How many of a head's dimensions are rotated, where that is not all of them.
pub(crate) fn rotated_dims(json: Object<'_>, head_dim: usize) -> Result<Option<usize>> {
    let inner = rope_object(json)?.map(|(_, rope)| rope.f64("partial_rotary_factor")).transpose()?.flatten();
    let factor = inner.map_or_else(|| json.f64("partial_rotary_factor"), |factor| Ok(Some(factor)))?;
    match factor.filter(|&factor| factor != 1.0) {
        None => Ok(None),
        Some(factor) if factor > 0.0 && factor < 1.0 => Ok(Some((head_dim as f64 * factor) as usize)),
        Some(factor) => {
            Err(LoadError::Config(format!("partial_rotary_factor must be above 0 and at most 1, got {factor}")))
        }
    }
}

/// The attention factor, given as such or (DeepSeek) as the ratio of two scales.
fn yarn_attention_factor(scaling: Object<'_>, factor: f64) -> Result<Option<f64>> {
    if let Some(given) = scaling.f64("attention_factor")? {
        return Ok(Some(given));
    }
    let scale = |m: f64| if factor > 1.0 { 0.1 * m * factor.ln() + 1.0 } else { 1.0 };
    let (mscale, all_dim) = (scaling.f64("mscale")?, scaling.f64("mscale_all_dim")?);
    Ok(mscale.zip(all_dim).filter(|&(m, a)| m != 0.0 && a != 0.0).map(|(m, a)| scale(m) / scale(a)))
}
