-- What a resource server wants its introspection responses signed with, and how much may be put into tokens.
--
-- ../postgres/7_client_registration.sql is its twin and a test compares them.

-- RFC 9701 section 6; null for the server's default.
alter table client add column introspection_signed_response_alg text
    constraint "introspection_signed_response_alg: ES256 EdDSA PS256 or RS256"
        check (introspection_signed_response_alg is null or introspection_signed_response_alg in ('ES256', 'EdDSA', 'PS256', 'RS256'));

-- A token has to fit into a header field, and into what introspection reads. Rows that are there are looked at when read.
create trigger client_claims_on_insert before insert on client when length(new.claims) > 4096 begin
    select raise(abort, 'claims: at most 4096 characters');
end;
create trigger client_claims_on_update before update of claims on client when length(new.claims) > 4096 begin
    select raise(abort, 'claims: at most 4096 characters');
end;
