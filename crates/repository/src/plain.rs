//! Plain objects: the marker and the keys, JSON texts that must be read before there is a key.
//!
//! Nothing seals them, so each carries a checksum of itself. It finds damage by accident, which would
//! otherwise look like a wrong passphrase, or like nothing until a rarely used key is needed; against
//! somebody who writes to the repository it is no protection. Specified in `docs/format/repository.md`.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The member that holds the checksum: BLAKE3, in hexadecimal.
const CHECK: &str = "check";

/// The text of an object; `None` when the value is no JSON object.
pub fn text<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let mut value = serde_json::to_value(value).ok()?;
    let check = checksum(&value)?;
    value
        .as_object_mut()?
        .insert(CHECK.to_owned(), check.into());
    serde_json::to_vec_pretty(&value).ok()
}

/// Reads an object; `None` when it is not the one that was written. The first repositories have objects
/// without a checksum; a `T` that denies unknown members notices one whose name is damaged.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    if let Some(check) = value.as_object_mut()?.remove(CHECK)
        && check.as_str()? != checksum(&value)?
    {
        return None;
    }
    serde_json::from_value(value).ok()
}

/// Of the text without white space, the members of every object sorted by name.
fn checksum(value: &Value) -> Option<String> {
    let text = serde_json::to_vec(&sorted(value)).ok()?;
    Some(blake3::hash(&text).to_hex().to_string())
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members.into_iter();
            Value::Object(
                members
                    .map(|(name, value)| (name.clone(), sorted(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Plain {
        what: String,
        version: u32,
        inner: Vec<u8>,
    }

    fn plain() -> Plain {
        Plain {
            what: "x".to_owned(),
            version: 1,
            inner: vec![7, 8],
        }
    }

    #[test]
    fn every_changed_bit_is_found() {
        let text = text(&plain()).unwrap();
        assert_eq!(read(&text), Some(plain()));
        for position in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[position] ^= 1 << bit;
                let read = read::<Plain>(&changed);
                assert_eq!(read, None, "byte {position}, bit {bit}");
            }
        }
    }

    #[test]
    fn an_object_from_before_there_were_checksums_is_read() {
        let text = serde_json::to_vec_pretty(&plain()).unwrap();
        assert_eq!(read(&text), Some(plain()));
    }
}
