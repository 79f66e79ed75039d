//! tokenizer.json or a GGUF vocabulary to a tokenizers::Tokenizer; chat templates; incremental detokeniser.
