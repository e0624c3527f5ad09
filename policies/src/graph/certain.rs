//! Which outputs every answer has. One that may be missing must be declared so: an answer never lacks something silently.

use mesh_types::ModelConfigError;

use super::{
    flat::Flat,
    outline::{Outline, Route},
};

/// Says which outputs may be missing without being declared optional.
pub(super) fn check(outline: &Outline, flat: &Flat, problems: &mut Vec<ModelConfigError>) {
    let certainty = Certainty {
        outline,
        calls: std::cell::RefCell::new(vec![None; outline.calls.len()]),
    };
    for (index, output) in outline.outputs.iter().enumerate() {
        let certain = output.from.iter().any(|tensor| certainty.tensor(*tensor, &[]));
        if !certain && !output.optional {
            problems.push(ModelConfigError {
                field: format!("output[{index}].name"),
                problem: format!(
                    "'{}' may be missing, because a condition may not hold, a step may fail softly or an \
                     input be left out: give it another \
                     source in {form}.outputs, or list it in {form}.optional_outputs",
                    output.name,
                    form = flat.form
                ),
            });
        }
    }
}

struct Certainty<'a> {
    outline: &'a Outline,
    /// Whether each call runs for certain once its route is taken, as far as it is known.
    calls: std::cell::RefCell<Vec<Option<bool>>>,
}

impl Certainty<'_> {
    /// Whether a tensor is there whenever these routes are taken.
    fn tensor(&self, tensor: usize, taken: &[Route]) -> bool {
        let Some(info) = self.outline.tensors.get(tensor) else {
            return false;
        };
        if info.makers.is_empty() {
            return !info.optional;
        }
        let made = |call: &usize| self.chain(*call).iter().all(|route| taken.contains(route)) && self.call(*call);
        info.makers.iter().any(made) || self.on_every_route(tensor, &info.makers, taken)
    }

    /// Whether some choice that is always made makes it on each of its routes.
    fn on_every_route(&self, tensor: usize, makers: &[usize], taken: &[Route]) -> bool {
        let mut choices: Vec<usize> = makers
            .iter()
            .flat_map(|call| self.chain(*call))
            .filter(|route| !taken.iter().any(|taken| taken.choice == route.choice))
            .map(|route| route.choice)
            .collect();
        choices.sort_unstable();
        choices.dedup();
        choices.into_iter().any(|at| {
            let Some(choice) = self.outline.choices.get(at) else {
                return false;
            };
            let reached = self.around(choice.route).iter().all(|route| taken.contains(route));
            reached
                && choice.is_exhaustive()
                && (0..choice.routes()).all(|route| {
                    let further = Route { choice: at, route };
                    let taken: Vec<Route> = taken.iter().copied().chain([further]).collect();
                    self.tensor(tensor, &taken)
                })
        })
    }

    /// Whether a call makes what it should whenever its route is taken.
    fn call(&self, at: usize) -> bool {
        if let Some(known) = self.calls.borrow().get(at).copied().flatten() {
            return known;
        }
        let taken = self.chain(at);
        let certain = self.outline.calls.get(at).is_some_and(|call| {
            let has = |from: &[usize]| from.iter().any(|tensor| self.tensor(*tensor, &taken));
            !call.soft && call.when.is_none() && call.inputs.iter().all(|input| input.optional || has(&input.from))
        });
        if let Some(known) = self.calls.borrow_mut().get_mut(at) {
            *known = Some(certain);
        }
        certain
    }

    fn chain(&self, call: usize) -> Vec<Route> {
        self.around(self.outline.calls.get(call).and_then(|call| call.route))
    }

    fn around(&self, route: Option<Route>) -> Vec<Route> {
        std::iter::successors(route, |route| self.outline.choices.get(route.choice)?.route).collect()
    }
}
