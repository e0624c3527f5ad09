//! What the extents of a package's inputs must be: each within bounds, and equal where the code takes them for one.
//!
//! The code reads a dynamic dimension, such as the length of a sequence, off one extent, its owner, and takes all others that
//! were exported with the same dimension to be as long without comparing: a shorter one would be read beyond its end. The source
//! says who owns a dimension and between which bounds each extent lies, but not which extents share one. So an extent that owns
//! nothing must equal the owner with its bounds; where none or several could be meant, the package is refused.
//!
//! Invariants: rows are equal in all inputs that have them; what is not known to be safe is refused at load, and not at a call.

use mesh_backend::BackendError;

/// PyTorch takes extents of 0 and 1 apart when it exports, so this is the least that it writes of a dynamic one.
const LEAST_DYNAMIC: i64 = 2;

/// One extent as the source describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) least: i64,
    pub(crate) most: i64,
    pub(crate) dimension: Dimension,
}

/// Where the code has an extent's dynamic dimension from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// Off this extent, which is so many times the dimension.
    Own(i64),
    /// Off another one.
    Shared,
}

impl Extent {
    /// One of which nothing is known.
    pub(crate) const ANY: Self = Self {
        least: 0,
        most: i64::MAX,
        dimension: Dimension::Shared,
    };

    pub(crate) const fn is_dynamic(&self) -> bool {
        self.least != self.most
    }

    const fn bounds(&self) -> (i64, i64) {
        (self.least, self.most)
    }
}

/// One input: its name in the configuration, whether it has rows there, and its extents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) name: &'a str,
    pub(crate) has_rows: bool,
    pub(crate) extents: &'a [Extent],
}

/// An extent's place: of which input, and where in it.
type Place = (usize, usize);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    least: i64,
    most: i64,
    /// What it must be a multiple of.
    step: i64,
    /// The one that it must equal.
    like: Option<Place>,
}

impl Limit {
    fn admits(&self, extent: i64) -> bool {
        (self.least..=self.most).contains(&extent) && self.divides(extent)
    }

    /// Whether the code comes to the right dimension: it divides with floating-point numbers and cuts off the rest, so that it
    /// comes to one too few of some multiples.
    fn divides(&self, extent: i64) -> bool {
        if self.step == 1 {
            return true;
        }
        let (Ok(extent), Ok(step)) = (u32::try_from(extent), u32::try_from(self.step)) else {
            return false;
        };
        let (extent, step) = (f64::from(extent), f64::from(step));
        let dimension = (1.0 / step * extent).trunc();
        (dimension * step - extent).abs() < 0.5
    }

    fn text(&self) -> String {
        let range = range(self.least, self.most);
        match self.step {
            1 => range,
            step => format!("{range} in steps of {step}"),
        }
    }
}

/// What the extents of all inputs must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits(Vec<(String, Vec<Limit>)>);

impl Limits {
    /// Finds what must be equal; an error says which extent cannot be told.
    pub(crate) fn of(inputs: &[Input<'_>]) -> Result<Self, BackendError> {
        let dimensions = Dimensions::of(inputs);
        let mut limits = Vec::with_capacity(inputs.len());
        for (number, input) in inputs.iter().enumerate() {
            let extents = input.extents.iter().enumerate();
            let own: Result<Vec<Limit>, BackendError> = extents
                .map(|(place, extent)| dimensions.limit(input, (number, place), *extent))
                .collect();
            limits.push((input.name.to_owned(), own?));
        }
        Ok(Self(limits))
    }

    /// Checks the extents of a call's inputs; the error names the input and says what would be right.
    pub(crate) fn check(&self, given: &[Vec<i64>]) -> Result<(), String> {
        for ((name, limits), extents) in self.0.iter().zip(given) {
            let fits = |(limit, extent): (&Limit, &i64)| limit.admits(*extent);
            if extents.len() != limits.len() || !limits.iter().zip(extents).all(fits) {
                let expected: Vec<String> = limits.iter().map(Limit::text).collect();
                let expected = expected.join(", ");
                return Err(format!(
                    "'{name}' has the shape {extents:?}, the package was compiled for [{expected}]"
                ));
            }
            for (place, (limit, extent)) in limits.iter().zip(extents).enumerate() {
                let Some((other, at)) = limit.like else { continue };
                let right = given.get(other).and_then(|extents| extents.get(at));
                if right != Some(extent) {
                    let (other, right) = (self.name(other), right.copied().unwrap_or_default());
                    return Err(format!(
                        "'{name}' has the extent {extent} at place {place}, where it must have that of '{other}' at place {at}, \
                         which is {right}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn name(&self, input: usize) -> &str {
        self.0.get(input).map_or("", |(name, _)| name)
    }
}

/// Who owns a dimension.
struct Dimensions {
    /// The first extent that is the rows.
    rows: Option<Place>,
    /// All owners with their bounds; those that are rows stand as the first of these.
    owners: Vec<(Place, (i64, i64))>,
}

impl Dimensions {
    fn of(inputs: &[Input<'_>]) -> Self {
        let rows = inputs
            .iter()
            .position(|input| input.has_rows && !input.extents.is_empty())
            .map(|input| (input, 0));
        let mut owners = Vec::new();
        for (number, input) in inputs.iter().enumerate() {
            for (place, extent) in input.extents.iter().enumerate() {
                if extent.is_dynamic() && extent.dimension != Dimension::Shared {
                    let own = rows.filter(|_| input.has_rows && place == 0).unwrap_or((number, place));
                    owners.push((own, extent.bounds()));
                }
            }
        }
        Self { rows, owners }
    }

    fn limit(&self, input: &Input<'_>, own: Place, extent: Extent) -> Result<Limit, BackendError> {
        let is_rows = input.has_rows && own.1 == 0;
        let mut limit = Limit {
            least: extent.least,
            most: extent.most,
            step: 1,
            like: None,
        };
        if is_rows && limit.least == LEAST_DYNAMIC {
            // The code runs one row as well.
            limit.least = 1;
        }
        match extent.dimension {
            _ if !extent.is_dynamic() => {}
            Dimension::Own(multiple) => limit.step = multiple,
            Dimension::Shared => limit.like = Some(self.owner(input, own.1, extent)?),
        }
        if is_rows && limit.like.is_none() {
            limit.like = self.rows;
        }
        limit.like = limit.like.filter(|like| *like != own);
        Ok(limit)
    }

    /// The one owner that an extent can have.
    fn owner(&self, input: &Input<'_>, place: usize, extent: Extent) -> Result<Place, BackendError> {
        let same = self.owners.iter().filter(|(_, bounds)| *bounds == extent.bounds());
        let mut owners: Vec<Place> = same.map(|(own, _)| *own).collect();
        owners.sort_unstable();
        owners.dedup();
        let which = format!(
            "extent {place} of input '{}' ({})",
            input.name,
            range(extent.least, extent.most)
        );
        match owners.as_slice() {
            [owner] => Ok(*owner),
            [] => Err(BackendError::Load(format!(
                "the package computes {which} of another one, which cannot be checked at a call: export it with a dynamic \
                 dimension of its own there, or a fixed extent"
            ))),
            _ => Err(BackendError::Load(format!(
                "{which} may be any of several dynamic dimensions of the package that have the same bounds: export it with other \
                 bounds for each, such as torch.export.Dim(\"length\", max=512)"
            ))),
        }
    }
}

fn range(least: i64, most: i64) -> String {
    match (least, most) {
        (least, most) if least == most => least.to_string(),
        (least, i64::MAX) => format!("{least} or more"),
        (least, most) => format!("{least} to {most}"),
    }
}

#[cfg(test)]
#[path = "extents_tests.rs"]
mod tests;
