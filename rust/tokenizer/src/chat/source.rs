//! The source of a template before it is parsed.

use minijinja::machinery::{Span, Token, Tokenizer};
use minijinja::syntax::SyntaxConfig;

use super::generation_tags::without_generation_tags;
use super::limits::{Limit, MAX_ELIFS, MAX_SOURCE, MAX_TAG_TOKENS};

/// A filter that returns its value. minijinja computes a product of constants when it compiles it, before any budget can
/// refuse it; with the filter the left factor is not constant.
pub(crate) const UNCHANGED: &str = "nanovllm_unchanged";

/// The source that is compiled for a template, or the limit that it exceeds. Lines keep their numbers.
pub(crate) fn prepare(template: &str, syntax: &SyntaxConfig) -> Result<String, Limit> {
    if template.len() > MAX_SOURCE {
        return Err(Limit { what: "the template's size in bytes", limit: MAX_SOURCE });
    }
    let source = without_generation_tags(template);
    let mut tokens = Tokenizer::new(&source, "chat_template", false, syntax.clone());
    let mut check = Check::default();
    let mut products = Vec::new();
    let mut before = None;
    // What is no token is the parser's to report: it does not look further either.
    while let Ok(Some((token, span))) = tokens.next_token() {
        check.token(&token)?;
        if matches!(token, Token::Mul)
            && let Some(end) = before
        {
            products.push(end);
        }
        before = ends_operand(&token, span);
    }
    let mut out = String::with_capacity(source.len() + products.len() * (UNCHANGED.len() + 1));
    let mut done = 0;
    for end in products {
        out.push_str(&source[done..end]);
        out.push('|');
        out.push_str(UNCHANGED);
        done = end;
    }
    out.push_str(&source[done..]);
    Ok(out)
}

/// Where a token ends that an operand may end with: `*` after any other unpacks arguments.
fn ends_operand(token: &Token<'_>, span: Span) -> Option<usize> {
    let ends = matches!(
        token,
        Token::Ident(_)
            | Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_)
            | Token::BracketClose
            | Token::ParenClose
            | Token::BraceClose
    );
    ends.then_some(span.end_offset as usize)
}

/// Counts what the parser and the compiler recurse by.
#[derive(Default)]
struct Check {
    /// Tokens since the tag began.
    tag: usize,
    /// The `elif`s of each open `if`, and how many they are.
    elifs: Vec<usize>,
    open: usize,
}

impl Check {
    fn token(&mut self, token: &Token<'_>) -> Result<(), Limit> {
        match token {
            Token::VariableStart | Token::BlockStart => self.tag = 0,
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => {}
            _ => self.tag += 1,
        }
        if self.tag > MAX_TAG_TOKENS {
            return Err(Limit { what: "the tokens of a tag", limit: MAX_TAG_TOKENS });
        }
        match token {
            Token::Ident("if") if self.tag == 1 => self.elifs.push(0),
            Token::Ident("endif") if self.tag == 1 => self.open -= self.elifs.pop().unwrap_or_default(),
            Token::Ident("elif") if self.tag == 1 => {
                if let Some(own) = self.elifs.last_mut() {
                    *own += 1;
                    self.open += 1;
                }
            }
            _ => {}
        }
        if self.open > MAX_ELIFS {
            return Err(Limit { what: "the `elif`s within each other's `if`", limit: MAX_ELIFS });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(source: &str) -> String {
        prepare(source, &SyntaxConfig::default()).unwrap()
    }

    #[test]
    fn only_products_change() {
        let same = "a * b {{ f(*x, **y) }}{{ 2 ** 3 }}{# * #}{% raw %}{{ 1 * 2 }}{% endraw %}";
        assert_eq!(prepared(same), same);
        assert_eq!(prepared("{{ 'a' * 3 }}\n{{ x[0]*y }}").replace(UNCHANGED, "u"), "{{ 'a'|u * 3 }}\n{{ x[0]|u*y }}");
    }

    #[test]
    fn what_is_counted_ends_with_its_tag() {
        let ifs = "{% if x %}{% elif y %}{% endif %}".repeat(2 * MAX_ELIFS);
        assert_eq!(prepared(&ifs), ifs);
        let tags = "{{ a + b }}".repeat(MAX_TAG_TOKENS);
        assert_eq!(prepared(&tags), tags);
    }
}
