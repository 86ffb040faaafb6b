//! Fuzz target of distinguished names: a name equals itself and its printed form, and matching is symmetric.
//!
//! The input is two names, one a line.

#![no_main]

use grantd::crypto::certificate::distinguished_name::DistinguishedName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (one, other) = text.split_once('\n').unwrap_or((text, ""));
    let (one, other) = (read(one), read(other));
    if let (Some(one), Some(other)) = (one, other) {
        assert_eq!(one.matches(&other), other.matches(&one));
        if one.to_string() == other.to_string() {
            assert!(one.matches(&other));
        }
    }
});

/// Reads a name, and checks the invariants of every name.
fn read(text: &str) -> Option<DistinguishedName> {
    let name: DistinguishedName = text.parse().ok()?;
    assert!(text.len() <= DistinguishedName::MAX_LENGTH);
    assert!(name.matches(&name), "what can match nothing is not read");
    let printed = name.to_string();
    assert!(!printed.contains(char::is_control), "{printed:?}");
    // The printed form may be longer than the input, since every comma gets a backslash.
    if printed.len() <= DistinguishedName::MAX_LENGTH {
        let again: DistinguishedName = printed.parse().expect("what we print, we read");
        assert!(again.matches(&name), "{printed}");
        assert_eq!(again.to_string(), printed);
    }
    Some(name)
}
