//! Actions, such as `Microsoft.Sql/managedInstances/databases/write`, and patterns of them.

use std::fmt;

/// What somebody wants to do. Compared without regard to case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action(&'static str);

impl Action {
    /// An action of the program's own.
    pub const fn new(text: &'static str) -> Self {
        Self(text)
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Actions of a role; `*` stands for any characters, slashes among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ActionPattern(&'static str);

impl ActionPattern {
    /// A pattern of the program's own.
    pub const fn new(text: &'static str) -> Self {
        Self(text)
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether the pattern covers the action.
    pub fn covers(self, action: Action) -> bool {
        let (pattern, text) = (self.0.as_bytes(), action.0.as_bytes());
        // The place of the last star, and how much of the text it stands for so far.
        let (mut at, mut read, mut star) = (0, 0, None);
        while let Some(byte) = text.get(read) {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(wanted) if wanted.eq_ignore_ascii_case(byte) => {
                    at += 1;
                    read += 1;
                }
                _ => match star {
                    None => return false,
                    Some((place, taken)) => {
                        star = Some((place, taken + 1));
                        at = place + 1;
                        read = taken + 1;
                    }
                },
            }
        }
        pattern.iter().skip(at).all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &'static str, action: &'static str) -> bool {
        ActionPattern::new(pattern).covers(Action::new(action))
    }

    #[test]
    fn stars_stand_for_anything_and_case_does_not_count() {
        let write = "Microsoft.Sql/managedInstances/databases/write";
        for pattern in [
            "*",
            "*/write",
            "microsoft.sql/MANAGEDINSTANCES/*",
            write,
            "M*d*/write",
            "**",
        ] {
            assert!(covers(pattern, write), "{pattern}");
        }
        for pattern in [
            "",
            "*/read",
            "Microsoft.Sql/managedInstances/",
            "Microsoft.Sql/managedInstances/databases/writes",
            "*x*",
        ] {
            assert!(!covers(pattern, write), "{pattern}");
        }
    }

    #[test]
    fn a_star_in_the_middle_gives_back_what_it_took_too_much() {
        let read = "Microsoft.Sql/locations/longTermRetentionManagedInstances/read";
        assert!(covers("Microsoft.Sql/locations/*/read", read));
        assert!(!covers(
            "Microsoft.Sql/locations/*/read",
            "Microsoft.Sql/locations/a/write"
        ));
        assert!(covers("*/a/a", "x/a/a/a"));
    }
}
