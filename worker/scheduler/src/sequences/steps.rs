//! Steps: taken in, released to the queues when it is their turn, and settled when they have left them.

use std::{hash::Hash, time::Instant};

use mesh_types::{SequenceStep, ServiceClass};

use super::{Aborted, Flags, Held, MAX_SEQUENCES, Sequence, StepResult};
use crate::{
    Gone, Item, Refused, RefusedFor,
    admission::Candidate,
    forming::nanoseconds,
    scheduler::Scheduler,
    tenants::{BATCH, INTERACTIVE, TenantIx},
    waiting::{ModelIx, Pin, Placed},
};

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// Takes in a request of a sequence, or gives it back with the reason.
    pub fn offer_step(
        &mut self,
        now: Instant,
        model: &K,
        item: Item<T>,
        step: &SequenceStep,
    ) -> Result<(), Refused<T>> {
        match self.consider_step(now, model, &item, step) {
            Ok((placed, known)) => {
                self.company.came(now, placed.tenant);
                self.take_step(item, placed, step, known);
                Ok(())
            }
            Err(reason) => Err(Refused {
                payload: item.payload,
                reason,
            }),
        }
    }

    fn consider_step(
        &mut self,
        now: Instant,
        key: &K,
        item: &Item<T>,
        step: &SequenceStep,
    ) -> Result<(Placed, Option<u64>), RefusedFor> {
        let index = self.models.find(key).ok_or(RefusedFor::UnknownModel)?;
        let desk = self.sequences.desks.get(&index).ok_or(RefusedFor::UnknownModel)?;
        let closing = desk.closing || self.sequences.closing;
        let known = self.sequences.find(index, &item.tenant, &step.id);
        let line = known.and_then(|number| self.sequences.lines.get(&number));
        if !step.start && !line.is_some_and(|line| line.open) {
            let name = (key.clone(), item.tenant.clone(), step.id.clone());
            return Err(RefusedFor::NotStarted(self.sequences.lost.why(&name)));
        }
        if step.start && closing {
            return Err(RefusedFor::Closing);
        }
        if known.is_none() && desk.is_taken(&step.id) {
            return Err(RefusedFor::IdTaken);
        }
        if known.is_none() && self.sequences.lines.len() >= MAX_SEQUENCES {
            return Err(RefusedFor::Full);
        }
        // Only what may run at once can be foretold: how long the steps before it take, nobody knows.
        let free = line.filter(|line| line.under_way.is_none() && line.steps.is_empty());
        let place = free.and_then(|line| line.seat).map(|seat| seat.place);
        let tenant = self.tenants.meet(&item.tenant, item.standing.share);
        let placed = self.place_step(now, index, tenant, item, place);
        if placed.is_err() {
            self.tenants.part(tenant);
        }
        Ok((placed?, known))
    }

    fn place_step(
        &self,
        now: Instant,
        index: ModelIx,
        tenant: TenantIx,
        item: &Item<T>,
        place: Option<usize>,
    ) -> Result<Placed, RefusedFor> {
        let model = self.models.get(index).ok_or(RefusedFor::UnknownModel)?;
        let level = model.rules.level(item.standing.priority);
        model.has_room(tenant, level)?;
        let class = match item.standing.class {
            ServiceClass::Interactive => INTERACTIVE,
            ServiceClass::Batch => BATCH,
        };
        let sizing = model.sizing(&item.shape, self.company.is_there(now));
        // Where a model keeps its states itself, a batch that fails takes with it the sequences of all that are in it.
        let movable = model.rules.sequence.is_none_or(|rules| rules.movable);
        let isolated = item.standing.share.isolated || !movable;
        let mut foreseen = false;
        if let Some(place) = place {
            let beside = self
                .waiting
                .find(index, &item.shape, isolated.then_some(tenant), Some(place));
            let candidate = Candidate {
                item,
                model: index,
                beside: beside.map_or(0, |(_, group)| group.rows),
                sizing,
                tenant,
                class,
                place: Some(place),
            };
            foreseen = self.admit(now, &candidate)?;
        }
        let timeout = model.rules.timeout(level, item.standing.queue_timeout);
        Ok(Placed {
            model: index,
            tenant,
            class,
            level,
            ages: model.rules.levels.len() > 1,
            isolated,
            foreseen,
            cost: nanoseconds(sizing.cost(item.rows)),
            timeout: timeout.map(|(wait, action)| (item.arrived + wait, action)),
        })
    }

    fn take_step(&mut self, item: Item<T>, placed: Placed, step: &SequenceStep, known: Option<u64>) {
        let (model, flags) = (
            placed.model,
            Flags {
                start: step.start,
                end: step.end,
            },
        );
        let number = known.unwrap_or_else(|| self.open_sequence(model, &item, step));
        let sequences = &mut self.sequences;
        let Some(line) = sequences.lines.get_mut(&number) else {
            return;
        };
        if let Some(at) = line.idle_at.take() {
            sequences.idle.remove(&(at, number));
        }
        line.open = !flags.end;
        // Triton's `timeout` of a request bounds its sequence's wait for a seat.
        let patience = item.standing.queue_timeout.filter(|_| line.seat.is_none());
        let due = patience.map_or(item.deadline, |patience| item.deadline.min(item.arrived + patience));
        let joins = line.seat.is_none() && line.steps.is_empty() && line.under_way.is_none();
        let held = Held {
            item,
            placed,
            flags,
            due,
            step: 0,
        };
        self.hold(number, held, false);
        if joins {
            self.join_backlog(number, false);
            self.seat_backlog(model);
        }
        self.release(number);
    }

    fn open_sequence(&mut self, model: ModelIx, item: &Item<T>, step: &SequenceStep) -> u64 {
        let sequences = &mut self.sequences;
        sequences.last_sequence += 1;
        let number = sequences.last_sequence;
        if let Some(desk) = sequences.desks.get_mut(&model) {
            desk.open((item.tenant.clone(), step.id.clone()), number);
            sequences.open.insert(model);
        }
        let line = Sequence::new(model, item.tenant.clone(), step.id.clone());
        sequences.lines.insert(number, line);
        number
    }

    /// Keeps a step until it is its turn; counted as waiting for its model.
    pub(super) fn hold(&mut self, number: u64, mut held: Held<T>, in_front: bool) {
        let sequences = &mut self.sequences;
        let Some(line) = sequences.lines.get_mut(&number) else {
            return;
        };
        // In their order by number, also what is put back in front: that has been taken from there.
        let front = line.steps.front().filter(|_| in_front).map(|front| front.step);
        held.step = front.map_or_else(
            || {
                sequences.last_step += 1;
                sequences.last_step
            },
            |front| front.saturating_sub(1),
        );
        if let Some(model) = self.models.get_mut(held.placed.model) {
            model.entered(held.placed.tenant, held.placed.level, held.placed.cost);
        }
        if let Some(tenant) = self.tenants.get_mut(held.placed.tenant) {
            // Its index must not become another's meanwhile.
            tenant.batches += 1;
        }
        sequences.due.insert((held.due, number, held.step));
        let (model, shape) = (held.placed.model, &held.item.shape);
        let name = (number, held.step);
        sequences.unpriced.came(model, shape, held.placed.cost, name);
        if in_front {
            line.steps.push_front(held);
        } else {
            line.steps.push_back(held);
        }
    }

    /// A held step is held no more, whatever becomes of it.
    pub(super) fn unhold(&mut self, number: u64, held: &Held<T>) {
        self.sequences.due.remove(&(held.due, number, held.step));
        let (placed, shape) = (&held.placed, &held.item.shape);
        let name = (number, held.step);
        self.sequences.unpriced.left(placed.model, shape, placed.cost, &name);
        if let Some(model) = self.models.get_mut(held.placed.model) {
            model.left(held.placed.tenant, held.placed.level, held.placed.cost);
        }
        self.tenants.let_go(held.placed.tenant);
    }

    /// Steps that will not run.
    pub(super) fn drop_steps(&mut self, number: u64, steps: Vec<Held<T>>, why: Gone) {
        for held in steps {
            self.unhold(number, &held);
            self.tenants.part(held.placed.tenant);
            self.sequences.gone.push((held.item, why));
        }
    }

    /// Gives the queues the sequence's next step, if it is its turn.
    pub(super) fn release(&mut self, number: u64) {
        let Some(line) = self.sequences.lines.get(&number) else {
            return;
        };
        let (Some(seat), None, Some(held)) = (line.seat, line.under_way, line.steps.front()) else {
            return;
        };
        let placed = &held.placed;
        let isolated = placed.isolated.then_some(placed.tenant);
        let beside = self
            .waiting
            .find(placed.model, &held.item.shape, isolated, Some(seat.place));
        let group = beside.map(|(group, _)| (group, placed.class));
        if self.has_place(placed.tenant, group).is_err() {
            self.sequences.stalled.insert(number);
            return;
        }
        self.sequences.stalled.remove(&number);
        let next = self.sequences.lines.get_mut(&number).and_then(|line| {
            let held = line.steps.pop_front()?;
            line.under_way = Some(held.flags);
            Some(held)
        });
        let Some(held) = next else { return };
        self.unhold(number, &held);
        if let Some(model) = self.models.get_mut(held.placed.model) {
            model.entered(held.placed.tenant, held.placed.level, held.placed.cost);
        }
        let pin = Pin {
            place: seat.place,
            sequence: number,
        };
        self.waiting
            .insert(&mut self.tenants, held.item, &held.placed, Some(pin));
    }

    /// A step has left the queues or its batch.
    pub(crate) fn step_ended(&mut self, now: Instant, number: u64, result: StepResult) {
        let Some(line) = self.sequences.lines.get_mut(&number) else {
            return;
        };
        let Some(flags) = line.under_way.take() else { return };
        let result = if line.doomed { StepResult::Lost } else { result };
        let mut over = None;
        match result {
            StepResult::Ran => line.begun = !flags.end,
            StepResult::NotRun => {
                line.begun &= !flags.start;
                over = flags.start.then_some(Aborted::NotBegun);
                let behind = line.cut(0);
                if line.steps.is_empty() {
                    line.open = line.begun;
                }
                self.drop_steps(number, behind, Gone::Behind);
            }
            StepResult::Lost => {
                line.begun = false;
                over = Some(Aborted::Lost);
                let behind = line.cut(0);
                line.open &= !line.steps.is_empty();
                self.drop_steps(number, behind, Gone::Aborted(Aborted::Lost));
            }
        }
        self.go_on(now, number, over, flags.end);
    }

    /// What comes next for a sequence of which nothing is under way.
    pub(super) fn go_on(&mut self, now: Instant, number: u64, over: Option<Aborted>, ended: bool) {
        let Some(line) = self.sequences.lines.get(&number) else {
            return;
        };
        let (model, seated) = (line.model, line.seat.is_some());
        if line.steps.is_empty() {
            if !line.begun || !line.open {
                let superseded = line.begun.then_some(Aborted::NotBegun);
                self.end_sequence(number, over.or(superseded));
                self.seat_backlog(model);
            } else {
                self.begin_idling(now, number);
            }
            return;
        }
        let others_wait = || {
            let desk = self.sequences.desks.get(&model);
            desk.is_some_and(|desk| !desk.backlog.is_empty())
        };
        // What has ended and begins anew stands behind those who wait for a seat.
        if seated && ended && others_wait() {
            self.leave_seat(number);
            self.join_backlog(number, false);
            self.seat_backlog(model);
        } else if !seated {
            self.join_backlog(number, false);
            self.seat_backlog(model);
        }
        self.release(number);
    }

    pub(super) fn begin_idling(&mut self, now: Instant, number: u64) {
        let sequences = &mut self.sequences;
        let Some(line) = sequences.lines.get_mut(&number) else {
            return;
        };
        let idle = sequences.desks.get(&line.model).map(|desk| desk.rules.idle);
        let due = now + idle.unwrap_or_default();
        // It may be there already: a step that came and left without its turn.
        if let Some(at) = line.idle_at.replace(due) {
            sequences.idle.remove(&(at, number));
        }
        sequences.idle.insert((due, number));
    }
}
