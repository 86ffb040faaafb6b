//! Scopes: the grammar of RFC 6749 section 3.3 and no more, and sets that behave as sets.
//!
//! The input is two scopes, one a line.

#![no_main]

use std::collections::HashSet;

use grantd::model::scope::Scope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (a, b) = text.split_once('\n').unwrap_or((text, ""));
    let (Some(a), Some(b)) = (read(a), read(b)) else { return };
    // The laws hold for small sets or not at all, and large ones are slow.
    if a.tokens().count() + b.tokens().count() > 24 {
        return;
    }
    let both = a.intersection(&b);

    for token in a.tokens().chain(b.tokens()) {
        assert_eq!(both.contains(token), a.contains(token) && b.contains(token));
    }
    assert!(both.is_subset_of(&a) && both.is_subset_of(&b));
    assert!(same(&both, &b.intersection(&a)));
    // The left operand keeps its order, so these hold to the letter.
    assert_eq!(a.intersection(&a), a);
    assert_eq!(a.is_subset_of(&b), both == a);
    assert_eq!(a.is_empty(), a.tokens().next().is_none());

    assert_eq!(both.to_string().parse::<Scope>(), Ok(both));
});

/// Reads a scope, and holds the answer against the grammar as written here.
fn read(text: &str) -> Option<Scope> {
    let tokens: Vec<&str> = if text.is_empty() { Vec::new() } else { text.split(' ').collect() };
    let legal = |byte| byte == 0x21 || (0x23..=0x5b).contains(&byte) || (0x5d..=0x7e).contains(&byte);
    let grammatical = tokens.iter().all(|token| !token.is_empty() && token.bytes().all(legal));

    let scope = text.parse::<Scope>().ok();
    assert_eq!(scope.is_some(), grammatical && tokens.len() <= 100 && text.len() <= 4096);
    let scope = scope?;
    assert_eq!(scope.to_string().parse::<Scope>().as_ref(), Ok(&scope));
    assert_eq!(scope.as_str(), scope.to_string());
    let mut seen = HashSet::new();
    let distinct: Vec<&str> = tokens.into_iter().filter(|token| seen.insert(*token)).collect();
    assert_eq!(scope.tokens().collect::<Vec<_>>(), distinct);
    Some(scope)
}

fn same(a: &Scope, b: &Scope) -> bool {
    a.is_subset_of(b) && b.is_subset_of(a)
}
