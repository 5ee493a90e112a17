//! Dollar signs. Compose replaces `$NAME` in the values of a compose file by the
//! variable of its own environment, and `$$` by a dollar sign. What it prints as
//! the resolved configuration has `$$` for every dollar sign. Pure.

use serde_json::Value;

/// Returns a resolved configuration with its strings as they are meant. A single
/// dollar sign, which Compose never prints, stays one.
pub fn unescaped(value: &Value) -> Value {
    let literal = |text: &str| text.replace("$$", "$");
    match value {
        Value::String(text) => literal(text).into(),
        Value::Array(values) => values.iter().map(unescaped).collect(),
        Value::Object(values) => {
            let values = values.iter();
            let values = values.map(|(name, value)| (literal(name), unescaped(value)));
            Value::Object(values.collect())
        }
        _ => value.clone(),
    }
}

/// Returns a compose file of which Compose takes every string as it is here. It
/// replaces nothing in names.
pub fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => text.replace('$', "$$").into(),
        Value::Array(values) => values.into_iter().map(escaped).collect(),
        Value::Object(values) => {
            let values = values.into_iter();
            Value::Object(values.map(|(name, value)| (name, escaped(value))).collect())
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_dollar_sign_is_data() {
        let cases = [
            ("a$$b", "a$$b"),
            ("$HOME", "$$HOME"),
            ("${HOME}", "$${HOME}"),
            ("$$$HOME", "$$$$HOME"),
            ("$$$$", "$$$$"),
        ];
        for (printed, written) in cases {
            let rewritten = escaped(unescaped(&json!({"x": [printed]})));
            assert_eq!(rewritten, json!({"x": [written]}), "{printed}");
        }
        // Names.
        let rewritten = escaped(unescaped(&json!({"a$$b": 1})));
        assert_eq!(rewritten, json!({"a$b": 1}));
    }
}
