//! Where an assignment holds: a subscription, a resource group, an instance or a database, and all below.

use std::fmt;

use percent_encoding::{
    AsciiSet, CONTROLS, PercentEncode, percent_decode_str, utf8_percent_encode,
};
use uuid::Uuid;

/// A subscription's identifier.
pub type SubscriptionId = Uuid;

/// The most bytes of a scope's text that are looked at.
const MAX_TEXT: usize = 4096;
/// What a name has otherwise than itself in a path that is printed.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%').add(b'/').add(b'\\').add(b'?').add(b'#');

/// A name as one segment of a path that is printed.
pub fn segment(name: &str) -> PercentEncode<'_> {
    utf8_percent_encode(name, ENCODED)
}

/// A place in the tree of resources. Names are compared without regard to case.
#[derive(Clone, Debug, Eq)]
pub struct Scope {
    subscription: SubscriptionId,
    /// Resource group, instance, database, from the top, as many as there are.
    names: Vec<String>,
}

/// The text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no scope. A scope is /subscriptions/ID, and below it /resourceGroups/NAME, /providers/Microsoft.Sql/managedInstances/NAME and /databases/NAME"
)]
pub struct ScopeError {
    text: String,
}

impl Scope {
    /// A subscription.
    pub fn subscription(id: SubscriptionId) -> Self {
        Self {
            subscription: id,
            names: Vec::new(),
        }
    }

    /// What lies directly below: a group in a subscription, an instance in a group, a database in an
    /// instance. A database has nothing below and stays itself.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        let mut names = self.names.clone();
        if names.len() < 3 {
            names.push(name.to_owned());
        }
        Self {
            subscription: self.subscription,
            names,
        }
    }

    /// Reads a path as it is printed.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        let error = || ScopeError {
            text: text.chars().take(200).collect(),
        };
        if text.len() > MAX_TEXT {
            return Err(error());
        }
        let mut parts = text.trim_matches('/').split('/');
        if !parts
            .next()
            .is_some_and(|part| part.eq_ignore_ascii_case("subscriptions"))
        {
            return Err(error());
        }
        let subscription = parts.next().ok_or_else(error)?;
        let subscription = Uuid::try_parse(subscription).map_err(|_| error())?;
        let mut scope = Self::subscription(subscription);
        let below: [&[&str]; 3] = [
            &["resourceGroups"],
            &["providers", "Microsoft.Sql", "managedInstances"],
            &["databases"],
        ];
        for words in below {
            for (place, word) in words.iter().enumerate() {
                match parts.next() {
                    None if place == 0 => return Ok(scope),
                    Some(part) if part.eq_ignore_ascii_case(word) => {}
                    _ => return Err(error()),
                }
            }
            let name = parts.next().filter(|name| !name.is_empty());
            let name = percent_decode_str(name.ok_or_else(error)?).decode_utf8();
            scope = scope.below(&name.map_err(|_| error())?);
        }
        match parts.next() {
            None => Ok(scope),
            Some(_) => Err(error()),
        }
    }

    /// The name of the group, the instance or the database that it is; `None` of a subscription.
    pub fn name(&self) -> Option<&str> {
        self.names.last().map(String::as_str)
    }

    /// The subscription it is in.
    pub fn subscription_id(&self) -> SubscriptionId {
        self.subscription
    }

    /// Whether `other` is this place or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        self.subscription == other.subscription
            && self.names.len() <= other.names.len()
            && self
                .names
                .iter()
                .zip(&other.names)
                .all(|(own, theirs)| own.eq_ignore_ascii_case(theirs))
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.contains(other) && other.contains(self)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/subscriptions/{}", self.subscription)?;
        let labels = [
            "/resourceGroups/",
            "/providers/Microsoft.Sql/managedInstances/",
            "/databases/",
        ];
        for (label, name) in labels.iter().zip(&self.names) {
            write!(f, "{label}{}", segment(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: &str = "/subscriptions/0f3a2b10-0000-4000-8000-000000000001";

    #[test]
    fn a_scope_holds_what_lies_below_it_in_any_case_and_nothing_beside_it() {
        let scope = |rest: &str| Scope::parse(&format!("{S}{rest}")).unwrap();
        let (all, group) = (scope(""), scope("/resourceGroups/Prod"));
        let instance = scope("/RESOURCEGROUPS/prod/providers/microsoft.sql/managedinstances/One");
        let database = scope(
            "/resourceGroups/prod/providers/Microsoft.Sql/managedInstances/one/databases/app",
        );
        for (outer, inner) in [(&all, &group), (&group, &instance), (&instance, &database)] {
            assert!(outer.contains(inner) && !inner.contains(outer));
        }
        assert!(!scope("/resourceGroups/pro").contains(&group));
        let other = Scope::subscription(Uuid::nil());
        assert!(!other.contains(&database) && !all.contains(&other));
        assert_eq!(database.to_string(), database.to_string());
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for text in [
            "",
            "/",
            "/subscriptions",
            "/subscriptions/x",
            "/subscriptions/0f3a2b10-0000-4000-8000-000000000001/resourceGroups",
            "/subscriptions/0f3a2b10-0000-4000-8000-000000000001/resourceGroups//x",
            "/subscriptions/0f3a2b10-0000-4000-8000-000000000001/databases/x",
            "/providers/Microsoft.Sql",
        ] {
            assert!(Scope::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back_as_it_was(name in "[^\\p{C}]{1,63}") {
            let scope = Scope::subscription(Uuid::nil()).below("g").below("i").below(&name);
            let read = Scope::parse(&scope.to_string()).unwrap();
            prop_assert_eq!(&read.names[2], &name);
        }

        #[test]
        fn what_is_read_is_printed_readably(text in "(/subscriptions/0f3a2b10-0000-4000-8000-000000000001)?(/resourceGroups/[a-zA-Z]{0,3})?(/providers/Microsoft.Sql/managedInstances/[a-z]{0,3})?(/databases/[^/]{0,3})?") {
            if let Ok(scope) = Scope::parse(&text) {
                prop_assert_eq!(Scope::parse(&scope.to_string()).unwrap(), scope);
            }
        }
    }
}
