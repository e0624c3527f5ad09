//! What a device has learnt: read back, written in time, and again where a write failed.

use std::time::Duration;

use mesh_scheduler::BatchRules;
use mesh_types::ModelConfig;

use super::*;

fn key() -> ModelVersionKey {
    crate::tests::key("identity")
}

fn learnt() -> Scheduler<Arc<ModelVersionKey>, Queued> {
    let mut scheduler = Scheduler::new(1);
    let model = Arc::new(key());
    scheduler.add_model(model.clone(), BatchRules::of(&ModelConfig::default(), 1));
    let sweep = [(1, Duration::from_millis(3))];
    scheduler.seed(&model, &ShapeKey::default(), &sweep);
    scheduler
}

#[test]
fn what_was_learnt_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let device = DeviceId::cpu(0);
    let mut memory = Memory::read(Some(folder.path()), device);
    assert!(memory.of(&key()).is_empty());
    memory.learn(&Arc::new(key()), &learnt());
    memory.write();
    let again = Memory::read(Some(folder.path()), device);
    assert_eq!(again.of(&key()).len(), 1);
    assert!(
        Memory::read(Some(folder.path()), DeviceId::cpu(1))
            .of(&key())
            .is_empty()
    );
    assert!(Memory::read(None, device).of(&key()).is_empty());
}

#[test]
fn a_cost_is_read_back_for_the_file_and_configuration_that_it_was_measured_with() {
    let folder = tempfile::tempdir().unwrap();
    let spec = LoadSpec {
        key: key(),
        config: Arc::new(ModelConfig::default()),
        artifact: Some("here/abc".into()),
        format: mesh_types::ArtifactFormat::TorchScript,
    };
    let cost = KnownCost::new(&spec, 1_000, 20, Duration::from_millis(3));
    let mut memory = Memory::read(Some(folder.path()), DeviceId::cpu(0));
    assert_eq!(memory.cost(&spec), None);
    memory.learn_cost(&spec.key, cost);
    memory.write();
    let again = Memory::read(Some(folder.path()), DeviceId::cpu(0));
    let moved = LoadSpec {
        artifact: Some("there/abc".into()),
        ..spec.clone()
    };
    assert_eq!((again.cost(&spec), again.cost(&moved)), (Some(cost), Some(cost)));
    let other_file = LoadSpec {
        artifact: Some("here/def".into()),
        ..spec.clone()
    };
    let config = ModelConfig {
        max_batch_size: 7,
        ..ModelConfig::default()
    };
    let other_config = LoadSpec {
        config: Arc::new(config),
        ..spec
    };
    assert_eq!((again.cost(&other_file), again.cost(&other_config)), (None, None));
}

fn spec() -> LoadSpec {
    LoadSpec {
        key: key(),
        config: Arc::new(ModelConfig::default()),
        artifact: None,
        format: mesh_types::ArtifactFormat::Builtin,
    }
}

/// Once the writer has ended and was looked at: whether it is to be written again then.
fn once_written(memory: &mut Memory, began: Instant) -> bool {
    while !memory.writer.as_ref().unwrap().is_finished() {
        std::thread::yield_now();
    }
    let due = memory.is_due(began + LOOK_AGAIN);
    assert!(memory.writer.is_none(), "nobody has looked");
    due
}

#[test]
fn a_write_that_fails_is_tried_again_though_nothing_more_is_learnt() {
    let whole = tempfile::tempdir().unwrap();
    let (folder, spec) = (whole.path().join("later"), spec());
    let cost = KnownCost::new(&spec, 1_000, 20, Duration::from_millis(3));
    let mut memory = Memory::read(Some(&folder), DeviceId::cpu(0));
    memory.learn_cost(&spec.key, cost);
    let mut now = Instant::now();
    memory.changed(now, WRITE_AFTER);
    let mut wait = WRITE_AFTER;
    for failures in 1..=10 {
        now += wait;
        assert!(memory.is_due(now), "{failures}");
        memory.write_beside(now);
        assert!(!once_written(&mut memory, now), "at once again");
        now += LOOK_AGAIN;
        assert_eq!(memory.trouble.failures, failures);
        // Each time after twice as long, up to a bound.
        wait = (FIRST_RETRY * 2_u32.pow(failures - 1)).min(LONGEST_RETRY);
        assert_eq!(memory.due(), Some(now + wait));
        // Whoever learns meanwhile does not make it sooner.
        memory.changed(now, Duration::ZERO);
        assert_eq!(memory.due(), Some(now + wait));
        assert!(!memory.is_due(now + wait.mul_f64(0.9)));
    }
    assert_eq!(wait, LONGEST_RETRY);
    std::fs::create_dir(&folder).unwrap();
    now += wait;
    assert!(memory.is_due(now));
    memory.write_beside(now);
    assert!(!once_written(&mut memory, now));
    let there = Memory::read(Some(&folder), DeviceId::cpu(0)).cost(&spec);
    assert_eq!((there, memory.due(), memory.trouble.failures), (Some(cost), None, 0));
    // What is learnt from now on waits for as long as ever.
    memory.changed(now, WRITE_AFTER);
    assert_eq!(memory.due(), Some(now + WRITE_AFTER));
}

#[test]
fn trouble_is_told_of_once_and_its_end_once() {
    let (now, mut trouble) = (Instant::now(), Trouble::default());
    assert!(!trouble.is_over(), "there was none");
    assert!(trouble.failed(now));
    for _ in 0..100 {
        assert!(!trouble.failed(now));
        assert!(trouble.until.unwrap() <= now + LONGEST_RETRY);
    }
    assert!(trouble.is_over() && !trouble.is_over());
    assert!(trouble.failed(now), "the next is told of again");
}

#[test]
fn what_was_learnt_is_written_soon_after_and_not_at_each_change() {
    let folder = tempfile::tempdir().unwrap();
    let (start, spec) = (Instant::now(), spec());
    let cost = KnownCost::new(&spec, 1_000, 20, Duration::from_millis(3));
    let mut memory = Memory::read(Some(folder.path()), DeviceId::cpu(0));
    let there = || Memory::read(Some(folder.path()), DeviceId::cpu(0)).cost(&spec);
    assert!(!memory.is_due(start + 2 * REFRESH_AFTER), "nothing has changed");
    memory.changed(start, REFRESH_AFTER);
    memory.learn_cost(&spec.key, cost);
    memory.changed(start, WRITE_AFTER);
    // Whoever learns all the time is written all the same.
    let later = start + WRITE_AFTER.mul_f64(0.9);
    memory.changed(later, WRITE_AFTER);
    assert_eq!(memory.due(), Some(start + WRITE_AFTER));
    assert!(!memory.is_due(later));
    assert!(memory.is_due(start + WRITE_AFTER));
    memory.write_beside(start + WRITE_AFTER);
    assert!(!once_written(&mut memory, start + WRITE_AFTER));
    assert_eq!((there(), memory.due()), (Some(cost), None));
    let mut nowhere = Memory::read(None, DeviceId::cpu(0));
    nowhere.changed(start, WRITE_AFTER);
    assert_eq!(nowhere.due(), None, "there is nothing to write to");
}

#[test]
fn one_thread_writes_at_a_time_and_the_last_write_comes_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (start, spec) = (Instant::now(), spec());
    let mut memory = Memory::read(Some(folder.path()), DeviceId::cpu(0));
    let (go, wait) = std::sync::mpsc::channel::<()>();
    memory.writer = Some(std::thread::spawn(move || {
        let _ = wait.recv();
        Ok(())
    }));
    memory.changed(start, WRITE_AFTER);
    let due = start + WRITE_AFTER;
    assert!(!memory.is_due(due), "it is at it still");
    assert_eq!(memory.due(), Some(due + LOOK_AGAIN));
    let cost = KnownCost::new(&spec, 1_000, 20, Duration::from_millis(3));
    memory.learn_cost(&spec.key, cost);
    drop(go);
    memory.write();
    assert!(memory.writer.is_none());
    assert_eq!(
        Memory::read(Some(folder.path()), DeviceId::cpu(0)).cost(&spec),
        Some(cost)
    );
}

#[test]
fn no_more_costs_are_kept_than_a_device_may_have_models() {
    let mut known = BTreeMap::new();
    let named = |number: usize| ModelVersionKey {
        model: format!("m{number:05}").parse().unwrap(),
        ..key()
    };
    for number in 0..=MAX_MODELS {
        keep(&mut known, &named(number), number);
    }
    assert_eq!(known.len(), MAX_MODELS);
    assert_eq!(known.values().max(), Some(&MAX_MODELS));
}

#[test]
fn a_broken_file_and_one_of_another_form_are_as_good_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency-cpu-0.json");
    for text in ["{", r#"{"form":1,"models":{},"costs":{}}"#, ""] {
        std::fs::write(&path, text).unwrap();
        assert!(
            Memory::read(Some(folder.path()), DeviceId::cpu(0))
                .of(&key())
                .is_empty()
        );
    }
}
