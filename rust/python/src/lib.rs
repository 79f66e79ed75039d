//! The only crate that names pyo3: the extension module nanovllm._core.
