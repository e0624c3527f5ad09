//! What to serve next: which groups are ready, and which of those goes first.
//!
//! A group is ready when its batch is full or has reached a preferred size, when its oldest request has waited for
//! `max_queue_delay`, when its tightest deadline leaves no more time to wait, or when the device is idle and the model does
//! not want it to wait. Brief batches go one after another and not side by side: what comes meanwhile makes the next one larger.
//! Of the ready ones goes the one whose next tenant's clock shows least; among those within one batch of
//! it, the one with the nearest deadline.
//!
//! Cost: a look at every group that holds something, which are as many as there are models and shapes with requests waiting,
//! and not as many as there are requests or tenants.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use mesh_types::TimeoutAction;

use crate::{
    Gone, Item,
    forming::{Plan, nanoseconds},
    models::{Model, Sizing},
    scheduler::Scheduler,
    tenants::{BATCH, INTERACTIVE, Virtual, weighted},
    waiting::{Group, GroupIx},
};

/// A batch starts this long before it would have to, for what a prediction cannot know.
const MARGIN: Duration = Duration::from_micros(500);

/// Waking a thread for a batch takes some tens of microseconds of everybody's processors: one that takes no longer than this is
/// not worth a thread of its own while another of its model is under way ..
const BRIEF: Duration = Duration::from_micros(500);
/// .. and so long past its expected end.
const BRIEF_PATIENCE: Duration = Duration::from_millis(5);

/// What a group wants.
enum Wish {
    /// To be served now; where that is said, only with a preferred size before this instant.
    Send { preferred_until: Option<Instant> },
    /// Nothing before this instant.
    Wait(Instant),
}

/// A group that could be served now.
pub(crate) struct Ready {
    pub(crate) group: GroupIx,
    preferred_until: Option<Instant>,
    /// What the clock of each class's next tenant shows, and its weight.
    next: [Option<(Virtual, u32)>; 2],
    tightest: Instant,
    /// How long its batch would take.
    pub(crate) batch: Duration,
}

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// Takes out what has expired or waited for too long; when the next does.
    pub(crate) fn expire(&mut self, now: Instant, gone: &mut Vec<(Item<T>, Gone)>) -> Option<Instant> {
        let (mut expired, mut timed_out) = (Vec::new(), Vec::new());
        let mut next = self.expire_sequences(now);
        let mut wake = |at: Instant| next = Some(next.map_or(at, |known| known.min(at)));
        for (_, group) in self.waiting.groups() {
            let (passed, next) = group.expired(now);
            expired.extend(passed);
            next.into_iter().for_each(&mut wake);
            let (passed, next) = group.timed_out(now);
            timed_out.extend(passed);
            next.into_iter().for_each(&mut wake);
        }
        for entry in expired {
            self.take_out(entry, Gone::Expired, gone);
        }
        for index in timed_out {
            match self.waiting.entry(index).and_then(|entry| entry.timeout) {
                Some((_, TimeoutAction::Delay)) => self.waiting.delay(index),
                Some((_, TimeoutAction::Reject)) => self.take_out(index, Gone::TimedOut, gone),
                None => {}
            }
        }
        next
    }

    /// The groups that are ready, and when the next is.
    pub(crate) fn ready(
        &self,
        now: Instant,
        slot: usize,
        eligible: &impl Fn(&K) -> bool,
    ) -> (Vec<Ready>, Option<Instant>) {
        let (mut ready, mut next) = (Vec::new(), None::<Instant>);
        for (index, group) in self.waiting.groups() {
            if group.place.is_some_and(|place| place != slot) {
                continue;
            }
            let Some(model) = self.models.get(group.model).filter(|model| eligible(&model.key)) else {
                continue;
            };
            let sizing = model.sizing(&group.shape, self.company.is_there(now));
            match self.wish(now, group, model, sizing) {
                Wish::Wait(until) => next = Some(next.map_or(until, |known| known.min(until))),
                Wish::Send { preferred_until } => {
                    let next = |class| {
                        let (clock, tenant) = group.next_tenant(class)?;
                        Some((clock, self.tenants.get(tenant)?.weight))
                    };
                    let rows = u32::try_from(group.rows).unwrap_or(u32::MAX).min(sizing.full);
                    let latency = sizing.latency;
                    ready.push(Ready {
                        group: index,
                        preferred_until,
                        next: [next(INTERACTIVE), next(BATCH)],
                        tightest: group.tightest().unwrap_or(now),
                        batch: latency.and_then(|latency| latency.mean(rows)).unwrap_or_default(),
                    });
                }
            }
        }
        (ready, next)
    }

    /// Which of them goes first.
    pub(crate) fn choose(&self, slot: usize, ready: &[Ready]) -> Option<Plan> {
        let any = |class: usize| ready.iter().any(|ready| ready.next(class).is_some());
        let first = if any(BATCH) && (self.floor.is_owed() || !any(INTERACTIVE)) {
            BATCH
        } else {
            INTERACTIVE
        };
        let of_class = || ready.iter().filter_map(|ready| Some((ready.next(first)?, ready)));
        let ((least, weight), leader) = of_class().min_by_key(|((clock, _), _)| *clock)?;
        let batch = nanoseconds(leader.batch);
        let near = of_class().filter(|((clock, other), _)| *clock <= least + weighted(batch, weight.max(*other)));
        let (_, chosen) = near.min_by_key(|((clock, _), ready)| (ready.tightest, *clock))?;
        // Whoever waits elsewhere and has had less goes before those who would ride along here.
        let others = of_class().filter(|(_, ready)| ready.group != chosen.group);
        let chosen_batch = nanoseconds(chosen.batch);
        let limit = others
            .map(|((clock, other), _)| clock + weighted(chosen_batch, other))
            .min();
        Some(Plan {
            limit,
            group: chosen.group,
            slot,
            first,
            preferred_until: chosen.preferred_until,
        })
    }

    /// Until when the group waits for a brief batch of its model, unless its own batch is full or somebody is in a hurry.
    fn waits_for_brief(&self, now: Instant, group: &Group, model: &Model<K>, sizing: Sizing<'_>) -> Option<Instant> {
        let alone = !model.rules.shared || !model.rules.right_size;
        // Steps of sequences wait for their own slot, where no other batch is in the way.
        if alone || group.place.is_some() || group.rows >= u64::from(sizing.full) {
            return None;
        }
        let rows = u32::try_from(group.rows).unwrap_or(u32::MAX);
        sizing.latency?.mean(rows).filter(|mean| *mean <= BRIEF)?;
        let until = self.running.has_until(group.model)? + BRIEF_PATIENCE;
        let latest = group.tightest()?.checked_sub(sizing.tail(rows) + MARGIN)?;
        (now < until.min(latest)).then(|| until.min(latest))
    }

    fn wish(&self, now: Instant, group: &Group, model: &Model<K>, sizing: Sizing<'_>) -> Wish {
        if let Some(until) = self.waits_for_brief(now, group, model, sizing) {
            return Wish::Wait(until);
        }
        let send = Wish::Send { preferred_until: None };
        let rules = &model.rules;
        let waits = !rules.max_delay.is_zero() || rules.defer_percent > 0;
        let idle = rules.send_when_idle && self.running.is_idle();
        if !rules.shared || !waits || idle || group.rows >= u64::from(rules.enough.unwrap_or(sizing.full)) {
            return send;
        }
        let (Some(oldest), Some(tightest)) = (group.oldest(), group.tightest()) else {
            return send;
        };
        let rows = u32::try_from(group.rows).unwrap_or(u32::MAX).saturating_add(1);
        let batch = sizing.tail(rows);
        let latest = tightest.checked_sub(batch + MARGIN).unwrap_or(now);
        let slack = latest.saturating_duration_since(oldest);
        let deferred = oldest + slack * rules.defer_percent / 100;
        let until = (oldest + rules.max_delay).max(deferred).min(latest);
        if now >= until {
            return send;
        }
        match rules.preferred.first() {
            // Fewer rows than the smallest preferred size cannot be one.
            Some(smallest) if group.rows >= u64::from(*smallest) => Wish::Send {
                preferred_until: Some(until),
            },
            _ => Wish::Wait(until),
        }
    }
}

impl Ready {
    fn next(&self, class: usize) -> Option<(Virtual, u32)> {
        self.next.get(class).copied().flatten()
    }
}
