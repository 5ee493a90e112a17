//! Compares JSON with docs/json-output.schema.json. It knows the keywords that are used
//! there, and fails on any other, so none is ignored.

use std::sync::OnceLock;

use serde_json::{Value, json};

/// Returns the schema of everything that is printed with `--json`.
pub fn output_schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    let text = include_str!("../../docs/json-output.schema.json");
    SCHEMA.get_or_init(|| serde_json::from_str(text).unwrap())
}

/// Returns the faults of a value that is printed by a command, none if it is as the
/// definition says.
pub fn faults(definition: &str, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let reference = json!({ "$ref": format!("#/$defs/{definition}") });
    check(&reference, value, definition, &mut faults);
    faults
}

/// Fails unless one of the definitions of what a command prints fits.
#[track_caller]
pub fn assert_known(value: &Value) {
    let outputs = output_schema()["anyOf"].as_array().unwrap();
    let mut all = Vec::new();
    for output in outputs {
        let name = output["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        match faults(name, value) {
            none if none.is_empty() => return,
            faults => all.push(faults),
        }
    }
    all.sort_by_key(Vec::len);
    panic!("no definition fits: {:#?}\nin {value:#}", all[0]);
}

fn check(schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        let good = match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" | "format" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                let target = output_schema().pointer(pointer);
                check(target.expect(pointer), value, at, faults);
                true
            }
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "type" => is_of_type(rule, value),
            "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
            "maxItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
            "pattern" => value.as_str().is_none_or(is_time),
            "anyOf" => rule.as_array().unwrap().iter().any(|rule| {
                let mut own = Vec::new();
                check(rule, value, at, &mut own);
                own.is_empty()
            }),
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(rule, item, &format!("{at}[{i}]"), faults);
                }
                true
            }
            "required" => {
                let names = rule.as_array().unwrap().iter();
                let lacks = |name: &&Value| value.get(name.as_str().unwrap()).is_none();
                let missing: Vec<_> = names.filter(|_| value.is_object()).filter(lacks).collect();
                faults.extend(missing.iter().map(|name| format!("{at} lacks {name}")));
                true
            }
            "properties" | "additionalProperties" => true,
            other => panic!("the keyword {other} is not known here"),
        };
        if !good {
            faults.push(format!("{at}: {value} is not {keyword} {rule}"));
        }
    }
    let (Some(fields), Some(others)) = (value.as_object(), schema.get("additionalProperties"))
    else {
        return;
    };
    for (name, field) in fields {
        let at = format!("{at}.{name}");
        match (schema.pointer(&format!("/properties/{name}")), others) {
            (Some(rule), _) => check(rule, field, &at, faults),
            (None, Value::Bool(false)) => faults.push(format!("{at} is not known")),
            (None, rule) => check(rule, field, &at, faults),
        }
    }
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not known here"),
    };
    match rule {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

/// The only pattern is that of times.
fn is_time(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        let part = text.get(range);
        part.is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_rfc_3339 = text.parse::<jiff::Timestamp>().is_ok();
    is_rfc_3339 && digits(0..4) && text.get(10..11) == Some("T") && !text.ends_with(['Z', ']'])
}

#[test]
fn what_does_not_fit_is_found() {
    let good = json!({"formatVersion": 1, "stacks": [
        {"stack": "web", "keptCount": 1, "removed": [], "error": null},
    ]});
    assert_eq!(faults("prune", &good), [""; 0]);
    assert_known(&good);
    for (pointer, bad, said) in [
        ("/formatVersion", json!(2), "const"),
        ("/stacks/0/keptCount", json!(-1), "minimum"),
        ("/stacks/0/keptCount", json!("1"), "type"),
        ("/stacks/0/error", json!(1), "type"),
        (
            "/stacks/0",
            json!({"stack": "web", "x": 1}),
            "lacks \"keptCount\"",
        ),
        (
            "/stacks/0",
            json!({"stack": "web", "x": 1}),
            ".x is not known",
        ),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(pointer).unwrap() = bad;
        let found = faults("prune", &value).join("; ");
        assert!(found.contains(said), "{pointer}: {found}");
    }
    for (time, fits) in [
        ("2026-11-23T03:00:00+01:00", true),
        ("2026-11-23T03:00:00.123+01:00", true),
        ("2026-11-23T03:00:00+01:00[Europe/Berlin]", false),
        ("2026-11-23 03:00:00+01:00", false),
        ("2026-11-23T03:00:00", false),
        ("Mon 2026-11-23 03:00:00 CET", false),
    ] {
        assert_eq!(faults("time", &json!(time)).is_empty(), fits, "{time}");
    }
}
