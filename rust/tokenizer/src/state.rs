//! A tokenizer as one text, for whoever sends it to another process.

use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer as HfTokenizer;

use crate::chat::ChatTemplates;
use crate::error::Error;
use crate::library::guarded;
use crate::parts::Parts;
use crate::settings::Settings;
use crate::special::{ROLES, SpecialTokens};

/// [`Parts`] as they are written. The names are part of no interface: a state is read by the version that wrote it.
#[derive(Serialize, Deserialize)]
struct State<T> {
    tokenizer: T,
    roles: Vec<(String, String)>,
    additional: Vec<String>,
    eos_token_ids: Vec<u32>,
    templates: Vec<(String, String)>,
    settings: Settings,
}

/// The state as JSON.
pub(crate) fn write(parts: &Parts) -> Result<String, Error> {
    let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
    let state = State {
        tokenizer: &parts.tokenizer,
        roles: parts.special.iter().map(owned).collect(),
        additional: parts.special.additional().to_vec(),
        eos_token_ids: parts.special.eos_token_ids().to_vec(),
        templates: parts.templates.iter().map(owned).collect(),
        settings: parts.settings.clone(),
    };
    serde_json::to_string(&state).map_err(|error| Error::Tokenizer(error.to_string()))
}

/// What [`write`] has written.
pub(crate) fn read(text: &str) -> Result<Parts, Error> {
    let state: State<HfTokenizer> = guarded(|| serde_json::from_str(text)).map_err(Error::State)?;
    let mut special = SpecialTokens::default();
    for (name, token) in &state.roles {
        let role = ROLES.into_iter().find(|role| role == name);
        special.set(role.ok_or_else(|| Error::State(format!("there is no role {name:?}")))?, token);
    }
    special.extend_additional(state.additional);
    special.extend_eos(state.eos_token_ids);
    let mut templates = ChatTemplates::default();
    for (name, source) in &state.templates {
        templates.insert(name, source);
    }
    Ok(Parts { tokenizer: state.tokenizer, special, templates, settings: state.settings })
}
