//! How exact a device says it is.

use crate::DType;

/// NMSE of f32 operations that work value by value or row by row.
pub const ELEMENTWISE: f64 = 1e-10;
/// NMSE of f32 products and attention.
pub const PRODUCT: f64 = 1e-9;
/// NMSE of products with quantised weights whose inputs are rounded to 8 bits.
pub const QUANTIZED: f64 = 5e-4;

/// What a device promises. The suite knows nothing else of it.
#[derive(Debug, Clone)]
pub struct Promise {
    /// Types of weights that it takes and keeps to the last bit. Any other it refuses with
    /// [`UnsupportedDType`](crate::Error::UnsupportedDType), or gets right.
    pub dtypes: Vec<DType>,
    /// NMSE of products with F16 and BF16 weights and of attention over a BF16 cache. A device may round the inputs (the
    /// queries) to that type: the nearer of the two references counts.
    pub half: f64,
    /// NMSE of products with quantised weights.
    pub quantized: f64,
    /// Whether a row's result is the same to the last bit whatever rows are beside it.
    pub rows_are_exact: bool,
}

impl Promise {
    /// The threshold of a product with weights of type `dtype`.
    pub(super) fn product(&self, dtype: DType) -> f64 {
        match dtype {
            DType::F32 | DType::F64 => PRODUCT,
            DType::F16 | DType::Bf16 => self.half,
            _ => self.quantized,
        }
    }
}
