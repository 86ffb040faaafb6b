//! Lists and shows as people see them: tables, states in words and colours, times, terminals and pipes.

use grantd::model::time::Clock;

use crate::harness::Db;
use crate::process::daemon::Grantd;
use crate::pseudoterminal::Terminal;

on_both!(
    states_and_times_are_told_in_words,
    colours_follow_the_terminal_and_the_variables,
    a_terminal_cuts_what_a_pipe_prints_whole,
    every_list_has_a_heading_and_an_empty_one_says_so,
    json_is_the_same_whatever_the_look,
);

const DAY: i64 = 86400;

/// A database with the client `billing`, whose secrets are in every state.
async fn with_secrets(db: &Db) -> Grantd {
    let grantd = Grantd::new(db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "billing", "--scope", "invoices:read invoices:write", "--no-secret"]).await;
    let now = Clock::System.now().0;
    for (label, made, expires, revoked, used) in [
        ("revoked", -200, None, Some(-3), None),
        ("expired", -200, Some(-9), None, Some(-10)),
        ("ending", -200, Some(9), None, Some(-1)),
        ("unused", -300, None, None, Some(-120)),
        ("live", -200, None, None, Some(-2)),
    ] {
        grantd.ok(&["client", "secret", "add", "billing", "--label", label]).await;
        // A minute more, so that a slow test does not reach the next day.
        let at = |days: i64| now + days * DAY - if days < 0 { 60 } else { -60 };
        let sql = |days: Option<i64>| days.map_or_else(|| "null".to_owned(), |days| at(days).to_string());
        let (expires, revoked) = (sql(expires), sql(revoked));
        let made = at(made);
        db.sql(&format!(
            "update client_secret set created_at = {made}, expires_at = {expires}, revoked_at = {revoked} where label = '{label}'"
        ))
        .await
        .unwrap();
        if let Some(used) = used {
            let used = at(used);
            db.sql(&format!(
                "insert into client_secret_use (secret_id, last_used_at) select secret_id, {used} from client_secret where label = '{label}'"
            ))
            .await
            .unwrap();
        }
    }
    grantd
}

/// The words of the row that holds `word`, with two blanks or more between cells.
fn cells(text: &str, word: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {text}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

async fn states_and_times_are_told_in_words(db: Db) {
    let grantd = with_secrets(&db).await;
    let listed = grantd.ok(&["client", "secret", "list", "billing"]).await.stdout;
    assert_eq!(
        cells(&listed, "CLIENT"),
        ["CLIENT", "SECRET", "LABEL", "MADE", "EXPIRES", "LAST USED", "STATE"],
        "{listed}"
    );
    for (label, others) in [
        ("revoked", &["200 days ago", "never", "never", "REVOKED 3 days ago"]),
        ("expired", &["200 days ago", "9 days ago", "10 days ago", "EXPIRED 9 days ago"]),
        ("ending", &["200 days ago", "in 9 days", "1 day ago", "ends in 9 days"]),
        ("unused", &["300 days ago", "never", "120 days ago", "unused for 120 days"]),
        ("live", &["200 days ago", "never", "2 days ago", "live"]),
    ] {
        let cells = cells(&listed, &format!("  {label} "));
        let used = if label == "ending" { "24 hours ago" } else { others[2] };
        assert_eq!((cells[0].as_str(), cells[2].as_str()), ("billing", label), "{listed}");
        assert_eq!(cells[3..], [others[0], others[1], used, others[3]], "{listed}");
    }
    let utc = grantd.ok(&["client", "secret", "list", "billing", "--utc"]).await.stdout;
    assert!(!utc.contains(" ago") && !utc.contains("in 9") && utc.matches("Z  ").count() >= 10, "{utc}");
    assert!(utc.contains("unused since 20") && utc.contains("ends 20") && utc.contains("REVOKED 20"), "{utc}");

    // The columns of all rows begin at the same place.
    let state = listed.lines().next().unwrap().find("STATE").unwrap();
    assert!(
        listed.lines().all(|line| line.as_bytes()[state - 1] == b' ' && line.as_bytes()[state] != b' '),
        "{listed}"
    );
    assert!(!listed.lines().any(|line| line.ends_with(' ')), "{listed:?}");

    let shown = grantd.ok(&["client", "show", "billing"]).await.stdout;
    assert!(shown.starts_with("client_id             billing\n"), "{shown}");
    assert!(shown.contains("\nstate                 enabled\n") && shown.contains("EXPIRED 9 days ago\n"), "{shown}");
    let listed = grantd.ok(&["client", "ls"]).await.stdout;
    assert_eq!(cells(&listed, "billing")[1], "enabled", "{listed}");
    db.sql("update client_secret set expires_at = 1000000000").await.unwrap();
    let listed = grantd.ok(&["client", "ls"]).await.stdout;
    assert_eq!(cells(&listed, "billing")[1], "credentials EXPIRED", "{listed}");
    grantd.ok(&["client", "disable", "billing"]).await;
    let listed = grantd.ok(&["client", "ls"]).await.stdout;
    assert_eq!(cells(&listed, "billing")[1], "DISABLED", "{listed}");
}

async fn colours_follow_the_terminal_and_the_variables(db: Db) {
    let grantd = with_secrets(&db).await;
    let list = ["client", "secret", "list", "billing"];
    let piped = grantd.ok(&list).await.stdout;
    assert!(!piped.contains('\u{1b}'), "{piped:?}");
    let forced = grantd.with("CLICOLOR_FORCE", "1").ok(&list).await.stdout;
    for coloured in
        ["\u{1b}[31mEXPIRED 9 days ago\u{1b}[0m", "\u{1b}[33mends in 9 days\u{1b}[0m", "\u{1b}[32mlive\u{1b}[0m"]
    {
        assert!(forced.contains(coloured), "{forced:?}");
    }
    let terminal = Terminal::new(200);
    let shown = terminal.run(grantd.command(&list), "").await.text;
    assert!(shown.contains("\u{1b}[31mREVOKED 3 days ago\u{1b}[0m"), "{shown:?}");
    for (name, value) in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
        let mut command = grantd.command(&list);
        command.env(name, value);
        let shown = Terminal::new(200).run(command, "").await.text;
        assert!(shown.contains("REVOKED 3 days ago") && !shown.contains('\u{1b}'), "{name}: {shown:?}");
    }
}

async fn a_terminal_cuts_what_a_pipe_prints_whole(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let scope: Vec<String> = (0..30).map(|n| format!("service:action{n}")).collect();
    let (scope, id) = (scope.join(" "), "a-client-with-an-id-that-is-long-and-has-to-be-copied");
    grantd.ok(&["client", "create", id, "--scope", &scope]).await;
    let piped = grantd.ok(&["client", "list"]).await.stdout;
    assert!(piped.contains(&scope) && piped.contains(id), "{piped}");
    let mut command = grantd.command(&["client", "list"]);
    command.env("NO_COLOR", "1");
    let shown = Terminal::new(100).run(command, "").await.text;
    assert!(shown.contains(id) && shown.contains('…') && !shown.contains(&scope), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
}

async fn every_list_has_a_heading_and_an_empty_one_says_so(db: Db) {
    let grantd = Grantd::new(&db);
    let status = grantd.ok(&["migrate", "--status"]).await.stdout;
    assert_eq!(cells(&status, "STATE"), ["STATE", "KIND", "VERSION", "NAME"]);
    assert_eq!(cells(&status, "schema")[..3], ["PENDING", "schema", "1"], "{status}");
    grantd.ok(&["migrate"]).await;
    for list in [
        &["client", "list"][..],
        &["client", "key", "list"],
        &["client", "cert", "list"],
        &["client", "secret", "expiring", "--within", "30d"],
        &["resource", "list"],
        &["key", "list"],
        &["key", "tag", "list"],
    ] {
        let done = grantd.ok(list).await;
        assert!(done.stdout.is_empty() && done.stderr == "the list is empty\n", "{list:?}: {done:?}");
        assert_eq!(grantd.ok(&[list, &["--json"]].concat()).await.stdout, "[]\n");
    }
    grantd.ok(&["resource", "create", "https://api.test", "--scope", "a b", "--token-ttl", "10m"]).await;
    let listed = grantd.ok(&["resource", "ls"]).await.stdout;
    assert_eq!(cells(&listed, "RESOURCE"), ["RESOURCE", "ALG", "TOKEN TTL", "SCOPE", "INTROSPECTED BY"]);
    assert_eq!(cells(&listed, "https"), ["https://api.test", "default", "10m", "a b"], "{listed}");
    grantd.ok(&["key", "generate"]).await;
    grantd.ok(&["key", "rotate"]).await;
    let listed = grantd.ok(&["key", "ls"]).await.stdout;
    assert_eq!(cells(&listed, "ALG"), ["ALG", "STATE", "KEY", "MADE", "SIGNS FROM", "CHANGES"]);
    assert!(
        cells(&listed, "next").last().unwrap().starts_with("in 6 minutes") && listed.contains("  active  "),
        "{listed}"
    );
    // The first key signs no longer, once the second one does.
    db.sql("update signing_key set active_at = active_at - 4000").await.unwrap();
    let listed = grantd.ok(&["key", "ls"]).await.stdout;
    assert!(listed.contains("  RETIRING  ") && listed.contains("  active "), "{listed}");
}

async fn json_is_the_same_whatever_the_look(db: Db) {
    let grantd = with_secrets(&db).await;
    for list in [
        &["client", "list", "--json"][..],
        &["client", "show", "billing", "--json"],
        &["client", "secret", "list", "billing", "--json"],
        &["migrate", "--status", "--json"],
    ] {
        let plain = grantd.ok(list).await.stdout;
        let other = grantd.with("CLICOLOR_FORCE", "1").ok(&[list, &["--utc"]].concat()).await.stdout;
        assert_eq!(plain, other, "{list:?}");
        assert_eq!(plain.lines().count(), 1, "{plain}");
        let mut shown = Terminal::new(40).run(grantd.command(list), "").await.text;
        shown.retain(|character| character != '\r');
        assert_eq!(plain, shown, "{list:?}");
    }
    let status = grantd.ok(&["migrate", "--status", "--json"]).await.stdout;
    assert!(
        status.starts_with("[{\"kind\":\"schema\",\"version\":1,\"name\":\"schema\",\"applied\":true}"),
        "{status}"
    );
}
