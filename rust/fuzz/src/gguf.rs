//! The target for the GGUF reader, the scalar dequantisers, and the writer, which writes again what was read.

use nanovllm_gguf::{Error, GgufFile, GgufWriter, TensorSpec, TensorView, dequantize, is_supported};

/// How many blocks of a tensor are dequantised at most: all go through the same code.
const BLOCKS: usize = 8;

/// Reads everything in a file.
///
/// # Errors
/// What is wrong with the file.
pub fn run(data: &[u8]) -> Result<(), Error> {
    let file = GgufFile::from_bytes(data.to_vec())?;
    for (key, value) in file.metadata().iter() {
        assert_eq!(file.metadata().get(key).map(ToString::to_string), Some(value.to_string()));
    }
    for info in file.tensors() {
        let view = file.tensor(&info.name);
        assert!(view.is_some_and(|view| view.data.len() == info.len), "{info:?} has other data");
        if let Some(view) = view {
            decode(&view)?;
        }
    }
    rewrite(&file)
}

fn decode(view: &TensorView<'_>) -> Result<(), Error> {
    let elements = view.elements().min(BLOCKS * view.dtype.block_size());
    if let Some(head) = view.dtype.bytes_for(elements).and_then(|len| view.data.get(..len))
        && is_supported(view.dtype)
    {
        dequantize(view.dtype, head, &mut vec![0.0; elements])?;
    }
    Ok(())
}

/// Writes the file again, and checks that the same is in it.
fn rewrite(file: &GgufFile) -> Result<(), Error> {
    let alignment = file.metadata().get("general.alignment").and_then(nanovllm_gguf::Value::as_integer).unwrap_or(32);
    // Padding up to 2 GiB a tensor would be right and show nothing.
    if alignment > 4096 || file.tensors().iter().any(|info| info.name.len() > 63) {
        return Ok(());
    }
    let spec = |info: &nanovllm_gguf::TensorInfo| TensorSpec {
        name: info.name.clone(),
        dims: info.dims.clone(),
        dtype: info.dtype,
    };
    let specs: Vec<TensorSpec> = file.tensors().iter().map(spec).collect();
    let mut writer = GgufWriter::new(Vec::new(), file.metadata(), &specs)?;
    for view in specs.iter().filter_map(|spec| file.tensor(&spec.name)) {
        writer.tensor(view.name, view.data)?;
    }
    let again = GgufFile::from_bytes(writer.into_inner()?)?;
    // Compared as text, since NaN is not equal to itself.
    let pairs = |file: &GgufFile| format!("{:?}", file.metadata().iter().collect::<Vec<_>>());
    assert_eq!(pairs(&again), pairs(file));
    for spec in &specs {
        let data = |file: &GgufFile| file.tensor(&spec.name).map(|view| (view.dims.to_vec(), view.data.to_vec()));
        assert!(data(&again) == data(file), "{} has other data once written", spec.name);
    }
    Ok(())
}
