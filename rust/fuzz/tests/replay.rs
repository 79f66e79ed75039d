//! Every file of the corpus gives the outcome that its name begins with, within memory in proportion to its size.
//!
//! The tests run one at a time, for they count what the whole process allocates.
#![allow(missing_docs)] // a test

#[path = "../../gguf/tests/common/mod.rs"]
mod common;
mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::counting::{Counting, counted};
use common::strategies::edit;
use nanovllm_fuzz::TARGETS;
use proptest::prelude::*;

/// How many bytes may be allocated for any file, and how many more for each of its bytes.
const BASE: usize = 64 << 10;
const EACH: usize = 64;
/// Instead of [`BASE`] for a tokenizer that is rebuilt, which compiles regular expressions whatever its vocabulary.
const TOKENIZER_BASE: usize = 16 << 20;
/// Instead of [`BASE`] for a template, which may use memory of its own whatever its size.
const TEMPLATE_BASE: usize = 320 << 20;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Held by the test that is running.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The stored files of a target, sorted by name.
fn stored(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder(target)).expect("a corpus");
    let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read(path).expect("a file"))).collect()
}

#[test]
fn every_file_has_the_outcome_in_its_name() {
    let _alone = alone();
    let mut wrong = Vec::new();
    for target in TARGETS {
        let seeds = seeds::of(target);
        for (name, bytes) in stored(target) {
            let (kind, _) = name.split_once('-').expect("KIND-what_is_wrong");
            let base = match target {
                "tokenizer_gguf" if kind == "ok" => TOKENIZER_BASE,
                "tokenizer_directory" => TOKENIZER_BASE,
                "chat_template" => TEMPLATE_BASE,
                _ => BASE,
            };
            let (outcome, used) = counted(|| nanovllm_fuzz::run(target, &bytes));
            let (found, text) = outcome.map_or_else(|f| (f.kind, f.text), |()| ("ok".to_owned(), String::new()));
            let says = seeds.iter().find(|seed| seed.name == name).map_or("", |seed| &seed.says);
            if found != kind || !text.contains(says) {
                wrong.push(format!("{target}/{name}: {found}: {text}"));
            }
            if used > base + EACH * bytes.len() {
                wrong.push(format!("{target}/{name}: {used} bytes allocated for a file of {}", bytes.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    /// Does for a moment what a fuzzer does for minutes: changes, inserts and deletes bytes in the files of the corpus.
    #[test]
    fn a_damaged_file_is_answered_too(
        (target, name) in prop::sample::select(all()),
        edits in prop::collection::vec((edit(), any::<prop::sample::Index>()), 1..5),
    ) {
        let _alone = alone();
        let mut bytes = fs::read(folder(target).join(name)).expect("a file");
        for (edit, at) in edits {
            let at = at.index(bytes.len() + 1);
            edit.apply(&mut bytes, at);
        }
        if let Err(finding) = nanovllm_fuzz::run(target, &bytes) {
            prop_assert!(!finding.kind.is_empty() && !finding.text.is_empty());
        }
    }
}

/// The targets and names of all stored files.
fn all() -> Vec<(&'static str, String)> {
    TARGETS.iter().flat_map(|&target| stored(target).into_iter().map(move |(name, _)| (target, name))).collect()
}

/// Every seed is stored as the code in `seeds` makes it. Files that a fuzzer found may be stored too.
#[test]
fn the_seeds_are_stored() {
    let _alone = alone();
    for target in TARGETS {
        let stored = stored(target);
        for seed in seeds::of(target) {
            let file = stored.iter().find(|(name, _)| *name == seed.name);
            let same = file.is_some_and(|(_, bytes)| *bytes == seed.bytes);
            assert!(same, "{target}/{}: run `cargo test -p nanovllm-fuzz -- --ignored`", seed.name);
        }
    }
}

/// Stores the seeds. It is no test, but only tests can reach the code that makes them.
#[test]
#[ignore = "writes the corpus"]
fn write_seeds() {
    for target in TARGETS {
        fs::create_dir_all(folder(target)).expect("a folder");
        for seed in seeds::of(target) {
            fs::write(folder(target).join(&seed.name), &seed.bytes).expect("a file");
        }
    }
}
