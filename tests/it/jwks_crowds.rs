//! H71: many requests at once, for the keys of one client and for those of many, whatever their hosts do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::assertion::{Signer, ask, claims_at};
use crate::harness::{Answer, Db, Server};
use crate::jwks_host::{Does, Host, ask_as, publishing, setup, with_pu};

on_both!(
    h71_a_host_without_keys_is_asked_no_more_often_than_one_with_keys,
    fifty_that_come_first_are_served_with_one_fetch,
);

async fn h71_a_host_without_keys_is_asked_no_more_often_than_one_with_keys(db: Db) {
    let (setup, hand) = setup(db, &["localhost"]).await;
    let hosts = [Host::start().await, Host::start().await, Host::start().await];
    hosts[0].publishes(&[]);
    hosts[1].answers("500 Internal Server Error", "", b"{}");
    hosts[2].does(Does::Hangs);
    for (number, host) in hosts.iter().enumerate() {
        publishing(&setup, &format!("p{number}"), &host.uri()).await;
    }
    let server = setup.start().await;
    let signer = Signer::es256();
    for (number, host) in hosts.iter().enumerate() {
        let id = format!("p{number}");
        ask_as(&server, &signer, &id).await.e401();
        for second in 0..29 {
            hand.fetch_add(1, Ordering::Relaxed);
            let header = json!({"alg": "ES256", "kid": format!("k{second}")}).to_string();
            let claims = claims_at(&id, hand.load(Ordering::Relaxed)).to_string();
            ask(&server, &signer.sign(&header, &claims)).await.e401();
        }
        assert_eq!(host.reached(), 1, "{id}");
        host.publishes(&[&signer]);
        hand.fetch_add(1, Ordering::Relaxed);
        ask_as(&server, &signer, &id).await.ok();
        assert_eq!(host.reached(), 2, "{id}");
    }
}

/// What all of `ids` are answered, when they ask at once.
async fn at_once(server: &Arc<Server>, signer: &Arc<Signer>, ids: impl Iterator<Item = String>) -> Vec<Answer> {
    let ask = |id: String| {
        let (server, signer) = (Arc::clone(server), Arc::clone(signer));
        tokio::spawn(async move { ask_as(&server, &signer, &id).await })
    };
    let asking: Vec<_> = ids.map(ask).collect();
    let mut answers = Vec::new();
    for answer in asking {
        answers.push(answer.await.unwrap());
    }
    answers
}

async fn fifty_that_come_first_are_served_with_one_fetch(db: Db) {
    let host = Host::start().await;
    let signer = Arc::new(Signer::es256());
    host.publishes(&[&signer]);
    let (server, _) = with_pu(db, &host, &["localhost"]).await;
    for answer in at_once(&Arc::new(server), &signer, (0..50).map(|_| "pu".to_owned())).await {
        answer.ok();
    }
    assert_eq!(host.reached(), 1);
}
