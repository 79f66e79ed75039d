//! A Gemma 4's GGUF metadata.

use nanovllm_backend::KvHeads;
use nanovllm_gguf::{Array, Value};

use super::Config;
use crate::config::experts::{self, ExpertsConfig};
use crate::config::gguf::{self, Keys};
use crate::config::settings::{Group, Settings, Treatment};
use crate::config::{BaseConfig, RopeConfig, RopeScaling, Windows};
use crate::error::{LoadError, Result};

const WINDOW: &str = "attention.sliding_window";
const SLIDES: &str = "attention.sliding_window_pattern";
const KV_HEADS: &str = "attention.head_count_kv";
const LOCAL_DIM: &str = "attention.key_length_swa";
const LOCAL_VALUE_DIM: &str = "attention.value_length_swa";
const LOCAL_ROTATED: &str = "rope.dimension_count_swa";
const LOCAL_THETA: &str = "rope.freq_base_swa";
const SHARED: &str = "attention.shared_kv_layers";
const MLP: &str = "feed_forward_length";
const PER_LAYER: &str = "embedding_length_per_layer_input";
const CAP: &str = "final_logit_softcapping";

const OWN: &[Group] = &[(
    Treatment::Read,
    &[WINDOW, SLIDES, LOCAL_DIM, LOCAL_VALUE_DIM, LOCAL_ROTATED, LOCAL_THETA, SHARED, PER_LAYER, CAP],
)];

pub(super) const SETTINGS: Settings = Settings(&[OWN, experts::GGUF, gguf::PLAIN]);

pub(super) fn read(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Config> {
    base.check()?; // what follows makes lists as long as there are layers
    keys.check_values(base.head_dim)?;
    keys.check_whole_heads(base.head_dim)?;
    let layers = base.num_hidden_layers;
    let slides = keys.bools(SLIDES).filter(|slides| slides.len() == layers).ok_or_else(|| {
        LoadError::Config(format!("{} must be a list of a boolean for each of {layers} layers", keys.name(SLIDES)))
    })?;
    let windows = Windows::new(base, Some(keys.usize(WINDOW)?), |layer| slides[layer])?;

    let kv_heads = keys.of_layers(KV_HEADS, layers)?.unwrap_or_else(|| vec![base.num_attention_heads; layers]);
    let local_dim = keys.usize(LOCAL_DIM)?;
    for key in [LOCAL_VALUE_DIM, LOCAL_ROTATED] {
        if let Some(value) = keys.opt(key)?.filter(|&value| value != local_dim) {
            return Err(keys.unsupported(key, format_args!("{value} beside heads of {local_dim}; they must be equal")));
        }
    }
    let of_kind = |sliding: bool| -> Result<usize> {
        let mut found = kv_heads.iter().zip(slides).filter(|(_, slides)| **slides == sliding).map(|(&heads, _)| heads);
        let first = found.next().unwrap_or(kv_heads[0]);
        match found.find(|&heads| heads != first) {
            None => Ok(first),
            Some(_) => Err(keys.unsupported(KV_HEADS, "not the same in all layers of a kind")),
        }
    };
    let local_heads = KvHeads { num_kv_heads: of_kind(true)?, head_dim: local_dim };
    base.num_key_value_heads = of_kind(false)?;

    let shared_layers = keys.opt(SHARED)?.unwrap_or(0);
    let widths = keys.of_layers(MLP, layers)?.unwrap_or_default();
    let (own, sharing) = widths.split_at(layers.saturating_sub(shared_layers));
    let double_wide = sharing.first().is_some_and(|&width| width != base.intermediate_size);
    let width = base.intermediate_size * if double_wide { 2 } else { 1 };
    if own.iter().any(|&own| own != base.intermediate_size) || sharing.iter().any(|&sharing| sharing != width) {
        return Err(keys.unsupported(MLP, "neither the same in all layers nor twice that in those that share a cache"));
    }
    let global = slides.iter().position(|slides| !slides);
    Ok(Config {
        windows,
        local_heads,
        local_rope: RopeConfig {
            theta: keys.f64(LOCAL_THETA)?.unwrap_or(1e4),
            scaling: RopeScaling::None,
            dims: Some(local_dim),
        },
        // There is no key for it: the layers lack the tensor.
        values_are_keys: global.is_some_and(|layer| !keys.has(&format!("blk.{layer}.attn_v.weight"))),
        shared_layers,
        double_wide,
        per_layer_width: keys.opt(PER_LAYER)?.unwrap_or(0),
        experts: match keys.opt("expert_count")? {
            None | Some(0) => None,
            Some(_) => {
                keys.usize("expert_feed_forward_length")?; // that of the MLP beside them is another
                Some(ExpertsConfig::from_gguf(keys, base, true)?)
            }
        },
        logits_cap: keys.soft_cap(CAP)?,
    })
}

pub(super) fn write(config: &Config, base: &BaseConfig, name: &str) -> Result<Vec<(String, Value)>> {
    if config.local_rope.scaling != RopeScaling::None {
        let reason = "a scaled rotary embedding of layers with a window: GGUF has no key for it in a Gemma 4";
        return Err(LoadError::Unsupported(reason.to_owned()));
    }
    let mut pairs = base.to_gguf(name)?;
    // A list of a number for each layer, where they differ, takes the place of the number.
    let mut by_layer = |key: &str, of: &dyn Fn(usize) -> usize| -> Result<()> {
        let numbers: Vec<usize> = (0..base.num_hidden_layers).map(of).collect();
        if numbers.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(());
        }
        let small = |&n: &usize| i32::try_from(n).map_err(|_| LoadError::Config(format!("{key} of {n} is too large")));
        let list = numbers.iter().map(small).collect::<Result<Vec<i32>>>()?;
        let key = format!("{name}.{key}");
        pairs.retain(|(known, _)| *known != key);
        pairs.push((key, Value::Array(Array::I32(list))));
        Ok(())
    };
    by_layer(KV_HEADS, &|layer| config.kv_heads(base, layer).num_kv_heads)?;
    by_layer(MLP, &|layer| config.intermediate_size(base, layer))?;
    let local_dim = config.local_heads.head_dim;
    for (key, value) in [
        (WINDOW, config.windows.size().unwrap_or(base.max_position_embeddings)),
        (LOCAL_DIM, local_dim),
        (LOCAL_VALUE_DIM, local_dim),
        (LOCAL_ROTATED, local_dim),
        (SHARED, config.shared_layers),
        (PER_LAYER, config.per_layer_width),
    ] {
        pairs.push(gguf::number(name, key, value)?);
    }
    if let Some(experts) = &config.experts {
        pairs.extend(experts.to_gguf(name)?);
    }
    pairs.push((format!("{name}.{SLIDES}"), config.windows.listed()));
    pairs.push(gguf::float(name, LOCAL_THETA, config.local_rope.theta));
    // Zero stands for none; llama.cpp takes a missing one for 30.
    pairs.push(gguf::float(name, CAP, config.logits_cap.map_or(0.0, f64::from)));
    Ok(pairs)
}
