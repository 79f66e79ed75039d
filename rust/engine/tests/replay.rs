//! Replays behaviour recorded from nano-vLLM itself: 250 scheduler programs step by step, and 200 block hashes.
//!
//! Where a recording ends in nano-vLLM's AssertionError, the steps before it must still be equal; then the engine's own
//! answer is checked: the sequence that the pool cannot hold finishes with `length`, and everything else runs to its end.

#![allow(clippy::unwrap_used)] // tests

use nanovllm_engine::{
    EngineConfig, FinishReason, SamplingParams, Scheduler, SchedulingPolicy, Sequence, SequenceStatus, StepInputs,
    compute_hash,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;

fn recording() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/nano_vllm_traces.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn size(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn tokens(value: &Value) -> Vec<u32> {
    list(value).iter().map(|token| size(token) as u32).collect()
}

fn hash(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn hashes() {
    let recording = recording();
    let hashes = list(&recording["hashes"]);
    assert_eq!(hashes.len(), 200);
    for case in hashes {
        let (tokens, expected) = (tokens(&case["tokens"]), hash(&case["hash"]));
        assert_eq!(compute_hash(&tokens, None), expected);
        assert_eq!(compute_hash(&tokens, Some(expected)), hash(&case["chained"]));
    }
}

#[test]
fn programs() {
    let recording = recording();
    let programs = list(&recording["traces"]);
    assert_eq!(programs.len(), 250);
    let (mut steps, mut deaths) = (0, 0);
    for (i, program) in programs.iter().enumerate() {
        let mut replay = Replay::new(i, program);
        replay.recorded_steps();
        steps += replay.step;
        if program["error"].is_null() {
            replay.final_state();
        } else {
            deaths += 1;
            replay.our_answer();
        }
        let pool = replay.scheduler.block_manager();
        assert_eq!(pool.num_free_blocks(), pool.num_blocks(), "program {i} leaks blocks");
    }
    assert_eq!((steps, deaths), (6588, 71));
}

struct Replay<'a> {
    name: usize,
    program: &'a Value,
    config: EngineConfig,
    scheduler: Scheduler,
    inputs: StepInputs,
    step: usize,
    num_added: usize,
    finished: BTreeMap<u64, Sequence>,
}

impl<'a> Replay<'a> {
    fn new(name: usize, program: &'a Value) -> Self {
        let recorded = &program["config"];
        let config = EngineConfig {
            max_num_seqs: size(&recorded["max_num_seqs"]),
            max_num_batched_tokens: size(&recorded["max_num_batched_tokens"]),
            max_model_len: 1 << 20,
            eos: vec![size(&recorded["eos"]) as u32],
            kvcache_block_size: size(&recorded["kvcache_block_size"]),
            policy: SchedulingPolicy::NanoVllm,
            ..Default::default()
        };
        let scheduler = Scheduler::new(&config, size(&recorded["num_kvcache_blocks"])).unwrap();
        let (inputs, finished) = (StepInputs::default(), BTreeMap::new());
        Self { name, program, config, scheduler, inputs, step: 0, num_added: 0, finished }
    }

    fn add_requests(&mut self, due: impl Fn(usize) -> bool) {
        for request in list(&self.program["requests"]).iter().filter(|request| due(size(&request["at"]))) {
            let params = SamplingParams {
                temperature: request["temperature"].as_f64().unwrap(),
                max_tokens: size(&request["max_tokens"]),
                ignore_eos: request["ignore_eos"].as_bool().unwrap(),
                ..SamplingParams::default()
            };
            let prompt = tokens(&request["tokens"]);
            let seq = Sequence::new(self.num_added as u64, prompt, params, self.config.kvcache_block_size).unwrap();
            self.scheduler.add(seq).unwrap();
            self.num_added += 1;
        }
    }

    fn recorded_steps(&mut self) {
        for recorded in list(&self.program["steps"]) {
            let step = self.step;
            self.add_requests(|at| at == step);
            if recorded.is_null() {
                assert!(self.scheduler.is_finished(), "program {} step {step} should be idle", self.name);
            } else {
                self.one_step(recorded);
            }
            self.step += 1;
        }
    }

    fn one_step(&mut self, recorded: &Value) {
        let schedule = self.scheduler.schedule();
        self.expect("prefill", &json!(schedule.is_prefill), &recorded["prefill"]);
        let scheduled: Vec<Value> = self.scheduler.scheduled().map(describe).collect();
        self.expect("scheduled", &Value::from(scheduled), &recorded["scheduled"]);
        assert_eq!(schedule.num_seqs, self.scheduler.scheduled().len());
        assert_eq!(schedule.num_tokens, self.scheduler.scheduled().map(|seq| seq.num_scheduled_tokens).sum::<usize>());
        let prepared = self.prepared(schedule.is_prefill);
        self.expect("inputs", &prepared, &recorded["inputs"]);

        let ids: Vec<u64> = self.scheduler.scheduled().map(|seq| seq.seq_id).collect();
        // nano-vLLM samples for every sequence and drops the token of an unfinished prefill; here there is none to drop.
        let done = |seq: &&Value| size(&seq["cached"]) + size(&seq["sched"]) == size(&seq["n"]);
        let sampled = tokens(&recorded["sampled"]).into_iter().zip(list(&recorded["scheduled"]));
        let sampled: Vec<u32> = sampled.filter(|(_, seq)| done(seq)).map(|(token, _)| token).collect();
        self.scheduler.postprocess(&sampled).unwrap();

        self.finished.extend(self.scheduler.take_finished().map(|seq| (seq.seq_id, seq)));
        let after: Vec<Value> = ids.iter().map(|id| describe(self.sequence(*id))).collect();
        self.expect("after", &Value::from(after), &recorded["after"]);
        let queue = |seqs: Vec<&Sequence>| seqs.iter().map(|seq| seq.seq_id).collect::<Value>();
        self.expect("waiting", &queue(self.scheduler.waiting().collect()), &recorded["waiting"]);
        self.expect("running", &queue(self.scheduler.running().collect()), &recorded["running"]);
        self.expect("blocks", &self.blocks(), &recorded["blocks"]);
    }

    /// nano-vLLM's arguments, from ours: it leaves out context lengths in a prefill, offsets in a decode step, and
    /// block tables where nothing is cached.
    fn prepared(&mut self, is_prefill: bool) -> Value {
        let inputs = &mut self.inputs;
        if is_prefill {
            inputs.prepare_prefill(self.scheduler.scheduled());
        } else {
            inputs.prepare_decode(self.scheduler.scheduled());
        }
        inputs.prepare_sample(self.scheduler.scheduled());
        assert_eq!(inputs.rows.len(), self.scheduler.num_sampling());
        let input = &inputs.input;
        assert_eq!(input.num_seqs(), self.scheduler.scheduled().len());
        let tables: Vec<&[i32]> = input.block_tables.chunks(input.table_stride).collect();
        assert_eq!(tables.len(), input.num_seqs());
        if !is_prefill {
            assert!(input.cu_seqlens_q.iter().copied().eq(0..=input.num_seqs() as u32));
        }
        json!({
            "input_ids": input.input_ids,
            "positions": input.positions,
            "cu_seqlens_q": is_prefill.then_some(&input.cu_seqlens_q),
            "cu_seqlens_k": is_prefill.then(|| inputs.cu_seqlens_k().collect::<Vec<_>>()),
            "max_seqlen_q": if is_prefill { inputs.max_seqlen_q() } else { 0 },
            "max_seqlen_k": if is_prefill { inputs.max_seqlen_k() } else { 0 },
            "slot_mapping": input.slot_mapping,
            "context_lens": (!is_prefill).then_some(&input.context_lens),
            "block_tables": (!is_prefill || inputs.has_prefix_cache()).then_some(tables),
        })
    }

    fn blocks(&self) -> Value {
        let pool = self.scheduler.block_manager();
        let mut map: Vec<(String, u32)> = pool.hash_to_block_id().iter().map(|(h, id)| (h.to_string(), *id)).collect();
        map.sort();
        let hash = |hash: Option<u64>| hash.map_or("-1".to_owned(), |hash| hash.to_string());
        json!({
            "free": pool.free_block_ids().collect::<Vec<_>>(),
            "used": pool.used_block_ids().collect::<Vec<_>>(),
            "ref": pool.blocks().iter().map(|block| block.ref_count).collect::<Vec<_>>(),
            "hash": pool.blocks().iter().map(|block| hash(block.hash)).collect::<Vec<_>>(),
            "map": map,
        })
    }

    fn final_state(&self) {
        assert!(self.scheduler.is_finished());
        let recorded = list(&self.program["final"]);
        assert_eq!(recorded.len(), self.finished.len());
        for last in recorded {
            let seq = &self.finished[&(size(&last["id"]) as u64)];
            assert_eq!(seq.token_ids(), tokens(&last["tokens"]));
            assert_eq!(seq.completion_token_ids(), tokens(&last["completion"]));
            let stopped = !seq.params.ignore_eos && self.config.eos.contains(&seq.last_token());
            assert_eq!(seq.finish_reason, Some(if stopped { FinishReason::Stop } else { FinishReason::Length }));
        }
    }

    /// The step that kills nano-vLLM, and everything after it.
    fn our_answer(&mut self) {
        let step = self.step;
        self.add_requests(|at| at == step);
        let (num_finished, capacity) = (self.finished.len(), self.scheduler.block_manager().num_blocks());
        let mut ended_by_pool = self.computed_step(capacity);
        assert!(ended_by_pool > 0 && self.finished.len() > num_finished, "program {}: nothing ended", self.name);
        self.add_requests(|at| at > step);
        while !self.scheduler.is_finished() {
            ended_by_pool += self.computed_step(capacity);
        }
        assert!(ended_by_pool <= self.finished.len());
        assert_eq!(self.finished.len(), list(&self.program["requests"]).len());
    }

    /// One step with made-up tokens; returns how many sequences the pool ended.
    fn computed_step(&mut self, capacity: usize) -> usize {
        self.scheduler.schedule();
        let mut ended_by_pool = 0;
        for seq in self.scheduler.take_finished() {
            assert_eq!((seq.status, seq.finish_reason), (SequenceStatus::Finished, Some(FinishReason::Length)));
            assert!(seq.block_table.is_empty());
            // As many tokens as the pool holds and the one chosen from them; or a prompt that never fitted.
            let full = capacity * seq.block_size() + 1;
            assert!(seq.num_tokens() == full || (seq.num_tokens() > full && seq.num_completion_tokens() == 0));
            ended_by_pool += 1;
            self.finished.insert(seq.seq_id, seq);
        }
        let sampled = vec![1; self.scheduler.num_sampling()];
        self.scheduler.postprocess(&sampled).unwrap();
        self.finished.extend(self.scheduler.take_finished().map(|seq| (seq.seq_id, seq)));
        ended_by_pool
    }

    fn sequence(&self, id: u64) -> &Sequence {
        self.scheduler.get(id).unwrap_or_else(|| &self.finished[&id])
    }

    fn expect(&self, what: &str, got: &Value, recorded: &Value) {
        assert_eq!(got, recorded, "program {} step {}: {what}", self.name, self.step);
    }
}

fn describe(seq: &Sequence) -> Value {
    let status = match seq.status {
        SequenceStatus::Waiting => "WAITING",
        SequenceStatus::Running => "RUNNING",
        SequenceStatus::Finished => "FINISHED",
    };
    json!({
        "id": seq.seq_id, "status": status, "n": seq.num_tokens(), "cached": seq.num_cached_tokens,
        "sched": seq.num_scheduled_tokens, "table": seq.block_table, "prefill": seq.is_prefill, "last": seq.last_token(),
    })
}
