-- What can be loosened for one client or one resource whose library was written against another server.
--
-- ../sqlite/10_foreign_clients.sql is its twin and a test compares them.

-- Seconds from iat, or from now, to exp of an assertion; null for 300. Authlib's live an hour.
alter table client add column assertion_lifetime bigint
    constraint "assertion_lifetime: seconds, from 60 to 3600"
        check (assertion_lifetime between 60 and 3600);

-- Whom an assertion may be addressed to. draft-ietf-oauth-rfc7523bis section 4 wants the issuer; many libraries send the URL
-- of the token endpoint.
alter table client add column assertion_audience text not null default 'issuer'
    constraint "assertion_audience: issuer or token-endpoint"
        check (assertion_audience in ('issuer', 'token-endpoint'));

-- The typ of tokens for a resource. RFC 9068 section 2.1 says at+jwt, which some libraries of resource servers refuse.
alter table resource add column token_typ text not null default 'at+jwt'
    constraint "token_typ: at+jwt or JWT"
        check (token_typ in ('at+jwt', 'JWT'));
