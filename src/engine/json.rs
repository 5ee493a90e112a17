//! Reading the Engine's JSON.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the empty value: Go writes an empty list or map as `null`.
pub(super) fn null_as_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
