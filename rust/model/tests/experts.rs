//! Mixtures that memory is too small for: as many experts as fit are packed, the others stay in their file.
#![allow(missing_docs, clippy::unwrap_used)] // a test

use std::path::Path;

use nanovllm_backend::Backend;
use nanovllm_cpu::{CpuBackend, CpuOptions};
use nanovllm_gguf::{GgmlType, GgufWriter, Metadata, TensorSpec, Value, quantize};
use nanovllm_model::{CausalLm, Checkpoint, LoadOptions, ModelInput, load};

const HIDDEN: usize = 256;
const EXPERTS: usize = 4;
const VOCAB: usize = 64;
/// Of a matrix of an expert.
const ELEMENTS: u64 = (HIDDEN * HIDDEN) as u64;

/// A Qwen3 mixture of one layer with random weights, its experts in `dtype`, the rest in F32.
fn write(path: &Path, dtype: GgmlType) {
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", Value::String("qwen3moe".into()));
    metadata.set("qwen3moe.attention.layer_norm_rms_epsilon", Value::F32(1e-6));
    metadata.set("qwen3moe.rope.freq_base", Value::F32(1e4));
    for (key, value) in [
        ("embedding_length", HIDDEN),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("attention.key_length", 64),
        ("attention.value_length", 64),
        ("feed_forward_length", HIDDEN),
        ("expert_feed_forward_length", HIDDEN),
        ("expert_count", EXPERTS),
        ("expert_used_count", 2),
        ("block_count", 1),
        ("vocab_size", VOCAB),
        ("context_length", 64),
    ] {
        metadata.set(&format!("qwen3moe.{key}"), Value::U32(value as u32));
    }
    let specs: Vec<TensorSpec> = [
        ("token_embd", vec![VOCAB, HIDDEN]),
        ("output_norm", vec![HIDDEN]),
        ("blk.0.attn_norm", vec![HIDDEN]),
        ("blk.0.attn_q", vec![256, HIDDEN]),
        ("blk.0.attn_k", vec![128, HIDDEN]),
        ("blk.0.attn_v", vec![128, HIDDEN]),
        ("blk.0.attn_output", vec![HIDDEN, 256]),
        ("blk.0.attn_q_norm", vec![64]),
        ("blk.0.attn_k_norm", vec![64]),
        ("blk.0.ffn_norm", vec![HIDDEN]),
        ("blk.0.ffn_gate_inp", vec![EXPERTS, HIDDEN]),
        ("blk.0.ffn_gate_exps", vec![EXPERTS, HIDDEN, HIDDEN]),
        ("blk.0.ffn_up_exps", vec![EXPERTS, HIDDEN, HIDDEN]),
        ("blk.0.ffn_down_exps", vec![EXPERTS, HIDDEN, HIDDEN]),
    ]
    .map(|(name, dims)| TensorSpec {
        dtype: if dims.len() > 2 { dtype } else { GgmlType::F32 },
        name: format!("{name}.weight"),
        dims: dims.into_iter().rev().collect(), // GGUF has the inputs first
    })
    .into();
    let mut state = 1u64;
    let mut value = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut writer = GgufWriter::create(path, &metadata, &specs).unwrap();
    for spec in &specs {
        let values: Vec<f32> = (0..spec.dims.iter().product::<usize>()).map(|_| value()).collect();
        let mut bytes = Vec::new();
        quantize(spec.dtype, &values, &mut bytes).unwrap();
        writer.tensor(&spec.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn cpu() -> CpuBackend {
    CpuBackend::new(CpuOptions { num_threads: Some(1), ..CpuOptions::default() }).unwrap()
}

/// The bits of the logits after each token of a prompt, and what a user is told, of the model loaded into `memory` bytes.
fn run(path: &Path, memory: Option<u64>) -> (Vec<u32>, Vec<String>) {
    let mut model: Box<dyn CausalLm> =
        load(cpu(), &Checkpoint::open(path).unwrap(), LoadOptions { max_model_len: 64, memory }).unwrap();
    model.allocate_kv_cache(&model.kv_cache_spec(1, 256, None)).unwrap();
    let rows = 7;
    let input = ModelInput {
        input_ids: (0..rows).map(|i| i * 5 % VOCAB as u32).collect(),
        positions: (0..rows).collect(),
        cu_seqlens_q: vec![0, rows],
        context_lens: vec![rows],
        slot_mapping: (0..rows as i32).collect(),
        block_tables: vec![0],
        table_stride: 1,
    };
    let mut logits = Vec::new();
    model.logits(&input, &(0..rows).collect::<Vec<_>>(), &mut logits, &mut || false).unwrap();
    (logits.into_iter().map(f32::to_bits).collect(), model.notes().to_vec())
}

/// Gigabytes that the note of experts in files names.
fn in_files(notes: &[String]) -> Option<&str> {
    notes.iter().find_map(|note| note.split_once(" GB of experts stay in the file").map(|(size, _)| size))
}

#[test]
fn as_many_experts_as_fit_are_packed_and_every_bit_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in [GgmlType::TQ1_0, GgmlType::Q8_0, GgmlType::F32] {
        let path = folder.path().join(format!("{dtype}.gguf"));
        write(&path, dtype);
        let stored = GgufFileSizes::of(&path, |dtype, elements| dtype.bytes_for(elements as usize).unwrap() as u64);
        let packed = GgufFileSizes::of(&path, |dtype, elements| cpu().packed_bytes(dtype, elements));
        assert_eq!(packed.experts, 3 * EXPERTS as u64 * cpu().packed_bytes(dtype, ELEMENTS));
        let (expected, notes) = run(&path, None);
        assert!(in_files(&notes).is_none(), "{notes:?}");
        let all = packed.experts + packed.others;
        for (memory, some_stay) in [
            (all, false),
            (all - 1, true),
            // Where the device holds them larger than their file, what the file takes is not enough.
            (stored.experts + packed.others, packed.experts > stored.experts),
            (packed.others + packed.experts / 2, true),
            (1, true),
            (0, true),
        ] {
            let (logits, notes) = run(&path, Some(memory));
            assert!(logits == expected, "{dtype} in {memory} bytes");
            assert_eq!(in_files(&notes).is_some(), some_stay, "{dtype} in {memory} bytes: {notes:?}");
        }
    }
}

/// Bytes of the tensors of a file.
struct GgufFileSizes {
    experts: u64,
    others: u64,
}

impl GgufFileSizes {
    fn of(path: &Path, bytes: impl Fn(GgmlType, u64) -> u64) -> Self {
        let file = nanovllm_gguf::GgufFile::open(path).unwrap();
        let sum = |is_experts: bool| {
            let tensors = file.tensors().iter().filter(|t| t.name.contains("_exps") == is_experts);
            tensors.map(|t| bytes(t.dtype, t.dims.iter().product::<usize>() as u64)).sum()
        };
        Self { experts: sum(true), others: sum(false) }
    }
}
