//! A template as instructions that keep to a budget.
//!
//! minijinja has no place to hook its operators into, but its instructions can be replaced once they are compiled: an
//! operator by a filter of its own that checks the operands, and behind whatever makes a value a filter that looks at it.

use std::collections::BTreeMap;

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, Value};

use super::methods::METHODS_OF_DICTS;
use super::source::UNCHANGED;

/// Filters that only instructions can name: no identifier looks so.
pub(crate) const CONCAT: &str = "~";
pub(crate) const REMAINDER: &str = "%";
pub(crate) const SLICE: &str = "[:]";
pub(crate) const ADD: &str = "+";
pub(crate) const BEFORE_IN: &str = "in?";
pub(crate) const BEFORE_MUL: &str = "*?";
pub(crate) const BEFORE_SET: &str = "=?";
pub(crate) const BEFORE_ORDER: &str = "<?";
pub(crate) const ITERABLE: &str = "for?";
pub(crate) const ATTRIBUTE: &str = "a.b";
pub(crate) const ADMIT: &str = "!";
pub(crate) const TICK: &str = ".";

/// A compiled template, and its blocks by name.
pub(crate) struct Program<'source> {
    pub(crate) main: Instructions<'source>,
    pub(crate) blocks: BTreeMap<&'source str, Instructions<'source>>,
}

impl<'source> Program<'source> {
    /// Compiles a source that [`prepare`](super::source::prepare) has made.
    pub(crate) fn new(source: &'source str, syntax: SyntaxConfig) -> Result<Self, Error> {
        const NAME: &str = "chat_template";
        let tree = parse(source, NAME, syntax)?;
        let mut generator = CodeGenerator::new(NAME, source);
        generator.compile_stmt(&tree);
        let (main, blocks) = generator.finish();
        let blocks = blocks.into_iter().map(|(name, block)| (name, bounded(&block))).collect();
        Ok(Self { main: bounded(&main), blocks })
    }
}

/// The same instructions with those that keep to the budget among them.
fn bounded<'source>(plain: &Instructions<'source>) -> Instructions<'source> {
    let old = (0..).map_while(|index| plain.get(index).cloned()).collect::<Vec<_>>();
    let new =
        old.iter().enumerate().map(|(index, instruction)| replaced(instruction, index as u32)).collect::<Vec<_>>();
    // Where what stands for each instruction begins; a jump may also lead behind the last.
    let mut starts = vec![0];
    starts.extend(new.iter().scan(0, |end, group| {
        *end += group.len() as u32;
        Some(*end)
    }));
    let moved = |target: u32| starts.get(target as usize).copied().unwrap_or(target);
    let mut out = Instructions::new(plain.name(), plain.source());
    for (index, group) in (0..).zip(new) {
        for mut instruction in group {
            match &mut instruction {
                Instruction::Jump(target)
                | Instruction::JumpIfFalse(target)
                | Instruction::JumpIfFalseOrPop(target)
                | Instruction::JumpIfTrueOrPop(target)
                | Instruction::Iterate(target)
                | Instruction::BuildMacro(_, target, _) => *target = moved(*target),
                _ => {}
            }
            match (plain.get_span(index), plain.get_line(index)) {
                (Some(span), _) => out.add_with_span(instruction, span),
                (None, Some(line)) => out.add_with_line(instruction, line as u16),
                (None, None) => out.add(instruction),
            };
        }
    }
    out
}

/// What stands for an instruction, with the old targets of jumps.
fn replaced<'source>(instruction: &Instruction<'source>, index: u32) -> Vec<Instruction<'source>> {
    let filter = |name, arguments| Instruction::ApplyFilter(name, Some(arguments), !0);
    // A filter that takes two values and returns a tuple of them, the upper one first, leaves the stack as it was.
    let checked = |name| [filter(name, 2), Instruction::UnpackList(2)];
    let own = || instruction.clone();
    match instruction {
        Instruction::StringConcat => vec![filter(CONCAT, 2)],
        Instruction::Rem => vec![filter(REMAINDER, 2)],
        Instruction::Slice => vec![filter(SLICE, 4)],
        Instruction::Add => vec![filter(ADD, 2), filter(ADMIT, 1)],
        Instruction::In => [&checked(BEFORE_IN)[..], &[own()]].concat(),
        Instruction::Mul => [&checked(BEFORE_MUL)[..], &[own(), filter(ADMIT, 1)]].concat(),
        Instruction::SetAttr(_) => [&checked(BEFORE_SET)[..], &[own()]].concat(),
        Instruction::Lt | Instruction::Lte | Instruction::Gt | Instruction::Gte => {
            [&checked(BEFORE_ORDER)[..], &[own()]].concat()
        }
        Instruction::PushLoop(_) => vec![filter(ITERABLE, 1), own()],
        Instruction::GetAttr(name) if METHODS_OF_DICTS.contains(name) => {
            vec![Instruction::LoadConst(Value::from(*name)), filter(ATTRIBUTE, 2)]
        }
        // Only an expression goes through the formatter, which counts.
        Instruction::EmitRaw(text) => vec![Instruction::LoadConst(Value::from(*text)), Instruction::Emit],
        Instruction::ApplyFilter(name, ..) if *name == UNCHANGED => vec![own()],
        Instruction::ApplyFilter(..)
        | Instruction::CallFunction(..)
        | Instruction::CallMethod(..)
        | Instruction::CallObject(_)
        | Instruction::BuildList(_)
        | Instruction::BuildTuple(_)
        | Instruction::BuildMap(_)
        | Instruction::BuildMacro(..) => vec![own(), filter(ADMIT, 1)],
        // What comes again and again can be stopped.
        Instruction::Jump(target) if *target <= index => {
            vec![Instruction::LoadConst(Value::from(())), filter(TICK, 1), Instruction::DiscardTop, own()]
        }
        _ => vec![own()],
    }
}
