//! Metadata, tensors and damages for property tests.

use nanovllm_gguf::{Array, GgmlType, Value};
use proptest::prelude::*;

fn many<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(of, 0..6)
}

/// A value of any type.
pub fn value() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![any::<String>(), "[a-z.]{0,12}"];
    // NaN is not equal to itself; its bits are covered by the block formats' tests.
    let f32s = || any::<f32>().prop_filter("equal to itself", |v| !v.is_nan());
    let f64s = || any::<f64>().prop_filter("equal to itself", |v| !v.is_nan());
    let scalar = prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        f32s().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        text().prop_map(Value::String),
    ];
    let wide =
        prop_oneof![any::<u64>().prop_map(Value::U64), any::<i64>().prop_map(Value::I64), f64s().prop_map(Value::F64),];
    let narrow_arrays = prop_oneof![
        many(any::<u8>()).prop_map(Array::U8),
        many(any::<i8>()).prop_map(Array::I8),
        many(any::<u16>()).prop_map(Array::U16),
        many(any::<i16>()).prop_map(Array::I16),
        many(any::<u32>()).prop_map(Array::U32),
        many(any::<i32>()).prop_map(Array::I32),
    ];
    let wide_arrays = prop_oneof![
        many(f32s()).prop_map(Array::F32),
        many(any::<bool>()).prop_map(Array::Bool),
        many(text()).prop_map(Array::String),
        many(any::<u64>()).prop_map(Array::U64),
        many(any::<i64>()).prop_map(Array::I64),
        many(f64s()).prop_map(Array::F64),
    ];
    prop_oneof![scalar, wide, narrow_arrays.prop_map(Value::Array), wide_arrays.prop_map(Value::Array)]
}

/// A type, a shape of whole blocks, and a byte to fill the data with.
pub fn tensor() -> impl Strategy<Value = (GgmlType, Vec<u64>, u8)> {
    (prop::sample::select(GgmlType::ALL), prop::collection::vec(1u64..4, 1..=4), any::<u8>()).prop_map(
        |(dtype, mut dims, fill)| {
            dims[0] *= dtype.block_size() as u64;
            (dtype, dims, fill)
        },
    )
}

/// A change to a file.
#[derive(Debug, Clone)]
pub enum Edit {
    Byte(u8),
    U32(u32),
    U64(u64),
    Insert(Vec<u8>),
    Delete(usize),
    Truncate,
}

impl Edit {
    /// Makes the change at `at`.
    pub fn apply(&self, bytes: &mut Vec<u8>, at: usize) {
        let at = at % (bytes.len() + 1);
        let mut overwrite = |with: &[u8]| {
            for (to, from) in bytes[at..].iter_mut().zip(with) {
                *to = *from;
            }
        };
        match self {
            Self::Byte(b) => overwrite(&[*b]),
            Self::U32(v) => overwrite(&v.to_le_bytes()),
            Self::U64(v) => overwrite(&v.to_le_bytes()),
            Self::Insert(new) => drop(bytes.splice(at..at, new.iter().copied())),
            Self::Delete(len) => drop(bytes.drain(at..(at + len).min(bytes.len()))),
            Self::Truncate => bytes.truncate(at),
        }
    }
}

/// Any change.
pub fn edit() -> impl Strategy<Value = Edit> {
    let u32s = prop_oneof![0..40u32, Just(u32::MAX), Just(1 << 31), any::<u32>()];
    let u64s = prop_oneof![0..40u64, Just(u64::MAX), Just(1 << 60), Just(1 << 63), any::<u64>()];
    prop_oneof![
        4 => any::<u8>().prop_map(Edit::Byte),
        4 => u32s.prop_map(Edit::U32),
        4 => u64s.prop_map(Edit::U64),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Edit::Insert),
        1 => (1usize..40).prop_map(Edit::Delete),
        1 => Just(Edit::Truncate),
    ]
}
