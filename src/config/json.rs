//! Parses JSON with errors that a person understands: the path of the wrong
//! field, the cause in the words of JSON, and the field that was probably meant.

use std::fmt;
use std::marker::PhantomData;

use anyhow::{Result, anyhow};
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

use crate::sys::similar::closest;

/// Parses a whole JSON text.
///
/// # Errors
/// They name the path of the field, and a known field with a similar name.
pub fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let cause = in_words_of_json(&error.into_inner().to_string());
        let hint =
            suggestion(&cause).map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        match path.as_str() {
            "." | "?" => anyhow!("{cause}{hint}"),
            _ => anyhow!("`{path}`: {cause}{hint}"),
        }
    })?;
    deserializer.end()?;
    Ok(value)
}

/// Reads an object, or `None` from null. serde by itself accepts an array as
/// well, with the fields in their order. `expected` describes the object in the
/// error.
pub fn object<'de, D, T>(deserializer: D, expected: &'static str) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(ObjectVisitor(expected, PhantomData))
}

struct ObjectVisitor<T>(&'static str, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

/// Replaces Rust's words in a message of serde by those of JSON.
fn in_words_of_json(message: &str) -> String {
    [
        ("invalid type: sequence", "invalid type: array"),
        ("invalid type: map", "invalid type: object"),
        ("expected a sequence", "expected an array, [\"...\"]"),
        ("expected path string", "expected a string"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected u16", "expected a whole number up to 65535"),
    ]
    .into_iter()
    .fold(message.to_owned(), |text, (serde, json)| {
        text.replace(serde, json)
    })
}

/// Returns the known name that is most similar to an unknown one, both from a
/// message of serde: "unknown field `a`, expected one of `b`, `c`".
fn suggestion(message: &str) -> Option<&str> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    closest(unknown, quoted)
}
