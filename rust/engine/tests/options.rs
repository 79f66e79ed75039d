//! Sampling options on a mock model, whatever the scheduler does meanwhile: small pools, chunks, neighbours, steps that fail.

#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{MockModel, VOCAB_SIZE, logits, next_token};
use nanovllm_backend::SampleRow;
use nanovllm_engine::{EngineConfig, FinishReason, LlmEngine, SamplingParams, TokenLogprobs};
use proptest::prelude::*;

/// A request with options that depend on its tokens.
#[derive(Debug, Clone)]
struct Ask {
    prompt: Vec<u32>,
    params: SamplingParams,
}

/// What a request comes to.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    token_ids: Vec<u32>,
    reason: FinishReason,
    stop_token: Option<u32>,
    logprobs: Vec<TokenLogprobs>,
    prompt_logprobs: Vec<TokenLogprobs>,
}

fn ask() -> impl Strategy<Value = Ask> {
    let token = 0..VOCAB_SIZE as u32;
    let some = |most| prop::collection::vec(token.clone(), 0..most);
    let lists = (prop::collection::vec(token.clone(), 1..20), some(3), some(4), prop::collection::vec(some(3), 0..3));
    let numbers = (1usize..12, 0usize..12, prop::option::of(0u32..4), prop::option::of(0u32..4), any::<bool>());
    let penalties = (prop_oneof![Just(1.0), Just(1.5)], prop_oneof![Just(0.0), Just(0.75)], any::<bool>());
    (lists, numbers, penalties).prop_map(|((prompt, stops, biased, bad), numbers, (repetition, frequency, few))| {
        let (max_tokens, min_tokens, logprobs, prompt_logprobs, ignore_eos) = numbers;
        let params = SamplingParams {
            temperature: 0.0,
            max_tokens,
            ignore_eos,
            stop_token_ids: stops,
            min_tokens: min_tokens.min(max_tokens),
            logit_bias: biased.iter().map(|&token| (token, 3.5)).collect(),
            allowed_token_ids: if few { (0..VOCAB_SIZE as u32).step_by(3).collect() } else { Vec::new() },
            bad_words: bad,
            repetition_penalty: repetition,
            frequency_penalty: frequency,
            logprobs,
            prompt_logprobs,
            ..SamplingParams::default()
        };
        Ask { prompt, params }
    })
}

/// The answer by the definition of each option, one token after the other, alone.
fn expected(Ask { prompt, params }: &Ask, eos: u32) -> Answer {
    let mut tokens = prompt.clone();
    let (mut reason, mut stop_token, mut logprobs) = (FinishReason::Length, None, Vec::new());
    for count in 0..params.max_tokens {
        let raw = logits(next_token(&tokens));
        let mut row = raw.clone();
        let answer = &tokens[prompt.len()..];
        params.logit_bias.iter().for_each(|&(token, bias)| row[token as usize] += bias);
        if count < params.min_tokens {
            params.stop_token_ids.iter().for_each(|&token| row[token as usize] = f32::NEG_INFINITY);
            if !params.ignore_eos {
                row[eos as usize] = f32::NEG_INFINITY;
            }
        }
        for word in &params.bad_words {
            if let Some((&last, before)) = word.split_last()
                && answer.ends_with(before)
            {
                row[last as usize] = f32::NEG_INFINITY;
            }
        }
        for (token, logit) in row.iter_mut().enumerate() {
            let (known, count) = (
                tokens.contains(&(token as u32)),
                answer.iter().filter(|&&other| other as usize == token).count() as f32,
            );
            let repetition = if known { params.repetition_penalty as f32 } else { 1.0 };
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            *logit -= params.frequency_penalty as f32 * count;
            if !params.allowed_token_ids.is_empty() && !params.allowed_token_ids.contains(&(token as u32)) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let token = SampleRow::greedy().choose(&mut row).token;
        logprobs.extend(params.logprobs.map(|top| TokenLogprobs::of(&raw, token, top)));
        tokens.push(token);
        if count + 1 >= params.min_tokens {
            let named = params.stop_token_ids.contains(&token);
            if (token == eos && !params.ignore_eos) || named {
                reason = FinishReason::Stop;
                stop_token = named.then_some(token);
                break;
            }
        }
    }
    let of_prompt = |top| {
        let place = |at: usize| TokenLogprobs::of(&logits(next_token(&prompt[..at])), prompt[at], top);
        (1..prompt.len()).map(place).collect()
    };
    let prompt_logprobs = params.prompt_logprobs.map(of_prompt).unwrap_or_default();
    Answer { token_ids: tokens.split_off(prompt.len()), reason, stop_token, logprobs, prompt_logprobs }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn options_hold_whatever_the_scheduler_does(
        asks in prop::collection::vec(ask(), 1..6),
        max_num_batched_tokens in prop_oneof![Just(1usize), Just(5), Just(64)],
        num_kvcache_blocks in prop_oneof![Just(10i64), Just(40)],
        failures in prop::collection::vec(prop::bool::weighted(0.2), 200),
        eos in 0..VOCAB_SIZE as u32,
    ) {
        let (model, probe) = MockModel::new();
        let config = EngineConfig {
            max_model_len: 64,
            kvcache_block_size: 4,
            num_kvcache_blocks,
            max_num_batched_tokens,
            eos: vec![eos],
            ..EngineConfig::default()
        };
        let mut engine = LlmEngine::new(model, config, None).unwrap();
        for Ask { prompt, params } in &asks {
            engine.add_request(prompt.clone(), params.clone()).unwrap();
        }
        let mut answers = vec![None; asks.len()];
        let mut failures = failures.into_iter();
        while !engine.is_finished() {
            probe.lock().unwrap().fail = failures.next().unwrap_or(false);
            let Ok(step) = engine.step(&mut || false) else { continue };
            for output in step.finished() {
                answers[output.seq_id as usize] = Some(Answer {
                    token_ids: output.token_ids,
                    reason: output.finish_reason,
                    stop_token: output.stop_token,
                    logprobs: output.logprobs,
                    prompt_logprobs: output.prompt_logprobs,
                });
            }
        }
        for (ask, answer) in asks.iter().zip(answers) {
            prop_assert_eq!(answer.unwrap(), expected(ask, eos), "{:?}", ask);
        }
    }
}
