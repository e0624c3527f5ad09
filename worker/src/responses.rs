//! What became of the answers of decoupled models, by their place among those to their request.
//!
//! Owns the sums of one place and how two devices' add up; how many places are counted apart is `mesh_types`' to say.

use crate::statistics::Sum;

/// What became of a decoupled model's answers at one place among those to their request. Each time is since the answer before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseSums {
    /// The model, until it gave the answer.
    pub compute_infer: Sum,
    /// From there until it was handed on; what a slow reader has it wait for, mostly.
    pub compute_output: Sum,
    /// Answers that were handed on.
    pub success: Sum,
    /// Requests that failed in the stead of this answer.
    pub fail: Sum,
    /// Requests that ended well without it.
    pub empty_response: Sum,
    /// Requests whose caller left before it.
    pub cancel: Sum,
}

impl ResponseSums {
    fn merge(&mut self, other: &Self) {
        let sums = [
            (&mut self.compute_infer, other.compute_infer),
            (&mut self.compute_output, other.compute_output),
            (&mut self.success, other.success),
            (&mut self.fail, other.fail),
            (&mut self.empty_response, other.empty_response),
            (&mut self.cancel, other.cancel),
        ];
        for (mine, others) in sums {
            mine.merge(others);
        }
    }

    pub(crate) fn merge_all(mine: &mut Vec<Self>, others: &[Self]) {
        if mine.len() < others.len() {
            mine.resize(others.len(), Self::default());
        }
        mine.iter_mut()
            .zip(others)
            .for_each(|(mine, others)| mine.merge(others));
    }
}
