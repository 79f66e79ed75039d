//! The features that real chat templates use, with the text that Jinja2 gives for them.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::Builder;
use nanovllm_gguf::Value as GgufValue;
use nanovllm_tokenizer::{ChatOptions, Error, Tokenizer};
use serde_json::{Value, json};

const CHATML: &str = include_str!("templates/chatml.jinja");
const QWEN3: &str = include_str!("templates/qwen3.jinja");
const LLAMA3: &str = include_str!("templates/llama3.jinja");

fn tokenizer(template: &str) -> Tokenizer {
    let builder = Builder::new("smollm").with("tokenizer.chat_template", GgufValue::String(template.into()));
    builder.tokenizer().unwrap()
}

fn prompt() -> ChatOptions {
    ChatOptions { add_generation_prompt: true, ..ChatOptions::default() }
}

fn with_extra(variables: &Value) -> ChatOptions {
    ChatOptions { extra: variables.as_object().unwrap().clone(), ..prompt() }
}

fn render(template: &str, messages: &Value, options: &ChatOptions) -> String {
    tokenizer(template).apply_chat_template(messages, options).unwrap()
}

/// The text of a template that needs no messages.
fn text(template: &str) -> String {
    render(template, &json!([]), &ChatOptions::default())
}

fn error(template: &str, messages: &Value) -> Error {
    tokenizer(template).apply_chat_template(messages, &prompt()).unwrap_err()
}

#[test]
fn chatml_adds_its_system_message_and_the_header_of_the_answer() {
    let messages = json!([{"role": "user", "content": "Hi <b>&\"'"}]);
    let expected = "<|im_start|>system\nYou are a small assistant.<|im_end|>\n<|im_start|>user\nHi <b>&\"'<|im_end|>\n";
    assert_eq!(render(CHATML, &messages, &ChatOptions::default()), expected);
    assert_eq!(render(CHATML, &messages, &prompt()), format!("{expected}<|im_start|>assistant\n"));
}

#[test]
fn thinking_is_kept_after_the_last_question_only() {
    let messages = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nold\n</think>\n\nb"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "<think>\nnew\n</think>\n\nd"},
    ]);
    let expected = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n\
                    <|im_start|>assistant\n<think>\nnew\n</think>\n\nd<|im_end|>\n";
    assert_eq!(render(QWEN3, &messages, &ChatOptions::default()), expected);
}

#[test]
fn enable_thinking_is_seen_only_when_given() {
    let messages = json!([{"role": "user", "content": "a"}]);
    let open = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(render(QWEN3, &messages, &prompt()), open);
    assert_eq!(render(QWEN3, &messages, &with_extra(&json!({"enable_thinking": true}))), open);
    let closed = format!("{open}<think>\n\n</think>\n\n");
    assert_eq!(render(QWEN3, &messages, &with_extra(&json!({"enable_thinking": false}))), closed);
}

#[test]
fn a_template_tells_what_it_reads() {
    let names = |template: &str, options: &ChatOptions| tokenizer(template).chat_template_variables(options).unwrap();
    let read = names(QWEN3, &ChatOptions::default());
    assert!(read.contains("messages") && read.contains("enable_thinking"), "{read:?}");
    assert!(!read.contains("message") && !read.contains("temperature"), "what it sets itself is not read: {read:?}");
    let other =
        ChatOptions { template: Some("{% set a = b.c %}{{ a }}{% if d is defined %}{% endif %}".into()), ..prompt() };
    assert_eq!(names(QWEN3, &other).into_iter().collect::<Vec<_>>(), ["b", "d"]);
    let broken = ChatOptions { template: Some("{% if %}".into()), ..prompt() };
    assert!(matches!(tokenizer(QWEN3).chat_template_variables(&broken), Err(Error::Template { .. })));
}

#[test]
fn tools_are_written_as_python_writes_json_in_their_own_order() {
    let tools =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"z": 1.0, "a": [true, null, "é<'\n"]}}}]);
    let messages = json!([
        {"role": "system", "content": "S"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "f", "arguments": {"y": 2, "b": {}}}}, {"name": "g", "arguments": "{}"}]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    ]);
    let options = ChatOptions { tools: Some(tools), ..prompt() };
    let expected = concat!(
        "<|im_start|>system\nS\n\nTools:\n",
        r#"{"type": "function", "function": {"name": "f", "parameters": {"z": 1.0, "a": [true, null, "é<'\n"]}}}"#,
        "<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<tool_call>\n",
        r#"{"name": "f", "arguments": {"y": 2, "b": {}}}"#,
        "\n</tool_call>\n<tool_call>\n",
        r#"{"name": "g", "arguments": {}}"#,
        "\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n1\n</tool_response>",
        "\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
    );
    assert_eq!(render(QWEN3, &messages, &options), expected);
}

#[test]
fn content_may_be_a_list_of_parts() {
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "image"}]}]);
    assert_eq!(render(QWEN3, &messages, &ChatOptions::default()), "A<|im_start|>user\n<|im_end|>\n");
}

#[test]
fn dates_are_given_or_today() {
    let messages = json!([{"role": "system", "content": " Be kind. "}, {"role": "user", "content": "\nhi\n"}]);
    let rest = "\n\nBe kind.<|eot|><|header|>user<|/header|>\n\nhi<|eot|><|header|>assistant<|/header|>\n\n";
    let head = "<|bos|><|header|>system<|/header|>\n\n";
    // `tools` is always defined, as none here, so the branch for undefined tools is not needed.
    let given = render(LLAMA3, &messages, &with_extra(&json!({"date_string": "1 Jan 2025"})));
    assert_eq!(given, format!("{head}Today Date: 1 Jan 2025{rest}"));
    let now = render(LLAMA3, &messages, &prompt());
    let date = now.strip_prefix(&format!("{head}Today Date: ")).unwrap().strip_suffix(rest).unwrap();
    let words: Vec<&str> = date.split(' ').collect();
    assert!(matches!(words[..], [day, month, year] if day.len() == 2 && month.len() == 3 && year.len() == 4), "{date}");
}

#[test]
fn tojson_takes_python_s_arguments() {
    let options = ChatOptions { tools: Some(json!([{"b": [1, {}], "a": []}])), ..ChatOptions::default() };
    let of = |template| render(template, &json!([]), &options);
    assert_eq!(of("{{ tools[0] | tojson(indent=2) }}"), "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": []\n}");
    assert_eq!(of("{{ tools[0] | tojson(sort_keys=true) }}"), r#"{"a": [], "b": [1, {}]}"#);
    assert_eq!(of("{{ tools | tojson(separators=(',', ':')) }}"), r#"[{"b":[1,{}],"a":[]}]"#);
    assert_eq!(text("{{ 'é🦀' | tojson }}{{ 'é🦀' | tojson(ensure_ascii=true) }}"), r#""é🦀""\u00e9\ud83e\udd80""#);
    assert_eq!(text("{{ {2: none, true: 0.5} | tojson }}"), r#"{"2": null, "true": 0.5}"#);
}

#[test]
fn values_print_as_in_python() {
    assert_eq!(
        text("{{ true }} {{ none }} {{ 1.0 }} {{ [1, 'a'] }} {{ {'k': none} }}"),
        "True None 1.0 [1, 'a'] {'k': None}"
    );
    assert_eq!(
        text("{{ undefined_name }}|{{ undefined_name is defined }}|{% if undefined_name %}x{% endif %}"),
        "|False|"
    );
}

#[test]
fn white_space_around_blocks_follows_transformers() {
    assert_eq!(text("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
    assert_eq!(
        text(
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        ),
        "02"
    );
    assert_eq!(text("[{% generation %}x{% endgeneration %}]"), "[x]");
}

#[test]
fn python_methods_work() {
    let template = "{{ 'a-b'.split('-') | join('+') }} {{ ' x '.strip() }} {{ 'Ab'.upper() }} {{ {'k': 1}.get('z', 2) }}\
                    {% for k, v in {'k': 1}.items() %} {{ k }}={{ v }}{% endfor %} {{ 'aXb'.replace('X', '-').title() }}";
    assert_eq!(text(template), "a+b x AB 2 k=1 A-B");
}

/// What minijinja has otherwise than Jinja2, where a template of a known model depends on it.
#[test]
fn none_and_what_is_undefined_are_as_in_jinja2() {
    assert_eq!(text("{{ tools is iterable and tools|length > 0 }}{{ missing|length }}"), "False0");
    assert_eq!(text("{% for i in missing %}x{% else %}y{% endfor %}{{ (missing|default(none)) is none }}"), "yTrue");
    assert_eq!(text("{{ 'a' is sequence }}{{ {} is sequence }}{{ 1 is sequence }}[{{ none[1:] }}]"), "TrueTrueFalse[]");
    for template in ["{% for i in none %}{% endfor %}", "{{ missing[1:] }}", "{{ none|length }}", "{{ tools < 1 }}"] {
        assert!(matches!(error(template, &json!([])), Error::Template { line: 1, .. }), "{template}");
    }
}

#[test]
fn sums_are_python_s() {
    assert_eq!(
        text("{% set a = true %}{{ a + 1 }} {{ 1.5 + a }} {{ [a] + [1] }} {{ (a,) + () }}"),
        "2 2.5 [True, 1] (True,)"
    );
    assert_eq!(text("{{ '<' + ('<b>'|safe) + '&' }}|{{ ('<b>'|safe) ~ '<' }}"), "&lt;<b>&amp;|<b><");
    for template in
        ["{{ messages + 'a' }}", "{{ 'a' + messages|length }}", "{{ messages + (1,) }}", "{{ tools in 'a' }}"]
    {
        assert!(matches!(error(template, &json!([])), Error::Template { line: 1, .. }), "{template}");
    }
}

#[test]
fn methods_of_dicts_go_before_their_items() {
    assert_eq!(text("{% set d = {'items': {'type': 'x'}} %}{{ d.items.type }}|{{ d['items'].type }}"), "|x");
    assert_eq!(text("{% set d = {'items': 1} %}{{ d.items is defined }}{{ d.items() | list }}"), "True[('items', 1)]");
    assert_eq!(text("{% set ns = namespace(items=1) %}{{ ns.items }}"), "1");
}

#[test]
fn what_is_set_while_the_assistant_speaks_is_forgotten() {
    let template = "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}";
    assert_eq!(text(template), "21");
}

#[test]
fn refusals_carry_the_template_s_words() {
    let numbered = error("{{ raise_exception(['no', 1]) }}", &json!([]));
    assert!(matches!(&numbered, Error::TemplateRefused(text) if text == "['no', 1]"), "{numbered}");
    let error = error(LLAMA3, &json!([{"role": "assistant", "tool_calls": [1, 2]}]));
    assert!(
        matches!(&error, Error::TemplateRefused(text) if text == "This model only supports single tool-calls at once!")
    );
}

#[test]
fn failures_say_where() {
    for (template, line, part) in [
        ("a\n{% if %}", 2, "syntax error"),
        ("\n\n{{ nothing.attribute }}", 3, "undefined"),
        ("{{ 'x' | no_such_filter }}", 1, "no_such_filter"),
        ("{{ nothing | tojson }}", 1, "tojson"),
        ("\n{{ strftime_now('%') }}", 2, "strftime"),
    ] {
        let error = error(template, &json!([]));
        assert!(matches!(error, Error::Template { line: found, .. } if found == line), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_cannot_be_a_chat_is_refused() {
    let none = Builder::new("smollm").tokenizer().unwrap();
    assert_eq!(none.chat_template(), None);
    assert!(matches!(none.apply_chat_template(&json!([]), &prompt()), Err(Error::NoChatTemplate)));
    assert!(matches!(error(CHATML, &json!("hello")), Error::Messages { got: "a string" }));
    let reserved = tokenizer(CHATML).apply_chat_template(&json!([]), &with_extra(&json!({"messages": []})));
    assert!(matches!(reserved, Err(Error::ReservedVariable { name }) if name == "messages"));
}

#[test]
fn a_template_can_be_given() {
    let none = Builder::new("smollm").tokenizer().unwrap();
    let options = ChatOptions { template: Some("{{ bos_token }}{{ x }}".into()), ..with_extra(&json!({"x": 1})) };
    assert_eq!(none.apply_chat_template(&json!([]), &options).unwrap(), "<|bos|>1");
}
