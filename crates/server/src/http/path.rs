//! Paths and queries, taken apart.

use percent_encoding::percent_decode_str;
use url::form_urlencoded;

/// The most segments of a path, and pairs of a query, that are looked at.
const MAX_PARTS: usize = 64;

/// A path's segments, decoded. None when one is not UTF-8 or has a control character, or there are too many.
pub fn decoded_segments(path: &str) -> Option<Vec<String>> {
    let segments: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .take(MAX_PARTS + 1)
        .map(|segment| percent_decode_str(segment).decode_utf8().map(String::from))
        .collect::<Result<_, _>>()
        .ok()?;
    let is_text = |segment: &String| !segment.contains(char::is_control);
    (segments.len() <= MAX_PARTS && segments.iter().all(is_text)).then_some(segments)
}

/// A query's or form's pairs, decoded.
pub fn query_pairs(text: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(text.as_bytes())
        .take(MAX_PARTS)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// What stood in a path where the pattern has `{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// What stood there; empty for a name that the pattern does not have.
    pub fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// What stood there, if the pattern has the name.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.as_str())
    }

    /// Matches a pattern such as `/subscriptions/{subscription}`, without regard to the case of its words.
    pub fn of(pattern: &'static str, segments: &[String]) -> Option<Self> {
        let mut found = Vec::new();
        let mut left = segments.iter();
        for word in pattern.split('/').filter(|word| !word.is_empty()) {
            let segment = left.next()?;
            match word
                .strip_prefix('{')
                .and_then(|word| word.strip_suffix('}'))
            {
                Some(name) => found.push((name, segment.clone())),
                None if word.eq_ignore_ascii_case(segment) => {}
                None => return None,
            }
        }
        left.next().is_none().then_some(Self(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_in_any_case_and_names_arrive_decoded() {
        let pattern = "/subscriptions/{subscription}/dropped/{name}";
        let segments = decoded_segments("/SUBscriptions/a/Dropped/x%2C12%3b%2F").unwrap();
        let found = Parameters::of(pattern, &segments).unwrap();
        assert_eq!(
            (found.get("subscription"), found.get("name")),
            ("a", "x,12;/")
        );
        assert_eq!(found.find("other"), None);
        let longer = decoded_segments("/subscriptions/a/dropped/x/y").unwrap();
        assert_eq!(Parameters::of(pattern, &longer), None);
        assert_eq!(Parameters::of(pattern, &segments[..3]), None);
    }

    #[test]
    fn paths_that_are_no_text_or_too_long_are_refused() {
        assert_eq!(decoded_segments("/%FF"), None);
        assert_eq!(decoded_segments("/a%00"), None);
        assert_eq!(decoded_segments(&"/a".repeat(65)), None);
        assert_eq!(decoded_segments("//a//").unwrap(), ["a"]);
    }
}
