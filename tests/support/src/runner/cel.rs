//! The part of CEL that `when` needs here: texts, lists of them, `==`, `!=`, `in`, `!`, `&&`, `||` and brackets
//! (github.com/google/cel-spec, langdef.md "Syntax"). Anything else is an error, never a guess.

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

struct Parser<'a> {
    rest: &'a str,
    program: &'a str,
}

/// Whether `program`, in which all variables are replaced, is true.
pub fn holds(program: &str) -> Result<bool, String> {
    let mut parser = Parser { rest: program, program };
    let value = parser.or()?;
    match (parser.rest.trim(), value) {
        ("", Value::Bool(value)) => Ok(value),
        _ => Err(parser.unknown()),
    }
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Value, String> {
        let mut value = self.and()?;
        while self.eat("||") {
            let other = self.and()?;
            value = Value::Bool(self.bool(value)? | self.bool(other)?);
        }
        Ok(value)
    }

    fn and(&mut self) -> Result<Value, String> {
        let mut value = self.relation()?;
        while self.eat("&&") {
            let other = self.relation()?;
            value = Value::Bool(self.bool(value)? & self.bool(other)?);
        }
        Ok(value)
    }

    fn relation(&mut self) -> Result<Value, String> {
        let value = self.unary()?;
        Ok(match () {
            () if self.eat("==") => Value::Bool(value == self.unary()?),
            () if self.eat("!=") => Value::Bool(value != self.unary()?),
            () if self.eat("in ") || self.rest.trim_start().starts_with("in[") && self.eat("in") => {
                match self.unary()? {
                    Value::List(items) => Value::Bool(items.contains(&value)),
                    _ => return Err(self.unknown()),
                }
            }
            () => value,
        })
    }

    fn unary(&mut self) -> Result<Value, String> {
        if self.eat("!") {
            let value = self.unary()?;
            return Ok(Value::Bool(!self.bool(value)?));
        }
        if self.eat("(") {
            let value = self.or()?;
            return if self.eat(")") { Ok(value) } else { Err(self.unknown()) };
        }
        if self.eat("[") {
            let mut items = Vec::new();
            while !self.eat("]") {
                items.push(self.or()?);
                if !self.eat(",") && !self.rest.trim_start().starts_with(']') {
                    return Err(self.unknown());
                }
            }
            return Ok(Value::List(items));
        }
        for quote in ["'", "\""] {
            if self.eat(quote) {
                let (text, rest) = self.rest.split_once(quote).ok_or_else(|| self.unknown())?;
                self.rest = rest;
                return if text.contains('\\') { Err(self.unknown()) } else { Ok(Value::Text(text.to_owned())) };
            }
        }
        match () {
            () if self.eat("true") => Ok(Value::Bool(true)),
            () if self.eat("false") => Ok(Value::Bool(false)),
            () => Err(self.unknown()),
        }
    }

    /// Whether `token` comes next, which is then behind.
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) if token != "!" || !rest.starts_with('=') => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn bool(&self, value: Value) -> Result<bool, String> {
        match value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.unknown()),
        }
    }

    fn unknown(&self) -> String {
        format!("the runner can't evaluate the CEL {:?}, from {:?} on", self.program, self.rest)
    }
}
