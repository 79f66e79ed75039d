//! Programs that step by hand, and lie: whatever they say of their sequences' blocks, no step has two rows in one slot, no
//! block is free and in use or held by a sequence that it was not given to, and requests end with the model's own text.

#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{MockModel, next_token};
use nanovllm_backend::{BlockCopy, DType, Error, KvCacheSpec, SampleRow, Sampled};
use nanovllm_engine::{BlockManager, EngineConfig, LlmEngine, SamplingParams, SchedulingPolicy, Sequence};
use nanovllm_model::{CausalLm, ModelInput, StepError};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const BLOCK_SIZE: usize = 2;
const NUM_BLOCKS: usize = 10;
const MAX_MODEL_LEN: usize = 24;

/// The mock, which trusts its input as a device does, behind what a device relies on.
struct Strict(Box<MockModel>);

fn assert_trusted(input: &ModelInput) {
    let slots: HashSet<i32> = input.slot_mapping.iter().copied().collect();
    assert_eq!(slots.len(), input.slot_mapping.len(), "rows have distinct slots");
    for s in 0..input.num_seqs() {
        let needed = (input.context_lens[s] as usize).div_ceil(BLOCK_SIZE);
        let table = &input.block_tables[s * input.table_stride..][..needed];
        assert!(table.iter().all(|&id| (0..NUM_BLOCKS as i32).contains(&id)), "blocks are the cache's: {table:?}");
        assert_eq!(table.iter().collect::<HashSet<_>>().len(), needed, "a sequence has a block once: {table:?}");
    }
}

impl CausalLm for Strict {
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn hidden_size(&self) -> usize {
        self.0.hidden_size()
    }

    fn max_model_len(&self) -> usize {
        self.0.max_model_len()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn kv_cache_spec(&self, num_blocks: usize, block_size: usize, dtype: Option<DType>) -> KvCacheSpec {
        self.0.kv_cache_spec(num_blocks, block_size, dtype)
    }

    fn allocate_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<(), Error> {
        self.0.allocate_kv_cache(spec)
    }

    fn copy_blocks(&mut self, copies: &[BlockCopy]) -> Result<(), Error> {
        let in_pool = |block: u32| (block as usize) < NUM_BLOCKS;
        assert!(copies.iter().all(|copy| in_pool(copy.from) && in_pool(copy.to) && copy.from != copy.to));
        self.0.copy_blocks(copies)
    }

    fn step(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        sampling: &[SampleRow<'_>],
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Sampled>, StepError> {
        assert_trusted(input);
        self.0.step(input, rows, sampling, interrupted)
    }

    fn hidden_states(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        take: &mut dyn FnMut(&[f32]),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError> {
        assert_trusted(input);
        self.0.hidden_states(input, rows, take, interrupted)
    }

    fn logits(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        out: &mut Vec<f32>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError> {
        assert_trusted(input);
        self.0.logits(input, rows, out, interrupted)
    }
}

/// Which block table a liar writes down.
#[derive(Debug, Clone)]
enum Table {
    /// That of the nth sequence in the scheduler.
    Stolen(usize),
    /// That of the nth sequence that the program looks after.
    OfAnother(usize),
    Made(Vec<u32>),
    Empty,
}

#[derive(Debug, Clone)]
enum Op {
    Step,
    Interrupted,
    /// Schedule, run and postprocess, by hand.
    StepByHand,
    /// Schedule by hand, and leave it at that.
    Open,
    Preempt(usize),
    Abort(usize),
    Request(Vec<u32>, usize),
    Limits(usize, usize),
    /// A sequence that the program looks after.
    Make(Vec<u32>),
    Allocate(usize),
    Compute(usize),
    Append(usize, u32),
    Deallocate(usize),
    /// Adds one to the scheduler with its block table taken off.
    Add(usize),
    /// Lies about the table of one that is new, or has blocks, in each method.
    Lie {
        of: Option<usize>,
        table: Table,
        cached: usize,
        scheduled: usize,
        method: u8,
    },
}

fn prompt() -> impl Strategy<Value = Vec<u32>> {
    // Prefixes of few streams, so that blocks are shared.
    (0u32..2, 1usize..14).prop_map(|(stream, len)| (0..len as u32).map(|i| (i * i + stream * i / 5) % 5).collect())
}

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![
        3 => (0usize..4).prop_map(Table::Stolen),
        2 => (0usize..4).prop_map(Table::OfAnother),
        2 => prop::collection::vec(0..NUM_BLOCKS as u32 + 1, 1..5).prop_map(Table::Made),
        1 => Just(Table::Empty),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let lie = (prop::option::of(0usize..4), table(), 0usize..8, 0usize..8, 0u8..3)
        .prop_map(|(of, table, cached, scheduled, method)| Op::Lie { of, table, cached, scheduled, method });
    prop_oneof![
        4 => Just(Op::Step),
        1 => Just(Op::Interrupted),
        2 => Just(Op::StepByHand),
        2 => Just(Op::Open),
        2 => (0usize..4).prop_map(Op::Preempt),
        1 => (0usize..4).prop_map(Op::Abort),
        3 => (prompt(), 1usize..8).prop_map(|(prompt, max_tokens)| Op::Request(prompt, max_tokens)),
        1 => (1usize..20, 1usize..5).prop_map(|(tokens, seqs)| Op::Limits(tokens, seqs)),
        2 => prompt().prop_map(Op::Make),
        2 => (0usize..4).prop_map(Op::Allocate),
        2 => (0usize..4).prop_map(Op::Compute),
        2 => (0usize..4, 0u32..5).prop_map(|(i, token)| Op::Append(i, token)),
        1 => (0usize..4).prop_map(Op::Deallocate),
        1 => (0usize..4).prop_map(Op::Add),
        6 => lie,
    ]
}

struct Program {
    engine: LlmEngine,
    /// Sequences that the program looks after. Their tables are never wrong; lies are told with clones.
    mine: Vec<Sequence>,
    requests: HashMap<u64, (Vec<u32>, usize)>,
}

fn get(seqs: &[Sequence], i: usize) -> Option<usize> {
    (!seqs.is_empty()).then(|| i % seqs.len())
}

impl Program {
    fn new(policy: SchedulingPolicy) -> Self {
        let config = EngineConfig {
            kvcache_block_size: BLOCK_SIZE,
            num_kvcache_blocks: NUM_BLOCKS as i64,
            max_num_batched_tokens: 9,
            max_num_seqs: 4,
            max_model_len: MAX_MODEL_LEN,
            policy,
            ..EngineConfig::default()
        };
        let engine = LlmEngine::new(Box::new(Strict(MockModel::new().0)), config, None).unwrap();
        Self { engine, mine: Vec::new(), requests: HashMap::new() }
    }

    fn books(&mut self) -> &mut BlockManager {
        self.engine.scheduler_mut().block_manager_mut()
    }

    fn queued(&self) -> Vec<&Sequence> {
        self.engine.scheduler().waiting().chain(self.engine.scheduler().running()).collect()
    }

    fn seq_id(&self, i: usize) -> Option<u64> {
        let queued = self.queued();
        (!queued.is_empty()).then(|| queued[i % queued.len()].seq_id)
    }

    fn run(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Step => self.step(&mut || false)?,
            Op::Interrupted => self.step(&mut || true)?,
            Op::StepByHand => {
                let is_prefill = self.engine.scheduler_mut().schedule().is_prefill;
                let seqs: Vec<_> = self.engine.scheduler().scheduled().map(|s| s.copy_for_step(is_prefill)).collect();
                let token_ids =
                    self.engine.model_runner_mut().unwrap().run_by_hand(&seqs, is_prefill, &mut || false).unwrap();
                self.engine.scheduler_mut().postprocess_all(&token_ids).unwrap();
                self.take_finished()?;
            }
            Op::Open => {
                self.engine.scheduler_mut().schedule();
                self.take_finished()?;
            }
            Op::Preempt(i) => {
                if let Some(seq_id) = self.seq_id(i) {
                    self.engine.scheduler_mut().preempt_by_id(seq_id).unwrap();
                }
            }
            Op::Abort(i) => {
                if let Some(seq_id) = self.seq_id(i) {
                    prop_assert!(self.engine.abort(seq_id).is_some());
                    self.requests.remove(&seq_id);
                }
            }
            Op::Request(prompt, max_tokens) => {
                let params = SamplingParams { temperature: 0.0, max_tokens, ..SamplingParams::default() };
                if let Ok(seq_id) = self.engine.add_request(prompt.clone(), params) {
                    self.requests.insert(seq_id, (prompt, max_tokens));
                }
            }
            Op::Limits(tokens, seqs) => self.engine.scheduler_mut().set_limits(tokens, seqs).unwrap(),
            Op::Make(prompt) if self.mine.len() < 4 => {
                let seq_id = 1000 + self.mine.len() as u64;
                self.mine.push(Sequence::new(seq_id, prompt, SamplingParams::default(), BLOCK_SIZE).unwrap());
            }
            Op::Make(_) => {}
            Op::Lie { of, table, cached, scheduled, method } => self.lie(of, &table, (cached, scheduled), method)?,
            Op::Allocate(i) | Op::Compute(i) | Op::Append(i, _) | Op::Deallocate(i) | Op::Add(i) => {
                if let Some(i) = get(&self.mine, i) {
                    let mut seq = self.mine.swap_remove(i);
                    self.by_hand(&op, &mut seq)?;
                    self.mine.push(seq);
                }
            }
        }
        Ok(())
    }

    fn by_hand(&mut self, op: &Op, seq: &mut Sequence) -> Result<(), TestCaseError> {
        let is_new = seq.block_table.is_empty();
        match *op {
            Op::Allocate(_) => {
                if let Some(num_cached_blocks) = self.books().can_allocate_checked(seq).unwrap() {
                    prop_assert_eq!(self.books().allocate_checked(seq, num_cached_blocks).is_ok(), is_new);
                }
            }
            Op::Append(_, token_id) => {
                if seq.num_tokens() < MAX_MODEL_LEN && seq.block_table.len() == seq.num_blocks() {
                    seq.append_by_hand(token_id);
                    let _ = self.books().may_append_checked(seq); // without a free block its table is too short
                }
            }
            Op::Compute(_) => {
                seq.num_scheduled_tokens = seq.num_tokens() - seq.num_cached_tokens;
                let copy = seq.copy_for_step(true);
                if !is_new && self.engine.model_runner_mut().unwrap().run_by_hand(&[copy], true, &mut || false).is_ok()
                {
                    self.books().hash_blocks_checked(seq).unwrap();
                    seq.num_cached_tokens += seq.num_scheduled_tokens;
                }
                seq.num_scheduled_tokens = 0;
            }
            Op::Deallocate(_) => {
                self.books().deallocate_checked(seq).unwrap();
            }
            _ => {
                let mut bare = seq.clone();
                bare.block_table.clear();
                if !is_new {
                    prop_assert!(self.engine.add_sequence(bare).is_err(), "it holds blocks, whatever it says");
                }
            }
        }
        Ok(())
    }

    /// A lie about a block table is refused and changes nothing.
    fn lie(
        &mut self,
        of: Option<usize>,
        table: &Table,
        (cached, scheduled): (usize, usize),
        method: u8,
    ) -> Result<(), TestCaseError> {
        let of = of.and_then(|i| get(&self.mine, i));
        let fresh = || Sequence::new(2000, vec![1; 9], SamplingParams::default(), BLOCK_SIZE).unwrap();
        let mut liar = of.map_or_else(fresh, |i| self.mine[i].clone());
        let truth = liar.block_table.clone();
        let queued = self.queued();
        liar.block_table = match table {
            Table::Stolen(i) if !queued.is_empty() => queued[i % queued.len()].block_table.clone(),
            Table::OfAnother(i) if !self.mine.is_empty() => self.mine[i % self.mine.len()].block_table.clone(),
            Table::Made(ids) => ids.clone(),
            _ => Vec::new(),
        };
        (liar.num_cached_tokens, liar.num_scheduled_tokens) = (cached, scheduled);
        if liar.block_table == truth {
            return Ok(()); // no lie
        }
        let before = format!("{:?}", self.books());
        let refused = match method {
            0 => self.books().deallocate_checked(&mut liar).is_err(),
            1 => self.books().may_append_checked(&mut liar).is_err(),
            // It may be about no full block.
            _ => self.books().hash_blocks_checked(&liar).is_err() || liar.block_table.is_empty(),
        };
        prop_assert!(refused, "{table:?} of {liar:?}");
        prop_assert_eq!(before, format!("{:?}", self.books()));
        Ok(())
    }

    fn step(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<(), TestCaseError> {
        let Ok(output) = self.engine.step(interrupted) else {
            prop_assert!(interrupted(), "a step fails where it was interrupted, and nowhere else");
            return Ok(());
        };
        for output in output.finished() {
            self.check_text(output.seq_id, &output.token_ids)?;
        }
        Ok(())
    }

    fn take_finished(&mut self) -> Result<(), TestCaseError> {
        let finished: Vec<Sequence> = self.engine.scheduler_mut().take_finished().collect();
        finished.iter().try_for_each(|seq| self.check_text(seq.seq_id, seq.completion_token_ids()))
    }

    /// What a request was answered; blocks that the program holds on to may have ended it early.
    fn check_text(&mut self, seq_id: u64, completion: &[u32]) -> Result<(), TestCaseError> {
        let (mut tokens, max_tokens) = self.requests.remove(&seq_id).unwrap();
        prop_assert!(completion.len() <= max_tokens);
        for &token_id in completion {
            prop_assert_eq!(token_id, next_token(&tokens), "the model's own text");
            tokens.push(token_id);
        }
        Ok(())
    }

    fn check_books(&mut self) -> Result<(), TestCaseError> {
        let mut uses = [0; NUM_BLOCKS];
        let tables = self.queued().into_iter().chain(&self.mine).flat_map(|seq| seq.block_table.clone());
        tables.for_each(|id| uses[id as usize] += 1);
        let counts: Vec<u32> = self.books().blocks().iter().map(|block| block.ref_count).collect();
        prop_assert_eq!(&counts[..], &uses[..], "a block is held by those that it was given to");
        let free: HashSet<u32> = self.books().free_block_ids().collect();
        prop_assert_eq!(free.len(), self.books().num_free_blocks());
        prop_assert!((0..).zip(&counts).all(|(id, &count)| free.contains(&id) == (count == 0)));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_program_by_hand_breaks_the_books(ops in prop::collection::vec(op(), 1..80), is_nano in any::<bool>()) {
        let policy = if is_nano { SchedulingPolicy::NanoVllm } else { SchedulingPolicy::Default };
        let mut program = Program::new(policy);
        for op in ops {
            program.run(op)?;
            program.check_books()?;
        }
        for mut seq in std::mem::take(&mut program.mine) {
            program.books().deallocate_checked(&mut seq).unwrap();
        }
        for _ in 0..500 {
            if program.engine.is_finished() {
                break;
            }
            program.step(&mut || false)?;
            program.check_books()?;
        }
        prop_assert!(program.requests.is_empty(), "every request ends");
        prop_assert_eq!(program.books().num_free_blocks(), NUM_BLOCKS);
    }
}

#[test]
fn a_table_made_by_hand_frees_no_block_of_a_running_sequence() {
    let mut program = Program::new(SchedulingPolicy::Default);
    program.run(Op::Request(vec![1, 2, 3], 8)).unwrap();
    program.run(Op::Step).unwrap();
    let table = program.queued()[0].block_table.clone();
    let mut forged = Sequence::new(9, vec![4, 4, 4], SamplingParams::default(), BLOCK_SIZE).unwrap();
    (forged.block_table, forged.num_scheduled_tokens) = (table, 3);
    let text = program.books().deallocate_checked(&mut forged).unwrap_err().to_string();
    assert!(text.contains("deallocate") && text.contains("gave it none"), "{text}");
    assert!(program.books().hash_blocks_checked(&forged).is_err());
    assert_eq!(program.books().num_free_blocks(), NUM_BLOCKS - 2);
}
