//! The order that steps impose on each other: cycles are refused, depth and width are bounded.

use mesh_types::ModelConfigError;

use super::{
    flat::Flat,
    outline::{Bound, MAX_DEPTH, MAX_WIDTH, Outline, Route},
};

/// Gives each call its level, or says what goes in a circle or is too deep or wide.
pub(super) fn order(outline: &mut Outline, flat: &Flat, problems: &mut Vec<ModelConfigError>) {
    let before = predecessors(outline);
    let mut levels: Vec<Option<usize>> = vec![None; before.len()];
    // One more round than there are items: each round settles at least one, or nothing more can be settled.
    for _ in 0..=before.len() {
        for (item, before) in before.iter().enumerate() {
            let known: Option<Vec<usize>> = before
                .iter()
                .map(|other| levels.get(*other).copied().flatten())
                .collect();
            if let (Some(known), Some(level)) = (known, levels.get_mut(item)) {
                *level = Some(known.into_iter().map(|level| level + 1).max().unwrap_or(0));
            }
        }
    }
    let settled: Option<Vec<usize>> = levels.iter().copied().collect();
    let Some(settled) = settled else {
        problems.push(cycle(outline, flat, &before, &levels));
        return;
    };
    for (call, level) in outline.calls.iter_mut().zip(&settled) {
        call.level = *level;
    }
    let say = |problem: String| ModelConfigError {
        field: flat.form.to_owned(),
        problem,
    };
    let depth = settled.iter().max().map_or(0, |level| level + 1);
    if depth > MAX_DEPTH {
        problems.push(say(format!(
            "{depth} steps wait for one another, at most {MAX_DEPTH} may"
        )));
    }
    let widest = (0..depth).map(|level| width(outline, level, None)).max();
    if let Some(width) = widest.filter(|width| *width > MAX_WIDTH) {
        problems.push(say(format!(
            "{width} steps would run side by side, at most {MAX_WIDTH} may"
        )));
    }
}

/// How many steps of a level may run side by side: of a choice, those of its widest route. Choices nest a few deep only.
fn width(outline: &Outline, level: usize, within: Option<Route>) -> usize {
    let calls = outline.calls.iter();
    let own = calls.filter(|call| call.level == level && call.route == within).count();
    let choices = outline.choices.iter().enumerate();
    let inner = choices
        .filter(|(_, choice)| choice.route == within)
        .map(|(at, choice)| {
            let routes = (0..choice.routes()).map(|route| width(outline, level, Some(Route { choice: at, route })));
            routes.max().unwrap_or(0)
        });
    own + inner.sum::<usize>()
}

/// For each item (calls, then choices) those that come before it.
fn predecessors(outline: &Outline) -> Vec<Vec<usize>> {
    let makers = |tensors: Vec<usize>| -> Vec<usize> {
        let infos = tensors.into_iter().filter_map(|tensor| outline.tensors.get(tensor));
        infos.flat_map(|info| info.makers.clone()).collect()
    };
    let of_bound = |bound: &Bound| bound.tensors.clone();
    let calls = outline.calls.iter().map(|call| {
        let mut tensors: Vec<usize> = call.inputs.iter().flat_map(|input| input.from.clone()).collect();
        tensors.extend(call.when.iter().flat_map(of_bound));
        let mut before = makers(tensors);
        before.extend(call.route.map(|route| outline.calls.len() + route.choice));
        before
    });
    let choices = outline.choices.iter().map(|choice| {
        let mut before = makers(choice.tensors());
        before.extend(choice.route.map(|route| outline.calls.len() + route.choice));
        before
    });
    calls.chain(choices).collect()
}

/// Follows unsettled items back until one comes again.
fn cycle(outline: &Outline, flat: &Flat, before: &[Vec<usize>], levels: &[Option<usize>]) -> ModelConfigError {
    let unsettled = |item: &usize| levels.get(*item).copied().flatten().is_none();
    let mut path: Vec<usize> = Vec::new();
    let mut item = (0..before.len()).find(unsettled);
    while let Some(next) = item {
        if let Some(start) = path.iter().position(|known| *known == next) {
            path.drain(..start);
            break;
        }
        path.push(next);
        item = before
            .get(next)
            .and_then(|before| before.iter().copied().find(unsettled));
    }
    path.reverse();
    let name = |item: &usize| {
        let call = outline.calls.get(*item).map(|call| call.name.to_string());
        let choice = item
            .checked_sub(outline.calls.len())
            .and_then(|at| outline.choices.get(at));
        call.or_else(|| choice.map(|choice| choice.name.to_string()))
            .unwrap_or_default()
    };
    let names: Vec<String> = path.iter().chain(path.first()).map(name).collect();
    let place = |item: &usize| {
        let choice = item.checked_sub(flat.calls.len()).and_then(|at| flat.choices.get(at));
        let call = flat.calls.get(*item).map(|call| &call.place);
        call.or(choice.map(|choice| &choice.place)).cloned()
    };
    ModelConfigError {
        field: path.first().and_then(place).unwrap_or_else(|| flat.form.to_owned()),
        problem: format!("steps wait for each other in a circle: {}", names.join(" -> ")),
    }
}
