//! The size of the longest token that a client can get: what carries tokens has limits that the client meets late.

use super::{Claims, JTI, with_further};
use crate::crypto::jwk::Alg;
use crate::model::client::Client;
use crate::model::resource::Resource;
use crate::model::status::{LIST_BITS, StatusIndex};
use crate::model::time::UnixTime;
use crate::protocol::grant::{Binding, Defaults};

/// Bytes of the longest token of `client`: all scopes that one audience understands, bound to a key and to a certificate.
/// `resources` are all that are registered. A key of RSA is taken to have 2048 bits, as those that grantd makes.
#[must_use]
pub fn longest(issuer: &str, client: &Client, resources: &[&Resource], defaults: &Defaults) -> usize {
    let size = |aud: &str, scope: &str, alg: Alg, has_status: bool| {
        let hash = Some("h".repeat(HASH));
        let claims = Claims {
            iss: issuer,
            sub: client.client_id.as_str(),
            client_id: client.client_id.as_str(),
            aud,
            scope,
            iat: LATEST,
            exp: LATEST,
            jti: &"j".repeat(JTI),
            cnf: &Binding { jkt: hash.clone(), x5t_s256: hash },
            status: has_status.then_some(LONGEST_INDEX),
        };
        let claims = with_further(&claims, client.claims.members()).map_or(0, |claims| claims.len());
        let header = r#"{"typ":"at+jwt","alg":"","kid":""}"#.len() + alg.as_str().len() + HASH;
        let signature = match alg {
            Alg::Es256 | Alg::EdDsa => 64,
            Alg::Ps256 | Alg::Rs256 => 256,
        };
        [header, claims, signature].map(|part| (part * 4).div_ceil(3)).iter().sum::<usize>() + 2
    };
    let of_client = resources.iter().filter(|resource| client.resources.contains(&resource.identifier));
    let sizes = of_client.map(|resource| {
        let scope = client.scopes.allowed().intersection(&resource.scope);
        size(resource.identifier.as_str(), scope.as_str(), resource.alg.unwrap_or(defaults.alg), resource.status_list)
    });
    let without = || {
        let default = resources.iter().find(|resource| resource.identifier.as_str() == &*defaults.audience);
        let has_status = default.is_some_and(|resource| resource.status_list);
        size(&defaults.audience, client.scopes.allowed().as_str(), defaults.alg, has_status)
    };
    sizes.max().unwrap_or_else(without)
}

/// Above this many bytes a token does not fit into what is between client and resource server: servers and proxies refuse a
/// header field, or all of them together, above 8 KiB.
pub const TOO_LARGE: usize = 6 * 1024;

/// Characters of a SHA-256 hash in base64url.
const HASH: usize = 43;
/// A moment of as many digits as any before the year 2286.
const LATEST: UnixTime = UnixTime(9_999_999_999);
/// A status index of as many digits as any, in a list whose name has as many as any before that year.
const LONGEST_INDEX: StatusIndex = StatusIndex((LATEST.0 << LIST_BITS) - 1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::crypto::jws::SigningKey;
    use crate::model::client::ClientScope;
    use crate::model::resource::TokenTyp;
    use crate::model::time::Span;
    use crate::protocol::access_token::mint;
    use crate::protocol::grant::Grant;
    use crate::state::signer::Signer;

    #[test]
    fn the_estimate_is_the_size_of_the_token() {
        let now = UnixTime(1_700_000_000);
        let scopes = ClientScope::new("a b c".parse().unwrap(), "a".parse().unwrap()).unwrap();
        let mut client = Client::new("c".parse().unwrap(), scopes, now);
        client.claims = r#"{"team":{"name":"Zo\u00eb","ids":[1,2]}}"#.parse().unwrap();
        let resource = |uri: &str, scope: &str, alg| Resource {
            identifier: uri.parse().unwrap(),
            scope: scope.parse().unwrap(),
            alg,
            token_ttl: None,
            token_typ: TokenTyp::default(),
            status_list: alg.is_some(),
            introspectors: Vec::new(),
        };
        let (small, large) =
            (resource("https://a.test", "a", None), resource("https://api.b.test", "b c x", Some(Alg::Ps256)));
        let defaults = Defaults { audience: "https://as.test".into(), ttl: Span::from_secs(60), alg: Alg::Es256 };
        let minted = |client: &Client, aud: &str, scope: &str, alg| {
            let status = (alg == Alg::Ps256).then_some(LONGEST_INDEX);
            let hash = Some("h".repeat(HASH));
            let grant = Grant {
                scope: scope.parse().unwrap(),
                aud: aud.into(),
                ttl: Span::from_secs(60),
                alg,
                typ: TokenTyp::default(),
                binding: Binding { jkt: hash.clone(), x5t_s256: hash },
                status,
            };
            let key = Arc::new(Signer::Memory(SigningKey::generate(alg).unwrap().0));
            mint("https://as.test", client, &grant, key, now).now_or_never().unwrap().unwrap().token.len()
        };
        let all = [&small, &large];
        let estimate = |client: &Client| longest("https://as.test", client, &all, &defaults);
        assert_eq!(estimate(&client), minted(&client, "https://as.test", "a b c", Alg::Es256));
        client.resources = [small.identifier.clone()].into();
        assert_eq!(estimate(&client), minted(&client, "https://a.test", "a", Alg::Es256));
        client.resources = [small.identifier.clone(), large.identifier.clone()].into();
        assert_eq!(estimate(&client), minted(&client, "https://api.b.test", "b c", Alg::Ps256));
    }
}
