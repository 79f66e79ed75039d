//! Builds GGUF files byte by byte, well-formed or not, independently of the reader.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

pub mod counting;
pub mod strategies;

use nanovllm_gguf::{Array, Error, GgmlType, GgufFile, Value};

/// A file in the making. Counts and offsets follow from what is added unless they are overridden.
#[derive(Clone)]
pub struct Builder {
    pub version: u32,
    pub tensor_count: Option<u64>,
    pub pair_count: Option<u64>,
    pub alignment: usize,
    pairs: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

impl Builder {
    pub fn new(version: u32) -> Self {
        Self {
            version,
            tensor_count: None,
            pair_count: None,
            alignment: 32,
            pairs: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
        }
    }

    /// A count, length or dimension in the version's width.
    pub fn size(&self, n: u64) -> Vec<u8> {
        if self.version == 1 { (n as u32).to_le_bytes().to_vec() } else { n.to_le_bytes().to_vec() }
    }

    pub fn text(&self, text: &[u8]) -> Vec<u8> {
        [self.size(text.len() as u64), text.to_vec()].concat()
    }

    /// A pair with any value type and payload.
    pub fn raw_pair(mut self, key: &[u8], type_id: u32, payload: &[u8]) -> Self {
        self.pairs.push([self.text(key), type_id.to_le_bytes().to_vec(), payload.to_vec()].concat());
        self
    }

    /// An array pair with any element type, count and payload.
    pub fn raw_array(self, key: &[u8], type_id: u32, count: u64, payload: &[u8]) -> Self {
        let payload = [type_id.to_le_bytes().to_vec(), self.size(count), payload.to_vec()].concat();
        self.raw_pair(key, 9, &payload)
    }

    pub fn pair(self, key: &str, value: &Value) -> Self {
        let key = key.as_bytes();
        match value {
            Value::U8(v) => self.raw_pair(key, 0, &v.to_le_bytes()),
            Value::I8(v) => self.raw_pair(key, 1, &v.to_le_bytes()),
            Value::U16(v) => self.raw_pair(key, 2, &v.to_le_bytes()),
            Value::I16(v) => self.raw_pair(key, 3, &v.to_le_bytes()),
            Value::U32(v) => self.raw_pair(key, 4, &v.to_le_bytes()),
            Value::I32(v) => self.raw_pair(key, 5, &v.to_le_bytes()),
            Value::F32(v) => self.raw_pair(key, 6, &v.to_le_bytes()),
            Value::Bool(v) => self.raw_pair(key, 7, &[u8::from(*v)]),
            Value::String(v) => {
                let text = self.text(v.as_bytes());
                self.raw_pair(key, 8, &text)
            }
            Value::U64(v) => self.raw_pair(key, 10, &v.to_le_bytes()),
            Value::I64(v) => self.raw_pair(key, 11, &v.to_le_bytes()),
            Value::F64(v) => self.raw_pair(key, 12, &v.to_le_bytes()),
            Value::Array(array) => self.array(key, array),
        }
    }

    fn array(self, key: &[u8], array: &Array) -> Self {
        let (id, payload): (u32, Vec<u8>) = match array {
            Array::U8(v) => (0, v.clone()),
            Array::I8(v) => (1, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Array::U16(v) => (2, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Array::I16(v) => (3, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Array::U32(v) => (4, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Array::I32(v) => (5, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Array::F32(v) => (6, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Array::Bool(v) => (7, v.iter().map(|&v| u8::from(v)).collect()),
            Array::String(v) => (8, v.iter().flat_map(|v| self.text(v.as_bytes())).collect()),
            Array::U64(v) => (10, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Array::I64(v) => (11, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Array::F64(v) => (12, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        self.raw_array(key, id, array.len() as u64, &payload)
    }

    /// A table entry with any content, and no data.
    pub fn raw_tensor(mut self, name: &[u8], dims: &[u64], type_id: u32, offset: u64) -> Self {
        let dims_bytes: Vec<u8> = dims.iter().flat_map(|&dim| self.size(dim)).collect();
        let rank = (dims.len() as u32).to_le_bytes();
        self.tensors
            .push([&self.text(name)[..], &rank, &dims_bytes, &type_id.to_le_bytes(), &offset.to_le_bytes()].concat());
        self
    }

    /// A tensor with its data, placed on the next multiple of the alignment.
    pub fn tensor(mut self, name: &str, dims: &[u64], dtype: GgmlType, data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend_from_slice(data);
        self.raw_tensor(name.as_bytes(), dims, dtype as u32, offset)
    }

    /// Appends bytes to the data section.
    pub fn raw_data(mut self, data: &[u8]) -> Self {
        self.data.extend_from_slice(data);
        self
    }

    pub fn build(self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.size(self.tensor_count.unwrap_or(self.tensors.len() as u64)));
        out.extend(self.size(self.pair_count.unwrap_or(self.pairs.len() as u64)));
        out.extend(self.pairs.concat());
        out.extend(self.tensors.concat());
        if !self.data.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
        }
        out.extend(self.data);
        out
    }

    /// The error that opening the file gives.
    pub fn error(self) -> Error {
        GgufFile::from_bytes(self.build()).expect_err("the file is malformed")
    }

    pub fn open(self) -> GgufFile {
        GgufFile::from_bytes(self.build()).expect("the file is well-formed")
    }
}

/// A small file with every value type and tensors of several types.
pub fn sample(version: u32) -> Builder {
    let f32s: Vec<u8> = (0..12).flat_map(|i| (i as f32 * 0.5 - 3.0).to_le_bytes()).collect();
    let blocks: Vec<u8> = (0..20 * 2 * 3).map(|i| (i * 7) as u8).collect();
    values()
        .into_iter()
        .fold(Builder::new(version), |builder, (key, value)| builder.pair(key, &value))
        .tensor("output_norm.weight", &[12], GgmlType::F32, &f32s)
        .tensor("blk.0.attn_q.weight", &[64, 3], GgmlType::Q4_1, &blocks)
        .tensor("blk.0.ffn_up.weight", &[2, 3, 1, 2], GgmlType::F16, &[0x3c; 24])
}

/// One value of every type.
pub fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("general.architecture", Value::String("llama".into())),
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-100)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-30_000)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-2_000_000_000)),
        ("f32", Value::F32(1e-5)),
        ("bool", Value::Bool(true)),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(0.1)),
        ("empty", Value::String(String::new())),
        ("a.u8", Value::Array(Array::U8(vec![1, 2]))),
        ("a.i8", Value::Array(Array::I8(vec![-1, 2]))),
        ("a.u16", Value::Array(Array::U16(vec![1, 2]))),
        ("a.i16", Value::Array(Array::I16(vec![-1, 2]))),
        ("a.u32", Value::Array(Array::U32(vec![1, 2]))),
        ("a.i32", Value::Array(Array::I32(vec![-1, 2, 3]))),
        ("a.f32", Value::Array(Array::F32(vec![0.5]))),
        ("a.bool", Value::Array(Array::Bool(vec![true, false]))),
        ("a.string", Value::Array(Array::String(vec!["Ġthe".into(), String::new()]))),
        ("a.u64", Value::Array(Array::U64(vec![1, 2]))),
        ("a.i64", Value::Array(Array::I64(vec![-1, 2]))),
        ("a.f64", Value::Array(Array::F64(vec![0.25]))),
        ("a.none", Value::Array(Array::I32(vec![]))),
    ]
}
