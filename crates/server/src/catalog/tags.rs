//! Tags: names and values that users put on databases, and that nothing here looks at.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use super::CatalogError;

/// Names and values, at most [`Tags::MOST`]; no two names are alike but for case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<String, String>);

/// Tags that Azure Resource Manager does not allow either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagsError {
    /// Too many.
    #[error("{0} tags are too many. A database has {most} at most", most = Tags::MOST)]
    TooMany(usize),
    /// A name that is empty or too long.
    #[error("the tag name `{0}` has to have 1 to {longest} characters", longest = Tags::LONGEST_NAME)]
    NameLength(String),
    /// A name with a character that is not allowed there.
    #[error("the tag name `{0}` has one of the characters {reserved}, which no tag name may have", reserved = Tags::RESERVED)]
    NameCharacter(String),
    /// The same name twice.
    #[error("the tag name `{0}` is there twice: case makes no difference")]
    Twice(String),
    /// A control character, which not every catalog can keep.
    #[error("the tag `{0}` has a control character in its name or value")]
    ControlCharacter(String),
    /// A value that is too long.
    #[error("the value of tag `{0}` is longer than {longest} characters", longest = Tags::LONGEST_VALUE)]
    ValueLength(String),
}

impl Tags {
    /// The most a database has.
    pub const MOST: usize = 50;
    /// The longest name, in characters.
    pub const LONGEST_NAME: usize = 512;
    /// The longest value, in characters.
    pub const LONGEST_VALUE: usize = 256;
    /// What no name may have.
    pub const RESERVED: &str = "<>%&\\?/";

    /// Checks them.
    ///
    /// # Errors
    /// See [`TagsError`].
    pub fn new(tags: BTreeMap<String, String>) -> Result<Self, TagsError> {
        if tags.len() > Self::MOST {
            return Err(TagsError::TooMany(tags.len()));
        }
        let mut names = HashSet::new();
        for (name, value) in &tags {
            if !(1..=Self::LONGEST_NAME).contains(&name.chars().count()) {
                let shown = name.chars().take(Self::LONGEST_NAME).collect();
                return Err(TagsError::NameLength(shown));
            }
            if name.contains(|letter| Self::RESERVED.contains(letter)) {
                return Err(TagsError::NameCharacter(name.clone()));
            }
            if name.contains(char::is_control) || value.contains(char::is_control) {
                let shown = name.chars().filter(|letter| !letter.is_control());
                return Err(TagsError::ControlCharacter(shown.collect()));
            }
            if value.chars().count() > Self::LONGEST_VALUE {
                return Err(TagsError::ValueLength(name.clone()));
            }
            if !names.insert(name.to_lowercase()) {
                return Err(TagsError::Twice(name.clone()));
            }
        }
        Ok(Self(tags))
    }

    /// Names with their values.
    pub fn get(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the catalog keeps them.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    pub(super) fn from_json(text: &str) -> Result<Self, CatalogError> {
        let tags = serde_json::from_str(text).ok().map(Self::new);
        tags.and_then(Result::ok)
            .ok_or_else(|| CatalogError::Value {
                what: "tags",
                value: text.to_owned(),
            })
    }
}

/// Such as `env=test, team=sales`.
impl fmt::Display for Tags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, value)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(formatter, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(of: &[(&str, &str)]) -> Result<Tags, TagsError> {
        let pairs = of
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Tags::new(pairs.collect())
    }

    #[test]
    fn tags_come_back_as_they_were() {
        let some = tags(&[("env", "test"), ("Größe", "a \"b\", c=d")]).unwrap();
        assert_eq!(Tags::from_json(&some.to_json()).unwrap(), some);
        assert_eq!(some.to_string(), "Größe=a \"b\", c=d, env=test");
        assert!(Tags::from_json("[]").is_err());
        assert!(Tags::from_json("{}").unwrap().is_empty());
    }

    #[test]
    fn what_azure_refuses_is_refused() {
        let long = "ü".repeat(513);
        let (fits, value) = (&long[2..], &long[..512]);
        assert!(tags(&[(fits, value)]).is_ok());
        assert_eq!(
            tags(&[("", "x")]),
            Err(TagsError::NameLength(String::new()))
        );
        assert_eq!(
            tags(&[(&long, "x")]),
            Err(TagsError::NameLength(fits.to_owned()))
        );
        assert_eq!(
            tags(&[("a/b", "x")]),
            Err(TagsError::NameCharacter("a/b".to_owned()))
        );
        assert_eq!(
            tags(&[("a", fits)]),
            Err(TagsError::ValueLength("a".to_owned()))
        );
        assert_eq!(
            tags(&[("A", ""), ("a", "")]),
            Err(TagsError::Twice("a".to_owned()))
        );
        let many: Vec<String> = (0..51).map(|number| number.to_string()).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(tags(&many), Err(TagsError::TooMany(51)));
        assert!(tags(&many[1..]).is_ok());
        let control = Err(TagsError::ControlCharacter("a".to_owned()));
        assert_eq!(tags(&[("a", "x\0")]), control);
    }
}
