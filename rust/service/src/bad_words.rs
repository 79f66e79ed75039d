//! Words that an answer must not have, as the runs of tokens that spell them.

use nanovllm_tokenizer::{Error, Tokenizer};

/// The tokens of each word, as vLLM takes them: at the beginning of a text, and after a space where that is as many tokens and
/// another first one. A word that is no token, which nothing can spell, has none.
///
/// # Errors
/// What the tokenizer says of a text that it cannot encode.
pub fn bad_word_tokens(tokenizer: &Tokenizer, words: &[String]) -> Result<Vec<Vec<u32>>, Error> {
    let mut runs: Vec<Vec<u32>> = Vec::new();
    for word in words {
        let word = word.trim_start();
        let plain = tokenizer.encode(word, false)?;
        let spaced = tokenizer.encode(&format!(" {word}"), false)?;
        let is_another = spaced.len() == plain.len() && spaced.first() != plain.first();
        runs.push(plain);
        if is_another {
            runs.push(spaced);
        }
    }
    runs.retain(|run| !run.is_empty());
    Ok(runs)
}
