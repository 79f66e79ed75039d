//! Renders a template in the environment that transformers gives it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, machinery};

use super::bounded;
use super::clock::strftime_now;
use super::filters;
use super::json::tojson;
use super::limits::{Budget, Limit, MAX_CALL_DEPTH, MAX_PARSE_DEPTH};
use super::options::ChatOptions;
use super::program::Program;
use super::repr::Printed;
use super::source::prepare;
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

/// Renders `template` with the variables of `context`, within `budget`. It recurses: call it on a thread with a large stack.
pub(crate) fn render(template: &str, context: Value, budget: &Arc<Budget>) -> Result<String, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let syntax = syntax.map_err(|error| typed(&error, budget))?;
    let source = prepare(template, &syntax).map_err(limit)?;
    let program = Program::new(&source, syntax).map_err(|error| typed(&error, budget))?;
    let environment = environment(budget);
    let mut text = String::new();
    let mut out = machinery::make_string_output(&mut text);
    machinery::eval(&environment, &program.main, context, &program.blocks, &mut out, AutoEscape::None)
        .map_err(|error| typed(&error, budget))?;
    drop(out);
    Ok(text)
}

/// Names that `template` reads and does not set itself: its variables, and functions that it calls. It recurses, as
/// [`render`] does.
pub(crate) fn variables(template: &str) -> Result<BTreeSet<String>, Error> {
    let budget = Budget::new(&Value::UNDEFINED);
    let typed = |error| typed(&error, &budget);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(typed)?;
    let source = prepare(template, &syntax).map_err(limit)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    let template = environment.template_from_named_str("chat_template", &source).map_err(typed)?;
    Ok(template.undeclared_variables(false).into_iter().collect())
}

fn environment(budget: &Arc<Budget>) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // An undefined name prints as nothing and is false, but has no attributes, as with Jinja2.
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(budget.fuel() as u64));
    environment.set_recursion_limit(MAX_CALL_DEPTH);
    bounded::install(&mut environment, budget);
    filters::install(&mut environment, budget);
    let own = budget.clone();
    environment.add_filter(
        "tojson",
        move |value: &Value, ensure_ascii: Option<Value>, indent: Option<Value>, options: Kwargs| {
            tojson(&own, value, ensure_ascii, indent, options)
        },
    );
    environment.add_function("strftime_now", |format: &str| strftime_now(format));
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, minijinja::Error> {
        let raised = Raised(Printed(message).to_string());
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
    });
    environment
}

/// The variables that the template sees.
pub(crate) fn context(
    special: &SpecialTokens,
    messages: &serde_json::Value,
    options: &ChatOptions,
) -> Result<Value, Error> {
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

fn limit(Limit { what, limit }: Limit) -> Error {
    Error::TemplateLimit { what, limit }
}

/// The crate's error for one of minijinja's: the template's own refusal, a limit, or what went wrong and where.
fn typed(error: &minijinja::Error, budget: &Budget) -> Error {
    let mut message = error.detail().map_or_else(|| error.kind().to_string(), |d| format!("{}: {d}", error.kind()));
    let mut source = Some(error as &(dyn std::error::Error + 'static));
    while let Some(cause) = source {
        if let Some(Raised(refusal)) = cause.downcast_ref() {
            return Error::TemplateRefused(refusal.clone());
        }
        if let Some(reached) = cause.downcast_ref::<Limit>() {
            return limit(reached.clone());
        }
        if let Some(error) = cause.downcast_ref::<minijinja::Error>() {
            match (error.kind(), error.detail()) {
                (ErrorKind::OutOfFuel, _) => {
                    return limit(Limit { what: "the instructions that run", limit: budget.fuel() });
                }
                (_, Some("recursion limit exceeded")) => {
                    return limit(Limit { what: "the depth of loops, blocks and macros", limit: MAX_CALL_DEPTH });
                }
                (_, Some("template exceeds maximum recursion limits")) => {
                    return limit(Limit { what: "the depth of brackets and blocks", limit: MAX_PARSE_DEPTH });
                }
                _ => {}
            }
        }
        source = cause.source();
        if let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
        }
    }
    Error::Template { line: error.line().unwrap_or_default(), message }
}
