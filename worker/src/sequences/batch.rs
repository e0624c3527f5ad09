//! From steps to a stateful model's inputs, and from its outputs to answers and states.
//!
//! Each step has one row. Where sequences have rows of their own, rows between them hold no request: they are zeros, the
//! model is told so by its READY tensor, and what it answers there is nobody's. A state that is declared comes with its row,
//! whichever that is, so where memory runs out such steps are packed into the first rows.

use bytes::Bytes;
use mesh_backend::{BackendError, BatchInput, BatchInputs, BatchOutputs};
use mesh_types::{ModelConfig, Shape, Tensor, TensorSpec};

use super::{Plan, StateTensor, Step, plan::StatePlan};
use crate::{
    batch::{parameters_of, rows_of},
    order::Member,
};

/// What a batch of steps needs besides its callers' tensors.
pub(crate) struct Prepared {
    /// Which member each row holds.
    rows: Vec<Option<usize>>,
    /// The control tensors.
    controls: Vec<Vec<u8>>,
    /// For each state, what each row begins from.
    states: Vec<Vec<StateTensor>>,
    /// A row of zeros for each input of the callers; empty where every row holds a request.
    blanks: Vec<Vec<u8>>,
}

fn step_of(member: &Member) -> Option<&Step> {
    member.step.as_deref()
}

/// Members that can share an execution: where states' extents differ, those whose states are alike.
pub(crate) fn partition(plan: &Plan, all: &[Member], members: Vec<usize>) -> Vec<Vec<usize>> {
    if !plan.varies {
        return vec![members];
    }
    let mut parts: Vec<(Vec<Shape>, Vec<usize>)> = Vec::new();
    for member in members {
        let step = all.get(member).and_then(step_of);
        let shapes: Vec<Shape> = step.map_or_else(Vec::new, |step| {
            states_of(plan, step).into_iter().map(|state| state.shape).collect()
        });
        match parts.iter_mut().find(|(known, _)| *known == shapes) {
            Some((_, alike)) => alike.push(member),
            None => parts.push((shapes, vec![member])),
        }
    }
    parts.into_iter().map(|(_, alike)| alike).collect()
}

/// What a step begins from. One that goes on runs only where its state is there ([`Step::can_run`]).
fn states_of(plan: &Plan, step: &Step) -> Vec<StateTensor> {
    if step.start {
        return plan.states.iter().map(|state| state.initial.clone()).collect();
    }
    step.state.tensors()
}

impl Prepared {
    /// Rows as sequences have them, or packed.
    pub(crate) fn of(plan: &Plan, members: &[&Member], packed: bool) -> Self {
        let slot = |member: &&Member| {
            let slot = step_of(member).map_or(0, |step| step.slot);
            usize::try_from(slot).unwrap_or(0)
        };
        let rows: Vec<Option<usize>> = if plan.padded && !packed {
            let mut rows = vec![None; members.iter().map(slot).max().map_or(0, |last| last + 1)];
            for (index, member) in members.iter().enumerate() {
                if let Some(row) = rows.get_mut(slot(member)) {
                    *row = Some(index);
                }
            }
            rows
        } else {
            (0..members.len()).map(Some).collect()
        };
        let step = |row: &Option<usize>| {
            row.and_then(|index| members.get(index))
                .and_then(|member| step_of(member))
        };
        let controls = (0..plan.controls()).map(|control| {
            let mut tensor = Vec::new();
            rows.iter()
                .for_each(|row| plan.element(control, step(row), &mut tensor));
            tensor
        });
        let controls: Vec<Vec<u8>> = controls.collect();
        let mut states: Vec<Vec<StateTensor>> = plan.states.iter().map(|_| Vec::with_capacity(rows.len())).collect();
        let known: Vec<Option<Vec<StateTensor>>> = rows
            .iter()
            .map(|row| step(row).map(|step| states_of(plan, step)))
            .collect();
        for (index, column) in states.iter_mut().enumerate() {
            let of = |row: &Option<Vec<StateTensor>>| row.as_ref().and_then(|states| states.get(index)).cloned();
            let some = known.iter().find_map(of).unwrap_or_default();
            let blank = StateTensor {
                data: Bytes::from(vec![0; some.data.len()]),
                shape: some.shape,
            };
            column.extend(known.iter().map(|row| of(row).unwrap_or_else(|| blank.clone())));
        }
        let blank = |input: usize| {
            let tensor = members.first().and_then(|member| member.job.inputs.get(input));
            tensor.map_or_else(Vec::new, |tensor| match tensor.datatype.element_bytes() {
                Some(_) => vec![0; tensor.data.len()],
                None => vec![0; tensor.element_count().unwrap_or(0) * 4],
            })
        };
        let blanks = if rows.iter().all(Option::is_some) {
            Vec::new()
        } else {
            (0..plan.inputs).map(blank).collect()
        };
        Self {
            rows,
            controls,
            states,
            blanks,
        }
    }

    /// All of the model's inputs, by reference.
    pub(crate) fn inputs<'a>(
        &'a self,
        config: &'a ModelConfig,
        plan: &Plan,
        members: &[&'a Member],
    ) -> BatchInputs<'a> {
        let batch = config
            .batches()
            .then(|| u64::try_from(self.rows.len()).unwrap_or(u64::MAX));
        let whole = |rest: &[u64]| -> Shape { batch.iter().copied().chain(rest.iter().copied()).collect() };
        // Members of a batch leave out the same inputs, so one's order is that of all.
        let given = members.first().map_or(&[][..], |member| &member.job.inputs).iter();
        let mut given = given.enumerate().peekable();
        let place = |spec: &TensorSpec| {
            let next = given.next_if(|(_, tensor)| !spec.optional || *tensor.name == *spec.name);
            next.map(|(place, _)| place)
        };
        let places: Vec<Option<usize>> = config.input.iter().take(plan.inputs).map(place).collect();
        let input = |(index, spec): (usize, &'a TensorSpec)| {
            if index < plan.inputs {
                let Some(index) = places.get(index).copied().flatten() else {
                    return BatchInput::absent(spec);
                };
                let of = |member: &&'a Member| member.job.inputs.get(index);
                let first = members.first().and_then(of);
                let rest = first.map_or(&[][..], |tensor: &Tensor| {
                    tensor.shape.get(usize::from(config.batches())..).unwrap_or_default()
                });
                let part = |row: &Option<usize>| match row.and_then(|member| members.get(member)).and_then(of) {
                    Some(tensor) => tensor.data.as_ref(),
                    None => self.blanks.get(index).map_or(&[][..], Vec::as_slice),
                };
                if let Some(only) = first.filter(|_| spec.unbatched) {
                    let (shape, parts) = (only.shape.clone(), vec![only.data.as_ref()]);
                    return BatchInput { spec, shape, parts };
                }
                let (shape, parts) = (whole(rest), self.rows.iter().map(part).collect());
                return BatchInput { spec, shape, parts };
            }
            let behind = index - plan.inputs;
            if let Some(control) = self.controls.get(behind).map(Vec::as_slice) {
                let (shape, parts) = (whole(&[1]), vec![control]);
                return BatchInput { spec, shape, parts };
            }
            let rows = self
                .states
                .get(behind - self.controls.len())
                .map_or(&[][..], Vec::as_slice);
            let shape = whole(rows.first().map_or(&[][..], |state| &state.shape));
            let parts = rows.iter().map(|state| state.data.as_ref()).collect();
            BatchInput { spec, shape, parts }
        };
        BatchInputs {
            rows: u32::try_from(self.rows.len()).unwrap_or(u32::MAX),
            inputs: config.input.iter().enumerate().map(input).collect(),
            parameters: parameters_of(members),
        }
    }
}

/// What each member is answered, and its sequence's next state.
pub(crate) type Moved = Vec<(Vec<Tensor>, Vec<StateTensor>)>;

/// Splits the outputs by rows: the callers' own as slices, states as copies, so that none keeps a whole batch alive.
pub(crate) fn scatter(
    config: &ModelConfig,
    plan: &Plan,
    prepared: &Prepared,
    members: &[&Member],
    outputs: &BatchOutputs,
) -> Result<Moved, BackendError> {
    let mut split: Vec<Vec<Tensor>> = Vec::with_capacity(outputs.outputs.len());
    for output in &outputs.outputs {
        split.push(if config.batches() {
            rows_of(output, std::iter::repeat_n(1, prepared.rows.len()))?
        } else {
            vec![output.clone()]
        });
    }
    let row_of = |member: usize| prepared.rows.iter().position(|row| *row == Some(member));
    let of = |(index, member): (usize, &&Member)| {
        let row = row_of(index).unwrap_or(usize::MAX);
        let wanted = |name: &str| {
            let wanted = &member.job.outputs;
            wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name)
        };
        let mine = split.iter().take(plan.outputs).filter_map(|rows| rows.get(row));
        let mine = mine.filter(|tensor| wanted(&tensor.name)).cloned().collect();
        let states = plan.states.iter().map(|state| {
            let found = split.get(state.output).and_then(|rows| rows.get(row));
            let missing = || BackendError::Output(format!("the state '{}' is missing", state.name));
            next_state(config, state, found.ok_or_else(missing)?)
        });
        Ok((mine, states.collect::<Result<Vec<_>, BackendError>>()?))
    };
    members.iter().enumerate().map(of).collect()
}

fn next_state(config: &ModelConfig, plan: &StatePlan, tensor: &Tensor) -> Result<StateTensor, BackendError> {
    let shape: Shape = tensor
        .shape
        .get(usize::from(config.batches())..)
        .unwrap_or_default()
        .into();
    let fits = |(dim, extent): (&i64, &u64)| *dim == -1 || u64::try_from(*dim) == Ok(*extent);
    if tensor.datatype != plan.datatype || shape.len() != plan.dims.len() || !plan.dims.iter().zip(&shape).all(fits) {
        let problem = format!(
            "the state '{}' is {} {:?} where {} {:?} is declared",
            plan.name, tensor.datatype, &*shape, plan.datatype, plan.dims
        );
        return Err(BackendError::Output(problem));
    }
    Ok(StateTensor {
        shape,
        data: Bytes::copy_from_slice(&tensor.data),
    })
}
