//! The tokens with a role, such as the beginning and the end of a sequence.

/// The names transformers gives the roles; templates see them under these names.
pub(crate) const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Special tokens by role, and every token that ends a generation.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialTokens {
    roles: Vec<(&'static str, String)>,
    additional: Vec<String>,
    eos_token_ids: Vec<u32>,
}

impl SpecialTokens {
    /// Gives `role` its token, unless it has one.
    pub(crate) fn set(&mut self, role: &'static str, token: &str) {
        if self.get(role).is_none() {
            self.roles.push((role, token.to_owned()));
        }
    }

    /// The token of `role`.
    pub(crate) fn get(&self, role: &str) -> Option<&str> {
        self.roles.iter().find(|(name, _)| *name == role).map(|(_, token)| token.as_str())
    }

    /// Every role that has a token, with it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.roles.iter().map(|(role, token)| (*role, token.as_str()))
    }

    /// Adds special tokens without a role, keeping the order and dropping repetitions.
    pub(crate) fn extend_additional(&mut self, tokens: impl IntoIterator<Item = String>) {
        for token in tokens {
            if !self.additional.contains(&token) {
                self.additional.push(token);
            }
        }
    }

    /// Special tokens without a role, which the files list by name.
    pub(crate) fn additional(&self) -> &[String] {
        &self.additional
    }

    /// Adds ids that end a generation, keeping the order and dropping repetitions.
    pub(crate) fn extend_eos(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            if !self.eos_token_ids.contains(&id) {
                self.eos_token_ids.push(id);
            }
        }
    }

    /// Takes ids away that end nothing after all.
    pub(crate) fn drop_eos(&mut self, ids: &[u32]) {
        self.eos_token_ids.retain(|id| !ids.contains(id));
    }

    /// Ids that end a generation, the tokenizer's own first.
    pub(crate) fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }
}
