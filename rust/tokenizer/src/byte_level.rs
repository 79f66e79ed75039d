//! GPT-2's byte alphabet: every byte as one printable character.
//!
//! Printable Latin-1 bytes stand for themselves; the other 68, in order, are U+0100 to U+0143 (`encoder.py` of
//! <https://github.com/openai/gpt-2>).

/// The byte that `c` stands for, if it belongs to the alphabet.
fn byte(c: char) -> Option<u8> {
    let code = c as u32;
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,        // 0x00..=0x20: controls and space
        0x121..=0x142 => code - 0x121 + 0x7f, // 0x7f..=0xa0: delete, C1 controls, no-break space
        0x143 => 0xad,                        // soft hyphen
        _ => return None,
    };
    Some(byte as u8)
}

/// Appends the bytes that `token` stands for. A token with a character outside the alphabet (an added token such as
/// `<|数|>`) stands for its own UTF-8, which is how the `tokenizers` ByteLevel decoder reads it.
pub(crate) fn extend_with_token(bytes: &mut Vec<u8>, token: &str) {
    let start = bytes.len();
    for c in token.chars() {
        if let Some(b) = byte(c) {
            bytes.push(b);
        } else {
            bytes.truncate(start);
            bytes.extend_from_slice(token.as_bytes());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::byte;

    #[test]
    fn the_alphabet_is_the_one_gpt2_counts_out() {
        // GPT-2 numbers the unprintable bytes in order, from U+0100.
        let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let mut next = 0x100;
        for b in 0..=u8::MAX {
            let c = if printable(b) {
                char::from(b)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap()
            };
            assert_eq!(byte(c), Some(b), "{c:?}");
        }
        assert_eq!((0..=0x0010_ffff).filter_map(char::from_u32).filter_map(byte).count(), 256);
    }
}
