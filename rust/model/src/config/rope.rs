//! Rotary position embedding (Su et al. 2021): its base, its scaling, and the inverse frequencies they give.

use std::f64::consts::PI;

use crate::error::{LoadError, Result};

/// What the angles of a rotary embedding follow from: pair `i` of a head's dimensions turns by the position times
/// `theta^(-2i/width)`, scaled.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// The base of that series of frequencies, positive.
    pub theta: f64,
    /// How the series is changed for contexts longer than the model was first trained on.
    pub scaling: RopeScaling,
    /// How many of a head's dimensions are rotated, the first ones; `None` for all of them. Even.
    pub dims: Option<usize>,
}

/// A way to scale rotary frequencies, each as transformers defines it (`modeling_rope_utils`).
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// The frequencies are used as they are.
    None,
    /// Every frequency is divided by a factor, as if positions were (Chen et al. 2023).
    Linear {
        /// What frequencies are divided by, positive.
        factor: f64,
    },
    /// Low frequencies are divided by a factor, high ones kept, those between blended (Llama 3.1).
    Llama3 {
        /// What low frequencies are divided by, positive.
        factor: f64,
        /// Frequencies whose wavelength is above `original_max_position` over this are divided.
        low_freq_factor: f64,
        /// Frequencies whose wavelength is below `original_max_position` over this are kept.
        high_freq_factor: f64,
        /// The context the model was first trained on, in tokens.
        original_max_position: usize,
    },
    /// YaRN: low frequencies are divided, high ones kept, and attention is scaled (Peng et al. 2023).
    Yarn {
        /// What low frequencies are divided by, positive.
        factor: f64,
        /// The context the model was first trained on, in tokens.
        original_max_position: usize,
        /// A frequency that turns more often than this over `original_max_position` is kept.
        beta_fast: f64,
        /// A frequency that turns less often than this is divided; those between are blended.
        beta_slow: f64,
        /// Whether the blend begins and ends at whole indices of frequencies.
        truncate: bool,
        /// What cosines and sines are multiplied by; where it is not given it follows from the factor.
        attention_factor: Option<f64>,
    },
    /// A divisor for each frequency, which GGUF stores instead of Llama 3's parameters.
    Factors(Vec<f32>),
    /// LongRoPE: a divisor for each frequency, of which there are two sets, and attention is scaled (Ding et al. 2024).
    /// The longest sequence that a model is loaded for decides which set is used, whatever the length of a sequence: keys
    /// in the cache were rotated by one of them.
    LongRope {
        /// The divisors of models that are loaded for no more than `original_max_position` tokens.
        short: Vec<f32>,
        /// The divisors of models that are loaded for more.
        long: Vec<f32>,
        /// The context the model was first trained on, in tokens.
        original_max_position: usize,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
    },
}

impl RopeConfig {
    /// How many dimensions of heads of `head_dim` are rotated.
    pub fn width(&self, head_dim: usize) -> usize {
        self.dims.unwrap_or(head_dim)
    }

    /// The angle by which each pair of rotated dimensions turns from one position to the next, `[width / 2]` (what
    /// transformers calls inverse frequencies), and what cosines and sines are multiplied by. `positions` is the longest
    /// sequence that the model is loaded for.
    ///
    /// # Errors
    /// [`LoadError::Config`] for factors that are not positive or not as many as frequencies, for more dimensions than a
    /// head has, and for infinite angles.
    pub fn inverse_frequencies(&self, head_dim: usize, positions: usize) -> Result<(Vec<f64>, f64)> {
        let width = self.width(head_dim);
        if width < 2 || !width.is_multiple_of(2) || width > head_dim {
            return Err(LoadError::Config(format!(
                "the rotated dimensions of a head must be even and between 2 and {head_dim}, got {width}"
            )));
        }
        let plain = (0..width / 2).map(|i| self.theta.powf(-2.0 * i as f64 / width as f64));
        let (inverse, scale): (Vec<f64>, f64) = match &self.scaling {
            RopeScaling::None => (plain.collect(), 1.0),
            RopeScaling::Linear { factor } => {
                let factor = positive("factor", *factor)?;
                (plain.map(|f| f / factor).collect(), 1.0)
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                let factor = positive("factor", *factor)?;
                let low = positive("low_freq_factor", *low_freq_factor)?;
                let span = positive("high_freq_factor - low_freq_factor", high_freq_factor - low)?;
                let rotations = |f: f64| *original_max_position as f64 * f / (2.0 * PI);
                let blend = |f: f64| ((rotations(f) - low) / span).clamp(0.0, 1.0);
                (plain.map(|f| f / factor * (1.0 - blend(f)) + f * blend(f)).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, original_max_position, beta_fast, beta_slow, truncate, attention_factor } => {
                let factor = positive("factor", *factor)?;
                let original = positive("original_max_position_embeddings", *original_max_position as f64)?;
                let (fast, slow) = (positive("beta_fast", *beta_fast)?, positive("beta_slow", *beta_slow)?);
                // The index of the frequency that turns `rotations` times over the original context.
                let index =
                    |rotations: f64| width as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
                let (mut low, mut high) = (index(fast), index(slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, high) = (low.max(0.0), high.min(width as f64 - 1.0));
                let span = if high == low { 0.001 } else { high - low };
                let keep = |i: usize| 1.0 - ((i as f64 - low) / span).clamp(0.0, 1.0);
                let scaled = plain.enumerate().map(|(i, f)| f / factor * (1.0 - keep(i)) + f * keep(i)).collect();
                let default = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                (scaled, attention_factor.unwrap_or(default))
            }
            RopeScaling::Factors(factors) => (divided(plain, factors, "rope_freqs.weight")?, 1.0),
            RopeScaling::LongRope { short, long, original_max_position, attention_factor } => {
                let (factors, name) =
                    if positions > *original_max_position { (long, "long_factor") } else { (short, "short_factor") };
                (divided(plain, factors, name)?, positive("attention_factor", *attention_factor)?)
            }
        };
        if !scale.is_finite() || inverse.iter().any(|f| !f.is_finite()) {
            return Err(LoadError::Config(format!("rope: theta {} and its scaling give infinite angles", self.theta)));
        }
        Ok((inverse, scale))
    }
}

/// Frequencies, each divided by its factor in the list that files call `name`.
fn divided(plain: impl ExactSizeIterator<Item = f64>, factors: &[f32], name: &str) -> Result<Vec<f64>> {
    let (got, expected) = (factors.len(), plain.len());
    if got != expected {
        return Err(LoadError::Config(format!("{name} has {got} factors for {expected} frequencies")));
    }
    plain.zip(factors).map(|(f, &by)| Ok(f / positive("a factor", f64::from(by))?)).collect()
}

fn positive(name: &str, value: f64) -> Result<f64> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(LoadError::Config(format!("rope scaling: {name} must be positive, got {value}")))
    }
}
