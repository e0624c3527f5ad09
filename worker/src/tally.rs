//! What came of one batch, counted while it runs.

use std::time::Duration;

use mesh_scheduler::TooLarge;
use mesh_types::{Fault, MAX_RESPONSES_COUNTED};

use crate::{responses::ResponseSums, statistics::Sum};

/// One execution of the model that ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) rows: u32,
    pub(crate) input: Duration,
    pub(crate) infer: Duration,
    pub(crate) output: Duration,
}

/// A batch's account. Its lengths are bounded by the batch's: at most two executions per request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Rows as the batch was formed, those included whose requests left before it ran.
    pub(crate) formed: u32,
    /// Executions, failed ones included.
    pub(crate) executions: u32,
    /// Those that ended well.
    pub(crate) runs: Vec<Run>,
    pub(crate) rows_answered: u32,
    pub(crate) success: Sum,
    pub(crate) fail: Sum,
    pub(crate) queue: Sum,
    pub(crate) compute_input: Sum,
    pub(crate) compute_infer: Sum,
    pub(crate) compute_output: Sum,
    /// Whether its model is decoupled: how long it took says nothing of the next.
    pub(crate) open_ended: bool,
    /// What became of its answers, by their place.
    pub(crate) responses: Vec<ResponseSums>,
    /// Callers gone, and deadlines passed before they could run.
    pub(crate) cancelled: u32,
    pub(crate) expired: u32,
    pub(crate) non_finite: u32,
    /// The model panicked, hung or did not load again.
    pub(crate) crashed: bool,
    /// Executions that found no memory, and the fewest rows among them.
    pub(crate) out_of_memory: u32,
    pub(crate) oom_rows: Option<u32>,
    /// The most rows of an execution that ended well, those without a request included.
    pub(crate) fitted: u32,
    /// The longest wait among those that ran.
    pub(crate) longest_wait: Duration,
    /// Steps of sequences that have not run, to be answered once the actor knows.
    pub(crate) refused: Vec<(usize, Fault)>,
    /// How long the thread had the batch.
    pub(crate) busy: Duration,
}

impl Tally {
    /// Counts at an answer's place; from a bound on at the last one.
    pub(crate) fn response(&mut self, place: usize, add: impl FnOnce(&mut ResponseSums)) {
        let place = place.min(MAX_RESPONSES_COUNTED - 1);
        if self.responses.len() <= place {
            self.responses.resize(place + 1, ResponseSums::default());
        }
        if let Some(sums) = self.responses.get_mut(place) {
            add(sums);
        }
    }

    /// For how many rows there was no memory, if an execution found none.
    pub(crate) fn too_large(&self) -> Option<TooLarge> {
        let fitted = self.fitted;
        self.oom_rows.map(|rows| TooLarge { rows, fitted })
    }

    /// Whether an execution ended well.
    pub(crate) fn ended_well(&self) -> bool {
        !self.runs.is_empty()
    }

    /// How long the batch took, if it ran as it was formed: once, well, and with all of its rows.
    pub(crate) fn whole(&self) -> Option<Duration> {
        match self.runs.as_slice() {
            [run] if !self.open_ended && self.executions == 1 && run.rows == self.formed => {
                Some(run.input + run.infer + run.output)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_apart_up_to_a_bound_and_together_from_there_on() {
        let mut tally = Tally::default();
        for place in 0..MAX_RESPONSES_COUNTED + 5 {
            tally.response(place, |sums| sums.success.add(Duration::from_secs(1)));
        }
        assert_eq!(tally.responses.len(), MAX_RESPONSES_COUNTED);
        let counts: Vec<u64> = tally.responses.iter().map(|sums| sums.success.count).collect();
        assert_eq!((counts.first(), counts.last()), (Some(&1), Some(&6)));
    }

    #[test]
    fn a_batch_tells_its_duration_only_if_it_ran_once_and_with_all_rows() {
        let second = Duration::from_secs(1);
        let run = |rows| Run {
            rows,
            input: second,
            infer: second,
            output: second,
        };
        let tally = |executions, runs| Tally {
            formed: 8,
            executions,
            runs,
            ..Tally::default()
        };
        assert_eq!(tally(1, vec![run(8)]).whole(), Some(second * 3));
        assert_eq!(tally(1, vec![run(7)]).whole(), None, "one row left before it ran");
        assert_eq!(tally(2, vec![run(8)]).whole(), None, "it failed once");
        assert_eq!(tally(2, vec![run(4), run(4)]).whole(), None);
        assert_eq!(tally(1, Vec::new()).whole(), None);
    }
}
