//! Bounds, order and ends of the queue of answers.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Wake,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{DataType, Shape};

const LONG: Duration = Duration::from_secs(60);

fn answer(bytes: usize, value: u8) -> Vec<Tensor> {
    let shape = Shape::from_slice(&[u64::try_from(bytes).unwrap()]);
    vec![Tensor::new(Arc::from("y"), DataType::Uint8, shape, Bytes::from(vec![value; bytes])).unwrap()]
}

fn take(answers: &mut Answers) -> Option<Vec<Tensor>> {
    match answers.poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outputs) => Some(outputs),
        Poll::Pending => None,
    }
}

#[test]
fn as_many_wait_as_may_and_one_more_finds_no_room() {
    let (sender, mut answers) = answers();
    for value in 0..MAX_WAITING_ANSWERS {
        sender.give(answer(1, u8::try_from(value).unwrap())).unwrap();
    }
    let refused = sender.give(answer(1, 99));
    let Err(NotTaken::Full(back)) = refused else {
        panic!("{refused:?}")
    };
    assert!(!sender.wait_for_room(&back, Duration::ZERO));
    assert_eq!(take(&mut answers).unwrap()[0].data[0], 0, "in their order");
    assert!(sender.wait_for_room(&back, Duration::ZERO));
    sender.give(back).unwrap();
}

#[test]
fn bytes_are_bounded_too_and_an_answer_larger_than_that_waits_alone() {
    let (sender, mut answers) = answers();
    sender.give(answer(MAX_WAITING_ANSWER_BYTES - 1, 1)).unwrap();
    sender.give(answer(1, 2)).unwrap();
    assert!(matches!(sender.give(answer(1, 3)), Err(NotTaken::Full(_))));
    assert!(take(&mut answers).is_some() && take(&mut answers).is_some());
    let large = answer(MAX_WAITING_ANSWER_BYTES + 1, 4);
    sender.give(large).unwrap();
    assert!(matches!(sender.give(answer(0, 5)), Err(NotTaken::Full(_))));
    assert!(take(&mut answers).is_some());
    sender.give(answer(0, 5)).unwrap();
}

#[test]
fn who_leaves_is_noticed_by_who_gives_and_by_who_waits_for_room() {
    let (sender, answers) = answers();
    while sender.give(answer(1, 0)).is_ok() {}
    assert!(sender.is_wanted());
    let waiting = sender.clone();
    let waiting = std::thread::spawn(move || waiting.wait_for_room(&[], LONG));
    drop(answers);
    assert!(waiting.join().unwrap(), "it does not wait for long");
    assert!(!sender.is_wanted());
    assert!(matches!(sender.give(answer(1, 0)), Err(NotTaken::Left)));
}

#[test]
fn who_takes_makes_room_for_who_waits() {
    let (sender, mut answers) = answers();
    while sender.give(answer(1, 0)).is_ok() {}
    let waiting = std::thread::spawn(move || sender.wait_for_room(&answer(1, 1), LONG));
    assert!(take(&mut answers).is_some());
    assert!(waiting.join().unwrap());
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_answer_wakes_whoever_waits_for_it_once() {
    let (sender, mut answers) = answers();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    assert!(answers.poll_next(&mut Context::from_waker(&waker)).is_pending());
    assert!(answers.poll_next(&mut Context::from_waker(&waker)).is_pending());
    sender.give(answer(1, 0)).unwrap();
    sender.give(answer(1, 1)).unwrap();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
}

proptest! {
    /// Whatever the sizes and turns, what comes out is what went in, in order, and the bounds hold.
    #[test]
    fn what_comes_out_is_what_went_in(turns in prop::collection::vec((any::<bool>(), 0_usize..(MAX_WAITING_ANSWER_BYTES / 8)), 1..200)) {
        let (sender, mut answers) = answers();
        let (mut expected, mut given) = (VecDeque::new(), 0_u8);
        for (gives, bytes) in turns {
            if gives {
                match sender.give(answer(bytes, given)) {
                    Ok(()) => expected.push_back((bytes, given)),
                    Err(NotTaken::Full(_)) => {
                        let held: usize = expected.iter().map(|(bytes, _)| bytes).sum();
                        prop_assert!(expected.len() == MAX_WAITING_ANSWERS || held + bytes > MAX_WAITING_ANSWER_BYTES);
                    }
                    Err(NotTaken::Left) => prop_assert!(false, "nobody left"),
                }
                given = given.wrapping_add(1);
            } else {
                let taken = take(&mut answers).map(|outputs| outputs[0].data.clone());
                let wanted = expected.pop_front().map(|(bytes, value)| Bytes::from(vec![value; bytes]));
                prop_assert!(taken == wanted);
            }
            prop_assert!(expected.len() <= MAX_WAITING_ANSWERS);
        }
    }
}
