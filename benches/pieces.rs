//! The cost of each piece of a warm token request: `cargo bench --bench pieces`.

#[path = "in_process/server.rs"]
mod server;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{HeaderMap, HeaderValue, header};
use criterion::{BatchSize, Criterion};
use futures_util::FutureExt as _;
use grantd::crypto::jwk::Alg;
use grantd::crypto::jws::SigningKey;
use grantd::http::ListenerUrl;
use grantd::http::credentials::{BasicReading, Known, credential};
use grantd::http::form::Form;
use grantd::http::log::RequestIds;
use grantd::http::log::recent::{Cause, RecentRefusal, RecentRefusals};
use grantd::model::client::AuthMethod;
use grantd::model::profile::Profile;
use grantd::model::status::{EndedEpochs, StatusIndex};
use grantd::model::time::{Clock, UnixTime};
use grantd::protocol::access_token::mint;
use grantd::protocol::client_auth::Credential;
use grantd::protocol::client_secret::tagged;
use grantd::protocol::compared::Compared;
use grantd::protocol::error::{ClientAuthError, Error};
use grantd::protocol::grant::{self, Binding, Grant, RequestedAccess};
use grantd::state::signer::Signer;
use server::{CLIENT, ISSUER, InProcess};

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let server = InProcess::new()?;
    reading(&mut criterion, &server)?;
    deciding(&mut criterion, &server)?;
    whole(&mut criterion, &server);
    refusing(&mut criterion, &server)?;
    listing(&mut criterion, &server);
    criterion.final_summary();
    Ok(())
}

/// A whole request through the router, with a client whose secret is cached.
fn whole(criterion: &mut Criterion, server: &InProcess) {
    let (app, caller) = (&server.assembled.app, InProcess::caller());
    criterion.bench_function("token request", |bencher| {
        bencher.iter_batched(
            || server.request().unwrap_or_default(),
            |request| server.runtime.block_on(app.answer(ListenerUrl::Issuer, &caller, request)),
            BatchSize::SmallInput,
        );
    });
}

/// A refused request through the router, and what keeping its refusal for `grantd explain` takes of that.
fn refusing(criterion: &mut Criterion, server: &InProcess) -> anyhow::Result<()> {
    let (app, caller) = (&server.assembled.app, InProcess::caller());
    criterion.bench_function("refused token request", |bencher| {
        bencher.iter_batched(
            || InProcess::refused_request().unwrap_or_default(),
            |request| server.runtime.block_on(app.answer(ListenerUrl::Issuer, &caller, request)),
            BatchSize::SmallInput,
        );
    });
    let (recent, ids) = (RecentRefusals::default(), RequestIds::new()?);
    let error = Error::from(ClientAuthError::WrongSecret);
    criterion.bench_function("refusal kept", |bencher| {
        bencher.iter(|| {
            recent.add(RecentRefusal {
                request_id: ids.next(),
                at: Clock::System.now(),
                client_id: Some(black_box("filler-7").into()),
                remote_addr: caller.address.ip(),
                cause: Cause::Request(error.clone()),
                method: Some(AuthMethod::ClientSecretBasic),
                credential_id: None,
                presented_secret_id: Some(black_box("aaaaaaaaaaaaaaaa").into()),
                compared: Compared::default(),
            });
        });
    });
    let registry = &server.assembled.server.registry;
    criterion.bench_function("owner of a secret among 10,000 clients", |bencher| {
        bencher.iter(|| registry.snapshot().owner_of_secret(black_box("aaaaaaaaaaaaaaaa")).is_some());
    });
    Ok(())
}

/// The status list of 100,000 clients, of which 1 % have been revoked: collected, compressed and signed.
fn listing(criterion: &mut Criterion, server: &InProcess) {
    let server = &server.assembled.server;
    let mut round = 0;
    // Others each time, spread over the numbers of the clients.
    let mut revoke = || {
        round += 1;
        let index = |nth: i64| StatusIndex::new(0, (round + nth * nth * 7919 + nth * 104_729) % 100_003);
        let ended = |index| EndedEpochs { first: index, last: index, ended_at: UnixTime(1_800_000_000) };
        server.registry.ended.forget(UnixTime(i64::MAX));
        server.registry.ended.add(&(0..1000).map(index).map(ended).collect::<Vec<_>>());
    };
    criterion.bench_function("status list of 100,000 clients", |bencher| {
        bencher.iter_batched(&mut revoke, |()| server.build_status_lists(true), BatchSize::PerIteration);
    });
}

/// Parsing of a request, up to the credential.
fn reading(criterion: &mut Criterion, server: &InProcess) -> anyhow::Result<()> {
    const BODY: &[u8] = b"grant_type=client_credentials&scope=api%3Aread";
    criterion.bench_function("form", |bencher| bencher.iter(|| Form::parse(black_box(BODY))));

    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&server.authorization)?);
    let form = Form::parse(BODY).ok().context("the form does not parse")?;
    let known = Known { client: &|_| true, token: &|_, _| None };
    criterion.bench_function("Basic credentials", |bencher| {
        bencher.iter(|| credential(black_box(&headers), &form, BasicReading::Tolerant, None, &known));
    });

    let registry = &server.assembled.server.registry;
    criterion.bench_function("client among 10,000", |bencher| {
        bencher.iter(|| registry.snapshot().client(black_box(CLIENT)).cloned());
    });

    // A cached secret is verified by its MAC, a made-up one refused by its tag.
    let authenticator = &server.assembled.server.authenticator;
    let snapshot = registry.snapshot();
    let client = snapshot.client(CLIENT).context("the client is not known")?;
    let basic = credential(&headers, &form, BasicReading::Tolerant, None, &known).ok().context("no credentials")?;
    let Credential::Secret { readings, .. } = basic else { anyhow::bail!("Basic brings a secret") };
    criterion.bench_function("secret known again", |bencher| {
        bencher.iter(|| authenticator.memory.recall(Some(client), black_box(&readings)).is_some());
    });
    criterion.bench_function("tag of a secret", |bencher| {
        bencher.iter(|| tagged(&snapshot, CLIENT, black_box(&readings)).is_some());
    });
    Ok(())
}

/// From the client to the token.
fn deciding(criterion: &mut Criterion, server: &InProcess) -> anyhow::Result<()> {
    let snapshot = server.assembled.server.registry.snapshot();
    let client = snapshot.client(CLIENT).context("the client is not known")?;
    let defaults = &server.assembled.server.defaults;
    let asked = RequestedAccess { scope: Some("api:read"), resources: Vec::new() };
    criterion.bench_function("grant decision", |bencher| {
        bencher.iter(|| {
            grant::decide(Profile::Default, client, &snapshot, defaults, black_box(&asked), Binding::default())
        });
    });

    let granted = grant::decide(Profile::Default, client, &snapshot, defaults, &asked, Binding::default())
        .ok()
        .context("nothing is granted")?;
    for alg in Alg::ALL {
        let key = Arc::new(Signer::Memory(SigningKey::generate(alg)?.0));
        let claims = [b'c'; 230];
        criterion.bench_function(&format!("signature {alg}"), |bencher| bencher.iter(|| key.sign(black_box(&claims))));
        criterion.bench_function(&format!("claims and signature {alg}"), |bencher| {
            bencher.iter(|| {
                mint(ISSUER, client, black_box(&granted), Arc::clone(&key), UnixTime(1_800_000_000)).now_or_never()
            });
        });
        let with_status = Grant { status: Some(StatusIndex::new(0, 54_321)), ..granted.clone() };
        criterion.bench_function(&format!("claims with a status index and signature {alg}"), |bencher| {
            bencher.iter(|| {
                mint(ISSUER, client, black_box(&with_status), Arc::clone(&key), UnixTime(1_800_000_000)).now_or_never()
            });
        });
    }
    Ok(())
}
