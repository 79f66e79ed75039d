//! Takes tags out of a template that only transformers knows.

use std::borrow::Cow;

/// Replaces transformers' `{% generation %}` ... `{% endgeneration %}` by a block with a scope of its own.
///
/// The tags mark which tokens of a training conversation the assistant wrote; they print nothing, but what is set between
/// them is not seen behind them. A `with` does the same, and leaves every rule of whitespace control and every line
/// number as it was.
pub(crate) fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let (before, tag) = rest.split_at(open);
        out.push_str(before);
        if let Some((replacement, len)) = generation_tag(tag) {
            out.push_str(&replacement);
            rest = &tag[len..];
        } else {
            out.push_str("{%");
            rest = &tag[2..];
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The replacement of the generation tag that `tag` begins with, and the tag's length in bytes.
fn generation_tag(tag: &str) -> Option<(String, usize)> {
    let inner = tag[2..].split_once("%}")?.0;
    let len = inner.len() + 4;
    let is_control = |c: char| c == '-' || c == '+';
    let word = inner.trim_start_matches(is_control).trim_end_matches(is_control).trim();
    let statement = match word {
        "generation" => "with",
        "endgeneration" => "endwith",
        _ => return None,
    };
    Some((format!("{{%{}%}}", inner.replacen(word, statement, 1)), len))
}

#[cfg(test)]
mod tests {
    use super::without_generation_tags;

    #[test]
    fn only_the_tags_change() {
        let source = "{%- generation -%}\n a {% endgeneration %}{% if add_generation_prompt %}generation{% endif %}{%";
        let expected = "{%- with -%}\n a {% endwith %}{% if add_generation_prompt %}generation{% endif %}{%";
        assert_eq!(without_generation_tags(source), expected);
        assert_eq!(without_generation_tags("{% generation"), "{% generation");
        assert_eq!(without_generation_tags("{%}generation"), "{%}generation", "a percent sign that opens and closes");
    }
}
