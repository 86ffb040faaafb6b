//! Subjects of rules: a whole `sub`, or its beginning up to a separator and `*`.

use std::fmt;
use std::str::FromStr;

/// Subject of a rule. Whether a `*` at its end stands for something is the kind's to say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubjectPattern(Box<str>);

/// Error for a text that is not a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Empty, too long, or with other characters than printable ASCII.
    #[error("a subject is the sub of the workload's token: 1 to {MAX_LENGTH} printable ASCII characters")]
    Text,
    /// No letter beside `*` and separators: every workload of the issuer would be this client.
    #[error("a subject is never * alone: write the whole sub, or its beginning up to a / or : and then *")]
    Everything,
}

impl SubjectPattern {
    /// The subject as registered.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text before the `*`, where one of `separators` stands before it and it stands for something.
    #[must_use]
    pub fn prefix(&self, separators: &[char]) -> Option<&str> {
        self.0.strip_suffix('*').filter(|prefix| prefix.ends_with(separators))
    }

    /// Whether `sub` is of this subject. Compares bytes; nothing is normalised.
    #[must_use]
    pub fn matches(&self, separators: &[char], sub: &str) -> bool {
        let stands_for_something = |rest: &str| rest.contains(|one: char| !separators.contains(&one));
        match self.prefix(separators) {
            _ if *self.0 == *sub => true,
            Some(prefix) => sub.strip_prefix(prefix).is_some_and(stands_for_something),
            None => false,
        }
    }
}

/// Returns the subjects of rules that can match `sub`: itself, and its beginnings as patterns.
pub fn candidates(separators: &[char], sub: &str) -> impl Iterator<Item = String> {
    let prefixes = sub.match_indices(separators).map(|(at, separator)| at + separator.len());
    let prefixes = prefixes.filter_map(|end| Some(format!("{}*", sub.get(..end)?)));
    std::iter::once(sub.to_owned()).chain(prefixes)
}

impl FromStr for SubjectPattern {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        if !(1..=MAX_LENGTH).contains(&text.len()) || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(SubjectError::Text);
        }
        if text.bytes().all(|byte| b"*:/ ".contains(&byte)) {
            return Err(SubjectError::Everything);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is the path of a SPIFFE ID: segments of `[A-Za-z0-9._-]`, none of them empty, `.` or `..`.
#[must_use]
pub fn is_spiffe_path(path: &str) -> bool {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_segment))
}

/// Longest subject.
pub const MAX_LENGTH: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The separators of the kinds.
    const SETS: [&[char]; 3] = [&['/', ':'], &['/'], &[]];

    fn matches(separators: &[char], subject: &str, sub: &str) -> bool {
        subject.parse::<SubjectPattern>().unwrap().matches(separators, sub)
    }

    #[test]
    fn a_star_stands_for_whole_parts_only() {
        let github = |subject, sub| matches(&['/', ':'], subject, sub);
        assert!(github("repo:acme/*", "repo:acme/app:ref:refs/heads/main"));
        assert!(github("repo:acme/app:*", "repo:acme/app:environment:prod"));
        for sub in
            ["repo:acme-evil/app:ref:x", "repo:acme/", "repo:acme", "repo:acme/:/", "Repo:acme/app", "repo:acme//"]
        {
            assert!(!github("repo:acme/*", sub), "{sub}");
        }
        assert!(!github("repo:acme*", "repo:acme-evil/app"), "elsewhere a star is a letter");
        assert!(github("repo:acme*", "repo:acme*"));
        assert!(!github("repo:*/app", "repo:acme/app"));
        let spiffe = |subject, sub| matches(&['/'], subject, sub);
        assert!(spiffe("spiffe://td/ap/*", "spiffe://td/ap/p"));
        assert!(!spiffe("spiffe://td/ap/*", "spiffe://td/app"));
        assert!(!spiffe("spiffe://td/ap/*", "spiffe://td/ap"));
        assert!(!spiffe("spiffe://td/ap:*", "spiffe://td/ap:x"), "a colon is a letter there");
        assert!(!matches(&[], "a/*", "a/b") && matches(&[], "a/*", "a/*"));
    }

    #[test]
    fn a_subject_is_printable_and_not_everything() {
        for text in ["", "é", "a\n", &"x".repeat(1025)] {
            assert_eq!(text.parse::<SubjectPattern>(), Err(SubjectError::Text), "{text}");
        }
        for text in ["*", "**", "/*", ":*", "*:/ *"] {
            assert_eq!(text.parse::<SubjectPattern>(), Err(SubjectError::Everything), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_candidates_include_every_subject_that_matches(parts in prop::collection::vec("[a-c*]{0,2}[/:]", 0..5), rest in "[a-c*/:]{0,4}", cut in 0usize..5) {
            let sub = parts.concat() + &rest;
            let beginning: String = parts.iter().take(cut).map(String::as_str).collect();
            for separators in SETS {
                for subject in [sub.clone(), format!("{beginning}*"), beginning.clone()] {
                    let Ok(pattern) = subject.parse::<SubjectPattern>() else { continue };
                    let listed = candidates(separators, &sub).any(|candidate| candidate == subject);
                    prop_assert!(!pattern.matches(separators, &sub) || listed, "{subject} matches {sub}");
                }
            }
        }

        #[test]
        fn a_pattern_matches_only_what_begins_with_it(subject in "[a-c*/:]{1,8}", sub in "[a-c*/:]{0,12}") {
            let Ok(pattern) = subject.parse::<SubjectPattern>() else { return Ok(()) };
            for separators in SETS {
                let begins = sub.starts_with(subject.trim_end_matches('*')) && sub.len() >= subject.len();
                prop_assert!(!pattern.matches(separators, &sub) || begins);
            }
        }
    }
}
