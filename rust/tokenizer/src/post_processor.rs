//! Puts beginning- and end-of-sequence tokens around an encoded text.

use serde_json::{Value, json};
use tokenizers::PostProcessorWrapper;

use crate::error::Error;

/// A token and its id.
pub(crate) type TokenAndId<'a> = (&'a str, u32);

/// The post-processor that puts `bos` before and `eos` after each text; `None` when there is neither.
///
/// Built from its JSON form because the library's own template syntax cannot quote a token that holds a space, a colon
/// or a dollar sign.
pub(crate) fn around(
    bos: Option<TokenAndId<'_>>,
    eos: Option<TokenAndId<'_>>,
) -> Result<Option<PostProcessorWrapper>, Error> {
    if bos.is_none() && eos.is_none() {
        return Ok(None);
    }
    let wrap = |sequence: &str, type_id: u32| {
        let special = |(token, _): TokenAndId<'_>| json!({"SpecialToken": {"id": token, "type_id": type_id}});
        let text = json!({"Sequence": {"id": sequence, "type_id": type_id}});
        bos.map(special).into_iter().chain([text]).chain(eos.map(special)).collect::<Vec<Value>>()
    };
    let tokens: serde_json::Map<String, Value> = bos
        .iter()
        .chain(&eos)
        .map(|&(token, id)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    let pair: Vec<Value> = wrap("A", 0).into_iter().chain(wrap("B", 1)).collect();
    let template =
        json!({"type": "TemplateProcessing", "single": wrap("A", 0), "pair": pair, "special_tokens": tokens});
    serde_json::from_value(template).map(Some).map_err(|error| Error::Build(error.to_string()))
}
