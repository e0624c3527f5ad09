//! What is refused of a graph, each with the place and the words that help; and what is taken.

use mesh_types::{DataType, EnsembleScheduling, MAX_CHOICES, MAX_ROUTE_NESTING, MAX_ROUTES, MAX_SOURCES, MAX_STEPS};
use serde_json::{Value, json};

use super::{
    MAX_DEPTH, MAX_NESTING, MAX_WIDTH, Plan, StepVersionEntry, Wanted,
    samples::{compile, ensemble, entry, key, models, plan, problems, problems_of, signature, spec},
    show,
};

/// A step of the model `one`.
fn one(name: &str, input: &str, output: &str) -> Value {
    json!({"name": name, "model": "one", "inputs": {"x": input}, "outputs": {"y": output}})
}

fn steps(steps: &[Value]) -> Value {
    json!({"steps": steps})
}

#[track_caller]
fn refused(graph: Value, field: &str, part: &str) {
    let found = problems(graph);
    let fits = |problem: &String| problem.starts_with(&format!("{field}: ")) && problem.contains(part);
    assert!(found.iter().any(fits), "wanted '{field}: ..{part}..', got {found:#?}");
}

#[test]
fn a_chain_is_taken_and_knows_its_order() {
    let outline = compile(&ensemble(
        2,
        &["in"],
        &["out"],
        steps(&[one("late", "mid", "out"), one("early", "in", "mid")]),
    ))
    .unwrap();
    let levels: Vec<usize> = outline.calls.iter().map(|call| call.level).collect();
    assert_eq!(levels, [1, 0]);
    assert!(outline.calls[0].ask.is_empty(), "everything it makes is used");
}

#[test]
fn tritons_form_compiles_and_its_problems_name_its_fields() {
    let tritons = |input: &str| {
        let form: EnsembleScheduling = serde_json::from_value(json!({"step": [
            {"model_name": "one", "model_version": -1, "input_map": {"x": input}, "output_map": {"y": "mid"}},
            {"model_name": "one", "input_map": {"x": "mid"}, "output_map": {"y": "out"}},
        ]}))
        .unwrap();
        let mut config = signature(2, &["in"], &["out"]);
        config.ensemble_scheduling = Some(form);
        config
    };
    assert_eq!(compile(&tritons("in")).unwrap().calls.len(), 2);
    let found = problems_of(&tritons("nothing"));
    assert!(
        found[0].starts_with("ensemble_scheduling.step[0].input_map.x: there is no tensor 'nothing'"),
        "{found:?}"
    );
    let mut both = tritons("in");
    both.graph = ensemble(2, &["in"], &["out"], steps(&[])).graph;
    assert!(problems_of(&both)[0].contains("write one of them"));
    assert!(problems_of(&signature(2, &["in"], &["out"]))[0].contains("needs its steps"));
}

#[test]
fn names_and_maps_must_lead_somewhere() {
    refused(steps(&[]), "graph.steps", "at least one step");
    refused(
        steps(&[json!({"name": "a", "model": "lost", "outputs": {"y": "out"}})]),
        "graph.steps[0].model",
        "there is no model 'lost'",
    );
    refused(
        steps(&[one("a", "nowhere", "out")]),
        "graph.steps[0].inputs.x",
        "no tensor 'nowhere'",
    );
    refused(
        steps(&[json!({"name": "a", "model": "one", "outputs": {"y": "out"}})]),
        "graph.steps[0].inputs.x",
        "needs it: map it",
    );
    refused(
        steps(&[json!({"name": "a", "model": "one", "inputs": {"x": "in", "w": "in"}, "outputs": {"y": "out"}})]),
        "graph.steps[0].inputs.w",
        "has no input 'w': it has x",
    );
    refused(
        steps(&[json!({"name": "a", "model": "one", "inputs": {"x": "in"}, "outputs": {"v": "out"}})]),
        "graph.steps[0].outputs.v",
        "has no output 'v': it has y",
    );
    refused(
        steps(&[json!({"name": "a", "model": "one", "inputs": {"x": "in"}})]),
        "graph.steps[0].outputs",
        "at least one tensor",
    );
    refused(steps(&[one("a", "in", "other")]), "output[0].name", "no tensor 'out'");
    refused(steps(&[one("Not", "in", "out")]), "graph.steps[0].name", "a-z");
    refused(
        steps(&[one("a", "in", "mid"), one("a", "mid", "out")]),
        "graph.steps[1].name",
        "name of graph.steps[0] already",
    );
    refused(
        steps(&[json!({"name": "a"})]),
        "graph.steps[0]",
        "exactly one of model, switch and splitter",
    );
    refused(
        json!({"steps": [one("a", "in", "out")], "outputs": {"no": "out"}, "optional_outputs": ["nor"]}),
        "graph.outputs",
        "'no' is no output",
    );
}

#[test]
fn a_tensor_has_one_maker() {
    refused(
        steps(&[one("a", "in", "out"), one("b", "in", "out")]),
        "graph.steps[1].outputs.y",
        "made by step 'a' as well",
    );
    refused(
        steps(&[one("a", "in", "in")]),
        "graph.steps[0].outputs.y",
        "is an input of the graph",
    );
}

#[test]
fn circles_are_named() {
    refused(
        steps(&[one("a", "two", "out"), one("b", "in2", "two"), one("c", "out", "in2")]),
        "graph.steps[2]",
        "in a circle: c -> b -> a -> c",
    );
    refused(
        steps(&[json!({"name": "s", "switch": [
            {"when": "out == 1", "steps": [one("a", "in", "out")]}, {"steps": [one("b", "in", "other")]}]})]),
        "graph.steps[0]",
        "in a circle: s -> a -> s",
    );
}

#[test]
fn what_nobody_needs_is_refused_or_not_asked_for() {
    refused(
        steps(&[one("a", "in", "out"), one("idle", "in", "unused")]),
        "graph.steps[1]",
        "no output of the graph needs step 'idle'",
    );
    let two =
        json!({"name": "a", "model": "two", "inputs": {"a": "in", "b": "in"}, "outputs": {"y": "out", "z": "rest"}});
    let outline = compile(&ensemble(2, &["in"], &["out"], steps(&[two]))).unwrap();
    assert_eq!(outline.calls[0].ask, ["y"]);
}

#[test]
fn types_shapes_and_batches_must_fit() {
    let mut labels = ensemble(
        2,
        &["in"],
        &["out"],
        steps(&[
            json!({"name": "a", "model": "labels", "inputs": {"x": "in"}, "outputs": {"label": "text"}}),
            one("b", "text", "out"),
        ]),
    );
    let found = problems_of(&labels);
    assert!(
        found[0].contains("'text' is BYTES, but model 'one' takes FP32"),
        "{found:?}"
    );
    labels.graph = ensemble(2, &[], &[], steps(&[one("a", "in", "out")])).graph;
    labels.input = vec![spec("in", DataType::Fp32, &[3])];
    let found = problems_of(&labels);
    assert!(
        found[0].contains("'in' has the shape [-1,3], but model 'one' takes [-1,2]"),
        "{found:?}"
    );
    labels.input = vec![spec("in", DataType::Fp32, &[-1])];
    assert_eq!(problems_of(&labels), Vec::<String>::new(), "-1 fits any");
    labels.output = vec![spec("out", DataType::Int8, &[2])];
    assert!(problems_of(&labels)[0].contains("'out' is FP32, but the output is declared INT8"));
    let at = |max: u32, model: &str| {
        let step = json!({"name": "a", "model": model, "inputs": {"x": "in"}, "outputs": {"y": "out"}});
        problems_of(&ensemble(max, &["in"], &["out"], steps(&[step])))
    };
    assert_eq!(at(2, "small"), Vec::<String>::new());
    assert!(at(3, "small")[0].contains("max_batch_size is 3 here, but model 'small' takes at most 2"));
    assert!(at(1, "single")[0].contains("takes at most 0"));
    assert_eq!(at(0, "single"), Vec::<String>::new());
    // Without a batch dimension of its own, the graph's tensors have the step's.
    let mut config = ensemble(0, &["in"], &["out"], steps(&[one("a", "in", "out")]));
    assert!(problems_of(&config)[0].contains("has the shape [2], but model 'one' takes [-1,2]"));
    config.input = vec![spec("in", DataType::Fp32, &[4, 2])];
    config.output = vec![spec("out", DataType::Fp32, &[-1, 2])];
    assert_eq!(problems_of(&config), Vec::<String>::new());
}

fn switch(routes: &Value) -> Value {
    steps(&[json!({"name": "s", "switch": routes})])
}

#[test]
fn a_switch_with_a_way_for_everything_always_answers_and_one_without_must_say_so() {
    let routes = json!([
        {"when": "in[0] > 0", "steps": [one("a", "in", "out")]},
        {"steps": [one("b", "in", "mid"), one("c", "mid", "out")]},
    ]);
    let outline = compile(&ensemble(2, &["in"], &["out"], switch(&routes))).unwrap();
    assert_eq!(
        outline.tensors.iter().filter(|tensor| tensor.makers.len() == 2).count(),
        1
    );
    let open = json!([{"when": "in[0] > 0", "steps": [one("a", "in", "out")]}]);
    refused(switch(&open), "output[0].name", "'out' may be missing");
    let mut optional = switch(&open);
    optional["optional_outputs"] = json!(["out"]);
    assert_eq!(problems(optional), Vec::<String>::new());
    let half = json!([
        {"when": "in[0] > 0", "steps": [one("a", "in", "out")]},
        {"steps": [one("b", "in", "elsewhere")]},
    ]);
    refused(switch(&half), "output[0].name", "'out' may be missing");
}

#[test]
fn a_soft_or_conditional_step_needs_another_source_or_a_word() {
    let soft = |more: Value| {
        let mut step = one("a", "in", "first");
        step["dependency"] = json!("Soft");
        let mut graph = json!({"steps": [step, one("b", "in", "second")]});
        graph["outputs"] = more;
        graph
    };
    refused(soft(json!({"out": "first"})), "output[0].name", "may be missing");
    assert_eq!(
        problems(soft(json!({"out": ["first", "second"]}))),
        Vec::<String>::new()
    );
    let mut step = one("a", "in", "out");
    step["when"] = json!("parameters.wanted");
    refused(steps(&[step]), "output[0].name", "may be missing");
}

#[test]
fn conditions_are_checked_where_they_stand() {
    let with = |when: &str| {
        let mut step = one("a", "in", "out");
        step["when"] = json!(when);
        json!({"steps": [step], "optional_outputs": ["out"]})
    };
    refused(with("in >"), "graph.steps[0].when", "at character 5: expected a number");
    refused(
        with("true && lost"),
        "graph.steps[0].when",
        "at character 9: there is no tensor 'lost'",
    );
    refused(
        with("in == 'x'"),
        "graph.steps[0].when",
        "at character 1: compares a number with a text",
    );
    let routes = json!([{"steps": [one("a", "in", "out")]}, {"steps": [one("b", "in", "out")]}]);
    refused(switch(&routes), "graph.steps[0].switch[0].when", "only the last");
}

#[test]
fn weights_sum_to_a_hundred() {
    let splitter = |weights: &[f64]| {
        let routes: Vec<Value> = (0..weights.len())
            .map(|at| json!({"weight": weights[at], "steps": [one(&format!("r{at}"), "in", "out")]}))
            .collect();
        steps(&[json!({"name": "s", "splitter": routes, "sticky_by": "user"})])
    };
    assert_eq!(problems(splitter(&[33.33, 66.67])), Vec::<String>::new());
    refused(splitter(&[50.0, 49.99]), "graph.steps[0].splitter", "sum to 99.99");
    refused(
        splitter(&[50.001, 49.999]),
        "graph.steps[0].splitter[0].weight",
        "at most two decimals",
    );
    refused(
        splitter(&[-1.0, 101.0]),
        "graph.steps[0].splitter[1].weight",
        "0 to 100",
    );
    let mut graph = splitter(&[100.0]);
    graph["steps"][0]["sticky_by"] = json!("no spaces");
    refused(graph, "graph.steps[0].sticky_by", "letters, digits");
}

/// A chain of so many steps from `in` to `out`.
fn chain(length: usize) -> Value {
    let name = |at: usize| match at {
        0 => "in".to_owned(),
        at if at == length => "out".to_owned(),
        at => format!("t{at}"),
    };
    let all: Vec<Value> = (0..length)
        .map(|at| one(&format!("s{at}"), &name(at), &name(at + 1)))
        .collect();
    steps(&all)
}

/// So many steps side by side, of which all make an output.
fn wide(width: usize) -> mesh_types::ModelConfig {
    let names: Vec<String> = (0..width).map(|at| format!("o{at}")).collect();
    let all: Vec<Value> = (0..width).map(|at| one(&format!("s{at}"), "in", &names[at])).collect();
    let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
    ensemble(2, &["in"], &outputs, steps(&all))
}

#[test]
fn depth_width_and_number_have_bounds() {
    assert_eq!(problems(chain(MAX_DEPTH)), Vec::<String>::new());
    refused(chain(MAX_DEPTH + 1), "graph", "33 steps wait for one another");
    assert_eq!(problems_of(&wide(MAX_WIDTH)), Vec::<String>::new());
    assert!(problems_of(&wide(MAX_WIDTH + 1))[0].contains("17 steps would run side by side"));
    let at = problems_of(&wide(MAX_STEPS));
    assert!(at[0].contains("side by side"), "{at:?}");
    let beyond = problems_of(&wide(MAX_STEPS + 1));
    assert_eq!(beyond.len(), 1, "{beyond:?}");
    assert!(beyond[0].starts_with("graph.steps: more than 64 steps"), "{beyond:?}");
}

#[test]
fn of_routes_that_exclude_each_other_the_widest_counts() {
    let of = |other: usize| {
        let route = |name: &str, count: usize| -> Vec<Value> {
            (0..count)
                .map(|at| one(&format!("{name}{at}"), "in", &format!("t-{name}{at}")))
                .collect()
        };
        let graph = json!({"steps": [
            {"name": "way", "switch": [{"when": "in == 1", "steps": route("a", 9)}, {"steps": route("b", 10)}]},
            {"name": "too", "switch": [{"steps": route("c", other)}]},
        ]});
        let steps = [("a", 9), ("b", 10), ("c", other)];
        let names: Vec<String> = steps
            .iter()
            .flat_map(|(name, count)| (0..*count).map(move |at| format!("t-{name}{at}")))
            .collect();
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut config = ensemble(2, &["in"], &outputs, graph);
        if let Some(graph) = &mut config.graph {
            graph.optional_outputs = names.clone();
        }
        problems_of(&config)
    };
    assert_eq!(of(MAX_WIDTH - 10), Vec::<String>::new());
    assert!(of(MAX_WIDTH - 9)[0].contains("17 steps would run side by side"));
}

#[test]
fn choices_routes_and_sources_have_bounds() {
    let sources = |count: usize| json!({"steps": [{"name": "a", "model": "one", "inputs": {"x": vec!["in"; count]}, "outputs": {"y": "out"}}]});
    assert_eq!(problems(sources(MAX_SOURCES)), Vec::<String>::new());
    refused(sources(MAX_SOURCES + 1), "graph.steps[0].inputs.x", "1 to 8 names");
    let routes = |count: usize| {
        let routes: Vec<Value> = (0..count)
            .map(|at| json!({"when": "in == 1", "steps": [one(&format!("r{at}"), "in", "out")]}))
            .collect();
        json!({"steps": [{"name": "s", "switch": routes}], "optional_outputs": ["out"]})
    };
    // The routes of one choice may all run at one level.
    assert_eq!(problems(routes(MAX_ROUTES)), Vec::<String>::new());
    refused(routes(MAX_ROUTES + 1), "graph.steps[0].switch", "at most 16 routes");
    let nested = |depth: usize| {
        let inner = (0..depth).fold(
            one("a", "in", "out"),
            |inner, at| json!({"name": format!("s{at}"), "switch": [{"steps": [inner]}]}),
        );
        steps(&[inner])
    };
    assert_eq!(problems(nested(MAX_ROUTE_NESTING)), Vec::<String>::new());
    let found = problems(nested(MAX_ROUTE_NESTING + 1));
    assert!(
        found.iter().any(|problem| problem.contains("at most 4 deep")),
        "{found:?}"
    );
    let choices = |count: usize| {
        let choices: Vec<Value> = (0..count)
            .map(|at| json!({"name": format!("c{at}"), "switch": [{"steps": [one(&format!("s{at}"), "in", &format!("t{at}"))]}]}))
            .collect();
        let names: Vec<String> = (0..count).map(|at| format!("t{at}")).collect();
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        problems_of(&ensemble(2, &["in"], &outputs, steps(&choices)))
    };
    assert_eq!(choices(MAX_CHOICES), Vec::<String>::new());
    assert!(choices(MAX_CHOICES + 1)[0].contains("at most 16 switches"));
}

#[test]
fn ensembles_within_ensembles_have_a_bound() {
    let config = ensemble(2, &["x"], &["y"], steps(&[one("a", "x", "y")]));
    let mut inner = plan(&config);
    for depth in 2..=MAX_NESTING + 1 {
        let step = entry("acme", "inner", config.clone(), Some(inner.clone()));
        let resolve = |_: Wanted<'_>| {
            Ok(StepVersionEntry {
                entry: step.clone(),
                callers: [mesh_types::TenantId::parse("acme").unwrap()].into(),
            })
        };
        match Plan::compile(&key("pipe", "acme"), &config, resolve) {
            Ok(outer) => {
                assert!(depth <= MAX_NESTING);
                assert_eq!(outer.versions().count(), depth);
                inner = std::sync::Arc::new(outer);
            }
            Err(found) => {
                assert_eq!(depth, MAX_NESTING + 1);
                assert!(found[0].problem.contains("at most 4 may"), "{found:?}");
            }
        }
    }
}

#[test]
fn a_grant_is_not_handed_on() {
    let config = ensemble(
        2,
        &["in"],
        &["out"],
        steps(&[one("a", "in", "mid"), one("b", "mid", "out")]),
    );
    let tenant = |name: &str| mesh_types::TenantId::parse(name).unwrap();
    let mut own = true;
    let resolve = |wanted: Wanted<'_>| {
        let owner = if std::mem::take(&mut own) { "acme" } else { "other" };
        Ok(StepVersionEntry {
            entry: entry(owner, wanted.model.as_str(), models()["one"].clone(), None),
            callers: [tenant("other"), tenant("acme"), tenant("friend")].into(),
        })
    };
    let plan = Plan::compile(&key("pipe", "acme"), &config, resolve).unwrap();
    assert!(plan.admits(&tenant("acme")) && plan.admits(&tenant("friend")));
    assert!(
        !plan.admits(&tenant("stranger")),
        "it was granted the ensemble, not the other's model"
    );
}

#[test]
fn two_steps_share_no_state_but_on_routes_that_exclude_each_other() {
    let compiled = |graph: Value, inner: Option<std::sync::Arc<Plan>>| {
        let config = ensemble(2, &["in"], &["out"], graph);
        Plan::compile(&key("pipe", "acme"), &config, |wanted| {
            let mut model = models()["one"].clone();
            let plan = inner.clone().filter(|_| wanted.model.as_str() == "two");
            if plan.is_none() {
                model.sequence_batching = Some(mesh_types::SequenceBatching::default());
            }
            Ok(StepVersionEntry {
                entry: entry("acme", "one", model, plan),
                callers: [mesh_types::TenantId::parse("acme").unwrap()].into(),
            })
        })
    };
    let problem = |found: Result<Plan, Vec<mesh_types::ModelConfigError>>| found.unwrap_err()[0].to_string();
    let twice = steps(&[one("a", "in", "mid"), one("b", "mid", "out")]);
    let text = "graph.steps[1]: step 'a' runs the stateful model 'one' too";
    assert!(problem(compiled(twice, None)).starts_with(text));
    let route = json!({"steps": [{"name": "way", "switch": [
        {"when": "in > 0", "steps": [one("a", "in", "out")]}, {"steps": [one("b", "in", "out")]},
    ]}]});
    let either = compiled(route, None).unwrap();
    let paths: Vec<&str> = either.stateful.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["step 'a'", "step 'b'"]);
    // Through an ensemble within it too.
    let mut inner = one("inner", "in", "mid");
    inner["model"] = json!("two");
    let within = steps(&[inner, one("b", "mid", "out")]);
    let found = compiled(within, Some(std::sync::Arc::new(either)));
    assert!(problem(found).starts_with("graph.steps[1]: step 'inner' runs the stateful model 'one' too"));
}

#[test]
fn a_graph_is_shown_as_text_and_as_dot() {
    let mut soft = one("quick", "in", "out");
    soft["dependency"] = json!("Soft");
    soft["when"] = json!("parameters.mode == \"fast\"");
    let graph = json!({
        "steps": [
            soft,
            {"name": "pick", "splitter": [
                {"weight": 90, "steps": [one("a", "in", "slow")]},
                {"weight": 10, "steps": [{"name": "b", "model": "one", "version": "canary",
                    "inputs": {"x": "in"}, "outputs": {"y": "slow"}, "max_inflight_requests": 3}]},
            ]},
        ],
        "outputs": {"out": ["out", "slow"]},
    });
    let outline = compile(&ensemble(2, &["in"], &["out"], graph)).unwrap();
    let note = |call: usize| {
        if call == 0 {
            "version 7".to_owned()
        } else {
            String::new()
        }
    };
    assert_eq!(
        show::text(&outline, &note),
        "inputs: in FP32
quick: one (x=in) -> out=y when parameters.mode == \"fast\" [soft]  # version 7
pick: splitter
  90 %:
    a: one (x=in) -> slow=y
  10 %:
    b: one@canary (x=in) -> slow=y [at most 3 at once]
outputs: out = out or slow
"
    );
    let dot = show::dot(&outline, "acme/pipe/1", &note);
    for part in [
        "digraph \"acme/pipe/1\" {",
        "call0 [shape=box, style=dashed, label=\"quick\\none\\nversion 7\"];",
        "choice0 -> call1 [style=bold, label=\"90 %\"];",
        "inputs -> call2 [label=\"in\"];",
        "call2 -> outputs [label=\"out\"];",
    ] {
        assert!(dot.contains(part), "{part} in {dot}");
    }
}
