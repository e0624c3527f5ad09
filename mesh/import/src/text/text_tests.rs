//! What is read, what is refused and where; and that what is written is read back.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Message {
    Message::parse(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn only(text: &str) -> Value {
    let mut fields = read(text).fields;
    assert_eq!(fields.len(), 1, "{text}");
    fields.remove(0).value
}

fn refused(text: &str) -> String {
    Message::parse(text)
        .map(|message| panic!("{message:?}"))
        .unwrap_err()
        .to_string()
}

#[test]
fn every_spelling_of_a_value_is_read() {
    for (text, value) in [
        ("a: 1", Value::Integer(1)),
        ("a: -0x1F", Value::Integer(-31)),
        ("a: 017", Value::Integer(15)),
        ("a: 0", Value::Integer(0)),
        ("a: 18446744073709551615", Value::Integer(u64::MAX.into())),
        ("a: - 9223372036854775808", Value::Integer(i64::MIN.into())),
        ("a: 1.5", Value::Float(1.5)),
        ("a: .5", Value::Float(0.5)),
        ("a: 1.", Value::Float(1.0)),
        ("a: 2f", Value::Float(2.0)),
        ("a: -1e-3F", Value::Float(-0.001)),
        ("a: -inf", Value::Float(f64::NEG_INFINITY)),
        ("a: TYPE_FP32", Value::Word("TYPE_FP32".into())),
        ("a: 'x' \"y\" # both\n 'z'", Value::Text("xyz".into())),
        (
            r#"a: "\x41\101\n\\\"\u00e9\U0001F600\?""#,
            Value::Text("AA\n\\\"\u{e9}\u{1F600}?".into()),
        ),
        (r#"a: "\303\251""#, Value::Text("\u{e9}".into())),
    ] {
        assert_eq!(only(text), value, "{text}");
    }
}

#[test]
fn lists_braces_angles_separators_and_comments_are_forms_of_the_same() {
    let plain = read("a { b: 1 b: 2 }\nc { } c { }");
    let bare = |message: &Message| format!("{message:?}").replace(|c: char| c.is_ascii_digit(), "");
    for text in [
        "a: < b: [1, 2] >; c: [ {}, < > ],",
        "# first\na { b: 1, b: 2; }, c [{}, {}]",
        "\u{feff}a{b:[1,2]d:[]}c<>c:{}",
    ] {
        assert_eq!(bare(&read(text)), bare(&plain), "{text}");
    }
    assert_eq!(read("[a.b/c.D] { x: 1 }").fields[0].name, "[a.b/c.D]");
}

#[test]
fn values_know_their_lines() {
    let message = read("name: 'x'\ninput [\n  {\n    dims: [ 1,\n      2 ]\n  }\n]\n");
    assert_eq!(message.fields[0].line, 1);
    assert_eq!(message.fields[1].line, 3);
    let Value::Message(input) = &message.fields[1].value else {
        panic!("no message")
    };
    assert_eq!(input.fields.iter().map(|field| field.line).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_what_would_be_right() {
    for (text, said) in [
        (
            "a: 1\nb 2",
            "line 2: '2': here stands a ':' or a '{' behind a field's name",
        ),
        ("a {\n b: 1\n", "line 3: the '{' of line 1 is never closed"),
        ("a: \"x\n\"", "line 1: the text in quotes does not end in its line"),
        ("a: 'x\\q'", "line 1: '\\q' is no escape"),
        ("a: '\\377'", "line 1: the text in quotes is not UTF-8"),
        ("a: 08", "line 1: '08' is not a number"),
        ("a: 1x", "'1x' is not a number"),
        ("a: 1.2.3", "'1.2.3' is not a number"),
        ("a: 1 2", "not a number"),
        ("a: 18446744073709551616", "is not a number of 64 bits"),
        ("a: -9223372036854775809", "is not a number of 64 bits"),
        ("a: 0x", "is not a number"),
        ("a: -x", "'x' is not a number"),
        ("a: [1, ]", "here stands a value"),
        ("a: [1; 2]", "the ']' that ends the list"),
        ("a: }", "'}': here stands a value"),
        ("}", "'}': here stands the name of a field"),
        ("a: 1,, b: 2", "','"),
        ("a:", "the end of the text: here stands a value"),
        ("[a", "here stands the name of a field"),
        ("a { b: 1 >", "'>': here stands the name of a field"),
        ("a: '\\ud800'", "no escape"),
    ] {
        let error = refused(text);
        assert!(error.contains(said), "{text:?} gave {error:?}");
    }
}

#[test]
fn nesting_and_length_at_their_bounds_pass_and_one_beyond_do_not() {
    let nested = |depth: usize| format!("{}{}", "a{".repeat(depth), "}".repeat(depth));
    assert!(Message::parse(&nested(MAX_NESTING)).is_ok());
    assert!(refused(&nested(MAX_NESTING + 1)).contains("deep"));
    // Far beyond, the end is the same and takes no stack.
    assert!(refused(&"a{".repeat(100_000)).contains("deep"));
    let long = |bytes: usize| format!("#{}", "x".repeat(bytes - 1));
    assert!(Message::parse(&long(MAX_TEXT_BYTES)).is_ok());
    assert!(refused(&long(MAX_TEXT_BYTES + 1)).contains("bytes"));
}

/// Writes a message so that every value is on a line of its own.
fn write(message: &Message, indent: usize, out: &mut String) {
    for field in &message.fields {
        let blank = " ".repeat(indent);
        match &field.value {
            Value::Message(inner) => {
                out.push_str(&format!("{blank}{} {{\n", field.name));
                write(inner, indent + 2, out);
                out.push_str(&format!("{blank}}}\n"));
            }
            Value::Text(text) => {
                let quoted: String = text
                    .bytes()
                    .map(|byte| match byte {
                        b' ' | b'a'..=b'z' => char::from(byte).to_string(),
                        other => format!("\\{other:03o}"),
                    })
                    .collect();
                out.push_str(&format!("{blank}{}: \"{quoted}\"\n", field.name));
            }
            Value::Integer(number) => out.push_str(&format!("{blank}{}: {number}\n", field.name)),
            Value::Float(number) => out.push_str(&format!("{blank}{}: {number:e}f\n", field.name)),
            Value::Word(word) => out.push_str(&format!("{blank}{}: {word}\n", field.name)),
        }
    }
}

fn without_lines(message: &mut Message) {
    for field in &mut message.fields {
        field.line = 0;
        if let Value::Message(inner) = &mut field.value {
            without_lines(inner);
        }
    }
}

fn messages() -> impl Strategy<Value = Message> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| Value::Integer(number.into())),
        any::<u64>().prop_map(|number| Value::Integer(number.into())),
        prop::num::f64::NORMAL.prop_map(Value::Float),
        ".*".prop_map(Value::Text),
        "[A-Z_][A-Z0-9_]{0,8}".prop_map(Value::Word),
    ];
    let fields = |value: BoxedStrategy<Value>| {
        let field = ("[a-z_][a-z0-9_]{0,8}", value).prop_map(|(name, value)| Field { name, line: 0, value });
        prop::collection::vec(field, 0..6).prop_map(|fields| Message { fields })
    };
    let value = leaf.prop_recursive(4, 32, 6, move |inner| fields(inner.boxed()).prop_map(Value::Message));
    fields(value.boxed())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(message in messages()) {
        let mut text = String::new();
        write(&message, 0, &mut text);
        let mut again = Message::parse(&text).unwrap();
        without_lines(&mut again);
        prop_assert_eq!(again, message);
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_line_that_it_has(text in "[a-c:{}<>\\[\\],;#\"'\\\\\n 0-9.xeEf-]{0,80}") {
        if let Err(error) = Message::parse(&text) {
            let lines = u32::try_from(text.split('\n').count()).unwrap();
            prop_assert!((1..=lines).contains(&error.line), "{}", error);
        }
    }
}
