//! One request on its way through a graph: what can start now, what is left out, and when it is over.
//!
//! A pure state machine. Whoever drives it asks [`Run::advance`] what to start, and tells it what came of each call. Nothing is
//! copied: a tensor is handed on as a reference to its bytes, and let go once no call, condition or wanted output can look at it.
//!
//! Invariants: a call starts at most once, and only when its route is taken, its condition holds and each of its inputs is there;
//! whatever the order in which calls end, the same ones run and the same outputs come out; a call that no wanted output needs
//! never starts.

use std::sync::Arc;

use mesh_types::{Parameters, TenantId, Tensor};
use smallvec::SmallVec;

use super::{
    outline::{Bound, Call, Outline, Route, TensorInfo, Way},
    plan::Plan,
};
use crate::traffic;

/// What decides besides tensors.
pub struct Facts<'a> {
    /// The caller.
    pub tenant: &'a TenantId,
    /// The request's parameters.
    pub parameters: &'a Parameters,
    /// The unit of sticky splitters, where the request has no parameter for it.
    pub unit: Option<&'a str>,
    /// Draws for splitters that are not sticky.
    pub random: &'a dyn Fn() -> u64,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts")
            .field("tenant", self.tenant)
            .finish_non_exhaustive()
    }
}

/// A model gave no output of a name that its signature has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its model gave no output '{0}'")]
pub struct OutputMissing(pub Arc<str>);

#[derive(Debug, Clone)]
enum Slot {
    /// It may still come.
    Open,
    /// It will not come.
    Absent,
    There(Tensor),
    /// It came, and nobody looks at it any more.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Open,
    None,
    Route(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Over,
}

/// What is known of something that has to be decided.
enum Answer {
    NotYet,
    No,
    Yes,
}

/// Calls that start; mostly one or two.
pub type Starts = SmallVec<[usize; 4]>;

/// One request on its way through a graph.
#[derive(Debug)]
pub struct Run {
    plan: Arc<Plan>,
    slots: Vec<Slot>,
    /// Calls that may still make each tensor.
    makers: Vec<usize>,
    /// How many may still look at each tensor.
    uses: Vec<u32>,
    /// Whether each call may still look at its own.
    looks: Vec<bool>,
    calls: Vec<State>,
    /// The call whose end let each call start.
    causes: Vec<Option<usize>>,
    choices: Vec<Taken>,
    /// Places of the wanted outputs.
    wanted: SmallVec<[usize; 8]>,
    last: Option<usize>,
}

impl Run {
    /// Begins with the graph's inputs, in the configuration's order. `outputs` are the names wanted; empty wants all.
    pub fn begin(plan: Arc<Plan>, inputs: Vec<Tensor>, outputs: &[String]) -> Self {
        let outline = &plan.outline;
        // In the configuration's order, and those that are left out leave no gap.
        let mut inputs = inputs.into_iter().peekable();
        let slot = |info: &TensorInfo| {
            if !info.makers.is_empty() {
                return Slot::Open;
            }
            inputs
                .next_if(|tensor| tensor.name == info.name)
                .map_or(Slot::Absent, Slot::There)
        };
        let slots: Vec<Slot> = outline.tensors.iter().map(slot).collect();
        let place = |name: &String| outline.outputs.iter().position(|output| *output.name == **name);
        let wanted: SmallVec<[usize; 8]> = if outputs.is_empty() {
            (0..outline.outputs.len()).collect()
        } else {
            outputs.iter().filter_map(place).collect()
        };
        // Every step is needed for all outputs: that was checked when the graph was.
        let needed = if outputs.is_empty() {
            u64::MAX
        } else {
            let masks = wanted.iter().filter_map(|output| plan.needed.get(*output));
            masks.fold(0, |all, mask| all | mask)
        };
        let mut run = Self {
            makers: outline.tensors.iter().map(|tensor| tensor.makers.len()).collect(),
            uses: plan.uses.clone(),
            looks: vec![true; outline.calls.len()],
            calls: vec![State::Waiting; outline.calls.len()],
            causes: vec![None; outline.calls.len()],
            choices: vec![Taken::Open; outline.choices.len()],
            wanted,
            last: None,
            slots,
            plan,
        };
        for call in 0..run.calls.len() {
            if needed & (1 << call.min(63)) == 0 {
                run.leave_out(call);
            }
        }
        run.let_go_of_unwanted();
        run
    }

    fn let_go_of_unwanted(&mut self) {
        let plan = self.plan.clone();
        let outputs = plan.outline.outputs.iter().enumerate();
        for (_, output) in outputs
            .filter(|(at, _)| !self.wanted.contains(at))
            .collect::<SmallVec<[_; 8]>>()
        {
            self.let_go(output.from.iter().copied());
        }
    }

    /// One fewer looks at each of these.
    fn let_go(&mut self, tensors: impl Iterator<Item = usize>) {
        for tensor in tensors {
            let (Some(uses), Some(slot)) = (self.uses.get_mut(tensor), self.slots.get_mut(tensor)) else {
                continue;
            };
            *uses = uses.saturating_sub(1);
            if *uses == 0 && matches!(slot, Slot::There(_)) {
                *slot = Slot::Gone;
            }
        }
    }

    /// A call has taken its inputs.
    pub fn started(&mut self, call: usize) {
        if let Some(looks) = self.looks.get_mut(call)
            && std::mem::take(looks)
        {
            let plan = self.plan.clone();
            let call = plan.outline.calls.get(call);
            self.let_go(call.into_iter().flat_map(Call::looks_at));
        }
    }

    /// The plan it follows.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The calls that can start now; they count as running from here on.
    pub fn advance(&mut self, facts: &Facts<'_>) -> Starts {
        let plan = self.plan.clone();
        let outline = &plan.outline;
        let mut starts = Starts::new();
        // What is decided may decide something else; each round decides at least one thing or is the last.
        loop {
            let mut decided = false;
            for at in 0..outline.choices.len() {
                decided |= self.choose(outline, at, facts);
            }
            for (at, call) in outline.calls.iter().enumerate() {
                if self.calls.get(at) != Some(&State::Waiting) {
                    continue;
                }
                match self.may_start(call, facts) {
                    Answer::NotYet => {}
                    Answer::No => {
                        self.leave_out(at);
                        decided = true;
                    }
                    Answer::Yes => {
                        self.set(at, State::Running);
                        if let Some(cause) = self.causes.get_mut(at) {
                            *cause = self.last;
                        }
                        starts.push(at);
                    }
                }
            }
            if !decided {
                return starts;
            }
        }
    }

    fn set(&mut self, call: usize, state: State) {
        if let Some(known) = self.calls.get_mut(call) {
            *known = state;
        }
    }

    fn tensor(&self, at: usize) -> Option<&Tensor> {
        match self.slots.get(at) {
            Some(Slot::There(tensor)) => Some(tensor),
            _ => None,
        }
    }

    fn is_open(&self, tensor: usize) -> bool {
        matches!(self.slots.get(tensor), Some(Slot::Open))
    }

    fn holds(&self, bound: &Bound, facts: &Facts<'_>) -> Answer {
        if bound.tensors.iter().any(|tensor| self.is_open(*tensor)) {
            return Answer::NotYet;
        }
        let lookup = |name: usize| self.tensor(*bound.tensors.get(name)?);
        if bound.condition.holds(&lookup, facts.parameters) {
            Answer::Yes
        } else {
            Answer::No
        }
    }

    fn is_on(&self, route: Option<Route>) -> Answer {
        let Some(route) = route else { return Answer::Yes };
        match self.choices.get(route.choice) {
            Some(Taken::Open) => Answer::NotYet,
            Some(Taken::Route(taken)) if *taken == route.route => Answer::Yes,
            _ => Answer::No,
        }
    }

    /// Makes a choice if it can be made; whether it was.
    fn choose(&mut self, outline: &Outline, at: usize, facts: &Facts<'_>) -> bool {
        let (Some(Taken::Open), Some(choice)) = (self.choices.get(at), outline.choices.get(at)) else {
            return false;
        };
        let reached = match (self.is_on(choice.route), choice.when.as_ref()) {
            (Answer::Yes, Some(when)) => self.holds(when, facts),
            (answer, _) => answer,
        };
        let taken = match reached {
            Answer::NotYet => return false,
            Answer::No => Taken::None,
            Answer::Yes => match self.way(&choice.way, facts) {
                Some(taken) => taken,
                None => return false,
            },
        };
        if let Some(known) = self.choices.get_mut(at) {
            *known = taken;
        }
        self.let_go(choice.looks_at());
        true
    }

    /// The route to take; none while that is not known.
    fn way(&self, way: &Way, facts: &Facts<'_>) -> Option<Taken> {
        match way {
            Way::Switch(conditions) => {
                for (route, condition) in conditions.iter().enumerate() {
                    match condition.as_ref().map_or(Answer::Yes, |bound| self.holds(bound, facts)) {
                        Answer::NotYet => return None,
                        Answer::No => {}
                        Answer::Yes => return Some(Taken::Route(route)),
                    }
                }
                Some(Taken::None)
            }
            Way::Splitter { hundredths, unit, salt } => {
                let name = unit.as_deref();
                let parameter = name.and_then(|name| facts.parameters.get(name)).map(traffic::unit_text);
                let of_caller = name.and(parameter.as_deref().or(facts.unit));
                let point = match (name, of_caller) {
                    (Some(name), Some(unit)) => traffic::point(salt, facts.tenant, name, unit),
                    _ => (facts.random)(),
                };
                let slot = traffic::slot(point);
                let mut end = 0_u32;
                let route = hundredths.iter().position(|weight| {
                    end = end.saturating_add(*weight);
                    slot < end
                });
                Some(route.map_or(Taken::None, Taken::Route))
            }
        }
    }

    fn may_start(&self, call: &Call, facts: &Facts<'_>) -> Answer {
        match self.is_on(call.route) {
            Answer::Yes => {}
            other => return other,
        }
        match call.when.as_ref().map_or(Answer::Yes, |when| self.holds(when, facts)) {
            Answer::Yes => {}
            other => return other,
        }
        let mut waits = false;
        for input in &call.inputs {
            // The first that there is: one that may still come is waited for, though a later one is there.
            let first = input
                .from
                .iter()
                .find(|tensor| !matches!(self.slots.get(**tensor), Some(Slot::Absent) | None));
            match first {
                None if !input.optional => return Answer::No,
                None => {}
                Some(tensor) => waits |= self.is_open(*tensor),
            }
        }
        if waits { Answer::NotYet } else { Answer::Yes }
    }

    /// The inputs of a call that starts, in its model's order and under its model's names.
    pub fn inputs(&self, call: usize) -> Vec<Tensor> {
        let call = self.plan.outline.calls.get(call);
        let inputs = call.map(|call| call.inputs.as_slice()).unwrap_or_default();
        let first = |from: &[usize]| from.iter().find_map(|tensor| self.tensor(*tensor)).cloned();
        let renamed = |input: &super::outline::Input| {
            Some(Tensor {
                name: input.name.clone(),
                ..first(&input.from)?
            })
        };
        inputs.iter().filter_map(renamed).collect()
    }

    /// Whether a call's inputs are all inputs of the graph, so that what is wrong with them is the caller's doing.
    pub fn is_first(&self, call: usize) -> bool {
        let outline = &self.plan.outline;
        let given = |tensor: &usize| outline.tensors.get(*tensor).is_some_and(|info| info.makers.is_empty());
        let call = outline.calls.get(call);
        call.is_some_and(|call| call.inputs.iter().flat_map(|input| &input.from).all(given))
    }

    /// A call has ended well.
    pub fn finished(&mut self, call: usize, outputs: Vec<Tensor>) -> Result<(), OutputMissing> {
        let plan = self.plan.clone();
        let Some(of) = plan.outline.calls.get(call) else {
            return Ok(());
        };
        let mut outputs: SmallVec<[Option<Tensor>; 4]> = outputs.into_iter().map(Some).collect();
        // All of them or none: a call that lacks one has made nothing.
        let mut taken: SmallVec<[Tensor; 4]> = SmallVec::with_capacity(of.outputs.len());
        for made in &of.outputs {
            let is_it = |output: &&mut Option<Tensor>| output.as_ref().is_some_and(|tensor| tensor.name == made.name);
            let found = outputs.iter_mut().find(is_it).and_then(Option::take);
            taken.push(found.ok_or_else(|| OutputMissing(made.name.clone()))?);
        }
        for (made, tensor) in of.outputs.iter().zip(taken) {
            let looked_at = self.uses.get(made.tensor).is_some_and(|uses| *uses > 0);
            if let Some(slot) = self.slots.get_mut(made.tensor) {
                *slot = if looked_at { Slot::There(tensor) } else { Slot::Gone };
            }
        }
        self.last = Some(call);
        self.leave_out(call);
        Ok(())
    }

    /// A call has failed softly: what it would have made is missing.
    pub fn failed(&mut self, call: usize) {
        self.last = Some(call);
        self.leave_out(call);
    }

    /// The call is over: what it has not made it will not make.
    fn leave_out(&mut self, call: usize) {
        self.set(call, State::Over);
        self.started(call);
        let plan = self.plan.clone();
        // By the tensors' makers and not the call's outputs: those that nobody uses are not among the outputs.
        for (tensor, info) in plan.outline.tensors.iter().enumerate() {
            if !info.makers.contains(&call) {
                continue;
            }
            let (Some(left), Some(slot)) = (self.makers.get_mut(tensor), self.slots.get_mut(tensor)) else {
                continue;
            };
            *left = left.saturating_sub(1);
            if *left == 0 && matches!(slot, Slot::Open) {
                *slot = Slot::Absent;
            }
        }
    }

    /// Whether every wanted output is there or will not come. What still runs is not needed then.
    pub fn is_over(&self) -> bool {
        self.wanted.iter().all(|output| {
            let from = self
                .plan
                .outline
                .outputs
                .get(*output)
                .map(|output| output.from.as_slice());
            let mut sources = from.unwrap_or_default().iter();
            // One that may still come goes before a later one that is there.
            let first = sources.find(|tensor| !matches!(self.slots.get(**tensor), Some(Slot::Absent) | None));
            first.is_none_or(|tensor| !self.is_open(*tensor))
        })
    }

    /// The wanted outputs, in the order of the configuration; those that are missing are left out.
    pub fn outputs(&self) -> Vec<Tensor> {
        let mut wanted = self.wanted.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let output = |at: &usize| {
            let output = self.plan.outline.outputs.get(*at)?;
            let tensor = output.from.iter().find_map(|tensor| self.tensor(*tensor))?;
            Some(Tensor {
                name: output.name.clone(),
                ..tensor.clone()
            })
        };
        wanted.iter().filter_map(output).collect()
    }

    /// How many tensors are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::There(_))).count()
    }

    /// The calls that the answer had to wait for, one after the other: each could start when the one before it ended.
    pub fn critical_path(&self) -> SmallVec<[usize; 8]> {
        let cause = |call: &usize| self.causes.get(*call).copied().flatten();
        let mut path: SmallVec<[usize; 8]> = std::iter::successors(self.last, cause).take(self.calls.len()).collect();
        path.reverse();
        path
    }
}
