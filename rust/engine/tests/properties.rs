//! Whatever the requests, the pool, the chunking, the policy, the failures and the aborts: every accepted request ends, with
//! exactly the text the model alone would give, and the pool's books balance after every step.

#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{MockModel, VOCAB_SIZE, next_token};
use nanovllm_engine::{EngineConfig, FinishReason, LlmEngine, SamplingParams, SchedulingPolicy, SequenceStatus};
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Clone)]
struct Request {
    at: usize,
    prompt: Vec<u32>,
    params: SamplingParams,
}

#[derive(Debug, Clone)]
enum Event {
    Run,
    Interrupt,
    DeviceError,
    Abort(u64),
}

fn request() -> impl Strategy<Value = Request> {
    // Prompts are prefixes of a few streams with a tail, so that blocks are shared.
    let prompt =
        (0u32..3, 0usize..28, prop::collection::vec(0..VOCAB_SIZE as u32, 0..6)).prop_map(|(stream, len, tail)| {
            let prefix = (0..len as u32).map(|i| (i * i + stream * i / 9) % 5);
            prefix.chain(tail).collect::<Vec<_>>()
        });
    (0usize..12, prompt, 1usize..16, any::<bool>()).prop_map(|(at, prompt, max_tokens, ignore_eos)| {
        let params = SamplingParams { temperature: 0.0, max_tokens, ignore_eos, ..SamplingParams::default() };
        Request { at, prompt, params }
    })
}

fn config() -> impl Strategy<Value = EngineConfig> {
    let sizes = (2usize..7, 1i64..14, 1usize..30, 1usize..6, 2usize..60);
    (sizes, prop::collection::vec(0..VOCAB_SIZE as u32, 0..4), any::<bool>()).prop_map(|(sizes, eos, parity)| {
        let (kvcache_block_size, num_kvcache_blocks, max_num_batched_tokens, max_num_seqs, max_model_len) = sizes;
        let policy = if parity { SchedulingPolicy::NanoVllm } else { SchedulingPolicy::Default };
        EngineConfig {
            max_num_batched_tokens,
            max_num_seqs,
            max_model_len,
            eos,
            kvcache_block_size,
            num_kvcache_blocks,
            policy,
            ..Default::default()
        }
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Run),
        1 => Just(Event::Interrupt),
        1 => Just(Event::DeviceError),
        1 => (0u64..8).prop_map(Event::Abort),
    ]
}

/// The completion by definition, without a scheduler or a cache.
fn oracle(config: &EngineConfig, request: &Request) -> (Vec<u32>, FinishReason) {
    let pool = config.kvcache_block_size * config.num_kvcache_blocks as usize;
    let mut tokens = request.prompt.clone();
    loop {
        let token = next_token(&tokens);
        tokens.push(token);
        let completion = tokens[request.prompt.len()..].to_vec();
        if !request.params.ignore_eos && config.eos.contains(&token) {
            return (completion, FinishReason::Stop);
        }
        if completion.len() == request.params.max_tokens || tokens.len() == config.max_model_len || tokens.len() > pool
        {
            return (completion, FinishReason::Length);
        }
    }
}

fn check_books(engine: &LlmEngine) -> Result<(), TestCaseError> {
    let scheduler = engine.scheduler();
    let pool = scheduler.block_manager();
    let mut uses = vec![0; pool.num_blocks()];
    for seq in scheduler.waiting().chain(scheduler.running()) {
        seq.block_table.iter().for_each(|&id| uses[id as usize] += 1);
        prop_assert_eq!(seq.num_scheduled_tokens, 0);
        prop_assert!(seq.num_cached_tokens <= seq.block_table.len() * seq.block_size());
    }
    let counts: Vec<u32> = pool.blocks().iter().map(|block| block.ref_count).collect();
    prop_assert_eq!(&counts, &uses, "reference counts are the tables that use the block");
    let mut free: Vec<u32> = pool.free_block_ids().collect();
    free.sort_unstable();
    let unused: Vec<u32> = (0..).zip(&counts).filter(|&(_, &count)| count == 0).map(|(id, _)| id).collect();
    prop_assert_eq!(free, unused, "a block is free or used, once");
    prop_assert_eq!(pool.num_free_blocks() + pool.used_block_ids().count(), pool.num_blocks());
    for (hash, &id) in pool.hash_to_block_id() {
        prop_assert_eq!(pool.blocks()[id as usize].hash, Some(*hash));
    }
    prop_assert!(scheduler.waiting().skip(1).all(|seq| seq.block_table.is_empty()), "only the head holds blocks");
    prop_assert!(scheduler.waiting().all(|seq| seq.status == SequenceStatus::Waiting));
    prop_assert!(scheduler.running().all(|seq| seq.status == SequenceStatus::Running && !seq.block_table.is_empty()));
    if engine.config().policy == SchedulingPolicy::Default {
        prop_assert!(scheduler.running().len() <= engine.config().max_num_seqs);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn every_request_ends_with_the_models_own_text(
        config in config(),
        requests in prop::collection::vec(request(), 1..9),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let (model, probe) = MockModel::new();
        let mut engine = LlmEngine::new(model, config.clone(), None).unwrap();
        let pool = config.kvcache_block_size * config.num_kvcache_blocks as usize;
        let mut pending: HashMap<u64, &Request> = HashMap::new();
        let mut streams: HashMap<u64, Vec<u32>> = HashMap::new();
        let mut events = events.into_iter();
        for step in 0.. {
            prop_assert!(step < 5000, "no progress");
            for request in requests.iter().filter(|request| request.at == step) {
                let len = request.prompt.len();
                let accepted = len > 0 && len < config.max_model_len && len <= pool;
                let id = engine.add_request(request.prompt.clone(), request.params.clone()).ok();
                prop_assert_eq!(id.is_some(), accepted);
                pending.extend(id.map(|id| (id, request)));
            }
            let event = events.next().unwrap_or(Event::Run);
            if let Event::Abort(id) = event {
                prop_assert_eq!(engine.abort(id).is_some(), pending.remove(&id).is_some());
                streams.remove(&id);
            }
            probe.lock().unwrap().fail = matches!(event, Event::DeviceError);
            if let Ok(step) = engine.step(&mut || matches!(event, Event::Interrupt)) {
                for event in step.events {
                    let stream = streams.entry(event.seq_id).or_default();
                                        stream.extend(event.token_ids);
                    let Some(output) = event.finished else { continue };
                    let streamed = streams.remove(&output.seq_id);
                    prop_assert_eq!(streamed.as_ref(), Some(&output.token_ids), "token by token");
                    let request = pending.remove(&output.seq_id).unwrap();
                    prop_assert_eq!((output.token_ids, output.finish_reason), oracle(&config, request));
                    prop_assert_eq!(output.num_prompt_tokens, request.prompt.len());
                    prop_assert!(output.num_cached_tokens < request.prompt.len());
                }
            } else {
                prop_assert!(matches!(event, Event::Interrupt | Event::DeviceError));
            }
            probe.lock().unwrap().fail = false;
            check_books(&engine)?;
            if step > 12 && engine.is_finished() {
                break;
            }
        }
        prop_assert!(pending.is_empty(), "every accepted request ends");
        prop_assert_eq!(engine.stats().free_blocks, engine.stats().total_blocks);
    }
}
