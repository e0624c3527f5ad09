//! Fuzzes conditions of graphs: any text is read or refused with a place in it, and what is read evaluates, twice alike.
#![no_main]

use mesh_policies::graph::condition::Condition;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match Condition::parse(text) {
        Ok(condition) => {
            let nothing = |_| None;
            let parameters = Default::default();
            let first = condition.holds(&nothing, &parameters);
            assert_eq!(first, condition.holds(&nothing, &parameters));
            assert_eq!(Condition::parse(condition.text()).as_ref(), Ok(&condition));
        }
        Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.at), "{error}"),
    }
});
