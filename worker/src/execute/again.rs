//! What is run again after an execution that failed, and what is said where it is not.
//!
//! Members are run again in halves, in their order, until what fails is alone. A step's state is replaced only when its execution
//! ended well, so a step that failed leaves its sequence where it was; but a model that keeps its sequences' states itself may have
//! moved some of them before it failed, and nobody can tell which: its batch is not run again, and the sequences of all members
//! are over. That is not so where it was not called: memory that runs out for the inputs has moved nothing.
//!
//! Where sequences have rows of their own, a half has as many rows as before up to its last one. So where a state is declared, and
//! memory runs out, steps are packed into the first rows: the state comes with its row, whichever that is. Whether a packed batch
//! fits depends on its steps alone.

use mesh_backend::BackendError;
use mesh_scheduler::StepResult;
use mesh_types::{Fault, Retry};

use super::{Batch, Failure};

impl Failure {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Error(error) if error.is_out_of_memory())
    }
}

impl Batch<'_> {
    /// Puts members back, packed or in halves; fails the one that is alone.
    pub(super) fn try_again(&mut self, mut members: Vec<usize>, failure: Failure, open: &mut Vec<Vec<usize>>) {
        if failure.is_out_of_memory() && self.pack(&members) {
            open.push(members);
            return;
        }
        if let [alone] = members.as_slice() {
            let fault = self.of_step(*alone, failure);
            self.fail(*alone, fault);
            return;
        }
        let second = members.split_off(members.len().div_ceil(2));
        open.extend([second, members]);
    }

    /// Has steps packed from now on, where they can be; whether these alone take fewer rows by that.
    fn pack(&mut self, members: &[usize]) -> bool {
        let plan = self.instance.sequence.as_ref();
        let movable = plan.is_some_and(|plan| plan.padded && !plan.keeps_itself());
        if self.packed || !movable {
            return false;
        }
        self.packed = true;
        usize::try_from(self.executed).is_ok_and(|rows| rows > members.len())
    }

    /// Whether running the members again could move states of their sequences twice: not where the model was not called, and not
    /// after a panic, because then the model is loaded anew and knows none of them.
    pub(super) fn may_have_moved(&self, failure: &Failure, members: &[usize]) -> bool {
        let moves = match failure {
            Failure::Error(BackendError::NoRoomForInputs(_)) => false,
            Failure::Error(_) => true,
            Failure::Panicked => members.len() == 1,
        };
        moves && self.keeps_states_itself()
    }

    /// The members' sequences are over with a failure of the model.
    pub(super) fn lose_all(&mut self, members: &[usize], failure: Failure) {
        let no_memory = failure.is_out_of_memory();
        let mut fault: Fault = failure.into();
        if no_memory {
            let text = format!(
                "{}, for {} rows: a smaller max_batch_size needs less",
                fault.message, self.executed
            );
            fault.message = text.into();
        }
        self.lose(members, &fault);
    }

    /// The members' sequences are over.
    pub(super) fn lose(&mut self, members: &[usize], fault: &Fault) {
        let text = format!(
            "{}; its sequence is over, because the model keeps its state itself: start it again with the START flag",
            fault.message
        );
        let fault = Fault::new(fault.class, fault.source, text).with_retry(Retry::No);
        for member in members {
            self.settle(*member, StepResult::Lost);
            self.fail(*member, fault.clone());
        }
    }

    /// The fault of a member that failed alone; of a step that found no memory it says where its sequence is.
    fn of_step(&self, member: usize, failure: Failure) -> Fault {
        let no_memory = failure.is_out_of_memory();
        let mut fault: Fault = failure.into();
        let step = self.run.members.get(member).and_then(|member| member.step.as_deref());
        let Some(step) = step.filter(|_| no_memory) else {
            return fault;
        };
        let again = if step.start {
            "its sequence has not begun: begin it again"
        } else {
            "the step has not run and its sequence is where it was: send it again"
        };
        let less = match self.executed {
            0 | 1 => "if it fails still, the device needs more memory".to_owned(),
            rows => format!(
                "if it fails still, its row is one of {rows} that run together: lower max_batch_size, or declare the state"
            ),
        };
        fault.message = format!("{}; {again}; {less}", fault.message).into();
        fault
    }
}
