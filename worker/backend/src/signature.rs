//! What a model takes and gives, as far as its file says: names, types and defaults of its arguments, and its result.
//!
//! Owns the vocabulary and the names of the tensors inside containers. A tensor in a list or tuple is `name__0`, `name__1` and
//! so on, one in a dictionary or named tuple `name.key`; containers nest. Knows no runtime: runtimes read signatures out of
//! files, [`crate::Binding`] puts a model's configuration beside one.

use std::fmt;

use mesh_types::DataType;

/// The deepest nesting of containers.
pub const MAX_DEPTH: usize = 8;

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueType {
    /// A tensor, with what is known of its elements and extents (-1 is any).
    Tensor {
        /// Its element type, where the file says.
        datatype: Option<DataType>,
        /// Its extents, the batch's among them, where the file says.
        dims: Option<Vec<i64>>,
    },
    /// A whole number.
    Int,
    /// A floating-point number.
    Float,
    /// True or false.
    Bool,
    /// May be none.
    Optional(Box<ValueType>),
    /// As many as there are.
    List {
        /// What each is.
        item: Box<ValueType>,
        /// How many the model's code reads or makes, where that can be seen.
        length: Option<usize>,
    },
    /// So many, in order.
    Tuple(Vec<ValueType>),
    /// So many, by name.
    Record(Vec<(String, ValueType)>),
    /// Any, by name.
    Dict {
        /// What each is.
        value: Box<ValueType>,
        /// Those that the model's code reads or makes, where that can be seen.
        keys: Vec<String>,
    },
    /// What no tensor can stand for.
    Other(String),
}

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name; `INPUT__<index>` where the file has none.
    pub name: String,
    /// What it is.
    pub value: ValueType,
    /// What it is when left out; none if it may not be.
    pub default: Option<String>,
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// In the order of the call.
    pub arguments: Vec<Argument>,
    /// What comes back.
    pub result: ValueType,
    /// The most rows of a batch, where the file says.
    pub max_rows: Option<u32>,
}

impl ValueType {
    /// A tensor of which nothing more is known.
    pub const fn tensor() -> Self {
        Self::Tensor {
            datatype: None,
            dims: None,
        }
    }

    /// The type without a possible none.
    pub fn present(&self) -> &Self {
        match self {
            Self::Optional(inner) => inner.present(),
            other => other,
        }
    }

    /// Whether none is one of its values.
    pub const fn may_be_none(&self) -> bool {
        matches!(self, Self::Optional(_))
    }

    /// Whether it is a number or a list of numbers: handed to the model as such, and not as a tensor.
    pub fn is_plain(&self) -> bool {
        match self.present() {
            Self::Int | Self::Float | Self::Bool => true,
            Self::List { item, .. } => matches!(**item, Self::Int | Self::Float | Self::Bool),
            _ => false,
        }
    }

    /// Whether it is what a request's parameters become: texts by name, `Dict[str, str]`. No input stands for it.
    pub fn is_parameters(&self) -> bool {
        match self.present() {
            Self::Dict { value, .. } => matches!(&**value, Self::Other(text) if text == "str"),
            _ => false,
        }
    }

    /// Whether one input or output stands for the whole of it.
    pub fn is_leaf(&self) -> bool {
        self.is_plain() || matches!(self.present(), Self::Tensor { .. })
    }

    /// The tensors inside it with their names, in order, as far as they can be known; a container without known members has
    /// one with a name that stands for any.
    pub fn leaves<'a>(&'a self, name: &str) -> Vec<(String, &'a ValueType)> {
        let mut found = Vec::new();
        self.collect(name.to_owned(), 0, &mut found);
        found
    }

    fn collect<'a>(&'a self, name: String, depth: usize, found: &mut Vec<(String, &'a ValueType)>) {
        if self.is_leaf() || depth > MAX_DEPTH {
            found.push((name, self));
            return;
        }
        let item = |index: usize| format!("{name}__{index}");
        let field = |key: &str| {
            if name.is_empty() {
                key.to_owned()
            } else {
                format!("{name}.{key}")
            }
        };
        match self.present() {
            Self::List { item: of, length } => {
                (0..length.unwrap_or(1)).for_each(|index| of.collect(item(index), depth + 1, found));
            }
            Self::Tuple(items) => {
                let items = items.iter().enumerate();
                items.for_each(|(index, of)| of.collect(item(index), depth + 1, found));
            }
            Self::Record(fields) => {
                let fields = fields.iter();
                fields.for_each(|(key, of)| of.collect(field(key), depth + 1, found));
            }
            Self::Dict { value, keys } if keys.is_empty() => value.collect(field("KEY"), depth + 1, found),
            Self::Dict { value, keys } => {
                keys.iter().for_each(|key| value.collect(field(key), depth + 1, found));
            }
            _ => found.push((name, self)),
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { datatype, dims } => {
                formatter.write_str("Tensor")?;
                if let Some(datatype) = datatype {
                    write!(formatter, " {datatype}")?;
                }
                if let Some(dims) = dims {
                    write!(formatter, " {dims:?}")?;
                }
                Ok(())
            }
            Self::Int => formatter.write_str("int"),
            Self::Float => formatter.write_str("float"),
            Self::Bool => formatter.write_str("bool"),
            Self::Optional(inner) => write!(formatter, "Optional[{inner}]"),
            Self::List { item, .. } => write!(formatter, "List[{item}]"),
            Self::Tuple(items) => {
                formatter.write_str("Tuple[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(formatter, "{comma}{item}")?;
                }
                formatter.write_str("]")
            }
            Self::Record(fields) => {
                formatter.write_str("{")?;
                for (index, (key, value)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(formatter, "{comma}{key}: {value}")?;
                }
                formatter.write_str("}")
            }
            Self::Dict { value, .. } => write!(formatter, "Dict[str, {value}]"),
            Self::Other(text) => formatter.write_str(text),
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("forward(")?;
        for (index, argument) in self.arguments.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}{}: {}", argument.name, argument.value)?;
            if let Some(default) = &argument.default {
                write!(formatter, " = {default}")?;
            }
        }
        write!(formatter, ") -> {}", self.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tensors_in_containers_follow_from_their_places() {
        let list = |length| ValueType::List {
            item: Box::new(ValueType::tensor()),
            length,
        };
        let dict = |keys: &[&str]| ValueType::Dict {
            value: Box::new(ValueType::tensor()),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        let nested = ValueType::Tuple(vec![
            ValueType::tensor(),
            dict(&["h", "c"]),
            ValueType::Optional(Box::new(list(Some(2)))),
        ]);
        let names = |value: &ValueType, name: &str| -> Vec<String> {
            value.leaves(name).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&nested, "s"), ["s__0", "s__1.h", "s__1.c", "s__2__0", "s__2__1"]);
        assert_eq!(names(&dict(&["a"]), ""), ["a"]);
        assert_eq!(names(&dict(&[]), "d"), ["d.KEY"]);
        assert_eq!(names(&list(None), "l"), ["l__0"]);
        let numbers = ValueType::List {
            item: Box::new(ValueType::Int),
            length: Some(3),
        };
        assert_eq!(names(&numbers, "sizes"), ["sizes"]);
    }

    #[test]
    fn a_signature_reads_like_pythons() {
        let signature = Signature {
            arguments: vec![
                Argument {
                    name: "x".into(),
                    value: ValueType::tensor(),
                    default: None,
                },
                Argument {
                    name: "k".into(),
                    value: ValueType::Optional(Box::new(ValueType::Int)),
                    default: Some("None".into()),
                },
            ],
            result: ValueType::Tuple(vec![ValueType::tensor(), ValueType::Float]),
            max_rows: None,
        };
        assert_eq!(
            signature.to_string(),
            "forward(x: Tensor, k: Optional[int] = None) -> Tuple[Tensor, float]"
        );
    }
}
