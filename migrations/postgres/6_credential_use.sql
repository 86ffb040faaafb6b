-- When keys and certificates of clients were last used, and when a registered certificate ends.
--
-- ../sqlite/6_credential_use.sql is its twin and a test compares them.

-- Like client_secret_use: written in batches and watched by nobody, so without change triggers.
create table client_key_use (
    client_id    text not null,
    kid          text not null,
    last_used_at bigint not null,
    primary key (client_id, kid),
    foreign key (client_id, kid) references client_key (client_id, kid) on delete cascade
);
create table client_certificate_use (
    cert_id      text primary key references client_certificate (cert_id) on delete cascade,
    last_used_at bigint not null
);

-- From then on the registration no longer counts. A self-signed certificate brings its own end along.
alter table client_certificate add column expires_at bigint;
