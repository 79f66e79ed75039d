//! The rotary embedding in the metadata of a GGUF file, and in the tensors that say what no key can.

use crate::config::gguf::Keys;
use crate::config::rope::{RopeConfig, RopeScaling};
use crate::error::{LoadError, Result};

/// The tensor that divides each frequency.
const FREQS: &str = "rope_freqs.weight";
/// The tensors that do so in models that are loaded for more than their first context, and for no more.
const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";

/// The tensors that the configuration is read from.
pub(crate) const ROPE_TENSORS: [&str; 3] = [FREQS, LONG, SHORT];

const ORIGINAL: &str = "rope.scaling.original_context_length";
const ATTENTION: &str = "rope.scaling.attn_factor";

impl Keys<'_> {
    /// Reads the rotary embedding from llama.cpp's keys, of whichever architecture; whether heads are rotated in part is for
    /// the family to say.
    pub(crate) fn rope(&self) -> Result<RopeConfig> {
        let theta = self.f64("rope.freq_base")?.unwrap_or(10000.0);
        if self.has(LONG) || self.has(SHORT) {
            return Ok(RopeConfig { theta, scaling: self.long_rope()?, dims: None });
        }
        let scaling = self.rope_scaling()?;
        let Some(factors) = self.factors(FREQS)? else { return Ok(RopeConfig { theta, scaling, dims: None }) };
        if !matches!(scaling, RopeScaling::None | RopeScaling::Linear { factor: 1.0 }) {
            let key = self.name("rope.scaling.factor");
            let reason = format!("{key}: a scaling beside that of the tensor {FREQS}");
            return Err(LoadError::Unsupported(reason));
        }
        // Llama 3's scaling, already worked out by whoever converted the model.
        Ok(RopeConfig { theta, scaling: RopeScaling::Factors(factors), dims: None })
    }

    /// The divisors of frequencies in the tensor `name`.
    fn factors(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(factors) = self.file.tensor(name) else { return Ok(None) };
        self.file.check(factors.name)?;
        Ok(Some(factors.to_f32()?))
    }

    /// LongRoPE, whose factors are two tensors.
    fn long_rope(&self) -> Result<RopeScaling> {
        let factors =
            |name: &str| self.factors(name)?.ok_or_else(|| LoadError::MissingTensors { names: vec![name.to_owned()] });
        let (short, long) = (factors(SHORT)?, factors(LONG)?);
        if let Some(kind) = self.metadata.opt_str(&self.name("rope.scaling.type"))?
            && !["none", "longrope"].contains(&kind)
        {
            let what = format_args!("{kind:?} beside the tensor {LONG}");
            return Err(self.unsupported("rope.scaling.type", what));
        }
        Ok(RopeScaling::LongRope {
            short,
            long,
            original_max_position: match self.opt(ORIGINAL)? {
                Some(original) => original,
                None => self.usize("context_length")?,
            },
            attention_factor: self.f64(ATTENTION)?.unwrap_or(1.0),
        })
    }

    /// How many of the dimensions of heads of `head_dim` are rotated, where that is not all of them.
    ///
    /// # Errors
    /// [`LoadError::Config`] for more than there are.
    pub(crate) fn rotated_dims(&self, head_dim: usize) -> Result<Option<usize>> {
        const DIMS: &str = "rope.dimension_count";
        match self.opt(DIMS)?.filter(|&dims| dims != head_dim) {
            Some(dims) if dims > head_dim => {
                let key = self.name(DIMS);
                Err(LoadError::Config(format!("{key} is {dims}, more than the {head_dim} dimensions of a head")))
            }
            dims => Ok(dims),
        }
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        const EXTRAPOLATED: &str = "rope.scaling.yarn_ext_factor";
        // The second is the key's old name.
        let factor = match self.f64("rope.scaling.factor")? {
            None => self.f64("rope.scale_linear")?,
            factor => factor,
        };
        // llama.cpp writes 0 for none.
        let factor = factor.map(|factor| if factor == 0.0 { 1.0 } else { factor });
        let needed = || -> Result<f64> {
            Ok(factor.map_or_else(|| self.metadata.f32(&self.name("rope.scaling.factor")).map(f64::from), Ok)?)
        };
        let original = self.opt(ORIGINAL)?;
        let attention = self.f64(ATTENTION)?.unwrap_or(1.0);
        // The share of YaRN in the frequencies, where a negative number stands for all or nothing by the type.
        let extrapolated = self.f64(EXTRAPOLATED)?.filter(|&share| share >= 0.0);
        let beta_fast = self.f64("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0);
        let beta_slow = self.f64("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0);
        let scaling = match self.metadata.opt_str(&self.name("rope.scaling.type"))? {
            Some("none") => RopeScaling::None,
            None => match factor {
                Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
                _ => RopeScaling::None,
            },
            Some("linear") => RopeScaling::Linear { factor: needed()? },
            Some("yarn") => {
                let factor = needed()?;
                let usual = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                if let Some(share) = extrapolated.filter(|&share| share != 1.0) {
                    return Err(self.unsupported(EXTRAPOLATED, format_args!("{share}; only 1 is supported with YaRN")));
                }
                return Ok(RopeScaling::Yarn {
                    factor,
                    original_max_position: original.map_or_else(|| self.usize(ORIGINAL), Ok)?,
                    beta_fast,
                    beta_slow,
                    truncate: true,
                    attention_factor: (attention != 1.0).then_some(usual * attention),
                });
            }
            Some(other) => {
                let what = format_args!("{other:?}; supported: none, linear, yarn");
                return Err(self.unsupported("rope.scaling.type", what));
            }
        };
        for (key, value, usual) in [(ATTENTION, attention, 1.0), (EXTRAPOLATED, extrapolated.unwrap_or(0.0), 0.0)] {
            if value != usual {
                return Err(self.unsupported(key, format_args!("{value}; only {usual} is supported without YaRN")));
            }
        }
        Ok(scaling)
    }
}
