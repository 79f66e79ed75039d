//! Steps taken by hand on the model runner equal the engine's own, and what is not a step is refused.

#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{MockModel, VOCAB_SIZE, next_token};
use nanovllm_engine::{EngineConfig, EngineError, ModelRunner, SamplingParams, Scheduler, SchedulingPolicy, Sequence};
use nanovllm_model::ModelInput;

const BLOCK_SIZE: usize = 4;

fn config() -> EngineConfig {
    EngineConfig {
        max_num_batched_tokens: 6,
        max_model_len: 20,
        kvcache_block_size: BLOCK_SIZE,
        num_kvcache_blocks: 8,
        policy: SchedulingPolicy::NanoVllm,
        ..EngineConfig::default()
    }
}

fn runner() -> ModelRunner {
    ModelRunner::new(MockModel::new().0, &config(), None).unwrap()
}

fn sequence(seq_id: u64, token_ids: &[u32]) -> Sequence {
    let params = SamplingParams { max_tokens: 5, ..SamplingParams::default() };
    Sequence::new(seq_id, token_ids.to_vec(), params, BLOCK_SIZE).unwrap()
}

fn computed(token_ids: &[u32], block_table: &[u32]) -> Sequence {
    let mut seq = sequence(0, token_ids);
    (seq.num_scheduled_tokens, seq.block_table) = (token_ids.len(), block_table.to_vec());
    seq
}

#[test]
fn generation_by_hand_is_the_models_own_text() {
    let (mut runner, mut scheduler) = (runner(), Scheduler::new(&config(), 8).unwrap());
    let prompts: [&[u32]; 2] = [&[1, 2, 3, 4, 5, 6, 7, 8, 9], &[1, 2, 3, 4, 5]];
    for (id, prompt) in (0..).zip(prompts) {
        scheduler.add(sequence(id, prompt)).unwrap();
    }
    while !scheduler.is_finished() {
        let is_prefill = scheduler.schedule().is_prefill;
        let seqs: Vec<Sequence> = scheduler.scheduled().map(|seq| seq.copy_for_step(is_prefill)).collect();
        let token_ids = runner.run_by_hand(&seqs, is_prefill, &mut || false).unwrap();
        let input = runner.inputs().input.clone();
        let logits = runner.last_logits(&input, &mut || false).unwrap();
        for (row, &token_id) in logits.chunks(VOCAB_SIZE).zip(&token_ids) {
            assert_eq!(row.iter().position(|&logit| logit > 0.0), Some(token_id as usize));
        }
        scheduler.postprocess_all(&token_ids).unwrap();
    }
    for seq in scheduler.take_finished() {
        let mut expected = seq.prompt_token_ids().to_vec();
        for _ in 0..5 {
            expected.push(next_token(&expected));
        }
        assert_eq!(seq.token_ids(), expected);
    }
}

#[test]
fn what_is_not_a_step_of_this_cache_is_refused() {
    let refused = |seqs: &[Sequence], expected: &str| {
        let text = runner().run_by_hand(seqs, true, &mut || false).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    };
    assert_eq!(runner().run_by_hand(&[], true, &mut || false).unwrap(), [0; 0]);
    refused(&[computed(&[1, 2, 3], &[])], "3 positions and 0 slots");
    refused(&[computed(&[1, 2, 3], &[8])], "[8]");
    refused(&[computed(&[1, 2, 99], &[0])], "token id 99");
    refused(&[computed(&[1; 21], &[0, 1, 2, 3, 4, 5])], "21 tokens");
    refused(&[computed(&[1, 2], &[3]), computed(&[1, 2], &[3])], "slot 12 twice");
    let mut other = computed(&[1, 2], &[3]);
    other.set_block_size(2).unwrap();
    refused(&[other], "blocks of 2 tokens");
    let mut idle = computed(&[1, 2], &[3]);
    idle.num_scheduled_tokens = 0;
    refused(&[idle], "0 rows");
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let good = ModelInput {
        input_ids: vec![1, 2, 3],
        positions: vec![4, 5, 0],
        cu_seqlens_q: vec![0, 2, 3],
        context_lens: vec![6, 1],
        slot_mapping: vec![28, 29, -1],
        block_tables: vec![2, 7, 5, -1],
        table_stride: 2,
    };
    runner().check_input(&good).unwrap();
    let spoilt: [fn(&mut ModelInput); 12] = [
        |i| i.input_ids[0] = 50,
        |i| i.positions[0] = 3,
        |i| i.positions.truncate(2),
        |i| i.slot_mapping[0] = 27,
        |i| i.slot_mapping[2] = -2,
        |i| i.cu_seqlens_q[1] = 0,
        |i| i.cu_seqlens_q[1] = 4,
        |i| i.cu_seqlens_q[2] = 2,
        |i| i.context_lens[0] = 21,
        |i| i.context_lens[1] = 0,
        |i| i.block_tables[1] = -1,
        |i| i.table_stride = 3,
    ];
    for (i, spoil) in spoilt.into_iter().enumerate() {
        let mut input = good.clone();
        spoil(&mut input);
        assert!(runner().last_logits(&input, &mut || false).is_err(), "case {i}");
    }
    let empty = ModelInput { cu_seqlens_q: vec![0], ..ModelInput::default() };
    assert!(runner().last_logits(&empty, &mut || false).unwrap().is_empty());
    let twice = ModelInput {
        input_ids: vec![1, 2],
        positions: vec![0, 0],
        cu_seqlens_q: vec![0, 1, 2],
        context_lens: vec![1, 1],
        slot_mapping: vec![4, 4],
        block_tables: vec![1, 1],
        table_stride: 1,
    };
    assert!(matches!(runner().check_input(&twice), Err(EngineError::Precondition { .. })));
}
