//! Devices by name: those this build has, and a word about those it lacks.

#![allow(clippy::unwrap_used)] // tests

use std::path::Path;

use nanovllm_devices::{DEVICES, Error, Given, Options, names, open, option_names};
use nanovllm_model::{Checkpoint, LoadOptions};

fn describe(device: &str, options: &[(&'static str, Given)]) -> Result<String, Error> {
    let mut given = Options::default();
    for (name, value) in options {
        given.set(name, value.clone());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny_llama");
    let checkpoint = Checkpoint::open(&path).unwrap();
    open(device, &given)
        .map(|backend| backend.load(&checkpoint, LoadOptions { max_model_len: 64, memory: None }).unwrap().describe())
}

#[test]
fn every_device_loads_a_model_and_has_memory() {
    for name in names() {
        let text = describe(name, &[]).unwrap();
        assert!(text.starts_with("Llama on "), "{text}");
        let memory = open(name, &Options::default()).unwrap().memory().unwrap();
        assert!(memory.limit > 0 && memory.available() <= memory.limit);
    }
}

#[test]
fn an_unknown_device_is_refused_with_those_there_are() {
    for unknown in ["cuda", "", "CPU"] {
        let message = describe(unknown, &[]).unwrap_err().to_string();
        assert!(
            message.starts_with("device must be \"cpu\"") && message.ends_with(&format!("{unknown:?}")),
            "{message}"
        );
    }
}

#[test]
fn options_of_the_cpu_are_its_own() {
    let text = describe("cpu", &[("isa", Given::Text("scalar".into())), ("num_threads", Given::Number(1))]).unwrap();
    assert!(text.ends_with("cpu (scalar, 1 thread)"), "{text}");
    for (name, value) in [
        ("activation_bits", Given::Number(12)),
        ("activation_bits", Given::Text("many".into())),
        ("isa", Given::Number(512)),
        ("num_threads", Given::Text("two".into())),
    ] {
        let error = describe("cpu", &[(name, value)]).unwrap_err();
        assert!(matches!(error, Error::Option { field, .. } if field == name), "{error}");
    }
    for (name, value) in [("isa", Given::Text("avx9".into())), ("num_threads", Given::Number(0))] {
        assert!(matches!(describe("cpu", &[(name, value)]).unwrap_err(), Error::Backend(_)));
    }
}

#[test]
fn options_of_another_device_are_refused_unless_they_are_left_alone() {
    let given = [
        ("num_threads", Given::Number(1)),
        ("isa", Given::Text("scalar".into())),
        ("activation_bits", Given::Number(8)),
    ];
    let defaults = [("num_threads", Given::Nothing), ("isa", Given::Nothing), ("activation_bits", Given::Number(16))];
    let cpu = DEVICES.iter().find(|row| row.name == "cpu").unwrap();
    assert!(
        cpu.options
            .iter()
            .map(|spec| (spec.name, &spec.default))
            .eq(defaults.iter().map(|(name, value)| (*name, value)))
    );
    assert!(cpu.options.iter().all(|spec| option_names().any(|name| name == spec.name)));
    for name in names().filter(|&name| name != "cpu") {
        describe(name, &defaults).unwrap();
        for option in &given {
            let error = describe(name, std::slice::from_ref(option)).unwrap_err();
            assert!(matches!(&error, Error::Option { field, .. } if *field == option.0), "{error}");
            assert!(error.to_string().contains(name) && error.to_string().contains("\"cpu\""), "{error}");
        }
    }
}

#[test]
fn an_option_that_no_device_has_is_refused() {
    for name in names() {
        let error = describe(name, &[("num_treads", Given::Number(1))]).unwrap_err().to_string();
        assert!(error.contains("num_treads") && error.contains("no device"), "{error}");
    }
}

#[cfg(not(feature = "candle"))]
#[test]
fn a_build_without_candle_names_the_feature() {
    for device in ["candle", "candle-f32"] {
        let message = describe(device, &[]).unwrap_err().to_string();
        assert!(message.contains("lacks the feature \"candle\""), "{message}");
    }
}
