//! The schema in its two dialects: one says what the other says.

use std::collections::BTreeSet;

/// Tables, columns, whether they may be null, and constraint messages, read from the text of both files.
fn shape(sql: &str) -> BTreeSet<String> {
    let mut shape = BTreeSet::new();
    for table in sql.split("\ncreate table ").skip(1) {
        let (name, body) = table.split_once(" (\n").unwrap();
        for line in body.split("\n)").next().unwrap().lines().map(str::trim) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["constraint", ..] => {
                    shape.insert(format!(
                        "{name}: {}",
                        line.trim_start_matches("constraint ")
                            .trim_end_matches(')')
                            .split("\"\"")
                            .collect::<Vec<_>>()
                            .join("''")
                            .split('"')
                            .nth(1)
                            .unwrap()
                    ));
                }
                [column, kind, ..] if ["text", "bigint", "integer", "bytea", "blob"].contains(kind) => {
                    let kind = kind.replace("integer", "bigint").replace("blob", "bytea");
                    let required = line.contains("not null") || line.contains("primary key");
                    shape.insert(format!("{name}.{column} {kind}{}", if required { " not null" } else { "" }));
                }
                _ => {}
            }
        }
    }
    // A column that came later, with its constraint.
    for added in sql.split("\nalter table ").skip(1) {
        let statement = added.split(';').next().unwrap();
        let words: Vec<&str> = statement.split_whitespace().collect();
        let (table, what, column, kind) = match words.as_slice() {
            [table, "add", what, column, kind, ..] => (table, what, column, kind),
            // The collation and defaults of a column are not compared. The name of a dropped constraint stays in the
            // migration that made it.
            [_, "alter", "column", ..] | [_, "drop", "constraint", ..] => continue,
            _ => panic!("{statement}"),
        };
        if *what == "column" {
            let kind = kind.replace("integer", "bigint").replace("blob", "bytea");
            let required = if statement.contains("not null") { " not null" } else { "" };
            shape.insert(format!("{table}.{column} {kind}{required}"));
        }
        shape.extend(constraints(table, statement));
    }
    // SQLite changes a constraint in the text of its table.
    for changed in sql.split("\nupdate sqlite_schema ").skip(1) {
        let statement = changed.split(';').next().unwrap();
        let table = statement.rsplit("name = '").next().unwrap().trim_end_matches('\'');
        shape.extend(constraints(table, statement));
    }
    // SQLite cannot name a foreign key's message, nor look beyond a row in a check: triggers say these.
    // So do triggers of PostgreSQL where a check would need the time.
    for trigger in sql.split("\ncreate trigger ").skip(1) {
        let table = trigger.split(" on ").nth(1).unwrap().split_whitespace().next().unwrap();
        let message = ["raise(abort, '", "grantd_refuse('", "grantd_refuse_rule('", "grantd_refuse_own_issuer('"]
            .into_iter()
            .find_map(|call| trigger.split(call).nth(1));
        shape.extend(message.map(|rest| format!("{table}: {}", rest.split('\'').next().unwrap())));
    }
    shape
}

/// The messages of the constraints that a statement names.
fn constraints(table: &str, statement: &str) -> Vec<String> {
    let named = statement.split("constraint \"").skip(1);
    named.map(|rest| format!("{table}: {}", rest.split('"').next().unwrap())).collect()
}

/// The text of all migrations of a dialect.
fn schema_text(dialect: &str) -> String {
    let directory = format!("{}/migrations/{dialect}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn the_two_dialects_say_the_same() {
    let (postgres, sqlite) = (shape(&schema_text("postgres")), shape(&schema_text("sqlite")));
    assert!(postgres.len() > 50, "{}", postgres.len());
    let only_postgres: Vec<_> = postgres.difference(&sqlite).collect();
    let only_sqlite: Vec<_> = sqlite.difference(&postgres).collect();
    assert!(
        only_postgres.is_empty() && only_sqlite.is_empty(),
        "only in PostgreSQL: {only_postgres:#?}\nonly in SQLite: {only_sqlite:#?}"
    );
}

/// The change triggers of a watched table in SQLite, which has neither statement triggers nor loops. `id` is the column of
/// the id that they note; empty where they note the kind alone.
fn change_triggers(table: &str, kind: &str, id: &str) -> [String; 3] {
    let note = |row: &str| {
        let id = if id.is_empty() { "''".to_owned() } else { format!("{row}.{id}") };
        format!(
            "    insert into registry_change (kind, id, revision) select '{kind}', {id}, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;\n"
        )
    };
    let both = if id.is_empty() { note("new") } else { note("old") + &note("new") };
    [("inserted", "insert", note("new")), ("updated", "update", both), ("deleted", "delete", note("old"))].map(
        |(name, event, notes)| {
            format!(
                "create trigger {table}_{name} after {event} on {table} begin
    update registry_revision set revision = revision + 1;\n{notes}end;\n"
            )
        },
    )
}

#[test]
fn the_change_triggers_of_sqlite_follow_from_the_list_of_postgresql() {
    let (postgres, sqlite) = (schema_text("postgres"), schema_text("sqlite"));
    let lists = postgres.split("in select * from (values\n").skip(1);
    let watched: Vec<&str> = lists.flat_map(|list| list.split(") as t (").next().unwrap().lines()).collect();
    let mut triggers: Vec<String> = Vec::new();
    for line in &watched {
        let [_, table, _, kind, _, id, _] = line.split('\'').collect::<Vec<_>>()[..] else { panic!("{line}") };
        triggers.extend(change_triggers(table, kind, id));
    }
    assert!(watched.len() >= 9, "{watched:?}");
    // PostgreSQL watches this table by one trigger with a function of its own.
    triggers.extend(change_triggers("token_cutoff", "cutoff", ""));
    let missing: String = triggers.iter().filter(|trigger| !sqlite.contains(*trigger)).map(String::as_str).collect();
    assert!(missing.is_empty(), "migrations/sqlite has to hold, in this form:\n{missing}");
    // Besides these, a revoked token raises the revision, whose trigger migration 2 replaces, and an ended epoch.
    let raising = sqlite.matches("update registry_revision set revision = revision + 1").count();
    assert_eq!(
        raising,
        triggers.len() + 3,
        "migrations/sqlite raises the revision for tables that PostgreSQL does not watch"
    );
}
