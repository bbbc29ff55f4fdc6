//! Writes all mutants of a file into it, each behind a question at run time whether it is the chosen one.

use std::collections::{HashMap, HashSet};

use proc_macro2::LineColumn;
use syn::{
    BinOp, Block, Expr, Signature,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::mutant::{Mutant, Position};

/// `source` with those of `mutants` (number and mutant, all of this file) that can be chosen at run time, and their numbers. The
/// others stand in constants.
pub fn with_mutants(source: &str, mutants: &[(usize, &Mutant)]) -> (String, HashSet<usize>) {
    let mut lines = vec![0];
    lines.extend(source.match_indices('\n').map(|(at, _)| at + 1));
    let mut at: HashMap<_, Vec<_>> = HashMap::new();
    for (number, mutant) in mutants {
        at.entry((mutant.genre.as_str(), mutant.span.start)).or_default().push((*number, mutant.replacement.as_str()));
    }
    let mut edits = Edits { source, lines, at, edits: Vec::new(), placed: HashSet::new() };
    edits.visit_file(&syn::parse_file(source).expect("it has compiled"));
    // Outer before inner: the visit is in that order, and the sort keeps it.
    edits.edits.sort_by_key(|edit| (edit.start, std::cmp::Reverse(edit.end)));
    (edits.rendered(0, source.len(), 0), edits.placed)
}

struct Edits<'a> {
    source: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
    at: HashMap<(&'a str, Position), Vec<(usize, &'a str)>>,
    edits: Vec<Edit>,
    placed: HashSet<usize>,
}

/// What stands in place of `start..end` of the source.
struct Edit {
    start: usize,
    end: usize,
    pieces: Vec<Piece>,
}

enum Piece {
    Text(String),
    /// A range of the source, with the edits in it.
    Source(usize, usize),
}

impl<'a> Edits<'a> {
    fn rendered(&self, start: usize, end: usize, first: usize) -> String {
        let (mut out, mut position) = (String::new(), start);
        for (index, edit) in self.edits.iter().enumerate().skip(first) {
            if edit.start < position || edit.end > end {
                continue;
            }
            out.push_str(&self.source[position..edit.start]);
            for piece in &edit.pieces {
                match piece {
                    Piece::Text(text) => out.push_str(text),
                    Piece::Source(start, end) => out.push_str(&self.rendered(*start, *end, index + 1)),
                }
            }
            position = edit.end;
        }
        out + &self.source[position..end]
    }

    fn offset(&self, at: LineColumn) -> usize {
        let line = self.lines[at.line - 1];
        line + self.source[line..].chars().take(at.column).map(char::len_utf8).sum::<usize>()
    }

    fn range(&self, of: &impl Spanned) -> (usize, usize) {
        (self.offset(of.span().start()), self.offset(of.span().end()))
    }

    fn mutants(&self, genre: &'static str, at: LineColumn) -> Vec<(usize, &'a str)> {
        self.at.get(&(genre, Position { line: at.line, column: at.column + 1 })).cloned().unwrap_or_default()
    }

    /// Puts `pieces` in place of a range; text is put together with the ranges of the source between it.
    fn place(&mut self, (start, end): (usize, usize), pieces: Vec<Piece>, mutants: &[(usize, &str)]) {
        self.placed.extend(mutants.iter().map(|(number, _)| number));
        self.edits.push(Edit { start, end, pieces });
    }

    /// `(if is(1) { ALTERNATIVE } else if … else { ORIGINAL })`, where an alternative has another operator, or none.
    fn place_alternatives(&mut self, whole: (usize, usize), operator: (usize, usize), mutants: &[(usize, &str)]) {
        let mut pieces = vec![text("(")];
        for (number, replacement) in mutants {
            pieces.push(text(format!("if {} {{ /*<{number}*/", is(*number))));
            pieces.extend([Piece::Source(whole.0, operator.0), text(*replacement), Piece::Source(operator.1, whole.1)]);
            pieces.push(text(format!("/*{number}>*/ }} else ")));
        }
        pieces.extend([text("{ "), Piece::Source(whole.0, whole.1), text(" })")]);
        self.place(whole, pieces, mutants);
    }

    fn place_in_body(&mut self, signature: &Signature, block: &Block) {
        let Some(first) = block.stmts.first() else { return };
        let (start, end) = self.range(&signature.output);
        // A hidden type is one type: two values of different types can't be returned.
        if self.source[start..end].contains("impl ") {
            return;
        }
        let mutants = self.mutants("FnValue", first.span().start());
        let returns =
            mutants.iter().map(|(n, value)| format!(" if {} {{ /*<{n}*/ return {value}; /*{n}>*/ }}", is(*n)));
        let start = self.offset(block.brace_token.span.open().end());
        self.place((start, start), vec![text(returns.collect::<String>())], &mutants);
    }
}

impl<'a> Visit<'a> for Edits<'_> {
    // What the compiler computes can't ask at run time.
    fn visit_item_const(&mut self, _: &'a syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'a syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'a syn::ImplItemConst) {}

    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        if function.sig.constness.is_none() {
            self.place_in_body(&function.sig, &function.block);
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        if function.sig.constness.is_none() {
            self.place_in_body(&function.sig, &function.block);
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'a syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.place_in_body(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_expr_binary(&mut self, binary: &'a syn::ExprBinary) {
        let mutants = self.mutants("BinaryOperator", binary.op.span().start());
        let (whole, operator) = (self.range(binary), self.range(&binary.op));
        let left = Piece::Source(whole.0, operator.0);
        let right = Piece::Source(operator.1, whole.1);
        match (&binary.op, mutants.first()) {
            (_, None) => {}
            // Each has one mutant, its opposite. These nest, so nothing is written twice.
            (BinOp::Eq(_) | BinOp::Ne(_), Some((n, _))) => {
                let source = Piece::Source(whole.0, whole.1);
                self.place(
                    whole,
                    vec![text(format!("(/*<{n}*/(")), source, text(format!(") != {}/*{n}>*/)", is(*n)))],
                    &mutants,
                );
            }
            // A condition with `let` in it can't stand in a block.
            (BinOp::And(_) | BinOp::Or(_), _) if binds(&binary.left) || binds(&binary.right) => {}
            (BinOp::And(_) | BinOp::Or(_), Some((n, _))) => {
                let goes_on = if matches!(binary.op, BinOp::And(_)) { "!=" } else { "==" };
                let begin = text(format!("({{ /*<{n}*/ let mutant_left: bool = "));
                let middle = text(format!("; if mutant_left {goes_on} {} {{ ", is(*n)));
                let end = text(format!(" }} else {{ mutant_left }} /*{n}>*/ }})"));
                self.place(whole, vec![begin, left, middle, right, end], &mutants);
            }
            _ => self.place_alternatives(whole, operator, &mutants),
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'a syn::ExprUnary) {
        let mutants = self.mutants("UnaryOperator", unary.op.span().start());
        if !mutants.is_empty() {
            self.place_alternatives(self.range(unary), self.range(&unary.op), &mutants);
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_struct(&mut self, literal: &'a syn::ExprStruct) {
        for pair in literal.fields.pairs().filter(|_| literal.rest.is_some()) {
            let mutants = self.mutants("StructField", pair.value().span().start());
            let end = pair.punct().map_or_else(|| self.range(*pair.value()).1, |comma| self.range(*comma).1);
            if !mutants.is_empty() {
                self.place_alternatives(self.range(literal), (self.range(*pair.value()).0, end), &mutants);
            }
        }
        visit::visit_expr_struct(self, literal);
    }

    fn visit_expr_match(&mut self, of: &'a syn::ExprMatch) {
        // With a guard, the compiler doesn't count an arm: another has to take all.
        let takes_all = |arm: &syn::Arm| matches!(arm.pat, syn::Pat::Wild(_)) && arm.guard.is_none();
        for arm in of.arms.iter().filter(|_| of.arms.iter().any(takes_all)) {
            if let [(n, _)] = self.mutants("MatchArm", arm.span().start())[..] {
                let end = self.range(&arm.pat).1;
                self.place((end, end), vec![text(format!(" if !{}", is(n)))], &[(n, "")]);
            }
        }
        visit::visit_expr_match(self, of);
    }

    fn visit_arm(&mut self, arm: &'a syn::Arm) {
        if let Some((_, guard)) = arm.guard.as_ref().filter(|(_, guard)| !binds(guard)) {
            let mutants = self.mutants("MatchArmGuard", guard.span().start());
            let whole = self.range(&**guard);
            let number = |value| mutants.iter().find(|(_, replacement)| *replacement == value).map_or(0, |(n, _)| *n);
            let begin = text(format!("!{} && ({} || (", is(number("false")), is(number("true"))));
            if !mutants.is_empty() {
                self.place(whole, vec![begin, Piece::Source(whole.0, whole.1), text("))")], &mutants);
            }
        }
        visit::visit_arm(self, arm);
    }
}

fn text(text: impl Into<String>) -> Piece {
    Piece::Text(text.into())
}

fn is(mutant: usize) -> String {
    format!("crate::mutants::is({mutant})")
}

/// Whether it is a condition that binds variables: `let … = … && …`.
fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(binary) => matches!(binary.op, BinOp::And(_)) && (binds(&binary.left) || binds(&binary.right)),
        _ => false,
    }
}
