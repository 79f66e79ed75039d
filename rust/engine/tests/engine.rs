//! The engine on a mock model: errors, edges, and what the counters say.

#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{MockModel, Probe, VOCAB_SIZE, next_token};
use nanovllm_engine::{
    EngineConfig, EngineError, FinishReason, FinishedOutput, LlmEngine, Memory, NewRequest, SamplingParams,
    SchedulingPolicy, StepOutput,
};
use nanovllm_model::StepError;
use std::sync::{Arc, Mutex};

fn config() -> EngineConfig {
    EngineConfig { max_model_len: 64, kvcache_block_size: 4, num_kvcache_blocks: 12, ..Default::default() }
}

fn engine(config: EngineConfig) -> (LlmEngine, Arc<Mutex<Probe>>) {
    let (model, probe) = MockModel::new();
    (LlmEngine::new(model, config, None).unwrap(), probe)
}

fn greedy(max_tokens: usize) -> SamplingParams {
    SamplingParams { temperature: 0.0, max_tokens, ignore_eos: true, ..SamplingParams::default() }
}

fn run(engine: &mut LlmEngine) -> Vec<FinishedOutput> {
    let mut outputs = Vec::new();
    while !engine.is_finished() {
        outputs.extend(engine.step(&mut || false).unwrap().finished());
    }
    let stats = engine.stats();
    assert_eq!((stats.free_blocks, stats.num_waiting, stats.num_running), (stats.total_blocks, 0, 0));
    outputs.sort_by_key(|output| output.seq_id);
    outputs
}

fn oracle(prompt: &[u32], num_tokens: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    (0..num_tokens).for_each(|_| tokens.push(next_token(&tokens)));
    tokens.split_off(prompt.len())
}

fn refusal(engine: &mut LlmEngine, prompt: Vec<u32>, params: SamplingParams) -> String {
    let text = engine.add_request(prompt, params).unwrap_err().to_string();
    assert!(engine.is_finished(), "a refused request leaves nothing behind");
    text
}

#[test]
fn an_idle_step_does_nothing() {
    let (mut engine, _) = engine(config());
    assert!(engine.is_finished());
    assert_eq!(engine.step(&mut || true).unwrap(), StepOutput::default());
}

#[test]
fn step_counts_prefill_up_and_decode_down() {
    let (mut engine, _) = engine(config());
    engine.add_request(vec![1, 2, 3], greedy(2)).unwrap();
    engine.add_request(vec![4], greedy(1)).unwrap();
    let first = engine.step(&mut || false).unwrap();
    let told = |step: &StepOutput| -> Vec<(u64, Vec<u32>, bool)> {
        step.events.iter().map(|e| (e.seq_id, e.token_ids.clone(), e.finished.is_some())).collect()
    };
    let (long, short) = (oracle(&[1, 2, 3], 2), oracle(&[4], 1));
    assert_eq!((first.num_tokens, told(&first)), (4, vec![(0, vec![long[0]], false), (1, short, true)]));
    let second = engine.step(&mut || false).unwrap();
    assert_eq!((second.num_tokens, told(&second)), (-1, vec![(0, vec![long[1]], true)]));
    assert_eq!(second.finished().next().unwrap().token_ids, long);
}

#[test]
fn every_refusal_names_the_thing_and_the_limit() {
    let (mut engine, _) = engine(EngineConfig { num_kvcache_blocks: 3, ..config() });
    assert!(refusal(&mut engine, vec![], greedy(1)).contains("empty"));
    let text = refusal(&mut engine, vec![1, 50], greedy(1));
    assert_eq!(text, "token id 50 at position 1 is outside the vocabulary of 50 tokens");
    for len in [64, 65] {
        let text = refusal(&mut engine, vec![1; len], greedy(1));
        assert!(text.contains(&format!("{len} tokens")) && text.contains("max_model_len, which is 64"), "{text}");
    }
    let text = refusal(&mut engine, vec![1; 13], greedy(1));
    assert!(text.contains("needs 4 KV cache blocks of 4 tokens") && text.contains("has 3"), "{text}");
    assert!(refusal(&mut engine, vec![1], greedy(0)).contains("max_tokens"));
    let hot = SamplingParams { temperature: f64::NAN, ..greedy(1) };
    assert!(refusal(&mut engine, vec![1], hot).contains("temperature"));
    engine.add_request_with_id(9, vec![1], greedy(1)).unwrap();
    assert!(matches!(engine.add_request_with_id(9, vec![1], greedy(1)), Err(EngineError::DuplicateSeqId(9))));
    assert_eq!(engine.add_request(vec![2; 12], greedy(1)).unwrap(), 10, "the counter goes on above a caller's id");
    assert_eq!(run(&mut engine).len(), 2);
}

#[test]
fn construction_errors_are_typed() {
    let make = |config, memory| LlmEngine::new(MockModel::new().0, config, memory).err().unwrap();
    let decide = EngineConfig { num_kvcache_blocks: -1, ..config() };
    assert!(matches!(make(EngineConfig { max_num_seqs: 0, ..config() }, None), EngineError::Config { .. }));
    assert!(matches!(make(decide.clone(), None), EngineError::MemoryUnknown));
    let tiny = Some(Memory { limit: 100, used: 50 });
    assert!(matches!(make(decide, tiny), EngineError::NoRoomForKvCache { block_bytes: 64, budget: 25 }));
    let huge = EngineConfig { num_kvcache_blocks: 1 << 28, ..config() };
    assert!(matches!(make(huge, None), EngineError::Backend(_)));
}

#[test]
fn the_pool_is_sized_by_memory() {
    let config = EngineConfig { num_kvcache_blocks: -1, ..config() };
    let memory = Some(Memory { limit: 64 * 10 + 100, used: 100 });
    let engine = LlmEngine::new(MockModel::new().0, config, memory).unwrap();
    assert_eq!(engine.stats().total_blocks, 5);
}

#[test]
fn a_lone_sequence_that_fills_the_pool_finishes_with_length() {
    for policy in [SchedulingPolicy::NanoVllm, SchedulingPolicy::Default] {
        let (mut engine, _) = engine(EngineConfig { num_kvcache_blocks: 3, policy, ..config() });
        engine.add_request(vec![1, 2, 3], greedy(40)).unwrap();
        let outputs = run(&mut engine);
        assert_eq!(outputs[0].finish_reason, FinishReason::Length);
        assert_eq!(outputs[0].token_ids, oracle(&[1, 2, 3], 10), "12 tokens in the pool and the one they lead to");
    }
}

#[test]
fn max_model_len_finishes_with_length() {
    let (mut engine, _) = engine(EngineConfig { max_model_len: 8, ..config() });
    engine.add_request(vec![1; 7], greedy(40)).unwrap();
    engine.add_request(vec![1; 3], greedy(40)).unwrap();
    let outputs = run(&mut engine);
    assert!(outputs.iter().all(|output| output.finish_reason == FinishReason::Length));
    assert_eq!(outputs.iter().map(|output| output.token_ids.len()).collect::<Vec<_>>(), [1, 5]);
}

#[test]
fn any_eos_stops_and_wins_over_max_tokens() {
    let text = oracle(&[1, 2, 3], 6);
    for (i, &eos) in text.iter().enumerate() {
        let (mut engine, _) = engine(EngineConfig { eos: vec![VOCAB_SIZE as u32 + 1, eos], ..config() });
        let params = SamplingParams { ignore_eos: false, ..greedy(i + 1) };
        engine.add_request(vec![1, 2, 3], params).unwrap();
        let output = run(&mut engine).remove(0);
        assert_eq!(output.finish_reason.as_str(), "stop");
        assert_eq!(output.token_ids.last(), Some(&eos));
    }
}

#[test]
fn a_shared_prefix_is_computed_once() {
    let (mut engine, probe) = engine(EngineConfig { num_kvcache_blocks: 100, max_model_len: 400, ..config() });
    let prefix: Vec<u32> = (0..300).map(|i| i % 7).collect();
    let prompt = |tail: u32| [prefix.clone(), vec![tail; 3]].concat();
    engine.add_request(prompt(0), greedy(1)).unwrap();
    run(&mut engine);
    let rows = probe.lock().unwrap().rows;
    assert_eq!(rows, 303);
    (1..8).for_each(|tail| {
        engine.add_request(prompt(tail), greedy(4)).unwrap();
    });
    let outputs = run(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.prefilled_tokens, stats.cached_tokens), (303 + 7 * 3, 7 * 300));
    for (output, tail) in outputs.iter().zip(1..) {
        assert_eq!((output.num_cached_tokens, output.num_prompt_tokens), (300, 303));
        assert_eq!(output.token_ids, oracle(&prompt(tail), 4));
    }
}

#[test]
fn twins_share_their_prompt_until_they_part() {
    // The prompt ends within its second block, or with it.
    for (len, shared_blocks) in [(6, 2), (8, 2)] {
        let (mut engine, probe) = engine(EngineConfig { num_kvcache_blocks: 20, kvcache_block_size: 4, ..config() });
        let prompt: Vec<u32> = (1..=len).collect();
        for id in 0..3 {
            let params = SamplingParams { allowed_token_ids: vec![10 + id, 20 + id], ..greedy(3) };
            let twin_of = (id > 0).then_some(0);
            engine.add(NewRequest { twin_of, ..NewRequest::new(u64::from(id), prompt.clone(), params) }).unwrap();
        }
        let first = engine.step(&mut || false).unwrap();
        assert_eq!((first.num_tokens, first.events.len()), (i64::from(len), 3));
        let used = engine.scheduler().block_manager().used_block_ids().count();
        assert_eq!((probe.lock().unwrap().rows, used), (len as usize, shared_blocks));
        let outputs = run(&mut engine);
        // All but the last to write into the shared block have got a copy of it.
        assert_eq!(probe.lock().unwrap().copies, if len % 4 == 0 { 0 } else { 2 });
        assert!(outputs.iter().all(|output| {
            let id = output.seq_id as u32;
            output.token_ids.iter().all(|token| [10 + id, 20 + id].contains(token))
        }));
        assert_eq!(engine.stats().free_blocks, 20);
    }
}

#[test]
fn a_failed_step_is_rolled_back() {
    let (mut engine, probe) = engine(EngineConfig { max_num_batched_tokens: 5, num_kvcache_blocks: 20, ..config() });
    let prompts = [vec![1; 12], vec![2; 4], vec![3; 9]];
    for prompt in &prompts {
        engine.add_request(prompt.clone(), greedy(9)).unwrap();
    }
    let mut outputs = Vec::new();
    for i in 0.. {
        if engine.is_finished() {
            break;
        }
        let books = |engine: &LlmEngine| {
            let scheduler = engine.scheduler();
            let describe = |seq: &nanovllm_engine::Sequence| (seq.seq_id, seq.num_cached_tokens, seq.block_table.len());
            let queues = scheduler.waiting().chain(scheduler.running()).map(describe).collect::<Vec<_>>();
            (queues, scheduler.block_manager().num_free_blocks(), engine.stats().prefilled_tokens)
        };
        let before = books(&engine);
        assert!(matches!(engine.step(&mut || true), Err(EngineError::Step(StepError::Interrupted))));
        assert_eq!(books(&engine), before, "step {i}");
        probe.lock().unwrap().fail = true;
        assert!(engine.step(&mut || false).unwrap_err().to_string().contains("fell over"));
        probe.lock().unwrap().answer = Some(vec![1; 7]);
        assert!(matches!(engine.step(&mut || false), Err(EngineError::TokenCount { got: 7, .. })));
        outputs.extend(engine.step(&mut || false).unwrap().finished());
    }
    outputs.sort_by_key(|output| output.seq_id);
    for (output, prompt) in outputs.iter().zip(&prompts) {
        assert_eq!(output.token_ids, oracle(prompt, 9));
    }
    assert_eq!(engine.stats().prefilled_tokens, 25, "only steps that succeeded count");
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let (mut engine, probe) = engine(config());
    engine.add_request(vec![1], greedy(1)).unwrap();
    probe.lock().unwrap().answer = Some(vec![50]);
    let error = engine.step(&mut || false).unwrap_err();
    assert!(matches!(error, EngineError::BadToken { token_id: 50, vocab_size: 50 }));
    assert_eq!(run(&mut engine)[0].token_ids, oracle(&[1], 1));
}

#[test]
fn abort_frees_at_every_stage() {
    for steps in 0..6 {
        let (mut engine, _) = engine(EngineConfig { max_num_batched_tokens: 4, ..config() });
        let id = engine.add_request(vec![1; 10], greedy(20)).unwrap();
        let other = engine.add_request(vec![1; 9], greedy(2)).unwrap();
        for _ in 0..steps {
            engine.step(&mut || false).unwrap();
        }
        assert!(engine.abort(id).is_some() && engine.abort(id).is_none() && engine.abort(77).is_none());
        let left = run(&mut engine);
        assert!(left.iter().all(|output| output.seq_id == other && output.token_ids == oracle(&[1; 9], 2)));
    }
}

#[test]
fn noise_depends_on_the_request_alone() {
    let sampled = |seed, engine_seed, others: usize| {
        let (mut engine, probe) = engine(EngineConfig { seed: engine_seed, ..config() });
        for i in 0..others {
            engine.add_request(vec![i as u32; 2], greedy(3)).unwrap();
        }
        let params = SamplingParams { temperature: 0.5, seed, ..greedy(3) };
        engine.add_request(vec![1, 2, 3], params).unwrap();
        run(&mut engine);
        let rows = std::mem::take(&mut probe.lock().unwrap().sampled);
        let rows: Vec<_> = rows.into_iter().filter(|row| row.temperature > 0.0).collect();
        assert_eq!(rows.iter().map(|row| row.position).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(rows.iter().all(|row| row.key == rows[0].key));
        rows[0].key
    };
    assert_eq!(sampled(Some(7), 0, 0), sampled(Some(7), 1, 4), "its own seed decides alone");
    assert_ne!(sampled(Some(7), 0, 0), sampled(Some(8), 0, 0));
    assert_eq!(sampled(None, 3, 2), sampled(None, 3, 2));
    assert_ne!(sampled(None, 3, 0), sampled(None, 3, 1), "requests of one engine differ");
    assert_ne!(sampled(None, 3, 0), sampled(None, 4, 0));
    assert_ne!(sampled(None, 3, 0), sampled(Some(3), 3, 0));
}

#[test]
fn the_default_policy_bounds_the_running_sequences() {
    for (policy, most) in [(SchedulingPolicy::Default, 2), (SchedulingPolicy::NanoVllm, 6)] {
        let (mut engine, _) = engine(EngineConfig { max_num_seqs: 2, policy, ..config() });
        for i in 0..6 {
            engine.add_request(vec![i], greedy(5)).unwrap();
        }
        let mut seen = 0;
        while !engine.is_finished() {
            engine.step(&mut || false).unwrap();
            seen = seen.max(engine.stats().num_running);
        }
        assert_eq!(seen, most);
    }
}
