//! Templates that a stranger might have written: each is answered, soon, and in bounded memory and stack.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::Builder;
use nanovllm_gguf::Value as GgufValue;
use nanovllm_tokenizer::{ChatOptions, Error, Tokenizer};
use serde_json::json;

fn tokenizer(template: &str) -> Tokenizer {
    let builder = Builder::new("smollm").with("tokenizer.chat_template", GgufValue::String(template.into()));
    builder.tokenizer().unwrap()
}

/// What the template gives, called from a thread with a small stack.
fn outcome(template: &str) -> Result<String, Error> {
    let tokenizer = tokenizer(template);
    let render = move || tokenizer.apply_chat_template(&json!([]), &ChatOptions::default());
    thread::Builder::new().stack_size(128 << 10).spawn(render).unwrap().join().unwrap()
}

/// Asserts that each template is refused with these words, within some seconds.
#[track_caller]
fn refused(words: &str, templates: &[String]) {
    for template in templates {
        let start = Instant::now();
        let outcome = outcome(template);
        let shown: String = template.chars().take(80).collect();
        let error = outcome.map(|text| text.len()).expect_err(&shown).to_string();
        assert!(error.contains(words), "{shown}: {error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{shown}: {:?}", start.elapsed());
    }
}

fn chain(open: &str, part: &str, close: &str) -> String {
    format!("{{{{ {open}{}{close} }}}}", part.repeat(40_000))
}

#[test]
fn long_expressions() {
    let chains = [
        chain("", "-", "1"),
        chain("", "not ", "1"),
        chain("1", "+1", ""),
        chain("1", "*1", ""),
        chain("a", ".b", ""),
        chain("a", "[0]", ""),
        chain("a", "()", ""),
        chain("a", "|string", ""),
        chain("a", " is string", ""),
        chain("1", " if 1 else 1", ""),
        chain("1", "**1", ""),
        chain("1", "~1", ""),
        chain("x", " and x", ""),
        chain("x", " or x", ""),
        chain("x", " == x", ""),
        chain("x", ", x", ""),
    ];
    refused("the tokens of a tag is limited to 4096", &chains);
    for template in chains.map(|chain| chain.replace(" }}", " %}").replace("{{ ", "{% set y = ")) {
        refused("the tokens of a tag", &[template]);
    }
}

/// What is just within the limit must not need a larger stack than there is.
#[test]
fn expressions_of_the_longest_kind() {
    for (open, part, close, tokens) in [
        ("", "-", "1", 1),
        ("", "not ", "1", 1),
        ("x", "+x", "", 2),
        ("x", "*x", "", 2),
        ("1", "+1", "", 2),
        ("x", ".b", "", 2),
        ("x", "|string", "", 2),
        ("x", " is string", "", 2),
        ("1", " if 1 else 1", "", 4),
        ("x", "~x", "", 2),
        ("x", " and x", "", 2),
        ("x", "[0]", "", 3),
        ("x", "()", "", 2),
    ] {
        let template = format!("{{{{ {open}{}{close} }}}}", part.repeat(4090 / tokens));
        let _ = outcome(&template); // some are numbers, some have no such attribute
    }
}

#[test]
fn nested_deeply() {
    let nested = |open: &str, inner: &str, close: &str| [&open.repeat(20_000), inner, &close.repeat(20_000)].concat();
    refused("limited to", &[format!("{{{{ {} }}}}", nested("(", "1", ")"))]);
    refused("limited to", &[format!("{{{{ {} }}}}", nested("[", "1", "]"))]);
    refused("limited to", &[format!("{{{{ {} }}}}", nested("{1:", "1", "}"))]);
    refused("limited to", &[format!("{{{{ {} }}}}", nested("f(", "1", ")"))]);
    let inner = |open: &str, close: &str| format!("{{{{ {}1{} }}}}", open.repeat(1000), close.repeat(1000));
    refused("brackets and blocks is limited to 150", &[inner("(", ")"), inner("[", "]"), inner("f(", ")")]);
    let blocks = [
        nested("{% if 1 %}", "", "{% endif %}"),
        nested("{% for i in x %}", "", "{% endfor %}"),
        nested("{% macro m() %}", "", "{% endmacro %}"),
        nested("{% with x = 1 %}", "", "{% endwith %}"),
        nested("{% set x %}", "", "{% endset %}"),
        nested("{% filter upper %}", "", "{% endfilter %}"),
        nested("{% call f() %}", "", "{% endcall %}"),
    ];
    refused("brackets and blocks is limited to 150", &blocks);
    let elifs = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(40_000));
    let spread =
        format!("{}{}", "{% if 0 %}{% elif 0 %}{% elif 0 %}{% elif 0 %}{% elif 0 %}".repeat(140), "{% endif %}");
    refused("the `elif`s within each other's `if` is limited to 500", &[elifs, spread]);
    assert_eq!(outcome(&format!("{{% if 0 %}}{}{{% else %}}x{{% endif %}}", "{% elif 0 %}".repeat(500))).unwrap(), "x");
}

#[test]
fn calls_within_calls() {
    let templates = [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(x) %}{% for i in [1] %}{{ m([x, 1]) }}{% endfor %}{% endmacro %}{{ m(1) }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
    ];
    refused("", &templates.map(str::to_owned));
    refused("loops, blocks and macros is limited to 500", &[templates[0].to_owned()]);
    refused("limited to", &["{% macro m() %}{{ m() ~ m() }}{% endmacro %}{{ m() }}".to_owned()]);
}

#[test]
fn large_values() {
    let templates = [
        "{{ 'a'|indent(10000000000) }}",
        "{{ ('a\n' * 100000)|indent('a' * 1000000) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a'.center(10000000000, 'é') }}",
        "{{ '1'.zfill(10000000000) }}",
        "{{ 'a\nb'|indent(width=10000000000) }}",
        "{{ 'a' * 10**10 }}",
        "{{ 10**8 * 'a' }}",
        "{% set x = 'a' * 10**8 ~ 'a' * 10**8 %}",
        "{% set x = ('a' * 90000000)|length %}",
        "{{ ([1] * 10**8)|list }}",
        "{{ ((1,) * 10**8) }}",
        "{{ [[0] * 100000] * 100000 }}",
        "{{ range(10**10) }}",
        "{{ range(0, 0 - 10**10, -1) }}",
        "{{ ('a' * 1000000)|replace('a', 'a' * 1000000) }}",
        "{{ ('a' * 1000000).replace('a', 'a' * 1000000) }}",
        "{{ ('a' * 1000000).replace('', 'a' * 1000000) }}",
        "{{ range(100000)|join('a' * 1000000) }}",
        "{{ ('a' * 1000000).join(range(100000)) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%*d'|format(1000000000, 1) }}",
        "{{ '%.1000000000f'|format(1.5) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ ('{0}' * 1000000).format('a' * 1000000) }}",
        "{{ [1]|batch(10000000000, 0)|list }}",
        "{{ [1]|slice(10000000000)|list }}",
        "{{ ([1] * 100000)|tojson(separators=('a' * 1000000, '')) }}",
        "{{ ([1] * 100000)|tojson(indent='a' * 1000000) }}",
    ];
    refused("limited to", &templates.map(str::to_owned));
}

#[test]
fn values_that_grow() {
    let loops = |start: &str, body: &str| {
        format!("{{% set ns = namespace(x={start}) %}}{{% for i in range(1000) %}}{body}{{% endfor %}}{{{{ ns.x }}}}")
    };
    let templates = [
        loops("'a'", "{% set ns.x = ns.x ~ ns.x %}"),
        loops("'a'", "{% set ns.x = ns.x + ns.x %}"),
        loops("'a'", "{% set ns.x = ns.x * 2 %}"),
        loops("'a'", "{% set ns.x = ns.x.replace('a', 'aa') %}"),
        loops("'a'", "{% set ns.x = '%s%s' % (ns.x, ns.x) %}"),
        loops("'a'", "{% set ns.x = [ns.x, ns.x]|join %}"),
        loops("'a'", "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}"),
        loops("[1]", "{% set ns.x = ns.x + ns.x %}"),
        loops("[1]", "{% set ns.x = ns.x|chain(ns.x) %}"),
        loops("(1,)", "{% set ns.x = ns.x + ns.x %}"),
        loops("[1]", "{% set ns.x = [ns.x, ns.x] %}"),
        loops("[1]", "{% set ns.x = {1: ns.x, 2: ns.x} %}"),
        loops("[1]", "{% set ns.x = dict(a=ns.x, b=ns.x) %}"),
        loops("[1]", "{% set ns.x = [ns.x] %}"),
        loops("[1]", "{% set ns.x = (ns.x,) %}"),
        loops("[1]", "{% set ns.x = ns.x|batch(1)|list %}"),
        loops("'a'", "{% set ns.x = ns.x|tojson %}"),
        format!("{{% set x = 'a' %}}{}{{{{ x }}}}", "{% set x = x ~ x %}".repeat(100)),
        format!("{{% for i in range(100000) %}}{}{{% endfor %}}", "a".repeat(100_000)),
        format!("{{% set x %}}{{% for i in range(100000) %}}{}{{% endfor %}}{{% endset %}}", "a".repeat(100_000)),
        format!("{{% macro m() %}}{}{{% endmacro %}}{{% for i in range(100000) %}}{{% set x = m() %}}{{% endfor %}}", "a".repeat(100_000)),
        "{% for i in range(1000) %}{% set x = 'a' * 1000000 %}{% endfor %}".to_owned(),
        "{% for i in range(1000) %}{% for j in range(1000) %}{% macro m(a, b) %}{{ i }}{% endmacro %}{% endfor %}{% endfor %}".to_owned(),
    ];
    refused("limited to", &templates);
}

#[test]
fn lists_that_are_read_late() {
    for body in
        ["ns.x[0:]", "ns.x|reverse", "ns.x|list", "ns.x|chain([])", "ns.x + []", "ns.x * 1", "ns.x|map('string')"]
    {
        let template = format!(
            "{{% set ns = namespace(x=['a']) %}}{{% for i in range(50000) %}}{{% set ns.x = {body} %}}{{% endfor %}}{{{{ ns.x }}}}"
        );
        assert_eq!(outcome(&template).unwrap(), "['a']", "{body}");
    }
}

#[test]
fn values_that_hold_themselves() {
    let templates = [
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.x = [{'a': ns}] %}{{ ns|tojson }}",
        "{% set ns = namespace(x=[1]) %}{% for i in [1] %}{% set ns.x = loop %}{{ ns }}{% endfor %}",
    ];
    refused("a namespace cannot hold a namespace or a loop", &templates.map(str::to_owned));
}

#[test]
fn endless() {
    let loops = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
    refused("the instructions that run is limited to", &[loops.to_owned()]);
}

#[test]
fn what_panicked() {
    assert_eq!(outcome("{{ ''[::-1] }}{{ messages[::-1] }}{{ 'abc'[0:5:-1] }}{{ 'abc'[5::-9] }}").unwrap(), "[]c");
    refused("the template engine failed", &["{% for i in [1] %}{{ loop.cycle() }}{% endfor %}".to_owned()]);
}

/// Comparisons of long texts are slow and cheap: only the caller can end them before the limit of time does.
#[test]
fn a_render_can_be_given_up() {
    let template = "{% set x = 'a' * 2000000 %}{% set y = 'a' * 1999999 ~ 'b' %}\
                    {% for i in range(100000) %}{% if x == y %}{% endif %}{% endfor %}";
    let start = Instant::now();
    let mut asked = 0;
    let result = tokenizer(template).apply_chat_template_while(&json!([]), &ChatOptions::default(), &mut || {
        asked += 1;
        asked < 3
    });
    assert!(matches!(result, Err(Error::TemplateInterrupted)), "{result:?}");
    assert_eq!(asked, 3);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // Its thread ends too.
    let name = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
    let renders =
        || std::fs::read_dir("/proc/self/task").unwrap().map(|e| name(e.unwrap())).any(|n| n == "chat-template\n");
    while renders() && start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(!renders(), "the render goes on");
}

/// A long conversation is no attack: the limits grow with it.
#[test]
fn long_conversations() {
    let template = "{% set ns = namespace(all=[], text='') %}{% for m in messages %}{% set ns.all = ns.all + [m] %}\
                    {% set ns.text = ns.text ~ m.role|upper ~ ': ' ~ m.content|trim ~ '\\n' %}{% endfor %}\
                    {% for m in ns.all[::-1] %}{% if loop.first %}{{ m.content }}{% endif %}{% endfor %}{{ ns.text }}";
    let message = |n: usize| json!({"role": if n.is_multiple_of(2) { "user" } else { "assistant" }, "content": format!(" message {n}")});
    let messages = (0..2000).map(message).collect();
    let text = tokenizer(template).apply_chat_template(&messages, &ChatOptions::default()).unwrap();
    assert!(text.starts_with(" message 1999USER: message 0\nASSISTANT: message 1\n"), "{}", &text[..80]);
    assert!(text.ends_with("ASSISTANT: message 1999\n"));
    let long = json!([{"role": "user", "content": "long ".repeat(2_000_000)}]);
    let text = tokenizer("{{ messages[0].content|trim }}").apply_chat_template(&long, &ChatOptions::default()).unwrap();
    assert_eq!(text.len(), 9_999_999);
}
