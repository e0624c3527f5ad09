//! Conditions: small typed expressions over tensors and request parameters, by which a graph takes one way or another.
//!
//! Owns their syntax ([`parse`]), their static types and their evaluation. Knows no graph: a condition names tensors, and whoever
//! evaluates it says what they are.
//!
//! ```text
//! label[0] == 7 && (score[0] >= 0.5 || parameters.mode == "strict")
//! !present(language) || language == 'de'
//! ```
//!
//! An operand is a number, a text, `true` or `false`; an element of a tensor (`name[3]`, counted over the flat tensor; `name` is
//! its first); `size(name)`, its number of elements; `present(name)`, whether there is such a tensor; or a parameter of the
//! request (`parameters.mode`, `parameters["any name"]`). Names of other characters than letters, digits, `_`, `.` and `-` stand
//! in backquotes. Operators are `== != < <= > >=`, `!`, `&&`, `||`, in this order of strength.
//!
//! Invariants: evaluation always ends and cannot fail; a comparison with something that is not there, or of another type, is
//! false whatever its operator; whole numbers are compared exactly; a text is compared by its bytes.

mod lexer;
mod parse;
mod value;

use std::cmp::Ordering;

use mesh_types::{DataType, ParameterValue, Parameters, Tensor};

pub use value::{Number, Value};

/// How deep parentheses and negations may lie within each other.
pub const MAX_CONDITION_DEPTH: usize = 16;

/// What is wrong with a condition, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {problem}")]
pub struct ConditionError {
    /// The character, counted from 1.
    pub at: usize,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// A condition that has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    text: Box<str>,
    root: Expression,
    names: Vec<Named>,
}

/// A tensor that a condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: Box<str>,
    /// Where it is named first, counted in characters from 1.
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Or(Vec<Self>),
    And(Vec<Self>),
    Not(Box<Self>),
    Compare(Operand, Operator, Operand),
    Truth(Operand),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
struct Operand {
    at: usize,
    what: What,
}

/// Tensors are by their place in [`Condition::names`].
#[derive(Debug, Clone, PartialEq)]
enum What {
    Number(Number),
    Text(Box<str>),
    Bool(bool),
    Element(usize, usize),
    Size(usize),
    Present(usize),
    Parameter(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Number,
    Text,
    Bool,
    /// Of a parameter: known when it comes.
    Any,
}

impl Type {
    fn of(datatype: DataType) -> Self {
        match datatype {
            DataType::Bool => Self::Bool,
            DataType::Bytes => Self::Text,
            _ => Self::Number,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Bool => "true or false",
            Self::Any => "a parameter",
        }
    }
}

impl Condition {
    /// Reads a condition.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        parse::parse(text)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tensors it names, each once.
    pub fn names(&self) -> &[Named] {
        &self.names
    }

    /// Says where types do not fit, given those of the tensors by their place in [`Condition::names`].
    pub fn check(&self, datatypes: &[DataType]) -> Result<(), ConditionError> {
        self.root.check(datatypes)
    }

    /// Whether it holds, given the tensors by their place in [`Condition::names`].
    pub fn holds<'a>(&self, tensor: &impl Fn(usize) -> Option<&'a Tensor>, parameters: &Parameters) -> bool {
        self.root.holds(tensor, parameters)
    }
}

impl Expression {
    fn check(&self, datatypes: &[DataType]) -> Result<(), ConditionError> {
        match self {
            Self::Or(parts) | Self::And(parts) => parts.iter().try_for_each(|part| part.check(datatypes)),
            Self::Not(inner) => inner.check(datatypes),
            Self::Compare(left, operator, right) => {
                let (a, b) = (left.type_of(datatypes), right.type_of(datatypes));
                let wrong = |problem: String| ConditionError { at: left.at, problem };
                if a != b && a != Type::Any && b != Type::Any {
                    return Err(wrong(format!("compares {} with {}", a.word(), b.word())));
                }
                let ordered = !matches!(operator, Operator::Equal | Operator::NotEqual);
                if ordered && (a == Type::Bool || b == Type::Bool) {
                    return Err(wrong("true and false have no order: compare them with == or !=".into()));
                }
                Ok(())
            }
            Self::Truth(operand) => match operand.type_of(datatypes) {
                Type::Bool | Type::Any => Ok(()),
                other => Err(ConditionError {
                    at: operand.at,
                    problem: format!("is {}, not true or false: compare it with something", other.word()),
                }),
            },
        }
    }

    fn holds<'a>(&self, tensor: &impl Fn(usize) -> Option<&'a Tensor>, parameters: &Parameters) -> bool {
        match self {
            Self::Or(parts) => parts.iter().any(|part| part.holds(tensor, parameters)),
            Self::And(parts) => parts.iter().all(|part| part.holds(tensor, parameters)),
            Self::Not(inner) => !inner.holds(tensor, parameters),
            Self::Compare(left, operator, right) => {
                let (left, right) = (left.value(tensor, parameters), right.value(tensor, parameters));
                let order = left.zip(right).and_then(|(left, right)| left.compare(&right));
                order.is_some_and(|order| operator.accepts(order))
            }
            Self::Truth(operand) => operand.value(tensor, parameters) == Some(Value::Bool(true)),
        }
    }
}

impl Operator {
    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Operand {
    fn type_of(&self, datatypes: &[DataType]) -> Type {
        match &self.what {
            What::Number(_) | What::Size(_) => Type::Number,
            What::Text(_) => Type::Text,
            What::Bool(_) | What::Present(_) => Type::Bool,
            What::Element(name, _) => datatypes.get(*name).map_or(Type::Any, |datatype| Type::of(*datatype)),
            What::Parameter(_) => Type::Any,
        }
    }

    fn value<'v, 'a: 'v>(
        &'v self,
        tensor: &impl Fn(usize) -> Option<&'a Tensor>,
        parameters: &'v Parameters,
    ) -> Option<Value<'v>> {
        match &self.what {
            What::Number(number) => Some(Value::Number(*number)),
            What::Text(text) => Some(Value::Text(text.as_bytes())),
            What::Bool(value) => Some(Value::Bool(*value)),
            What::Element(name, at) => Value::of_element(tensor(*name)?, *at),
            What::Size(name) => {
                let size = tensor(*name)?.element_count().ok()?;
                Some(Value::Number(Number::Whole(i128::try_from(size).ok()?)))
            }
            What::Present(name) => Some(Value::Bool(tensor(*name).is_some())),
            What::Parameter(name) => Some(match parameters.get(&**name)? {
                ParameterValue::Bool(value) => Value::Bool(*value),
                ParameterValue::Int(number) => Value::Number(Number::Whole((*number).into())),
                ParameterValue::Uint(number) => Value::Number(Number::Whole((*number).into())),
                ParameterValue::Double(number) => Value::Number(Number::Real(*number)),
                ParameterValue::String(text) => Value::Text(text.as_bytes()),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
