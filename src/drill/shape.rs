//! Shapes of values in a compose file. What does not have the shape that is
//! listed for it is not copied, so a field that is allowed brings in nothing
//! beyond what was thought of. Pure.

use serde_json::{Map, Value};

/// The shape of a value that may be copied.
pub enum Shape {
    /// A string, a number or a boolean.
    Scalar,
    /// A scalar, or a list of scalars.
    Scalars,
    /// A map with these fields. Others are left out.
    Fields(&'static [(&'static str, Shape)]),
    /// A map of any names to values of this shape.
    Each(&'static Shape),
    /// A list of values of this shape.
    List(&'static Shape),
    /// The first of these shapes that the value has.
    AnyOf(&'static [Shape]),
}

/// A map of names to scalars, or a list such as `["name=value"]`.
pub const PAIRS: Shape = Shape::AnyOf(&[Shape::Each(&Shape::Scalar), Shape::Scalars]);

impl Shape {
    /// Copies as much of `value` as the shape allows. Returns `None` if it is of
    /// another kind.
    pub fn copy(&self, value: &Value) -> Option<Value> {
        match self {
            Shape::Scalar => is_scalar(value).then(|| value.clone()),
            Shape::Scalars => {
                let is_list = |list: &Vec<Value>| list.iter().all(is_scalar);
                let fits = is_scalar(value) || value.as_array().is_some_and(is_list);
                fits.then(|| value.clone())
            }
            Shape::Fields(fields) => {
                let map = value.as_object()?;
                let copied = fields.iter().filter_map(|(name, shape)| {
                    let value = shape.copy(map.get(*name)?)?;
                    Some(((*name).to_owned(), value))
                });
                Some(Value::Object(copied.collect()))
            }
            Shape::Each(shape) => {
                let mut copied = Map::new();
                for (name, value) in value.as_object()? {
                    copied.extend(shape.copy(value).map(|value| (name.clone(), value)));
                }
                Some(copied.into())
            }
            Shape::List(shape) => {
                let values = value.as_array()?.iter();
                Some(values.filter_map(|value| shape.copy(value)).collect())
            }
            Shape::AnyOf(shapes) => shapes.iter().find_map(|shape| shape.copy(value)),
        }
    }
}

fn is_scalar(value: &Value) -> bool {
    value.is_string() || value.is_number() || value.is_boolean()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_has_the_shape_is_copied() {
        const FIELDS: Shape = Shape::Fields(&[("size", Shape::Scalar)]);
        let cases = [
            (Shape::Scalar, json!("a"), Some(json!("a"))),
            (Shape::Scalar, json!(null), None),
            (Shape::Scalar, json!({"a": "b"}), None),
            (Shape::Scalars, json!(["a", 1]), Some(json!(["a", 1]))),
            (Shape::Scalars, json!(["a", {"b": 1}]), None),
            (
                FIELDS,
                json!({"size": 1, "path": "/"}),
                Some(json!({"size": 1})),
            ),
            (FIELDS, json!({"size": {"path": "/"}}), Some(json!({}))),
            (FIELDS, json!("size"), None),
            (PAIRS, json!({"a": "b", "c": null}), Some(json!({"a": "b"}))),
            (PAIRS, json!(["a=b"]), Some(json!(["a=b"]))),
            (
                Shape::List(&FIELDS),
                json!([{"size": 1, "x": 2}, "/"]),
                Some(json!([{"size": 1}])),
            ),
        ];
        for (shape, value, copied) in cases {
            assert_eq!(shape.copy(&value), copied, "{value}");
        }
    }
}
