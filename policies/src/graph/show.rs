//! A graph for people: as indented text, and in the language of Graphviz.

use std::fmt::Write as _;

use super::outline::{Bound, Call, Choice, Outline, Route, Way};

/// What is known of a step beside the graph, such as the version it runs now; empty says nothing.
pub type Note<'a> = &'a dyn Fn(usize) -> String;

/// The graph as indented text, a step a line.
pub fn text(outline: &Outline, note: Note<'_>) -> String {
    let mut page = Page {
        outline,
        note,
        text: String::new(),
    };
    let inputs = outline.tensors.iter().filter(|tensor| tensor.makers.is_empty());
    let inputs: Vec<String> = inputs
        .map(|tensor| format!("{} {}", tensor.name, tensor.datatype))
        .collect();
    page.line(0, &format!("inputs: {}", inputs.join(", ")));
    page.routes(None, 0);
    let outputs = outline.outputs.iter().map(|output| {
        let sources = names(outline, &output.from);
        let optional = if output.optional { " (may be missing)" } else { "" };
        if sources == *output.name {
            format!("{}{optional}", output.name)
        } else {
            format!("{} = {sources}{optional}", output.name)
        }
    });
    let outputs: Vec<String> = outputs.collect();
    page.line(0, &format!("outputs: {}", outputs.join(", ")));
    page.text
}

struct Page<'a> {
    outline: &'a Outline,
    note: Note<'a>,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, depth: usize, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{}{text}", "  ".repeat(depth));
    }

    /// What lies directly in a route, or in none: steps by their level, then choices with their own routes.
    fn routes(&mut self, route: Option<Route>, depth: usize) {
        let outline = self.outline;
        let mut calls: Vec<(usize, &Call)> = outline.calls.iter().enumerate().collect();
        calls.retain(|(_, call)| call.route == route);
        calls.sort_by_key(|(at, call)| (call.level, *at));
        for (at, call) in calls {
            let line = self.call(at, call);
            self.line(depth, &line);
        }
        for (at, choice) in outline
            .choices
            .iter()
            .enumerate()
            .filter(|(_, choice)| choice.route == route)
        {
            self.line(depth, &headline(choice));
            for number in 0..choice.routes() {
                self.line(depth + 1, &format!("{}:", way(choice, number)));
                let inner = Route {
                    choice: at,
                    route: number,
                };
                self.routes(Some(inner), depth + 2);
            }
        }
    }

    fn call(&self, at: usize, call: &Call) -> String {
        let outline = self.outline;
        let input = |input: &super::outline::Input| format!("{}={}", input.name, names(outline, &input.from));
        let inputs: Vec<String> = call.inputs.iter().map(input).collect();
        let made = |made: &super::outline::Made| format!("{}={}", tensor(outline, made.tensor), made.name);
        let outputs: Vec<String> = call.outputs.iter().map(made).collect();
        let mut line = format!(
            "{}: {} ({}) -> {}",
            call.name,
            model(call),
            inputs.join(", "),
            outputs.join(", ")
        );
        if let Some(when) = &call.when {
            let _ = write!(line, " when {}", condition(when));
        }
        if call.soft {
            line.push_str(" [soft]");
        }
        if call.max_inflight > 0 {
            let _ = write!(line, " [at most {} at once]", call.max_inflight);
        }
        let note = (self.note)(at);
        if !note.is_empty() {
            let _ = write!(line, "  # {note}");
        }
        line
    }
}

fn condition(bound: &Bound) -> &str {
    bound.condition.text()
}

/// A model as a step names it.
pub fn model(call: &Call) -> String {
    let version = match &call.version {
        mesh_types::VersionSelector::Default => String::new(),
        mesh_types::VersionSelector::Version(version) => format!("@{version}"),
        mesh_types::VersionSelector::Label(label) => format!("@{label}"),
    };
    let namespace = call.namespace.as_ref().map(|namespace| format!("{namespace}/"));
    format!("{}{}{version}", namespace.unwrap_or_default(), call.model)
}

fn headline(choice: &Choice) -> String {
    let kind = match &choice.way {
        Way::Switch(_) => "switch".to_owned(),
        Way::Splitter { unit: Some(unit), .. } => format!("splitter, sticky by {unit}"),
        Way::Splitter { .. } => "splitter".to_owned(),
    };
    let when = choice.when.as_ref().map(|when| format!(" when {}", condition(when)));
    format!("{}: {kind}{}", choice.name, when.unwrap_or_default())
}

/// When a route of a choice is taken.
pub fn way(choice: &Choice, route: usize) -> String {
    match &choice.way {
        Way::Switch(conditions) => match conditions.get(route).and_then(Option::as_ref) {
            Some(bound) => format!("when {}", condition(bound)),
            None => "otherwise".to_owned(),
        },
        Way::Splitter { hundredths, .. } => {
            let hundredths = hundredths.get(route).copied().unwrap_or(0);
            format!("{} %", f64::from(hundredths) / 100.0)
        }
    }
}

fn tensor(outline: &Outline, at: usize) -> &str {
    outline.tensors.get(at).map_or("", |tensor| &tensor.name)
}

/// The names of tensors to take the first of.
pub fn names(outline: &Outline, from: &[usize]) -> String {
    let names: Vec<&str> = from.iter().map(|at| tensor(outline, *at)).collect();
    names.join(" or ")
}

/// A text in the quotes of Graphviz.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            control if control.is_control() => {}
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// The graph in the language of Graphviz.
pub fn dot(outline: &Outline, name: &str, note: Note<'_>) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    line(format!("digraph {} {{", quoted(name)));
    line("  rankdir=LR;".to_owned());
    line("  inputs [shape=oval];".to_owned());
    line("  outputs [shape=oval];".to_owned());
    for (at, call) in outline.calls.iter().enumerate() {
        let mut label = format!("{}\n{}", call.name, model(call));
        let note = note(at);
        if !note.is_empty() {
            let _ = write!(label, "\n{note}");
        }
        let style = if call.soft { ", style=dashed" } else { "" };
        line(format!("  call{at} [shape=box{style}, label={}];", quoted(&label)));
    }
    for (at, choice) in outline.choices.iter().enumerate() {
        line(format!(
            "  choice{at} [shape=diamond, label={}];",
            quoted(&headline(choice))
        ));
        if let Some(route) = choice.route {
            line(leads(outline, route, &format!("choice{at}")));
        }
        for from in choice.tensors() {
            for source in sources(outline, from) {
                line(format!(
                    "  {source} -> choice{at} [style=dotted, label={}];",
                    quoted(tensor(outline, from))
                ));
            }
        }
    }
    for (at, call) in outline.calls.iter().enumerate() {
        if let Some(route) = call.route {
            line(leads(outline, route, &format!("call{at}")));
        }
        for from in call.inputs.iter().flat_map(|input| &input.from) {
            for source in sources(outline, *from) {
                line(format!(
                    "  {source} -> call{at} [label={}];",
                    quoted(tensor(outline, *from))
                ));
            }
        }
    }
    for output in &outline.outputs {
        for from in &output.from {
            for source in sources(outline, *from) {
                line(format!("  {source} -> outputs [label={}];", quoted(&output.name)));
            }
        }
    }
    line("}".to_owned());
    text
}

fn leads(outline: &Outline, route: Route, to: &str) -> String {
    let choice = outline.choices.get(route.choice);
    let label = choice.map(|choice| way(choice, route.route)).unwrap_or_default();
    format!(
        "  choice{} -> {to} [style=bold, label={}];",
        route.choice,
        quoted(&label)
    )
}

/// What a tensor comes from.
fn sources(outline: &Outline, tensor: usize) -> Vec<String> {
    match outline.tensors.get(tensor).map(|tensor| tensor.makers.as_slice()) {
        Some([]) | None => vec!["inputs".to_owned()],
        Some(makers) => makers.iter().map(|call| format!("call{call}")).collect(),
    }
}
