//! The API's description beside the table of routes that requests are decided by.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use everpoint_server::http::{Need, ROUTES};
use serde_json::Value;

/// `openapi/everpoint.json`, as (method, path, action).
fn described() -> Result<BTreeSet<(String, String, Option<String>)>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/everpoint.json");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let mut found = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in operations.as_object().context("no operations")? {
            let action = operation["x-everpoint-action"].as_str().map(str::to_owned);
            assert_eq!(
                operation["security"].is_array(),
                action.is_some() || !is_public(path, method),
                "{method} {path}"
            );
            found.insert((method.to_uppercase(), path.clone(), action));
        }
    }
    Ok(found)
}

fn is_public(path: &str, method: &str) -> bool {
    let route = ROUTES.iter().find(|route| {
        route.pattern == path && format!("{:?}", route.method).eq_ignore_ascii_case(method)
    });
    route.is_some_and(|route| route.need == Need::Nothing)
}

#[test]
fn every_operation_of_the_description_is_a_route_that_the_matrix_of_rights_asks_and_no_route_is_left_out()
-> Result<()> {
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| {
            let action = match route.need {
                Need::Right(action) | Need::RightBelow(action) => Some(action.as_str().to_owned()),
                Need::Nothing | Need::Token => None,
            };
            let method = format!("{:?}", route.method).to_uppercase();
            (method, route.pattern.to_owned(), action)
        })
        .collect();
    assert_eq!(described()?, routes);
    Ok(())
}
