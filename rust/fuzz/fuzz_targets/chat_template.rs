#![no_main]
#![allow(missing_docs)] // a program

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = nanovllm_fuzz::chat_template::run(data); // an error is an answer
});
