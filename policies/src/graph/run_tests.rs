//! Runs: what starts when, and that the order in which calls end changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_types::{DataType, ParameterValue, Parameters, Shape, TenantId, Tensor};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Facts, Plan, Run,
    samples::{ensemble, plan},
};

fn number(name: &str, value: f32) -> Tensor {
    let data: Vec<u8> = [value, 0.0]
        .iter()
        .flat_map(|value: &f32| value.to_le_bytes())
        .collect();
    Tensor::new(Arc::from(name), DataType::Fp32, Shape::from_slice(&[1, 2]), data.into()).unwrap()
}

fn value(tensor: &Tensor) -> f32 {
    f32::from_le_bytes(tensor.data[..4].try_into().unwrap())
}

/// Drives a run: a model gives, for each of its outputs, the sum of its inputs and of the name's letters.
struct Drive {
    run: Run,
    parameters: Parameters,
    unit: Option<String>,
    random: u64,
    running: Vec<usize>,
    started: Vec<String>,
}

fn makes(step: &str, output: &str, inputs: &[f32]) -> f32 {
    let letters = step.bytes().chain(output.bytes()).map(f32::from).sum::<f32>();
    (letters + inputs.iter().sum::<f32>()) % 97.0
}

impl Drive {
    fn new(plan: &Arc<Plan>, input: f32, outputs: &[&str], parameters: Parameters) -> Self {
        let outputs: Vec<String> = outputs.iter().map(|name| (*name).to_owned()).collect();
        Self {
            run: Run::begin(plan.clone(), vec![number("in", input)], &outputs),
            parameters,
            unit: None,
            random: 0,
            running: Vec::new(),
            started: Vec::new(),
        }
    }

    fn name(&self, call: usize) -> String {
        self.run.plan().outline.calls[call].name.to_string()
    }

    fn advance(&mut self) -> Vec<String> {
        let random = self.random;
        let facts = Facts {
            tenant: &TenantId::parse("acme").unwrap(),
            parameters: &self.parameters,
            unit: self.unit.as_deref(),
            random: &move || random,
        };
        let starts = self.run.advance(&facts);
        let names: Vec<String> = starts.iter().map(|call| self.name(*call)).collect();
        self.running.extend(starts);
        self.started.extend(names.clone());
        names
    }

    /// Ends one of the running calls.
    fn end(&mut self, which: usize, fails: &BTreeSet<String>) {
        let call = self.running.remove(which);
        let name = self.name(call);
        if fails.contains(&name) {
            self.run.failed(call);
            return;
        }
        let inputs: Vec<f32> = self.run.inputs(call).iter().map(value).collect();
        let signature = self.run.plan().entries[call].config.clone();
        let outputs = signature
            .output
            .iter()
            .map(|spec| number(&spec.name, makes(&name, &spec.name, &inputs)));
        let outputs = outputs.collect();
        self.run.started(call);
        self.run.finished(call, outputs).unwrap();
    }

    fn outputs(&self) -> BTreeMap<String, f32> {
        let outputs = self.run.outputs();
        outputs
            .iter()
            .map(|tensor| (tensor.name.to_string(), value(tensor)))
            .collect()
    }
}

fn one(name: &str, input: &str, output: &str) -> Value {
    json!({"name": name, "model": "one", "inputs": {"x": input}, "outputs": {"y": output}})
}

#[test]
fn steps_start_as_soon_as_their_inputs_are_there_and_hand_on_the_same_bytes() {
    let graph = json!({"steps": [
        one("left", "in", "l"), one("right", "in", "r"),
        {"name": "join", "model": "two", "inputs": {"a": "l", "b": "r"}, "outputs": {"y": "out"}},
    ]});
    let plan = plan(&ensemble(2, &["in"], &["out"], graph));
    let mut drive = Drive::new(&plan, 1.0, &[], Parameters::default());
    assert_eq!(drive.advance(), ["left", "right"]);
    let first = drive.run.inputs(0);
    assert_eq!(&*first[0].name, "x", "the model's own name for it");
    assert_eq!(
        first[0].data.as_ptr(),
        drive.run.inputs(1)[0].data.as_ptr(),
        "not a copy"
    );
    drive.end(1, &BTreeSet::new());
    assert!(drive.advance().is_empty(), "one input is missing");
    drive.end(0, &BTreeSet::new());
    assert_eq!(drive.advance(), ["join"]);
    assert!(!drive.run.is_over());
    assert!(drive.run.is_first(0));
    assert!(!drive.run.is_first(2));
    drive.end(0, &BTreeSet::new());
    assert!(drive.run.is_over());
    let path = drive.run.critical_path();
    let names: Vec<String> = path.iter().map(|call| drive.name(*call)).collect();
    assert_eq!(names, ["left", "join"], "the right branch was not what was waited for");
}

#[test]
fn a_tensor_is_let_go_once_nobody_can_look_at_it() {
    let mut last = one("last", "c", "d");
    last["when"] = json!("b > 0");
    let graph = json!({"steps": [one("first", "in", "a"), one("second", "a", "b"), one("third", "b", "c"), last],
        "outputs": {"out": ["d", "c"], "rest": "a"}});
    let plan = plan(&ensemble(2, &["in"], &["out", "rest"], graph));
    let held = |outputs: &[&str]| -> Vec<usize> {
        let mut drive = Drive::new(&plan, 1.0, outputs, Parameters::default());
        let mut held = Vec::new();
        drive.advance();
        while !drive.running.is_empty() {
            held.push(drive.run.held());
            drive.end(0, &BTreeSet::new());
            drive.advance();
        }
        assert!(drive.run.is_over());
        held.push(drive.run.held());
        held
    };
    // `in`; `a`; `b`, which the condition looks at; `c`; and the answer, which c stands for as well.
    assert_eq!(held(&["out"]), [1, 1, 1, 2, 2]);
    assert_eq!(held(&["out", "rest"]), [1, 1, 2, 3, 3], "a is wanted");
}

#[test]
fn what_no_wanted_output_needs_does_not_start() {
    let graph = json!({"steps": [one("a", "in", "out"), one("b", "in", "mid"), one("c", "mid", "rest")]});
    let plan = plan(&ensemble(2, &["in"], &["out", "rest"], graph));
    let mut drive = Drive::new(&plan, 1.0, &["out"], Parameters::default());
    assert_eq!(drive.advance(), ["a"]);
    drive.end(0, &BTreeSet::new());
    assert!(drive.advance().is_empty() && drive.run.is_over());
    assert_eq!(drive.outputs().keys().collect::<Vec<_>>(), ["out"]);
}

#[test]
fn a_switch_takes_the_first_route_that_holds_and_needs_only_what_it_looks_at() {
    let graph = json!({"steps": [
        one("slow", "in", "s"),
        {"name": "pick", "switch": [
            {"when": "in > 10", "steps": [one("high", "in", "out")]},
            {"when": "s > 1000", "steps": [one("never", "s", "out")]},
            {"steps": [one("low", "in", "out")]},
        ]},
    ]});
    let plan = plan(&ensemble(2, &["in"], &["out"], graph));
    let mut high = Drive::new(&plan, 11.0, &[], Parameters::default());
    assert_eq!(
        high.advance(),
        ["slow", "high"],
        "the first condition decides without the slow step"
    );
    let mut low = Drive::new(&plan, 1.0, &[], Parameters::default());
    assert_eq!(low.advance(), ["slow"]);
    low.end(0, &BTreeSet::new());
    assert_eq!(low.advance(), ["low"]);
}

#[test]
fn a_soft_failure_leads_to_the_next_source_and_a_condition_can_ask_for_it() {
    let mut quick = one("quick", "in", "q");
    quick["dependency"] = json!("Soft");
    let mut fallback = one("fallback", "in", "f");
    fallback["when"] = json!("!present(q)");
    let graph = json!({"steps": [quick, fallback], "outputs": {"out": ["q", "f"]}, "optional_outputs": ["out"]});
    let plan = plan(&ensemble(2, &["in"], &["out"], graph));
    for fails in [true, false] {
        let mut drive = Drive::new(&plan, 1.0, &[], Parameters::default());
        assert_eq!(drive.advance(), ["quick"]);
        let failing: BTreeSet<String> = ["quick".to_owned()].into_iter().filter(|_| fails).collect();
        drive.end(0, &failing);
        if fails {
            assert_eq!(drive.advance(), ["fallback"]);
            drive.end(0, &failing);
        }
        assert!(drive.run.is_over());
        let from = if fails { "fallback" } else { "quick" };
        assert_eq!(drive.outputs()["out"], makes(from, "y", &[1.0]));
    }
}

fn splitter() -> Arc<Plan> {
    let graph = json!({"steps": [{"name": "s", "sticky_by": "user", "splitter": [
        {"weight": 25, "steps": [one("a", "in", "out")]}, {"weight": 75, "steps": [one("b", "in", "out")]},
    ]}]});
    plan(&ensemble(2, &["in"], &["out"], graph))
}

#[test]
fn a_splitter_keeps_its_weights_and_sends_a_unit_the_same_way() {
    let plan = splitter();
    let start = |parameters: Parameters, unit: Option<String>, random: u64| {
        let mut drive = Drive::new(&plan, 1.0, &[], parameters);
        (drive.unit, drive.random) = (unit, random);
        drive.advance().remove(0)
    };
    let quarter = u64::MAX / 4;
    assert_eq!(start(Parameters::default(), None, quarter - 1_000), "a");
    assert_eq!(start(Parameters::default(), None, quarter + 1_000), "b");
    let mut taken = BTreeMap::new();
    for user in 0..4_000_i64 {
        let by_parameter: Parameters = [("user".to_owned(), ParameterValue::Int(user))].into();
        let way = start(by_parameter.clone(), None, 0);
        assert_eq!(way, start(by_parameter, Some("other".into()), u64::MAX));
        assert_eq!(way, start(Parameters::default(), Some(user.to_string()), 7));
        *taken.entry(way).or_insert(0) += 1;
    }
    assert!((900..1_100).contains(&taken["a"]), "{taken:?}");
}

#[test]
fn an_output_that_the_model_does_not_give_is_named() {
    let plan = plan(&ensemble(
        2,
        &["in"],
        &["out"],
        json!({"steps": [one("a", "in", "out")]}),
    ));
    let mut drive = Drive::new(&plan, 1.0, &[], Parameters::default());
    drive.advance();
    let error = drive.run.finished(0, vec![number("z", 1.0)]).unwrap_err();
    assert_eq!(error.to_string(), "its model gave no output 'y'");
}

/// A graph drawn at random: steps that use what was made before them, some softly, some on conditions, some within switches.
#[derive(Debug, Clone)]
struct Drawn {
    steps: Vec<DrawnStep>,
}

#[derive(Debug, Clone)]
struct DrawnStep {
    sources: Vec<usize>,
    soft: bool,
    fails: bool,
    when: Option<(usize, u8, f32)>,
    /// Within a switch on this condition, on its first or its second route.
    within: Option<((usize, u8, f32), bool)>,
}

fn tensor(at: usize) -> String {
    if at == 0 { "in".to_owned() } else { format!("t{at}") }
}

fn condition((at, operator, number): (usize, u8, f32)) -> String {
    let name = tensor(at);
    match operator % 4 {
        0 => format!("{name} > {number}"),
        1 => format!("present({name})"),
        2 => format!("!({name} <= {number})"),
        _ => format!("parameters.mode == 'x' || {name}[0] < {number}"),
    }
}

impl Drawn {
    fn graph(&self) -> Value {
        let mut steps = Vec::new();
        for (index, drawn) in self.steps.iter().enumerate() {
            let at = index + 1;
            let sources: Vec<String> = drawn.sources.iter().map(|source| tensor(*source % at)).collect();
            let mut step = json!({"name": format!("s{at}"), "model": "one",
                "inputs": {"x": sources}, "outputs": {"y": tensor(at)},
                "dependency": if drawn.soft { "Soft" } else { "Hard" }});
            if let Some((source, operator, number)) = drawn.when {
                step["when"] = json!(condition((source % at, operator, number)));
            }
            if let Some(((source, operator, number), first)) = drawn.within {
                let when = condition((source % at, operator, number));
                let other = json!({"name": format!("other{at}"), "model": "one",
                    "inputs": {"x": "in"}, "outputs": {"y": format!("u{at}")}});
                let (one, two) = if first { (step, other) } else { (other, step) };
                step = json!({"name": format!("c{at}"), "switch": [{"when": when, "steps": [one]}, {"steps": [two]}]});
            }
            steps.push(step);
        }
        let outputs = self.outputs();
        json!({"steps": steps, "optional_outputs": outputs})
    }

    fn outputs(&self) -> Vec<String> {
        let switched = self.steps.iter().enumerate().filter(|(_, step)| step.within.is_some());
        let others = switched.map(|(index, _)| format!("u{}", index + 1));
        (1..=self.steps.len()).map(tensor).chain(others).collect()
    }

    /// What must come out: worked out step by step, in the order of writing.
    fn expected(&self, input: f32, mode: bool) -> BTreeMap<String, f32> {
        let mut there: BTreeMap<String, f32> = BTreeMap::from([("in".to_owned(), input)]);
        for (index, drawn) in self.steps.iter().enumerate() {
            let at = index + 1;
            let holds = |(source, operator, number): (usize, u8, f32), there: &BTreeMap<String, f32>| {
                let value = there.get(&tensor(source % at));
                match operator % 4 {
                    0 => value.is_some_and(|value| *value > number),
                    1 => value.is_some(),
                    2 => !value.is_some_and(|value| *value <= number),
                    _ => mode || value.is_some_and(|value| *value < number),
                }
            };
            let on = drawn
                .within
                .is_none_or(|(condition, first)| holds(condition, &there) == first);
            if let Some((condition, first)) = drawn.within
                && holds(condition, &there) != first
            {
                there.insert(format!("u{at}"), makes(&format!("other{at}"), "y", &[input]));
            }
            let runs = on && drawn.when.is_none_or(|condition| holds(condition, &there));
            let source = drawn
                .sources
                .iter()
                .find_map(|source| there.get(&tensor(*source % at)).copied());
            if let (true, Some(source), false) = (runs, source, drawn.soft && drawn.fails) {
                there.insert(tensor(at), makes(&format!("s{at}"), "y", &[source]));
            }
        }
        there.remove("in");
        there
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let condition = || (0..16_usize, any::<u8>(), (-10..90_i16).prop_map(f32::from));
    let step = (
        proptest::collection::vec(0..16_usize, 1..4),
        any::<bool>(),
        any::<bool>(),
        proptest::option::weighted(0.3, condition()),
        proptest::option::weighted(0.3, (condition(), any::<bool>())),
    );
    let step = step.prop_map(|(sources, soft, fails, when, within)| DrawnStep {
        sources,
        soft,
        fails,
        when,
        within,
    });
    proptest::collection::vec(step, 1..8).prop_map(|steps| Drawn { steps })
}

proptest! {
    #[test]
    fn any_order_of_ends_gives_the_same_outputs(
        drawn in drawn(), order in proptest::collection::vec(any::<usize>(), 32), input in -5.0..50.0_f32, mode in any::<bool>(),
    ) {
        let names = drawn.outputs();
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        let plan = plan(&ensemble(2, &["in"], &outputs, drawn.graph()));
        let fails: BTreeSet<String> = drawn.steps.iter().enumerate()
            .filter(|(_, step)| step.soft && step.fails).map(|(index, _)| format!("s{}", index + 1)).collect();
        let parameters: Parameters = if mode { [("mode".to_owned(), ParameterValue::String("x".into()))].into() } else { Parameters::default() };
        let mut drive = Drive::new(&plan, input, &[], parameters);
        let mut picks = order.into_iter().cycle();
        drive.advance();
        while !drive.running.is_empty() {
            prop_assert!(!drive.run.is_over());
            let which = picks.next().unwrap_or(0) % drive.running.len();
            drive.end(which, &fails);
            drive.advance();
        }
        prop_assert!(drive.run.is_over(), "nothing runs and yet it is not over");
        let started: BTreeSet<&String> = drive.started.iter().collect();
        prop_assert_eq!(started.len(), drive.started.len(), "a step started twice");
        prop_assert_eq!(drive.outputs(), drawn.expected(input, mode));
        let path = drive.run.critical_path();
        prop_assert!(path.len() <= plan.outline.calls.len());
    }

    #[test]
    fn a_wanted_output_comes_out_alike_alone_and_with_all(
        drawn in drawn(), which in any::<usize>(), input in -5.0..50.0_f32,
    ) {
        let names = drawn.outputs();
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        let plan = plan(&ensemble(2, &["in"], &outputs, drawn.graph()));
        let fails: BTreeSet<String> = drawn.steps.iter().enumerate()
            .filter(|(_, step)| step.soft && step.fails).map(|(index, _)| format!("s{}", index + 1)).collect();
        let one = outputs[which % outputs.len()];
        let mut drive = Drive::new(&plan, input, &[one], Parameters::default());
        drive.advance();
        while !drive.running.is_empty() && !drive.run.is_over() {
            drive.end(0, &fails);
            drive.advance();
        }
        prop_assert!(drive.run.is_over());
        let (got, wanted) = (drive.outputs(), drawn.expected(input, false));
        prop_assert_eq!(got.get(one), wanted.get(one));
    }
}
