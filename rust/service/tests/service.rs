//! The loop under a driver thread and without one: many callers, aborts, a device that fails and one that panics. Every caller
//! gets its events or an error, and nothing waits for ever.

#![allow(clippy::unwrap_used)] // tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{MockModel, Trouble, next_token};
use nanovllm_engine::{EngineConfig, EngineError, LlmEngine, SamplingParams};
use nanovllm_service::{Call, Computed, Event, Request, Service, ServiceError, Watch};
use nanovllm_tokenizer::Tokenizer;

/// Longer than any test takes; a caller that reaches it has waited for ever.
const FOREVER: Duration = Duration::from_secs(20);

fn service(trouble: &Arc<Trouble>) -> Arc<Service> {
    service_with(trouble, None)
}

fn service_with(trouble: &Arc<Trouble>, tokenizer: Option<Arc<Tokenizer>>) -> Arc<Service> {
    let config =
        EngineConfig { max_model_len: 64, kvcache_block_size: 4, num_kvcache_blocks: 60, ..EngineConfig::default() };
    let engine = LlmEngine::new(Box::new(MockModel::new(Arc::clone(trouble))), config, None).unwrap();
    Service::new(engine, tokenizer)
}

fn request(seq_id: u64, max_tokens: usize) -> Request {
    let params = SamplingParams { temperature: 0.0, max_tokens, ignore_eos: true, ..SamplingParams::default() };
    let token_ids = (0..=seq_id % 7).map(|i| (seq_id + i) as u32 % 50).collect();
    Request::new(seq_id, token_ids, params)
}

/// The text that the mock model gives a request.
fn oracle(request: &Request) -> Vec<u32> {
    let mut tokens = request.token_ids.clone();
    (0..request.params.max_tokens).for_each(|_| tokens.push(next_token(&tokens)));
    tokens.split_off(request.token_ids.len())
}

/// Waits for a call to end: all its events, or the error that ended it.
fn collect(call: &mut Call) -> Result<Vec<Event>, ServiceError> {
    let started = Instant::now();
    let mut events = Vec::new();
    while call.pending() > 0 {
        assert!(started.elapsed() < FOREVER, "a caller waits for ever");
        let until = Instant::now() + Duration::from_millis(100);
        events.extend(call.advance(until, &mut || false)?.events);
    }
    Ok(events)
}

fn finished(event: &Event) -> Option<(u64, &[u32])> {
    match event {
        Event::Finished { output, .. } => Some((output.seq_id, &output.token_ids)),
        _ => None,
    }
}

/// The pool's blocks that are free, and all of them, once the engine has been told everything.
fn blocks(service: &Service) -> (usize, usize) {
    let mut turn = service.engine().lock().unwrap();
    let stats = turn.as_mut().unwrap().engine().stats();
    (stats.free_blocks, stats.total_blocks)
}

/// Runs callers side by side, each on a thread, and ends the driver thread afterwards if there is one.
fn side_by_side(service: &Arc<Service>, callers: u64, driven: bool, caller: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        let driver = driven.then(|| scope.spawn(|| service.drive()));
        let threads: Vec<_> = (0..callers)
            .map(|i| {
                scope.spawn({
                    let caller = &caller;
                    move || caller(i)
                })
            })
            .collect();
        // The driver first: a caller that panicked is no reason to wait for ever.
        let ended: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        service.end().unwrap();
        if let Some(driver) = driver {
            let _ = driver.join().unwrap();
        }
        for result in ended {
            result.unwrap();
        }
    });
}

#[test]
fn sixteen_callers_get_their_own_answers() {
    for driven in [false, true] {
        let service = service(&Arc::default());
        side_by_side(&service, 16, driven, |caller| {
            for round in 0..5 {
                let ids = (0..3).map(|i| 1000 * caller + 10 * round + i);
                let requests: Vec<Request> = ids.map(|id| request(id, 1 + (id % 9) as usize)).collect();
                let mut call = service.submit(requests.clone()).unwrap();
                let events = collect(&mut call).unwrap();
                let mut answers: Vec<_> = events.iter().map(|event| finished(event).unwrap()).collect();
                answers.sort_by_key(|&(seq_id, _)| seq_id);
                let expected: Vec<Vec<u32>> = requests.iter().map(oracle).collect();
                let expected: Vec<_> = requests.iter().zip(&expected).map(|(r, t)| (r.seq_id, &t[..])).collect();
                assert_eq!(answers, expected);
            }
        });
        let (free, all) = blocks(&service);
        assert_eq!(free, all, "driven: {driven}");
    }
}

#[test]
fn calls_that_are_dropped_leave_nothing_behind() {
    for driven in [false, true] {
        let service = service(&Arc::default());
        let answered = AtomicUsize::new(0);
        side_by_side(&service, 16, driven, |caller| {
            for round in 0..20u64 {
                let id = 1000 * caller + round;
                let mut call = service.submit(vec![request(id, 20), request(id + 500, 3)]).unwrap();
                if (caller + round) % 3 == 0 {
                    continue; // dropped before it has waited
                }
                let _ = call.advance(Instant::now() + Duration::from_micros(50 * round), &mut || false);
                if (caller + round) % 3 == 1 {
                    drop(call); // in the middle
                } else {
                    let last = collect(&mut call).unwrap();
                    answered.fetch_add(last.len().min(1), Ordering::Relaxed);
                }
            }
        });
        assert!(answered.into_inner() > 0);
        let (free, all) = blocks(&service);
        assert_eq!(free, all, "driven: {driven}");
        let (events, _) = service.step(&mut || false).unwrap();
        assert!(events.is_empty(), "news of a call that is gone: {events:?}");
        assert!(service.is_finished().unwrap());
    }
}

#[test]
fn a_request_that_another_caller_aborts_ends_with_an_error() {
    for driven in [false, true] {
        let service = service(&Arc::default());
        side_by_side(&service, 16, driven, |caller| {
            let mut call = service.submit(vec![request(2 * caller, 40), request(2 * caller + 1, 5)]).unwrap();
            let victim = 2 * ((caller + 1) % 16);
            let _ = service.abort(victim).unwrap();
            let events = collect(&mut call).unwrap();
            assert_eq!(events.len(), 2);
            for event in &events {
                match event {
                    Event::Finished { output, .. } => {
                        let asked = request(output.seq_id, output.token_ids.len());
                        assert_eq!(output.token_ids, oracle(&asked));
                    }
                    Event::Failed { seq_id, error } => {
                        assert!(*seq_id == 2 * caller && matches!(error, ServiceError::Aborted), "{error}");
                    }
                    Event::Tokens { .. } => panic!("nobody watches tokens"),
                }
            }
        });
        assert!(!service.abort(999).unwrap(), "there is none of that id");
        let (free, all) = blocks(&service);
        assert_eq!(free, all);
    }
}

#[test]
fn a_step_that_fails_is_somebodys_error() {
    // Without a driver thread whoever drives gets it; the requests of the others go on.
    let trouble = Arc::new(Trouble::default());
    let service = service(&trouble);
    trouble.fail_at(3);
    let failed = AtomicUsize::new(0);
    side_by_side(&service, 4, false, |caller| {
        let mut call = service.submit(vec![request(caller, 9)]).unwrap();
        match collect(&mut call) {
            Ok(events) => assert_eq!(finished(&events[0]).unwrap().1, oracle(&request(caller, 9))),
            Err(error) => {
                assert!(matches!(error, ServiceError::Engine(_)), "{error}");
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert_eq!(failed.into_inner(), 1);

    // With one, every caller whose request it may have concerned is told.
    let trouble = Arc::new(Trouble::default());
    let service = self::service(&trouble);
    side_by_side(&service, 1, true, |_| {
        // A call that nobody advances: once there are steps, the driver thread takes them.
        let waiting = service.submit(vec![request(0, 9)]).unwrap();
        while trouble.steps() == 0 {
            std::thread::yield_now();
        }
        drop(waiting);
        trouble.fail_at(trouble.steps() + 2);
        let mut call = service.submit(vec![request(1, 9), request(2, 9)]).unwrap();
        let events = collect(&mut call).unwrap();
        let is_failure = |event: &Event| matches!(event, Event::Failed { error: ServiceError::Engine(_), .. });
        assert!(events.len() == 2 && events.iter().all(is_failure), "{events:?}");
        let mut again = service.submit(vec![request(3, 9)]).unwrap();
        assert_eq!(finished(&collect(&mut again).unwrap()[0]).unwrap().1, oracle(&request(3, 9)));
    });
    assert_eq!(blocks(&service).0, blocks(&service).1);
}

#[test]
fn a_device_that_panics_ends_every_wait() {
    for driven in [false, true] {
        let trouble = Arc::new(Trouble::default());
        let service = service(&trouble);
        let told = AtomicUsize::new(0);
        trouble.panic_at(7);
        side_by_side(&service, 16, driven, |caller| {
            for round in 0..10 {
                let error = match service.submit(vec![request(100 * caller + round, 6)]) {
                    Ok(mut call) => match collect(&mut call) {
                        Ok(events) => match &events[0] {
                            Event::Failed { error, .. } => error.clone(),
                            _ => continue,
                        },
                        Err(error) => error,
                    },
                    Err(error) => error,
                };
                assert!(matches!(&error, ServiceError::Panicked(text) if text.contains("on purpose")), "{error}");
                told.fetch_add(1, Ordering::Relaxed);
                return;
            }
        });
        assert_eq!(told.into_inner(), 16, "driven: {driven}");
        assert!(matches!(service.step(&mut || false), Err(ServiceError::Panicked(_))));
        // Whatever is called from here on says so too, by hand as well, and the model can be freed all the same.
        let told = [
            service.is_finished().unwrap_err().to_string(),
            service.abort(1).unwrap_err().to_string(),
            service.add(request(1, 1)).unwrap_err().to_string(),
            service.engine().lock().err().unwrap().to_string(),
        ];
        assert!(
            told.iter().all(|text| text.contains("the engine is unusable") && text.contains("on purpose")),
            "{told:?}"
        );
        assert!(service.close().unwrap().is_none());
        assert!(service.engine().try_salvage().unwrap().is_none(), "the engine is gone");
        assert!(matches!(service.step(&mut || false), Err(ServiceError::Panicked(_))));
    }
}

#[test]
fn requests_are_checked_while_the_engine_computes() {
    let service = service(&Arc::default());
    let mut bad = request(1, 5);
    bad.token_ids = vec![50];
    let turn = service.engine().lock().unwrap();
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| service.submit(vec![request(0, 5), bad]).map(|_| ())).join().unwrap();
        let told =
            matches!(&refused, Err(ServiceError::Engine(e)) if matches!(**e, EngineError::TokenOutOfRange { .. }));
        assert!(told, "{refused:?}");
        let twice = scope.spawn(|| service.submit(vec![request(3, 5), request(3, 5)]).map(|_| ())).join().unwrap();
        assert!(twice.unwrap_err().to_string().contains("already in use"));
    });
    drop(turn);
    assert!(service.is_finished().unwrap(), "a call is taken whole or not at all");
}

#[test]
fn an_id_that_somebody_added_by_hand_is_refused() {
    let service = service(&Arc::default());
    let by_hand = |turn: &mut Option<nanovllm_service::Driver>, id| {
        let Request { token_ids, params, .. } = request(id, 4);
        turn.as_mut().unwrap().engine().add_request_with_id(id, token_ids, params).unwrap();
    };
    by_hand(&mut service.engine().lock().unwrap(), 5);
    assert!(service.add(request(5, 4)).unwrap_err().to_string().contains("already in use"));
    // While somebody has the engine's turn the refusal is an event, and what was added by hand goes on.
    let mut call = {
        let mut turn = service.engine().lock().unwrap();
        by_hand(&mut turn, 6);
        std::thread::scope(|scope| scope.spawn(|| service.submit(vec![request(6, 4)])).join().unwrap()).unwrap()
    };
    let told = collect(&mut call).unwrap();
    let refused = |error: &ServiceError| error.to_string().contains("already in use");
    assert!(matches!(&told[..], [Event::Failed { seq_id: 6, error }] if refused(error)), "{told:?}");
    let mut nobodys = Vec::new();
    while !service.is_finished().unwrap() {
        nobodys.extend(service.step(&mut || false).unwrap().0.iter().map(Event::seq_id));
    }
    nobodys.sort_unstable();
    assert_eq!(nobodys, [5, 6]);
}

#[test]
fn a_call_whose_requests_were_dropped_by_hand_does_not_wait() {
    let service = service(&Arc::default());
    let mut call = service.submit(vec![request(6, 4)]).unwrap();
    service.engine().lock().unwrap().as_mut().unwrap().engine().abort(6).unwrap();
    let told = collect(&mut call).unwrap();
    assert!(matches!(&told[..], [Event::Failed { seq_id: 6, error: ServiceError::Aborted }]), "{told:?}");
}

/// What steps by hand have ended is no request any more: not for a call, with a driver thread or without, nor for `step`.
#[test]
fn requests_that_end_by_hand_are_over() {
    let by_hand = |service: &Service| loop {
        let mut turn = service.engine().lock().unwrap();
        let engine = turn.as_mut().unwrap().engine();
        if engine.is_finished() {
            break;
        }
        engine.step(&mut || false).unwrap();
    };
    let service = service(&Arc::default());
    let mut call = service.submit(vec![request(6, 4)]).unwrap();
    service.add(request(7, 4)).unwrap();
    by_hand(&service);
    assert!(matches!(collect(&mut call).map(|events| events.len()), Ok(1) | Err(ServiceError::Aborted)));
    assert!(service.is_finished().unwrap() && !service.abort(7).unwrap());
    service.add(request(7, 1)).unwrap();
    assert!(service.abort(7).unwrap());
    side_by_side(&service, 1, true, |_| {
        let mut call = service.submit(vec![request(8, 40)]).unwrap();
        by_hand(&service);
        let events = collect(&mut call).unwrap();
        assert_eq!(events.len(), 1, "its answer, or that it is gone");
    });
}

#[test]
fn a_thread_that_drives_cannot_wait_for_itself() {
    let service = service(&Arc::default());
    let mut outer = service.submit(vec![request(0, 30)]).unwrap();
    let mut refused = 0;
    let mut interrupted = || {
        let mut inner = service.submit(vec![request(1, 3)]).unwrap();
        refused += usize::from(inner.advance(Instant::now() + FOREVER, &mut || false).is_err());
        false
    };
    // The mock's steps have no slices, so the question is asked here, in the engine's turn.
    let turn = service.engine().lock().unwrap();
    interrupted();
    drop(turn);
    assert_eq!(refused, 1);
    assert_eq!(collect(&mut outer).unwrap().len(), 1);
}

#[test]
fn step_hands_out_what_nobody_waits_for() {
    let service = service(&Arc::default());
    let mut call = service.submit(vec![request(0, 3)]).unwrap();
    service.add(request(1, 3)).unwrap();
    assert!(!service.is_finished().unwrap());
    let mut seen = Vec::new();
    while !service.is_finished().unwrap() {
        seen.extend(service.step(&mut || false).unwrap().0);
    }
    assert_eq!(seen.iter().filter_map(finished).map(|(id, _)| id).collect::<Vec<_>>(), [1]);
    let events = collect(&mut call).unwrap();
    assert_eq!(finished(&events[0]).unwrap(), (0, &oracle(&request(0, 3))[..]));
    assert!(!service.abort(0).unwrap() && !service.abort(1).unwrap());
    service.add(request(2, 1)).unwrap();
    assert!(service.abort(2).unwrap());
    assert!(service.is_finished().unwrap());
}

#[test]
fn what_was_computed_is_counted() {
    let trouble = Arc::new(Trouble::default());
    let service = service(&trouble);
    let requests = [request(3, 5), request(4, 2)];
    let prompts = requests.iter().map(|request| request.token_ids.len() as u64).sum();
    let mut call = service.submit(requests.to_vec()).unwrap();
    assert_eq!(service.computed().unwrap(), Computed::default());
    trouble.fail_at(1);
    assert!(call.advance(Instant::now() + FOREVER, &mut || false).is_err());
    assert_eq!(service.computed().unwrap(), Computed::default(), "a step that is taken back does not count");
    collect(&mut call).unwrap();
    assert_eq!(service.computed().unwrap(), Computed { prefilled: prompts, generated: 7 });
}

#[test]
fn tokens_are_told_to_those_who_watch() {
    let service = service(&Arc::default());
    let watched = Request { watch: Watch::Tokens, ..request(0, 6) };
    let mut call = service.submit(vec![watched, request(1, 6)]).unwrap();
    let events = collect(&mut call).unwrap();
    let tokens: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            Event::Tokens { seq_id: 0, token_ids, text: None, .. } => Some(token_ids.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(tokens, oracle(&request(0, 6)));
    assert_eq!(events.iter().filter(|event| event.seq_id() == 1).count(), 1, "only its result");
}

#[test]
fn text_is_told_to_those_who_watch_it() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny_qwen3");
    let tokenizer = Arc::new(Tokenizer::from_dir(&path).unwrap());
    let service = service_with(&Arc::default(), Some(Arc::clone(&tokenizer)));
    let watched = |id| Request { watch: Watch::Text, ..request(id, 12) };
    let mut call = service.submit(vec![watched(0), watched(1), request(2, 12)]).unwrap();
    let mut texts = [const { String::new() }; 3];
    let mut ends = 0;
    for event in collect(&mut call).unwrap() {
        let seq_id = event.seq_id() as usize;
        match event {
            Event::Tokens { text, .. } => texts[seq_id].push_str(&text.unwrap()),
            Event::Finished { text, .. } => {
                texts[seq_id].push_str(&text.unwrap_or_default());
                ends += 1;
            }
            Event::Failed { error, .. } => panic!("{error}"),
        }
    }
    assert_eq!(ends, 3);
    for id in [0, 1] {
        assert_eq!(texts[id as usize], tokenizer.decode(&oracle(&request(id, 12)), false).unwrap());
    }
    assert_eq!(texts[2], "", "nobody watches it");
}

/// Nanoseconds of processor time that the thread of this directory under /proc has taken.
#[cfg(target_os = "linux")]
fn processor_time(task: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(task.join("schedstat")).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_driver_sleeps_and_wakes() {
    let service = service(&Arc::default());
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let service = &service;
        let driver = scope.spawn(move || {
            tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            service.drive()
        });
        let task = std::path::Path::new("/proc").join(told.recv().unwrap());
        let mut busiest = 0;
        for id in 0..5 {
            let mut call = service.submit(vec![request(id, 2)]).unwrap();
            assert_eq!(collect(&mut call).unwrap().len(), 1);
            std::thread::sleep(Duration::from_millis(20));
            let before = processor_time(&task);
            std::thread::sleep(Duration::from_millis(100));
            let taken = processor_time(&task) - before;
            busiest = busiest.max(taken);
        }
        service.end().unwrap();
        driver.join().unwrap().unwrap();
        assert!(busiest < 1_000_000, "an idle driver took {busiest} ns of 100 ms");
    });
}

#[test]
fn a_closed_service_refuses_and_wakes_those_who_wait() {
    let service = service(&Arc::default());
    let mut call = service.submit(vec![request(0, 30)]).unwrap();
    let engine = service.close().unwrap();
    assert!(engine.is_some() && service.close().unwrap().is_none());
    let told = collect(&mut call).map(|events| matches!(events[0], Event::Failed { error: ServiceError::Closed, .. }));
    assert!(told.unwrap());
    assert!(matches!(service.submit(vec![request(1, 1)]).map(|_| ()), Err(ServiceError::Closed)));
    assert!(matches!(service.drive(), Err(ServiceError::Closed)));
}
