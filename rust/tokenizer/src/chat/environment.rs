//! Renders a template in the environment that transformers gives it.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::clock::strftime_now;
use super::generation_tags::without_generation_tags;
use super::json::tojson;
use super::options::ChatOptions;
use crate::error::Error;
use crate::special::SpecialTokens;

/// Variables that the chat defines and `extra` may not.
const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];

/// The message that a template called `raise_exception` with.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Renders `template` for `messages`.
pub(crate) fn render(
    template: &str,
    special: &SpecialTokens,
    messages: &serde_json::Value,
    options: &ChatOptions,
) -> Result<String, Error> {
    let context = context(special, messages, options)?;
    let source = without_generation_tags(template);
    let environment = environment().map_err(|error| typed(&error))?;
    environment
        .template_from_named_str("chat_template", &source)
        .and_then(|template| template.render(context))
        .map_err(|error| typed(&error))
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // An undefined name prints as nothing and is false, but has no attributes, as with Jinja2.
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("tojson", tojson);
    environment.add_function("strftime_now", |format: &str| strftime_now(format));
    environment.add_function("raise_exception", |message: &str| -> Result<Value, minijinja::Error> {
        let raised = Raised(message.to_owned());
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
    });
    Ok(environment)
}

/// The variables that the template sees.
fn context(special: &SpecialTokens, messages: &serde_json::Value, options: &ChatOptions) -> Result<Value, Error> {
    if !messages.is_array() {
        return Err(Error::Messages { got: json_type(messages) });
    }
    if let Some(name) = options.extra.keys().find(|name| RESERVED.contains(&name.as_str())) {
        return Err(Error::ReservedVariable { name: name.clone() });
    }
    let optional = |value: &Option<serde_json::Value>| value.as_ref().map_or(Value::from(()), to_value);
    let fixed = [
        ("messages", to_value(messages)),
        ("tools", optional(&options.tools)),
        ("documents", optional(&options.documents)),
        ("add_generation_prompt", options.add_generation_prompt.into()),
    ];
    let tokens = special.iter().map(|(role, token)| (role, Value::from(token)));
    let extra = options.extra.iter().map(|(name, value)| (name.as_str(), to_value(value)));
    // Of two pairs with the same key the later counts.
    Ok(Value::from_pairs(tokens.chain(extra).chain(fixed)))
}

fn json_type(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a bool",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "an array",
        serde_json::Value::Object(_) => "an object",
    }
}

/// A JSON value as the template sees it; objects keep the order of their keys.
fn to_value(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::String(value) => Value::from(value),
        serde_json::Value::Array(items) => items.iter().map(to_value).collect(),
        serde_json::Value::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, value)| (key.as_str(), to_value(value))))
        }
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::from(integer),
            (None, Some(integer)) => Value::from(integer),
            (None, None) => Value::from(number.as_f64()),
        },
    }
}

/// The crate's error for one of minijinja's: the template's own refusal, or what went wrong and where.
fn typed(error: &minijinja::Error) -> Error {
    let mut message = error.detail().map_or_else(|| error.kind().to_string(), |d| format!("{}: {d}", error.kind()));
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(refusal)) = cause.downcast_ref() {
            return Error::TemplateRefused(refusal.clone());
        }
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    Error::Template { line: error.line().unwrap_or_default(), message }
}
