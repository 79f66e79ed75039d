//! What a decode step allocates, of which docs/architecture.md speaks: nothing but what it hands out.

#![allow(clippy::unwrap_used)] // tests

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nanovllm_backend::SampleRow;
use nanovllm_devices::{Given, Options, open};
use nanovllm_engine::{EngineConfig, LlmEngine, SamplingParams};
use nanovllm_model::{CausalLm, Checkpoint, LoadOptions, ModelInput};
use nanovllm_service::{Request, Service, Watch};

/// The system's allocator, which counts how often it was asked.
struct Counting;

static ASKED: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

#[allow(unsafe_code)] // an allocator has no safe form
// SAFETY: memory comes from the system's allocator and returns to it; counting does not touch it.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: asks of the caller what `System.alloc` asks, a layout of some size.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Relaxed);
        // SAFETY: the caller promises that the size of `layout` is not zero.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: asks of the caller what `System.realloc` asks: a pointer from `alloc` with its layout, and a size.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.fetch_add(1, Relaxed);
        // SAFETY: `alloc` got `pointer` from `System` for `layout`, as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    // SAFETY: asks of the caller what `System.dealloc` asks, a pointer from `alloc` with its layout.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `alloc` got `pointer` from `System` for `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

const NUM_SEQS: usize = 3;

/// How often memory is asked for in a usual one of `steps` calls of `step`. Now and then a list that grows with its sequence
/// is moved, which happens ever more seldom and is not counted: half of the calls ask for no more than this.
fn usual(steps: usize, mut step: impl FnMut()) -> usize {
    let count = |_| {
        let before = ASKED.load(Relaxed);
        step();
        ASKED.load(Relaxed) - before
    };
    let mut counts: Vec<usize> = (0..steps).map(count).collect();
    counts.sort_unstable();
    counts[steps / 2]
}

fn model() -> Box<dyn CausalLm> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny_llama");
    let mut options = Options::default();
    options.set("num_threads", Given::Number(2));
    open("cpu", &options)
        .unwrap()
        .load(&Checkpoint::open(&path).unwrap(), LoadOptions { max_model_len: 256, memory: None })
        .unwrap()
}

fn engine() -> LlmEngine {
    LlmEngine::new(model(), EngineConfig { num_kvcache_blocks: 8, ..EngineConfig::default() }, None).unwrap()
}

/// One test, as the counter is the process's.
#[test]
fn a_decode_step_allocates_what_it_hands_out() {
    // A row of a sequence of 9 tokens, again and again.
    let mut model = model();
    let spec = model.kv_cache_spec(1, 256, None);
    model.allocate_kv_cache(&spec).unwrap();
    let input = ModelInput {
        input_ids: vec![5],
        positions: vec![8],
        cu_seqlens_q: vec![0, 1],
        context_lens: vec![9],
        slot_mapping: vec![8],
        block_tables: vec![0],
        table_stride: 1,
    };
    let sampling = [SampleRow::drawn(1.0, 1, 2)];
    let counted = usual(20, || {
        model.step(&input, &[0], &sampling, &mut || false).unwrap();
    });
    assert_eq!(counted, 1, "the model and the device: the tokens");

    let params = SamplingParams { max_tokens: 200, ignore_eos: true, ..SamplingParams::default() };
    let mut engine = engine();
    for seq in 0..NUM_SEQS as u32 {
        engine.add_request(vec![1, 2, 3 + seq], params.clone()).unwrap();
    }
    let counted = usual(60, || {
        engine.step(&mut || false).unwrap();
    });
    assert_eq!(counted, 1 + 1 + NUM_SEQS, "the tokens, the list of events, and the tokens of each event");

    for watch in [Watch::Result, Watch::Tokens] {
        let service = Service::new(self::engine(), None);
        for seq_id in 0..NUM_SEQS as u64 {
            let token_ids = vec![1, 2, 3 + seq_id as u32];
            service.add(Request { watch, ..Request::new(seq_id, token_ids, params.clone()) }).unwrap();
        }
        let counted = usual(60, || {
            service.step(&mut || false).unwrap();
        });
        let mail = if watch == Watch::Result { 0 } else { 1 + 1 };
        assert_eq!(counted, 1 + 1 + NUM_SEQS + mail, "{watch:?}: the engine's, the news, and the caller's mailbox");
    }
}
