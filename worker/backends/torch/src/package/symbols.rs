//! What a package's code reads off its inputs beside their elements: dynamic dimensions, and strides where they are no products.
//!
//! The code reads every dimension once, off the first extent that has it. Where that extent is an expression of the dimension, it
//! is solved: a multiple is understood here, and nothing else is.

use std::collections::{HashMap, HashSet};

use super::extents::Dimension;

/// What is read of the inputs: `int64_t s0 = arg0_1_size[0];`, and the same of strides.
#[derive(Debug)]
pub(super) struct Symbols<'a> {
    /// What is read of an input at a place, and what it is called.
    sizes: HashMap<(&'a str, usize), &'a str>,
    /// Of an extent that is a multiple of a dimension, by how many: `int64_t s0 = (1.0/32.0)*arg0_1_size_2;`.
    multiples: HashMap<&'a str, i64>,
    strides: HashSet<&'a str>,
}

impl<'a> Symbols<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let (mut sizes, mut multiples, mut strides) = (HashMap::new(), HashMap::new(), HashSet::new());
        for line in text.lines() {
            let assigned = line
                .trim()
                .strip_prefix("int64_t ")
                .and_then(|line| line.strip_suffix(';'));
            let Some((symbol, read)) = assigned.and_then(|line| line.split_once(" = ")) else {
                continue;
            };
            let indexed = read.strip_suffix(']');
            if let Some((name, place)) = indexed.and_then(|read| read.rsplit_once("_size[")) {
                sizes.extend(place.parse().ok().map(|place| ((name, place), symbol)));
            } else if let Some((name, _)) = indexed.and_then(|read| read.rsplit_once("_stride[")) {
                strides.insert(name);
            } else if let Some((multiple, of)) = read.strip_prefix("(1.0/").and_then(|read| read.split_once(".0)*")) {
                multiples.extend(multiple.parse().ok().map(|multiple| (of, multiple)));
            }
        }
        Self {
            sizes,
            multiples,
            strides,
        }
    }

    /// Whether a stride is read of an input: it is no product of extents then.
    pub(super) fn read_a_stride_of(&self, name: &str) -> bool {
        self.strides.contains(name)
    }

    /// Where the code has the dimension of an extent from, if that is dynamic.
    pub(super) fn dimension(&self, name: &str, place: usize) -> Dimension {
        match self.sizes.get(&(name, place)) {
            None => Dimension::Shared,
            // An expression, which is solved for its dimension.
            Some(symbol) if *symbol == format!("{name}_size_{place}") => {
                let multiple = self.multiples.get(symbol).copied();
                multiple.map_or(Dimension::Shared, Dimension::Own)
            }
            Some(_) => Dimension::Own(1),
        }
    }
}
