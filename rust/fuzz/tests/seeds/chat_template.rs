//! Templates that a stranger might have written, and some that are right.

use super::{Seed, seed};

pub(super) fn seeds() -> Vec<Seed> {
    let limit = |name: &str, says: &str, source: &str| seed(&format!("TemplateLimit-{name}"), says, source);
    let long = |part: &str| format!("{{{{ x{} }}}}", part.repeat(5000));
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(200), close.repeat(200));
    let grows = |start: &str, by: &str| {
        format!("{{% set n = namespace(x={start}) %}}{{% for i in range(999) %}}{{% set n.x = {by} %}}{{% endfor %}}")
    };
    let (tag, size, nested) = ("the tokens of a tag", "a value's size in bytes", "brackets and blocks");
    let mut seeds = vec![
        seed("ok-chatml", "", include_str!("../../../tokenizer/tests/templates/chatml.jinja")),
        seed("ok-thinking", "", include_str!("../../../tokenizer/tests/templates/qwen3.jinja")),
        seed(
            "ok-messages",
            "",
            "{% for m in messages[::-1] %}{{ m.x|tojson }}{% endfor %}\0[{\"x\": [1, {\"a\": null}]}]",
        ),
        seed(
            "ok-python",
            "",
            "{{ 'a-b'.rsplit('-', 1)|join }}{{ '%s %d' % ('a', 1) }}{{ '{:>4}'.format(1) }}{{ 7 % 3 * 2 }}",
        ),
        seed("Template-syntax", "syntax error", "{% if %}"),
        seed("Template-empty_tag", "syntax error", "{%}{% generation %}"),
        seed("Template-undefined", "undefined", "{{ a.b }}"),
        seed("Template-namespace_in_itself", "cannot hold", "{% set n = namespace() %}{% set n.x = [n] %}{{ n }}"),
        seed("TemplateRefused-raised", "not today", "{{ raise_exception('not today') }}"),
        seed("Messages-no_list", "a number", "{{ 1 }}\x005"),
        limit("minuses", tag, &format!("{{{{ {}1 }}}}", "-".repeat(40_000))),
        limit("nots", tag, &format!("{{{{ {}1 }}}}", "not ".repeat(5000))),
        limit("brackets", nested, &format!("{{{{ {} }}}}", deep("[", "]"))),
        limit("parentheses", nested, &format!("{{{{ {} }}}}", deep("(", ")"))),
        limit("ifs", nested, &deep("{% if 1 %}", "{% endif %}")),
        limit("fors", nested, &deep("{% for i in x %}", "{% endfor %}")),
        limit("elifs", "the `elif`s", &format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(600))),
        limit("macro", "loops, blocks and macros", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        limit(
            "loops",
            "instructions",
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        ),
        limit("indent", size, "{{ 'a'|indent(10000000000) }}"),
        limit("times", size, "{{ 'a' * 10**10 }}"),
        limit("list_times", size, "{{ ([1] * 10**8)|list }}"),
        limit("range", "the elements of a range", "{{ range(10**10) }}"),
        limit("replace", size, "{{ ('a' * 9**6)|replace('a', 'a' * 9**6) }}"),
        limit("replace_method", size, "{{ ('a' * 9**6).replace('a', 'a' * 9**6) }}"),
        limit("join", size, "{{ range(99999)|join('a' * 9**6) }}"),
        limit("join_method", size, "{{ ('a' * 9**6).join(range(99999)) }}"),
        limit("format", size, "{{ '%1000000000d' % 1 }}"),
        limit("format_method", size, "{{ '{:1000000000}'.format(1) }}"),
        limit("batch", "the parts of", "{{ [1]|batch(10000000000, 0) }}"),
        limit("concatenated", size, &grows("'a'", "n.x ~ n.x")),
        limit("added", size, &grows("'a'", "n.x + n.x")),
        limit("doubled", size, &grows("[1]", "[n.x, n.x]")),
        limit("nested", "values within values", &grows("[1]", "[n.x]")),
        limit(
            "captured",
            "text written",
            &format!("{{% set x %}}{{% for i in range(99999) %}}{}{{% endfor %}}{{% endset %}}", "a".repeat(9999)),
        ),
    ];
    let chains = ["+1", ".b", "[0]", "()", "|string", " is string", " if 1 else 1", "**1", "~1", " and 1", " == 1"];
    seeds.extend(chains.iter().enumerate().map(|(i, part)| limit(&format!("chain_{i}"), tag, &long(part))));
    seeds
}
