//! The target for the tokenizer files of a Hugging Face directory: tokenizer.json, and after a NUL each
//! tokenizer_config.json and config.json, if there are any.

use std::fs;
use std::path::Path;

use nanovllm_tokenizer::{Error, Tokenizer};
use tempfile::TempDir;

const FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "config.json"];
const TEXT: &str = "Hello, world! It's 1234\n\n\tcafé 世界 <|im_start|>ab";

thread_local! {
    /// Where this thread writes its files, each run over those of the last one.
    static FOLDER: TempDir = tempfile::tempdir().expect("a temporary folder");
}

/// Loads the directory, encodes a text and decodes it again.
///
/// # Errors
/// What is wrong with the files, or why the text cannot be encoded with them.
///
/// # Panics
/// Where the files cannot be written.
pub fn run(data: &[u8]) -> Result<(), Error> {
    FOLDER.with(|folder| {
        write(folder.path(), data);
        let tokenizer = Tokenizer::from_dir(folder.path())?;
        for add_special_tokens in [false, true] {
            let ids = tokenizer.encode(TEXT, add_special_tokens)?;
            tokenizer.decode(&ids, !add_special_tokens)?;
        }
        Ok(())
    })
}

fn write(folder: &Path, data: &[u8]) {
    let mut parts = data.splitn(FILES.len(), |&byte| byte == 0);
    for file in FILES {
        let path = folder.join(file);
        match parts.next() {
            Some(content) => fs::write(path, content).expect("a file"),
            None if path.exists() => fs::remove_file(path).expect("a file that can be removed"),
            None => {}
        }
    }
}
