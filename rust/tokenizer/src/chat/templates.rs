//! The chat templates of a model, by name.

use super::options::ChatOptions;
use crate::error::Error;

pub(crate) const DEFAULT: &str = "default";
/// The name of the template that is preferred where tools are given.
const TOOL_USE: &str = "tool_use";

/// Template sources by name, in file order.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChatTemplates(Vec<(String, String)>);

impl ChatTemplates {
    /// Adds a template; one of the same name is replaced.
    pub(crate) fn insert(&mut self, name: &str, source: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => source.clone_into(known),
            None => self.0.push((name.to_owned(), source.to_owned())),
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every template with its name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, source)| (name.as_str(), source.as_str()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, source)| source.as_str())
    }

    /// The template called `default`, or the only one.
    pub(crate) fn default_template(&self) -> Option<&str> {
        self.get(DEFAULT).or(match self.0.as_slice() {
            [(_, source)] => Some(source),
            _ => None,
        })
    }

    /// The template that `options` ask for, by name or as source; without one, the template `tool_use` if there are
    /// tools and it exists, else the default.
    pub(crate) fn select<'a>(&'a self, options: &'a ChatOptions) -> Result<&'a str, Error> {
        if let Some(template) = options.template.as_deref() {
            return Ok(self.get(template).unwrap_or(template));
        }
        let for_tools = if options.tools.is_some() { self.get(TOOL_USE) } else { None };
        for_tools.or_else(|| self.default_template()).ok_or_else(|| match self.0.as_slice() {
            [] => Error::NoChatTemplate,
            several => Error::UnknownChatTemplate {
                name: DEFAULT.to_owned(),
                known: several.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn templates(names: &[&str]) -> ChatTemplates {
        let mut templates = ChatTemplates::default();
        for name in names {
            templates.insert(name, &format!("<{name}>"));
        }
        templates
    }

    #[test]
    fn choice_follows_transformers() {
        let plain = ChatOptions::default();
        let tools = ChatOptions { tools: Some(serde_json::json!([])), ..ChatOptions::default() };
        let named = ChatOptions { template: Some("rag".into()), ..ChatOptions::default() };
        let source = ChatOptions { template: Some("{{ 1 }}".into()), ..ChatOptions::default() };
        let all = templates(&["default", "tool_use", "rag"]);
        assert_eq!(all.select(&plain).unwrap(), "<default>");
        assert_eq!(all.select(&tools).unwrap(), "<tool_use>");
        assert_eq!(all.select(&named).unwrap(), "<rag>");
        assert_eq!(all.select(&source).unwrap(), "{{ 1 }}");
        assert_eq!(templates(&["only"]).select(&plain).unwrap(), "<only>");
        assert!(matches!(templates(&[]).select(&plain), Err(Error::NoChatTemplate)));
        let error = templates(&["a", "b"]).select(&plain).unwrap_err();
        assert!(error.to_string().contains("a, b"), "{error}");
    }
}
