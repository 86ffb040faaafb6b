-- What a resource server wants its introspection responses signed with, and how much may be put into tokens.
--
-- ../sqlite/7_client_registration.sql is its twin and a test compares them.

-- RFC 9701 section 6; null for the server's default.
alter table client add column introspection_signed_response_alg text
    constraint "introspection_signed_response_alg: ES256 EdDSA PS256 or RS256"
        check (introspection_signed_response_alg in ('ES256', 'EdDSA', 'PS256', 'RS256'));

-- A token has to fit into a header field, and into what introspection reads. Rows that are there are looked at when read.
alter table client add constraint "claims: at most 4096 characters" check (length(claims) <= 4096) not valid;
