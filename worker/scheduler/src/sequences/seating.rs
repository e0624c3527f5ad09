//! Seats: who gets the next one, when one is left, and what becomes of sequences whose instance is gone.
//!
//! Of the tenants that wait for a seat and do not have too many, the one whose clock shows least is next, as in batches, and
//! of its sequences the first; interactive ones go before those of the batch class.

use std::{hash::Hash, time::Instant};

use mesh_types::{CorrelationId, TenantId};

use super::{Aborted, Desk, Ended, Held, SequenceCounts, StepResult};
use crate::{
    Gone, Item,
    scheduler::Scheduler,
    waiting::{Entry, ModelIx, Placed},
};

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// Whether any model here has sequences.
    pub fn has_sequences(&self) -> bool {
        !self.sequences.desks.is_empty()
    }

    /// Whether any sequence is open or waits for a seat.
    pub fn has_open_sequences(&self) -> bool {
        !self.sequences.lines.is_empty()
    }

    /// The models that have open sequences, and how many. Looks at no others: few may have any where many could.
    pub fn sequence_counts(&self) -> impl Iterator<Item = (&K, SequenceCounts)> {
        self.open_desks().map(|desk| (&desk.key, desk.counts()))
    }

    fn open_desks(&self) -> impl Iterator<Item = &Desk<K>> {
        let open = self.sequences.open.iter();
        open.filter_map(|model| self.sequences.desks.get(model))
    }

    fn desk(&self, model: &K) -> Option<&Desk<K>> {
        let index = self.models.find(model)?;
        self.sequences.desks.get(&index)
    }

    /// How many sequences a model has.
    pub fn sequences_of(&self, model: &K) -> SequenceCounts {
        self.desk(model).map_or_else(SequenceCounts::default, Desk::counts)
    }

    /// How many sequences of a model are open or wait for a seat.
    pub fn open_sequences(&self, model: &K) -> usize {
        self.sequences_of(model).open
    }

    /// Whether a model's instances hold the state of open sequences, which would be lost with them.
    pub fn holds_states(&self, model: &K) -> bool {
        let holds = |desk: &Desk<K>| !desk.rules.movable && desk.counts().open > 0;
        self.desk(model).is_some_and(holds)
    }

    /// The open sequences by name: for whoever must say later that they were lost.
    pub fn sequence_names(&self) -> impl Iterator<Item = (&K, &TenantId, &CorrelationId)> {
        let desks = self.open_desks();
        desks.flat_map(|desk| desk.names.keys().map(|(tenant, id)| (&desk.key, tenant, id)))
    }

    /// A sequence of before a restart is gone.
    pub fn remember_lost(&mut self, model: K, tenant: TenantId, id: CorrelationId) {
        self.sequences.lost.remember((model, tenant, id), Aborted::Lost);
    }

    /// The sequences that are over since it was asked last.
    pub fn take_ended(&mut self) -> Vec<Ended<K>> {
        std::mem::take(&mut self.sequences.ended)
    }

    /// Lets a model take no new sequences, or take them again.
    pub fn close_sequences(&mut self, model: &K, closing: bool) {
        let index = self.models.find(model);
        if let Some(desk) = index.and_then(|index| self.sequences.desks.get_mut(&index)) {
            desk.closing = closing;
        }
    }

    /// Lets no model take new sequences, or lets those take them again that are not closed themselves.
    pub fn close_all_sequences(&mut self, closing: bool) {
        self.sequences.closing = closing;
    }

    /// Ends all sequences of a model. What is being executed is answered; the rest is given back by the next decision.
    pub fn abort_sequences(&mut self, model: &K, why: Aborted) {
        let Some(index) = self.models.find(model) else { return };
        let all = self.sequences.of_model(index);
        all.into_iter().for_each(|number| self.end_sequence(number, Some(why)));
    }

    /// Says which slots can run the model now. Sequences sit on those; of a slot that can no longer, they are lost, or move
    /// where their state is not the model's.
    pub fn set_instances(&mut self, model: &K, places: usize, ready: impl Fn(usize) -> bool) {
        let Some(index) = self.models.find(model) else { return };
        let Some(desk) = self.sequences.desks.get_mut(&index) else {
            return;
        };
        let (mut came, mut left) = (false, Vec::new());
        for place in 0..places.max(desk.instances.len()) {
            let is_ready = place < places && ready(place);
            let Some(instance) = desk.instance(place) else { return };
            if instance.ready && !is_ready {
                left.extend(instance.taken.values().copied());
            }
            came |= is_ready && !instance.ready;
            instance.ready = is_ready;
        }
        let movable = desk.rules.movable;
        for number in &left {
            self.lose_instance(*number, movable);
        }
        if came || !left.is_empty() {
            self.seat_backlog(index);
        }
    }

    /// So many rows of a model's batches fit, as far as is known, or any number: new sequences sit within them. Those that sit
    /// beyond move, where their state is not the model's; others stay, and run if there is memory again.
    pub(crate) fn limit_seats(&mut self, index: ModelIx) {
        let Some(desk) = self.sequences.desks.get_mut(&index) else {
            return;
        };
        if !desk.fits(self.models.get(index).and_then(crate::models::Model::fitting)) {
            return;
        }
        if desk.rules.movable {
            for number in desk.beyond() {
                self.lose_instance(number, true);
            }
        }
        self.seat_backlog(index);
    }

    fn lose_instance(&mut self, number: u64, movable: bool) {
        let entry = self.take_queued(number);
        let Some(line) = self.sequences.lines.get_mut(&number) else {
            return;
        };
        let running = line.under_way.is_some() && entry.is_none();
        if !movable {
            line.doomed = true;
            if let Some(entry) = entry {
                self.tenants.part(entry.tenant);
                self.sequences.gone.push((entry.item, Gone::Aborted(Aborted::Lost)));
            }
            if !running {
                self.end_sequence(number, Some(Aborted::Lost));
            }
            return;
        }
        if let (Some(entry), Some(flags)) = (entry, line.under_way.take_if(|_| !running)) {
            let held = Held {
                due: entry.item.deadline,
                placed: Placed::again(&entry),
                item: entry.item,
                flags,
                step: 0,
            };
            self.hold(number, held, true);
        }
        self.leave_seat(number);
        let waits = |line: &super::Sequence<T>| line.under_way.is_none() && !line.steps.is_empty();
        if self.sequences.lines.get(&number).is_some_and(waits) {
            self.join_backlog(number, true);
        }
    }

    /// Takes the sequence's step out of the queues, if there is one.
    pub(super) fn take_queued(&mut self, number: u64) -> Option<Entry<T>> {
        let entry = self.waiting.pinned(number)?;
        self.remove_entry(entry)
    }

    pub(super) fn join_backlog(&mut self, number: u64, in_front: bool) {
        let Some(line) = self.sequences.lines.get_mut(&number) else {
            return;
        };
        if let Some(desk) = self.sequences.desks.get_mut(&line.model)
            && line.waits_at.is_none()
        {
            line.waits_at = Some(desk.join_backlog(&line.tenant, number, in_front));
        }
    }

    pub(super) fn leave_backlog(&mut self, number: u64) {
        let Some(line) = self.sequences.lines.get_mut(&number) else {
            return;
        };
        if let Some(at) = line.waits_at.take()
            && let Some(desk) = self.sequences.desks.get_mut(&line.model)
        {
            desk.leave_backlog(&line.tenant, at);
        }
    }

    pub(super) fn leave_seat(&mut self, number: u64) {
        let Some(line) = self.sequences.lines.get_mut(&number) else {
            return;
        };
        self.sequences.stalled.remove(&number);
        if let Some(seat) = line.seat.take()
            && let Some(desk) = self.sequences.desks.get_mut(&line.model)
        {
            desk.stand(seat, &line.tenant, &line.id);
        }
    }

    /// Gives free seats to those who wait for one.
    pub(super) fn seat_backlog(&mut self, model: ModelIx) {
        while let Some((number, place)) = self.next_to_sit(model) {
            self.leave_backlog(number);
            let sequences = &mut self.sequences;
            let Some(line) = sequences.lines.get_mut(&number) else {
                return;
            };
            let Some(desk) = sequences.desks.get_mut(&model) else {
                return;
            };
            line.seat = desk.sit(place, number, &line.tenant, &line.id);
            // What requests bound themselves is the wait for a seat, which is over for all of them.
            for held in line.steps.iter_mut().filter(|held| held.due != held.item.deadline) {
                sequences.due.remove(&(held.due, number, held.step));
                held.due = held.item.deadline;
                sequences.due.insert((held.due, number, held.step));
            }
            self.release(number);
        }
    }

    fn next_to_sit(&self, model: ModelIx) -> Option<(u64, usize)> {
        let desk = self.sequences.desks.get(&model).filter(|desk| desk.has_seat())?;
        let first = desk.waiting().filter_map(|(_, mut queue)| {
            queue.find_map(|number| {
                let line = self.sequences.lines.get(&number)?;
                let head = &line.steps.front()?.placed;
                let place = desk.room_for(&line.id)?;
                let clock = self.tenants.clock(head.tenant, head.class);
                Some(((head.class, clock, number), place))
            })
        });
        let ((_, _, number), place) = first.min_by_key(|(rank, _)| *rank)?;
        Some((number, place))
    }

    /// The sequence is over: its seat is free, and what waited of it leaves.
    pub(super) fn end_sequence(&mut self, number: u64, why: Option<Aborted>) {
        let reason = Gone::Aborted(why.unwrap_or(Aborted::Closed));
        let Some(line) = self.sequences.lines.get_mut(&number) else {
            return;
        };
        let steps = line.steps.drain(..).collect();
        if let Some(entry) = self.take_queued(number) {
            self.tenants.part(entry.tenant);
            self.sequences.gone.push((entry.item, reason));
        }
        self.drop_steps(number, steps, reason);
        self.leave_seat(number);
        self.leave_backlog(number);
        let sequences = &mut self.sequences;
        let Some(line) = sequences.lines.remove(&number) else {
            return;
        };
        if let Some(at) = line.idle_at {
            sequences.idle.remove(&(at, number));
        }
        let Some(desk) = sequences.desks.get_mut(&line.model) else {
            return;
        };
        let name = (line.tenant, line.id);
        desk.close(&name);
        let key = desk.key.clone();
        if desk.names.is_empty() {
            sequences.open.remove(&line.model);
        }
        if let Some(why) = why {
            sequences.lost.remember((key.clone(), name.0, name.1), why);
        }
        sequences.ended.push(Ended {
            sequence: number,
            model: key,
            why,
        });
    }

    /// Ends what has been idle for too long and drops steps that have waited for too long; when the next will have.
    pub(crate) fn expire_sequences(&mut self, now: Instant) -> Option<Instant> {
        while let Some((due, number, step)) = self.sequences.due.first().copied().filter(|(due, ..)| *due <= now) {
            self.sequences.due.remove(&(due, number, step));
            self.expire_step(now, number, step);
        }
        while let Some((due, number)) = self.sequences.idle.first().copied().filter(|(due, _)| *due <= now) {
            self.sequences.idle.remove(&(due, number));
            let model = self.sequences.lines.get(&number).map(|line| line.model);
            self.end_sequence(number, Some(Aborted::Idle));
            model.into_iter().for_each(|model| self.seat_backlog(model));
        }
        let held = self.sequences.due.first().map(|(due, ..)| *due);
        let idle = self.sequences.idle.first().map(|(due, _)| *due);
        held.into_iter().chain(idle).min()
    }

    fn expire_step(&mut self, now: Instant, number: u64, step: u64) {
        let line = self.sequences.lines.get(&number);
        let found = line.and_then(|line| line.position(step));
        let Some(position) = found else { return };
        let deadline = line
            .and_then(|line| line.steps.get(position))
            .map(|held| held.item.deadline);
        let why = if deadline.is_some_and(|deadline| deadline <= now) {
            Gone::Expired
        } else {
            Gone::TimedOut
        };
        self.lose_step(now, number, position, why);
    }

    /// A held step will not run, and neither will those that follow it up to the next START.
    fn lose_step(&mut self, now: Instant, number: u64, position: usize, why: Gone) {
        let Some(line) = self.sequences.lines.get_mut(&number) else {
            return;
        };
        let started = line.steps.get(position).is_some_and(|held| held.flags.start);
        let first = line.steps.remove(position);
        let behind = line.cut(position);
        if line.steps.len() == position {
            line.reopen();
            // Whoever began anew and failed does not go on with what was before.
            line.open &= !started;
        }
        let (idle, unseated) = (line.steps.is_empty() && line.under_way.is_none(), line.seat.is_none());
        self.drop_steps(number, first.into_iter().collect(), why);
        self.drop_steps(number, behind, Gone::Behind);
        if !idle {
            return;
        }
        if unseated {
            self.leave_backlog(number);
        }
        self.go_on(now, number, started.then_some(Aborted::NotBegun), false);
    }

    /// Drops held steps whose callers have gone.
    pub(crate) fn sweep_steps(&mut self, now: Instant, cancelled: &impl Fn(&T) -> bool) {
        let mut found = Vec::new();
        for (number, line) in &self.sequences.lines {
            let gone = line.steps.iter().filter(|held| cancelled(&held.item.payload));
            found.extend(gone.map(|held| (*number, held.step)));
        }
        for (number, step) in found {
            let line = self.sequences.lines.get(&number);
            let position = line.and_then(|line| line.position(step));
            if let Some(position) = position {
                self.lose_step(now, number, position, Gone::Cancelled);
            }
        }
    }

    /// Follows up what left the queues without running, and gives out what left with it; whether anything may run now that
    /// could not before.
    pub(crate) fn settle_steps(&mut self, now: Instant, gone: &mut Vec<(Item<T>, Gone)>) -> bool {
        if self.sequences.desks.is_empty() && self.sequences.gone.is_empty() {
            return false;
        }
        let unran = std::mem::take(&mut self.sequences.unran);
        for number in &unran {
            self.step_ended(now, *number, StepResult::NotRun);
        }
        let stalled: Vec<u64> = self.sequences.stalled.iter().copied().collect();
        stalled.into_iter().for_each(|number| self.release(number));
        gone.append(&mut self.sequences.gone);
        !unran.is_empty()
    }

    /// The model takes no more requests: its sequences are over, and what waited of them is given back.
    pub(crate) fn remove_sequences(&mut self, model: ModelIx) -> Vec<Item<T>> {
        let all = self.sequences.of_model(model);
        let before = self.sequences.gone.len();
        all.into_iter()
            .for_each(|number| self.end_sequence(number, Some(Aborted::Lost)));
        self.sequences.desks.remove(&model);
        let given_back = self.sequences.gone.split_off(before);
        given_back.into_iter().map(|(item, _)| item).collect()
    }
}
