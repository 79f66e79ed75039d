//! Whatever the requests, the pool, the chunking, the policy, the failures and the aborts: every accepted request ends, with
//! exactly the text the model alone would give, and the pool's books balance after every step.

#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{HIDDEN_SIZE, MockModel, VOCAB_SIZE, hidden_state, next_token};
use nanovllm_engine::{
    EngineConfig, FinishReason, LlmEngine, NewRequest, Pooling, PoolingKind, SamplingParams, SchedulingPolicy,
    SequenceStatus,
};
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Clone)]
struct Request {
    at: usize,
    prompt: Vec<u32>,
    params: SamplingParams,
    /// How many sequences with this prompt, all but the first its twins.
    answers: u64,
    /// The prompt is embedded.
    pooling: Option<Pooling>,
    priority: i64,
}

#[derive(Debug, Clone)]
enum Event {
    Run,
    Interrupt,
    DeviceError,
    CopyError,
    Abort(u64),
}

fn request() -> impl Strategy<Value = Request> {
    // Prompts are prefixes of a few streams with a tail, so that blocks are shared.
    let prompt =
        (0u32..3, 0usize..28, prop::collection::vec(0..VOCAB_SIZE as u32, 0..6)).prop_map(|(stream, len, tail)| {
            let prefix = (0..len as u32).map(|i| (i * i + stream * i / 9) % 5);
            prefix.chain(tail).collect::<Vec<_>>()
        });
    let answers = prop_oneof![2 => Just(1u64), 1 => 2u64..5];
    let kinds = prop_oneof![Just(PoolingKind::Mean), Just(PoolingKind::Last)];
    let pooling = prop::option::weighted(0.3, (kinds, any::<bool>()))
        .prop_map(|pooling| pooling.map(|(kind, normalize)| Pooling { kind, normalize }));
    (0usize..12, prompt, 1usize..16, any::<bool>(), answers, pooling, -1i64..2).prop_map(
        |(at, prompt, max_tokens, ignore_eos, answers, pooling, priority)| {
            let params = SamplingParams { temperature: 0.0, max_tokens, ignore_eos, ..SamplingParams::default() };
            Request { at, prompt, params, answers: if pooling.is_some() { 1 } else { answers }, pooling, priority }
        },
    )
}

fn config() -> impl Strategy<Value = EngineConfig> {
    let sizes = (2usize..7, 1i64..14, 1usize..30, 1usize..6, 2usize..60);
    let policy = prop::sample::select(&SchedulingPolicy::ALL[..]);
    (sizes, prop::collection::vec(0..VOCAB_SIZE as u32, 0..4), policy).prop_map(|(sizes, eos, policy)| {
        let (kvcache_block_size, num_kvcache_blocks, max_num_batched_tokens, max_num_seqs, max_model_len) = sizes;
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
        1 => Just(Event::CopyError),
        1 => (0u64..8).prop_map(Event::Abort),
    ]
}

/// Answers to a prompt part from each other: each has tokens of its own that it may not use, and a length of its own.
fn params_of(request: &Request, answer: u64) -> SamplingParams {
    // All of them are allowed where the list is empty.
    let allowed = |token: &u32| request.answers > 1 && u64::from(*token) % 5 != answer;
    let allowed_token_ids = (0..VOCAB_SIZE as u32).filter(allowed).collect();
    let max_tokens = request.params.max_tokens + answer as usize;
    SamplingParams { max_tokens, allowed_token_ids, ..request.params.clone() }
}

/// The completion of an answer by definition, without a scheduler or a cache.
fn oracle(config: &EngineConfig, request: &Request, answer: u64) -> (Vec<u32>, FinishReason) {
    let params = params_of(request, answer);
    let pool = config.kvcache_block_size * config.num_kvcache_blocks as usize;
    let mut tokens = request.prompt.clone();
    loop {
        let mut token = next_token(&tokens);
        while !params.allowed_token_ids.is_empty() && !params.allowed_token_ids.contains(&token) {
            token = (token + 1) % VOCAB_SIZE as u32; // the next likeliest
        }
        tokens.push(token);
        let completion = tokens[request.prompt.len()..].to_vec();
        if !params.ignore_eos && config.eos.contains(&token) {
            return (completion, FinishReason::Stop);
        }
        if completion.len() == params.max_tokens || tokens.len() == config.max_model_len || tokens.len() > pool {
            return (completion, FinishReason::Length);
        }
    }
}

/// A prompt's embedding by definition.
fn embedding(pooling: Pooling, prompt: &[u32]) -> Vec<f32> {
    let row = |len: usize| hidden_state(next_token(&prompt[..len])).map(f64::from);
    let pooled: Vec<f64> = match pooling.kind {
        PoolingKind::Last => row(prompt.len()).to_vec(),
        PoolingKind::Mean => (0..HIDDEN_SIZE).map(|i| (1..=prompt.len()).map(|len| row(len)[i]).sum()).collect(),
    };
    let length = pooled.iter().map(|x| x * x).sum::<f64>().sqrt();
    let count = if pooling.kind == PoolingKind::Mean { prompt.len() as f64 } else { 1.0 };
    pooled.iter().map(|x| (x / if pooling.normalize { length } else { count }) as f32).collect()
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
    if engine.config().policy != SchedulingPolicy::NanoVllm {
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
        let mut pending: HashMap<u64, (&Request, u64)> = HashMap::new();
        let mut streams: HashMap<u64, Vec<u32>> = HashMap::new();
        // The step that each request was added before, its priority, and the step that brought its first token.
        let mut firsts: Vec<(usize, i64, Option<usize>)> = Vec::new();
        let mut events = events.into_iter();
        let mut next_id = 0;
        for step in 0.. {
            prop_assert!(step < 5000, "no progress");
            for request in requests.iter().filter(|request| request.at == step) {
                let len = request.prompt.len();
                let longest = config.max_model_len - usize::from(request.pooling.is_none());
                let accepted = len > 0 && len <= longest && len <= pool;
                for answer in 0..request.answers {
                    let (id, twin_of) = (next_id, (answer > 0).then_some(next_id - answer));
                    let params = params_of(request, answer);
                    let pooling = request.pooling;
                    let added =
                        engine.add(NewRequest { twin_of, pooling, priority: request.priority, ..NewRequest::new(id, request.prompt.clone(), params) });
                    prop_assert_eq!(added.is_ok(), accepted);
                    if accepted {
                        pending.insert(id, (request, answer));
                    }
                    firsts.push((step, request.priority, None));
                    next_id += 1;
                }
            }
            let event = events.next().unwrap_or(Event::Run);
            if let Event::Abort(id) = event {
                prop_assert_eq!(engine.abort(id).is_some(), pending.remove(&id).is_some());
                streams.remove(&id);
            }
            probe.lock().unwrap().fail = matches!(event, Event::DeviceError);
            probe.lock().unwrap().fail_copy = matches!(event, Event::CopyError);
            if let Ok(done) = engine.step(&mut || matches!(event, Event::Interrupt)) {
                for event in done.events {
                    if !event.token_ids.is_empty() {
                        firsts[event.seq_id as usize].2.get_or_insert(step);
                    }
                    let stream = streams.entry(event.seq_id).or_default();
                                        stream.extend(event.token_ids);
                    let Some(output) = event.finished else { continue };
                    let streamed = streams.remove(&output.seq_id);
                    prop_assert_eq!(streamed.as_ref(), Some(&output.token_ids), "token by token");
                    let (request, answer) = pending.remove(&output.seq_id).unwrap();
                    prop_assert_eq!(output.embedding, request.pooling.map(|pooling| embedding(pooling, &request.prompt)));
                    if request.pooling.is_some() {
                        prop_assert_eq!((output.token_ids, output.finish_reason), (vec![], FinishReason::Stop));
                        continue;
                    }
                    prop_assert_eq!((output.token_ids, output.finish_reason), oracle(&config, request, answer));
                    prop_assert_eq!(output.num_prompt_tokens, request.prompt.len());
                    let spared = output.num_cached_tokens;
                    prop_assert!(spared < request.prompt.len() || (answer > 0 && spared == request.prompt.len()));
                }
            } else {
                prop_assert!(matches!(event, Event::Interrupt | Event::DeviceError | Event::CopyError));
            }
            probe.lock().unwrap().fail = false;
            probe.lock().unwrap().fail_copy = false;
            check_books(&engine)?;
            if step > 12 && engine.is_finished() {
                break;
            }
        }
        prop_assert!(pending.is_empty(), "every accepted request ends");
        if config.policy == SchedulingPolicy::Mixed {
            for (i, &(arrival, priority, first)) in firsts.iter().enumerate() {
                let Some(first) = first else { continue };
                for &(later, other, of_other) in &firsts[i + 1..] {
                    let is_behind = other >= priority && later >= arrival;
                    prop_assert!(!is_behind || of_other.is_none_or(|of_other| first <= of_other), "one after the other");
                }
                for &(earlier, other, of_other) in &firsts[..i] {
                    let is_behind = other > priority && earlier >= arrival;
                    prop_assert!(!is_behind || of_other.is_none_or(|of_other| first <= of_other), "the more urgent first");
                }
            }
        }
        prop_assert_eq!(engine.stats().free_blocks, engine.stats().total_blocks);
    }
}
