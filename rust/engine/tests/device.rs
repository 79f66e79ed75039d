//! Devices by name: those this build has, and a word about those it lacks.

#![allow(clippy::unwrap_used)] // tests

use std::path::Path;

use nanovllm_engine::EngineError;
use nanovllm_engine::device::{LoadOptions, load};

fn try_load(options: &LoadOptions) -> Result<String, EngineError> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny_llama");
    load(&model, options).map(|loaded| loaded.model.describe())
}

fn options(device: &str) -> LoadOptions {
    let device = device.to_owned();
    LoadOptions { device, num_threads: None, isa: None, activation_bits: 16, max_model_len: 64 }
}

#[test]
fn the_cpu_is_always_there() {
    assert!(try_load(&options("cpu")).unwrap().contains("on cpu ("));
}

#[test]
fn an_unknown_device_is_refused_with_those_there_are() {
    for unknown in ["cuda", "", "CPU"] {
        let message = try_load(&options(unknown)).unwrap_err().to_string();
        assert!(
            message.starts_with("device must be \"cpu\"") && message.ends_with(&format!("{unknown:?}")),
            "{message}"
        );
    }
}

#[cfg(not(feature = "candle"))]
#[test]
fn a_build_without_candle_names_the_feature() {
    for device in ["candle", "candle-f32"] {
        let message = try_load(&options(device)).unwrap_err().to_string();
        assert!(message.contains("lacks the feature \"candle\""), "{message}");
    }
}

#[cfg(feature = "candle")]
#[test]
fn candle_refuses_the_options_of_the_cpu() {
    for device in ["candle", "candle-f32"] {
        assert!(try_load(&options(device)).unwrap().contains("on candle (cpu"));
        for (field, options) in [
            ("num_threads", LoadOptions { num_threads: Some(1), ..options(device) }),
            ("isa", LoadOptions { isa: Some("scalar".into()), ..options(device) }),
            ("activation_bits", LoadOptions { activation_bits: 8, ..options(device) }),
        ] {
            assert!(matches!(try_load(&options), Err(EngineError::Config { field: named, .. }) if named == field));
        }
    }
}
