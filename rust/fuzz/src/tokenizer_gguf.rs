//! The target for tokenizers rebuilt from GGUF metadata.

use nanovllm_gguf::GgufFile;
use nanovllm_tokenizer::{Error, Tokenizer};

const TEXT: &str = "Hello, world! It's 1234\n\n\tcafé 世界 <|im_start|>ab";

/// Builds the tokenizer, encodes a text and decodes it again.
///
/// # Errors
/// What is wrong with the vocabulary, or why the text cannot be encoded with it.
pub fn run(data: &[u8]) -> Result<(), Error> {
    let tokenizer = Tokenizer::from_gguf(GgufFile::from_bytes(data.to_vec())?.metadata())?;
    for add_special_tokens in [false, true] {
        let ids = tokenizer.encode(TEXT, add_special_tokens)?;
        assert!(ids.iter().all(|&id| tokenizer.id_to_token(id).is_some()), "an id that no token has");
        tokenizer.decode(&ids, !add_special_tokens)?;
    }
    Ok(())
}
