//! Executions of decoupled models: requests that have any number of answers, each handed on when it is there.

use mesh_types::Tensor;

use crate::{BackendError, BatchInputs};

/// Requests that a decoupled model runs together.
#[derive(Debug, Clone, Copy)]
pub struct Requests<'a> {
    /// Their inputs. The parts of an input are the requests', in their order.
    pub inputs: &'a BatchInputs<'a>,
    /// How many rows each request has.
    pub rows: &'a [u32],
}

/// Whether a model goes on with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a request that nobody waits for needs no more answers"]
pub enum Next {
    /// More answers are wanted.
    More,
    /// Nobody waits for more: the caller has left, its time is over, or it has failed or ended.
    Stop,
}

/// Where a decoupled model's answers go. A request is named by its place among the [`Requests`]; one that there is not is
/// nobody's, and so is whatever comes after its end.
pub trait AnswerSink {
    /// Gives a request an answer: outputs in the configuration's order, with the request's rows first where the model batches;
    /// those that this answer does not have are left out. May wait for a slow reader, for a bounded time.
    fn answer(&mut self, request: usize, outputs: Vec<Tensor>) -> Next;

    /// Whether more answers are wanted. Costs little: to be asked between two steps of long work.
    fn is_wanted(&self, request: usize) -> bool;

    /// A request has had its last answer. Those that are not ended by the model end well with the execution.
    fn end(&mut self, request: usize);

    /// A request has failed; the others go on.
    fn fail(&mut self, request: usize, error: BackendError);
}
