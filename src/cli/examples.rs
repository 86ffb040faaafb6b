//! Examples in the help of each command that takes arguments. A test parses each with the parser of the command line.

use clap::Command;

/// Adds the examples to the help of a command and of those below it.
pub(super) fn with_examples(command: Command) -> Command {
    below(command, "")
}

fn below(mut command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    for name in names {
        let at = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(name, |subcommand| below(subcommand, &at));
    }
    match EXAMPLES.iter().find(|(of, _)| *of == path) {
        Some((_, lines)) => command.after_help(format!("Examples:\n  {}", lines.join("\n  "))),
        None => command,
    }
}

/// Command, and its examples.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("", &["grantd dev", "grantd client ls --utc", "grantd serve --config /etc/grantd/grantd.toml"]),
    ("dev", &["grantd dev", "grantd dev --client-id tests --client-secret-file tests.secret --scope a"]),
    (
        "token get",
        &[
            "grantd token get --client billing --secret-file billing.secret --scope invoices:read",
            "grantd token get --client billing --key billing.pem --issuer https://login.example.com",
        ],
    ),
    ("token inspect", &["grantd token inspect --issuer https://login.example.com < token.jwt"]),
    ("explain", &["grantd explain", "grantd explain --client payroll --since 1h", "grantd explain wrong_secret"]),
    ("status", &["grantd status", "grantd status --watch"]),
    ("import hydra", &["grantd import hydra clients.json --dry-run"]),
    ("import keycloak", &["grantd import keycloak realm-export.json --dry-run"]),
    (
        "database copy",
        &["grantd database copy --from sqlite:/var/lib/grantd/grantd.db --to postgres://grantd@db.example.com/grantd"],
    ),
    ("database unfreeze", &["grantd database unfreeze --url sqlite:/var/lib/grantd/grantd.db"]),
    (
        "trusted-issuer create",
        &[
            "grantd trusted-issuer create https://token.actions.githubusercontent.com --kind github",
            "grantd trusted-issuer create spiffe://example.org --kind spiffe --bundle-uri https://spire.example.org/bundle",
        ],
    ),
    ("trusted-issuer show", &["grantd trusted-issuer show https://gitlab.com"]),
    ("trusted-issuer set", &["grantd trusted-issuer set https://gitlab.com --max-lifetime 30m"]),
    ("trusted-issuer enable", &["grantd trusted-issuer enable https://gitlab.com"]),
    ("trusted-issuer disable", &["grantd trusted-issuer disable https://gitlab.com"]),
    ("trusted-issuer delete", &["grantd trusted-issuer delete https://gitlab.com --with-rules"]),
    (
        "client federation add",
        &[
            "grantd client federation add deploy --issuer https://token.actions.githubusercontent.com --subject 'repo:acme/app:*' --claim repository_id=74 --claim repository_owner_id=65",
            "grantd client federation add deploy --like token.jwt",
        ],
    ),
    ("client federation list", &["grantd client federation list deploy"]),
    ("client federation remove", &["grantd client federation remove deploy 0d5c1f0ab7e24f5f"]),
    ("federation test", &["grantd federation test < token.jwt", "grantd federation test --client deploy < token.jwt"]),
    ("migrate", &["grantd migrate --status", "grantd migrate --lock-timeout 5m"]),
    (
        "client create",
        &[
            "grantd client create billing --scope \"invoices:read invoices:write\" --default-scope invoices:read",
            "grantd client create billing --scope invoices:read --secret-file billing.secret --expires-in 90d",
            "grantd client create reports --scope invoices:read --no-secret --require-dpop",
            "grantd client create billing --scope invoices:read --sql > seeds/7_billing.sql",
        ],
    ),
    ("client list", &["grantd client list --unused 90d", "grantd client ls --owner payments --expiring 30d"]),
    ("client show", &["grantd client show billing", "grantd client show billing --json"]),
    ("client enable", &["grantd client enable billing"]),
    ("client disable", &["grantd client disable billing"]),
    ("client revoke-tokens", &["grantd client revoke-tokens billing"]),
    ("client delete", &["grantd client delete billing", "grantd client rm billing --yes"]),
    (
        "client set",
        &[
            "grantd client set billing --scope \"invoices:read invoices:write\"",
            "grantd client set billing --resource https://api.example.com --token-ttl 10m",
            "grantd client set billing --claim team=finance --claim-json 'roles=[\"reader\"]'",
            "grantd client set billing --auth-methods private_key_jwt",
        ],
    ),
    (
        "client secret add",
        &["grantd client secret add billing --expires-in 90d", "grantd client secret add billing --label staging"],
    ),
    ("client secret import", &["grantd client secret import billing < billing.secret"]),
    (
        "client secret rotate",
        &[
            "grantd client secret rotate billing --overlap 7d --secret-file billing.secret.new",
            "grantd client secret rotate billing --expires-in 90d",
        ],
    ),
    ("client secret list", &["grantd client secret list billing", "grantd client secret ls billing --utc"]),
    ("client secret revoke", &["grantd client secret revoke billing k5jq3x2mabtqlw7e"]),
    ("client secret retire", &["grantd client secret retire billing k5jq3x2mabtqlw7e --if-unused 24h"]),
    ("client secret expiring", &["grantd client secret expiring --within 30d"]),
    (
        "client key add",
        &[
            "grantd client key add billing --jwk billing.jwks.json",
            "openssl pkey -in billing.pem -pubout | grantd client key add billing --jwk - --alg ES256",
        ],
    ),
    ("client key list", &["grantd client key list billing", "grantd client key ls"]),
    ("client key remove", &["grantd client key remove billing 2026-01"]),
    (
        "client cert add",
        &[
            "grantd client cert add billing --san-uri spiffe://example.com/billing",
            "grantd client cert add billing --subject-dn \"CN=billing,O=Example,C=DE\"",
            "grantd client cert add billing --self-signed billing.pem",
        ],
    ),
    ("client cert list", &["grantd client cert list billing", "grantd client cert ls"]),
    ("client cert remove", &["grantd client cert remove billing n4xw2kpzs6vyhqab"]),
    (
        "resource create",
        &[
            "grantd resource create https://api.example.com --scope \"invoices:read invoices:write\"",
            "grantd resource create https://api.example.com --scope invoices:read --token-ttl 10m --introspect-by api",
            "grantd resource create https://api.example.com --scope invoices:read --status-list",
        ],
    ),
    ("resource show", &["grantd resource show https://api.example.com"]),
    (
        "resource set",
        &[
            "grantd resource set https://api.example.com --scope \"invoices:read invoices:write\"",
            "grantd resource set https://api.example.com --token-typ JWT --default-alg",
            "grantd resource set https://api.example.com --status-list true",
        ],
    ),
    ("resource delete", &["grantd resource delete https://api.example.com"]),
    ("key show", &["grantd key show 2026-01", "grantd key show 2026-01 --pem > grantd.pem"]),
    ("key generate", &["grantd key generate --alg EdDSA"]),
    ("key rotate", &["grantd key rotate", "grantd key rotate --alg ES256"]),
    ("key reseal", &["grantd key reseal", "grantd key reseal --json"]),
    ("key remove", &["grantd key remove 2026-01 --now"]),
    ("key import", &["grantd key import signing.pem --alg RS256"]),
    ("key attach", &["grantd key attach --pkcs11 'pkcs11:token=grantd;object=signing-2027'"]),
    ("key tag remove", &["grantd key tag remove 0f1e2d3c4b5a6978"]),
    ("token revoke-all", &["grantd token revoke-all --now"]),
    ("health", &["grantd health", "grantd health --url http://127.0.0.1:9090/readyz"]),
    (
        "completions",
        &["source <(grantd completions bash)", "grantd completions fish > ~/.config/fish/completions/grantd.fish"],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::Arguments;

    /// The words of the last `grantd …` in a line, as a shell reads them.
    fn words(line: &str) -> Vec<String> {
        let command = &line[line.rfind("grantd ").unwrap()..];
        let (mut words, mut quote, mut word) = (Vec::new(), None, String::new());
        for character in command.split([')', '<', '>', '|']).next().unwrap().trim().chars() {
            match (character, quote) {
                ('\'' | '"', None) => quote = Some(character),
                (end, Some(begin)) if end == begin => quote = None,
                (' ', None) => words.push(std::mem::take(&mut word)),
                (other, _) => word.push(other),
            }
        }
        words.push(word);
        words
    }

    fn visible(command: &Command, path: &str, found: &mut BTreeMap<String, bool>) {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            let at = format!("{path} {}", below.get_name()).trim().to_owned();
            let takes = below.get_arguments().any(|argument| !argument.is_global_set());
            found.insert(at.clone(), takes && !below.has_subcommands());
            visible(below, &at, found);
        }
    }

    #[test]
    fn each_command_with_arguments_has_examples() {
        let mut commands = BTreeMap::from([(String::new(), true)]);
        visible(&crate::cli::command(), "", &mut commands);
        for (command, takes_arguments) in &commands {
            let has = EXAMPLES.iter().any(|(of, lines)| of == command && !lines.is_empty());
            assert!(has || !takes_arguments, "`grantd {command}` takes arguments and has no example in examples.rs");
        }
        let root = crate::cli::command();
        for (of, _) in EXAMPLES {
            // Also one that is hidden, since this program was built without what it needs.
            let found = of.split_whitespace().try_fold(&root, |above, name| above.find_subcommand(name));
            assert!(found.is_some(), "there is no `grantd {of}`");
        }
    }

    #[test]
    fn each_example_parses_as_the_command_that_it_shows() {
        for (of, lines) in EXAMPLES {
            for line in *lines {
                let words = words(line);
                Arguments::parsed(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
                let (root, mut path) = (crate::cli::command(), Vec::new());
                let mut command = &root;
                while let Some(below) = words.get(path.len() + 1).and_then(|word| command.find_subcommand(word)) {
                    path.push(below.get_name());
                    command = below;
                }
                assert!(of.is_empty() || path.join(" ") == *of, "{line} stands at {of}");
            }
        }
    }

    #[test]
    fn the_help_shows_them() {
        let help = crate::cli::command().find_subcommand_mut("migrate").unwrap().render_long_help().to_string();
        assert!(help.contains("Examples:\n  grantd migrate --status\n"), "{help}");
    }
}
