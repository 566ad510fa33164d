//! The engine's instructions with their price: what a template became when it was compiled, made to pay.
//!
//! Each stretch of instructions that is entered only at its beginning pays first for all of them, whatever their values
//! are: names that are looked up, text that is printed. Instructions whose work depends on the bytes of their values are
//! replaced by [`super::operators`], which pay for those. So nothing is done that is not paid, a loop included.
//!
//! The match over the instructions is exhaustive: one that a newer engine has does not compile until it has a price.

use std::{collections::BTreeSet, sync::Arc};

use minijinja::{
    AutoEscape, Value,
    machinery::{CompiledTemplate, Instruction, Instructions, Span, TemplateConfig},
    syntax::SyntaxConfig,
};

use super::{
    budget::{VALUE, bytes},
    operators::{self, Comparison},
};

/// Price of an instruction.
const INSTRUCTION: u64 = 40;
/// Price of a stretch of instructions, for paying itself is work.
const STRETCH: u64 = 96;
/// The filter has no place of its own in the engine's table and is found by its name.
const BY_NAME: u8 = !0;
/// The flag of a loop that says that it has the name `loop`; others are refused.
const WITH_LOOP_NAME: u8 = 1;

/// What cannot be done, and where in the source.
pub(super) struct Refused {
    pub(super) at: usize,
    pub(super) problem: &'static str,
}

/// Why a source became no instructions.
pub(super) enum NotCompiled {
    /// The engine cannot read it.
    Engine(minijinja::Error),
    /// It asks for what is not available.
    Refused(Refused),
}

/// Compiles a source into instructions that pay.
pub(super) fn compile(source: &str) -> Result<Instructions<'_>, NotCompiled> {
    let config = TemplateConfig { syntax_config: syntax(), default_auto_escape: Arc::new(|_: &str| AutoEscape::None) };
    let compiled = CompiledTemplate::new("<string>", source, &config).map_err(NotCompiled::Engine)?;
    Meter::of(&compiled.instructions).metered().map_err(NotCompiled::Refused)
}

/// How the sources of templates are read.
pub(super) fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default()
}

struct Meter<'a, 's> {
    plain: &'a Instructions<'s>,
    count: u32,
    /// Where a stretch begins, by instruction.
    begins: BTreeSet<u32>,
    /// How many names of its own the template has at most.
    names: usize,
    metered: Instructions<'s>,
    length: u32,
}

impl<'a, 's> Meter<'a, 's> {
    fn of(plain: &'a Instructions<'s>) -> Self {
        let mut begins = BTreeSet::from([0]);
        let mut names = BTreeSet::new();
        let mut count = 0;
        while let Some(instruction) = plain.get(count) {
            count += 1;
            if let Some(target) = target(instruction) {
                begins.extend([target, count]);
            }
            if let Instruction::StoreLocal(name) = instruction {
                names.insert(*name);
            }
        }
        let metered = Instructions::new(plain.name(), plain.source());
        Self { plain, count, begins, names: names.len(), metered, length: 0 }
    }

    fn metered(mut self) -> Result<Instructions<'s>, Refused> {
        let mut moved = Vec::new();
        let mut frames = 0_usize;
        for at in 0..self.count {
            moved.push(self.length);
            if self.begins.contains(&at) {
                self.pay(at, frames);
            }
            let Some(instruction) = self.plain.get(at) else { break };
            match instruction {
                Instruction::PushLoop(_) | Instruction::PushWith => frames += 1,
                Instruction::PopFrame | Instruction::PopLoopFrame => frames = frames.saturating_sub(1),
                _ => {}
            }
            self.put(at, instruction)?;
        }
        moved.push(self.length);
        for at in 0..self.length {
            if let Some(target) = self.metered.get_mut(at).and_then(target_mut) {
                let new = usize::try_from(*target).ok().and_then(|target| moved.get(target));
                *target = new.copied().unwrap_or(self.length);
            }
        }
        Ok(self.metered)
    }

    /// Puts in front of a stretch that it is paid.
    fn pay(&mut self, from: u32, mut frames: usize) {
        let (mut price, mut printed) = (STRETCH, 0_u64);
        let mut at = from;
        while let Some(instruction) = self.plain.get(at).filter(|_| at == from || !self.begins.contains(&at)) {
            price = price.saturating_add(INSTRUCTION);
            match instruction {
                Instruction::EmitRaw(text) => {
                    price = price.saturating_add(bytes(text.len()));
                    printed = printed.saturating_add(bytes(text.len()));
                }
                Instruction::Lookup(name) | Instruction::CallFunction(name, _) => {
                    price = price.saturating_add(operators::lookup(name, frames, self.names));
                }
                Instruction::StoreLocal(name) => {
                    price = price.saturating_add(operators::lookup(name, 0, self.names)).saturating_add(VALUE);
                }
                Instruction::GetAttr(name) | Instruction::SetAttr(name) => {
                    price = price.saturating_add(operators::lookup(name, 0, usize::from(u16::MAX)));
                }
                Instruction::ApplyFilter(name, count, _)
                | Instruction::PerformTest(name, count, _)
                | Instruction::CallMethod(name, count) => {
                    let values = u64::from(count.unwrap_or(0)).saturating_mul(VALUE);
                    price = price.saturating_add(bytes(name.len())).saturating_add(values);
                }
                Instruction::BuildMap(count) | Instruction::BuildKwargs(count) => {
                    price = price.saturating_add(bytes(*count).saturating_mul(VALUE * 4));
                }
                Instruction::BuildList(count) | Instruction::BuildTuple(count) => {
                    price = price.saturating_add(bytes(count.unwrap_or(0)).saturating_mul(VALUE));
                }
                Instruction::PushLoop(_) | Instruction::PushWith => {
                    frames += 1;
                    price = price.saturating_add(VALUE);
                }
                Instruction::PopFrame | Instruction::PopLoopFrame => frames = frames.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        self.add(from, Instruction::LoadConst(Value::from(price)));
        if printed > 0 {
            self.add(from, Instruction::LoadConst(Value::from(printed)));
            self.filter(from, operators::PAY_AND_PRINT, 2);
        } else {
            self.filter(from, operators::PAY, 1);
        }
        self.add(from, Instruction::DiscardTop);
    }

    fn put(&mut self, at: u32, instruction: &Instruction<'s>) -> Result<(), Refused> {
        match instruction {
            Instruction::GetItem => self.filter(at, operators::ITEM, 2),
            Instruction::Slice => self.filter(at, operators::SLICE, 4),
            Instruction::BuildMap(pairs) => {
                let values = pairs.checked_mul(2).and_then(|values| u16::try_from(values).ok());
                self.filter(at, operators::MAP, values.ok_or_else(|| self.refused(at, "the map is too large"))?);
            }
            Instruction::Add => self.filter(at, operators::ADD, 2),
            Instruction::StringConcat => self.filter(at, operators::CONCAT, 2),
            Instruction::Eq => self.filter(at, Comparison::Eq.name(), 2),
            Instruction::Ne => self.filter(at, Comparison::Ne.name(), 2),
            Instruction::Gt => self.filter(at, Comparison::Gt.name(), 2),
            Instruction::Gte => self.filter(at, Comparison::Gte.name(), 2),
            Instruction::Lt => self.filter(at, Comparison::Lt.name(), 2),
            Instruction::Lte => self.filter(at, Comparison::Lte.name(), 2),
            Instruction::In => self.filter(at, Comparison::In.name(), 2),
            Instruction::CompareAndPreserve(operator) => {
                // The engine does not name the type of the operator.
                let operator = format!("{operator:?}");
                let comparison = Comparison::ALL.into_iter().find(|one| format!("{one:?}") == operator);
                let comparison = comparison.ok_or_else(|| self.refused(at, "this comparison is not available"))?;
                self.filter(at, comparison.in_chain(), 2);
                self.add(at, Instruction::UnpackList(2));
            }
            Instruction::UnpackList(count) => {
                self.filter(at, operators::OPEN, 1);
                self.add(at, Instruction::UnpackList(*count));
            }
            Instruction::PushLoop(flags) => {
                if flags & !WITH_LOOP_NAME != 0 {
                    return Err(self.refused(at, "`recursive` is not available"));
                }
                self.filter(at, operators::OPEN, 1);
                self.add(at, instruction.clone());
            }
            Instruction::ApplyFilter("trim", count, _) if *count != Some(1) => {
                return Err(self.refused(at, "`trim` takes off white space only: it has no argument"));
            }
            Instruction::CallMethod(name @ ("cycle" | "changed"), Some(count)) => {
                let name = if *name == "cycle" { operators::CYCLE } else { operators::CHANGED };
                self.filter(at, name, *count);
            }
            Instruction::Mul | Instruction::Pow => return Err(self.refused(at, "`*` and `**` are not available")),
            Instruction::MergeKwargs(_)
            | Instruction::UnpackLists(_)
            | Instruction::CallMethod(_, None)
            | Instruction::CallFunction(_, None)
            | Instruction::CallObject(None)
            | Instruction::ApplyFilter(_, None, _)
            | Instruction::PerformTest(_, None, _) => {
                return Err(self.refused(at, "arguments from a list are not available"));
            }
            Instruction::BeginCapture(_) | Instruction::EndCapture => {
                return Err(self.refused(at, "a block that is kept is not available"));
            }
            Instruction::EmitRaw(_)
            | Instruction::StoreLocal(_)
            | Instruction::Lookup(_)
            | Instruction::GetAttr(_)
            | Instruction::SetAttr(_)
            | Instruction::LoadConst(_)
            | Instruction::BuildKwargs(_)
            | Instruction::BuildList(_)
            | Instruction::BuildTuple(_)
            | Instruction::Sub
            | Instruction::Div
            | Instruction::IntDiv
            | Instruction::Rem
            | Instruction::Neg
            | Instruction::Not
            | Instruction::ApplyFilter(_, Some(_), _)
            | Instruction::PerformTest(_, Some(_), _)
            | Instruction::Emit
            | Instruction::PushWith
            | Instruction::Iterate(_)
            | Instruction::PushDidNotIterate
            | Instruction::PopFrame
            | Instruction::PopLoopFrame
            | Instruction::Jump(_)
            | Instruction::JumpIfFalse(_)
            | Instruction::JumpIfFalseOrPop(_)
            | Instruction::JumpIfTrueOrPop(_)
            | Instruction::PushAutoEscape
            | Instruction::PopAutoEscape
            | Instruction::CallFunction(_, Some(_))
            | Instruction::CallMethod(_, Some(_))
            | Instruction::CallObject(Some(_))
            | Instruction::DupTop
            | Instruction::DiscardTop
            | Instruction::FastRecurse
            | Instruction::Swap => self.add(at, instruction.clone()),
        }
        Ok(())
    }

    fn refused(&self, at: u32, problem: &'static str) -> Refused {
        let at = self.plain.get_span(at).map_or(0, |Span { start_offset, .. }| start_offset);
        Refused { at: usize::try_from(at).unwrap_or(0), problem }
    }

    fn filter(&mut self, at: u32, name: &'static str, values: u16) {
        self.add(at, Instruction::ApplyFilter(name, Some(values), BY_NAME));
    }

    /// Adds an instruction at the place in the source that `at` has.
    fn add(&mut self, at: u32, instruction: Instruction<'s>) {
        let added = match (self.plain.get_span(at), self.plain.get_line(at)) {
            (Some(span), _) => self.metered.add_with_span(instruction, span),
            (None, line) => {
                let line = line.and_then(|line| u16::try_from(line).ok()).unwrap_or(0);
                self.metered.add_with_line(instruction, line)
            }
        };
        self.length = added + 1;
    }
}

/// Where an instruction may go on besides the next one.
fn target(instruction: &Instruction<'_>) -> Option<u32> {
    target_mut(&mut instruction.clone()).copied()
}

fn target_mut<'a>(instruction: &'a mut Instruction<'_>) -> Option<&'a mut u32> {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target) => Some(target),
        _ => None,
    }
}
