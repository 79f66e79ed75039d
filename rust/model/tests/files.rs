//! Files of a checkpoint: several as one, an index, and files that change under the loader.
#![allow(missing_docs, clippy::unwrap_used)] // a test

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use nanovllm_cpu::{CpuBackend, CpuOptions};
use nanovllm_gguf::{GgmlType, GgufFile, GgufWriter, Metadata, TensorSpec, Value};
use nanovllm_model::{Checkpoint, LoadError, LoadOptions, SafeTensorsFiles, load};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// A safetensors file with one byte tensor of each name.
fn safetensors(names: &[&str], fill: u8) -> Vec<u8> {
    let entries: Vec<String> = (0..)
        .zip(names)
        .map(|(i, name)| format!(r#""{name}":{{"dtype":"U8","shape":[1,2],"data_offsets":[{},{}]}}"#, 2 * i, 2 * i + 2))
        .collect();
    let header = format!(r#"{{"__metadata__":{{"fill":"{fill}"}},{}}}"#, entries.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![fill; 2 * names.len()]].concat()
}

fn load_on_cpu(checkpoint: &Checkpoint) -> Result<(), LoadError> {
    let options = CpuOptions { num_threads: Some(1), ..CpuOptions::default() };
    load(CpuBackend::new(options).unwrap(), checkpoint, LoadOptions { max_model_len: 64, memory: None }).map(drop)
}

fn is_shortened(error: &LoadError) -> bool {
    matches!(error, LoadError::Gguf(error) if matches!(error.kind(), nanovllm_gguf::Error::Shortened { .. }))
}

#[test]
fn a_safetensors_file_shortened_after_it_was_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("tiny_qwen3").join(file), folder.path().join(file)).unwrap();
    }
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    load_on_cpu(&checkpoint).unwrap();
    OpenOptions::new().write(true).open(folder.path().join("model.safetensors")).unwrap().set_len(100).unwrap();
    let error = load_on_cpu(&checkpoint).unwrap_err();
    assert!(is_shortened(&error) && error.to_string().contains("model.safetensors"), "{error}");
}

/// A llama whose only tensor is one of those that the loader reorders; the check must come before that.
#[test]
fn a_gguf_file_shortened_after_it_was_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", Value::String("llama".into()));
    metadata.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    for (key, value) in [
        ("embedding_length", 256),
        ("attention.head_count", 4),
        ("feed_forward_length", 64),
        ("block_count", 1),
        ("vocab_size", 256),
        ("context_length", 64),
    ] {
        metadata.set(&format!("llama.{key}"), Value::U32(value));
    }
    let specs = ["token_embd.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight"].map(|name| TensorSpec {
        name: name.into(),
        dims: if name.contains("norm") { vec![256] } else { vec![256, 256] },
        dtype: GgmlType::F32,
    });
    let mut writer = GgufWriter::create(&path, &metadata, &specs).unwrap();
    for spec in &specs {
        writer.tensor(&spec.name, &vec![0; 4 * spec.dims.iter().product::<usize>()]).unwrap();
    }
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(matches!(load_on_cpu(&checkpoint), Err(LoadError::MissingTensors { .. })));
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    let error = load_on_cpu(&checkpoint).unwrap_err();
    assert!(is_shortened(&error) && error.to_string().contains("model.gguf"), "{error}");
    assert!(GgufFile::open(&path).is_err());
}

#[test]
fn the_files_of_a_directory_are_one_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(matches!(SafeTensorsFiles::open(folder.path()), Err(LoadError::NotAModel { .. })));
    fs::write(path("a.safetensors"), safetensors(&["x", "y"], 1)).unwrap();
    fs::write(path("b.safetensors"), safetensors(&["z"], 2)).unwrap();
    fs::write(path("._b.safetensors"), "not ours").unwrap();
    let files = SafeTensorsFiles::open(folder.path()).unwrap();
    let names: Vec<_> = files.tensors().iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["x", "y", "z"]);
    assert_eq!(files.data(files.info("z").unwrap()), [2, 2]);
    assert_eq!(files.metadata()["fill"], "1");
    assert_eq!((files.info("x").unwrap().len(), &files.info("x").unwrap().shape[..]), (2, &[1, 2][..]));
    fs::write(path("c.safetensors"), safetensors(&["x"], 3)).unwrap();
    assert!(matches!(SafeTensorsFiles::open(folder.path()), Err(LoadError::DuplicateTensor { .. })));
}

#[test]
fn an_index_says_which_files_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.safetensors"), safetensors(&["x", "y"], 1)).unwrap();
    fs::write(path("b.safetensors"), safetensors(&["z"], 2)).unwrap();
    fs::write(path("consolidated.safetensors"), safetensors(&["x", "y", "z"], 3)).unwrap();
    let open = |index: &str| {
        fs::write(path("model.safetensors.index.json"), index).unwrap();
        SafeTensorsFiles::open(folder.path())
    };
    let good = r#"{"weight_map": {"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}"#;
    let files = open(good).unwrap();
    assert_eq!(files.tensors().len(), 3);
    assert_eq!(files.data(files.info("z").unwrap()), [2, 2]);
    for (index, says) in [
        ("{", "EOF"),
        ("[]", "weight_map"),
        (r#"{"weight_map": {}}"#, "weight_map"),
        (r#"{"weight_map": {"x": 1}}"#, "\"x\" is in 1"),
        (r#"{"weight_map": {"x": "../a.safetensors"}}"#, "no file of this directory"),
        (r#"{"weight_map": {"x": ".."}}"#, "no file of this directory"),
        (r#"{"weight_map": {"x": ""}}"#, "no file of this directory"),
        (r#"{"weight_map": {"z": "a.safetensors"}}"#, "\"z\" is not in \"a.safetensors\""),
        (r#"{"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}"#, "\"x\" is not in \"b.safetensors\""),
        (r#"{"weight_map": {"x": "gone.safetensors"}}"#, "gone.safetensors"),
    ] {
        let error = open(index).unwrap_err();
        assert!(error.to_string().contains(says), "{index}: {error}");
    }
}

/// The message says which file is wrong.
#[test]
fn an_error_of_the_configuration_names_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::copy(golden("tiny_qwen3/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let good = fs::read_to_string(golden("tiny_qwen3/config.json")).unwrap();
    for (text, says) in [
        ("{", "EOF"),
        (r#"{"architectures": ["Mamba"]}"#, "Mamba"),
        (&good.replace("\"hidden_size\"", "\"other\""), "hidden_size is missing"),
        (&good.replace("silu", "gelu"), "gelu"),
    ] {
        fs::write(&path, text).unwrap();
        let error = Checkpoint::open(folder.path()).err().unwrap();
        let text = error.to_string();
        assert!(text.starts_with(&*path.to_string_lossy()) && text.contains(says), "{text}");
        assert!(!matches!(error.kind(), LoadError::InFile { .. }));
    }
    // What only shows beside the tensors names the directory.
    fs::write(&path, good.replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 300")).unwrap();
    let text = load_on_cpu(&Checkpoint::open(folder.path()).unwrap()).unwrap_err().to_string();
    assert!(text.starts_with(&*folder.path().to_string_lossy()) && text.contains("num_hidden_layers is 300"), "{text}");
}

#[test]
fn a_path_beside_the_model_says_what_to_pass() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let error = |path: &Path| Checkpoint::open(path).err().unwrap();
    let nothing = error(folder.path());
    assert!(matches!(nothing, LoadError::Io { .. }), "{nothing}");
    fs::write(path("tiny-Q8_0.gguf"), "GGUF").unwrap();
    let lonely = error(folder.path());
    assert!(matches!(&lonely, LoadError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    assert!(lonely.to_string().contains("tiny-Q8_0.gguf") && lonely.to_string().contains("pass"), "{lonely}");
    fs::copy(golden("tiny_qwen3/config.json"), path("config.json")).unwrap();
    let with_config = error(folder.path());
    assert!(matches!(with_config, LoadError::NotAModel { .. }), "{with_config}");
    assert!(with_config.to_string().contains("tiny-Q8_0.gguf"), "{with_config}");
    fs::copy(golden("tiny_qwen3/model.safetensors"), path("model.safetensors")).unwrap();
    assert!(Checkpoint::open(folder.path()).is_ok(), "a directory that is a model is one, whatever else is in it");
    for name in ["model.safetensors", "config.json"] {
        let part = error(&path(name));
        assert!(matches!(part, LoadError::NotAModel { .. }), "{part}");
        let text = part.to_string();
        assert!(text.contains(name) && text.contains(&format!("pass {}", folder.path().display())), "{text}");
    }
}
