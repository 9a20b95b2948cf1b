//! Envelopes: a resource and a page of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most items of a page.
pub const PAGE_ITEMS: usize = 1000;

/// A resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resource<P> {
    /// Its path.
    pub id: String,
    /// Its last name.
    pub name: String,
    /// Its type, such as `Microsoft.Sql/managedInstances/databases`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is, of those that are somewhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub location: Option<String>,
    /// Names and values that users put on it, if it may have any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tags: Option<BTreeMap<String, String>>,
    /// What it is.
    pub properties: P,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// Its items.
    pub value: Vec<T>,
    /// Where the next page is, when there is one; absolute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_link: Option<String>,
}

impl<T> List<T> {
    /// The page that begins behind `skip` items of `all`. `link` makes the next page's address from what it skips.
    pub fn page(all: Vec<T>, skip: usize, link: impl FnOnce(usize) -> String) -> Self {
        let next = skip.saturating_add(PAGE_ITEMS);
        let next_link = (all.len() > next).then(|| link(next));
        Self {
            value: all.into_iter().skip(skip).take(PAGE_ITEMS).collect(),
            next_link,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded_and_hold_each_item_once() {
        let mut skip = 0;
        let mut seen = Vec::new();
        loop {
            let page = List::page((0..2500).collect(), skip, |next| next.to_string());
            assert!(page.value.len() <= PAGE_ITEMS);
            seen.extend(page.value);
            match page.next_link {
                Some(next) => skip = next.parse().unwrap(),
                None => break,
            }
        }
        assert_eq!(seen, (0..2500).collect::<Vec<_>>());
        assert!(
            List::page(vec![1], usize::MAX, |_| String::new())
                .value
                .is_empty()
        );
    }
}
