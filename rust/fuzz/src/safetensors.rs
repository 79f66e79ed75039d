//! The target for the safetensors reader.

use nanovllm_model::{LoadError, SafeTensorsFiles};

/// Reads everything in a file.
///
/// # Errors
/// What is wrong with the file.
pub fn run(data: &[u8]) -> Result<(), LoadError> {
    let files = SafeTensorsFiles::from_bytes(data.to_vec())?;
    let mut total = 0;
    for info in files.tensors() {
        let elements: usize = info.shape.iter().product();
        assert_eq!(elements * info.dtype.bitsize(), 8 * info.len(), "{info:?}");
        assert_eq!(files.data(info).len(), info.len(), "{info:?}");
        assert_eq!(files.info(&info.name), Some(info));
        total += info.len();
    }
    assert!(total <= data.len(), "tensors share bytes");
    Ok(())
}
